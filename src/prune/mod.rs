//! Which weights go: methods turn the weights of a model's linears into one [`Pattern`] each.
//!
//! ```text
//!   layers ──> method: a score for every weight ──> scope or N:M: which scores are too low ──> patterns
//!          ──> histogram.rs, for weights that are on a device: counts of magnitudes ──> a threshold ──> patterns
//!   one layer and what its inputs look like ──> calibrated method ──> its pattern, and values for what stays
//! ```
//!
//! This module knows weights, sums over inputs and patterns. It does not know where inputs come from, nor how a
//! pruned layer is executed.

mod admm;
mod given;
mod gram;
mod histogram;
mod linalg;
mod magnitude;
mod method;
mod nm;
pub mod owl;
mod random;
mod ria;
mod select;
mod sparsegpt;
mod wanda;
mod words;

pub use gram::GramStatistics;
pub use histogram::{Magnitudes, Miscount, by_magnitude};
pub use method::{Least, MethodEntry, MethodSettings, Needs, Setting, SettingValue, settings};
pub use words::{Budget, NmPattern, Owl, PatternError, Propagate, Scope};

use crate::keyword::{Keyword, UnknownKeyword};
use crate::sparse::Pattern;
use method::{Rule, methods};
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
    /// Free, or this many of every group.
    pub pattern: NmPattern,
    /// The share of weights to remove; fixed by an N:M pattern.
    pub sparsity: f64,
    /// For methods that draw.
    pub seed: u64,
    /// Of the method; see [`Method::settings`].
    pub settings: MethodSettings,
}

impl Request {
    /// Whether a layer's pattern depends on no other layer.
    pub fn within_layers(&self) -> bool {
        let alone = self.method.calibrates() || self.method.scopes().is_empty();
        alone || self.pattern != NmPattern::Unstructured || matches!(self.scope, Some(Scope::Layer | Scope::Row))
    }
}

methods! {
    Magnitude magnitude,
    Random random,
    Wanda wanda,
    Ria ria,
    SparseGpt sparsegpt,
    Admm admm,
    Given given,
}

/// Which weights of some layers stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// One a layer, in order.
    pub patterns: Vec<Pattern>,
    /// Weights about which the order of equal scores decides; see [`Remaining::ties`].
    pub ties: Option<u64>,
}

/// What is left of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Remaining {
    /// Which weights are kept.
    pub pattern: Pattern,
    /// The layer's weights `[rows, cols]` with 0 where none is kept, of methods that change those that stay;
    /// elsewhere a weight that is kept keeps its value.
    pub weights: Option<Vec<f32>>,
    /// Weights about which the order of equal scores decides, of methods that score every weight once.
    ///
    /// In each set of weights that compete (the model, a layer, a row, a group of M) k are to go, and the k-th lowest
    /// score is the cut. Ties are the weights beyond the k-th whose score is the cut's: the number of scores at or
    /// below the cut, less k. Where exactly k go these stay, although another order would have put them in the place of
    /// others; where all that tie with the cut go, they went without being asked for. A cut at 0 counts for nothing:
    /// weights of that score are 0, or see inputs of 0, and it makes no difference which of them go.
    pub ties: Option<u64>,
}

/// Why a model can't be pruned so.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum PruneError {
    /// A layer's input features are no multiple of the pattern's group.
    #[error("`{layer}` has {cols} input features, which the pattern {n}:{m} does not divide ({n} of {m} kept)")]
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
    /// A calibrated method was not told enough about a layer's inputs, or about other inputs.
    #[error("`{method}` lacks what it has to know about the inputs of `{layer}`")]
    Inputs {
        /// The layer's name.
        layer: String,
        /// The method.
        method: Method,
    },
    /// Calibration saw an input that is infinite or no number.
    #[error("calibration saw inputs of `{layer}` that are not finite")]
    NotFinite {
        /// The layer's name.
        layer: String,
    },
    /// The products of a layer's inputs don't determine how weights make up for each other.
    #[error(
        "the Hessian of `{layer}` is not positive definite: {tokens} tokens, {cols} input features, damping {damping}"
    )]
    NotPositiveDefinite {
        /// The layer's name.
        layer: String,
        /// The share of the diagonal's mean that was added to it.
        damping: f64,
        /// Tokens that calibration saw.
        tokens: usize,
        /// The layer's input features.
        cols: usize,
    },
    /// A budget asks for a share of a block's weights that there is not.
    #[error("block {block} would get a sparsity of {sparsity:.3}, with {target} for all and `owl_lambda` {lambda}")]
    Budget {
        /// The block's place.
        block: usize,
        /// Its sparsity.
        sparsity: f64,
        /// The sparsity of all.
        target: f64,
        /// Half the largest difference of two blocks.
        lambda: f64,
    },
}

impl PruneError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::GroupWidth { .. } => Some("leave the layer out with `exclude`, or take another pattern".into()),
            Self::Inputs { .. } => None,
            Self::NotFinite { .. } => {
                Some("take a `dtype` with a wider range, or leave the layer out with `exclude`".into())
            }
            Self::NotPositiveDefinite { .. } => Some("raise `damping`, or `calibration_samples` under `[data]`".into()),
            Self::Budget { .. } => Some("lower `owl_lambda`, or take another sparsity".into()),
        }
    }
}

/// A score for every weight of every layer: the lowest go first.
trait Scores: Sync {
    /// Writes the scores of the weights from `start` of a layer.
    fn fill(&self, layer: usize, start: usize, scores: &mut [u32]);
}

