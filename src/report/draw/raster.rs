//! Rasters: a matrix as an image in shades of grey, with the shares of its columns above and of its rows beside it.
//!
//! Owns the strips along an image and the reduction of pixels to shades. Knows no axes: those are the panel's.

use super::display_list::{Anchor, Point, Rect, Shape, Text};
use super::font;
use super::style::{DARK, FRAME, GRID, Look};
use crate::report::figure::{Profile, Raster};

/// Width of a strip, and of the space between it and the image.
const STRIP: f64 = 30.0;
const GAP: f64 = 5.0;
/// How far the second number below a strip reaches beyond it, so that the two stay apart.
const OVERHANG: f64 = 8.0;
/// Size of the numbers at a strip's ends.
const END: f64 = 7.0;
/// Shades of an image: as many as the eye tells apart, half a byte each.
pub(super) const SHADES: u8 = 16;

/// The space that strips take beyond the image: above it and to its right.
pub(super) fn room(raster: &Raster) -> (f64, f64) {
    let strip = |profile: &Option<Profile>| profile.as_ref().map_or(0.0, |_| GAP + STRIP);
    // The label of the strip above stands over it; that of the one beside is upright.
    let above = raster.above.as_ref().map_or(0.0, |_| END * font::LINE);
    let beside = raster.beside.as_ref().map_or(0.0, |_| END * font::LINE + 1.0);
    let corner = if raster.above.is_some() && raster.beside.is_none() { ENDS } else { 0.0 };
    (strip(&raster.above) + above, (strip(&raster.beside) + beside).max(corner))
}

/// Room for the numbers of the strip above where no strip beside leaves it.
const ENDS: f64 = 24.0;

/// Draws the image into `plot`, and the strips outside it.
pub(super) fn draw(raster: &Raster, plot: &Rect, out: &mut Vec<Shape>) {
    let shade = |share: &f64| ((1.0 - share.clamp(0.0, 1.0)) * f64::from(SHADES - 1)).round() as u8;
    let shades = raster.pixels.iter().map(shade).collect();
    out.push(Shape::Image { rect: *plot, width: raster.width, shades });
    for cut in &raster.cuts {
        let y = plot.top + cut.clamp(0.0, 1.0) * plot.height();
        out.push(Shape::line((plot.left, y), (plot.right, y), 0.8, Look::of(5).color));
    }
    if let Some(profile) = &raster.above {
        let strip = Rect { top: plot.top - GAP - STRIP, bottom: plot.top - GAP, ..*plot };
        draw_above(profile, &strip, out);
    }
    if let Some(profile) = &raster.beside {
        let strip = Rect { left: plot.right + GAP, right: plot.right + GAP + STRIP, ..*plot };
        draw_beside(profile, &strip, out);
    }
}

fn draw_above(profile: &Profile, strip: &Rect, out: &mut Vec<Shape>) {
    let Some((lo, hi)) = range(profile) else { return };
    let at = |index: usize, value: f64| {
        let x = strip.left + index as f64 * strip.width() / profile.values.len() as f64;
        (x, strip.bottom - (value - lo) / (hi - lo) * strip.height())
    };
    frame(strip, out);
    area(profile, at, [(strip.right, strip.bottom), (strip.left, strip.bottom)], out);
    for (value, y) in [(hi, strip.top + END / 2.0), (lo, strip.bottom - END / 2.0)] {
        out.push(Shape::Text(Text::centered(number(value), (strip.right + 3.0, y), END, Anchor::Start).color(DARK)));
    }
    let label = font::shortened(&profile.label, END, strip.width());
    let place = (strip.left, strip.top - END * font::LINE / 2.0);
    out.push(Shape::Text(Text::centered(label, place, END, Anchor::Start).color(DARK)));
}

