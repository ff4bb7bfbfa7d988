//! Two cells on the same items: how often only one of them is right, and whether that can be chance.
//!
//! ```text
//!   items       1 2 3 4 5 6        both    1, 5                  only_a, only_b = b, c
//!   a right     1 1 0 0 1 0        only a  2                     p: two-sided binomial test of min(b, c) of b + c at 1/2
//!   b right     1 0 1 0 1 0        only b  3                     difference (c - b) / n, its error √(b + c - (b - c)²/n) / n
//! ```
//! McNemar, Psychometrika 12 (1947), in its exact form; p-values of a pair and metric are corrected over tasks by Holm,
//! Scandinavian Journal of Statistics 6 (1979). Two standard errors side by side would ignore that the items are the same.

use super::Cells;
use super::plots::{PAGE, labels, runs};
use crate::config::experiment::{TaskMetric, Variant};
use crate::record::{CellResult, TaskNumbers};
use crate::report::figure::{Axis, Figure, Format, Marks, Panel, PointSeries, Rule, RuleAxis, Trace, Value as Point};
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
/// What is said where chance can't be ruled out.
const ALIKE: &str = "not distinguishable";
/// Where chance counts as ruled out.
const LEVEL: f64 = 0.05;
/// Standard errors on each side of a 95 % interval.
const INTERVAL: f64 = 1.96;

/// How two cells do on the same items.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pair {
    both: u64,
    only_a: u64,
    only_b: u64,
    neither: u64,
}

impl Pair {
    /// Of two tasks' items, by rows; nothing where they are not the same items.
    fn of(a: &TaskNumbers, b: &TaskNumbers, metric: TaskMetric) -> Option<Self> {
        let place = |task: &TaskNumbers| task.shares().position(|share| share == metric);
        let (in_a, in_b) = (place(a)?, place(b)?);
        let same = (a.task, a.shots, a.rows.len()) == (b.task, b.shots, b.rows.len());
        if !same || a.rows.is_empty() || a.rows.iter().zip(&b.rows).any(|(a, b)| (a.row, a.gold) != (b.row, b.gold)) {
            return None;
        }
        let mut pair = Self::default();
        for (a, b) in a.rows.iter().zip(&b.rows) {
            let count = match (a.answers.get(in_a)?.1, b.answers.get(in_b)?.1) {
                (true, true) => &mut pair.both,
                (true, false) => &mut pair.only_a,
                (false, true) => &mut pair.only_b,
                (false, false) => &mut pair.neither,
            };
            *count += 1;
        }
        Some(pair)
    }

    fn add(&mut self, other: Self) {
        self.both += other.both;
        self.only_a += other.only_a;
        self.only_b += other.only_b;
        self.neither += other.neither;
    }

    fn items(&self) -> u64 {
        self.both + self.only_a + self.only_b + self.neither
    }

    /// How much more often b is right.
    fn difference(&self) -> f64 {
        (self.only_b as f64 - self.only_a as f64) / self.items() as f64
    }

    fn error(&self) -> f64 {
        let (a, b, n) = (self.only_a as f64, self.only_b as f64, self.items() as f64);
        (a + b - (a - b) * (a - b) / n).max(0.0).sqrt() / n
    }

    /// The probability, if both are equally good, that the flips are as uneven as this or more.
    fn p(&self) -> f64 {
        let (flips, fewer) = (self.only_a + self.only_b, self.only_a.min(self.only_b));
        if self.only_a == self.only_b {
            return 1.0;
        }
        // Terms of the binomial distribution, each by its logarithm: 2^-flips alone may be too small for a number.
        let mut log_term = -(flips as f64) * std::f64::consts::LN_2;
        let mut sum = log_term.exp();
        for k in 1..=fewer {
            log_term += ((flips - k + 1) as f64 / k as f64).ln();
            sum += log_term.exp();
        }
        (2.0 * sum).min(1.0)
    }
}

/// The step-down correction: the smallest p times the number of tests, the next times one less, never falling.
fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&a, &b| ps[a].total_cmp(&ps[b]));
    let (mut corrected, mut last) = (vec![1.0; ps.len()], 0.0_f64);
    for (rank, index) in order.into_iter().enumerate() {
        last = last.max(ps[index] * (ps.len() - rank) as f64).min(1.0);
        corrected[index] = last;
    }
    corrected
}

/// Whether two cells of one model are compared: the dense one with all, others of one variant.
fn compared(a: &CellResult, b: &CellResult) -> bool {
    let (a, b) = (a.cell.variant, b.cell.variant);
    a == Variant::Dense || b == Variant::Dense || a == b
}

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
    let others: Vec<_> = others.into_iter().filter(|(_, pairs)| !pairs.is_empty()).take(MOST).collect();
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
        let points = |of: &dyn Fn(&Pair, f64) -> Vec<(f64, Point)>| {
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
    let x = Axis { format: Format::Percent(0), ..Axis::linear("Accuracy, difference to dense") };
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

    /// By `scipy.stats.binomtest(min(b, c), b + c).pvalue`.
    #[test]
    fn p_values_are_exact() {
        let p = |only_a, only_b| Pair { both: 3, only_a, only_b, neither: 4 }.p();
        let cases = [
            (5, 0, 0.0625),
            (1, 3, 0.625),
            (2, 0, 0.5),
            (20, 6, 0.009_355_306_625_366_211),
            (3, 3, 1.0),
            (0, 0, 1.0),
            (400, 300, 0.000_178_476_314_485_624_4),
        ];
        for (a, b, expected) in cases {
            assert!((p(a, b) - expected).abs() < 1e-11, "{a} {b}: {}", p(a, b));
        }
        assert!(p(3000, 1000) > 0.0 && p(3000, 1000) < 1e-200);
    }

    /// By `statsmodels.stats.multitest.multipletests(ps, method="holm")`.
    #[test]
    fn corrections_never_fall() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        let expected = [0.03, 0.06, 0.06, 0.02];
        assert!(corrected.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{corrected:?}");
        assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
    }

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
}
