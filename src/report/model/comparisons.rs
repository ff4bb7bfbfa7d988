//! Two methods at one point: which is better, and whether the seeds allow to say so.
//!
//! Owns `comparisons.csv`. Seeds that both sides have are compared one by one, since they share what the seed draws; else
//! the spread is the root of the sum of both variances. A difference counts when it is larger than the spread and its
//! p is below 0.05, of three seeds at least; what depends on no seed has no spread.

use super::Cells;
use super::plots::runs;
use super::series_names::{Names, Seeds, Target, points, targets};
use crate::column::Column;
use crate::config::experiment::MetricColumn;
use crate::plan::Cell;
use crate::record::CellResult;
use crate::report::stats::{Contrast, Sample, Test};
use crate::report::table::{Table, Value};

/// The columns that are compared, and whether more of them is better.
const METRICS: [(MetricColumn, bool); 3] =
    [(MetricColumn::Perplexity, false), (MetricColumn::Top1Match, true), (MetricColumn::KlNats, false)];

/// Two methods at a point.
pub(super) struct Compared {
    /// A cell of the first.
    cell: Cell,
    target: Target,
    metric: MetricColumn,
    names: [String; 2],
    samples: [Sample; 2],
    contrast: Contrast,
    verdict: String,
}

/// The columns.
pub(super) const COLUMNS: &[Column<Compared>] = &[
    Column { name: "setup", help: "the setup of both", get: |c| c.cell.setup().into() },
    Column { name: "model", help: "the model of both", get: |c| c.cell.model.clone().into() },
    Column { name: "pattern", help: "the pattern of both", get: |c| c.target.pattern.to_string().into() },
    Column { name: "sparsity_target", help: "the sparsity asked for of both", get: |c| c.target.sparsity.into() },
    Column { name: "variant", help: "the form in which both ran", get: |c| c.cell.variant.name().into() },
    Column { name: "backend", help: "what both ran on", get: |c| c.cell.backend.name().into() },
    Column { name: "dtype", help: "the number format of both", get: |c| c.cell.dtype.name().into() },
    Column { name: "metric", help: "what is compared", get: |c| c.metric.into() },
    Column { name: "a", help: "the first method, with what tells it from others", get: |c| c.names[0].clone().into() },
    Column { name: "b", help: "the second method", get: |c| c.names[1].clone().into() },
    Column { name: "seeds_a", help: "seeds of the first", get: |c| (c.samples[0].seeds() as u64).into() },
    Column { name: "seeds_b", help: "seeds of the second", get: |c| (c.samples[1].seeds() as u64).into() },
    Column { name: "mean_a", help: "the mean over seeds of the first", get: |c| c.samples[0].mean().into() },
    Column { name: "mean_b", help: "likewise of the second", get: |c| c.samples[1].mean().into() },
    Column {
        name: "sd_a",
        help: "the standard deviation over seeds of the first; 0 where it depends on none",
        get: |c| c.samples[0].sd().into(),
    },
    Column { name: "sd_b", help: "likewise of the second", get: |c| c.samples[1].sd().into() },
    Column {
        name: "difference",
        help: "mean of the first less mean of the second; at the shared seeds, where they are paired",
        get: |c| c.contrast.difference.into(),
    },
    Column {
        name: "spread",
        help: "of the differences, where they are paired; else the root of the sum of both variances",
        get: |c| c.contrast.spread.into(),
    },
    Column { name: "verdict", help: "the better method, or why that can't be said", get: |c| c.verdict.clone().into() },
    Column { name: "test", help: "`exact`, `paired` or `welch`", get: |c| c.contrast.test.name().into() },
    Column {
        name: "p",
        help: "the probability of such a difference by chance, two-sided",
        get: |c| c.contrast.p.into(),
    },
];
/// The place of the verdict.
const VERDICT: usize = 18;

/// The difference is no larger than the spread, or its p is not small.
const INCONCLUSIVE: &str = "inconclusive";
/// A side depends on the seed and has too few.
const FEW_SEEDS: &str = "fewer than 3 seeds";
/// Two deterministic sides agree.
const EQUAL: &str = "equal";

