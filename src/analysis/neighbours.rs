//! The features nearest to a reference, and the gradient from it.
//!
//! ```text
//!   reference r ── candidates, nearest first; equal ones by index
//!     rank   0     1     2     3                    rank 0 is the reference itself
//!            r     7     2    11
//! ```
//! A feature near in Hamming distance may only be as sparse as the reference: every row has what chance gives.

use super::pairs::{Metric, Pair};
use super::stats::mean;
use super::{Mask, draw};
use rayon::prelude::*;
use std::cmp::Ordering;

/// A row of table `neighbours`.
#[derive(Clone, Copy, Debug)]
pub struct NeighbourRow {
    /// The feature that distances are from.
    pub reference: usize,
    /// From 1 on; 0 is the reference.
    pub rank: usize,
    /// Which feature.
    pub feature: usize,
    /// Positions at which it differs from the reference.
    pub hamming_count: usize,
    /// Their share.
    pub hamming: f64,
    /// By chance.
    pub expected: f64,
    /// 1 - hamming / expected.
    pub kappa: f64,
    /// Common over kept by either.
    pub jaccard: f64,
    /// Of the feature.
    pub density: f64,
}

fn row(mask: &Mask, reference: usize, rank: usize, feature: usize) -> NeighbourRow {
    let pair = Pair::of(mask, reference, mask, feature);
    NeighbourRow {
        reference,
        rank,
        feature,
        hamming_count: pair.hamming_count(),
        hamming: pair.hamming(),
        expected: pair.hamming_chance(),
        kappa: pair.kappa(),
        jaccard: pair.jaccard(),
        density: mask.density(feature),
    }
}

/// All features but the reference; without dead and full ones where `skip_constant` says so.
pub fn candidates(mask: &Mask, reference: usize, skip_constant: bool) -> Vec<usize> {
    let allowed = |feature: &usize| *feature != reference && !(skip_constant && mask.is_constant(*feature));
    (0..mask.features()).filter(allowed).collect()
}

/// The candidates, nearest first, equal ones by index.
///
/// # Panics
/// When there is no such feature.
pub fn nearest_first(mask: &Mask, reference: usize, candidates: &[usize], metric: Metric) -> Vec<usize> {
    let pair = |&feature: &usize| (Pair::of(mask, reference, mask, feature), feature);
    let mut pairs: Vec<(Pair, usize)> = candidates.par_iter().map(pair).collect();
    let order = |(a, i): &(Pair, usize), (b, j): &(Pair, usize)| metric.nearer(a, b).then(i.cmp(j));
    pairs.par_sort_unstable_by(order);
    pairs.into_iter().map(|(_, feature)| feature).collect()
}

/// The `count` nearest candidates with their figures; all where there are no more.
pub fn neighbours(
    mask: &Mask,
    reference: usize,
    candidates: &[usize],
    metric: Metric,
    count: usize,
) -> Vec<NeighbourRow> {
    let order = nearest_first(mask, reference, candidates, metric);
    (1..).zip(order.into_iter().take(count)).map(|(rank, feature)| row(mask, reference, rank, feature)).collect()
}

/// The reference and its nearest, `total` features with the reference: what clustering and sampled groups look at.
pub fn neighbourhood(mask: &Mask, reference: usize, total: usize, skip_constant: bool) -> Vec<usize> {
    let order = nearest_first(mask, reference, &candidates(mask, reference, skip_constant), Metric::Hamming);
    std::iter::once(reference).chain(order.into_iter().take(total.saturating_sub(1))).collect()
}

/// References for repeats, ascending: features constant in none of the masks that are compared, drawn with a seed
/// that must not depend on which of the masks is looked at.
///
/// # Panics
/// When masks have different numbers of features.
pub fn references(masks: &[&Mask], count: usize, seed: u64) -> Vec<usize> {
    let features = masks.first().map_or(0, |mask| mask.features());
    assert!(masks.iter().all(|mask| mask.features() == features), "masks of different shapes are compared");
    let varying = |feature: &usize| masks.iter().all(|mask| !mask.is_constant(*feature));
    draw(&(0..features).filter(varying).collect::<Vec<_>>(), count, seed)
}

