//! Two features: how far apart they are, and how far apart they would be by chance.
//!
//! ```text
//!   a  1 1 0 1 0     kept_a 3     common  2     hamming  h = 3 + 3 - 2 * 2 = 2
//!   b  1 0 1 1 0     kept_b 3     length  5     jaccard  2 / (3 + 3 - 2)
//! ```
//! Everything follows from four whole numbers, so equal values compare equal. Expectations hold the two densities and
//! nothing else: dead rows and bands of heads still look like structure.

use super::Mask;
use super::popcount::{common, tile};
use super::stats::ratio;
use rayon::prelude::*;
use std::cmp::Ordering;

/// What two features of one length keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Positions that the first keeps.
    pub kept_a: usize,
    /// Positions that the second keeps.
    pub kept_b: usize,
    /// Positions that both keep.
    pub common: usize,
    /// Positions.
    pub length: usize,
}

impl Pair {
    /// Of a feature of one mask and a feature of another, or of the same.
    ///
    /// # Panics
    /// When features have different lengths.
    pub fn of(a: &Mask, i: usize, b: &Mask, j: usize) -> Self {
        assert_eq!(a.length(), b.length(), "features have different lengths");
        let common = common(a.row(i), b.row(j)) as usize;
        Self { kept_a: a.kept(i), kept_b: b.kept(j), common, length: a.length() }
    }

    /// Positions at which they differ.
    pub fn hamming_count(&self) -> usize {
        self.kept_a + self.kept_b - 2 * self.common
    }

    fn union(&self) -> usize {
        self.kept_a + self.kept_b - self.common
    }

    /// The expected number of differing positions, times the length.
    fn chance(&self) -> u64 {
        chance(self.kept_a as u64, self.kept_b as u64, self.length as u64)
    }

    /// The share of positions at which they differ.
    pub fn hamming(&self) -> f64 {
        self.hamming_count() as f64 / self.length as f64
    }

    /// What [`Pair::hamming`] is by chance: a + b - 2 a b for densities a and b.
    pub fn hamming_chance(&self) -> f64 {
        self.chance() as f64 / (self.length as f64 * self.length as f64)
    }

    /// Common over kept by either; undefined where both are dead.
    pub fn jaccard(&self) -> f64 {
        ratio(self.common as f64, self.union() as f64)
    }

    /// What [`Pair::jaccard`] is by chance, as a ratio of expectations: a b / (a + b - a b).
    pub fn jaccard_chance(&self) -> f64 {
        let (a, b, length) = (self.kept_a as u64, self.kept_b as u64, self.length as u64);
        ratio((a * b) as f64, (a * length + b * length - a * b) as f64)
    }

    /// Cohen's kappa: 1 - hamming / chance. 0 by chance, 1 for equal features; undefined where chance is 0, that is
    /// both dead or both full.
    pub fn kappa(&self) -> f64 {
        1.0 - ratio((self.hamming_count() * self.length) as f64, self.chance() as f64)
    }

    /// The cosine of the two as vectors of 0 and 1; undefined where one is dead.
    pub fn mask_cosine(&self) -> f64 {
        ratio(self.common as f64, ((self.kept_a * self.kept_b) as f64).sqrt())
    }
}

/// The expected number of differing positions of features that keep `a` and `b` of `length`, times the length.
pub(super) fn chance(a: u64, b: u64, length: u64) -> u64 {
    a * (length - b) + b * (length - a)
}

/// What nearness is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The nearest has the smallest distance.
    Hamming,
    /// The nearest has the largest index.
    Jaccard,
    /// The nearest has the largest kappa.
    Kappa,
}

