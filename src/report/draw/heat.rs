//! Heat maps: a rectangle of colour per row and column, with its number where there is room.
//!
//! Owns how a heat map's labels thin out and what its colours stand for. Knows nothing of other panels.

use super::display_list::{Anchor, Point, Rect, Shape, Text};
use super::font;
use super::number;
use super::style::{GRID, TICK, VALUE, ramp};
use crate::report::figure::HeatMap;

/// Between neighbouring labels.
const LABEL_GAP: f64 = 4.0;
/// Between a number and the border of its rectangle.
const VALUE_GAP: f64 = 1.5;
/// Smaller digits can't be read in print: 4 points.
const SMALLEST: f64 = 5.4;
/// The size of a number by chance beside the number's.
const CHANCE: f64 = 0.9;
/// Rectangles of this size have a line between them.
const PARTED: f64 = 5.0;
/// Pieces of a legend's colours.
const PIECES: usize = 65;

/// A heat map in a plot of known size.
pub(super) struct Heat<'a> {
    map: &'a HeatMap,
    plot: Rect,
}

/// The numbers that the lightest and the darkest colour stand for.
pub(super) fn range(map: &HeatMap) -> (f64, f64) {
    let (low, high) = map.scale.range.unwrap_or_else(|| {
        numbers(map).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    });
    match (low < high, low.is_finite()) {
        (true, _) => (low, high),
        // Of one number alone, the lightest colour.
        (false, true) => (low, low + 1.0),
        (false, false) => (0.0, 1.0),
    }
}

fn numbers(map: &HeatMap) -> impl Iterator<Item = f64> {
    map.values.iter().flatten().flatten().copied().filter(|v| v.is_finite())
}

/// All colours from the lowest, left, to the highest.
pub(super) fn draw_ramp(rect: &Rect, out: &mut Vec<Shape>) {
    let piece = rect.width() / PIECES as f64;
    for index in 0..PIECES {
        let left = rect.left + index as f64 * piece;
        // Each reaches below the next, so that rounding leaves no gap.
        let right = (left + 2.0 * piece).min(rect.right);
        let (color, _) = ramp(index as f64 / (PIECES - 1) as f64);
        out.push(Shape::Box { rect: Rect { left, right, ..*rect }, color, alpha: 1.0 });
    }
}

impl<'a> Heat<'a> {
    pub(super) fn new(map: &'a HeatMap, plot: Rect) -> Self {
        Self { map, plot }
    }

    pub(super) fn has_data(&self) -> bool {
        numbers(self.map).next().is_some()
    }

    /// Width of the widest row label.
    pub(super) fn row_width(&self) -> f64 {
        self.map.rows.iter().map(|label| font::width(label, TICK)).fold(0.0, f64::max)
    }

