//! Which weights of a session's model go: in host memory all at once, on a device where they are, as halves one
//! after the other.
//!
//! ```text
//!   host memory, f32            weights borrowed ──> prune ──> patterns
//!   magnitude, model or layer   the device counts and compares; counts and bits come to the host
//!   within layers, otherwise    one weight after the other comes to the host
//!   random                      no weight is looked at
//! ```
//! Halves in host memory are as on a device that widens each weight when it is looked at.
//! Methods that look at inputs are calibrate.rs's affair.

use super::error::CellError;
use super::pruned::{Pruned, excluded};
use super::session::{Session, nonzero, nonzero_as};
use crate::config::experiment::{Dtype, Method, NmPattern, Scope};
use crate::execute::{ReadError, SparseBackend};
use crate::model::DenseWeight;
use crate::plan::PrunePoint;
use crate::prune::{self, Decided, GramStatistics, Layer, Magnitudes, Miscount, Remaining, Request};
use crate::record::Ties;
use crate::sparse::{Digit, Pattern};
use std::borrow::Cow;

/// Counts ties among some linears, where the method knows them.
pub(super) fn ties<B: SparseBackend>(weights: Option<u64>, linears: &[Prunable<'_, B>]) -> Option<Ties> {
    let of = linears.iter().map(|linear| (linear.rows * linear.cols) as u64).sum();
    weights.map(|weights| Ties { weights, of })
}

/// Decides which weights go, and says how many of them tie.
///
/// # Errors
/// When there is no linear to prune, an N:M pattern does not fit, or the device fails.
pub(in crate::run) fn patterns<B: SparseBackend>(
    session: &Session<B>,
    point: &PrunePoint,
    seed: Option<u64>,
    dtype: Dtype,
) -> Result<(Vec<Pruned>, Option<Ties>), CellError> {
    let (method, scope, pattern) = (point.method, point.scope, point.pattern);
    let request = point.request(seed);
    let linears = prunable(session, point)?;
    let above = method == Method::Magnitude && pattern == NmPattern::Unstructured;
    let Decided { patterns, ties: tied } = if session.one_by_one() && above && scope != Some(Scope::Row) {
        let sizes: Vec<usize> = linears.iter().map(|linear| linear.rows * linear.cols).collect();
        prune::by_magnitude(&OnDevice(&linears), &sizes, !request.within_layers(), point.sparsity, dtype)?
    } else if session.one_by_one() && request.within_layers() {
        one_by_one(&linears, &request)?
    } else {
        prune::decide(0, &linears.iter().map(|linear| linear.layer(method)).collect::<Result<Vec<_>, _>>()?, &request)?
    };
    let pruned = linears.iter().zip(patterns).map(|(linear, pattern)| {
        let kept = linear.kept_nonzero(&pattern, above)?;
        Ok(Pruned { module: linear.module, pattern, kept, values: None })
    });
    let pruned = pruned.collect::<Result<Vec<_>, CellError>>()?;
    Ok((pruned, ties(tied, &linears)))
}

/// Prunes a linear by a method that looks at its inputs; `request.sparsity` is this linear's own. Says how many
/// weights tie, where the method knows.
///
/// # Errors
/// As [`prune::prune_calibrated`]; and when the device does not give the weights back.
pub(super) fn prune_linear<B: SparseBackend>(
    linear: &Prunable<'_, B>,
    inputs: &GramStatistics,
    request: &Request,
    dtype: Dtype,
) -> Result<(Pruned, Option<u64>), CellError> {
    let layer = linear.layer(request.method)?;
    let Remaining { pattern, weights, ties } = prune::prune_calibrated(&layer, inputs, request)?;
    let (kept, values) = match weights {
        Some(weights) => (nonzero_as(&weights, dtype), Some(pattern.pack(&weights))),
        None => (linear.kept_nonzero(&pattern, false)?, None),
    };
    Ok((Pruned { module: linear.module, pattern, kept, values }, ties))
}

/// A linear that a point prunes.
pub(super) struct Prunable<'a, B: SparseBackend> {
    /// Its module's index.
    pub module: usize,
    name: &'a str,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Whether it is an expert's, which some tokens pass and others don't.
    pub is_expert: bool,
    weight: &'a DenseWeight<B>,
    /// Weights other than zero of the dense model.
    nonzero: u64,
}