impl Metric {
    /// Which of two pairs is nearer; an undefined one is farther than any. Exact: fractions are compared, not floats.
    pub fn nearer(self, a: &Pair, b: &Pair) -> Ordering {
        // A distance is a fraction; undefined ones have no denominator.
        let fraction = |pair: &Pair| match self {
            Self::Hamming => (pair.hamming_count() as u64, 1),
            // 1 - jaccard, which grows with distance.
            Self::Jaccard => (pair.hamming_count() as u64, pair.union() as u64),
            Self::Kappa => (pair.hamming_count() as u64, pair.chance()),
        };
        let ((a, below_a), (b, below_b)) = (fraction(a), fraction(b));
        match (below_a == 0, below_b == 0) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => (u128::from(a) * u128::from(below_b)).cmp(&(u128::from(b) * u128::from(below_a))),
        }
    }
}

/// Features of a side of a tile; two sides of 4096 bits are 64 KiB.
const SIDE: usize = 64;

/// Visits all pairs of features, i < j, in tiles: `visit(state, i, j, hamming_count)`, with a state of its own for each
/// row of tiles. The states come back in the order of rows. Nothing quadratic is kept.
pub(super) fn for_all_pairs<T: Send>(
    mask: &Mask,
    start: impl Fn() -> T + Sync,
    visit: impl Fn(&mut T, usize, usize, u32) + Sync,
) -> Vec<T> {
    let rows = mask.rows();
    let band = |band: usize| {
        let mut state = start();
        for_pairs_of_band(mask, &rows, band * SIDE, |i, j, count| visit(&mut state, i, j, count));
        state
    };
    (0..rows.len().div_ceil(SIDE)).into_par_iter().map(band).collect()
}

/// The pairs whose i is one of [`SIDE`] features from `first` on.
fn for_pairs_of_band(mask: &Mask, rows: &[&[u64]], first: usize, mut visit: impl FnMut(usize, usize, u32)) {
    let these = &rows[first..rows.len().min(first + SIDE)];
    let mut counts = vec![0; SIDE * SIDE];
    for (block, those) in rows[first..].chunks(SIDE).enumerate() {
        let counts = &mut counts[..these.len() * those.len()];
        tile(these, those, counts);
        for (i, counts) in (first..).zip(counts.chunks(those.len())) {
            for (j, &common) in (first + block * SIDE..).zip(counts) {
                if j > i {
                    visit(i, j, (mask.kept(i) + mask.kept(j)) as u32 - 2 * common);
                }
            }
        }
    }
}

/// How many pairs of features, i < j, differ at 0, 1, ... `length` positions.
///
/// ```
/// # use sparsify_exp::analysis::{Mask, distance_histogram};
/// let mask = Mask::from_fn(3, 2, |feature, at| feature == 2 && at == 0);
/// assert_eq!(distance_histogram(&mask), [1, 2, 0]);
/// ```
pub fn distance_histogram(mask: &Mask) -> Vec<u64> {
    let zeros = || vec![0u64; mask.length() + 1];
    let bands = for_all_pairs(mask, zeros, |histogram, _, _, count| histogram[count as usize] += 1);
    let mut sum = zeros();
    for band in bands {
        sum.iter_mut().zip(band).for_each(|(sum, count)| *sum += count);
    }
    sum
}

/// The distances of all pairs i < j in counts, (0, 1), (0, 2), ... (1, 2), ...: F (F - 1) / 2 numbers. What a hierarchy
/// needs; [`distance_histogram`] and the other figures do without.
pub fn distances(mask: &Mask) -> Vec<u32> {
    let rows = mask.rows();
    let features = rows.len();
    let mut all = vec![0; features * features.saturating_sub(1) / 2];
    // The pairs of a band of rows are a stretch of the list.
    let mut bands = Vec::new();
    let mut rest = &mut all[..];
    for first in (0..features).step_by(SIDE) {
        let here: usize = (first..features.min(first + SIDE)).map(|i| features - i - 1).sum();
        let (band, behind) = rest.split_at_mut(here);
        bands.push((first, band));
        rest = behind;
    }
    bands.into_par_iter().for_each(|(first, band)| {
        let start = condensed(features, first, first + 1);
        for_pairs_of_band(mask, &rows, first, |i, j, count| band[condensed(features, i, j) - start] = count);
    });
    all
}

