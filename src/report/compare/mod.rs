//! Two sides side by side: the same cells of two folders, or two setups of one folder.
//!
//! ```text
//!   records of A, of B ──sides.rs──> points that both have, each with its cells over seeds
//!                                        │
//!                      measures.rs       v   of each side: the values of every metric, and what they depend on
//!                                        │
//!                                        v
//!                                  Table: a row a point and metric:  a, b, difference, ratio ± sd, verdict
//! ```
//! A difference of means counts when it is larger than the spread, the root of the sum of both variances: over seeds, or
//! over repeats of what was timed; of tasks, one cell against one, when McNemar's test says so (`report/paired.rs`).
//! What depends on a seed and has fewer than three says nothing of chance; what depends on none and differs in the last
//! digits of 32-bit arithmetic is equal but for rounding. Numbers of another text,
//! and times of another device, are not compared, and the row says so.

mod measures;
mod sides;

use super::paired;
use super::stats::{LEAST_SEEDS, mean, sd};
use super::table::{Table, Value};
use crate::config::experiment::MetricColumn;
use crate::plan::Only;
use crate::record::{Record, Store, StoreError};
use measures::{Better, Measure, Spread, measures};
use sides::{Pair, Pairs, Rule};

/// What is compared with what.
pub enum Sides {
    /// The same cells of two folders.
    Folders(Store, Store),
    /// The cells of a folder for which the first condition holds with those for which the second does, at equal points.
    Setups(Store, Only, Only),
}

/// Two sides, compared.
pub struct Comparison {
    /// A row for every point and metric that both sides have.
    pub table: Table,
    /// Points that both sides have.
    pub points: usize,
    /// Cells of each side that have none to be compared with.
    pub alone: [usize; 2],
    /// Cells whose files can't be believed, one message each.
    pub damaged: Vec<String>,
}

/// The columns after those that tell points apart.
const COLUMNS: [&str; 12] =
    ["metric", "n_a", "n_b", "a", "b", "sd_a", "sd_b", "difference", "ratio", "ratio_sd", "verdict", "note"];

/// Compares two sides; cells are those for which one of the conditions holds, or all.
///
/// # Errors
/// When a folder can't be read.
pub fn compare(sides: &Sides, only: &[Only]) -> Result<Comparison, StoreError> {
    let mut damaged = Vec::new();
    let mut read = |store: &Store| {
        let (mut read, mut records) = super::read(store, &super::Seen::of(store))?;
        damaged.append(&mut read.damaged);
        records.retain(|record| only.is_empty() || only.iter().any(|only| only.matches(&record.cell)));
        Ok::<_, StoreError>(records)
    };
    let (a, b, rule) = match sides {
        Sides::Folders(a, b) => (read(a)?, read(b)?, Rule::SameCells),
        Sides::Setups(store, a, b) => {
            let all = read(store)?;
            let of = |only: &Only| all.iter().filter(|record| only.matches(&record.cell)).cloned().collect::<Vec<_>>();
            (of(a), of(b), Rule::EqualPoints { told: [a.columns(), b.columns()].concat() })
        }
    };
    let Pairs { columns, pairs, alone } = sides::pairs(&a, &b, &rule);
    let names = columns.iter().map(String::as_str).chain(COLUMNS);
    let mut table = Table::new("compare", names);
    for pair in &pairs {
        table.rows.extend(rows(pair));
    }
    Ok(Comparison { table, points: pairs.len(), alone, damaged })
}

/// The rows of a point: a metric each.
fn rows(pair: &Pair<'_>) -> Vec<Vec<Value>> {
    let [left, right] = [&pair.a, &pair.b].map(|records| measures(records));
    let both = left.iter().filter_map(|a| Some((a, right.iter().find(|b| b.name == a.name)?)));
    let note = note(&pair.a, &pair.b);
    let tests = match (&pair.a[..], &pair.b[..]) {
        ([a], [b]) if !pair.several => measures::paired(a, b),
        // Over seeds the spread over them counts: the items of one seed are those of the next.
        _ => Vec::new(),
    };
    let row = |(a, b): (&Measure, &Measure)| {
        let test = tests.iter().find(|(name, ..)| *name == a.name && a.refuses(b).is_none());
        let mut row = row(pair, a, b, &note);
        if let Some((_, items, p)) = test {
            row[10] = by_items(items, *p).into();
            let test = format!("p = {}, corrected over tasks {}", short(items.p()), short(*p));
            row[11] = if note.is_empty() { test.into() } else { format!("{test}; {note}").into() };
        }
        pair.key.iter().cloned().chain(row).collect()
    };
    both.map(row).collect()
}

