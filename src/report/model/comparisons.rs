//! Two methods at one point: which is better, and whether the seeds allow to say so.
//!
//! Owns `comparisons.csv`. A difference of means counts when it is larger than the spread, the root of the sum of
//! both variances over seeds. What depends on no seed has no spread; what depends on one and ran with one only has
//! an unknown one.

use super::Cells;
use super::plots::runs;
use super::series_names::{Names, Seeds, points, targets};
use crate::config::experiment::MetricColumn;
use crate::report::stats::{mean, sd};
use crate::report::table::{Table, Value};

/// The columns that are compared, and whether more of them is better.
const METRICS: [(MetricColumn, bool); 3] =
    [(MetricColumn::Perplexity, false), (MetricColumn::Top1Match, true), (MetricColumn::KlNats, false)];

const COLUMNS: [&str; 19] = [
    "setup",
    "model",
    "pattern",
    "sparsity_target",
    "variant",
    "backend",
    "dtype",
    "metric",
    "a",
    "b",
    "seeds_a",
    "seeds_b",
    "mean_a",
    "mean_b",
    "sd_a",
    "sd_b",
    "difference",
    "spread",
    "verdict",
];

/// The difference is no larger than the spread.
const INCONCLUSIVE: &str = "inconclusive";
/// A side depends on the seed and has one only.
const SINGLE_SEED: &str = "single seed";
/// Two deterministic sides agree.
const EQUAL: &str = "equal";

/// Every pair of methods at every point, where there are any.
pub(super) fn table(cells: &Cells) -> Option<Table> {
    let mut table = Table::new("comparisons", COLUMNS);
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

/// How many comparisons there are, and how many of them are inconclusive.
fn counts(table: &Table) -> (usize, usize) {
    let inconclusive = table.rows.iter().filter(|row| row.last() == Some(&INCONCLUSIVE.into()));
    (table.rows.len(), inconclusive.count())
}

/// What a reader should not miss of them.
pub(super) fn finding(table: &Table) -> Option<String> {
    let (comparisons, inconclusive) = counts(table);
    (inconclusive > 0).then(|| {
        format!(
            "{inconclusive} of {comparisons} comparisons of methods are inconclusive, the difference no larger than \
             the spread over seeds: see tables/comparisons.csv"
        )
    })
}

/// A number of a point, over its seeds.
struct Side {
    mean: f64,
    /// 0 for what depends on no seed, nothing for one seed of what does.
    sd: Option<f64>,
    seeds: usize,
}

impl Side {
    fn of(point: &Seeds<'_>, column: MetricColumn) -> Option<Self> {
        let values: Vec<f64> = point.cells.iter().filter_map(|record| record.column(column).number()).collect();
        let seeded = point.cells.iter().any(|record| record.cell.seed.is_some());
        let sd = if seeded { sd(&values) } else { Some(0.0) };
        Some(Self { mean: mean(&values)?, sd, seeds: values.len() })
    }
}

fn row(a: &Seeds<'_>, b: &Seeds<'_>, (column, more_is_better): (MetricColumn, bool)) -> Option<Vec<Value>> {
    let (left, right) = (Side::of(a, column)?, Side::of(b, column)?);
    let difference = left.mean - right.mean;
    let spread = left.sd.zip(right.sd).map(|(a, b)| a.hypot(b));
    let better = if (difference > 0.0) == more_is_better { &a.name } else { &b.name };
    let verdict = match spread {
        None => SINGLE_SEED,
        Some(0.0) if difference == 0.0 => EQUAL,
        Some(spread) if difference.abs() <= spread => INCONCLUSIVE,
        Some(_) => better,
    };
    let cell = &a.cells[0].cell;
    Some(vec![
        cell.setup().into(),
        cell.model.clone().into(),
        a.target.pattern.to_string().into(),
        a.target.sparsity.into(),
        cell.variant.name().into(),
        cell.backend.name().into(),
        cell.dtype.name().into(),
        column.into(),
        a.name.clone().into(),
        b.name.clone().into(),
        (left.seeds as u64).into(),
        (right.seeds as u64).into(),
        left.mean.into(),
        right.mean.into(),
        left.sd.into(),
        right.sd.into(),
        difference.into(),
        spread.into(),
        verdict.into(),
    ])
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
    fn a_difference_counts_beyond_the_spread() {
        // Mean 20, standard deviation 2.
        assert_eq!(verdicts(17.0, &[18.0, 20.0, 22.0]), [(-3.0, Some(2.0), "magnitude".into())]);
        assert_eq!(verdicts(25.0, &[18.0, 20.0, 22.0]), [(5.0, Some(2.0), "random".into())]);
        assert_eq!(verdicts(18.0, &[18.0, 20.0, 22.0]), [(-2.0, Some(2.0), INCONCLUSIVE.into())]);
        assert_eq!(verdicts(20.0, &[20.0, 20.0]), [(0.0, Some(0.0), EQUAL.into())]);
    }

    #[test]
    fn one_seed_says_nothing_of_the_spread() {
        assert_eq!(verdicts(17.0, &[18.0]), [(-1.0, None, SINGLE_SEED.into())]);
        assert!(verdicts(17.0, &[]).is_empty());
    }

    #[test]
    fn inconclusive_rows_are_counted() {
        let mut table = Table::new("comparisons", ["verdict"]);
        table.rows = [INCONCLUSIVE, "magnitude", INCONCLUSIVE].map(|word| vec![word.into()]).to_vec();
        assert_eq!(counts(&table), (3, 2));
    }
}
