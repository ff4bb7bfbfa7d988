//! The plots: which figures an experiment's cells give.
//!
//! Every model and backend has its own figures; their names carry it where there are several.

use super::Cells;
use super::figure::{
    Axis, BarSeries, Category, Figure, Format, Marks, Panel, PointSeries, Rule, RuleAxis, Trace, Value,
};
use super::latency;
use super::tables::{by_seed, group_sums, is_unstructured, mean, metric, number, sd, sparsity};
use crate::config::experiment::Variant;
use crate::plan::Cell;
use crate::record::CellRecord;

/// The most bars of a panel that stay legible.
pub(super) const MOST_BARS: usize = 16;
/// A page's width in logical pixels, 180 mm.
pub(super) const PAGE: u32 = 680;
/// The style of the dense model.
const DENSE_STYLE: usize = 0;

/// Every figure with its file name.
pub(super) fn all(cells: &Cells) -> Vec<(String, Figure)> {
    let runs = runs(&cells.records);
    let several = runs.len() > 1;
    let mut figures = Vec::new();
    for records in runs {
        let made = [
            ("setups", setups(&records)),
            ("groups", groups(&records)),
            ("sweep", sweep(&records)),
            ("latency", latency::figure(&records)),
        ];
        for (name, figure) in made {
            let Some(mut figure) = figure else { continue };
            let cell = &records[0].cell;
            let run = format!("{}, {} {}", cell.model, cell.backend, cell.dtype.name());
            figure.description = cells.title.iter().cloned().chain([run]).collect::<Vec<_>>().join(": ");
            let name = if several { format!("{name}-{}", file_name(cell)) } else { name.into() };
            figures.push((name, figure));
        }
    }
    figures
}

/// The finished cells, by model, backend and dtype.
fn runs(records: &[CellRecord]) -> Vec<Vec<&CellRecord>> {
    let same = |a: &Cell, b: &Cell| (&a.model, a.backend, a.dtype) == (&b.model, b.backend, b.dtype);
    let mut runs: Vec<Vec<&CellRecord>> = Vec::new();
    for record in records.iter().filter(|record| record.measured.is_some()) {
        match runs.iter_mut().find(|run| same(&run[0].cell, &record.cell)) {
            Some(run) => run.push(record),
            None => runs.push(vec![record]),
        }
    }
    runs
}