/// Which side has more items right, if that can't be chance.
fn by_items(items: &paired::Pair, p: f64) -> &'static str {
    match p < paired::LEVEL {
        false => paired::ALIKE,
        true if items.only_a > items.only_b => "a",
        true => "b",
    }
}

/// A probability for a note.
fn short(p: f64) -> String {
    if p < 1e-3 { format!("{p:.1e}") } else { format!("{p:.3}") }
}

/// What the cells of both sides read that is not the same.
fn note(a: &[&Record], b: &[&Record]) -> String {
    let (Some(a), Some(b)) = (a.first(), b.first()) else { return String::new() };
    let mut changes = b.inputs.changes_from(&a.inputs);
    changes.retain(|change| !change.starts_with("kernels "));
    changes.join(", ")
}

fn row(pair: &Pair<'_>, a: &Measure, b: &Measure, note: &str) -> [Value; 12] {
    let refused = if pair.several { Some("several cells at this point".to_owned()) } else { a.refuses(b) };
    if let Some(why) = refused {
        let verdict = format!("not comparable: {why}");
        let counts = [a.values.len().into(), b.values.len().into()];
        let missing = [const { Value::Missing }; 7];
        let values = std::iter::once(a.name.as_str().into()).chain(counts).chain(missing);
        let all: Vec<Value> = values.chain([verdict.into(), note.into()]).collect();
        return all.try_into().unwrap_or([const { Value::Missing }; 12]);
    }
    let [mean_a, mean_b] = [a, b].map(|of| mean(&of.values).unwrap_or(f64::NAN));
    let [sd_a, sd_b] = [a, b].map(Measure::sd);
    let difference = mean_b - mean_a;
    let ratio = mean_b / mean_a;
    let relative = sd_a.zip(sd_b).map(|(sd_a, sd_b)| (sd_a / mean_a).hypot(sd_b / mean_b));
    let spread = sd_a.zip(sd_b).map(|(a, b)| a.hypot(b));
    let ratio_sd = relative.filter(|relative| *relative > 0.0).map(|relative| ratio.abs() * relative);
    [
        a.name.as_str().into(),
        a.values.len().into(),
        b.values.len().into(),
        mean_a.into(),
        mean_b.into(),
        sd_a.filter(|_| a.values.len() > 1).into(),
        sd_b.filter(|_| b.values.len() > 1).into(),
        difference.into(),
        ratio.into(),
        ratio_sd.into(),
        verdict(a, b, difference, spread).into(),
        note.into(),
    ]
}

/// Which side is better, or why that can't be said.
fn verdict(a: &Measure, b: &Measure, difference: f64, spread: Option<f64>) -> &'static str {
    match (spread, a.better) {
        _ if a.values == b.values => "equal",
        _ if a.has_few_seeds() || b.has_few_seeds() => "fewer than 3 seeds",
        (None, _) => "timed once",
        (Some(_), _) if is_rounding(a, b, difference) => "equal but for rounding",
        (Some(spread), _) if difference.abs() <= spread => "inconclusive",
        (Some(_), Better::Neither) => "differs",
        (Some(_), Better::Less) => {
            if difference < 0.0 {
                "b"
            } else {
                "a"
            }
        }
        (Some(_), Better::More) => {
            if difference > 0.0 {
                "b"
            } else {
                "a"
            }
        }
    }
}

/// Differences of numbers that depend on nothing random, relative to the larger number or to 1: below it they come of the
/// order in which 32-bit numbers are added.
const ROUNDING: f64 = 1e-5;

/// Of counts and shares every digit is meant.
const ROUNDED: [MetricColumn; 6] = [
    MetricColumn::Top1Match,
    MetricColumn::Top5Overlap,
    MetricColumn::KlNats,
    MetricColumn::Perplexity,
    MetricColumn::BitsPerByte,
    MetricColumn::GateMaxAbs,
];

