//! `task_pairs.csv` and its figure: every pair of cells on the items that both have been asked.
//!
//! Owns which cells are compared, and what is said of them; what is counted is in `report/paired.rs`.

use super::Cells;
use super::plots::{PAGE, labels, runs};
use crate::config::experiment::{TaskMetric, Variant};
use crate::record::{CellResult, TaskNumbers};
use crate::report::figure::{Axis, Figure, Format, Marks, Panel, PointSeries, Rule, RuleAxis, Trace, Value as Point};
use crate::report::paired::{ALIKE, LEVEL, Pair, holm};
use crate::report::table::{Table, Value};

const COLUMNS: [&str; 18] = [
    "task",
    "a",
    "b",
    "items",
    "both",
    "only_a",
    "only_b",
    "neither",
    "p",
    "p_holm",
    "metric",
    "shots",
    "difference",
    "difference_se",
    "verdict",
    "model",
    "backend",
    "dtype",
];
/// All tasks together.
const ALL: &str = "all";
/// Standard errors on each side of a 95 % interval.
const INTERVAL: f64 = 1.96;

/// Whether two cells of one model are compared: the dense one with all, others of one variant.
fn compared(a: &CellResult, b: &CellResult) -> bool {
    let (a, b) = (a.cell.variant, b.cell.variant);
    a == Variant::Dense || b == Variant::Dense || a == b
}

/// Points of a trace.
type Points = Vec<(f64, Point)>;

/// Every pair of cells on every task that both have, where there are any.
pub(super) fn table(cells: &Cells) -> Option<Table> {
    let mut table = Table::new("task_pairs", COLUMNS);
    for run in runs(&cells.records) {
        let names = labels(&run);
        for (index, a) in run.iter().enumerate() {
            for (b, name) in run.iter().zip(&names).skip(index + 1) {
                if compared(a, b) {
                    table.rows.extend(rows(a, b, [&names[index], name]));
                }
            }
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// The tasks that two cells have, by metric.
fn pairs<'a>(a: &'a CellResult, b: &'a CellResult, metric: TaskMetric) -> Vec<(&'a TaskNumbers, Pair)> {
    let tasks = |record: &'a CellResult| record.measured.iter().flat_map(|measured| &measured.tasks);
    let of = |task: &'a TaskNumbers| {
        let other = tasks(b).find(|other| other.task == task.task)?;
        Some((task, Pair::of(task, other, metric)?))
    };
    tasks(a).filter_map(of).collect()
}

fn rows(a: &CellResult, b: &CellResult, names: [&String; 2]) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for metric in TaskMetric::ALL.iter().map(|word| word.value).filter(|metric| metric.is_share()) {
        let pairs = pairs(a, b, metric);
        let ps: Vec<f64> = pairs.iter().map(|(_, pair)| pair.p()).collect();
        let mut total = Pair::default();
        for ((task, pair), corrected) in pairs.iter().zip(holm(&ps)) {
            total.add(*pair);
            rows.push(row(task.task.name(), Some(task.shots), metric, pair, corrected, names, a));
        }
        if metric == TaskMetric::Acc && pairs.len() > 1 {
            // One test, so that nothing is to be corrected.
            rows.push(row(ALL, None, metric, &total, total.p(), names, a));
        }
    }
    rows
}

fn row(
    task: &str,
    shots: Option<usize>,
    metric: TaskMetric,
    pair: &Pair,
    corrected: f64,
    [a, b]: [&String; 2],
    record: &CellResult,
) -> Vec<Value> {
    let better = if pair.only_a > pair.only_b { a } else { b };
    let verdict = if corrected < LEVEL { format!("{better} is better") } else { ALIKE.to_owned() };
    let cell = &record.cell;
    vec![
        task.into(),
        a.clone().into(),
        b.clone().into(),
        pair.items().into(),
        pair.both.into(),
        pair.only_a.into(),
        pair.only_b.into(),
        pair.neither.into(),
        pair.p().into(),
        corrected.into(),
        metric.into(),
        shots.into(),
        pair.difference().into(),
        pair.error().into(),
        verdict.into(),
        cell.model.clone().into(),
        cell.backend.name().into(),
        cell.dtype.name().into(),
    ]
}

/// What a reader should not miss of the table.
pub(super) fn finding(table: &Table) -> Option<String> {
    let verdict = table.columns.iter().position(|column| column == "verdict")?;
    let alike = table.rows.iter().filter(|row| row[verdict] == ALIKE.into()).count();
    (alike > 0).then(|| {
        format!(
            "{alike} of {} comparisons on tasks are {ALIKE} by a paired test: see tables/task_pairs.csv",
            table.rows.len()
        )
    })
}

