//! A panel: its axes, grid, rules and labels around its marks.
//!
//! Owns the room that labels need beside a plot, and drawing one panel into its cell. Text never
//! lies on data: rules are labelled outside the plot.

use super::axis::{Content, Mapping};
use super::bars::Bars;
use super::display_list::{Anchor, Point, Rect, Shape, Text, dashes};
use super::heat::Heat;
use super::style::{DARK, FAINT, FRAME, GRID, HEADING, LABEL, MINOR_GRID, RULE_DASH, TICK};
use super::{font, points, raster};
use crate::report::figure::{Marks, Panel, Rule, RuleAxis, Value};

/// Between a tick and its label, a label and the next.
const GAP: f64 = 5.0;
/// Length of a tick.
const NOTCH: f64 = 3.0;
/// Widest label of a horizontal rule.
const RULE_ROOM: f64 = 72.0;
/// A free border around a panel.
const BORDER: f64 = 6.0;

/// The space around a plot within its cell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Margins {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Margins {
    pub(super) fn max(&self, other: &Margins) -> Margins {
        Margins {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }
}

/// A panel laid out in a plot area.
pub(super) struct Frame<'a> {
    panel: &'a Panel,
    plot: Rect,
    bars: Option<Bars<'a>>,
    heat: Option<Heat<'a>>,
    x: Option<Mapping>,
    y: Option<Mapping>,
}

/// Whether a panel has a value that its axes can show.
pub(super) fn has_data(panel: &Panel) -> bool {
    let unit = Rect { left: 0.0, top: 0.0, right: 1.0, bottom: 1.0 };
    Frame::new(panel, unit).has_data()
}

impl<'a> Frame<'a> {
    pub(super) fn new(panel: &'a Panel, plot: Rect) -> Self {
        let rules = |axis| panel.rules.iter().filter(move |rule| rule.axis == axis).map(|rule| rule.at);
        let (down, across) = ((plot.bottom, plot.top), (plot.left, plot.right));
        let values = y_values(&panel.marks);
        // Rules alone are no data.
        let ys = || values.iter().copied().chain(rules(RuleAxis::Y).filter(|_| !values.is_empty()));
        match &panel.marks {
            Marks::Bars { categories, series } => {
                let bars = Bars::new(categories, series, panel.y.format, &plot);
                let y = Mapping::new(&panel.y, Content::Bars, ys(), down, bars.headroom());
                Frame { panel, plot, bars: Some(bars), heat: None, x: None, y }
            }
            Marks::Points(series) => {
                let points = || series.iter().flat_map(|s| &s.points);
                let shown = points().filter(|(_, value)| value.finite().is_some());
                let xs: Vec<f64> = shown.map(|(x, _)| *x).filter(|x| x.is_finite()).collect();
                let xs = xs.iter().copied().chain(rules(RuleAxis::X).filter(|_| !xs.is_empty()));
                let x = Mapping::new(&panel.x, Content::Points, xs, across, 0.0);
                let y = Mapping::new(&panel.y, Content::Points, ys(), down, 0.0);
                Frame { panel, plot, bars: None, heat: None, x, y }
            }
            Marks::Raster(raster) => {
                // Nothing to show without pixels, whatever the ranges are.
                let any = raster.pixels.first().map(|_| 0.0);
                let x = Mapping::new(&panel.x, Content::Points, any.into_iter(), across, 0.0);
                let y = Mapping::new(&panel.y, Content::Points, any.into_iter(), (plot.top, plot.bottom), 0.0);
                Frame { panel, plot, bars: None, heat: None, x, y }
            }
            Marks::Heat(map) => Frame { panel, plot, bars: None, heat: Some(Heat::new(map, plot)), x: None, y: None },
        }
    }

    fn has_data(&self) -> bool {
        let plotted = self.y.is_some() && (self.x.is_some() || self.bars.is_some());
        plotted || self.heat.as_ref().is_some_and(Heat::has_data)
    }

