//! Legends: rows of swatches and names, outside the plots.
//!
//! Owns which series a legend names and how its rows break.

use super::bars::draw_bar;
use super::display_list::{Anchor, Point, Rect, Shape, Text, dashes};
use super::font;
use super::heat::{draw_ramp, range};
use super::number;
use super::raster::SHADES;
use super::style::{FRAME, Look, TICK};
use crate::report::figure::{HeatMap, Marks, Panel, Trace};

const SWATCH: f64 = 24.0;
const SWATCH_GAP: f64 = 5.0;
/// Length of the colours of a heat map.
const RAMP: f64 = 130.0;
/// A digit at an end of the shades, with its gap.
const SHADES_END: f64 = 11.0;
const ENTRY_GAP: f64 = 16.0;
const ROW: f64 = 15.0;
/// Between a legend and what is above it.
const MARGIN: f64 = 6.0;

/// What a name stands beside.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Swatch {
    Bar,
    Points(Trace),
    /// The colours of a heat map between its lowest and highest number.
    Ramp([String; 2]),
    /// The shades of an image, from 0 to 1.
    Shades,
}

impl Swatch {
    fn width(&self) -> f64 {
        match self {
            Self::Bar | Self::Points(_) => SWATCH,
            Self::Shades => 2.0 * SHADES_END + RAMP / 2.0,
            Self::Ramp(ends) => ends.iter().map(|end| font::width(end, TICK) + SWATCH_GAP).sum::<f64>() + RAMP,
        }
    }

    /// Whether two entries of it with one name or style must be the same entry.
    fn competes(&self, other: &Self) -> bool {
        self == other || matches!((self, other), (Self::Ramp(_), Self::Ramp(_)))
    }
}

/// A name and its look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    name: String,
    style: usize,
    swatch: Swatch,
}

/// The entries of a panel; none if it wants no legend.
pub(super) fn entries(panel: &Panel) -> Vec<Entry> {
    if !panel.legend {
        return Vec::new();
    }
    let entry = |name: &str, style, swatch| Entry { name: name.to_owned(), style, swatch };
    let all: Vec<Entry> = match &panel.marks {
        Marks::Bars { series, .. } => series.iter().map(|s| entry(&s.name, s.style, Swatch::Bar)).collect(),
        Marks::Points(series) => series.iter().map(|s| entry(&s.name, s.style, Swatch::Points(s.trace))).collect(),
        Marks::Heat(map) => vec![entry(&map.scale.label, 0, Swatch::Ramp(ends(map)))],
        Marks::Raster(raster) => vec![entry(&raster.label, 0, Swatch::Shades)],
    };
    all.into_iter().filter(|e| !e.name.is_empty()).collect()
}

fn ends(map: &HeatMap) -> [String; 2] {
    let (low, high) = range(map);
    [low, high].map(|end| number::value(end, map.scale.format))
}

/// One legend for all panels, if no style stands for two names and no name has two styles.
pub(super) fn merged(panels: &[Vec<Entry>]) -> Option<Vec<Entry>> {
    let mut all: Vec<Entry> = Vec::new();
    for entry in panels.iter().flatten() {
        let same = |e: &Entry| e.swatch.competes(&entry.swatch) && (e.name == entry.name || e.style == entry.style);
        match all.iter().find(|e| same(e)) {
            None => all.push(entry.clone()),
            Some(e) if e == entry => {}
            Some(_) => return None,
        }
    }
    Some(all)
}

/// Height of a legend in `width` pixels, its margin included; 0 without entries.
pub(super) fn height(entries: &[Entry], width: f64) -> f64 {
    if entries.is_empty() { 0.0 } else { MARGIN + rows(entries, width).len() as f64 * ROW }
}

/// Draws centred rows into `area`.
pub(super) fn draw(entries: &[Entry], area: &Rect, out: &mut Vec<Shape>) {
    for (index, row) in rows(entries, area.width()).into_iter().enumerate() {
        let y = area.top + MARGIN + (index as f64 + 0.5) * ROW;
        let total: f64 = row.iter().map(|entry| width(entry)).sum::<f64>() + ENTRY_GAP * (row.len() as f64 - 1.0);
        let mut x = (area.center().0 - total / 2.0).max(area.left);
        for entry in row {
            draw_swatch(entry, (x, y), out);
            let beside = entry.swatch.width() + SWATCH_GAP;
            let at = (x + beside, y);
            let name = font::shortened(&entry.name, TICK, area.width() - beside);
            out.push(Shape::Text(Text::centered(name, at, TICK, Anchor::Start)));
            x += width(entry) + ENTRY_GAP;
        }
    }
}