/// Where the pair i < j of `features` is in a list of pairs.
pub(super) fn condensed(features: usize, i: usize, j: usize) -> usize {
    i * (2 * features - i - 1) / 2 + j - i - 1
}

/// The distances from one feature to every feature, in counts.
pub(super) fn distances_from(mask: &Mask, from: usize) -> Vec<u32> {
    let own = [mask.row(from)];
    let rows = mask.rows();
    let mut counts = vec![0; rows.len()];
    counts.par_chunks_mut(SIDE * 4).zip(rows.par_chunks(SIDE * 4)).for_each(|(counts, rows)| tile(rows, &own, counts));
    for (feature, count) in counts.iter_mut().enumerate() {
        *count = (mask.kept(from) + mask.kept(feature)) as u32 - 2 * *count;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::super::Axis;
    use super::*;
    use crate::sparse::Pattern;

    fn mask(features: usize, length: usize, seed: u64) -> Mask {
        Mask::of(&Pattern::random(features, length, 0.5, seed), Axis::Out)
    }

    #[test]
    fn equal_features_complements_and_dead_ones() {
        let all = Mask::from_fn(4, 10, |feature, at| [at < 5, at >= 5, false, true][feature]);
        let pair = |i, j| Pair::of(&all, i, &all, j);
        let equal = pair(0, 0);
        assert_eq!((equal.hamming(), equal.jaccard(), equal.kappa(), equal.mask_cosine()), (0.0, 1.0, 1.0, 1.0));
        let opposite = pair(0, 1);
        assert_eq!((opposite.hamming(), opposite.jaccard(), opposite.kappa()), (1.0, 0.0, -1.0));
        assert_eq!((opposite.hamming_chance(), opposite.jaccard_chance()), (0.5, 1.0 / 3.0));
        let dead = pair(2, 2);
        assert!(dead.jaccard().is_nan() && dead.kappa().is_nan() && dead.jaccard_chance().is_nan());
        assert!(dead.mask_cosine().is_nan() && dead.hamming() == 0.0 && pair(3, 3).kappa().is_nan());
        assert_eq!((pair(2, 3).kappa(), pair(2, 3).hamming_chance()), (0.0, 1.0));
    }

    #[test]
    fn nearness_compares_fractions_and_puts_the_undefined_last() {
        let pair = |kept_a, kept_b, common| Pair { kept_a, kept_b, common, length: 100 };
        let (near, far, none) = (pair(10, 10, 9), pair(50, 50, 45), pair(0, 0, 0));
        assert_eq!(Metric::Hamming.nearer(&near, &far), Ordering::Less);
        assert_eq!(Metric::Hamming.nearer(&none, &near), Ordering::Less);
        assert_eq!(Metric::Jaccard.nearer(&near, &far), Ordering::Equal); // 9/11 and 45/55
        assert_eq!(Metric::Jaccard.nearer(&none, &far), Ordering::Greater);
        assert_eq!(Metric::Kappa.nearer(&near, &far), near.kappa().total_cmp(&far.kappa()).reverse());
        assert_eq!(Metric::Kappa.nearer(&none, &none), Ordering::Equal);
    }

    #[test]
    fn all_pairs_are_seen_once_whatever_the_tiles() {
        for features in [1, 2, 63, 64, 65, 130] {
            let mask = mask(features, 77, features as u64);
            let all = distances(&mask);
            let mut histogram = vec![0; 78];
            for i in 0..features {
                let from = distances_from(&mask, i);
                for (j, &count) in from.iter().enumerate() {
                    assert_eq!(count as usize, Pair::of(&mask, i, &mask, j).hamming_count());
                    if j > i {
                        assert_eq!(all[condensed(features, i, j)], count);
                        histogram[count as usize] += 1;
                    }
                }
            }
            assert_eq!(distance_histogram(&mask), histogram);
        }
    }
}