impl<B: SparseBackend> Prunable<'_, B> {
    /// As methods see it; the weights come to the host if they are not there.
    ///
    /// # Errors
    /// When the device does not give them back.
    pub fn layer(&self, method: Method) -> Result<Layer<'_>, ReadError> {
        let read = method.entry().reads_weights;
        let weights = if read { self.weight.host()? } else { Cow::Borrowed(&[][..]) };
        Ok(Layer { name: self.name, rows: self.rows, cols: self.cols, weights })
    }

    /// Weights kept that are not zero; `above` says that none of them is, unless all are kept: their magnitudes
    /// are above another's.
    fn kept_nonzero(&self, pattern: &Pattern, above: bool) -> Result<u64, ReadError> {
        let (kept, all) = (pattern.kept() as u64, (self.rows * self.cols) as u64);
        if kept == all {
            return Ok(self.nonzero);
        }
        if above || self.nonzero == all {
            return Ok(kept);
        }
        Ok(nonzero(&pattern.apply(&self.weight.host()?)))
    }
}

/// Prunes layer after layer, so that the weights of one are on the host at a time.
fn one_by_one<B: SparseBackend>(linears: &[Prunable<'_, B>], request: &Request) -> Result<Decided, CellError> {
    let mut all = Decided { patterns: Vec::with_capacity(linears.len()), ties: Some(0) };
    for (index, linear) in linears.iter().enumerate() {
        let Decided { patterns, ties } = prune::decide(index, &[linear.layer(request.method)?], request)?;
        all.patterns.extend(patterns);
        all.ties = all.ties.zip(ties).map(|(sum, ties)| sum + ties);
    }
    Ok(all)
}

/// The linears' weights, counted and compared on the device.
struct OnDevice<'a, B: SparseBackend>(&'a [Prunable<'a, B>]);

impl From<Miscount> for ReadError {
    fn from(miscount: Miscount) -> Self {
        Self(miscount.to_string())
    }
}

impl<B: SparseBackend> Magnitudes for OnDevice<'_, B> {
    type Error = ReadError;

    fn count(&self, layer: usize, digit: Digit) -> Result<Vec<u32>, ReadError> {
        let linear = &self.0[layer];
        let counts = linear.weight.count_magnitudes(digit)?;
        let counted: u64 = counts.iter().copied().map(u64::from).sum();
        // A digit with nothing above it is one of every weight.
        let whole = digit.above == 0 && digit.shift + digit.bits == 31;
        match whole && counted != (linear.rows * linear.cols) as u64 {
            true => Err(ReadError(format!("{counted} weights counted of `{}`", linear.name))),
            false => Ok(counts),
        }
    }

    fn above(&self, layer: usize, threshold: Option<u32>) -> Result<Pattern, ReadError> {
        let linear = &self.0[layer];
        match threshold {
            Some(threshold) => linear.weight.magnitudes_above(threshold),
            None => Ok(Pattern::full(linear.rows, linear.cols)),
        }
    }
}

/// The linears that a point prunes.
///
/// A tied head is the embedding table under another name, so it is never pruned.
///
/// # Errors
/// When there is none.
pub(super) fn prunable<'a, B: SparseBackend>(
    session: &'a Session<B>,
    point: &PrunePoint,
) -> Result<Vec<Prunable<'a, B>>, CellError> {
    let excluded = excluded(point).map_err(|error| CellError::NothingToPrune(error.to_string()))?;
    let linears = session.decoder.architecture().linears();
    let linears = linears.filter(|(_, module)| module.tied_to.is_none() && !excluded.is_match(&module.name));
    let prunable = linears.map(|(index, module)| Prunable {
        module: index,
        name: &module.name,
        rows: module.shape[0],
        cols: module.shape[1],
        weight: session.dense(index),
        nonzero: session.stored[index].nonzero,
        is_expert: module.used[0] < module.used[1],
    });
    let prunable: Vec<_> = prunable.collect();
    if prunable.is_empty() { Err(CellError::NothingToPrune(point.exclude.join(", "))) } else { Ok(prunable) }
}
