//! A mixture of experts: which tokens pass which, and the sum of what they give.
//!
//! ```text
//!   x [tokens, width] ── router ──> logits [tokens, experts] ── on the host: softmax, the largest few
//!                                                                     │
//!   expert e:  rows of its tokens ── gate, up ── inner ── down ── times weights ── added to their rows
//! ```
//!
//! Experts are run one after the other, each on the rows of its tokens, so that every linear is run as any other
//! is, dense or sparse. One that no token chooses is not run. Sums are in the order of experts: they do not depend
//! on threads. The router's softmax is in f32 on the host, whatever the dtype.

use super::super::architecture::Experts;
use super::{Decoder, See};
use crate::execute::SparseBackend;
use burn::tensor::{DType, Int, Tensor, TensorData};

/// What an expert's last linear reads.
pub(super) struct Routed<B: SparseBackend> {
    down: usize,
    /// `[rows, inner]`
    input: Tensor<B, 2>,
    /// The tokens of the rows.
    tokens: Tensor<B, 1, Int>,
    /// What their results count, `[rows, 1]`.
    weights: Tensor<B, 2>,
}

impl<B: SparseBackend> Decoder<B> {
    /// Runs every expert that a token chooses, up to what its last linear reads.
    pub(super) fn route(&self, experts: &Experts, x: &Tensor<B, 2>, see: See<'_, B>) -> Vec<Routed<B>> {
        let logits = self.product(experts.router, x.clone()).into_data().convert::<f32>();
        let logits: Vec<f32> = logits.into_vec().expect("they were just made f32");
        let mut chosen: Vec<Chosen> = vec![Chosen::default(); experts.experts.len()];
        for (token, logits) in logits.chunks_exact(experts.experts.len()).enumerate() {
            for (expert, weight) in largest(logits, experts.top, experts.renormalised) {
                chosen[expert].tokens.push(token as i32);
                chosen[expert].weights.push(weight);
            }
        }
        let mut routed = Vec::new();
        for (expert, Chosen { tokens, weights }) in experts.experts.iter().zip(chosen) {
            let rows = tokens.len();
            if rows == 0 {
                continue;
            }
            let tokens = Tensor::from_data(TensorData::new(tokens, [rows]), (&self.device, DType::I32));
            let weights = Tensor::<B, 2>::from_data(TensorData::new(weights, [rows, 1]), (&self.device, DType::F32));
            let input = self.gated(expert, x.clone().select(0, tokens.clone()), see);
            routed.push(Routed { down: expert.down, input, tokens, weights: weights.cast(self.dtype) });
        }
        routed
    }

    /// The sum of what the experts give, `[tokens, width]` as `like`.
    pub(super) fn mix(&self, like: &Tensor<B, 2>, routed: Vec<Routed<B>>) -> Tensor<B, 2> {
        let mut sum = like.zeros_like();
        for Routed { down, input, tokens, weights } in routed {
            let given = self.product(down, input) * weights;
            sum = sum.select_assign(0, tokens, given, burn::tensor::IndexingUpdateOp::Add);
        }
        sum
    }
}

/// The rows of an expert.
#[derive(Clone, Default)]
struct Chosen {
    tokens: Vec<i32>,
    weights: Vec<f32>,
}

/// The experts of the `top` largest logits, and their weights: softmax over all, divided by their sum if
/// `renormalised`. Of equal ones the first.
fn largest(logits: &[f32], top: usize, renormalised: bool) -> Vec<(usize, f32)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f32> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let total: f32 = exps.iter().sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| exps[b].total_cmp(&exps[a]).then(a.cmp(&b)));
    order.truncate(top);
    let kept: f32 = order.iter().map(|&expert| exps[expert] / total).sum();
    let whole = if renormalised { kept } else { 1.0 };
    order.into_iter().map(|expert| (expert, exps[expert] / total / whole)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_chosen_and_weighted() {
        let logits = [0.0, 2f32.ln(), 5f32.ln(), 2f32.ln()];
        let whole = largest(&logits, 2, false);
        assert_eq!((whole[0].0, whole[1].0), (2, 1), "of equal ones the first");
        assert!((whole[0].1 - 0.5).abs() < 1e-6 && (whole[1].1 - 0.2).abs() < 1e-6, "{whole:?}");
        let share = largest(&logits, 2, true);
        assert!((share[0].1 - 5.0 / 7.0).abs() < 1e-6 && (share[1].1 - 2.0 / 7.0).abs() < 1e-6, "{share:?}");
        assert_eq!(largest(&[1.0, 3.0], 2, true).len(), 2);
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for logits in [[f32::NAN, 1.0, 2.0], [f32::INFINITY, 1.0, 2.0]] {
            assert!(largest(&logits, 2, true).iter().any(|(_, weight)| weight.is_nan()), "{logits:?}");
        }
    }
}
