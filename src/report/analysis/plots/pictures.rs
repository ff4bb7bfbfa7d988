//! Pictures of masks: each pixel the share that is kept, with the shares of rows and columns along the sides.

use super::{Family, PAGE, height, place};
use crate::record::{Key, Picture};
use crate::report::figure::{Axis, Figure, Marks, Panel, Profile, Raster};

/// The most figures of an analysis, and the most panels of one.
const MOST_FIGURES: usize = 12;
const MOST_PANELS: usize = 9;
/// The most pixels of a figure's images together: a file of 300 KB. Those of a panel are no more than print shows.
const MOST_PIXELS: usize = 400_000;
const MOST_SIDE: usize = 384;

/// A figure for each place and order, a panel a source.
pub(super) fn all(family: &Family<'_>) -> Vec<(String, Figure)> {
    let pictures: Vec<(Key, &Picture)> = family.results.iter().flat_map(|result| result.pictures()).collect();
    // Repeats over seeds look alike: the first is shown.
    let of = |(key, picture): &(Key, &Picture)| (key.layer, super::part(key), picture.order.clone());
    let mut figures = Vec::new();
    for wanted in super::distinct(pictures.iter().map(of)).into_iter().take(MOST_FIGURES) {
        let mut shown: Vec<&(Key, &Picture)> = Vec::new();
        for picture in pictures.iter().filter(|picture| of(picture) == wanted) {
            if !shown.iter().any(|(key, _)| key.source == picture.0.source) && shown.len() < MOST_PANELS {
                shown.push(picture);
            }
        }
        let (layer, part, order) = wanted;
        let side = MOST_SIDE.min((MOST_PIXELS as f64 / shown.len().max(1) as f64).sqrt() as usize);
        let panels: Vec<Panel> = shown.iter().filter_map(|(key, picture)| panel(family, key, picture, side)).collect();
        if panels.is_empty() {
            continue;
        }
        let layer = layer.map(|layer| format!("layer{layer}-")).unwrap_or_default();
        let order = if order == "identity" { String::new() } else { format!("-{}", order.replace(':', "-")) };
        let columns = if panels.len() > 4 { 3 } else { panels.len().min(2) };
        let width = if panels.len() == 1 { PAGE * 6 / 10 } else { PAGE };
        let each = if columns == 3 { 250 } else { 330 };
        let title = shown.first().map(|(key, picture)| heading(key, picture)).unwrap_or_default();
        let height = height(panels.len(), columns, each) + 45;
        figures
            .push((format!("{layer}{part}{order}"), Figure { title, columns, ..Figure::new(panels, width, height) }));
    }
    figures
}

fn heading(key: &Key, picture: &Picture) -> String {
    let order = match picture.order.split_once(':') {
        Some(("reference", feature)) => format!("features from near to far of feature {feature}"),
        _ if picture.order == "identity" => "features as they are".into(),
        _ => format!("features in the order {}", picture.order),
    };
    format!("{}: {order}", place(key))
}

fn panel(family: &Family<'_>, key: &Key, picture: &Picture, side: usize) -> Option<Panel> {
    let reference = picture.order.strip_prefix("reference:").and_then(|feature| feature.parse::<u64>().ok());
    let pixels = Pixels::of(picture).smaller(side);
    if pixels.values.is_empty() {
        return None;
    }
    let profile =
        |label: &str, values: Vec<f64>| Some(Profile { label: label.into(), values }).filter(|p| !p.values.is_empty());
    let (above, beside) = match reference {
        Some(reference) => {
            (None, profile("differs from the reference", distances(family, key, reference, pixels.height)))
        }
        None => {
            let kept = |of: &str| format!("kept of each {of}");
            (profile(&kept("column"), pixels.columns.clone()), profile(&kept("row"), pixels.rows.clone()))
        }
    };
    let (x, y) = match picture.transposed {
        true => ("Position in a feature", "Rank of the feature"),
        false => ("Input feature (column)", "Output feature (row)"),
    };
    let axis = |label: &str, length: usize| Axis { range: Some((0.0, length.max(1) as f64)), ..Axis::linear(label) };
    let kept = 100.0 * pixels.values.iter().sum::<f64>() / pixels.values.len().max(1) as f64;
    let raster = Raster {
        width: pixels.width,
        height: pixels.height,
        pixels: pixels.values,
        above,
        beside,
        cuts: Vec::new(),
        label: "share kept".into(),
    };
    let marks = Marks::Raster(raster);
    let title = format!("{}: {kept:.0}% kept", key.source);
    Some(Panel { title, legend: true, ..Panel::new(axis(x, picture.cols), axis(y, picture.rows), marks) })
}