fn draw_beside(profile: &Profile, strip: &Rect, out: &mut Vec<Shape>) {
    let Some((lo, hi)) = range(profile) else { return };
    let at = |index: usize, value: f64| {
        let y = strip.top + index as f64 * strip.height() / profile.values.len() as f64;
        (strip.left + (value - lo) / (hi - lo) * strip.width(), y)
    };
    frame(strip, out);
    area(profile, at, [(strip.left, strip.bottom), (strip.left, strip.top)], out);
    let y = strip.bottom + 3.0 + END * font::LINE / 2.0;
    for (value, x, anchor) in [(lo, strip.left, Anchor::Start), (hi, strip.right + OVERHANG, Anchor::End)] {
        out.push(Shape::Text(Text::centered(number(value), (x, y), END, anchor).color(DARK)));
    }
    let label = font::shortened(&profile.label, END, strip.height());
    let place = (strip.right + 1.0 + END * font::LINE / 2.0, strip.bottom);
    out.push(Shape::Text(Text::upright(label, place, END, Anchor::Start).color(DARK)));
}

/// The filled steps of a profile and their outline.
fn area(profile: &Profile, at: impl Fn(usize, f64) -> Point, back: [Point; 2], out: &mut Vec<Shape>) {
    let steps = |(index, value): (usize, &f64)| [at(index, *value), at(index + 1, *value)];
    let line: Vec<Point> = profile.values.iter().enumerate().flat_map(steps).collect();
    let color = Look::of(1).color;
    out.push(Shape::Fill { points: line.iter().copied().chain(back).collect(), color, alpha: 0.25 });
    out.push(Shape::Stroke { points: line, width: 0.8, color });
}

fn frame(strip: &Rect, out: &mut Vec<Shape>) {
    out.push(Shape::Box { rect: *strip, color: GRID, alpha: 0.35 });
    out.push(Shape::line((strip.left, strip.bottom), (strip.right, strip.bottom), 0.5, FRAME));
}

/// From the lowest to the highest value, wide enough that noise stays small.
fn range(profile: &Profile) -> Option<(f64, f64)> {
    const NARROWEST: f64 = 0.02;
    let finite = profile.values.iter().copied().filter(|v| v.is_finite());
    let (lo, hi) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
    let widen = (NARROWEST - (hi - lo)).max(0.0) / 2.0;
    (lo <= hi).then_some((lo - widen, hi + widen))
}

fn number(value: f64) -> String {
    // A strip of 30 pixels shows no third digit.
    format!("{value:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLOT: Rect = Rect { left: 50.0, top: 60.0, right: 150.0, bottom: 160.0 };

    fn raster() -> Raster {
        let profile = |label: &str, values: &[f64]| Some(Profile { label: label.into(), values: values.to_vec() });
        Raster {
            width: 2,
            height: 2,
            pixels: vec![0.0, 1.0, 0.5, 2.0],
            above: profile("columns", &[0.25, 1.0]),
            beside: profile("rows", &[0.5, 0.75]),
            cuts: vec![0.5],
            label: "kept".into(),
        }
    }

    #[test]
    fn what_is_kept_is_dark_and_the_strips_lie_outside() {
        let mut out = Vec::new();
        draw(&raster(), &PLOT, &mut out);
        let Shape::Image { rect, width, shades } = &out[0] else { panic!("no image") };
        assert_eq!((*rect, *width, shades.as_slice()), (PLOT, 2, &[15, 0, 8, 0][..]));
        let texts: Vec<_> = out.iter().filter_map(|s| if let Shape::Text(t) = s { Some(t) } else { None }).collect();
        assert!(
            texts.iter().all(|t| t.bounds().bottom <= PLOT.top || t.bounds().left >= PLOT.right - 1.0),
            "{texts:?}"
        );
        let (above, beside) = room(&raster());
        for text in texts {
            let bounds = text.bounds();
            assert!(bounds.top >= PLOT.top - above - 2.0 && bounds.right <= PLOT.right + beside + 4.0, "{text:?}");
        }
    }

    #[test]
    fn a_flat_profile_is_drawn_in_the_middle() {
        let flat = |values: &[f64]| range(&Profile { label: String::new(), values: values.to_vec() });
        let (lo, hi) = flat(&[0.5, 0.5]).unwrap();
        assert!((lo - 0.49).abs() < 1e-12 && (hi - 0.51).abs() < 1e-12);
        assert_eq!(flat(&[]), None);
        assert_eq!(flat(&[0.1, 0.9]), Some((0.1, 0.9)));
    }
}