/// What each setup loses or gains against the dense model, with 95 % intervals of the paired difference: a row a task.
pub(super) fn figure(records: &[&CellResult]) -> Option<Figure> {
    /// Setups that stay legible in a row.
    const MOST: usize = 6;
    let dense = records.iter().find(|record| record.cell.variant == Variant::Dense)?;
    let names = labels(records);
    let others = records.iter().zip(&names).filter(|(record, _)| record.cell.variant != Variant::Dense);
    let others: Vec<(&str, Vec<(&TaskNumbers, Pair)>)> =
        others.map(|(record, name)| (name.as_str(), pairs(dense, record, TaskMetric::Acc))).collect();
    let mut others: Vec<_> = others.into_iter().filter(|(_, pairs)| !pairs.is_empty()).collect();
    let all = others.len();
    others.truncate(MOST);
    let mut tasks: Vec<&str> = Vec::new();
    for (task, _) in others.iter().flat_map(|(_, pairs)| pairs) {
        if !tasks.contains(&task.task.name()) {
            tasks.push(task.task.name());
        }
    }
    if tasks.is_empty() {
        return None;
    }
    // The first task is on top, and the setups of a row lie below each other.
    let place = |task: &str, setup: usize| {
        let row = tasks.iter().position(|name| *name == task).unwrap_or(0);
        let shift = (setup as f64 - (others.len() as f64 - 1.0) / 2.0) * 0.7 / others.len() as f64;
        (tasks.len() - 1 - row) as f64 - shift
    };
    let mut series = Vec::new();
    for (setup, (name, pairs)) in others.iter().enumerate() {
        let points = |of: &dyn Fn(&Pair, f64) -> Points| -> Points {
            pairs.iter().flat_map(|(task, pair)| of(pair, place(task.task.name(), setup))).collect()
        };
        let interval = |pair: &Pair, y: f64| {
            let (middle, half) = (pair.difference(), INTERVAL * pair.error());
            vec![(middle - half, y.into()), (middle + half, y.into()), (middle, Point::MISSING)]
        };
        let middle = |pair: &Pair, y: f64| vec![(pair.difference(), y.into())];
        let style = setup + 1;
        let of = |name: String, trace, points| PointSeries { name, style, trace, points };
        series.push(of(format!("{name}, 95 %"), Trace::Line, points(&interval)));
        series.push(of((*name).to_owned(), Trace::Scatter, points(&middle)));
    }
    let left_out = if all > MOST { format!(" ({MOST} of {all} setups)") } else { String::new() };
    let label = format!("Accuracy, difference to dense{left_out}");
    let x = Axis { format: Format::Percent(0), ..Axis::linear(label) };
    let y = Axis {
        ticks: (0..tasks.len()).map(|row| row as f64).collect(),
        names: tasks.iter().rev().map(|task| (*task).to_owned()).collect(),
        range: Some((-0.6, tasks.len() as f64 - 0.4)),
        ..Axis::linear("Task")
    };
    let rules = vec![Rule { axis: RuleAxis::X, at: 0.0, label: "dense".into() }];
    let panel = Panel { legend: true, rules, ..Panel::new(x, y, Marks::Points(series)) };
    let height = 140 + 14 * (tasks.len() * others.len().max(2)) as u32;
    Some(Figure::new(vec![panel], PAGE, height.min(1400)))
}

#[cfg(test)]
mod tests {
    use super::super::tasks::tests::{task, with_tasks};
    use super::*;

    #[test]
    fn cells_are_compared_item_by_item() {
        let cells = Cells {
            records: vec![
                with_tasks(Variant::Dense, 0.0, vec![task("boolq", "110010"), task("rte", "1111111111")]),
                with_tasks(Variant::Masked, 0.5, vec![task("boolq", "101010"), task("rte", "0000000000")]),
                // Other items are no comparison.
                with_tasks(Variant::Masked, 0.7, vec![task("rte", "111")]),
            ],
            ..Default::default()
        };
        let table = table(&cells).unwrap();
        assert_eq!(table.rows.len(), 3);
        let shown: Vec<String> = table.rows[0].iter().take(10).map(ToString::to_string).collect();
        assert_eq!(shown, ["boolq", "Dense", "Masked50", "6", "2", "1", "1", "2", "1", "1"]);
        let verdicts: Vec<String> = table.rows.iter().map(|row| row[14].to_string()).collect();
        assert_eq!(verdicts, [ALIKE, "Dense is better", "Dense is better"]);
        assert!(finding(&table).unwrap().starts_with("1 of 3 comparisons"));
        let figure = figure(&cells.records.iter().collect::<Vec<_>>()).unwrap();
        assert!(figure.csv().contains("Masked50,-1,"), "{}", figure.csv());
    }

    #[test]
    fn setups_that_are_not_drawn_are_counted() {
        let of = |setups: usize| {
            let cell = |setup: usize| match setup {
                0 => with_tasks(Variant::Dense, 0.0, vec![task("boolq", "1100")]),
                setup => with_tasks(Variant::Masked, setup as f64 / 10.0, vec![task("boolq", "1010")]),
            };
            let cells: Vec<CellResult> = (0..=setups).map(cell).collect();
            format!("{:?}", figure(&cells.iter().collect::<Vec<_>>()).unwrap())
        };
        assert!(!of(6).contains("setups)"));
        assert!(of(8).contains("difference to dense (6 of 8 setups)"));
    }
}
