//! The tables: which columns, and which number goes where.

use super::Cells;
use super::rows::{GroupSum, by_seed, finished, group_sums, key_names, keyed, keyed_table, row, sparsity};
use super::{comparisons, latency, profile, task_pairs, tasks};
use crate::column::Column;
use crate::config::experiment::{MetricColumn, TaskMetric, Variant};
use crate::plan::Cell;
use crate::record::{CellResult, ExpectRecord, LayerRow, Measured, Scarce, Timings};
use crate::report::columns::Columns;
use crate::report::stats::{mean, sd};
use crate::report::table::{LongTable, Table, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Every table of model cells, where there are any or could be.
pub(super) fn all(cells: &Cells) -> Vec<Table> {
    if cells.records.is_empty() {
        return Vec::new();
    }
    let mut tables = vec![summary(cells), timings(cells), spread(cells)];
    tables.extend(comparisons::table(cells));
    tables.extend(execution(cells));
    tables.extend(latency::tables(cells));
    tables.extend(profile::table(cells));
    tables.extend(tasks::table(cells));
    tables.extend(task_pairs::table(cells));
    tables.extend(expectations(cells));
    tables
}

/// The tables of modules and of their groups, which are far longer than the others.
pub(super) fn long(cells: &Arc<Cells>) -> Vec<LongTable> {
    if cells.records.is_empty() {
        return Vec::new();
    }
    let of_model = |count: fn(&Measured) -> usize| finished(cells).map(|(_, measured)| count(measured)).sum();
    let count = [of_model(|measured| measured.structure.layers.len()), of_model(|measured| group_sums(measured).len())];
    vec![of_each("layers", LAYERS, cells, count[0], layers), of_each("groups", GROUPS, cells, count[1], groups)]
}

/// A table with rows of every finished cell.
fn of_each<T: 'static>(
    name: &'static str,
    columns: &'static [Column<T>],
    cells: &Arc<Cells>,
    count: usize,
    items: fn(&Measured) -> Vec<T>,
) -> LongTable {
    let cells = cells.clone();
    LongTable::new(name, key_names().chain(columns.iter().map(|column| column.name)), count, move |emit| {
        for (record, measured) in finished(&cells) {
            let mut values = row(record, []);
            let key = values.len();
            for item in items(measured) {
                values.truncate(key);
                values.extend(columns.iter().map(|column| (column.get)(&item)));
                emit(&values);
            }
        }
    })
}

/// What the columns of the tables say.
pub(super) fn columns() -> Vec<Columns> {
    let summary = MetricColumn::ALL.iter().map(|column| (column.name, column.help)).collect();
    vec![
        Columns::of("The key of model cells: every table of theirs begins with `cell` and these", Cell::KEY),
        Columns { heading: "`summary`".into(), columns: summary },
        Columns::of("The last columns of `summary` and `spread` where calibration is an axis", Cell::CALIBRATION),
        Columns::of("`layers`", LAYERS),
        Columns::of("`groups`", GROUPS),
        Columns::of("`timings`", TIMINGS),
        Columns::of("`tasks`", tasks::TASKS),
        Columns::of("`comparisons`", comparisons::COLUMNS),
        Columns::of("`latency`", latency::LATENCY),
        Columns::of("`latency_parts`", latency::PARTS),
        Columns::of("`profile`", profile::PROFILE),
    ]
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

/// What to say of points that pruned experts that few tokens of the calibration reach.
pub(super) fn scarce(cells: &Cells) -> Vec<String> {
    let mut said = Vec::new();
    for (record, measured) in finished(cells) {
        let Some(scarce) = measured.pruned.and_then(|pruned| pruned.scarce) else { continue };
        let point = Cell { variant: Variant::Masked, ..record.cell.clone() };
        let Scarce { linears, unreached, of } = scarce;
        let few = Scarce::FEW;
        let text = format!(
            "{point}: fewer than {few} tokens of the calibration reach {linears} of {of} matrices of experts, and none \
             reaches {unreached}"
        );
        if !said.contains(&text) {
            said.push(text);
        }
    }
    said
}

fn summary(cells: &Cells) -> Table {
    let calibration = calibration_columns(cells);
    let names = MetricColumn::ALL.iter().map(|column| column.name).chain(calibration.iter().map(|column| column.name));
    let mut table = Table::new("summary", key_names().chain(names));
    for record in &cells.records {
        let metrics = MetricColumn::ALL.iter().map(|column| record.column(column.value));
        table.rows.push(row(record, metrics.chain(calibration.iter().map(|column| (column.get)(&record.cell)))));
    }
    table
}

/// What tells cells apart too, where calibration is an axis.
fn calibration_columns(cells: &Cells) -> &'static [Column<Cell>] {
    let is_axis = cells.records.iter().any(|record| record.cell.calibration().is_some());
    if is_axis { Cell::CALIBRATION } else { &[] }
}