/// Fills in scores that are never negative from `score(index, column)`: as bits, such floats compare alike.
fn fill_by_column(cols: usize, start: usize, scores: &mut [u32], score: impl Fn(usize, usize) -> f32) {
    let mut col = start % cols.max(1);
    for (index, out) in (start..).zip(scores) {
        *out = score(index, col).to_bits();
        col += 1;
        if col == cols {
            col = 0;
        }
    }
}

/// Prunes: one pattern a layer, in order.
///
/// # Errors
/// When an N:M pattern does not fit a layer, or the method needs more than weights.
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
///     settings: Default::default(),
/// };
/// let patterns = prune(&[layer], &request)?;
/// assert!(patterns[0].get(0, 1) && patterns[0].get(1, 0));
/// assert_eq!(patterns[0].kept(), 2);
/// # Ok::<(), sparsify_exp::prune::PruneError>(())
/// ```
pub fn prune(layers: &[Layer<'_>], request: &Request) -> Result<Vec<Pattern>, PruneError> {
    decide(0, layers, request).map(|decided| decided.patterns)
}

/// Prunes some of a model's layers, `first` being the place of the first of them: the same patterns as
/// [`prune`] gives of all, where the request is [`Request::within_layers`]; and how many ties there were.
///
/// # Errors
/// As [`prune`].
pub fn decide(first: usize, layers: &[Layer<'_>], request: &Request) -> Result<Decided, PruneError> {
    match request.method.entry().rule {
        Rule::Weights(rule) => rule(layers, first, request),
        Rule::Calibrated(_) => Err(PruneError::Inputs {
            layer: layers.first().map(|layer| layer.name.to_owned()).unwrap_or_default(),
            method: request.method,
        }),
    }
}

/// Prunes one layer by a method that looks at its inputs; `request.sparsity` is this layer's own.
///
/// # Errors
/// When an N:M pattern does not fit, when `inputs` lacks what the method [needs](MethodEntry::inputs) or is not
/// finite, or when the method fails on it.
///
/// ```
/// use sparsify_exp::config::experiment::{Method, NmPattern, Scope};
/// use sparsify_exp::prune::{GramStatistics, Layer, Request, prune_calibrated};
///
/// let layer = Layer { name: "fc", rows: 1, cols: 2, weights: (&[2.0, 1.0][..]).into() };
/// // One token with the inputs 1 and 3.
/// let inputs = GramStatistics::new(1, vec![1.0, 9.0], None);
/// let request = Request {
///     method: Method::Wanda,
///     scope: Some(Scope::Row),
///     pattern: NmPattern::Unstructured,
///     sparsity: 0.5,
///     seed: 0,
///     settings: Default::default(),
/// };
/// let remaining = prune_calibrated(&layer, &inputs, &request)?;
/// // 2 * 1 is below 1 * 3.
/// assert!(remaining.pattern.get(0, 1) && !remaining.pattern.get(0, 0));
/// # Ok::<(), sparsify_exp::prune::PruneError>(())
/// ```
pub fn prune_calibrated(
    layer: &Layer<'_>,
    inputs: &GramStatistics,
    request: &Request,
) -> Result<Remaining, PruneError> {
    let entry = request.method.entry();
    let lacking = || PruneError::Inputs { layer: layer.name.into(), method: request.method };
    let Rule::Calibrated(rule) = entry.rule else { return Err(lacking()) };
    if inputs.cols() != layer.cols || inputs.holds() < entry.inputs {
        return Err(lacking());
    }
    if !inputs.are_finite() {
        return Err(PruneError::NotFinite { layer: layer.name.into() });
    }
    rule(layer, inputs, request)
}

/// Prunes by scores: within groups of an N:M pattern, else within the scope, where weights tied with the last
/// one that goes go too.
fn by_scores(layers: &[Layer<'_>], scores: &dyn Scores, request: &Request) -> Result<Decided, PruneError> {
    match request.pattern {
        NmPattern::NofM { n, m } => nm::prune(layers, scores, n, m),
        NmPattern::Unstructured => Ok(match request.scope {
            Some(Scope::Global) | None => select::global(layers, scores, request.sparsity),
            Some(Scope::Layer) => select::per_layer(layers, scores, request.sparsity),
            Some(Scope::Row) => select::per_row(layers, scores, request.sparsity),
        }),
    }
}

/// As [`by_scores`] for one layer, but of every row exactly its share goes.
fn by_scores_of(layer: &Layer<'_>, scores: &dyn Scores, request: &Request) -> Result<Remaining, PruneError> {
    let layers = std::slice::from_ref(layer);
    let Decided { patterns, ties } = match (request.pattern, request.scope) {
        (NmPattern::Unstructured, Some(Scope::Row)) => select::exactly_per_row(layers, scores, request.sparsity),
        (NmPattern::Unstructured, Some(Scope::Layer | Scope::Global) | None) | (NmPattern::NofM { .. }, _) => {
            by_scores(layers, scores, request)?
        }
    };
    let pattern = patterns.into_iter().next();
    let pattern = pattern.unwrap_or_else(|| Pattern::full(layer.rows, layer.cols));
    Ok(Remaining { pattern, weights: None, ties })
}

/// How many weights go: k = floor(sparsity * weights), in double precision as the reference computes it.
fn to_prune(weights: usize, sparsity: f64) -> usize {
    ((sparsity * weights as f64) as usize).min(weights)
}

#[cfg(test)]
mod tests;
