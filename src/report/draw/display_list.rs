//! The display list: what a figure looks like, in logical pixels from the upper left corner.
//!
//! Owns plain geometry. Knows neither figures nor the formats that shapes are written to, so that
//! layout is decided once for all formats and can be tested without either.

use super::font;

/// A position: right, down.
pub(super) type Point = (f64, f64);

/// Red, green, blue.
pub(super) type Color = (u8, u8, u8);

/// An upright rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rect {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Rect {
    pub(super) fn width(&self) -> f64 {
        self.right - self.left
    }

    pub(super) fn height(&self) -> f64 {
        self.bottom - self.top
    }

    pub(super) fn center(&self) -> Point {
        ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0)
    }
}

/// The part of a text that its position fixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A single line of text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub content: String,
    /// The anchor's end of the baseline.
    pub at: Point,
    /// Pixels per em.
    pub size: f64,
    pub anchor: Anchor,
    /// Whether it reads upwards: turned by 90° against the clock about `at`.
    pub upright: bool,
    pub color: Color,
}

impl Text {
    /// Black level text whose capitals are centred on `at` vertically.
    pub(super) fn centered(content: impl Into<String>, at: Point, size: f64, anchor: Anchor) -> Self {
        let at = (at.0, at.1 + font::CAP_HEIGHT * size / 2.0);
        Text { content: content.into(), at, size, anchor, upright: false, color: (0, 0, 0) }
    }

    /// Black text that reads upwards, whose capitals are centred on `at` horizontally.
    pub(super) fn upright(content: impl Into<String>, at: Point, size: f64, anchor: Anchor) -> Self {
        let at = (at.0 + font::CAP_HEIGHT * size / 2.0, at.1);
        Text { content: content.into(), at, size, anchor, upright: true, color: (0, 0, 0) }
    }

    pub(super) fn color(self, color: Color) -> Self {
        Text { color, ..self }
    }

    /// The box that the text may cover, accents and descenders included.
    pub(super) fn bounds(&self) -> Rect {
        let width = font::width(&self.content, self.size);
        let start = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -width / 2.0,
            Anchor::End => -width,
        };
        let (up, down) = (font::ASCENT * self.size, font::DESCENT * self.size);
        let (x, y) = self.at;
        if self.upright {
            Rect { left: x - up, top: y - start - width, right: x + down, bottom: y - start }
        } else {
            Rect { left: x + start, top: y - up, right: x + start + width, bottom: y + down }
        }
    }
}

/// Something visible.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// A line through at least two points.
    Stroke { points: Vec<Point>, width: f64, color: Color },
    /// A filled polygon; `alpha` from 0, clear, to 1, opaque.
    Fill { points: Vec<Point>, color: Color, alpha: f64 },
    /// A filled rectangle.
    Box { rect: Rect, color: Color, alpha: f64 },
    /// A filled circle.
    Disc { center: Point, radius: f64, color: Color },
    /// Pixels, row by row from the top, each a share of white in 0 to 15. Nothing is drawn below an image.
    Image { rect: Rect, width: usize, shades: Vec<u8> },
    /// A line of text.
    Text(Text),
}

impl Shape {
    pub(super) fn line(from: Point, to: Point, width: f64, color: Color) -> Self {
        Shape::Stroke { points: vec![from, to], width, color }
    }
}

/// The part of the segment inside `clip`, if any (Liang and Barsky).
pub(super) fn clip_segment(from: Point, to: Point, clip: &Rect) -> Option<(Point, Point)> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    let sides =
        [(-dx, from.0 - clip.left), (dx, clip.right - from.0), (-dy, from.1 - clip.top), (dy, clip.bottom - from.1)];
    for (step, room) in sides {
        if step == 0.0 && room < 0.0 {
            return None;
        }
        if step < 0.0 {
            enter = enter.max(room / step);
        } else if step > 0.0 {
            leave = leave.min(room / step);
        }
    }
    let at = |t: f64| (from.0 + t * dx, from.1 + t * dy);
    (enter <= leave).then(|| (at(enter), at(leave)))
}

