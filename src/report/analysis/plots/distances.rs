//! Distributions of distances: of features from references, and within groups.

use super::{CHANCE, Family, Line, Means, PAGE, distinct, height};
use crate::report::figure::{Axis, Figure, Marks, Panel, PointSeries, Trace, Value};

/// The most panels.
const MOST_PANELS: usize = 8;
/// The most bins of a distribution.
const MOST_BINS: f64 = 24.0;

/// A figure of distances from references, one of distances within groups.
pub(super) fn all(family: &Family<'_>) -> Vec<(String, Figure)> {
    let figures = [("distances", histograms(family)), ("distance-cdf", cumulated(family))];
    figures.into_iter().filter_map(|(name, figure)| Some((name.to_owned(), figure?))).collect()
}

/// The share of features at each distance, over all references; a panel a role, a colour a source.
fn histograms(family: &Family<'_>) -> Option<Figure> {
    let lines: Vec<Line<'_>> = family.rows("distance_histogram").collect();
    let edges =
        |line: &Line<'_>| Some((line.number("hamming_lo")?, line.number("hamming_hi")?, line.number("features")?));
    let expected = Means::of(family.rows("neighbours").map(|line| (line.part(), line.number("expected"))));
    let panel = |part: &String| {
        let mine = || lines.iter().filter(|line| line.part() == *part);
        let ends = |range: (f64, f64, f64), (from, to, _): (f64, f64, f64)| {
            (range.0.min(from), range.1.max(to), range.2.max(to - from))
        };
        let (low, high, width) = mine().filter_map(edges).fold((f64::INFINITY, f64::NEG_INFINITY, 1e-6), ends);
        // References and layers have steps of their own: bins that all of them fall into, whole numbers of the widest.
        let step = width * ((high - low) / width / MOST_BINS).ceil().max(1.0);
        let bins = if low < high {
            (((high - low) / step - 1e-9).ceil() as usize).clamp(1, 2 * MOST_BINS as usize)
        } else {
            1
        };
        let mut series = Vec::new();
        for source in family.shown() {
            let own = mine().filter(|line| line.key.source == *source).filter_map(edges);
            let mut shares = vec![0.0; bins];
            let mut total = 0.0;
            for (from, to, features) in own {
                shares[((((from + to) / 2.0 - low) / step) as usize).min(bins - 1)] += features;
                total += features;
            }
            if total == 0.0 {
                continue;
            }
            let at = |bin: usize| low + bin as f64 * step;
            let height = |share: f64| Value::with_bounds(100.0 * share / total, 0.0, 100.0 * share / total);
            let steps = |(bin, share): (usize, &f64)| [(at(bin), height(*share)), (at(bin + 1), height(*share))];
            let mut points = vec![(low, height(0.0))];
            points.extend(shares.iter().enumerate().flat_map(steps));
            points.push((at(bins), height(0.0)));
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
