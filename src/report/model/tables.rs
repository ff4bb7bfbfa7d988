//! The tables: which columns, and which number goes where.

use super::Cells;
use super::{comparisons, latency};
use crate::config::experiment::Variant;
use crate::plan::Cell;
use crate::record::{CellResult, Measured};
use crate::report::stats::{mean, number, sd};
use crate::report::table::{Table, Value};
use std::collections::BTreeMap;

const MIB: f64 = (1 << 20) as f64;

/// The columns that every table begins with.
const KEY: [&str; 11] =
    ["cell", "setup", "model", "method", "scope", "pattern", "sparsity_target", "seed", "variant", "backend", "dtype"];
const SUMMARY: [&str; 12] = [
    "nonzero",
    "total",
    "sparsity",
    "size_mb",
    "compute_ratio",
    "top1_match",
    "top5_overlap",
    "kl_nats",
    "perplexity",
    "gate_max_abs",
    "gate_max_logit",
    "ties",
];

/// Every table of model cells, where there are any or could be.
pub(super) fn all(cells: &Cells) -> Vec<Table> {
    if cells.records.is_empty() {
        return Vec::new();
    }
    let mut tables = vec![summary(cells), timings(cells), spread(cells), layers(cells), groups(cells)];
    tables.extend(comparisons::table(cells));
    tables.extend(execution(cells));
    tables.extend(latency::tables(cells));
    tables.extend(expectations(cells));
    tables
}

/// What a person wants to see first, where there are model cells.
pub(super) fn terminal_summary(cells: &Cells) -> Option<Table> {
    let mut table = summary(cells);
    let shown = |name: &str| !["cell", "variant", "total", "gate_max_logit", "ties"].contains(&name);
    let kept: Vec<usize> = (0..table.columns.len()).filter(|&c| shown(&table.columns[c])).collect();
    table.rows = table.rows.iter().map(|row| kept.iter().map(|&c| row[c].clone()).collect()).collect();
    table.columns = kept.iter().map(|&c| table.columns[c].clone()).collect();
    (!cells.records.is_empty()).then(|| table.without_constant_columns(&["setup"]))
}

fn key(cell: &Cell) -> Vec<Value> {
    let point = cell.prune.as_ref();
    vec![
        cell.setup().into(),
        cell.model.clone().into(),
        point.map(|p| p.method.name()).into(),
        point.and_then(|p| p.scope).map(|scope| scope.name()).into(),
        point.map(|p| p.pattern.to_string()).into(),
        point.and_then(|p| p.target()).into(),
        cell.seed.into(),
        cell.variant.name().into(),
        cell.backend.name().into(),
        cell.dtype.name().into(),
    ]
}

/// A table without rows whose columns begin with the key's.
pub(super) fn keyed(name: &'static str, columns: &[&str]) -> Table {
    Table::new(name, KEY.iter().chain(columns).copied())
}

/// The key's values and those after them.
pub(super) fn row(record: &CellResult, values: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut row = vec![Value::from(record.id.as_str())];
    row.extend(key(&record.cell));
    row.extend(values);
    row
}

/// A column of `summary.csv`.
pub(super) fn metric(record: &CellResult, column: &str) -> Value {
    let measured = record.measured.as_ref();
    let structure = measured.map(|m| &m.structure);
    let agreement = measured.and_then(|m| m.agreement);
    let failed_gate = record.failure.as_ref().and_then(|failure| failure.gate);
    let gate = measured.and_then(|m| m.gate).or(failed_gate);
    match column {
        "nonzero" => structure.map(|s| s.nonzero).into(),
        "total" => structure.map(|s| s.total).into(),
        "sparsity" => structure.map(|s| s.sparsity()).into(),
        "size_mb" => structure.map(|s| s.bytes as f64 / MIB).into(),
        "compute_ratio" => measured.map(compute_ratio).into(),
        "top1_match" => agreement.map(|a| a.top1_match).into(),
        "top5_overlap" => agreement.map(|a| a.top5_overlap).into(),
        "kl_nats" => agreement.map(|a| a.kl_nats).into(),
        "perplexity" => measured.and_then(|m| m.perplexity).into(),
        "gate_max_abs" => gate.map(|g| g.max_abs).into(),
        "gate_max_logit" => gate.map(|g| g.max_logit).into(),
        "ties" => measured.and_then(|m| m.ties).map(|ties| ties.weights).into(),
        _ => Value::Missing,
    }
}

/// What to say of points where more than a hundredth of the weights are ties: another program, which orders equal
/// scores otherwise, gets other numbers.
pub(super) fn many_ties(cells: &Cells) -> Vec<String> {
    const MANY: f64 = 0.01;
    let mut said = Vec::new();
    for (record, measured) in finished(cells) {
        let share = measured.ties.map_or(0.0, |ties| ties.weights as f64 / ties.of.max(1) as f64);
        let point = Cell { variant: Variant::Masked, ..record.cell.clone() };
        let text = format!("{point}: {:.1} % of the weights tie with the last that went", share * 100.0);
        if share > MANY && !said.contains(&text) {
            said.push(text);
        }
    }
    said
}

