//! Activation sparsity: what thresholds on inputs cost, and what a batch leaves of them.

use super::{Family, Line, Means, PAGE, distinct};
use crate::report::figure::{Axis, Figure, Format, Marks, Panel, PointSeries, Trace};

/// One figure: output error by role, what a batch keeps, and the thresholded model's predictions.
pub(super) fn all(family: &Family<'_>) -> Vec<(String, Figure)> {
    let lines: Vec<Line<'_>> = family.rows("activation_sparsity").collect();
    let behaviour: Vec<Line<'_>> = family.rows("activation_behaviour").collect();
    let percent = |label: &str| Axis { format: Format::Percent(0), ..Axis::linear(label) };
    let panels = [
        Some(errors(&lines, percent("Inputs set to 0"))),
        Some(unions(&lines)),
        by_target(&behaviour, "perplexity", percent("Inputs set to 0 (target)"), Axis::log10("Perplexity")),
        by_target(&behaviour, "top1_agreement", percent("Inputs set to 0 (target)"), percent("Top-1 agreement")),
    ];
    let shows = |panel: &Panel| match &panel.marks {
        Marks::Points(series) => series.iter().any(|s| !s.points.is_empty()),
        Marks::Bars { .. } | Marks::Heat(_) | Marks::Raster(_) => true,
    };
    let panels: Vec<Panel> = panels.into_iter().flatten().filter(shows).collect();
    let columns = panels.len().min(2);
    let tall = super::height(panels.len(), columns, 250) + 20;
    match panels.is_empty() {
        true => Vec::new(),
        false => vec![("activation".into(), Figure { columns, ..Figure::new(panels, PAGE, tall) })],
    }
}

/// The error of a linear's output against the share of its inputs that is set to 0; a line a role, means over layers.
fn errors(lines: &[Line<'_>], x: Axis) -> Panel {
    let target = |line: &Line<'_>| line.number("target").map(f64::to_bits);
    let means = |column: &str| {
        Means::of(lines.iter().filter_map(|line| Some(((line.part(), target(line)?), line.number(column)))))
    };
    let (achieved, error) = (means("achieved_mean"), means("rel_output_error"));
    let series = distinct(lines.iter().map(Line::part)).into_iter().enumerate().map(|(at, part)| {
        let targets = distinct(lines.iter().filter_map(target));
        let point =
            |target: &u64| Some((achieved.mean(&(part.clone(), *target))?, error.value(&(part.clone(), *target))));
        let mut points: Vec<_> = targets.iter().filter_map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        PointSeries { name: part.clone(), style: at + 1, trace: Trace::Marked, points }
    });
    let y = Axis { format: Format::Percent(0), from_zero: true, ..Axis::linear("Relative output error") };
    Panel { legend: true, ..Panel::new(x, y, Marks::Points(series.filter(|s| !s.points.is_empty()).collect())) }
}

/// The share of inputs that some token of a batch keeps, against the size of the batch; a line a target.
fn unions(lines: &[Line<'_>]) -> Panel {
    let key = |line: &Line<'_>| Some((line.number("target")?.to_bits(), line.count("batch")?));
    let means = Means::of(lines.iter().filter_map(|line| Some((key(line)?, line.number("batch_union_kept")))));
    let mut targets: Vec<f64> = distinct(means.0.keys().map(|(target, _)| f64::from_bits(*target)));
    targets.sort_by(f64::total_cmp);
    let mut batches: Vec<u64> = distinct(means.0.keys().map(|(_, batch)| *batch));
    batches.sort_unstable();
    let series = targets.iter().enumerate().map(|(at, target)| {
        let points = batches.iter().map(|batch| (*batch as f64, means.value(&(target.to_bits(), *batch))));
        let name = format!("target {:.0}%", target * 100.0);
        PointSeries { name, style: at + 1, trace: Trace::Marked, points: points.collect() }
    });
    let x = Axis { ticks: batches.iter().map(|batch| *batch as f64).collect(), ..Axis::log10("Tokens of a batch") };
    let y = Axis { format: Format::Percent(0), from_zero: true, ..Axis::linear("Inputs that some token keeps") };
    Panel { legend: true, ..Panel::new(x, y, Marks::Points(series.collect())) }
}

/// A number of the thresholded model against the target.
fn by_target(lines: &[Line<'_>], column: &str, x: Axis, y: Axis) -> Option<Panel> {
    let target = |line: &Line<'_>| line.number("target").map(f64::to_bits);
    let means = Means::of(
        lines.iter().filter_map(|line| Some(((line.key.source.clone(), target(line)?), line.number(column)))),
    );
    let series =
        distinct(lines.iter().map(|line| line.key.source.clone())).into_iter().enumerate().map(|(at, source)| {
            let mine = means.0.keys().filter(|(of, _)| *of == source);
            let mut points: Vec<_> = mine.map(|key| (f64::from_bits(key.1), means.value(key))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            PointSeries { name: source, style: at + 1, trace: Trace::Marked, points }
        });
    let series: Vec<PointSeries> = series.filter(|s| !s.points.is_empty()).collect();
    (!series.is_empty()).then(|| Panel { legend: true, ..Panel::new(x, y, Marks::Points(series)) })
}
