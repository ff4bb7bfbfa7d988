//! What series look like: colours that colour-blind readers tell apart, and a marker, a dash and a
//! hatch for each, so that figures survive a black-and-white printer.
//!
//! Owns the mapping from style indices to looks, and the sizes of texts and lines.

use super::display_list::{Color, Point, Shape};

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
/// Of a point of a cloud.
const DOT: f64 = 2.0;

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

/// Colours of a heat map from its lowest number to its highest: the palette's blue from white to black, so that
/// lightness alone tells them apart.
const RAMP: [Color; 4] = [(243, 248, 253), (139, 189, 222), (0, 114, 178), (3, 38, 78)];

/// The colour of a heat map at `share` of its range, and one for text upon it.
pub(super) fn ramp(share: f64) -> (Color, Color) {
    let at = share.clamp(0.0, 1.0) * (RAMP.len() - 1) as f64;
    let index = (at as usize).min(RAMP.len() - 2);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * (at - index as f64)).round() as u8;
    let (a, b) = (RAMP[index], RAMP[index + 1]);
    let color = (mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2));
    (color, if share < 0.5 { BLACK } else { WHITE })
}

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

/// Parallel lines over a bar's colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// From lower left to upper right.
    Rising,
    /// From upper left to lower right.
    Falling,
    Level,
    Upright,
}

/// How bars are hatched: the first two are told apart by lightness, all others by their lines.
const HATCHES: [&[Run]; 8] = [
    &[],
    &[],
    &[Run::Rising],
    &[Run::Falling],
    &[Run::Rising, Run::Falling],
    &[Run::Level],
    &[Run::Upright],
    &[Run::Level, Run::Upright],
];

/// The look of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    pub color: Color,
    pub dash: &'static [f64],
    pub hatch: &'static [Run],
    /// The colour of the hatch's lines.
    pub over: Color,
    marker: Marker,
}

impl Look {
    /// The look of a style index; indices beyond the palette repeat colours with other markers.
    pub(super) fn of(style: usize) -> Self {
        let color = COLORS[style % 8];
        // Styles of one colour differ in their hatch too.
        let hatch = HATCHES[(style % 8 + style / 8) % 8];
        let over = if color == COLORS[7] { DARK } else { WHITE };
        Look { color, dash: DASHES[style % 5], hatch, over, marker: MARKERS[style % 7] }
    }

    /// The marker at a position, with a white rim that keeps crowded markers apart.
    pub(super) fn marker(&self, at: Point) -> [Shape; 2] {
        [self.shape(at, MARKER + 0.8, WHITE), self.shape(at, MARKER, self.color)]
    }

    /// A small marker, without a rim.
    pub(super) fn dot(&self, at: Point) -> Shape {
        self.shape(at, DOT, self.color)
    }

    fn shape(&self, (x, y): Point, radius: f64, color: Color) -> Shape {
        match self.marker {
            Marker::Disc => Shape::Disc { center: (x, y), radius, color },
            Marker::Polygon(corners) => {
                let points = corners.iter().map(|(dx, dy)| (x + dx * radius, y + dy * radius)).collect();
                Shape::Fill { points, color, alpha: 1.0 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_darkens_and_its_text_stands_out() {
        let lightness = |(r, g, b): Color| 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b);
        let colors: Vec<(Color, Color)> = (0..=100).map(|i| ramp(f64::from(i) / 100.0)).collect();
        assert!(colors.windows(2).all(|pair| lightness(pair[1].0) < lightness(pair[0].0)));
        assert!(colors.iter().all(|(ground, text)| (lightness(*ground) - lightness(*text)).abs() > 100.0));
        assert_eq!((ramp(-1.0), ramp(2.0)), (ramp(0.0), ramp(1.0)));
    }

    #[test]
    fn looks_differ_up_to_the_fifty_sixth() {
        let looks: Vec<Look> = (0..56).map(Look::of).collect();
        for (i, look) in looks.iter().enumerate() {
            assert!(looks[..i].iter().all(|other| (other.color, other.marker) != (look.color, look.marker)), "{i}");
        }
    }

    /// Black and the first colour are bare; every other bar of a figure has lines of its own, also those of one colour.
    #[test]
    fn no_two_bars_share_a_hatch() {
        let hatches: Vec<&[Run]> = (1..8).map(|style| Look::of(style).hatch).collect();
        for (i, hatch) in hatches.iter().enumerate() {
            assert!(!hatches[..i].contains(hatch), "{i}");
        }
        for color in 1..8 {
            let of_one: Vec<&[Run]> = [0, 24, 48].map(|later| Look::of(color + later).hatch).to_vec();
            assert!(of_one[0] != of_one[1] && of_one[1] != of_one[2] && of_one[0] != of_one[2], "{color}");
        }
    }
}
