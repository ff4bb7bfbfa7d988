//! How alike two masks of one shape are, feature by feature, each figure beside what chance gives.
//!
//! ```text
//!   feature f of a  1 1 0 1 0   ┐
//!   feature f of b  1 0 1 1 0   ┘ one row: jaccard, hamming, kappa, cosine, and jaccard and hamming by chance
//! ```
//! Chance holds each feature's two densities. It is 0 for kappa, and not known for the cosine of weights.

use super::stats::{mean, quantile, ratio, sd};
use super::{Axis, Mask, Pair};
use rayon::prelude::*;

/// A row of table `mask_similarity`.
#[derive(Clone, Copy, Debug)]
pub struct SimilarityRow {
    /// Which feature.
    pub feature: usize,
    /// Of the first source.
    pub density_a: f64,
    /// Of the second source.
    pub density_b: f64,
    /// Common over kept by either.
    pub jaccard: f64,
    /// By chance.
    pub jaccard_chance: f64,
    /// Positions at which they differ.
    pub hamming_count: usize,
    /// Their share.
    pub hamming: f64,
    /// By chance.
    pub hamming_chance: f64,
    /// 1 - hamming / hamming_chance.
    pub kappa: f64,
    /// Of the weights; undefined where a norm is 0 or weights are not given.
    pub cosine: f64,
    /// Of the masks as 0 and 1.
    pub mask_cosine: f64,
}

/// Two matrices `[out, in]` of weights, row-major, and what their features are.
#[derive(Clone, Copy, Debug)]
pub struct WeightPair<'a> {
    /// Of the first source.
    pub a: &'a [f32],
    /// Of the second source.
    pub b: &'a [f32],
    /// The axis of the masks that stand beside them.
    pub axis: Axis,
}

/// Compares every feature of one mask with the same of another.
///
/// # Panics
/// When shapes differ.
pub fn similarity(a: &Mask, b: &Mask, weights: Option<WeightPair>) -> Vec<SimilarityRow> {
    assert!(a.features() == b.features() && a.length() == b.length(), "masks of different shapes are compared");
    let cosines = weights.map_or_else(|| vec![f64::NAN; a.features()], |weights| cosines(a, weights));
    let row = |(feature, cosine): (usize, f64)| {
        let pair = Pair::of(a, feature, b, feature);
        SimilarityRow {
            feature,
            density_a: a.density(feature),
            density_b: b.density(feature),
            jaccard: pair.jaccard(),
            jaccard_chance: pair.jaccard_chance(),
            hamming_count: pair.hamming_count(),
            hamming: pair.hamming(),
            hamming_chance: pair.hamming_chance(),
            kappa: pair.kappa(),
            cosine,
            mask_cosine: pair.mask_cosine(),
        }
    };
    cosines.into_par_iter().enumerate().map(row).collect()
}

fn cosines(mask: &Mask, WeightPair { a, b, axis }: WeightPair) -> Vec<f64> {
    let (features, length) = (mask.features(), mask.length());
    assert!(a.len() == features * length && b.len() == a.len(), "weights have another shape than their masks");
    let mut sums = vec![[0.0; 3]; features];
    let columns = match axis {
        Axis::In => features,
        Axis::Out => length,
    };
    for (row, (a, b)) in a.chunks(columns).zip(b.chunks(columns)).enumerate() {
        for (col, (&a, &b)) in a.iter().zip(b).enumerate() {
            let sums = match axis {
                Axis::In => &mut sums[col],
                Axis::Out => &mut sums[row],
            };
            let (a, b) = (f64::from(a), f64::from(b));
            sums[0] += a * b;
            sums[1] += a * a;
            sums[2] += b * b;
        }
    }
    sums.iter().map(|[both, a, b]| ratio(*both, a.sqrt() * b.sqrt())).collect()
}

/// Which figure a summary is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SimilarityMetric {
    Jaccard,
    Cosine,
    Hamming,
    Kappa,
}

impl SimilarityMetric {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 4] = [Self::Jaccard, Self::Cosine, Self::Hamming, Self::Kappa];

    /// The name that tables show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jaccard => "jaccard",
            Self::Cosine => "cosine",
            Self::Hamming => "hamming",
            Self::Kappa => "kappa",
        }
    }

    /// The figure of a feature, and what it is by chance.
    fn of(self, row: &SimilarityRow) -> (f64, f64) {
        match self {
            Self::Jaccard => (row.jaccard, row.jaccard_chance),
            Self::Cosine => (row.cosine, f64::NAN),
            Self::Hamming => (row.hamming, row.hamming_chance),
            Self::Kappa => (row.kappa, 0.0),
        }
    }
}