fn is_rounding(a: &Measure, b: &Measure, difference: f64) -> bool {
    if !ROUNDED.iter().any(|column| column.name() == a.name) {
        return false;
    }
    let largest = a.values.iter().chain(&b.values).fold(1.0, |largest: f64, value| largest.max(value.abs()));
    a.spread == Spread::None && b.spread == Spread::None && difference.abs() <= ROUNDING * largest
}

impl Measure {
    /// Whether it depends on the seed and was measured with so few that nothing can be said of chance.
    fn has_few_seeds(&self) -> bool {
        self.spread == Spread::Seeds && self.values.len() < LEAST_SEEDS
    }

    /// The standard deviation of the values; 0 of what depends on nothing random, nothing where it is unknown.
    fn sd(&self) -> Option<f64> {
        match self.spread {
            Spread::None => Some(0.0),
            Spread::Seeds | Spread::Repeats => sd(&self.values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(values: &[f64], spread: Spread, better: Better) -> Measure {
        Measure { name: "m".into(), values: values.to_vec(), spread, better, inputs: Default::default() }
    }

    fn told(a: &Measure, b: &Measure) -> (Value, Value, Value, Value) {
        let pair = Pair { key: Vec::new(), a: Vec::new(), b: Vec::new(), several: false };
        let [.., difference, ratio, ratio_sd, verdict, _] = row(&pair, a, b, "");
        (difference, ratio, ratio_sd, verdict)
    }

    #[test]
    fn ratios_have_the_spread_of_both_sides() {
        // Means 20 and 10, standard deviations 2 and 1: (2/20) hypot (1/10) of 0.5 is 0.0707.
        let (a, b) = ([18.0, 20.0, 22.0], [9.0, 10.0, 11.0]);
        let of = |values| measure(values, Spread::Seeds, Better::Less);
        let (difference, ratio, ratio_sd, verdict) = told(&of(&a), &of(&b));
        assert_eq!((difference, ratio, verdict), ((-10.0).into(), 0.5.into(), "b".into()));
        assert!((ratio_sd.number().unwrap() - 0.5 * 0.02f64.sqrt()).abs() < 1e-12);
        assert_eq!(told(&of(&b), &of(&a)).3, "a".into());
        assert_eq!(told(&of(&a), &of(&[19.0, 21.0, 23.0])).3, "inconclusive".into());
        let few = Value::from("fewer than 3 seeds");
        assert_eq!(told(&of(&[1.0]), &of(&[2.0])).3, few);
        assert_eq!(told(&of(&[1.0, 1.1]), &of(&[2.0, 2.1])).3, few);
        assert_eq!(told(&of(&a), &of(&[1.0, 1.1])).3, few);
        let fixed = measure(&[5.0], Spread::None, Better::Less);
        assert_eq!(told(&fixed, &of(&[1.0])).3, few);
        assert_eq!(told(&fixed, &of(&[1.0, 1.1, 1.2])).3, "b".into());
        assert_eq!(told(&of(&[1.0]), &of(&[1.0])).3, "equal".into());
    }

    #[test]
    fn what_is_random_in_nothing_has_no_spread() {
        let of = |value, better| measure(&[value], Spread::None, better);
        assert_eq!(told(&of(1.0, Better::More), &of(1.1, Better::More)).3, "b".into());
        assert_eq!(told(&of(1.0, Better::Neither), &of(1.1, Better::Neither)).3, "differs".into());
        let rounding = Value::from("equal but for rounding");
        let named = |name: &str, value| Measure { name: name.into(), ..of(value, Better::Less) };
        assert_eq!(told(&named("kl_nats", 0.031_25), &named("kl_nats", 0.031_248_5)).3, rounding);
        assert_eq!(told(&named("perplexity", 315.0), &named("perplexity", 315.001)).3, rounding);
        assert_eq!(told(&named("perplexity", 315.0), &named("perplexity", 315.01)).3, "a".into());
        assert_eq!(told(&named("size_mb", 0.031_25), &named("size_mb", 0.031_248_5)).3, "b".into());
        let (difference, ratio, ratio_sd, _) = told(&of(0.0, Better::Less), &of(0.0, Better::Less));
        assert_eq!((difference, ratio, ratio_sd), (0.0.into(), Value::Missing, Value::Missing));
    }
}
