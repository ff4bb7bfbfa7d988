//! How closely a variant's predictions follow the dense model's, position by position.

use crate::execute::kernels::softmax::divergence;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Agreement over all positions of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// Positions compared.
    pub positions: usize,
    /// The share of positions whose arg-max token equals the dense model's.
    pub top1_match: f64,
    /// The mean share of common tokens among the top five.
    pub top5_overlap: f64,
    /// The mean Kullback-Leibler divergence of the variant from the dense model, in nats.
    pub kl_nats: f64,
}

impl Agreement {
    /// The dense model's with itself.
    pub fn perfect(positions: usize) -> Self {
        Self { positions, top1_match: 1.0, top5_overlap: 1.0, kl_nats: 0.0 }
    }
}

/// Compares logits with the dense model's.
///
/// # Shapes
/// - `dense`, `variant`: `[positions, vocabulary]`
///
/// # Panics
/// When the two differ in length.
///
/// ```
/// # use sparsify_exp::measure::agreement;
/// let dense = [0.0, 1.0, 2.0, 5.0, 4.0, 3.0];
/// let same = agreement(&dense, &dense, 3);
/// assert_eq!((same.top1_match, same.kl_nats), (1.0, 0.0));
/// let half = agreement(&dense, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 3);
/// assert_eq!(half.top1_match, 0.5);
/// ```
pub fn agreement(dense: &[f32], variant: &[f32], vocabulary: usize) -> Agreement {
    assert_eq!(dense.len(), variant.len(), "both models see the same tokens");
    let compared: Vec<(bool, usize, f64)> = dense
        .par_chunks(vocabulary)
        .zip(variant.par_chunks(vocabulary))
        .map(|(dense, variant)| {
            let (a, b) = (top(dense), top(variant));
            let common = a.iter().filter(|token| b.contains(token)).count();
            (a.first() == b.first(), common, divergence(dense, variant))
        })
        .collect();
    let positions = compared.len();
    let mean = |sum: f64| if positions == 0 { 0.0 } else { sum / positions as f64 };
    let five = vocabulary.min(TOP) as f64;
    Agreement {
        positions,
        top1_match: mean(compared.iter().filter(|c| c.0).count() as f64),
        top5_overlap: mean(compared.iter().map(|c| c.1 as f64 / five).sum()),
        kl_nats: mean(compared.iter().map(|c| c.2).sum()),
    }
}

const TOP: usize = 5;

/// The indices of the largest logits, largest first; of equal ones the first.
fn top(logits: &[f32]) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::with_capacity(TOP + 1);
    for (token, &logit) in logits.iter().enumerate() {
        if best.len() == TOP && logit <= logits[best[TOP - 1]] {
            continue;
        }
        let place = best.partition_point(|&other| logits[other] >= logit);
        best.insert(place, token);
        best.truncate(TOP);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_counts_common_tokens() {
        let dense: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let mut variant = dense.clone();
        variant[0] = 100.0;
        variant[1] = 50.0;
        let result = agreement(&dense, &variant, 10);
        assert_eq!((result.top1_match, result.top5_overlap), (0.0, 0.6));
    }

    #[test]
    fn of_equal_logits_the_first_is_the_largest() {
        assert_eq!(top(&[1.0, 2.0, 2.0, 0.0, 2.0, 1.0, 1.0]), [1, 2, 4, 0, 5]);
    }
}
