//! Points, joined by lines or not, with their error bands.
//!
//! Owns how a series of points is drawn between two axes. Knows nothing of other panels.

use super::axis::Mapping;
use super::bars::draw_whisker;
use super::display_list::{Point, Rect, Shape, clip_polygon, clip_segment, dashes};
use super::style::Look;
use crate::report::figure::{PointSeries, Trace, Value};

/// Draws bands first, then lines, then markers, so that no series' band hides another's line.
pub(super) fn draw(series: &[PointSeries], x: &Mapping, y: &Mapping, plot: &Rect, out: &mut Vec<Shape>) {
    let placed: Vec<(&PointSeries, Vec<Vec<Placed>>)> = series.iter().map(|s| (s, runs(s, x, y))).collect();
    let lines = || placed.iter().filter(|(series, _)| matches!(series.trace, Trace::Marked | Trace::Line));
    for (series, runs) in lines() {
        let bands = runs.iter().filter_map(|run| band(run, y, plot));
        out.extend(bands.map(|points| Shape::Fill { points, color: Look::of(series.style).color, alpha: 0.18 }));
    }
    for (series, runs) in lines() {
        let look = Look::of(series.style);
        for run in runs {
            let points: Vec<Point> = run.iter().map(|placed| placed.at).collect();
            for points in clip_line(&points, plot).iter().flat_map(|part| dashes(part, look.dash)) {
                out.push(Shape::Stroke { points, width: 1.5, color: look.color });
            }
        }
    }
    for (series, runs) in placed.iter().filter(|(series, _)| series.trace != Trace::Line) {
        for placed in runs.iter().flatten().filter(|placed| within(placed.at, plot)) {
            let look = Look::of(series.style);
            match series.trace {
                Trace::Dots => out.push(look.dot(placed.at)),
                Trace::Scatter => {
                    draw_whisker(&placed.value, placed.at.0, y, plot, out);
                    out.extend(look.marker(placed.at));
                }
                Trace::Marked | Trace::Line => out.extend(look.marker(placed.at)),
            }
        }
    }
}

/// A value and where it is drawn.
struct Placed {
    at: Point,
    value: Value,
}

/// The points of a series, cut where a value is missing.
fn runs(series: &PointSeries, x: &Mapping, y: &Mapping) -> Vec<Vec<Placed>> {
    let mut runs = vec![Vec::new()];
    for (at, value) in &series.points {
        let position = x.position(*at).zip(value.finite().and_then(|v| y.position(v)));
        match (position, runs.last_mut()) {
            (Some(at), Some(run)) => run.push(Placed { at, value: *value }),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// The polygon between the bounds of a run; points without bounds pinch it.
fn band(run: &[Placed], y: &Mapping, plot: &Rect) -> Option<Vec<Point>> {
    run.iter().find(|placed| placed.value.finite_bounds().is_some())?;
    let bound = |placed: &Placed, pick: fn((f64, f64)) -> f64| {
        let bound = placed.value.finite_bounds().map(pick);
        // A lower bound of 0 or less is off the bottom of a logarithmic axis.
        let at = bound.map_or(placed.at.1, |v| y.position(v).unwrap_or(plot.bottom));
        (placed.at.0, at)
    };
    let upper = run.iter().map(|placed| bound(placed, |(_, hi)| hi));
    let lower = run.iter().rev().map(|placed| bound(placed, |(lo, _)| lo));
    let polygon = clip_polygon(&upper.chain(lower).collect::<Vec<_>>(), plot);
    (polygon.len() > 2).then_some(polygon)
}

/// The parts of a line inside the plot.
fn clip_line(points: &[Point], plot: &Rect) -> Vec<Vec<Point>> {
    let mut parts: Vec<Vec<Point>> = Vec::new();
    for pair in points.windows(2) {
        let Some((from, to)) = clip_segment(pair[0], pair[1], plot) else { continue };
        match parts.last_mut() {
            Some(part) if part.last() == Some(&from) => part.push(to),
            _ => parts.push(vec![from, to]),
        }
    }
    parts
}

fn within((x, y): Point, plot: &Rect) -> bool {
    (plot.left - 0.5..=plot.right + 0.5).contains(&x) && (plot.top - 0.5..=plot.bottom + 0.5).contains(&y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::draw::axis::Content;
    use crate::report::figure::Axis;

    const PLOT: Rect = Rect { left: 0.0, top: 0.0, right: 100.0, bottom: 100.0 };

    fn axis() -> Axis {
        Axis { range: Some((0.0, 10.0)), ..Axis::linear("") }
    }

    fn drawn(points: Vec<(f64, Value)>) -> Vec<Shape> {
        let x = Mapping::new(&axis(), Content::Points, [0.0].into_iter(), (0.0, 100.0), 0.0).unwrap();
        let y = Mapping::new(&axis(), Content::Points, [0.0].into_iter(), (100.0, 0.0), 0.0).unwrap();
        let series = PointSeries { name: "s".into(), style: 0, trace: Trace::Marked, points };
        let mut out = Vec::new();
        draw(&[series], &x, &y, &PLOT, &mut out);
        out
    }

    fn strokes<'a>(shapes: &'a [Shape]) -> Vec<&'a [Point]> {
        let stroke = |shape: &'a Shape| match shape {
            Shape::Stroke { points, .. } => Some(points.as_slice()),
            _ => None,
        };
        shapes.iter().filter_map(stroke).collect()
    }

    #[test]
    fn a_missing_value_interrupts_the_line() {
        let missing = Value::from(f64::NAN);
        let points = vec![(0.0, 1.0.into()), (2.0, 2.0.into()), (4.0, missing), (6.0, 3.0.into()), (8.0, 4.0.into())];
        let shapes = drawn(points);
        assert_eq!(strokes(&shapes), [[(0.0, 90.0), (20.0, 80.0)], [(60.0, 70.0), (80.0, 60.0)]]);
        // Four markers with their rims.
        assert_eq!(shapes.len() - 2, 8);
    }

    #[test]
    fn what_is_out_of_range_is_cut_off() {
        let shapes = drawn(vec![(0.0, 5.0.into()), (10.0, 15.0.into())]);
        assert_eq!(strokes(&shapes), [[(0.0, 50.0), (50.0, 0.0)]]);
        assert_eq!(shapes.len() - 1, 2, "the marker outside is not drawn");
    }

    #[test]
    fn a_band_spans_the_bounds() {
        let shapes = drawn(vec![(0.0, Value::with_bounds(5.0, 4.0, 6.0)), (10.0, Value::with_bounds(5.0, 3.0, 7.0))]);
        let Shape::Fill { points, .. } = &shapes[0] else { panic!("no band") };
        assert_eq!(points, &[(0.0, 40.0), (100.0, 30.0), (100.0, 70.0), (0.0, 60.0)]);
    }
}
