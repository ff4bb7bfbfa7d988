//! A figure as shapes: panels in a grid, their plots aligned, legends outside them.
//!
//! Owns the division of the figure's area and the checks of a figure. Knows no output format.

use super::display_list::{Anchor, Rect, Shape, Text};
use super::panel::{self, Frame, Margins};
use super::style::{DARK, TITLE, VALUE};
use super::{DrawError, font, legend};
use crate::report::figure::{Axis, Figure, Marks, Panel, Scale};

/// A plot smaller than this shows nothing.
const SMALLEST_PLOT: (f64, f64) = (40.0, 30.0);
/// Above the figure's title.
const TITLE_MARGIN: f64 = 5.0;
/// Around the notes.
const NOTE_MARGIN: f64 = 6.0;
/// Labels depend on the plot's size, which depends on the labels' size. Margins only ever grow, so
/// that this settles, mostly in the third round.
const ROUNDS: usize = 12;

/// Lays a figure out.
///
/// # Errors
/// If the figure has nothing to show, contradicts itself or is too small for its labels.
pub(super) fn shapes(figure: &Figure) -> Result<Vec<Shape>, DrawError> {
    check(figure)?;
    let mut out = Vec::new();
    let mut area = Rect { left: 0.0, top: 0.0, right: f64::from(figure.width), bottom: f64::from(figure.height) };
    let title = font::wrap(&figure.title, TITLE, area.width() - TITLE);
    if !title.is_empty() {
        area.top += TITLE_MARGIN;
    }
    for line in title {
        let at = (area.center().0, area.top + TITLE * font::LINE / 2.0);
        out.push(Shape::Text(Text::centered(line, at, TITLE, Anchor::Middle)));
        area.top += TITLE * font::LINE;
    }
    area.bottom = draw_notes(figure, &area, &mut out);
    let cells = draw_legends(figure, area, &mut out);
    draw_panels(figure, &cells, &mut out)?;
    Ok(out)
}

/// Draws the notes at the bottom; what is above them is free.
fn draw_notes(figure: &Figure, area: &Rect, out: &mut Vec<Shape>) -> f64 {
    let room = area.width() - 2.0 * NOTE_MARGIN;
    let lines: Vec<String> = figure.notes.iter().flat_map(|note| font::wrap(note, VALUE, room)).collect();
    if lines.is_empty() {
        return area.bottom;
    }
    let top = area.bottom - lines.len() as f64 * VALUE * font::LINE - NOTE_MARGIN;
    for (row, line) in lines.into_iter().enumerate() {
        let at = (area.left + NOTE_MARGIN, top + (row as f64 + 0.5) * VALUE * font::LINE);
        out.push(Shape::Text(Text::centered(line, at, VALUE, Anchor::Start).color(DARK)));
    }
    top
}

/// Draws one legend below all panels or, where they contradict each other, one below each; the
/// cells that are left for the panels.
fn draw_legends(figure: &Figure, mut area: Rect, out: &mut Vec<Shape>) -> Vec<Rect> {
    let entries: Vec<_> = figure.panels.iter().map(legend::entries).collect();
    if let Some(shared) = legend::merged(&entries) {
        let below = Rect { top: area.bottom - legend::height(&shared, area.width()), ..area };
        legend::draw(&shared, &below, out);
        area.bottom = below.top;
        return grid(figure, &area);
    }
    let mut cells = grid(figure, &area);
    for (cells, entries) in cells.chunks_mut(figure.columns).zip(entries.chunks(figure.columns)) {
        let heights = entries.iter().zip(&*cells).map(|(entries, cell)| legend::height(entries, cell.width()));
        let height = heights.fold(0.0, f64::max);
        for (cell, entries) in cells.iter_mut().zip(entries) {
            let below = Rect { top: cell.bottom - height, ..*cell };
            legend::draw(entries, &below, out);
            cell.bottom = below.top;
        }
    }
    cells
}

/// Cells row by row, equal but for those of a last row that is not full: they share its width, so that no hole is left.
fn grid(figure: &Figure, area: &Rect) -> Vec<Rect> {
    let panels = figure.panels.len();
    let columns = figure.columns.min(panels);
    let rows = panels.div_ceil(columns);
    let height = area.height() / rows as f64;
    let last = panels - (rows - 1) * columns;
    let cell = |index: usize| {
        let in_row = if index / columns + 1 == rows { last } else { columns };
        let width = area.width() / in_row as f64;
        let left = area.left + (index % columns) as f64 * width;
        let top = area.top + (index / columns) as f64 * height;
        Rect { left, top, right: left + width, bottom: top + height }
    };
    (0..figure.panels.len()).map(cell).collect()
}

