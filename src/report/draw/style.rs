//! What series look like: colours that colour-blind readers tell apart, and a marker, a dash and a
//! hatch for each, so that figures survive a black-and-white printer.
//!
//! Owns the mapping from style indices to looks, and the sizes of texts and lines.

use super::shape::{Color, Point, Shape};

/// Sizes of texts in pixels per em, at 96 pixels to the inch: 10, 8.5, 8, 7 and 6 points.
pub(super) const TITLE: f64 = 13.33;
pub(super) const HEADING: f64 = 11.33;
pub(super) const LABEL: f64 = 10.67;
pub(super) const TICK: f64 = 9.33;
pub(super) const VALUE: f64 = 8.0;

pub(super) const BLACK: Color = (0, 0, 0);
pub(super) const WHITE: Color = (255, 255, 255);
/// Rules and their labels, whiskers.
pub(super) const DARK: Color = (64, 64, 64);
/// The frame.
pub(super) const FRAME: Color = (110, 110, 110);
/// "n/a", "no data".
pub(super) const FAINT: Color = (130, 130, 130);
pub(super) const GRID: Color = (222, 222, 222);
pub(super) const MINOR_GRID: Color = (240, 240, 240);

/// Dash of rules: short, unlike any series'.
pub(super) const RULE_DASH: &[f64] = &[3.0, 2.5];

/// Radius of a marker.
pub(super) const MARKER: f64 = 3.2;

/// Okabe and Ito's palette, its black softened, neighbours far apart in lightness; yellow last, weak on white.
const COLORS: [Color; 8] = [
    (51, 51, 51),
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
];

/// Lengths drawn and skipped in turn.
const DASHES: [&[f64]; 5] = [&[], &[6.0, 2.5], &[9.0, 2.5, 2.0, 2.5], &[2.0, 2.0], &[12.0, 3.0]];

/// Seven markers to eight colours: 56 styles differ in one or the other.
const MARKERS: [Marker; 7] = [
    Marker::Disc,
    Marker::Polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
    Marker::Polygon(&[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)]),
    Marker::Polygon(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
    Marker::Polygon(&[(0.0, 1.2), (-1.1, -0.8), (1.1, -0.8)]),
    Marker::Polygon(&[(0.0, -1.2), (1.14, -0.37), (0.71, 0.97), (-0.71, 0.97), (-1.14, -0.37)]),
    Marker::Polygon(&[
        (-0.4, -1.2),
        (0.4, -1.2),
        (0.4, -0.4),
        (1.2, -0.4),
        (1.2, 0.4),
        (0.4, 0.4),
        (0.4, 1.2),
        (-0.4, 1.2),
        (-0.4, 0.4),
        (-1.2, 0.4),
        (-1.2, -0.4),
        (-0.4, -0.4),
    ]),
];

/// The shape of a point, about the origin, in units of [`MARKER`].
#[derive(Debug, Clone, Copy, PartialEq)]
enum Marker {
    Disc,
    Polygon(&'static [Point]),
}

/// How a bar is hatched over its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hatch {
    Plain,
    Rising,
    Falling,
}

/// The look of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    pub color: Color,
    pub dash: &'static [f64],
    pub hatch: Hatch,
    marker: Marker,
}

impl Look {
    /// The look of a style index; indices beyond the palette repeat colours with other markers.
    pub(super) fn of(style: usize) -> Self {
        let hatch = match style % 8 {
            0..=2 => Hatch::Plain,
            3..=5 => Hatch::Rising,
            _ => Hatch::Falling,
        };
        Look { color: COLORS[style % 8], dash: DASHES[style % 5], hatch, marker: MARKERS[style % 7] }
    }

    /// The marker at a position, with a white rim that keeps crowded markers apart.
    pub(super) fn marker(&self, (x, y): Point) -> [Shape; 2] {
        let shape = |radius: f64, color| match self.marker {
            Marker::Disc => Shape::Disc { center: (x, y), radius, color },
            Marker::Polygon(corners) => {
                let points = corners.iter().map(|(dx, dy)| (x + dx * radius, y + dy * radius)).collect();
                Shape::Fill { points, color, alpha: 1.0 }
            }
        };
        [shape(MARKER + 0.8, WHITE), shape(MARKER, self.color)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_differ_up_to_the_fifty_sixth() {
        let looks: Vec<Look> = (0..56).map(Look::of).collect();
        for (i, look) in looks.iter().enumerate() {
            assert!(looks[..i].iter().all(|other| (other.color, other.marker) != (look.color, look.marker)), "{i}");
        }
    }
}