fn draw_swatch(entry: &Entry, (x, y): Point, out: &mut Vec<Shape>) {
    let look = Look::of(entry.style);
    let (from, to) = ((x, y), (x + SWATCH, y));
    match &entry.swatch {
        Swatch::Ramp([low, high]) => {
            let left = x + font::width(low, TICK) + SWATCH_GAP;
            let rect = Rect { left, top: y - 4.5, right: left + RAMP, bottom: y + 4.5 };
            draw_ramp(&rect, out);
            out.push(Shape::Text(Text::centered(low, (x, y), TICK, Anchor::Start)));
            out.push(Shape::Text(Text::centered(high, (rect.right + SWATCH_GAP, y), TICK, Anchor::Start)));
        }
        Swatch::Bar => draw_bar(&Rect { left: x + 10.0, top: y - 4.5, right: to.0, bottom: y + 4.5 }, &look, out),
        Swatch::Shades => {
            let left = x + SHADES_END;
            let rect = Rect { left, top: y - 4.5, right: left + RAMP / 2.0, bottom: y + 4.5 };
            let pieces = (0..u32::from(SHADES)).rev().map(|i| (i * 255 / (u32::from(SHADES) - 1)) as u8);
            for (index, grey) in pieces.enumerate() {
                let piece = rect.width() / f64::from(SHADES);
                let left = rect.left + index as f64 * piece;
                let piece = Rect { left, right: (left + 1.5 * piece).min(rect.right), ..rect };
                out.push(Shape::Box { rect: piece, color: (grey, grey, grey), alpha: 1.0 });
            }
            let corners =
                [(rect.left, rect.top), (rect.right, rect.top), (rect.right, rect.bottom), (rect.left, rect.bottom)];
            let points = corners.iter().chain([&corners[0]]).copied().collect();
            out.push(Shape::Stroke { points, width: 0.6, color: FRAME });
            out.push(Shape::Text(Text::centered("0", (x, y), TICK, Anchor::Start)));
            out.push(Shape::Text(Text::centered("1", (rect.right + SWATCH_GAP, y), TICK, Anchor::Start)));
        }
        Swatch::Points(Trace::Dots) => out.push(look.dot((to.0 - 6.0, y))),
        Swatch::Points(Trace::Scatter) => out.extend(look.marker((to.0 - 6.0, y))),
        Swatch::Points(trace) => {
            let parts = dashes(&[from, to], look.dash).into_iter();
            out.extend(parts.map(|points| Shape::Stroke { points, width: 1.5, color: look.color }));
            if *trace == Trace::Marked {
                out.extend(look.marker((x + SWATCH / 2.0, y)));
            }
        }
    }
}

fn width(entry: &Entry) -> f64 {
    entry.swatch.width() + SWATCH_GAP + font::width(&entry.name, TICK)
}

/// Fills rows in order. Rows are balanced: as even as their number allows.
fn rows(entries: &[Entry], room: f64) -> Vec<Vec<&Entry>> {
    let fewest = filled(entries, room).len();
    // Narrower rows of the same number are more even.
    let tighter = (1..20).rev().map(|i| room * f64::from(i) / 20.0);
    let even = tighter.map(|room| filled(entries, room)).take_while(|rows| rows.len() == fewest).last();
    even.unwrap_or_else(|| filled(entries, room))
}

fn filled(entries: &[Entry], room: f64) -> Vec<Vec<&Entry>> {
    let mut rows: Vec<Vec<&Entry>> = Vec::new();
    let mut used = 0.0;
    for entry in entries {
        let more = ENTRY_GAP + width(entry);
        match rows.last_mut() {
            Some(row) if used + more <= room => {
                row.push(entry);
                used += more;
            }
            _ => {
                rows.push(vec![entry]);
                used = width(entry);
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, style: usize) -> Entry {
        Entry { name: name.into(), style, swatch: Swatch::Points(Trace::Marked) }
    }

    #[test]
    fn legends_that_agree_are_merged() {
        let panels = [vec![entry("a", 0), entry("b", 1)], vec![entry("b", 1), entry("c", 2)]];
        assert_eq!(merged(&panels), Some(vec![entry("a", 0), entry("b", 1), entry("c", 2)]));
    }

    #[test]
    fn legends_that_disagree_are_not() {
        assert_eq!(merged(&[vec![entry("a", 0)], vec![entry("b", 0)]]), None);
        assert_eq!(merged(&[vec![entry("a", 0)], vec![entry("a", 1)]]), None);
    }

    #[test]
    fn colours_stand_for_one_range() {
        let ramp =
            |high: &str| Entry { name: "Sparsity".into(), style: 0, swatch: Swatch::Ramp(["0%".into(), high.into()]) };
        assert_eq!(merged(&[vec![ramp("50%")], vec![ramp("50%")]]), Some(vec![ramp("50%")]));
        assert_eq!(merged(&[vec![ramp("50%")], vec![ramp("60%")]]), None);
    }

    #[test]
    fn rows_are_even() {
        let entries: Vec<Entry> = (0..6).map(|i| entry("name", i)).collect();
        let room = 5.5 * (width(&entries[0]) + ENTRY_GAP);
        let lengths: Vec<usize> = rows(&entries, room).iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, 3]);
    }
}
