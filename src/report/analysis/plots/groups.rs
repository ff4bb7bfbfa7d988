//! Groups of features, ranked: how near they are, and how many rows they have in common.

use super::{CHANCE, Family, Line, Means, PAGE, distinct, height};
use crate::report::figure::{Axis, Figure, Format, Marks, Panel, PointSeries, Rule, RuleAxis, Trace, Value};
use std::collections::BTreeMap;

/// The most panels, and the most points of a curve.
const MOST_PANELS: usize = 8;
const MOST_POINTS: usize = 200;

/// A figure of distances and one of rows that are zero in a whole group.
pub(super) fn all(family: &Family<'_>) -> Vec<(String, Figure)> {
    let lines: Vec<Line<'_>> = family.rows("groups").collect();
    let figures = [("distance", distance(family, &lines)), ("zero-rows", zero_rows(family, &lines))];
    figures.into_iter().filter_map(|(name, figure)| Some((name.to_owned(), figure?))).collect()
}

/// The numbers of the groups of each source, from the smallest on: place 0 is the first, 1 the last. Cells of a source
/// are taken together.
fn ranked(lines: &[Line<'_>], part: &str, source: &str, number: impl Fn(&Line<'_>) -> Option<f64>) -> Vec<(f64, f64)> {
    let mine = lines.iter().filter(|line| line.part() == part && line.key.source == source);
    let mut numbers: Vec<f64> = mine.filter_map(number).filter(|v| v.is_finite()).collect();
    numbers.sort_by(f64::total_cmp);
    let last = numbers.len().saturating_sub(1);
    let shown = last.min(MOST_POINTS);
    let at = |place: usize| {
        let index = (place * last).checked_div(shown).unwrap_or(0);
        (100.0 * index as f64 / last.max(1) as f64, numbers[index])
    };
    if numbers.is_empty() { Vec::new() } else { (0..=shown).map(at).collect() }
}

fn curve(family: &Family<'_>, source: &str, points: Vec<(f64, f64)>) -> PointSeries {
    let points = points.into_iter().map(|(x, y)| (x, Value::from(y))).collect();
    PointSeries { name: source.to_owned(), style: family.style(source), trace: Trace::Line, points }
}

/// How far apart the features of each group are on average; dashed, those of groups drawn at random.
fn distance(family: &Family<'_>, lines: &[Line<'_>]) -> Option<Figure> {
    let random = Means::of(family.rows("group_summary").map(|line| (line.part(), line.number("random_mean_distance"))));
    let panel = |part: &String| {
        let of = |source: &String| {
            curve(family, source, ranked(lines, part, source, |line| line.number("mean_pairwise_hamming")))
        };
        let series = family.shown().iter().map(of).filter(|series| !series.points.is_empty()).collect();
        let rule = random.mean(part).map(|at| Rule { axis: RuleAxis::Y, at, label: "random groups".into() });
        let y = Axis { from_zero: true, ..Axis::linear("Mean Hamming distance") };
        Panel { title: part.clone(), rules: rule.into_iter().collect(), ..panel(y, series) }
    };
    figure(lines, panel)
}

/// The share of rows that are zero in a whole group; grey, between the least and the most that chance gives.
fn zero_rows(family: &Family<'_>, lines: &[Line<'_>]) -> Option<Figure> {
    // A group's rows are those of its matrix, which is as long as what it has in patterns and repeats.
    let rows = rows_of(family);
    let share = |line: &Line<'_>, column: &str| {
        let rows = rows.get(&(line.part(), line.key.source.clone()))?;
        Some(line.number(column)? / rows)
    };
    let panel = |part: &String| {
        let mut series = Vec::new();
        let mut chance: Vec<Vec<(f64, f64)>> = Vec::new();
        for source in family.shown() {
            chance.push(ranked(lines, part, source, |line| share(line, "null_zero_rows")));
            let found = curve(family, source, ranked(lines, part, source, |line| share(line, "all_zero_rows")));
            series.extend(Some(found).filter(|found| !found.points.is_empty()));
        }
        let points = band(&chance);
        series.insert(0, PointSeries { name: "by chance".into(), style: CHANCE, trace: Trace::Line, points });
        let y = Axis { format: Format::Percent(0), from_zero: true, ..Axis::linear("Rows that are zero") };
        Panel { title: part.clone(), ..self::panel(y, series) }
    };
    figure(lines, panel)
}

/// What lies between the lowest and the highest of some curves, at every hundredth: sources may have different numbers of
/// groups, so that their points do not stand at the same places.
fn band(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, Value)> {
    let at = |x: f64| {
        let levels = curves.iter().filter_map(|curve| level(curve, x));
        let (low, high) = levels.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        (low <= high).then(|| (x, Value::with_bounds(f64::midpoint(low, high), low, high)))
    };
    (0..=100).map(f64::from).filter_map(at).collect()
}

/// The level of a curve at a place, between its points on a straight line.
fn level(curve: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = curve.partition_point(|(place, _)| *place < x);
    match (after.checked_sub(1).and_then(|before| curve.get(before)), curve.get(after)) {
        (Some((x0, y0)), Some((x1, y1))) => Some(y0 + (y1 - y0) * (x - x0) / (x1 - x0)),
        (Some((_, y)), None) | (None, Some((_, y))) => Some(*y),
        (None, None) => None,
    }
}

/// The rows that each source's groups of a part have: those of the summary over its groups.
fn rows_of(family: &Family<'_>) -> BTreeMap<(String, String), f64> {
    let rows = family.rows("group_summary").filter_map(|line| {
        let groups = line.number("groups").filter(|groups| *groups > 0.0)?;
        Some(((line.part(), line.key.source.clone()), line.number("rows_total")? / groups))
    });
    rows.collect()
}

fn panel(y: Axis, series: Vec<PointSeries>) -> Panel {
    let x = Axis { range: Some((0.0, 100.0)), ..Axis::linear("Groups, from the lowest on (%)") };
    Panel { legend: true, ..Panel::new(x, y, Marks::Points(series)) }
}

fn figure(lines: &[Line<'_>], panel: impl Fn(&String) -> Panel) -> Option<Figure> {
    let mut parts = distinct(lines.iter().map(Line::part));
    parts.truncate(MOST_PANELS);
    let shows = |panel: &Panel| match &panel.marks {
        Marks::Points(series) => series.iter().any(|s| s.style != CHANCE && !s.points.is_empty()),
        Marks::Bars { .. } | Marks::Heat(_) | Marks::Raster(_) => true,
    };
    let panels: Vec<Panel> = parts.iter().map(panel).filter(shows).collect();
    let columns = panels.len().min(2);
    let tall = height(panels.len(), columns, 200) + 40;
    (!panels.is_empty()).then(|| Figure { columns, ..Figure::new(panels, PAGE, tall) })
}
