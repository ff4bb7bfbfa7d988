//! What a side has at a point: the values of every metric, over seeds or repeats.

use super::super::table::Value;
use crate::config::experiment::{Metric, MetricColumn, TaskMetric};
use crate::plan::{GATE, Inputs};
use crate::record::{AnalysisResult, CellResult, Entry, KernelResult, LatencyRecord, Record, TaskNumbers};
use crate::report::paired::{Pair, holm};

/// Whether more or less of it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
    Neither,
}

/// What makes the values of a metric vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// The seed.
    Seeds,
    /// The clock.
    Repeats,
    /// Nothing.
    None,
}

/// A metric's values at a point.
pub(super) struct Measure {
    pub name: String,
    /// A value a cell; of what is timed a value a sample.
    pub values: Vec<f64>,
    pub spread: Spread,
    pub better: Better,
    /// What they depend on beside the cell.
    pub inputs: Inputs,
}

/// What only says how often something was timed, or by which version of the kernels: to compare those is the point.
const NO_MATTER: [&str; 6] = ["warmup", "repeats", "kernels", "batch", "prompt", "generate"];

impl Measure {
    /// Why it can't be compared with another, if it can't.
    pub fn refuses(&self, other: &Self) -> Option<String> {
        let mut changes = other.inputs.changes_from(&self.inputs);
        changes.retain(|change| !NO_MATTER.iter().any(|name| change.starts_with(&format!("{name} "))));
        match changes.iter().any(|change| change.starts_with("device ")) {
            true => Some("different device".into()),
            false => (!changes.is_empty()).then(|| changes.join(", ")),
        }
    }
}

/// The metrics of the cells of a point: one cell a seed.
pub(super) fn measures(records: &[&Record]) -> Vec<Measure> {
    let mut measures = model(records);
    measures.extend(kernel(records));
    measures.extend(analysis(records));
    measures
}

/// What a group of results depends on, as the first cell has it.
fn inputs_of(records: &[&Record], group: &str) -> Inputs {
    let parts = records.iter().flat_map(|record| &record.results);
    parts.filter(|part| part.result.group() == group).map(|part| part.inputs.clone()).next().unwrap_or_default()
}

fn model(records: &[&Record]) -> Vec<Measure> {
    let cells: Vec<CellResult> = records.iter().filter_map(|record| CellResult::of((*record).clone())).collect();
    let seeded = cells.iter().any(|cell| cell.cell.seed.is_some());
    let mut measures: Vec<Measure> = Vec::new();
    for column in MetricColumn::ALL.iter().map(|keyword| keyword.value) {
        let values: Vec<f64> = cells.iter().filter_map(|cell| cell.column(column).number()).collect();
        if !values.is_empty() {
            measures.push(Measure {
                name: column.name().into(),
                values,
                spread: if seeded { Spread::Seeds } else { Spread::None },
                better: better(column),
                inputs: inputs_of(records, group(column)),
            });
        }
    }
    measures.extend(tasks(records, &cells, seeded));
    let timed = cells.iter().filter_map(|cell| cell.measured.as_ref()?.latency.as_ref()).flatten();
    let inputs = inputs_of(records, Metric::Latency.name());
    for LatencyRecord { batch, prompt, generate, prefill, decode, .. } in timed {
        for (name, phase) in [
            (format!("prefill_ms batch {batch}, prompt {prompt}"), prefill),
            (format!("decode_ms batch {batch}, prompt {prompt}, {generate} tokens"), decode),
        ] {
            add_times(&mut measures, name, phase.seconds.iter().map(|seconds| seconds * 1e3), &inputs);
        }
    }
    measures
}

/// The numbers of tasks.
fn tasks(records: &[&Record], cells: &[CellResult], seeded: bool) -> Vec<Measure> {
    let mut measures: Vec<Measure> = Vec::new();
    for task in cells.iter().filter_map(|cell| cell.measured.as_ref()).flat_map(|measured| &measured.tasks) {
        for value in &task.metrics {
            let spread = if seeded { Spread::Seeds } else { Spread::None };
            let better = if value.metric.is_share() { Better::More } else { Better::Less };
            push(&mut measures, task_measure(task, value.metric), value.value, spread, better);
            if let Some(measure) = measures.last_mut().filter(|measure| measure.values.len() == 1) {
                measure.inputs = inputs_of(records, task.task.name());
            }
        }
    }
    measures
}

/// What a number of a task is called among the measures.
fn task_measure(task: &TaskNumbers, metric: TaskMetric) -> String {
    format!("{} {metric}", task.task)
}