/// The distance of each row of pixels from the reference, as the rows of the table have it.
fn distances(family: &Family<'_>, key: &Key, reference: u64, height: usize) -> Vec<f64> {
    let mine = family.rows("gradient").filter(|line| line.key == *key && line.count("reference") == Some(reference));
    let mut ranked: Vec<(f64, f64)> =
        mine.filter_map(|line| Some((line.number("rank")?, line.number("hamming")?))).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    if ranked.is_empty() || height == 0 {
        return Vec::new();
    }
    let at = |row: usize| ranked[(row * ranked.len() / height).min(ranked.len() - 1)].1;
    (0..height).map(at).collect()
}

/// A picture's numbers.
struct Pixels {
    width: usize,
    height: usize,
    values: Vec<f64>,
    /// Along the sides, empty where they are not kept.
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl Pixels {
    /// Of a file that may be anybody's: what has not as many pixels as it says has none.
    fn of(picture: &Picture) -> Self {
        let values = picture.densities();
        let whole = picture.width.checked_mul(picture.height) == Some(values.len());
        let side = |values: &[f64], length: usize| if values.len() == length { values.to_vec() } else { Vec::new() };
        Self {
            width: if whole { picture.width } else { 0 },
            height: if whole { picture.height } else { 0 },
            values: if whole { values } else { Vec::new() },
            rows: side(&picture.row_marginal, picture.height),
            columns: side(&picture.col_marginal, picture.width),
        }
    }

    /// Means of blocks of pixels, at most so many to a side.
    fn smaller(self, side: usize) -> Self {
        let (width, height) = (self.width.min(side.max(1)), self.height.min(side.max(1)));
        if (width, height) == (self.width, self.height) {
            return self;
        }
        let columns = cuts(self.width, width);
        let rows = cuts(self.height, height);
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
            sum / count.max(1) as f64
        };
        let mut values = Vec::with_capacity(width * height);
        for (top, bottom) in &rows {
            for (left, right) in &columns {
                let block =
                    (*top..*bottom).flat_map(|row| self.values[row * self.width..][*left..*right].iter().copied());
                values.push(mean(&mut { block }));
            }
        }
        let side = |values: &[f64], cuts: &[(usize, usize)]| match values.is_empty() {
            true => Vec::new(),
            false => cuts.iter().map(|(from, to)| mean(&mut values[*from..*to].iter().copied())).collect(),
        };
        Self { width, height, values, rows: side(&self.rows, &rows), columns: side(&self.columns, &columns) }
    }
}

/// `length` cut into `parts` whose sizes differ by one at most.
fn cuts(length: usize, parts: usize) -> Vec<(usize, usize)> {
    (0..parts).map(|at| (at * length / parts, (at + 1) * length / parts)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_pixels_are_their_means() {
        let pixels = Pixels {
            width: 4,
            height: 2,
            values: vec![0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0],
            rows: vec![0.75, 0.5],
            columns: vec![0.5, 0.5, 0.5, 1.0],
        };
        let smaller = pixels.smaller(2);
        assert_eq!((smaller.width, smaller.height), (2, 2));
        assert_eq!(smaller.values, [0.5, 1.0, 0.5, 0.5]);
        assert_eq!((smaller.rows, smaller.columns), (vec![0.75, 0.5], vec![0.5, 0.75]));
        assert_eq!(cuts(7, 3), [(0, 2), (2, 4), (4, 7)]);
    }
}
