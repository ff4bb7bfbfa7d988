//! Zero-shot tasks: `tasks.csv`, and what papers make of it.
//!
//! Owns the rows: each task's numbers, MMLU's mean over its subjects, and the means of the sets whose tasks are all
//! there. task_pairs.rs compares cells item by item.

use super::Cells;
use super::rows::{finished, keyed_table};
use crate::column::Column;
use crate::config::experiment::TaskMetric;
use crate::config::tasks::{MEAN, MMLU, SETS, SUBJECTS};
use crate::record::{Measured, TaskNumbers};
use crate::report::table::Table;

/// A number of a task of a cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TaskRow {
    pub task: String,
    pub shots: Option<usize>,
    pub metric: TaskMetric,
    pub value: f64,
    pub stderr: Option<f64>,
    pub items: usize,
}

/// What stands in `tasks.csv` behind the key.
pub(super) const TASKS: &[Column<TaskRow>] = &[
    Column {
        name: "task",
        help: "the task; `mmlu` is the mean over its subjects by items, a set or `mean` the plain mean over tasks",
        get: |row| row.task.clone().into(),
    },
    Column { name: "shots", help: "examples in front of an item", get: |row| row.shots.into() },
    Column { name: "metric", help: "which number of the task", get: |row| row.metric.into() },
    Column { name: "value", help: "the number; of `acc` and the like a share of items", get: |row| row.value.into() },
    Column { name: "stderr", help: "its standard error over items", get: |row| row.stderr.into() },
    Column { name: "items", help: "items asked", get: |row| row.items.into() },
];

/// Every number of every task, where there are any.
pub(super) fn table(cells: &Cells) -> Option<Table> {
    let rows = finished(cells).flat_map(|(record, measured)| rows(measured).into_iter().map(move |row| (record, row)));
    let table = keyed_table("tasks", TASKS, rows);
    (!table.rows.is_empty()).then_some(table)
}

/// The tasks' numbers, and their means.
pub(super) fn rows(measured: &Measured) -> Vec<TaskRow> {
    let single = measured.tasks.iter().flat_map(|task| task.metrics.iter().map(move |value| (task, value)));
    let mut rows: Vec<TaskRow> = single
        .map(|(task, value)| TaskRow {
            task: task.task.to_string(),
            shots: Some(task.shots),
            metric: value.metric,
            value: value.value,
            stderr: value.stderr,
            items: task.items,
        })
        .collect();
    rows.extend(mmlu(&measured.tasks));
    let means: Vec<TaskRow> =
        SETS.iter().filter_map(|(set, _, tasks)| mean(set, tasks.iter().map(|task| find(&rows, task)))).collect();
    let alone = |row: &&TaskRow| row.metric == TaskMetric::Acc && !row.task.starts_with("mmlu_");
    let all = mean(MEAN, rows.iter().filter(alone).map(Some));
    rows.extend(means);
    rows.extend(all);
    rows
}

/// A number of a task, or of a mean of tasks.
pub(super) fn value(measured: &Measured, task: &str, metric: TaskMetric) -> Option<f64> {
    rows(measured).into_iter().find(|row| row.task == task && row.metric == metric).map(|row| row.value)
}

fn find<'a>(rows: &'a [TaskRow], task: &str) -> Option<&'a TaskRow> {
    rows.iter().find(|row| row.task == task && row.metric == TaskMetric::Acc)
}

/// The mean over the subjects of MMLU, weighted by items; its error is that of the pooled variance. Where subjects are
/// missing, the name says so.
fn mmlu(tasks: &[TaskNumbers]) -> Option<TaskRow> {
    let subjects: Vec<&TaskNumbers> = tasks.iter().filter(|task| task.task.subject().is_some()).collect();
    let values = subjects.iter().map(|task| Some((task.items as f64, task.value(TaskMetric::Acc)?)));
    let values: Vec<_> = values.collect::<Option<_>>()?;
    if values.len() < 2 {
        return None;
    }
    let items: f64 = values.iter().map(|(items, _)| items).sum();
    let value = values.iter().map(|(items, value)| items * value.value).sum::<f64>() / items;
    let squares = values.iter().map(|(items, value)| Some((items - 1.0) * value.stderr?.powi(2) * items));
    let squares: Option<f64> = squares.sum();
    let stderr = squares.map(|squares| (squares / (items - values.len() as f64)).sqrt() / items.sqrt());
    let task = if values.len() == SUBJECTS.len() {
        MMLU.to_owned()
    } else {
        format!("{MMLU} ({} of {} subjects)", values.len(), SUBJECTS.len())
    };
    let (shots, items) = (Some(subjects[0].shots), subjects.iter().map(|task| task.items).sum());
    Some(TaskRow { task, shots, metric: TaskMetric::Acc, value, stderr, items })
}