/// Two cells item by item: of each measure that is a share of items its p, corrected over tasks.
pub(super) fn paired(a: &Record, b: &Record) -> Vec<(String, Pair, f64)> {
    let of = |record: &Record| CellResult::of(record.clone())?.measured.map(|measured| measured.tasks);
    let (Some(a), Some(b)) = (of(a), of(b)) else { return Vec::new() };
    let mut all = Vec::new();
    for metric in TaskMetric::ALL.iter().map(|word| word.value).filter(|metric| metric.is_share()) {
        let pair = |task: &TaskNumbers| {
            let other = b.iter().find(|other| other.task == task.task)?;
            Some((task_measure(task, metric), Pair::of(task, other, metric)?))
        };
        let pairs: Vec<(String, Pair)> = a.iter().filter_map(pair).collect();
        let corrected = holm(&pairs.iter().map(|(_, pair)| pair.p()).collect::<Vec<_>>());
        all.extend(pairs.into_iter().zip(corrected).map(|((name, pair), p)| (name, pair, p)));
    }
    all
}

/// Adds samples to those of the same name: seeds change no work, so that theirs are samples too.
fn add_times(measures: &mut Vec<Measure>, name: String, values: impl Iterator<Item = f64>, inputs: &Inputs) {
    match measures.iter_mut().find(|measure| measure.name == name) {
        Some(known) => known.values.extend(values),
        None => measures.push(Measure {
            name,
            values: values.collect(),
            spread: Spread::Repeats,
            better: Better::Less,
            inputs: inputs.clone(),
        }),
    }
}

/// The group of results that a column is in.
fn group(column: MetricColumn) -> &'static str {
    match column {
        MetricColumn::GateMaxAbs | MetricColumn::GateMaxLogit => GATE,
        MetricColumn::Ties
        | MetricColumn::Nonzero
        | MetricColumn::Total
        | MetricColumn::Sparsity
        | MetricColumn::LinearSparsity
        | MetricColumn::SizeMb
        | MetricColumn::ComputeRatio => Metric::Structure.name(),
        MetricColumn::Top1Match | MetricColumn::Top5Overlap | MetricColumn::KlNats => Metric::Agreement.name(),
        MetricColumn::Perplexity => Metric::Perplexity.name(),
        MetricColumn::BitsPerByte => Metric::BitsPerByte.name(),
    }
}

fn better(column: MetricColumn) -> Better {
    match column {
        MetricColumn::Top1Match | MetricColumn::Top5Overlap => Better::More,
        MetricColumn::SizeMb
        | MetricColumn::KlNats
        | MetricColumn::Perplexity
        | MetricColumn::BitsPerByte
        | MetricColumn::GateMaxAbs => Better::Less,
        MetricColumn::Nonzero
        | MetricColumn::Total
        | MetricColumn::Sparsity
        | MetricColumn::LinearSparsity
        | MetricColumn::ComputeRatio
        | MetricColumn::GateMaxLogit
        | MetricColumn::Ties => Better::Neither,
    }
}

fn kernel(records: &[&Record]) -> Vec<Measure> {
    let mut measures = Vec::new();
    for record in records {
        let Some(result) = KernelResult::of(record) else { continue };
        let Some(timed) = result.timed() else { continue };
        // A kernel's machine is among what its cell depends on.
        let times = timed.measured.seconds.iter().map(|seconds| seconds * 1e6);
        add_times(&mut measures, "time_us".into(), times, &record.inputs);
        for (name, value) in [("bytes", timed.bytes() as f64), ("max_rel_err", timed.measured.max_rel_err)] {
            push(&mut measures, name.into(), value, Spread::Seeds, Better::Less);
        }
    }
    deterministic_if_single(&mut measures, records);
    measures
}

fn analysis(records: &[&Record]) -> Vec<Measure> {
    let mut measures = Vec::new();
    for record in records {
        let Some(AnalysisResult { numbers: Some(numbers), .. }) = AnalysisResult::of((*record).clone()) else {
            continue;
        };
        for table in &numbers.tables {
            for (at, column) in table.columns.iter().enumerate() {
                let values: Vec<f64> =
                    table.rows.iter().filter_map(|row| row.get(at).and_then(Entry::number)).collect();
                // Of many rows the mean: which rows differ is for `verify` to say.
                if let Some(mean) = crate::report::stats::mean(&values) {
                    let name = format!("{} of {}", column, table.name);
                    push(&mut measures, name, mean, Spread::Seeds, Better::Neither);
                }
            }
        }
    }
    deterministic_if_single(&mut measures, records);
    measures
}

fn push(measures: &mut Vec<Measure>, name: String, value: f64, spread: Spread, better: Better) {
    match measures.iter_mut().find(|measure| measure.name == name) {
        Some(known) => known.values.push(value),
        None => measures.push(Measure { name, values: vec![value], spread, better, inputs: Inputs::default() }),
    }
}

/// Cells that have no seed give the same each time.
fn deterministic_if_single(measures: &mut [Measure], records: &[&Record]) {
    let seeded = |record: &&Record| {
        record.cell.kind().key().iter().any(|(name, value)| *name == "seed" && *value != Value::Missing)
    };
    if !records.iter().any(seeded) {
        measures.iter_mut().filter(|of| of.spread == Spread::Seeds).for_each(|of| of.spread = Spread::None);
    }
}