    /// The space that this panel's labels need around its plot.
    pub(super) fn margins(&self) -> Margins {
        let (x_label, y_label) = (self.x_label().len() as f64, self.y_label().len() as f64);
        let y_ticks = self.y_ticks().iter().map(|(_, label)| font::width(label, TICK)).fold(0.0, f64::max);
        let y_ticks = self.heat.as_ref().map_or(y_ticks, Heat::row_width);
        let x_height = match &self.bars {
            Some(bars) => bars.category_height(),
            None if self.upright_names() => {
                self.x_ticks().iter().map(|(_, name)| font::width(name, TICK)).fold(TICK, f64::max)
            }
            None => TICK * font::LINE,
        };
        let rows = self.rule_rows().iter().map(|(_, row, _)| row + 1).max().unwrap_or(0) as f64;
        let title = self.title().len() as f64 * HEADING * font::LINE;
        let beside = self.rule_labels().into_iter().flat_map(|(_, lines)| lines);
        let beside = beside.map(|line| font::width(&line, TICK)).fold(0.0, f64::max);
        let ticks = self.x_ticks().into_iter().filter(|_| !self.upright_names());
        let (above, beside_image) = match &self.panel.marks {
            Marks::Raster(raster) => raster::room(raster),
            Marks::Bars { .. } | Marks::Points(_) | Marks::Heat(_) => (0.0, 0.0),
        };
        let overhang = ticks.map(|(at, label)| at + font::width(&label, TICK) / 2.0 - self.plot.right);
        Margins {
            left: BORDER + y_label * LABEL * font::LINE + y_ticks + NOTCH + GAP,
            top: BORDER + title + rows * TICK * font::LINE + if title + rows > 0.0 { GAP } else { 0.0 } + above,
            right: overhang.fold(BORDER, f64::max).max(beside + GAP).max(beside_image) + BORDER / 2.0,
            bottom: NOTCH + GAP + x_height + x_label * LABEL * font::LINE + BORDER,
        }
    }

    /// Draws the panel into `cell`, whose part around the plot the margins have kept free.
    pub(super) fn draw(&self, cell: &Rect, out: &mut Vec<Shape>) {
        self.draw_title(cell, out);
        self.draw_axis_labels(cell, out);
        if let Some(heat) = self.heat.as_ref().filter(|heat| heat.has_data()) {
            return heat.draw(NOTCH + GAP / 2.0, out);
        }
        if let (true, Marks::Raster(image)) = (self.has_data(), &self.panel.marks) {
            raster::draw(image, &self.plot, out);
        } else if let (true, Some(y)) = (self.has_data(), &self.y) {
            self.draw_grid(out);
            self.draw_rules(out);
            match (&self.panel.marks, &self.bars, &self.x) {
                (Marks::Bars { .. }, Some(bars), _) => bars.draw(y, &self.plot, out),
                (Marks::Points(series), _, Some(x)) => points::draw(series, x, y, &self.plot, out),
                (Marks::Bars { .. } | Marks::Points(_) | Marks::Heat(_) | Marks::Raster(_), ..) => {}
            }
            if self.bars.is_some() && y.baseline() != self.plot.bottom {
                self.horizontal(y.baseline(), FRAME, 0.8, out);
            }
        } else {
            let text = Text::centered("no data", self.plot.center(), LABEL, Anchor::Middle).color(FAINT);
            out.push(Shape::Text(text));
        }
        let Rect { left, top, right, bottom } = self.plot;
        out.push(Shape::Stroke {
            points: vec![(left, top), (left, bottom), (right, bottom)],
            width: 0.9,
            color: FRAME,
        });
        self.draw_tick_labels(out);
    }

    fn draw_title(&self, cell: &Rect, out: &mut Vec<Shape>) {
        for (row, line) in self.title().into_iter().enumerate() {
            let y = cell.top + BORDER + (row as f64 + 0.5) * HEADING * font::LINE;
            out.push(Shape::Text(Text::centered(line, (self.plot.center().0, y), HEADING, Anchor::Middle)));
        }
    }

    fn draw_axis_labels(&self, cell: &Rect, out: &mut Vec<Shape>) {
        let (center_x, center_y) = self.plot.center();
        for (row, line) in self.x_label().into_iter().rev().enumerate() {
            let y = cell.bottom - BORDER - (row as f64 + 0.5) * LABEL * font::LINE;
            out.push(Shape::Text(Text::centered(line, (center_x, y), LABEL, Anchor::Middle)));
        }
        for (row, line) in self.y_label().into_iter().enumerate() {
            let x = cell.left + BORDER + (row as f64 + 0.5) * LABEL * font::LINE;
            out.push(Shape::Text(Text::upright(line, (x, center_y), LABEL, Anchor::Middle)));
        }
    }