/// Features from near to far, and what table `gradient_summary` says of them.
#[derive(Clone, Debug)]
pub struct Gradient {
    /// The reference, then the candidates, nearest first.
    pub rows: Vec<NeighbourRow>,
    /// Candidates.
    pub n_candidates: usize,
    /// Positions at which the nearest differs; nothing where there is no candidate.
    pub hamming_min: Option<usize>,
    /// Positions at which the farthest differs.
    pub hamming_max: Option<usize>,
    /// In positions, over the candidates.
    pub hamming_mean: f64,
    /// Of the reference.
    pub reference_density: f64,
    /// The share of pruned positions of the reference and the candidates together.
    pub subset_sparsity: f64,
    /// Candidates that are as far as another before them.
    pub tied_neighbours: usize,
}

/// The gradient from a reference through the candidates. `metric` gives the order; distances are Hamming's.
pub fn gradient(mask: &Mask, reference: usize, candidates: &[usize], metric: Metric) -> Gradient {
    let mut rows = vec![row(mask, reference, 0, reference)];
    rows.extend(neighbours(mask, reference, candidates, metric, usize::MAX));
    let mut counts: Vec<usize> = rows[1..].iter().map(|row| row.hamming_count).collect();
    let hamming_mean = mean(&counts.iter().map(|&count| count as f64).collect::<Vec<_>>());
    counts.sort_unstable();
    let kept: usize = rows.iter().map(|row| mask.kept(row.feature)).sum();
    Gradient {
        n_candidates: counts.len(),
        hamming_min: counts.first().copied(),
        hamming_max: counts.last().copied(),
        hamming_mean,
        reference_density: mask.density(reference),
        subset_sparsity: 1.0 - kept as f64 / (rows.len() * mask.length()) as f64,
        tied_neighbours: counts.windows(2).filter(|pair| pair[0].cmp(&pair[1]) == Ordering::Equal).count(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feature f differs from feature 0 at its first `[0, 2, 2, 1, ...]` positions; 4 is dead, 5 is full.
    fn mask() -> Mask {
        Mask::from_fn(6, 8, |feature, at| match feature {
            4 => false,
            5 => true,
            _ => (at < 4) != (at < [0, 2, 2, 1][feature]),
        })
    }

    #[test]
    fn equal_distances_are_in_the_order_of_features() {
        let mask = mask();
        assert_eq!(nearest_first(&mask, 0, &[3, 2, 1], Metric::Hamming), [3, 1, 2]);
        assert_eq!(candidates(&mask, 0, true), [1, 2, 3]);
        assert_eq!(candidates(&mask, 4, true), [0, 1, 2, 3]);
        assert_eq!(nearest_first(&mask, 4, &candidates(&mask, 4, false), Metric::Kappa), [0, 1, 2, 3, 5]);
        assert_eq!(nearest_first(&mask, 4, &[5, 4, 0], Metric::Jaccard), [0, 5, 4], "the undefined is last");
        assert_eq!(neighbourhood(&mask, 0, 3, true), [0, 3, 1]);
        assert_eq!(neighbourhood(&mask, 0, 100, false).len(), 6);
    }

    #[test]
    fn a_gradient_starts_at_its_reference() {
        let mask = mask();
        let found = gradient(&mask, 0, &candidates(&mask, 0, false), Metric::Hamming);
        let order: Vec<_> = found.rows.iter().map(|row| (row.rank, row.feature, row.hamming_count)).collect();
        assert_eq!(order, [(0, 0, 0), (1, 3, 1), (2, 1, 2), (3, 2, 2), (4, 4, 4), (5, 5, 4)]);
        assert_eq!((found.hamming_min, found.hamming_max, found.hamming_mean), (Some(1), Some(4), 2.6));
        assert_eq!((found.tied_neighbours, found.n_candidates, found.reference_density), (2, 5, 0.5));
        assert_eq!(found.subset_sparsity, 1.0 - (4 + 2 + 2 + 3 + 8) as f64 / 48.0);
        assert!(found.rows[4].kappa == 0.0 && found.rows[0].kappa == 1.0);
        let alone = gradient(&mask, 0, &[], Metric::Hamming);
        assert!(alone.hamming_min.is_none() && alone.hamming_mean.is_nan() && alone.rows.len() == 1);
    }

    #[test]
    fn references_vary_in_every_mask() {
        let (a, b) = (mask(), Mask::from_fn(6, 8, |feature, at| feature != 1 && at == feature));
        let mut seen = references(&[&a, &b], 3, 5);
        assert_eq!(seen, references(&[&b, &a], 3, 5));
        seen.extend(references(&[&a, &b], 9, 0));
        assert!(seen.iter().all(|feature| [0, 2, 3].contains(feature)));
    }
}
