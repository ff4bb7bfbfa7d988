//! The plots: which figures an experiment's cells give.
//!
//! Every model and backend has its own figures; their names carry it where there are several.

use super::Cells;
use super::figure::{Axis, BarSeries, Category, Figure, Format, Marks, Panel, Value};
use super::points::Names;
use super::tables::{GroupSum, by_seed, group_sums, mean, metric, number, sd, sparsity};
use super::{blocks, latency, quality};
use crate::config::experiment::Variant;
use crate::config::format::style;
use crate::plan::Cell;
use crate::record::{CellRecord, Measured};

/// The most bars of a panel that stay legible.
pub(super) const MOST_BARS: usize = 16;
/// A page's width in logical pixels, 180 mm.
pub(super) const PAGE: u32 = 680;

/// Every figure with its file name.
pub(super) fn all(cells: &Cells) -> Vec<(String, Figure)> {
    let runs = runs(&cells.records);
    let several = runs.len() > 1;
    let mut figures = Vec::new();
    for records in runs {
        let names = Names::among(records.iter().map(|record| &record.cell));
        let made = [
            ("setups", setups(&records)),
            ("groups", groups(&records)),
            ("sweep", quality::sweep(&records, &names)),
            ("perplexity", quality::perplexity(&records, &names)),
            ("layers", blocks::layers(&records, &names)),
            ("heatmap", blocks::heatmap(&records, &names)),
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
pub(super) fn runs(records: &[CellRecord]) -> Vec<Vec<&CellRecord>> {
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

/// Size, relative compute and agreement of every setup, as the notebooks plot them; means over seeds.
fn setups(records: &[&CellRecord]) -> Option<Figure> {
    let setups = by_seed(records.iter().copied());
    if !(2..=MOST_BARS).contains(&setups.len()) {
        return None;
    }
    let labels = labels(&setups.iter().map(|cells| cells[0]).collect::<Vec<_>>());
    let categories = labels.into_iter().zip(&setups);
    let categories: Vec<Category> = categories
        .map(|(label, cells)| Category { label, style: Some(variant_style(cells[0].cell.variant)) })
        .collect();
    let panel = |column: &str, axis: Axis| {
        let value = |cells: &Vec<&CellRecord>| over_seeds(cells, &|record| number(&metric(record, column)));
        let values: Vec<Value> = setups.iter().map(value).collect();
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

/// The mean of a number over seeds, with one standard deviation on each side.
pub(super) fn over_seeds(cells: &[&CellRecord], number: &dyn Fn(&CellRecord) -> Option<f64>) -> Value {
    let values: Vec<f64> = cells.iter().filter_map(|record| number(record)).collect();
    match (mean(&values), sd(&values)) {
        (Some(mean), Some(sd)) => Value::with_bounds(mean, mean - sd, mean + sd),
        (mean, _) => Value::from(mean),
    }
}

/// The setups, each with what tells it apart from others of the same label.
pub(super) fn labels(records: &[&CellRecord]) -> Vec<String> {
    let label = |record: &&CellRecord| {
        let setup = record.cell.setup();
        let namesakes: Vec<&Cell> =
            records.iter().map(|other| &other.cell).filter(|cell| cell.setup() == setup).collect();
        let Some(point) = record.cell.prune.as_ref().filter(|_| namesakes.len() > 1) else { return setup };
        let names = Names::among(namesakes.iter().copied());
        let same_name = |cell: &&&Cell| cell.prune.as_ref().is_some_and(|other| names.of(other) == names.of(point));
        let alike = namesakes.iter().filter(same_name).count();
        let name = (alike < namesakes.len()).then(|| names.parts(point).join(" "));
        let seed = record.cell.seed.filter(|_| alike > 1).map(|seed| format!("seed {seed}"));
        [Some(setup), name, seed].into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    records.iter().map(label).collect()
}

/// The style of a variant in every figure.
pub(super) fn variant_style(variant: Variant) -> usize {
    match variant {
        Variant::Dense => style::DENSE,
        Variant::Masked => style::MASKED,
        Variant::Sparse(format) => format.row().style,
        Variant::Auto => style::AUTO,
    }
}

/// Sparsity, parameter share and operations of every group and setup, as notebook 2 plots them; means over seeds.
fn groups(records: &[&CellRecord]) -> Option<Figure> {
    const MOST_SETUPS: usize = 7;
    let setups = by_seed(records.iter().copied());
    if setups.is_empty() || setups.len() > MOST_SETUPS {
        return None;
    }
    let labels = labels(&setups.iter().map(|cells| cells[0]).collect::<Vec<_>>());
    let first = setups[0][0].measured.as_ref()?;
    let names: Vec<&str> = group_sums(first).into_keys().collect();
    let panel = |axis: Axis, value: &dyn Fn(&Measured, GroupSum) -> f64| {
        let of = |cells: &Vec<&CellRecord>, name: &str| {
            over_seeds(cells, &|record| {
                let measured = record.measured.as_ref()?;
                Some(value(measured, group_sums(measured).get(name).copied().unwrap_or_default()))
            })
        };
        let series = setups.iter().zip(&labels).enumerate().map(|(style, (cells, label))| BarSeries {
            name: label.clone(),
            style,
            values: names.iter().map(|name| of(cells, name)).collect(),
        });
        let categories = names.iter().map(|&name| Category::from(name)).collect();
        let marks = Marks::Bars { categories, series: series.collect() };
        Panel { legend: true, ..Panel::new(Axis::linear(""), axis, marks) }
    };
    let from_zero = |label: &str| Axis { from_zero: true, ..Axis::linear(label) };
    let percent = |label: &str| Axis { format: Format::Percent(0), ..from_zero(label) };
    let panels = vec![
        panel(percent("Sparsity"), &|_, sum| sparsity(sum.nonzero, sum.total)),
        panel(percent("Share of parameters"), &|measured, sum| sum.total as f64 / measured.structure.total as f64),
        panel(from_zero("MFLOP per token"), &|_, sum| sum.flops_per_token as f64 / 1e6),
        panel(from_zero("Stored size (MiB)"), &|_, sum| sum.bytes as f64 / f64::from(1 << 20)),
    ];
    Some(Figure { columns: 1, ..Figure::new(panels, PAGE, 840) })
}