    fn draw_grid(&self, out: &mut Vec<Shape>) {
        let lines = |mapping: &Option<Mapping>| mapping.as_ref().map(Mapping::minor).unwrap_or_default();
        for at in lines(&self.y) {
            self.horizontal(at, MINOR_GRID, 0.6, out);
        }
        for at in lines(&self.x) {
            self.vertical(at, MINOR_GRID, 0.6, out);
        }
        for (at, _) in self.y_ticks() {
            self.horizontal(at, GRID, 0.7, out);
        }
        for (at, _) in self.x_ticks() {
            self.vertical(at, GRID, 0.7, out);
        }
    }

    fn draw_tick_labels(&self, out: &mut Vec<Shape>) {
        let Rect { left, bottom, .. } = self.plot;
        for (at, label) in self.y_ticks() {
            out.push(Shape::line((left - NOTCH, at), (left, at), 0.9, FRAME));
            out.push(Shape::Text(Text::centered(label, (left - NOTCH - GAP / 2.0, at), TICK, Anchor::End)));
        }
        let top = bottom + NOTCH + GAP / 2.0;
        for (at, label) in self.x_ticks() {
            out.push(Shape::line((at, bottom), (at, bottom + NOTCH), 0.9, FRAME));
            if self.upright_names() {
                out.push(Shape::Text(Text::upright(label, (at, top), TICK, Anchor::End)));
                continue;
            }
            let y = top + TICK * font::LINE / 2.0;
            out.push(Shape::Text(Text::centered(label, (at, y), TICK, Anchor::Middle)));
        }
        if let Some(bars) = &self.bars {
            bars.draw_categories(top, out);
        }
    }

    fn draw_rules(&self, out: &mut Vec<Shape>) {
        let Rect { left, top, right, bottom } = self.plot;
        let mut dashed = |line: [Point; 2]| {
            let parts = dashes(&line, RULE_DASH).into_iter();
            out.extend(parts.map(|points| Shape::Stroke { points, width: 1.0, color: DARK }));
        };
        self.placed_rules(RuleAxis::Y).for_each(|(at, _)| dashed([(left, at), (right, at)]));
        self.placed_rules(RuleAxis::X).for_each(|(at, _)| dashed([(at, bottom), (at, top)]));
        for (y, lines) in self.rule_labels() {
            for (row, line) in lines.into_iter().enumerate() {
                let at = (right + GAP, y + (row as f64 + 0.5) * TICK * font::LINE);
                out.push(Shape::Text(Text::centered(line, at, TICK, Anchor::Start).color(DARK)));
            }
        }
        for (center, row, label) in self.rule_rows() {
            let y = top - GAP / 2.0 - (row as f64 + 0.5) * TICK * font::LINE;
            out.push(Shape::Text(Text::centered(label, (center, y), TICK, Anchor::Middle).color(DARK)));
        }
    }

    /// The rules on an axis that are inside the plot, with their pixels.
    fn placed_rules(&self, axis: RuleAxis) -> impl Iterator<Item = (f64, &Rule)> {
        let (mapping, near, far) = match axis {
            RuleAxis::X => (&self.x, self.plot.left, self.plot.right),
            RuleAxis::Y => (&self.y, self.plot.top, self.plot.bottom),
        };
        let rules = self.panel.rules.iter().filter(move |rule| rule.axis == axis);
        let placed = rules.filter_map(move |rule| Some((mapping.as_ref()?.position(rule.at)?, rule)));
        placed.filter(move |(at, _)| (near - 0.5..=far + 0.5).contains(at))
    }

