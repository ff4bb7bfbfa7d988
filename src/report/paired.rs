//! Two cells on the same items: how often only one of them is right, and whether that can be chance.
//!
//! ```text
//!   items       1 2 3 4 5 6        both    1, 5                  only_a, only_b = b, c
//!   a right     1 1 0 0 1 0        only a  2                     p: two-sided binomial test of min(b, c) of b + c at 1/2
//!   b right     1 0 1 0 1 0        only b  3                     difference (c - b) / n, its error √(b + c - (b - c)²/n) / n
//! ```
//! McNemar, Psychometrika 12 (1947), in its exact form; p-values of a pair and metric are corrected over tasks by Holm,
//! Scandinavian Journal of Statistics 6 (1979). Two standard errors side by side would ignore that the items are the
//! same. Knows items and no tables.

use crate::config::tasks::TaskMetric;
use crate::record::TaskNumbers;

/// What is said where chance can't be ruled out.
pub const ALIKE: &str = "not distinguishable";
/// Where chance counts as ruled out.
pub const LEVEL: f64 = 0.05;
/// Flips whose binomial coefficients fit a number.
const MOST_EXACT: u64 = 1000;

/// How two cells do on the same items.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pair {
    /// Items that both have right.
    pub both: u64,
    /// Items that only a has right.
    pub only_a: u64,
    /// Items that only b has right.
    pub only_b: u64,
    /// Items that none has right.
    pub neither: u64,
}

impl Pair {
    /// Of two tasks' items, by rows; nothing where they are not the same items.
    pub fn of(a: &TaskNumbers, b: &TaskNumbers, metric: TaskMetric) -> Option<Self> {
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

    /// With the items of another task.
    pub fn add(&mut self, other: Self) {
        self.both += other.both;
        self.only_a += other.only_a;
        self.only_b += other.only_b;
        self.neither += other.neither;
    }

    /// Items in all.
    pub fn items(&self) -> u64 {
        self.both + self.only_a + self.only_b + self.neither
    }

    /// How much more often b is right.
    pub fn difference(&self) -> f64 {
        (self.only_b as f64 - self.only_a as f64) / self.items() as f64
    }

    /// The standard error of the difference.
    pub fn error(&self) -> f64 {
        let (a, b, n) = (self.only_a as f64, self.only_b as f64, self.items() as f64);
        (a + b - (a - b) * (a - b) / n).max(0.0).sqrt() / n
    }

    /// The probability, if both are equally good, that the flips are as uneven as this or more.
    pub fn p(&self) -> f64 {
        let (flips, fewer) = (self.only_a + self.only_b, self.only_a.min(self.only_b));
        if self.only_a == self.only_b {
            return 1.0;
        }
        if flips <= MOST_EXACT {
            // Binomial coefficients of so few fit a number, and halving is exact.
            let (mut ways, mut sum) = (1.0_f64, 1.0_f64);
            for k in 1..=fewer {
                ways = ways * (flips - k + 1) as f64 / k as f64;
                sum += ways;
            }
            return (sum * 2.0_f64.powi(1 - flips as i32)).min(1.0);
        }
        // Of more, each term by its logarithm.
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
pub fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&a, &b| ps[a].total_cmp(&ps[b]));
    let (mut corrected, mut last) = (vec![1.0; ps.len()], 0.0_f64);
    for (rank, index) in order.into_iter().enumerate() {
        last = last.max(ps[index] * (ps.len() - rank) as f64).min(1.0);
        corrected[index] = last;
    }
    corrected
}

#[cfg(test)]
mod tests {
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
            (9, 9, 1.0),
            (2, 3, 1.0),
            (0, 3, 0.25),
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
}
