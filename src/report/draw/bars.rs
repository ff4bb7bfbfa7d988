//! Bars, their value labels and the labels of their categories.
//!
//! Owns how bars share the width of a plot. Knows nothing of other panels.

use super::axis::Mapping;
use super::display_list::{Anchor, Color, Rect, Shape, Text, clip_segment};
use super::font;
use super::style::{BLACK, DARK, FAINT, Look, Run, TICK, VALUE, WHITE};
use crate::report::draw::number;
use crate::report::figure::{BarSeries, Category, Format, Value};

/// The part of a category's width that its bars take.
const FILL: f64 = 0.78;
/// Wider bars look like blocks.
const WIDEST_BAR: f64 = 44.0;
/// Longest category label along its text before it is broken, where labels read upwards.
const LONGEST_UPRIGHT: f64 = 130.0;
/// The part of a plot's height that a label which reads upwards may take.
const LONGEST_VALUE: f64 = 0.4;
/// Between a bar and its label.
const LABEL_GAP: f64 = 3.0;
/// Smaller digits can't be read in print: 4 points.
const SMALLEST: f64 = 5.4;
/// Shorter whiskers can't be seen.
const SHORTEST_WHISKER: f64 = 0.7;

/// The bars of a panel in a plot of known width.
pub(super) struct Bars<'a> {
    categories: &'a [Category],
    series: &'a [BarSeries],
    format: Format,
    left: f64,
    height: f64,
    /// Width of a category.
    pitch: f64,
    /// Width of a bar and its gap.
    bar: f64,
}

/// How labels are set, and their size in pixels per em.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Setting {
    Flat(f64),
    Upright(f64),
    Hidden,
}

impl<'a> Bars<'a> {
    pub(super) fn new(categories: &'a [Category], series: &'a [BarSeries], format: Format, plot: &Rect) -> Self {
        let pitch = plot.width() / categories.len().max(1) as f64;
        let bar = (pitch * FILL / series.len().max(1) as f64).min(WIDEST_BAR);
        Bars { categories, series, format, left: plot.left, height: plot.height(), pitch, bar }
    }

    /// Height that the labels on top of the highest bars need.
    pub(super) fn headroom(&self) -> f64 {
        match self.value_setting() {
            Setting::Flat(size) => size + LABEL_GAP,
            Setting::Upright(size) => self.widest_value(size) + 2.0 * LABEL_GAP,
            Setting::Hidden => 0.0,
        }
    }

    /// Height of the category labels.
    pub(super) fn category_height(&self) -> f64 {
        match self.category_setting() {
            Setting::Flat(size) => {
                let lines = self.categories.iter().map(|c| self.flat_lines(c, size).len()).max().unwrap_or(0);
                lines as f64 * size * font::LINE
            }
            Setting::Upright(size) => {
                let widths = self.categories.iter().flat_map(|c| font::wrap(&c.label, size, LONGEST_UPRIGHT));
                widths.map(|line| font::width(&line, size)).fold(0.0, f64::max)
            }
            Setting::Hidden => 0.0,
        }
    }

    /// Labels below the plot's bottom edge, from `top` down.
    pub(super) fn draw_categories(&self, top: f64, out: &mut Vec<Shape>) {
        for (index, category) in self.categories.iter().enumerate() {
            let center = self.left + (index as f64 + 0.5) * self.pitch;
            match self.category_setting() {
                Setting::Flat(size) => {
                    for (row, line) in self.flat_lines(category, size).into_iter().enumerate() {
                        let y = top + (row as f64 + 0.5) * size * font::LINE;
                        out.push(Shape::Text(Text::centered(line, (center, y), size, Anchor::Middle)));
                    }
                }
                Setting::Upright(size) => {
                    let lines = font::wrap(&category.label, size, LONGEST_UPRIGHT);
                    let first = center - (lines.len() as f64 - 1.0) / 2.0 * size * font::LINE;
                    for (row, line) in lines.into_iter().enumerate() {
                        let x = first + row as f64 * size * font::LINE;
                        out.push(Shape::Text(Text::upright(line, (x, top), size, Anchor::End)));
                    }
                }
                Setting::Hidden => {}
            }
        }
    }

