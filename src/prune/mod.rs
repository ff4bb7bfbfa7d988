//! Which weights go: methods turn the weights of a model's linears into one [`Pattern`] each.
//!
//! ```text
//!   layers ──> method: a score for every weight ──> scope or N:M: which scores are too low ──> patterns
//!          ──> radix.rs, for weights that are on a device: counts of magnitudes ──> a threshold ──> patterns
//! ```
//!
//! This module knows weights and patterns. It does not know how a pruned layer is executed.

mod magnitude;
mod nm;
mod radix;
mod random;
mod select;

pub use radix::{Magnitudes, by_magnitude};

use crate::config::experiment::{Method, NmPattern, Scope};
use crate::sparse::Pattern;
use std::borrow::Cow;
use thiserror::Error;

/// The weight of one linear that is to be pruned.
pub struct Layer<'a> {
    /// Its module name.
    pub name: &'a str,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// `[rows, cols]`, row-major; empty where the method does not look at weights.
    pub weights: Cow<'a, [f32]>,
}

/// One prune point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// What a weight's score is.
    pub method: Method,
    /// Within what scores are compared; an N:M pattern compares within its groups and takes none.
    pub scope: Option<Scope>,
    /// Free, or so many of every group.
    pub pattern: NmPattern,
    /// The share of weights to remove; fixed by an N:M pattern.
    pub sparsity: f64,
    /// For methods that draw.
    pub seed: u64,
}

impl Request {
    /// Whether a layer's pattern depends on no other layer.
    pub fn within_layers(&self) -> bool {
        self.pattern != NmPattern::Unstructured || matches!(self.scope, Some(Scope::Layer | Scope::Row))
    }
}

/// A pruning method.
pub struct MethodEntry {
    /// The method.
    pub method: Method,
    /// Whether its result depends on the seed.
    pub uses_seed: bool,
    /// Whether its result depends on the weights.
    pub reads_weights: bool,
    scores: for<'a> fn(&'a [Layer<'a>], usize, u64) -> Box<dyn Scores + 'a>,
}

/// Every method.
pub const METHODS: &[MethodEntry] = &[
    MethodEntry { method: Method::Magnitude, uses_seed: false, reads_weights: true, scores: magnitude::scores },
    MethodEntry { method: Method::Random, uses_seed: true, reads_weights: false, scores: random::scores },
];

/// Why a model can't be pruned so.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PruneError {
    /// A layer's input features are no multiple of the pattern's group.
    #[error("`{layer}` has {cols} input features, which the pattern {n}:{m} does not divide")]
    GroupWidth {
        /// The layer's name.
        layer: String,
        /// Its input features.
        cols: usize,
        /// Weights kept of a group.
        n: u32,
        /// Weights of a group.
        m: u32,
    },
}

impl PruneError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("leave the layer out with `exclude`, or take another pattern".into())
    }
}

/// A score for every weight of every layer: the lowest go first.
trait Scores: Sync {
    /// Writes the scores of the weights from `start` of a layer.
    fn fill(&self, layer: usize, start: usize, scores: &mut [u32]);
}

/// The registry's entry of a method.
pub fn entry(method: Method) -> &'static MethodEntry {
    let entry = METHODS.iter().find(|entry| entry.method == method);
    entry.unwrap_or_else(|| unreachable!("every method is registered, as a test shows"))
}

/// Prunes: one pattern a layer, in order.
///
/// # Errors
/// When an N:M pattern does not fit a layer.
///
/// ```
/// use sparsify_exp::config::experiment::{Method, NmPattern, Scope};
/// use sparsify_exp::prune::{Layer, Request, prune};
///
/// let layer = Layer { name: "fc", rows: 2, cols: 2, weights: (&[0.1, -3.0, 2.0, 0.5][..]).into() };
/// let request = Request {
///     method: Method::Magnitude,
///     scope: Some(Scope::Global),
///     pattern: NmPattern::Unstructured,
///     sparsity: 0.5,
///     seed: 0,
/// };
/// let patterns = prune(&[layer], &request)?;
/// assert!(patterns[0].get(0, 1) && patterns[0].get(1, 0));
/// assert_eq!(patterns[0].kept(), 2);
/// # Ok::<(), sparsify_exp::prune::PruneError>(())
/// ```
pub fn prune(layers: &[Layer<'_>], request: &Request) -> Result<Vec<Pattern>, PruneError> {
    prune_from(0, layers, request)
}

/// Prunes some of a model's layers, `first` being the place of the first of them: the same patterns as
/// [`prune`] gives of all, where the request is [`Request::within_layers`].
///
/// # Errors
/// As [`prune`].
pub fn prune_from(first: usize, layers: &[Layer<'_>], request: &Request) -> Result<Vec<Pattern>, PruneError> {
    let scores = (entry(request.method).scores)(layers, first, request.seed);
    match request.pattern {
        NmPattern::NofM { n, m } => nm::prune(layers, scores.as_ref(), n, m),
        NmPattern::Unstructured => Ok(match request.scope {
            Some(Scope::Global) | None => select::global(layers, scores.as_ref(), request.sparsity),
            Some(Scope::Layer) => select::per_layer(layers, scores.as_ref(), request.sparsity),
            Some(Scope::Row) => select::per_row(layers, scores.as_ref(), request.sparsity),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_file_format_is_registered_once() {
        for word in Method::ALL {
            assert_eq!(METHODS.iter().filter(|entry| entry.method == word.value).count(), 1, "{}", word.name);
        }
        assert_eq!(METHODS.len(), Method::ALL.len());
    }
    #[test]
    fn layers_may_be_pruned_one_at_a_time() {
        let weights = |layer: usize| (0..60).map(|i| ((i * 37 + layer * 11) % 61) as f32 - 30.0).collect::<Vec<f32>>();
        let layer = |index| Layer { name: "layer", rows: 5, cols: 12, weights: weights(index).into() };
        let layers: Vec<Layer<'_>> = (0..3).map(layer).collect();
        let free = |scope| (Some(scope), NmPattern::Unstructured);
        for method in METHODS.iter().map(|entry| entry.method) {
            for (scope, pattern) in [free(Scope::Layer), free(Scope::Row), (None, NmPattern::NofM { n: 2, m: 4 })] {
                let request = Request { method, scope, pattern, sparsity: 0.4, seed: 5 };
                assert!(request.within_layers());
                let all = prune(&layers, &request).unwrap();
                for (index, pattern) in all.iter().enumerate() {
                    let one = prune_from(index, &layers[index..=index], &request).unwrap();
                    assert_eq!(one[0], *pattern, "{method:?} {scope:?} {index}");
                }
                assert_ne!(all[0], all[1]);
            }
        }
    }

    #[test]
    fn only_methods_that_say_so_look_at_weights() {
        for entry in METHODS {
            let (scope, pattern) = (Some(Scope::Global), NmPattern::Unstructured);
            let request = Request { method: entry.method, scope, pattern, sparsity: 0.5, seed: 1 };
            let of = |sign: f32| {
                let weights: Vec<f32> = (0..64).map(|i| sign * (i as f32 - 10.0) + 3.0 * sign).collect();
                let weights = if entry.reads_weights { weights.into() } else { Cow::Borrowed(&[][..]) };
                prune(&[Layer { name: "layer", rows: 4, cols: 16, weights }], &request).unwrap()
            };
            assert_eq!(of(1.0)[0].kept(), 32, "{:?}", entry.method);
        }
    }
}
