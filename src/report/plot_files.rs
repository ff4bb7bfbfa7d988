//! The files of figures: what is in `plots/`, and what goes from it.
//!
//! Owns names, formats and sizes of the files. Knows nothing of cells.

use super::ReportError;
use super::draw::{self, DrawError};
use super::figure::Figure;
use crate::config::plots::PlotWidth;
use crate::record::{Store, StoreError, sha256};
use std::path::{Path, PathBuf};

/// Pixels of a PNG to one of the figure: 300 to the inch.
const PNG_SCALE: f64 = 3.125;
/// What is written of each figure.
const FORMATS: [&str; 4] = ["svg", "png", "pdf", "csv"];

/// The figures as they are drawn.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// Each with its file name, and the same as SVG.
    pub figures: Vec<DrawnFigure>,
    /// What a reader is warned of.
    pub warnings: Vec<String>,
}

/// A figure that is drawn.
#[derive(Debug)]
pub(super) struct DrawnFigure {
    /// The file's name without extension.
    pub name: String,
    /// The drawing.
    pub svg: String,
}

/// Writes every figure, and removes those that an earlier report drew and this one does not.
///
/// # Errors
/// When a figure can't be drawn, or a file can't be written.
pub(super) fn write_all<'a>(
    store: &Store,
    figures: impl Iterator<Item = &'a (String, Figure)>,
    width: PlotWidth,
) -> Result<Drawn, ReportError> {
    let mut drawn = Drawn::default();
    for (name, figure) in figures {
        let failed = |source| ReportError::Draw { name: name.clone(), source };
        let (figure, svg) = fitted(figure, width).map_err(failed)?;
        if width == PlotWidth::Column && figure.width != super::figure::COLUMN {
            drawn.warnings.push(format!("plots/{name} does not fit into a column: it is as wide as a page"));
        }
        write(store, name, &figure, &svg).map_err(|error| match error {
            WriteError::Draw(source) => failed(source),
            WriteError::Store(error) => ReportError::Store(error),
        })?;
        drawn.figures.push(DrawnFigure { name: name.clone(), svg });
    }
    remove_earlier(store, |name| drawn.figures.iter().any(|figure| figure.name == name));
    Ok(drawn)
}

/// A figure in the width that is wanted, or as it is where it has no room for its labels there.
fn fitted(figure: &Figure, width: PlotWidth) -> Result<(Figure, String), DrawError> {
    let mut figure = figure.clone();
    figure.say_what_is_too_small();
    if width == PlotWidth::Column {
        let narrow = figure.clone().in_a_column();
        match draw::svg(&narrow) {
            Ok(svg) => return Ok((narrow, svg)),
            Err(DrawError::TooSmall { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let svg = draw::svg(&figure)?;
    Ok((figure, svg))
}

enum WriteError {
    Draw(DrawError),
    Store(StoreError),
}

impl From<DrawError> for WriteError {
    fn from(error: DrawError) -> Self {
        Self::Draw(error)
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn write(store: &Store, name: &str, figure: &Figure, svg: &str) -> Result<(), WriteError> {
    // Pixels take a hundred times as long as the SVG of the same figure, so they carry its digest.
    let digest = digest_of(svg.as_bytes());
    if !store.mentions(&path(name, "png"), digest.as_bytes()) {
        store.write(&path(name, "png"), &draw::png(figure, PNG_SCALE, &digest)?)?;
    }
    store.write(&path(name, "svg"), svg.as_bytes())?;
    store.write(&path(name, "pdf"), &draw::pdf(figure)?)?;
    Ok(store.write(&path(name, "csv"), figure.csv().as_bytes())?)
}

fn path(name: &str, extension: &str) -> PathBuf {
    Path::new("plots").join(format!("{name}.{extension}"))
}

fn digest_of(svg: &[u8]) -> String {
    format!("SVG with SHA-256 {}", sha256(svg))
}

/// Removes plots that an earlier report drew and this one does not, since they show other cells. What is not ours, or was
/// changed by hand, stays: its pixels do not carry its digest.
fn remove_earlier(store: &Store, is_drawn: impl Fn(&str) -> bool) {
    for name in store.stems(Path::new("plots"), "svg").iter().filter(|name| !is_drawn(name)) {
        let svg = store.bytes(&path(name, "svg")).unwrap_or_default();
        if store.mentions(&path(name, "png"), digest_of(&svg).as_bytes()) {
            FORMATS.iter().for_each(|extension| store.remove(&path(name, extension)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::{Axis, BarSeries, Category, HeatMap, Marks, Panel};

    /// Three panels in two columns, of so many bars.
    fn figure(bars: usize, label: &str) -> Figure {
        let categories = (0..bars).map(|at| Category::from(format!("{label} {at}"))).collect();
        let values = (0..bars).map(|at| (at as f64 + 1.0).into()).collect();
        let series = vec![BarSeries { name: "s".into(), style: 1, values }];
        let marks = Marks::Bars { categories, series };
        let panel = Panel::new(Axis::linear(""), Axis::linear("size"), marks);
        Figure { columns: 2, ..Figure::new(vec![panel.clone(), panel.clone(), panel], 680, 500) }
    }

    #[test]
    fn a_figure_fits_a_column_or_stays_as_it_is() {
        let (narrow, svg) = fitted(&figure(3, "setup"), PlotWidth::Column).unwrap();
        assert_eq!((narrow.columns, narrow.width, narrow.height), (1, 340, 750));
        assert!(svg.contains("width=\"340\" height=\"750\""), "{}", &svg[..120]);
        // Labels on the left that are as long as a column is wide leave no room for the map.
        let map = HeatMap {
            columns: vec!["0".into()],
            rows: vec!["a_name_of_a_module_that_is_longer_than_any_of_them_should_be".into()],
            values: vec![vec![Some(0.5)]],
            chance: Vec::new(),
            scale: Axis::linear("Sparsity"),
        };
        let map = Panel::new(Axis::linear("Block"), Axis::linear(""), Marks::Heat(map));
        let map = Figure::new(vec![map], 680, 200);
        assert!(matches!(draw::svg(&map.clone().in_a_column()), Err(DrawError::TooSmall { .. })));
        assert_eq!(fitted(&map, PlotWidth::Column).unwrap().0.width, 680);
        let (page, _) = fitted(&figure(3, "setup"), PlotWidth::Page).unwrap();
        assert_eq!((page.columns, page.width), (2, 680));
    }

    #[test]
    fn what_an_earlier_report_drew_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let there = |name: &str| FORMATS.map(|extension| folder.path().join(path(name, extension)).is_file());
        let all = [("a".to_owned(), figure(2, "x")), ("b".to_owned(), figure(4, "y"))];
        write_all(&store, all.iter(), PlotWidth::Page).unwrap();
        assert_eq!((there("a"), there("b")), ([true; 4], [true; 4]));
        write_all(&store, all[..1].iter(), PlotWidth::Page).unwrap();
        assert_eq!((there("a"), there("b")), ([true; 4], [false; 4]));
    }
}