    /// Bars, whiskers and value labels inside `plot`.
    pub(super) fn draw(&self, y: &Mapping, plot: &Rect, out: &mut Vec<Shape>) {
        let mut labels = Vec::new();
        for (index, category) in self.categories.iter().enumerate() {
            let center = self.left + (index as f64 + 0.5) * self.pitch;
            let first = center - self.bar * self.series.len() as f64 / 2.0;
            for (row, series) in self.series.iter().enumerate() {
                let left = first + row as f64 * self.bar;
                let value = series.values.get(index).copied().unwrap_or(Value::MISSING);
                let Some((number, end)) = value.finite().and_then(|v| y.position(v).map(|at| (v, at))) else {
                    labels.extend(self.without_bar(&value, left + self.bar / 2.0, y.baseline()));
                    continue;
                };
                let gap = if self.bar > 4.0 { 0.5 } else { 0.0 };
                let (base, end) = (y.baseline(), end.clamp(plot.top, plot.bottom));
                let (top, bottom) = (base.min(end), base.max(end));
                let rect = Rect { left: left + gap, top, right: left + self.bar - gap, bottom };
                let look = Look::of(category.style.unwrap_or(series.style));
                match category.repeated {
                    true => draw_open_bar(&rect, &look, out),
                    false => draw_bar(&rect, &look, out),
                }
                let reach = draw_whisker(&value, left + self.bar / 2.0, y, plot, out);
                let down = number < 0.0 && end >= base;
                let from = match reach {
                    Some((top, bottom)) => {
                        if down {
                            bottom.max(end)
                        } else {
                            top.min(end)
                        }
                    }
                    None => end,
                };
                labels.extend(self.value_label(number, left + self.bar / 2.0, from, down, plot));
            }
        }
        // On top of all bars: a label may be wider than its own.
        out.extend(labels);
    }

    /// The label of a value at the end `from` of its bar, on a ground that hides the lines behind.
    fn value_label(&self, v: f64, x: f64, from: f64, down: bool, plot: &Rect) -> Vec<Shape> {
        let content = number::value(v, self.format);
        let text = match self.value_setting() {
            Setting::Hidden => return Vec::new(),
            Setting::Flat(size) => {
                let half = size * font::CAP_HEIGHT / 2.0 + LABEL_GAP;
                let y = if down { from + half } else { from - half };
                let y = y.clamp(plot.top + half - LABEL_GAP, plot.bottom - half + LABEL_GAP);
                Text::centered(content, (x, y), size, Anchor::Middle)
            }
            Setting::Upright(size) => {
                let length = font::width(&content, size);
                let y = if down { from + LABEL_GAP + length } else { from - LABEL_GAP };
                let y = y.clamp(plot.top + length, plot.bottom.max(plot.top + length));
                Text::upright(content, (x, y), size, Anchor::Start)
            }
        };
        let mut ground = text.bounds();
        if !text.upright {
            // As high as digits are, so that it doesn't whiten the bar.
            ground.bottom = text.at.1 + 1.0;
        }
        vec![Shape::Box { rect: ground, color: WHITE, alpha: 0.75 }, Shape::Text(text.color(DARK))]
    }

    /// Marks a gap, so that it isn't taken for a bar of height 0; on a logarithmic axis 0 is one.
    fn without_bar(&self, value: &Value, x: f64, baseline: f64) -> Option<Shape> {
        let size = VALUE.min(self.bar / font::LINE);
        if size < SMALLEST {
            return None;
        }
        let content = value.finite().map_or("n/a".to_owned(), |v| number::value(v, self.format));
        let text = if font::width(&content, size) <= self.bar - 2.0 {
            Text::centered(content, (x, baseline - LABEL_GAP - size * font::CAP_HEIGHT / 2.0), size, Anchor::Middle)
        } else {
            Text::upright(content, (x, baseline - LABEL_GAP), size, Anchor::Start)
        };
        Some(Shape::Text(text.color(FAINT)))
    }

    fn value_setting(&self) -> Setting {
        // A bar that stands alone may have a label wider than itself.
        let room = if self.series.len() > 1 { self.bar } else { self.pitch } - 2.0;
        let fitting = VALUE * (room / self.widest_value(VALUE).max(1e-9)).min(1.0);
        let upright = VALUE.min(self.bar / font::LINE);
        if fitting >= 0.85 * VALUE {
            Setting::Flat(fitting)
        } else if upright >= SMALLEST && self.widest_value(upright) <= LONGEST_VALUE * self.height {
            Setting::Upright(upright)
        } else {
            Setting::Hidden
        }
    }