/// Every pair of methods at every point, where there are any.
pub(super) fn table(cells: &Cells) -> Option<Table> {
    let mut table = Table::new("comparisons", COLUMNS.iter().map(|column| column.name));
    for records in runs(&cells.records) {
        let points = points(&records, &Names::among(records.iter().map(|record| &record.cell)));
        for target in targets(&points) {
            let here: Vec<&Seeds<'_>> = points.iter().filter(|point| point.target == target).collect();
            for (index, a) in here.iter().enumerate() {
                for b in &here[index + 1..] {
                    table.rows.extend(METRICS.iter().filter_map(|metric| row(a, b, *metric)));
                }
            }
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// How many comparisons have a verdict.
fn count(table: &Table, verdict: &str) -> usize {
    table.rows.iter().filter(|row| row[VERDICT] == verdict.into()).count()
}

/// What a reader should not miss of them.
pub(super) fn findings(table: &Table) -> Vec<String> {
    let comparisons = table.rows.len();
    let (inconclusive, few) = (count(table, INCONCLUSIVE), count(table, FEW_SEEDS));
    let inconclusive = (inconclusive > 0).then(|| {
        format!(
            "{inconclusive} of {comparisons} comparisons of methods are inconclusive, the difference within the spread \
             over seeds or p at least 0.05: see tables/comparisons.csv"
        )
    });
    let few = (few > 0).then(|| {
        format!(
            "{few} of {comparisons} comparisons of methods have fewer than 3 seeds, which say nothing of chance: write \
             `seed = [0, 1, 2]`"
        )
    });
    inconclusive.into_iter().chain(few).collect()
}

/// A number of a point, over its seeds.
fn sample(point: &Seeds<'_>, column: MetricColumn) -> Sample {
    let value = |record: &&CellResult| Some((record.cell.seed, record.column(column).number()?));
    Sample { values: point.cells.iter().filter_map(value).collect() }
}

fn row(a: &Seeds<'_>, b: &Seeds<'_>, (column, more_is_better): (MetricColumn, bool)) -> Option<Vec<Value>> {
    let (left, right) = (sample(a, column), sample(b, column));
    let contrast = Contrast::of(&left, &right)?;
    let better = if (contrast.difference > 0.0) == more_is_better { &a.name } else { &b.name };
    let verdict = match contrast.test {
        _ if contrast.decided() => better,
        Test::Exact => EQUAL,
        Test::Paired | Test::Welch if contrast.too_few => FEW_SEEDS,
        Test::Paired | Test::Welch if contrast.difference == 0.0 && contrast.spread == Some(0.0) => EQUAL,
        Test::Paired | Test::Welch => INCONCLUSIVE,
    };
    let compared = Compared {
        cell: a.cells[0].cell.clone(),
        target: a.target,
        metric: column,
        names: [a.name.clone(), b.name.clone()],
        verdict: verdict.to_owned(),
        samples: [left, right],
        contrast,
    };
    Some(COLUMNS.iter().map(|column| (column.get)(&compared)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Format, Method, Variant};
    use crate::report::model::tests::{cell, record};

    /// Verdicts on the perplexities of magnitude, which depends on no seed, and random with these.
    fn verdicts(magnitude: f64, random: &[f64]) -> Vec<(f64, Option<f64>, String)> {
        let masked = |method, seed| cell("m", method, 0.5, Variant::Masked, seed);
        let mut records = vec![record(masked(Method::Magnitude, None), magnitude, &[])];
        for (seed, perplexity) in random.iter().enumerate() {
            records.push(record(masked(Method::Random, Some(seed as u64)), *perplexity, &[]));
        }
        // Another sparsity and another variant are no comparison.
        records.push(record(cell("m", Method::Random, 0.7, Variant::Masked, Some(0)), 1.0, &[]));
        records.push(record(cell("m", Method::Random, 0.5, Variant::Sparse(Format::Csr), Some(0)), 1.0, &[]));
        let cells = Cells { records, ..Default::default() };
        let Some(table) = table(&cells) else { return Vec::new() };
        let column = |name: &str| table.columns.iter().position(|column| column == name).unwrap();
        let of = |row: &Vec<Value>| {
            let Value::Text(verdict) = &row[column("verdict")] else { panic!("a word") };
            (row[column("difference")].number().unwrap(), row[column("spread")].number(), verdict.clone())
        };
        table.rows.iter().map(of).collect()
    }

    #[test]
    fn a_difference_counts_beyond_the_spread_and_chance() {
        // Mean 20, standard deviation 2; scipy.stats.ttest_1samp gives p = 0.0131, 0.1217 and 0.2254.
        assert_eq!(verdicts(10.0, &[18.0, 20.0, 22.0]), [(-10.0, Some(2.0), "magnitude".into())]);
        assert_eq!(verdicts(30.0, &[18.0, 20.0, 22.0]), [(10.0, Some(2.0), "random".into())]);
        assert_eq!(verdicts(17.0, &[18.0, 20.0, 22.0]), [(-3.0, Some(2.0), INCONCLUSIVE.into())]);
        assert_eq!(verdicts(18.0, &[18.0, 20.0, 22.0]), [(-2.0, Some(2.0), INCONCLUSIVE.into())]);
        assert_eq!(verdicts(20.0, &[20.0, 20.0, 20.0]), [(0.0, Some(0.0), EQUAL.into())]);
    }

    #[test]
    fn few_seeds_say_nothing_of_chance() {
        assert_eq!(verdicts(17.0, &[18.0]), [(-1.0, None, FEW_SEEDS.into())]);
        assert_eq!(verdicts(17.0, &[30.0, 30.1]).first().map(|(.., verdict)| verdict.clone()), Some(FEW_SEEDS.into()));
        assert!(verdicts(17.0, &[]).is_empty());
    }

    #[test]
    fn seeds_that_both_sides_have_are_compared_one_by_one() {
        let masked = |method, seed| cell("m", method, 0.5, Variant::Masked, Some(seed));
        let mut records = Vec::new();
        // The seeds differ by 10, the methods by 1 at every seed.
        for (seed, perplexity) in [20.0, 30.0, 40.0].into_iter().enumerate() {
            records.push(record(masked(Method::Wanda, seed as u64), perplexity, &[]));
            records.push(record(masked(Method::Random, seed as u64), perplexity + 1.0 + 0.01 * seed as f64, &[]));
        }
        let table = table(&Cells { records, ..Default::default() }).unwrap();
        let verdict = &table.rows[0][VERDICT..];
        assert_eq!(verdict[..2], ["wanda".into(), "paired".into()]);
        assert!(verdict[2].number().unwrap() < 1e-3, "{verdict:?}");
    }

    #[test]
    fn what_is_not_decided_is_counted() {
        let mut table = Table::new("comparisons", COLUMNS.iter().map(|column| column.name));
        for word in [INCONCLUSIVE, "magnitude", FEW_SEEDS] {
            let mut row = vec![Value::Missing; COLUMNS.len()];
            row[VERDICT] = word.into();
            table.rows.push(row);
        }
        let said = findings(&table);
        assert!(said[0].starts_with("1 of 3 comparisons") && said[1].contains("fewer than 3 seeds"), "{said:?}");
    }
}
