//! What is shown of model cells.
//!
//! ```text
//!   tables.rs       which columns, and which number goes where      comparisons.rs, latency.rs: tables too
//!   profile.rs      the steps of a token: a table, and a figure
//!   tasks.rs, task_pairs.rs  zero-shot tasks, item by item: tables, and a figure
//!   series_names.rs what prune points are called, and how they look
//!   terminal.rs     which numbers are shown first, as pivots
//!   plots.rs        which figures there are                         quality.rs, layer_sparsity.rs, latency.rs: figures
//! ```

mod comparisons;
mod latency;
mod layer_sparsity;
mod plots;
mod profile;
mod quality;
mod rows;
mod series_names;
mod tables;
mod task_pairs;
mod tasks;
mod terminal;

use super::columns::Columns;
use super::{Read, Section};
use crate::record::{CellResult, ExpectRecord, Record};
use crate::report::figure::Figure;
use crate::report::pivot::PointNames;
use plots::Made;
use series_names::Names;
use std::sync::Arc;

/// The model cells of an experiment, finished and failed, in the plan's order.
#[derive(Default)]
struct Cells {
    title: Option<String>,
    records: Vec<CellResult>,
    expectations: Vec<ExpectRecord>,
}

/// The columns of their tables.
pub(super) fn columns() -> Vec<Columns> {
    tables::columns()
}

/// What model cells give.
pub(super) fn section(read: &Read, records: Vec<Record>) -> Section {
    let cells = Arc::new(Cells {
        title: read.title.clone(),
        records: records.into_iter().filter_map(CellResult::of).collect(),
        expectations: read.expectations.clone(),
    });
    let tables = tables::all(&cells);
    let find = |name: &str| tables.iter().find(|table| table.name == name);
    let missed = tables::missed(&cells);
    let mut findings = Vec::new();
    findings.extend(find("comparisons").map(comparisons::findings).unwrap_or_default());
    findings.extend(latency::finding(&cells));
    findings.extend(find("task_pairs").and_then(task_pairs::finding));
    if missed > 0 {
        let noun = if missed == 1 { "expectation" } else { "expectations" };
        findings.push(format!("{missed} {noun} missed: see tables/expectations.csv"));
    }
    let mut warnings = Vec::new();
    if let [first, others @ ..] = &tables::many_ties(&cells)[..] {
        let more = if others.is_empty() { String::new() } else { format!(" (and {} more points)", others.len()) };
        warnings.push(format!(
            "{first}{more}: which of equals go is a matter of order, and another program may decide otherwise: see \
             `ties` in tables/summary.csv"
        ));
    }
    if let [first, others @ ..] = &tables::scarce(&cells)[..] {
        let more = if others.is_empty() { String::new() } else { format!(" (and {} more points)", others.len()) };
        warnings.push(format!("{first}{more}: those are pruned as if all of their inputs were alike"));
    }
    let names = point_names(&cells);
    let (figures, undrawn) = figures(&cells);
    findings.extend(undrawn);
    Section {
        shown: terminal::shown(&cells, &tables, &names),
        first: terminal::tasks(&cells, &tables, &names).into_iter().flatten().collect(),
        names,
        verdicts: find("expectations").map(|table| table.clone().without_constant_columns(&["verdict"])),
        figures,
        tables,
        long: tables::long(&cells),
        findings,
        warnings,
        missed,
    }
}

/// What points are called where their method does not say it all, by their cells.
fn point_names(cells: &Cells) -> PointNames {
    let mut all = PointNames::new();
    for records in plots::runs(&cells.records) {
        let names = Names::among(records.iter().map(|record| &record.cell));
        let named = |record: &&CellResult| {
            let point = record.cell.prune.as_ref()?;
            let name = names.of(point);
            (name != point.method.name()).then(|| (record.id.as_str().to_owned(), name))
        };
        all.extend(records.iter().filter_map(named));
    }
    all
}

/// Every figure with its file name, and what is said of those that are not drawn.
fn figures(cells: &Cells) -> (Vec<(String, Figure)>, Vec<String>) {
    let runs = plots::runs(&cells.records);
    let files = plots::file_names(&runs.iter().map(|records| &records[0].cell).collect::<Vec<_>>());
    let several = runs.len() > 1;
    let (mut figures, mut undrawn) = (Vec::new(), Vec::new());
    for (records, file) in runs.into_iter().zip(files) {
        let names = Names::among(records.iter().map(|record| &record.cell));
        let made = [
            ("setups", plots::setups(&records).into()),
            ("groups", plots::groups(&records).into()),
            ("sweep", quality::sweep(&records, &names).into()),
            ("perplexity", quality::perplexity(&records, &names).into()),
            ("layers", layer_sparsity::layers(&records, &names)),
            ("heatmap", layer_sparsity::heatmap(&records, &names)),
            ("latency", latency::figure(&records).into()),
            ("profile", profile::figure(&records).into()),
            ("tasks", task_pairs::figure(&records).into()),
        ];
        for (name, figure) in made {
            let file_name = if several { format!("{name}-{file}") } else { name.into() };
            let mut figure = match figure {
                Made::Figure(figure) => figure,
                Made::Undrawn(why) => {
                    undrawn.push(format!("plots/{file_name} is not drawn: {why}"));
                    continue;
                }
                Made::Nothing => continue,
            };
            let cell = &records[0].cell;
            let run = format!("{}, {} {}", cell.model, cell.backend, cell.dtype.name());
            figure.description = cells.title.iter().cloned().chain([run]).collect::<Vec<_>>().join(": ");
            figures.push((file_name, figure));
        }
    }
    (figures, undrawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Dtype, Method, NmPattern, Scope, Variant};
    use crate::plan::{Backend, Cell, CellId, Inputs, PrunePoint};
    use crate::record::{LayerRow, Measured, Structure, Timings};

    /// A cell for the tests of this folder.
    pub(super) fn cell(model: &str, method: Method, sparsity: f64, variant: Variant, seed: Option<u64>) -> Cell {
        let exclude = vec!["lm_head".into()];
        let point = PrunePoint::new(method, Some(Scope::Global), NmPattern::Unstructured, sparsity, exclude);
        Cell {
            model: model.into(),
            backend: Backend::Flex,
            dtype: Dtype::F32,
            prune: (variant != Variant::Dense).then_some(point),
            seed,
            variant,
            tokens: None,
        }
    }

    /// A finished cell for the tests of this folder: its perplexity, and the non-zero weights of each linear of 100.
    pub(super) fn record(cell: Cell, perplexity: f64, linears: &[(&str, u64)]) -> CellResult {
        let layer = |(name, nonzero): &(&str, u64)| LayerRow {
            module_name: (*name).into(),
            group: "mlp_linear".into(),
            nonzero: *nonzero,
            total: 100,
            shape: Some([10, 10]),
            flops_per_token: 0,
            bytes: 0,
            format: "dense".into(),
            tied: false,
        };
        let layers: Vec<LayerRow> = linears.iter().map(layer).collect();
        let nonzero = layers.iter().map(|layer| layer.nonzero).sum();
        let total = layers.iter().map(|layer| layer.total).sum();
        let structure = Structure { nonzero, total, bytes: 0, layers };
        let measured = Measured { perplexity: Some(perplexity), ..Measured::new(structure, total) };
        let (failure, timings, timed_on) = (None, Timings::default(), None);
        let id = CellId::new(&cell.clone().into(), &Inputs::default());
        CellResult { id, cell, measured: Some(measured), failure, timings, timed_on }
    }
}
