//! Which weights go: methods turn the weights of a model's linears into one [`Pattern`] each.
//!
//! ```text
//!   layers ──> method: a score for every weight ──> scope or N:M: which scores are too low ──> patterns
//!          ──> radix.rs, for weights that are on a device: counts of magnitudes ──> a threshold ──> patterns
//!   one layer and what its inputs look like ──> calibrated method ──> its pattern, and values for what stays
//! ```
//!
//! This module knows weights, sums over inputs and patterns. It does not know where inputs come from, nor how a
//! pruned layer is executed.

mod admm;
mod given;
mod inputs;
mod linalg;
mod magnitude;
mod nm;
pub mod owl;
mod radix;
mod random;
mod ria;
mod select;
mod sparsegpt;
mod wanda;

pub use inputs::InputStatistics;
pub use radix::{Magnitudes, by_magnitude};

use crate::config::experiment::{Method, MethodSettings, NmPattern, Scope};
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

/// A pruning method.
pub struct MethodEntry {
    /// The method.
    pub method: Method,
    /// Whether its result depends on the seed: of calibrated methods it does, since the seed draws what they see.
    pub uses_seed: bool,
    /// Whether its result depends on the weights.
    pub reads_weights: bool,
    /// What it has to know about the inputs of a layer.
    pub inputs: Needs,
    rule: Rule,
}

/// What a method has to know about the inputs of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing: [`prune`] and [`prune_from`] are for it.
    Nothing,
    /// The norm of every input feature: [`prune_calibrated`] is for it, and for what needs more.
    Norms,
    /// The products of all pairs of input features.
    Gram,
}