/// How long a cell took: its share of what it did together with others, and with how many.
struct Took {
    timings: Timings,
    load_cells: usize,
    calibrate_cells: usize,
    prune_cells: usize,
}

/// A cell's share of a time.
fn share(seconds: Option<f64>, cells: usize) -> Value {
    seconds.map(|seconds| seconds / cells.max(1) as f64).into()
}

const TIMINGS: &[Column<Took>] = &[
    Column {
        name: "load_seconds",
        help: "reading the model: the cell's share, of `load_cells` cells",
        get: |t| share(Some(t.timings.load_seconds), t.load_cells),
    },
    Column {
        name: "calibrate_seconds",
        help: "the passes of the calibration text: the cell's share, of `calibrate_cells` cells",
        get: |t| share(t.timings.calibrate_seconds, t.calibrate_cells),
    },
    Column {
        name: "prune_seconds",
        help: "pruning: the cell's share, of `prune_cells` cells",
        get: |t| share(t.timings.prune_seconds, t.prune_cells),
    },
    Column {
        name: "convert_seconds",
        help: "storing the weights in the variant's form",
        get: |t| t.timings.convert_seconds.into(),
    },
    Column { name: "measure_seconds", help: "measuring", get: |t| t.timings.measure_seconds.into() },
    Column {
        name: "peak_rss_bytes",
        help: "the most memory that the process held while the cell was measured, with what it shares with others",
        get: |t| t.timings.peak_rss_bytes.into(),
    },
    Column { name: "load_cells", help: "cells that shared the reading of the model", get: |t| t.load_cells.into() },
    Column {
        name: "calibrate_cells",
        help: "cells that shared the passes of the calibration text",
        get: |t| t.timings.calibrate_seconds.map(|_| t.calibrate_cells).into(),
    },
    Column {
        name: "prune_cells",
        help: "cells that shared the pruning",
        get: |t| t.timings.prune_seconds.map(|_| t.prune_cells).into(),
    },
];

/// Cells that did something together say the same time of it, to the last bit.
fn timings(cells: &Cells) -> Table {
    let mut counts: HashMap<(usize, u64), usize> = HashMap::new();
    let shared = |timings: &Timings| {
        [Some(timings.load_seconds), timings.calibrate_seconds, timings.prune_seconds]
            .map(|time| time.map(f64::to_bits))
    };
    for record in &cells.records {
        for (kind, time) in shared(&record.timings).into_iter().enumerate() {
            time.into_iter().for_each(|time| *counts.entry((kind, time)).or_default() += 1);
        }
    }
    let took = |record: &CellResult| {
        let timings = record.timings;
        let count =
            |kind: usize| shared(&timings)[kind].and_then(|time| counts.get(&(kind, time))).copied().unwrap_or(1);
        Took { timings, load_cells: count(0), calibrate_cells: count(1), prune_cells: count(2) }
    };
    keyed_table("timings", TIMINGS, cells.records.iter().map(|record| (record, took(record))))
}

/// Mean and standard deviation over seeds.
fn spread(cells: &Cells) -> Table {
    let key: Vec<&Column<Cell>> = Cell::KEY.iter().filter(|column| column.name != "seed").collect();
    let names = key.iter().map(|column| column.name.to_owned()).chain(["seeds".to_owned()]);
    let figures = MetricColumn::ALL.iter().flat_map(|of| [format!("{}_mean", of.name), format!("{}_sd", of.name)]);
    let calibration = calibration_columns(cells);
    let mut table =
        Table::new("spread", names.chain(figures).chain(calibration.iter().map(|column| column.name.to_owned())));
    for seeds in by_seed(&cells.records) {
        let mut row: Vec<Value> = key.iter().map(|column| (column.get)(&seeds[0].cell)).collect();
        row.push(seeds.len().into());
        for column in MetricColumn::ALL {
            let values: Vec<f64> = seeds.iter().filter_map(|record| record.column(column.value).number()).collect();
            row.extend([mean(&values).into(), sd(&values).into()]);
        }
        row.extend(calibration.iter().map(|column| (column.get)(&seeds[0].cell)));
        table.rows.push(row);
    }
    table
}