    fn widest_value(&self, size: f64) -> f64 {
        let values = self.series.iter().flat_map(|s| &s.values).filter_map(Value::finite);
        values.map(|v| font::width(&number::value(v, self.format), size)).fold(0.0, f64::max)
    }

    fn category_setting(&self) -> Setting {
        let fits = |c: &Category, size| {
            font::widest_piece(&c.label, size) <= self.flat_room() && self.flat_lines(c, size).len() <= 3
        };
        // Slightly smaller is easier to read than upright.
        let flat = [TICK, 0.88 * TICK].into_iter().find(|size| self.categories.iter().all(|c| fits(c, *size)));
        if let Some(size) = flat {
            return Setting::Flat(size);
        }
        let size = TICK.min(self.pitch / font::LINE);
        if size >= SMALLEST { Setting::Upright(size) } else { Setting::Hidden }
    }

    fn flat_lines(&self, category: &Category, size: f64) -> Vec<String> {
        font::wrap(&category.label, size, self.flat_room())
    }

    fn flat_room(&self) -> f64 {
        self.pitch - 4.0
    }
}

/// A bar in its colour and hatch; also the swatch of a legend.
pub(super) fn draw_bar(rect: &Rect, look: &Look, out: &mut Vec<Shape>) {
    out.push(Shape::Box { rect: *rect, color: look.color, alpha: 1.0 });
    for run in look.hatch {
        hatch(rect, *run, look.over, out);
    }
}

/// A bar of what another bar shows already: an outline with a wide hatch.
fn draw_open_bar(rect: &Rect, look: &Look, out: &mut Vec<Shape>) {
    out.push(Shape::Box { rect: *rect, color: WHITE, alpha: 1.0 });
    hatch(rect, Run::Rising, look.color, out);
    let Rect { left, top, right, bottom } = *rect;
    let points = vec![(left, bottom), (left, top), (right, top), (right, bottom), (left, bottom)];
    out.push(Shape::Stroke { points, width: 0.9, color: look.color });
}

/// Parallel lines across a rectangle.
fn hatch(rect: &Rect, run: Run, color: Color, out: &mut Vec<Shape>) {
    const APART: f64 = 5.0;
    let Rect { left, top, right, bottom } = *rect;
    let (width, height) = (rect.width(), rect.height());
    let reach = match run {
        Run::Rising | Run::Falling => width + height,
        Run::Level => height,
        Run::Upright => width,
    };
    let mut offset = 4.0;
    while offset < reach {
        let (from, to) = match run {
            Run::Rising => ((left + offset - height, bottom), (left + offset, top)),
            Run::Falling => ((left + offset - height, top), (left + offset, bottom)),
            // Counted from the base, so that bars of different heights match.
            Run::Level => ((left, bottom - offset), (right, bottom - offset)),
            Run::Upright => ((left + offset, top), (left + offset, bottom)),
        };
        if let Some((from, to)) = clip_segment(from, to, rect) {
            out.push(Shape::line(from, to, 0.9, color));
        }
        offset += APART;
    }
}

/// A vertical error bar; its ends, as far as they are in the plot.
pub(super) fn draw_whisker(
    value: &Value,
    x: f64,
    y: &Mapping,
    plot: &Rect,
    out: &mut Vec<Shape>,
) -> Option<(f64, f64)> {
    let (lo, hi) = value.finite_bounds()?;
    let top = y.position(hi)?.clamp(plot.top, plot.bottom);
    // A lower bound of 0 or less is off the bottom of a logarithmic axis.
    let bottom = y.position(lo).unwrap_or(plot.bottom).clamp(plot.top, plot.bottom);
    // Two caps on top of each other would look like a mark of its own; the figure says so instead.
    if (bottom - top).abs() < SHORTEST_WHISKER {
        return None;
    }
    // A light line under the dark one keeps it visible on dark bars.
    for (width, color) in [(2.4, WHITE), (1.0, BLACK)] {
        let cap = 2.0 + width / 2.0;
        out.push(Shape::line((x, bottom), (x, top), width, color));
        out.push(Shape::line((x - cap, top), (x + cap, top), width, color));
        out.push(Shape::line((x - cap, bottom), (x + cap, bottom), width, color));
    }
    Some((top.min(bottom), top.max(bottom)))
}