/// Decides from the weights of layers; the number is the place of the first of them.
type WeightRule = fn(&[Layer<'_>], usize, &Request) -> Result<Vec<Pattern>, PruneError>;
/// Decides from a layer's weights and inputs.
type InputRule = fn(&Layer<'_>, &InputStatistics, &Request) -> Result<Remaining, PruneError>;

/// How a method decides.
enum Rule {
    Weights(WeightRule),
    Calibrated(InputRule),
}

impl MethodEntry {
    const fn weights(method: Method, rule: WeightRule) -> Self {
        Self { method, uses_seed: false, reads_weights: true, inputs: Needs::Nothing, rule: Rule::Weights(rule) }
    }

    const fn calibrated(method: Method, inputs: Needs, rule: InputRule) -> Self {
        Self { method, uses_seed: true, reads_weights: true, inputs, rule: Rule::Calibrated(rule) }
    }
}

/// Every method.
pub const METHODS: &[MethodEntry] = &[
    MethodEntry::weights(Method::Magnitude, magnitude::prune),
    MethodEntry { uses_seed: true, reads_weights: false, ..MethodEntry::weights(Method::Random, random::prune) },
    MethodEntry::calibrated(Method::Wanda, Needs::Norms, wanda::prune),
    MethodEntry::calibrated(Method::Ria, Needs::Norms, ria::prune),
    MethodEntry::calibrated(Method::SparseGpt, Needs::Gram, sparsegpt::prune),
    MethodEntry::calibrated(Method::Admm, Needs::Gram, admm::prune),
    MethodEntry::weights(Method::Given, given::prune),
];

/// What is left of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Remaining {
    /// Which weights are kept.
    pub pattern: Pattern,
    /// The layer's weights `[rows, cols]` with 0 where none is kept, of methods that change those that stay;
    /// elsewhere a weight that is kept keeps its value.
    pub weights: Option<Vec<f32>>,
}

impl From<Pattern> for Remaining {
    fn from(pattern: Pattern) -> Self {
        Self { pattern, weights: None }
    }
}

/// Why a model can't be pruned so.
#[derive(Clone, Debug, Error, PartialEq)]
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

/// The registry's entry of a method.
pub fn entry(method: Method) -> &'static MethodEntry {
    let entry = METHODS.iter().find(|entry| entry.method == method);
    entry.unwrap_or_else(|| unreachable!("every method is registered, as a test shows"))
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
    prune_from(0, layers, request)
}

/// Prunes some of a model's layers, `first` being the place of the first of them: the same patterns as
/// [`prune`] gives of all, where the request is [`Request::within_layers`].
///
/// # Errors
/// As [`prune`].
pub fn prune_from(first: usize, layers: &[Layer<'_>], request: &Request) -> Result<Vec<Pattern>, PruneError> {
    match entry(request.method).rule {
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
/// use sparsify_exp::prune::{InputStatistics, Layer, Request, prune_calibrated};
///
/// let layer = Layer { name: "fc", rows: 1, cols: 2, weights: (&[2.0, 1.0][..]).into() };
/// // One token with the inputs 1 and 3.
/// let inputs = InputStatistics::new(1, vec![1.0, 9.0], None);
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
    inputs: &InputStatistics,
    request: &Request,
) -> Result<Remaining, PruneError> {
    let entry = entry(request.method);
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
fn by_scores(layers: &[Layer<'_>], scores: &dyn Scores, request: &Request) -> Result<Vec<Pattern>, PruneError> {
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
    let patterns = match (request.pattern, request.scope) {
        (NmPattern::Unstructured, Some(Scope::Row)) => select::exactly_per_row(layers, scores, request.sparsity),
        _ => by_scores(layers, scores, request)?,
    };
    let pattern = patterns.into_iter().next();
    Ok(pattern.unwrap_or_else(|| Pattern::full(layer.rows, layer.cols)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer for the tests of this folder.
    pub(super) fn layer(rows: usize, cols: usize, weights: &[f32]) -> Layer<'static> {
        assert_eq!(weights.len(), rows * cols);
        Layer { name: "layer", rows, cols, weights: weights.to_vec().into() }
    }

    /// A point without a pattern, in the method's own scope.
    pub(super) fn request(method: Method, sparsity: f64) -> Request {
        let (scope, settings) = (method.scopes().first().copied(), method.settings(&MethodSettings::default()));
        Request { method, scope, pattern: NmPattern::Unstructured, sparsity, seed: 0, settings }
    }

    /// A point of an N:M pattern.
    pub(super) fn nm(method: Method, n: u32, m: u32) -> Request {
        Request { scope: None, pattern: NmPattern::NofM { n, m }, ..request(method, f64::from(m - n) / f64::from(m)) }
    }

    /// The columns kept of every row.
    pub(super) fn columns(pattern: &Pattern) -> Vec<Vec<usize>> {
        (0..pattern.rows()).map(|row| pattern.columns_of(row).collect()).collect()
    }

    /// Fails the test unless weights are as expected, to a share of the largest.
    #[track_caller]
    pub(super) fn close(weights: &[f32], expected: &[f32], share: f32) {
        let most = share * expected.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
        let near = weights.iter().zip(expected).all(|(a, b)| (a - b).abs() <= most);
        assert!(near && weights.len() == expected.len(), "{weights:?}\n{expected:?}");
    }

    /// The sum over outputs and tokens of the squared differences that pruning makes.
    pub(super) fn loss(layer: &Layer<'_>, inputs: &InputStatistics, remaining: &Remaining) -> f64 {
        let masked = remaining.weights.clone().unwrap_or_else(|| remaining.pattern.apply(&layer.weights));
        let gram = inputs.gram().unwrap();
        let of_row = |(before, after): (&[f32], &[f32])| {
            let lost: Vec<f64> = before.iter().zip(after).map(|(a, b)| f64::from(a - b)).collect();
            let dot = |row: &[f32]| row.iter().zip(&lost).map(|(&g, d)| f64::from(g) * d).sum::<f64>();
            gram.chunks(layer.cols).zip(&lost).map(|(row, d)| d * dot(row)).sum::<f64>()
        };
        layer.weights.chunks(layer.cols).zip(masked.chunks(layer.cols)).map(of_row).sum()
    }

    fn methods(calibrated: bool) -> impl Iterator<Item = &'static MethodEntry> {
        METHODS.iter().filter(move |entry| entry.method.calibrates() == calibrated)
    }

    #[test]
    fn every_method_of_the_file_format_is_registered_once() {
        for word in Method::ALL {
            assert_eq!(METHODS.iter().filter(|entry| entry.method == word.value).count(), 1, "{}", word.name);
        }
        assert_eq!(METHODS.len(), Method::ALL.len());
        for entry in METHODS {
            let calibrated = matches!(entry.rule, Rule::Calibrated(_));
            assert_eq!((calibrated, entry.inputs > Needs::Nothing), (entry.method.calibrates(), calibrated));
            assert!(entry.uses_seed || !calibrated);
        }
    }

    #[test]
    fn layers_may_be_pruned_one_at_a_time() {
        let weights = |layer: usize| (0..60).map(|i| ((i * 37 + layer * 11) % 61) as f32 - 30.0).collect::<Vec<f32>>();
        let layers: Vec<Layer<'_>> = (0..3).map(|index| layer(5, 12, &weights(index))).collect();
        let free = |scope| (Some(scope), NmPattern::Unstructured);
        for method in methods(false).map(|entry| entry.method) {
            for (scope, pattern) in [free(Scope::Layer), free(Scope::Row), (None, NmPattern::NofM { n: 2, m: 4 })] {
                let request = Request { scope, pattern, seed: 5, ..request(method, 0.4) };
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
        for entry in methods(false) {
            let of = |sign: f32| {
                let mut weights: Vec<f32> = (0..64).map(|i| sign * (i as f32 - 10.0) + 3.0 * sign).collect();
                weights[..32].fill(0.0);
                let weights = if entry.reads_weights { weights.into() } else { Cow::Borrowed(&[][..]) };
                prune(&[Layer { name: "layer", rows: 4, cols: 16, weights }], &request(entry.method, 0.5)).unwrap()
            };
            assert_eq!(of(1.0)[0].kept(), 32, "{:?}", entry.method);
        }
    }

    #[test]
    fn calibrated_methods_need_to_know_their_inputs() {
        let layer = layer(2, 4, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let squares = || vec![1.0, 2.0, 3.0, 4.0];
        let gram = |cols: usize| Some((0..cols * cols).map(|i| f32::from(u8::from(i % (cols + 1) == 0))).collect());
        for entry in methods(true) {
            let method = entry.method;
            let request = request(method, 0.5);
            let lacking = PruneError::Inputs { layer: "layer".into(), method };
            assert_eq!(prune(std::slice::from_ref(&layer), &request).unwrap_err(), lacking);
            let pruned = |inputs: InputStatistics| prune_calibrated(&layer, &inputs, &request).map(drop);
            assert_eq!(pruned(InputStatistics::new(9, squares(), gram(4))), Ok(()));
            assert_eq!(pruned(InputStatistics::new(9, vec![1.0; 3], gram(3))), Err(lacking.clone()));
            let norms = pruned(InputStatistics::new(9, squares(), None));
            assert_eq!(norms.is_ok(), entry.inputs == Needs::Norms, "{method}");
            for bad in [f32::NAN, f32::INFINITY] {
                let inputs = InputStatistics::new(9, vec![1.0, 2.0, bad, 4.0], gram(4));
                assert_eq!(pruned(inputs), Err(PruneError::NotFinite { layer: "layer".into() }));
            }
        }
        let inputs = InputStatistics::new(9, squares(), None);
        assert!(prune_calibrated(&layer, &inputs, &request(Method::Magnitude, 0.5)).is_err());
    }

    #[test]
    fn what_goes_is_zero_and_every_group_keeps_its_share() {
        let (rows, cols) = (7, 48);
        let inputs = inputs::tests::correlated(cols, 100, 2);
        let weights: Vec<f32> = (0..rows * cols).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        for method in methods(true).map(|entry| entry.method) {
            for (n, m) in [(2, 4), (4, 8), (1, 4), (3, 6), (5, 16)] {
                let remaining = prune_calibrated(&layer(rows, cols, &weights), &inputs, &nm(method, n, m)).unwrap();
                let kept = |row: usize, group: usize| {
                    (0..m).filter(|i| remaining.pattern.get(row, group + *i as usize)).count()
                };
                for (row, group) in
                    (0..rows).flat_map(|row| (0..cols).step_by(m as usize).map(move |group| (row, group)))
                {
                    assert_eq!(kept(row, group), n as usize, "{method} {n}:{m}");
                }
                if let Some(weights) = &remaining.weights {
                    assert_eq!(*weights, remaining.pattern.apply(weights), "{method} {n}:{m}");
                }
            }
        }
    }

    #[test]
    fn patterns_must_divide_the_inputs() {
        let layer = layer(1, 6, &[1.0; 6]);
        let gram = (0..36).map(|i| f32::from(u8::from(i % 7 == 0))).collect();
        let inputs = InputStatistics::new(9, vec![1.0; 6], Some(gram));
        for entry in methods(true) {
            let error = prune_calibrated(&layer, &inputs, &nm(entry.method, 2, 4)).unwrap_err();
            assert_eq!(error, PruneError::GroupWidth { layer: "layer".into(), cols: 6, n: 2, m: 4 });
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (rows, cols) = (150, 300);
        let noise = |i: usize| ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
        let weights: Vec<f32> = (0..rows * cols).map(noise).collect();
        let layer = layer(rows, cols, &weights);
        let known = inputs::tests::correlated(cols, cols, 1);
        // Without the factors that a thread before has made.
        let inputs = || InputStatistics::new(cols, known.squares().to_vec(), known.gram().map(<[f32]>::to_vec));
        for method in methods(true).map(|entry| entry.method) {
            for request in [request(method, 0.6), nm(method, 2, 4)] {
                let with = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| prune_calibrated(&layer, &inputs(), &request).unwrap())
                };
                assert!(with(1) == with(2) && with(1) == with(3), "{request:?}");
            }
        }
    }
}