fn compute_ratio(measured: &Measured) -> f64 {
    measured.structure.nonzero as f64 / measured.dense_nonzero as f64
}

fn summary(cells: &Cells) -> Table {
    let mut table = keyed("summary", &SUMMARY);
    for record in &cells.records {
        table.rows.push(row(record, SUMMARY.map(|column| metric(record, column))));
    }
    table
}

fn timings(cells: &Cells) -> Table {
    let columns =
        ["load_seconds", "calibrate_seconds", "prune_seconds", "convert_seconds", "measure_seconds", "peak_rss_bytes"];
    let mut table = keyed("timings", &columns);
    for record in &cells.records {
        let t = &record.timings;
        let values = [
            t.load_seconds.into(),
            t.calibrate_seconds.into(),
            t.prune_seconds.into(),
            t.convert_seconds.into(),
            t.measure_seconds.into(),
            t.peak_rss_bytes.into(),
        ];
        table.rows.push(row(record, values));
    }
    table
}

/// Mean and standard deviation over seeds.
fn spread(cells: &Cells) -> Table {
    let columns = KEY.iter().filter(|&&name| name != "cell" && name != "seed").map(ToString::to_string);
    let figures = SUMMARY.iter().flat_map(|name| [format!("{name}_mean"), format!("{name}_sd")]);
    let mut table = Table::new("spread", columns.chain(["seeds".to_owned()]).chain(figures));
    for seeds in by_seed(&cells.records) {
        let mut key = key(&seeds[0].cell);
        key.remove(SEED_IN_KEY);
        key.push((seeds.len() as u64).into());
        for column in SUMMARY {
            let values: Vec<f64> = seeds.iter().filter_map(|record| number(&metric(record, column))).collect();
            key.extend([mean(&values).into(), sd(&values).into()]);
        }
        table.rows.push(key);
    }
    table
}

/// The seed's place in [`key`].
const SEED_IN_KEY: usize = 6;

/// Finished cells that differ only in the seed, in order of first appearance.
pub(super) fn by_seed<'a>(records: impl IntoIterator<Item = &'a CellResult>) -> Vec<Vec<&'a CellResult>> {
    let mut groups: Vec<Vec<&CellResult>> = Vec::new();
    for record in records.into_iter().filter(|record| record.measured.is_some()) {
        match groups.iter_mut().find(|group| same_but_seed(&group[0].cell, &record.cell)) {
            Some(group) => group.push(record),
            None => groups.push(vec![record]),
        }
    }
    groups
}

fn same_but_seed(a: &Cell, b: &Cell) -> bool {
    // What tells most cells apart comes first. A new field does not compile here until it is compared.
    let Cell { prune, variant, model, backend, dtype, tokens, seed: _ } = a;
    (variant, prune, model, backend) == (&b.variant, &b.prune, &b.model, &b.backend)
        && (dtype, tokens) == (&b.dtype, &b.tokens)
}

fn layers(cells: &Cells) -> Table {
    let columns = [
        "module_name",
        "group",
        "nonzero",
        "total",
        "sparsity",
        "shape",
        "flops_per_token",
        "param_frac",
        "bytes",
        "format",
    ];
    let mut table = keyed("layers", &columns);
    for (record, measured) in finished(cells) {
        for layer in &measured.structure.layers {
            let values = [
                layer.module_name.clone().into(),
                layer.group.clone().into(),
                layer.nonzero.into(),
                layer.total.into(),
                sparsity(layer.nonzero, layer.total).into(),
                layer.shape.map(|[rows, cols]| format!("({rows}, {cols})")).into(),
                layer.flops_per_token.into(),
                (layer.total as f64 / measured.structure.total as f64).into(),
                layer.bytes.into(),
                layer.format.clone().into(),
            ];
            table.rows.push(row(record, values));
        }
    }
    table
}

