//! Magnitude pruning: a weight's score is its absolute value.
//!
//! Han et al., "Learning both weights and connections", arXiv 1506.02626, section 3. The absolute
//! values of floats compare like their bit patterns without the sign, so the scores are exact.

use super::{Layer, Scores};
use crate::sparse::magnitude;

struct Magnitude<'a>(&'a [Layer<'a>]);

pub(super) fn scores<'a>(layers: &'a [Layer<'a>], _first: usize, _seed: u64) -> Box<dyn Scores + 'a> {
    Box::new(Magnitude(layers))
}

impl Scores for Magnitude<'_> {
    fn fill(&self, layer: usize, start: usize, scores: &mut [u32]) {
        for (score, weight) in scores.iter_mut().zip(&self.0[layer].weights[start..]) {
            *score = magnitude(*weight);
        }
    }
}
