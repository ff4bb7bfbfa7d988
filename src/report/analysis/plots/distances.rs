//! Distributions of distances: of features from references, and within groups.

use super::{CHANCE, Family, Line, Means, PAGE, distinct, height};
use crate::report::figure::{Axis, Figure, Marks, Panel, PointSeries, Trace, Value};
use std::collections::BTreeMap;

/// The most panels.
const MOST_PANELS: usize = 8;

/// A figure of distances from references, one of distances within groups.
pub(super) fn all(family: &Family<'_>) -> Vec<(String, Figure)> {
    let figures = [("distances", histograms(family)), ("distance-cdf", cumulated(family))];
    figures.into_iter().filter_map(|(name, figure)| Some((name.to_owned(), figure?))).collect()
}

/// The share of features at each distance, over all references; a panel a role, a colour a source.
fn histograms(family: &Family<'_>) -> Option<Figure> {
    let lines: Vec<Line<'_>> = family.rows("distance_histogram").collect();
    // Edges are whole steps of one width: as bits, equal ones are equal.
    let mut counts: BTreeMap<(String, String), BTreeMap<u64, (f64, f64, f64)>> = BTreeMap::new();
    for line in &lines {
        let edges = line.number("hamming_lo").zip(line.number("hamming_hi"));
        let (Some((lo, hi)), Some(features)) = (edges, line.number("features")) else { continue };
        let bins = counts.entry((line.part(), line.key.source.clone())).or_default();
        bins.entry(lo.max(0.0).to_bits()).or_insert((lo, hi, 0.0)).2 += features;
    }
    let expected = Means::of(family.rows("neighbours").map(|line| (line.part(), line.number("expected"))));
    let panel = |part: &String| {
        let mut series = Vec::new();
        for source in family.shown() {
            let Some(bins) = counts.get(&(part.clone(), source.clone())) else { continue };
            let total: f64 = bins.values().map(|(.., features)| features).sum();
            let height = |features: f64| {
                let share = 100.0 * features / total.max(1.0);
                Value::with_bounds(share, 0.0, share)
            };
            let mut points: Vec<(f64, Value)> = Vec::new();
            for (lo, hi, features) in bins.values() {
                // Bins without features are not stored: the line goes down to them.
                if let Some((end, _)) = points.last().copied().filter(|(end, _)| lo - end > 1e-9) {
                    points.extend([(end, height(0.0)), (*lo, height(0.0))]);
                }
                points.extend([(*lo, height(*features)), (*hi, height(*features))]);
            }
            let ends = points.first().zip(points.last()).map(|(first, last)| (first.0, last.0));
            if let Some((first, last)) = ends {
                points.insert(0, (first, height(0.0)));
                points.push((last, height(0.0)));
            }
            series.push(PointSeries { name: source.clone(), style: family.style(source), trace: Trace::Line, points });
        }
        let rules = expected.mean(part).map(|at| crate::report::figure::Rule {
            axis: crate::report::figure::RuleAxis::X,
            at,
            label: "neighbours by chance".into(),
        });
        let (x, y) = (
            Axis::linear("Hamming distance from a reference"),
            Axis { from_zero: true, ..Axis::linear("Features (%)") },
        );
        let panel = Panel { title: part.clone(), legend: true, ..Panel::new(x, y, Marks::Points(series)) };
        Panel { rules: rules.into_iter().collect(), ..panel }
    };
    figure(&lines, panel)
}

/// How many pairs of a group are at most so far apart; a panel a role, a colour a source.
fn cumulated(family: &Family<'_>) -> Option<Figure> {
    // A negative index says that all groups are taken together.
    let lines: Vec<Line<'_>> =
        family.rows("distance_cdf").filter(|line| line.number("group_index").is_some_and(|at| at < 0.0)).collect();
    let panel = |part: &String| {
        let series = family.shown().iter().map(|source| {
            let mine = lines.iter().filter(|line| line.part() == *part && line.key.source == *source);
            // Of several cells of one place, the first.
            let mut of = None;
            let mine = mine
                .filter(|line| *of.get_or_insert((line.key.layer, line.key.seed)) == (line.key.layer, line.key.seed));
            let mut points = Vec::new();
            let mut before = 0.0;
            for (x, y) in mine.filter_map(|line| line.number("hamming").zip(line.number("cdf"))) {
                points.extend([(x, Value::from(before)), (x, Value::from(y))]);
                before = y;
            }
            PointSeries { name: source.clone(), style: family.style(source), trace: Trace::Line, points }
        });
        let series: Vec<PointSeries> = series.filter(|s| !s.points.is_empty() && s.style != CHANCE).collect();
        let y = Axis { range: Some((0.0, 1.02)), ..Axis::linear("Share of pairs") };
        let x = Axis::linear("Hamming distance within groups");
        Panel { title: part.clone(), legend: true, ..Panel::new(x, y, Marks::Points(series)) }
    };
    figure(&lines, panel)
}

fn figure(lines: &[Line<'_>], panel: impl Fn(&String) -> Panel) -> Option<Figure> {
    let mut parts = distinct(lines.iter().map(Line::part));
    parts.truncate(MOST_PANELS);
    let panels: Vec<Panel> = parts.iter().map(panel).collect();
    let columns = panels.len().min(2);
    let tall = height(panels.len(), columns, 200) + 40;
    (!panels.is_empty()).then(|| Figure { columns, ..Figure::new(panels, PAGE, tall) })
}