/// A module of a model, and the parameters of the whole.
struct Layer {
    row: LayerRow,
    of: u64,
}

const LAYERS: &[Column<Layer>] = &[
    Column { name: "module_name", help: "the module's Hugging Face name", get: |l| (&*l.row.module_name).into() },
    Column { name: "group", help: "what it belongs to, such as `mlp_linear`", get: |l| (&*l.row.group).into() },
    Column { name: "nonzero", help: "parameters other than zero, bias included", get: |l| l.row.nonzero.into() },
    Column { name: "total", help: "parameters, bias included", get: |l| l.row.total.into() },
    Column { name: "sparsity", help: "1 - nonzero / total", get: |l| sparsity(l.row.nonzero, l.row.total).into() },
    Column {
        name: "shape",
        help: "of the weight, output features first",
        get: |l| l.row.shape.map(|[rows, cols]| format!("({rows}, {cols})")).into(),
    },
    Column {
        name: "flops_per_token",
        help: "two for each weight that is multiplied",
        get: |l| l.row.flops_per_token.into(),
    },
    Column {
        name: "param_frac",
        help: "its share of the model's parameters",
        get: |l| (l.row.total as f64 / l.of as f64).into(),
    },
    Column { name: "bytes", help: "stored bytes, bias included", get: |l| l.row.bytes.into() },
    Column { name: "format", help: "how the weight is stored", get: |l| (&*l.row.format).into() },
];

fn layers(measured: &Measured) -> Vec<Layer> {
    let of = measured.structure.total;
    measured.structure.layers.iter().map(|row| Layer { row: row.clone(), of }).collect()
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

/// A group of a model, its sum, and the parameters of the whole.
struct Group {
    name: String,
    sum: GroupSum,
    of: u64,
}

const GROUPS: &[Column<Group>] = &[
    Column { name: "group", help: "the modules that it adds up", get: |g| g.name.clone().into() },
    Column { name: "nonzero", help: "parameters other than zero", get: |g| g.sum.nonzero.into() },
    Column { name: "total", help: "parameters", get: |g| g.sum.total.into() },
    Column { name: "sparsity", help: "1 - nonzero / total", get: |g| sparsity(g.sum.nonzero, g.sum.total).into() },
    Column {
        name: "flops_per_token",
        help: "two for each weight that is multiplied",
        get: |g| g.sum.flops_per_token.into(),
    },
    Column {
        name: "param_frac",
        help: "its share of the model's parameters",
        get: |g| (g.sum.total as f64 / g.of as f64).into(),
    },
    Column { name: "bytes", help: "stored bytes", get: |g| g.sum.bytes.into() },
];

fn groups(measured: &Measured) -> Vec<Group> {
    let of = measured.structure.total;
    group_sums(measured).into_iter().map(|(name, sum)| Group { name: name.into(), sum, of }).collect()
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
            expect.task.as_ref().map_or(expect.metric.clone(), |task| format!("{task} {}", expect.metric)).into(),
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
fn expected(cells: &Cells) -> impl Iterator<Item = (&ExpectRecord, Option<f64>)> {
    cells.expectations.iter().flat_map(move |expect| {
        expect.cells.iter().map(move |id| {
            let record = cells.records.iter().find(|record| record.id == *id);
            (expect, record.and_then(|record| measured(record, expect)))
        })
    })
}

/// The number of a cell that is expected. A plan of another program may name one that this one does not have: then
/// nothing was measured.
fn measured(record: &CellResult, expect: &ExpectRecord) -> Option<f64> {
    let Some(task) = &expect.task else {
        let column: MetricColumn = expect.metric.parse().ok()?;
        return record.column(column).number();
    };
    let metric: TaskMetric = expect.metric.parse().ok()?;
    tasks::value(record.measured.as_ref()?, task, metric)
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
        let ties = table.columns.iter().position(|column| column == "ties").unwrap();
        assert_eq!(table.rows[0][ties], Value::Int(11));
    }

    #[test]
    fn verdicts() {
        assert!(matches!(verdict(Some(1.5), 1.0, 0.5), Verdict::Pass));
        assert!(matches!(verdict(Some(1.6), 1.0, 0.5), Verdict::Fail));
        assert!(matches!(verdict(None, 1.0, 0.5), Verdict::NotRun));
    }
}