    /// Labels of horizontal rules: their upper edges and lines, moved apart where they would touch
    /// and up where they would reach below the plot.
    fn rule_labels(&self) -> Vec<(f64, Vec<String>)> {
        let height = |lines: &[String]| lines.len() as f64 * TICK * font::LINE;
        let mut rules: Vec<(f64, &Rule)> = self.placed_rules(RuleAxis::Y).collect();
        rules.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut labels: Vec<(f64, Vec<String>)> = Vec::new();
        let mut free = f64::NEG_INFINITY;
        for (at, rule) in rules {
            let lines = font::wrap(&rule.label, TICK, RULE_ROOM);
            let top = (at - height(&lines) / 2.0).max(free);
            free = top + height(&lines);
            labels.push((top, lines));
        }
        let mut floor = self.plot.bottom + NOTCH;
        for (top, lines) in labels.iter_mut().rev() {
            *top = top.min(floor - height(lines));
            floor = *top;
        }
        labels
    }

    /// Labels of vertical rules: their centres and rows, counted upwards from the plot.
    fn rule_rows(&self) -> Vec<(f64, usize, &str)> {
        let mut rules: Vec<(f64, &Rule)> = self.placed_rules(RuleAxis::X).collect();
        rules.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut ends: Vec<f64> = Vec::new();
        let mut placed = Vec::new();
        for (at, rule) in rules {
            let half = font::width(&rule.label, TICK) / 2.0;
            let (low, high) = (self.plot.left + half, self.plot.right - half);
            let center = if low < high { at.clamp(low, high) } else { self.plot.center().0 };
            let row = ends.iter().position(|end| center - half > end + GAP).unwrap_or(ends.len());
            ends.resize(ends.len().max(row + 1), 0.0);
            ends[row] = center + half;
            placed.push((center, row, rule.label.as_str()));
        }
        placed
    }

    fn title(&self) -> Vec<String> {
        font::wrap(&self.panel.title, HEADING, self.plot.width())
    }

    fn x_label(&self) -> Vec<String> {
        font::wrap(&self.panel.x.label, LABEL, self.plot.width())
    }

    fn y_label(&self) -> Vec<String> {
        font::wrap(&self.panel.y.label, LABEL, self.plot.height())
    }

    fn y_ticks(&self) -> Vec<(f64, String)> {
        let extent = |_: &str| TICK * 1.4;
        self.ticks(&self.y, extent)
    }

    fn x_ticks(&self) -> Vec<(f64, String)> {
        match self.x.as_ref().filter(|x| x.has_names() && self.has_data()) {
            Some(x) => x.named().into_iter().map(|tick| (tick.at, tick.label)).collect(),
            None => self.ticks(&self.x, |label| font::width(label, TICK)),
        }
    }

    /// Whether the names along the horizontal axis touch unless they are turned.
    fn upright_names(&self) -> bool {
        let named = self.x.as_ref().is_some_and(Mapping::has_names);
        let half = |label: &str| font::width(label, TICK) / 2.0;
        let touch = |pair: &[(f64, String)]| pair[1].0 - pair[0].0 < half(&pair[0].1) + half(&pair[1].1) + GAP;
        named && self.x_ticks().windows(2).any(touch)
    }

    fn ticks(&self, mapping: &Option<Mapping>, extent: impl Fn(&str) -> f64) -> Vec<(f64, String)> {
        let ticks = mapping.as_ref().filter(|_| self.has_data()).map(|m| m.ticks(extent)).unwrap_or_default();
        ticks.into_iter().map(|tick| (tick.at, tick.label)).collect()
    }

    fn horizontal(&self, at: f64, color: (u8, u8, u8), width: f64, out: &mut Vec<Shape>) {
        out.push(Shape::line((self.plot.left, at), (self.plot.right, at), width, color));
    }

    fn vertical(&self, at: f64, color: (u8, u8, u8), width: f64, out: &mut Vec<Shape>) {
        out.push(Shape::line((at, self.plot.bottom), (at, self.plot.top), width, color));
    }
}

/// The values and bounds of all marks.
fn y_values(marks: &Marks) -> Vec<f64> {
    let values: Vec<&Value> = match marks {
        Marks::Bars { series, .. } => series.iter().flat_map(|s| &s.values).collect(),
        Marks::Points(series) => series.iter().flat_map(|s| s.points.iter().map(|(_, value)| value)).collect(),
        Marks::Heat(_) | Marks::Raster(_) => Vec::new(),
    };
    let parts = |value: &Value| {
        let (lo, hi) = value.finite_bounds().unzip();
        [value.finite(), lo, hi]
    };
    values.into_iter().flat_map(parts).flatten().collect()
}