/// The plain mean of accuracies, where all and at least two are there; tasks are independent of each other.
fn mean<'a>(name: &str, rows: impl Iterator<Item = Option<&'a TaskRow>>) -> Option<TaskRow> {
    let rows: Vec<&TaskRow> = rows.collect::<Option<_>>()?;
    if rows.len() < 2 {
        return None;
    }
    let count = rows.len() as f64;
    let value = rows.iter().map(|row| row.value).sum::<f64>() / count;
    let squares: Option<f64> = rows.iter().map(|row| Some(row.stderr?.powi(2))).sum();
    let stderr = squares.map(|squares| squares.sqrt() / count);
    let items = rows.iter().map(|row| row.items).sum();
    Some(TaskRow { task: name.into(), shots: None, metric: TaskMetric::Acc, value, stderr, items })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::experiment::{Method, Variant};
    use crate::record::{CellResult, ItemRow, TaskValue};
    use crate::report::model::tests::{cell, record};

    /// A task whose items are right as the digits say.
    pub(in super::super) fn task(name: &str, right: &str) -> TaskNumbers {
        let rows = right.bytes().enumerate().map(|(index, digit)| ItemRow {
            row: index + 1,
            answers: vec![(Some(0), digit == b'1')],
            ..ItemRow::default()
        });
        let rows: Vec<ItemRow> = rows.collect();
        let count = rows.len() as f64;
        let value = right.bytes().filter(|digit| *digit == b'1').count() as f64 / count;
        let stderr = Some((value * (1.0 - value) / (count - 1.0)).sqrt());
        TaskNumbers::new(name.parse().unwrap(), 0, 0, vec![TaskValue { metric: TaskMetric::Acc, value, stderr }], rows)
    }

    /// A cell with tasks.
    pub(in super::super) fn with_tasks(variant: Variant, sparsity: f64, tasks: Vec<TaskNumbers>) -> CellResult {
        let mut record = record(cell("m", Method::Magnitude, sparsity, variant, None), 1.0, &[]);
        record.measured.as_mut().unwrap().tasks = tasks;
        record
    }

    #[test]
    fn means_are_those_of_papers() {
        let tasks = ["boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa"];
        let rights = ["10", "11", "00", "1000", "1110", "10", "11"];
        let mut numbers: Vec<TaskNumbers> = tasks.iter().zip(rights).map(|(name, right)| task(name, right)).collect();
        numbers.push(task("mmlu_virology", "1100"));
        numbers.push(task("mmlu_anatomy", "10"));
        let record = with_tasks(Variant::Dense, 0.0, numbers);
        let rows = rows(record.measured.as_ref().unwrap());
        let of = |name: &str| rows.iter().find(|row| row.task == name).unwrap();
        assert_eq!(of("wanda7").value, (0.5 + 1.0 + 0.0 + 0.25 + 0.75 + 0.5 + 1.0) / 7.0);
        let mmlu = of("mmlu (2 of 57 subjects)");
        assert_eq!((mmlu.value, mmlu.items), (0.5, 6));
        // Pooled: (3 * 1/3 + 1 * 1/2) / (6 - 2) = 0.375; sqrt(0.375 / 6) = 0.25.
        assert!((mmlu.stderr.unwrap() - 0.25).abs() < 1e-12);
        assert!(rows.iter().all(|row| row.task != "slim6"));
        assert_eq!(of("mean").items, 2 + 2 + 2 + 4 + 4 + 2 + 2 + 6);
    }
}
