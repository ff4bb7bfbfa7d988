//! Magnitude pruning: a weight's score is its absolute value.
//!
//! Han et al., "Learning both weights and connections", arXiv 1506.02626, section 3. The absolute
//! values of floats compare like their bit patterns without the sign, so the scores are exact.

use super::{Decided, Layer, MethodEntry, PruneError, Request, Scope, Scores, by_scores};
use crate::sparse::magnitude;

pub(super) const METHOD: MethodEntry = MethodEntry::weights(
    "magnitude",
    "the weights with the smallest absolute value go",
    &[Scope::Global, Scope::Layer, Scope::Row],
    prune,
);

struct Magnitude<'a, 'b>(&'a [Layer<'b>]);

pub(super) fn prune(layers: &[Layer<'_>], _first: usize, request: &Request) -> Result<Decided, PruneError> {
    by_scores(layers, &Magnitude(layers), request)
}

impl Scores for Magnitude<'_, '_> {
    fn fill(&self, layer: usize, start: usize, scores: &mut [u32]) {
        for (score, weight) in scores.iter_mut().zip(&self.0[layer].weights[start..]) {
            *score = magnitude(*weight);
        }
    }
}