/// Which kernels ran, where a sparse one could have: so that nobody times a fallback unknowingly.
fn execution(cells: &Cells) -> Option<Table> {
    let mut table = keyed("execution", &["tokens", "kernel", "linears"]);
    for (record, measured) in finished(cells) {
        for used in &measured.kernels {
            let values = [(used.tokens as u64).into(), used.kernel.clone().into(), (used.linears as u64).into()];
            table.rows.push(row(record, values));
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// What a group adds up to.
#[derive(Clone, Copy, Default)]
pub(super) struct GroupSum {
    pub nonzero: u64,
    pub total: u64,
    pub flops_per_token: u64,
    pub bytes: u64,
}

/// Sums by group, in alphabetical order. A tied head shows its own numbers.
pub(super) fn group_sums(measured: &Measured) -> BTreeMap<&str, GroupSum> {
    let mut groups: BTreeMap<&str, GroupSum> = BTreeMap::new();
    for layer in &measured.structure.layers {
        let sum = groups.entry(&layer.group).or_default();
        // A file of others may say anything, and must not stop the report.
        sum.nonzero = sum.nonzero.saturating_add(layer.nonzero);
        sum.total = sum.total.saturating_add(layer.total);
        sum.flops_per_token = sum.flops_per_token.saturating_add(layer.flops_per_token);
        sum.bytes = sum.bytes.saturating_add(layer.bytes);
    }
    groups
}

fn groups(cells: &Cells) -> Table {
    let columns = ["group", "nonzero", "total", "sparsity", "flops_per_token", "param_frac", "bytes"];
    let mut table = keyed("groups", &columns);
    for (record, measured) in finished(cells) {
        for (group, sum) in group_sums(measured) {
            let values = [
                group.into(),
                sum.nonzero.into(),
                sum.total.into(),
                sparsity(sum.nonzero, sum.total).into(),
                sum.flops_per_token.into(),
                (sum.total as f64 / measured.structure.total as f64).into(),
                sum.bytes.into(),
            ];
            table.rows.push(row(record, values));
        }
    }
    table
}

/// The finished cells with their numbers.
pub(super) fn finished(cells: &Cells) -> impl Iterator<Item = (&CellResult, &Measured)> {
    cells.records.iter().filter_map(|record| record.measured.as_ref().map(|measured| (record, measured)))
}

/// 1 − nonzero / total
pub(super) fn sparsity(nonzero: u64, total: u64) -> f64 {
    1.0 - nonzero as f64 / total as f64
}

/// Whether a number reproduces the expected one.
enum Verdict {
    Pass,
    Fail,
    NotRun,
}

fn verdict(measured: Option<f64>, value: f64, tolerance: f64) -> Verdict {
    match measured {
        None => Verdict::NotRun,
        Some(measured) if (measured - value).abs() <= tolerance => Verdict::Pass,
        Some(_) => Verdict::Fail,
    }
}

fn expectations(cells: &Cells) -> Option<Table> {
    if cells.expectations.is_empty() {
        return None;
    }
    let columns = ["where", "metric", "value", "tolerance", "measured", "difference", "verdict", "source"];
    let mut table = Table::new("expectations", columns);
    for (expect, measured) in expected(cells) {
        let word = match verdict(measured, expect.value, expect.tolerance) {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::NotRun => "NOT RUN",
        };
        table.rows.push(vec![
            expect.r#where.clone().into(),
            expect.metric.clone().into(),
            expect.value.into(),
            expect.tolerance.into(),
            measured.into(),
            measured.map(|measured| measured - expect.value).into(),
            word.into(),
            expect.source.clone().into(),
        ]);
    }
    Some(table)
}

/// Every expectation with each of its cells' numbers; none for a cell that has none.
fn expected(cells: &Cells) -> impl Iterator<Item = (&crate::record::ExpectRecord, Option<f64>)> {
    cells.expectations.iter().flat_map(move |expect| {
        expect.cells.iter().map(move |id| {
            let record = cells.records.iter().find(|record| record.id == *id);
            (expect, record.and_then(|record| number(&metric(record, &expect.metric))))
        })
    })
}

/// How many expectations were measured and missed.
pub(super) fn missed(cells: &Cells) -> usize {
    expected(cells).filter(|(e, measured)| matches!(verdict(*measured, e.value, e.tolerance), Verdict::Fail)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ties_are_said_once_a_point() {
        use crate::config::experiment::{Format, Method};
        use crate::record::Ties;
        use crate::report::model::tests::{cell, record};
        let with = |sparsity, variant, weights| {
            let mut record = record(cell("m", Method::Magnitude, sparsity, variant, None), 1.0, &[]);
            record.measured.as_mut().unwrap().ties = Some(Ties { weights, of: 1000 });
            record
        };
        let records = vec![
            with(0.5, Variant::Masked, 11),
            with(0.5, Variant::Sparse(Format::Csr), 11),
            with(0.7, Variant::Masked, 10),
            with(0.9, Variant::Sparse(Format::Csr), 500),
        ];
        let cells = Cells { records, ..Default::default() };
        let said = many_ties(&cells);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("Masked50") && said[0].contains("1.1 %"), "{said:?}");
        assert!(said[1].contains("Masked90") && said[1].contains("50.0 %"), "{said:?}");
        let table = summary(&cells);
        assert_eq!(table.columns.last().unwrap(), "ties");
        assert_eq!(table.rows[0].last(), Some(&Value::Int(11)));
    }

    #[test]
    fn verdicts() {
        assert!(matches!(verdict(Some(1.5), 1.0, 0.5), Verdict::Pass));
        assert!(matches!(verdict(Some(1.6), 1.0, 0.5), Verdict::Fail));
        assert!(matches!(verdict(None, 1.0, 0.5), Verdict::NotRun));
    }
}