/// A row of table `mask_similarity_summary`.
#[derive(Clone, Copy, Debug)]
pub struct SimilaritySummary {
    /// Which figure.
    pub metric: SimilarityMetric,
    /// Features.
    pub n_features: usize,
    /// Features whose figure is undefined; nothing below looks at them.
    pub n_undefined: usize,
    /// Over features.
    pub mean: f64,
    /// Over features, over n.
    pub sd: f64,
    /// The quantile 0.05.
    pub p5: f64,
    /// The median.
    pub p50: f64,
    /// The quantile 0.95.
    pub p95: f64,
    /// The mean of the features' chance values; undefined for the cosine.
    pub chance: f64,
}

/// Each figure over all features.
pub fn summarise(rows: &[SimilarityRow]) -> [SimilaritySummary; 4] {
    SimilarityMetric::ALL.map(|metric| {
        let defined = rows.iter().map(|row| metric.of(row)).filter(|(value, _)| !value.is_nan());
        let (mut values, chances): (Vec<f64>, Vec<f64>) = defined.unzip();
        let (mean_of_values, sd) = (mean(&values), sd(&values, 0));
        values.sort_by(f64::total_cmp);
        SimilaritySummary {
            metric,
            n_features: rows.len(),
            n_undefined: rows.len() - values.len(),
            mean: mean_of_values,
            sd,
            p5: quantile(&values, 0.05),
            p50: quantile(&values, 0.5),
            p95: quantile(&values, 0.95),
            chance: mean(&chances),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::Pattern;

    #[test]
    fn equal_masks_complements_and_independent_ones() {
        let pattern = Pattern::random(400, 300, 0.5, 1);
        let mask = Mask::of(&pattern, Axis::In);
        let [jaccard, cosine, hamming, kappa] = summarise(&similarity(&mask, &mask, None));
        assert_eq!((jaccard.mean, hamming.mean, kappa.mean, kappa.chance), (1.0, 0.0, 1.0, 0.0));
        assert!(cosine.mean.is_nan() && cosine.n_undefined == 300 && cosine.chance.is_nan());

        let other = Mask::from_fn(300, 400, |feature, at| !mask.get(feature, at));
        let [jaccard, _, hamming, kappa] = summarise(&similarity(&mask, &other, None));
        assert_eq!((jaccard.mean, hamming.mean), (0.0, 1.0));
        assert!(kappa.mean < -0.99 && kappa.mean >= -1.0);

        let other = Mask::of(&Pattern::random(400, 300, 0.5, 2), Axis::In);
        let [jaccard, _, hamming, kappa] = summarise(&similarity(&mask, &other, None));
        assert!((jaccard.mean - 1.0 / 3.0).abs() < 0.01 && (jaccard.chance - 1.0 / 3.0).abs() < 0.01);
        assert!((hamming.mean - 0.5).abs() < 0.01 && kappa.mean.abs() < 0.01 && hamming.sd > 0.0);
    }

    #[test]
    fn the_cosine_is_of_the_weights_along_the_axis() {
        let (a, b) = ([3.0, 0.0, 4.0, 0.0], [4.0, 1.0, 3.0, 1.0]);
        let pattern = Pattern::full(2, 2);
        let rows = |axis| {
            let mask = Mask::of(&pattern, axis);
            similarity(&mask, &mask, Some(WeightPair { a: &a, b: &b, axis }))
        };
        let found = rows(Axis::In);
        assert!((found[0].cosine - 24.0 / 25.0).abs() < 1e-15 && found[1].cosine.is_nan());
        let found = rows(Axis::Out);
        assert!((found[0].cosine - 4.0 / 17f64.sqrt()).abs() < 1e-15);
        assert_eq!(summarise(&rows(Axis::In))[1].n_undefined, 1);
    }

    #[test]
    #[should_panic(expected = "different shapes")]
    fn masks_of_different_shapes_are_refused() {
        similarity(&Mask::from_fn(2, 3, |_, _| true), &Mask::from_fn(3, 3, |_, _| true), None);
    }
}