fn file_name(cell: &Cell) -> String {
    let text = format!("{}-{}-{}", cell.model, cell.backend, cell.dtype.name());
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

/// Size, relative compute and agreement of every setup, as the notebooks plot them.
fn setups(records: &[&CellRecord]) -> Option<Figure> {
    if !(2..=MOST_BARS).contains(&records.len()) {
        return None;
    }
    let categories: Vec<Category> = records
        .iter()
        .map(|record| Category { label: label(record, records), style: Some(variant_style(record.cell.variant)) })
        .collect();
    let panel = |column: &str, axis: Axis| {
        let values: Vec<Value> = records.iter().map(|r| Value::from(number(&metric(r, column)))).collect();
        let measured = values.iter().any(|value| value.finite().is_some());
        let series = vec![BarSeries { name: axis.label.clone(), style: 1, values }];
        let marks = Marks::Bars { categories: categories.clone(), series };
        measured.then(|| Panel { legend: false, ..Panel::new(Axis::linear(""), axis, marks) })
    };
    let from_zero = |label: &str| Axis { from_zero: true, ..Axis::linear(label) };
    let panels: Vec<Panel> = [
        panel("size_mb", from_zero("Stored size (MiB)")),
        panel("compute_ratio", from_zero("Relative compute (nnz / dense)")),
        panel("top1_match", from_zero("Top-1 agreement")),
        panel("perplexity", Axis::log10("Perplexity")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let rows = panels.len().div_ceil(2) as u32;
    Some(Figure { columns: 2, ..Figure::new(panels, PAGE, 250 * rows) })
}

/// The setup, with what tells it apart from others of the same label.
pub(super) fn label(record: &CellRecord, among: &[&CellRecord]) -> String {
    let setup = record.cell.setup();
    let namesakes = among.iter().filter(|other| other.cell.setup() == setup).count();
    let Some(point) = record.cell.prune.as_ref().filter(|_| namesakes > 1) else { return setup };
    let mut label = format!("{setup} {}", point.method.name());
    if let Some(scope) = point.scope {
        label.push_str(&format!(" {}", scope.name()));
    }
    if let Some(seed) = record.cell.seed {
        label.push_str(&format!(" seed {seed}"));
    }
    label
}

/// The style of a variant in every figure.
pub(super) fn variant_style(variant: Variant) -> usize {
    match variant {
        Variant::Dense => DENSE_STYLE,
        Variant::Masked => 1,
        Variant::Csr => 2,
        Variant::Bitmap => 3,
        Variant::Auto => 4,
    }
}

/// Sparsity, parameter share and operations of every group and setup, as notebook 2 plots them.
fn groups(records: &[&CellRecord]) -> Option<Figure> {
    const MOST_SETUPS: usize = 7;
    if records.is_empty() || records.len() > MOST_SETUPS {
        return None;
    }
    let sums: Vec<_> = records.iter().filter_map(|r| r.measured.as_ref()).map(|m| (m, group_sums(m))).collect();
    let names: Vec<&str> = sums.first()?.1.keys().copied().collect();
    let panel = |title: &str, axis: Axis, value: &dyn Fn(usize, &str) -> f64| {
        let series = records.iter().enumerate().map(|(index, record)| BarSeries {
            name: label(record, records),
            style: index,
            values: names.iter().map(|name| Value::from(value(index, name))).collect(),
        });
        let categories = names.iter().map(|&name| Category::from(name)).collect();
        let marks = Marks::Bars { categories, series: series.collect() };
        Panel { title: title.into(), legend: true, ..Panel::new(Axis::linear(""), axis, marks) }
    };
    let from_zero = |label: &str| Axis { from_zero: true, ..Axis::linear(label) };
    let percent = |label: &str| Axis { format: Format::Percent(0), ..from_zero(label) };
    let group = |index: usize, name: &str| sums[index].1.get(name).copied().unwrap_or_default();
    let panels = vec![
        panel("", percent("Sparsity"), &|i, name| sparsity(group(i, name).nonzero, group(i, name).total)),
        panel("", percent("Share of parameters"), &|i, name| {
            group(i, name).total as f64 / sums[i].0.structure.total as f64
        }),
        panel("", from_zero("MFLOP per token"), &|i, name| group(i, name).flops_per_token as f64 / 1e6),
        panel("", from_zero("Stored size (MiB)"), &|i, name| group(i, name).bytes as f64 / f64::from(1 << 20)),
    ];
    Some(Figure { columns: 1, ..Figure::new(panels, PAGE, 840) })
}

/// Perplexity and agreement against sparsity, one line a method, the dense model dashed.
fn sweep(records: &[&CellRecord]) -> Option<Figure> {
    let mut points = by_seed(records.iter().copied());
    points.retain(|group| is_unstructured(&group[0].cell));
    let mut sparsities: Vec<f64> = points.iter().filter_map(|g| Some(g[0].cell.prune.as_ref()?.sparsity)).collect();
    sparsities.sort_by(f64::total_cmp);
    sparsities.dedup();
    if sparsities.len() < 2 {
        return None;
    }
    // Masked and sparse execution of a point predict the same: one line a method, of whichever ran.
    let variant = points.iter().map(|group| group[0].cell.variant).min()?;
    let behaviour: Vec<_> = points.iter().filter(|group| group[0].cell.variant == variant).cloned().collect();
    let behaviour = lines(&behaviour, method_name(&behaviour));
    // Size depends on how the kept weights are stored, hardly on which they are: one line a variant.
    let first = points[0][0].cell.prune.as_ref()?;
    let like_first =
        |cell: &Cell| cell.prune.as_ref().is_some_and(|p| (p.method, p.scope) == (first.method, first.scope));
    let storage: Vec<_> = points.iter().filter(|group| like_first(&group[0].cell)).cloned().collect();
    let storage = lines(&storage, |cell: &Cell| format!("stored {}", cell.variant.name()));

    let panel = |lines: &[Line<'_>], first_style: usize, column: &str, y: Axis| {
        let value = |record: &CellRecord| number(&metric(record, column));
        let series = lines.iter().enumerate().map(|(i, line)| line.series(i + first_style, &value));
        let series: Vec<PointSeries> = series.collect();
        let measured = series.iter().flat_map(|s| &s.points).any(|(_, value)| value.finite().is_some());
        let x = Axis { format: Format::Percent(0), ..Axis::linear("Target sparsity") };
        let dense = records.iter().find(|record| record.cell.variant == Variant::Dense);
        let dense = dense.and_then(|record| number(&metric(record, column)));
        let rules = dense.map(|at| Rule { axis: RuleAxis::Y, at, label: "dense".into() });
        let rules = rules.into_iter().collect();
        let panel = Panel { rules, legend: true, ..Panel::new(x, y, Marks::Points(series)) };
        measured.then_some(panel)
    };
    let sizes = behaviour.len() + 1;
    let panels: Vec<Panel> = [
        panel(&behaviour, 1, "perplexity", Axis::log10("Perplexity")),
        panel(&behaviour, 1, "top1_match", Axis { range: Some((0.0, 1.0)), ..Axis::linear("Top-1 agreement") }),
        panel(&behaviour, 1, "kl_nats", Axis { from_zero: true, ..Axis::linear("KL from dense (nats)") }),
        panel(&storage, sizes, "size_mb", Axis { from_zero: true, ..Axis::linear("Stored size (MiB)") }),
    ]
    .into_iter()
    .flatten()
    .collect();
    let rows = panels.len().div_ceil(2) as u32;
    (!panels.is_empty()).then(|| Figure { columns: 2, ..Figure::new(panels, PAGE, 290 * rows) })
}

/// How fast every variant is over the sparsity, the dense model dashed: of the first method, since it hardly
/// matters which weights are kept.
pub(super) fn speed_panel(
    records: &[&CellRecord],
    y: Axis,
    speed: &dyn Fn(&CellRecord) -> Option<f64>,
) -> Option<Panel> {
    let mut points = by_seed(records.iter().copied());
    points.retain(|group| is_unstructured(&group[0].cell));
    let first = points.first()?[0].cell.prune.clone()?;
    points.retain(|group| {
        group[0].cell.prune.as_ref().is_some_and(|p| (p.method, p.scope) == (first.method, first.scope))
    });
    let lines = lines(&points, |cell: &Cell| cell.variant.name().into());
    let series = lines.iter().map(|line| {
        let style = variant_style(line.points[0].1[0].cell.variant);
        line.series(style, speed)
    });
    let series = series.collect();
    let x = Axis { format: Format::Percent(0), ..Axis::linear("Target sparsity") };
    let dense = records.iter().find(|record| record.cell.variant == Variant::Dense);
    let rules = dense.and_then(|record| speed(record)).map(|at| Rule { axis: RuleAxis::Y, at, label: "dense".into() });
    Some(Panel { rules: rules.into_iter().collect(), legend: true, ..Panel::new(x, y, Marks::Points(series)) })
}

/// Cells of one name over all sparsities.
struct Line<'a> {
    name: String,
    points: Vec<(f64, Vec<&'a CellRecord>)>,
}

/// The method, with its scope where there are several.
fn method_name(points: &[Vec<&CellRecord>]) -> impl Fn(&Cell) -> String + use<> {
    let mut scopes: Vec<_> = points.iter().filter_map(|g| g[0].cell.prune.as_ref()).map(|p| p.scope).collect();
    scopes.sort();
    scopes.dedup();
    let several = scopes.len() > 1;
    move |cell| {
        let Some(point) = &cell.prune else { return cell.setup() };
        let scope = point.scope.filter(|_| several).map(|scope| format!(", {}", scope.name()));
        format!("{}{}", point.method.name(), scope.unwrap_or_default())
    }
}

fn lines<'a>(points: &[Vec<&'a CellRecord>], name: impl Fn(&Cell) -> String) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for group in points {
        let cell = &group[0].cell;
        let Some(point) = &cell.prune else { continue };
        let (name, entry) = (name(cell), (point.sparsity, group.clone()));
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(entry),
            None => lines.push(Line { name, points: vec![entry] }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

impl Line<'_> {
    /// Means over seeds, with a band of one standard deviation.
    fn series(&self, style: usize, number: &dyn Fn(&CellRecord) -> Option<f64>) -> PointSeries {
        let value = |group: &[&CellRecord]| {
            let values: Vec<f64> = group.iter().filter_map(|record| number(record)).collect();
            match (mean(&values), sd(&values)) {
                (Some(mean), Some(sd)) => Value::with_bounds(mean, mean - sd, mean + sd),
                (mean, _) => Value::from(mean),
            }
        };
        let points = self.points.iter().map(|(sparsity, group)| (*sparsity, value(group))).collect();
        PointSeries { name: self.name.clone(), style, trace: Trace::Marked, points }
    }
}