    /// Draws everything, labels `gap` pixels off the plot.
    pub(super) fn draw(&self, gap: f64, out: &mut Vec<Shape>) {
        let (low, high) = range(self.map);
        let size = self.value_size();
        for (row, values) in self.map.values.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                let rect = self.cell(row, column);
                let Some(value) = value.filter(|v| v.is_finite()) else {
                    out.push(Shape::Box { rect, color: GRID, alpha: 1.0 });
                    continue;
                };
                let (color, text) = ramp((value - low) / (high - low));
                out.push(Shape::Box { rect, color, alpha: 1.0 });
                let Some(size) = size else { continue };
                let mut put = |content, (x, y): Point, size| {
                    out.push(Shape::Text(Text::centered(content, (x, y), size, Anchor::Middle).color(text)));
                };
                let (x, y) = rect.center();
                match self.chance(row, column) {
                    None => put(self.label(value), (x, y), size),
                    Some(chance) => {
                        let line = size * font::LINE / 2.0;
                        put(self.label(value), (x, y - line), size);
                        put(format!("({})", self.label(chance)), (x, y + line), CHANCE * size);
                    }
                }
            }
        }
        self.draw_labels(gap, out);
    }

    fn draw_labels(&self, gap: f64, out: &mut Vec<Shape>) {
        let stride = self.row_stride();
        for (row, label) in self.map.rows.iter().enumerate().step_by(stride) {
            let at = (self.plot.left - gap, self.cell(row, 0).center().1);
            out.push(Shape::Text(Text::centered(label, at, TICK, Anchor::End)));
        }
        let y = self.plot.bottom + gap + TICK * font::LINE / 2.0;
        for (column, label) in self.map.columns.iter().enumerate().step_by(self.column_stride()) {
            out.push(Shape::Text(Text::centered(label, (self.cell(0, column).center().0, y), TICK, Anchor::Middle)));
        }
    }

    fn cell(&self, row: usize, column: usize) -> Rect {
        let (width, height) = self.cell_size();
        let (left, top) = (self.plot.left + column as f64 * width, self.plot.top + row as f64 * height);
        let gap = if width.min(height) >= PARTED { 0.4 } else { 0.0 };
        Rect { left: left + gap, top: top + gap, right: left + width - gap, bottom: top + height - gap }
    }

    fn cell_size(&self) -> (f64, f64) {
        let (columns, rows) = (self.map.columns.len().max(1), self.map.rows.len().max(1));
        (self.plot.width() / columns as f64, self.plot.height() / rows as f64)
    }

    /// A number as its rectangle shows it: the legend has the percent sign.
    fn label(&self, value: f64) -> String {
        number::value(value, self.map.scale.format).trim_end_matches('%').to_owned()
    }

    /// What a number would be by chance.
    fn chance(&self, row: usize, column: usize) -> Option<f64> {
        self.map.chance.get(row)?.get(column)?.filter(|v| v.is_finite())
    }

    /// The size of the numbers, if they fit.
    fn value_size(&self) -> Option<f64> {
        let (width, mut height) = self.cell_size();
        if !self.map.chance.is_empty() {
            height /= 2.0;
        }
        let widest = numbers(self.map).map(|v| font::width(&self.label(v), 1.0)).fold(0.0, f64::max);
        let size = VALUE.min((width - 2.0 * VALUE_GAP) / widest).min((height - 2.0 * VALUE_GAP) / font::LINE);
        (size >= SMALLEST).then_some(size)
    }

    fn row_stride(&self) -> usize {
        let (_, height) = self.cell_size();
        (1..).find(|stride| *stride as f64 * height >= TICK * font::LINE).unwrap_or(1)
    }

    /// Every how many columns a label is drawn: 1, 2, 5, 10, ...
    fn column_stride(&self) -> usize {
        let (width, _) = self.cell_size();
        let widest = self.map.columns.iter().map(|label| font::width(label, TICK)).fold(0.0, f64::max);
        let strides = (0..9).flat_map(|e| [1, 2, 5].map(|m| m * 10usize.pow(e)));
        let fits = |stride: &usize| *stride as f64 * width >= widest + LABEL_GAP;
        strides.into_iter().find(fits).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::{Axis, Format};

    fn map(values: Vec<Vec<Option<f64>>>) -> HeatMap {
        let columns = (0..values[0].len()).map(|i| i.to_string()).collect();
        let rows = (0..values.len()).map(|i| format!("row {i}")).collect();
        HeatMap {
            columns,
            rows,
            values,
            chance: Vec::new(),
            scale: Axis { format: Format::Percent(0), ..Axis::linear("Sparsity") },
        }
    }

    fn drawn(map: &HeatMap, width: f64, height: f64) -> (Vec<Rect>, Vec<String>) {
        let mut out = Vec::new();
        Heat::new(map, Rect { left: 0.0, top: 0.0, right: width, bottom: height }).draw(5.0, &mut out);
        let boxes = out.iter().filter_map(|s| if let Shape::Box { rect, .. } = s { Some(*rect) } else { None });
        let texts = out.iter().filter_map(|s| if let Shape::Text(t) = s { Some(t.content.clone()) } else { None });
        (boxes.collect(), texts.collect())
    }

    #[test]
    fn every_number_has_a_rectangle_and_the_rows_begin_at_the_top() {
        let map = map(vec![vec![Some(0.1), Some(0.2)], vec![None, Some(0.9)]]);
        let (boxes, texts) = drawn(&map, 100.0, 60.0);
        assert_eq!(boxes.len(), 4);
        assert!(boxes[0].top < boxes[2].top && boxes[0].left < boxes[1].left);
        assert_eq!(texts, ["10", "20", "90", "row 0", "row 1", "0", "1"]);
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let map = map(vec![vec![Some(0.5); 60]; 2]);
        let (boxes, texts) = drawn(&map, 240.0, 30.0);
        assert_eq!(boxes.len(), 120);
        assert_eq!(texts, ["row 0", "row 1", "0", "5", "10", "15", "20", "25", "30", "35", "40", "45", "50", "55"]);
    }

    #[test]
    fn a_range_is_never_empty() {
        let of = |values| range(&map(vec![values]));
        assert_eq!(of(vec![Some(0.2), None, Some(0.7), Some(f64::NAN)]), (0.2, 0.7));
        assert_eq!(of(vec![Some(0.5), Some(0.5)]), (0.5, 1.5));
        assert_eq!(of(vec![None]), (0.0, 1.0));
        let fixed = Axis { range: Some((0.0, 1.0)), ..Axis::linear("") };
        assert_eq!(range(&HeatMap { scale: fixed, ..map(vec![vec![Some(0.5)]]) }), (0.0, 1.0));
    }
}