/// The part of a polygon inside `clip` (Sutherland and Hodgman); empty if nothing is left.
pub(super) fn clip_polygon(points: &[Point], clip: &Rect) -> Vec<Point> {
    // Signed distance to each side, positive inside.
    let sides: [&dyn Fn(Point) -> f64; 4] =
        [&|p| p.0 - clip.left, &|p| clip.right - p.0, &|p| p.1 - clip.top, &|p| clip.bottom - p.1];
    let mut kept = points.to_vec();
    for inside in sides {
        let corners = std::mem::take(&mut kept);
        let Some(mut previous) = corners.last().copied() else { break };
        for corner in corners {
            let (a, b) = (inside(previous), inside(corner));
            if (a < 0.0) != (b < 0.0) {
                let t = a / (a - b);
                kept.push((previous.0 + t * (corner.0 - previous.0), previous.1 + t * (corner.1 - previous.1)));
            }
            if b >= 0.0 {
                kept.push(corner);
            }
            previous = corner;
        }
    }
    kept
}

/// Cuts a line into dashes. `pattern` alternates lengths drawn and skipped; empty draws all.
pub(super) fn dashes(points: &[Point], pattern: &[f64]) -> Vec<Vec<Point>> {
    if pattern.is_empty() || points.len() < 2 {
        return vec![points.to_vec()];
    }
    let (mut index, mut left) = (0, pattern[0]);
    let mut done = Vec::new();
    let mut dash = vec![points[0]];
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let mut walked = 0.0;
        while length - walked > left {
            walked += left;
            let at = (from.0 + (to.0 - from.0) * walked / length, from.1 + (to.1 - from.1) * walked / length);
            if index % 2 == 0 {
                dash.push(at);
                done.push(std::mem::take(&mut dash));
            } else {
                dash = vec![at];
            }
            index = (index + 1) % pattern.len();
            left = pattern[index];
        }
        left -= length - walked;
        if index % 2 == 0 {
            dash.push(to);
        }
    }
    if dash.len() > 1 {
        done.push(dash);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: Rect = Rect { left: 0.0, top: 0.0, right: 10.0, bottom: 10.0 };

    #[test]
    fn a_segment_is_cut_at_the_border() {
        assert_eq!(clip_segment((5.0, 5.0), (5.0, 25.0), &CLIP), Some(((5.0, 5.0), (5.0, 10.0))));
        assert_eq!(clip_segment((11.0, 0.0), (11.0, 9.0), &CLIP), None);
        assert_eq!(clip_segment((1.0, 1.0), (2.0, 2.0), &CLIP), Some(((1.0, 1.0), (2.0, 2.0))));
    }

    #[test]
    fn a_polygon_is_cut_at_the_border() {
        let kept = clip_polygon(&[(5.0, 5.0), (15.0, 5.0), (15.0, 8.0), (5.0, 8.0)], &CLIP);
        assert_eq!(kept, [(5.0, 5.0), (10.0, 5.0), (10.0, 8.0), (5.0, 8.0)]);
        assert!(clip_polygon(&[(11.0, 1.0), (12.0, 1.0), (12.0, 3.0)], &CLIP).is_empty());
        assert!(clip_polygon(&[], &CLIP).is_empty());
    }

    #[test]
    fn dashes_continue_around_corners() {
        let corner = [(0.0, 0.0), (3.0, 0.0), (3.0, 3.0)];
        let cut = dashes(&corner, &[4.0, 1.0]);
        assert_eq!(cut, [vec![(0.0, 0.0), (3.0, 0.0), (3.0, 1.0)], vec![(3.0, 2.0), (3.0, 3.0)]]);
        assert_eq!(dashes(&corner, &[]), [corner.to_vec()]);
    }

    #[test]
    fn upright_text_grows_upwards() {
        let bounds = Text::upright("label", (50.0, 90.0), 10.0, Anchor::Start).bounds();
        assert_eq!(bounds.bottom, 90.0);
        assert!(bounds.top < 70.0 && bounds.left < 50.0 && bounds.right > 50.0);
    }
}