fn draw_panels(figure: &Figure, cells: &[Rect], out: &mut Vec<Shape>) -> Result<(), DrawError> {
    let mut margins = vec![Margins::default(); cells.len()];
    for _ in 0..ROUNDS {
        let frames = figure.panels.iter().zip(cells).zip(&margins);
        let needed = frames.map(|((panel, cell), m)| Frame::new(panel, inner(cell, m)).margins().max(m));
        let next = aligned(&needed.collect::<Vec<_>>(), figure.columns);
        if next == margins {
            break;
        }
        margins = next;
    }
    for ((panel, cell), margins) in figure.panels.iter().zip(cells).zip(&margins) {
        let plot = inner(cell, margins);
        if plot.width() < SMALLEST_PLOT.0 || plot.height() < SMALLEST_PLOT.1 {
            let (width, height) = (figure.width, figure.height);
            return Err(DrawError::TooSmall { panel: panel.name().to_owned(), width, height });
        }
        Frame::new(panel, plot).draw(cell, out);
    }
    Ok(())
}

/// The plot of a cell.
fn inner(cell: &Rect, margins: &Margins) -> Rect {
    let (left, top) = (cell.left + margins.left, cell.top + margins.top);
    // A plot without area would have no mapping; the check for small plots comes after the layout.
    let (right, bottom) = ((cell.right - margins.right).max(left + 1.0), (cell.bottom - margins.bottom).max(top + 1.0));
    Rect { left, top, right, bottom }
}

/// Margins under which plots of a column have the same sides and plots of a row the same height.
fn aligned(needed: &[Margins], columns: usize) -> Vec<Margins> {
    let most = |same: &dyn Fn(usize) -> bool, side: fn(&Margins) -> f64| {
        needed.iter().enumerate().filter(|(i, _)| same(*i)).map(|(_, m)| side(m)).fold(0.0, f64::max)
    };
    let margins = |index: usize| {
        let column = |i: usize| i % columns == index % columns;
        let row = |i: usize| i / columns == index / columns;
        Margins {
            left: most(&column, |m| m.left),
            right: most(&column, |m| m.right),
            top: most(&row, |m| m.top),
            bottom: most(&row, |m| m.bottom),
        }
    };
    (0..needed.len()).map(margins).collect()
}

fn check(figure: &Figure) -> Result<(), DrawError> {
    if figure.columns == 0 {
        return Err(DrawError::NoColumns);
    }
    for panel in &figure.panels {
        for axis in [&panel.x, &panel.y] {
            check_range(panel.name(), axis)?;
        }
        check_values(panel)?;
    }
    // One empty panel among others is a result, a figure of nothing else a mistake.
    if figure.panels.iter().any(panel::has_data) { Ok(()) } else { Err(DrawError::NoData) }
}

/// Refuses rows of another length than the labels below them.
fn check_values(panel: &Panel) -> Result<(), DrawError> {
    let (expected, rows): (usize, Vec<(&str, usize)>) = match &panel.marks {
        Marks::Bars { categories, series } => {
            (categories.len(), series.iter().map(|s| (s.name.as_str(), s.values.len())).collect())
        }
        Marks::Heat(map) => {
            check_range(panel.name(), &map.scale)?;
            let labels = map.rows.iter().map(String::as_str).chain(std::iter::repeat(""));
            (map.columns.len(), labels.zip(map.values.iter().map(Vec::len)).collect())
        }
        Marks::Raster(raster) => {
            let found = raster.pixels.len().checked_div(raster.width).unwrap_or(0);
            let whole = found * raster.width == raster.pixels.len();
            (raster.height, vec![("pixels", if whole { found } else { raster.pixels.len() })])
        }
        Marks::Points(_) => return Ok(()),
    };
    match rows.into_iter().find(|(_, found)| *found != expected) {
        None => Ok(()),
        Some((series, found)) => {
            Err(DrawError::Values { panel: panel.name().to_owned(), series: series.to_owned(), expected, found })
        }
    }
}

fn check_range(panel: &str, axis: &Axis) -> Result<(), DrawError> {
    let Some((lo, hi)) = axis.range else { return Ok(()) };
    let positive = axis.scale == Scale::Linear || lo > 0.0;
    if lo.is_finite() && hi.is_finite() && lo < hi && positive {
        return Ok(());
    }
    Err(DrawError::Range { panel: panel.to_owned(), axis: axis.label.clone(), lo, hi })
}
