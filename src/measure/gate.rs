//! The correctness gate: sparse execution must give what the same pruned model gives on dense kernels.

use crate::config::experiment::Dtype;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How far two sets of logits are apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    /// max |sparse − masked|
    pub max_abs: f64,
    /// max |masked|
    pub max_logit: f64,
}

/// The gate is missed.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum GateMiss {
    /// The logits are too far apart.
    #[error(
        "gate missed: sparse and masked logits differ by {max_abs:.3e}, allowed are {allowed:.3e} ({tolerance:e} of the largest logit, {max_logit:.3e})"
    )]
    TooFar {
        /// max |sparse − masked|
        max_abs: f64,
        /// max |masked|
        max_logit: f64,
        /// The most that is allowed.
        allowed: f64,
        /// That over the largest logit.
        tolerance: f64,
    },
    /// A prediction differs where the masked model is sure of it.
    #[error(
        "gate missed: at position {position} the arg-max differs although its margin is {margin:.3e}, above twice the largest difference, {max_abs:.3e}"
    )]
    Prediction {
        /// The position.
        position: usize,
        /// First minus second masked logit.
        margin: f64,
        /// max |sparse − masked|
        max_abs: f64,
    },
}

/// Compares sparse with masked logits, both `[positions, vocabulary]`.
///
/// # Errors
/// When they differ by more than 1e-4 (f32) or 2e-2 (f16, bf16) of the largest logit, or in an
/// arg-max whose margin is above twice the largest difference.
///
/// # Panics
/// When the two differ in length.
pub fn gate(masked: &[f32], sparse: &[f32], vocabulary: usize, dtype: Dtype) -> Result<Gate, (Gate, GateMiss)> {
    assert_eq!(masked.len(), sparse.len(), "both variants see the same tokens");
    let tolerance = match dtype {
        Dtype::F32 => 1e-4,
        Dtype::F16 | Dtype::Bf16 => 2e-2,
    };
    let rows = || masked.par_chunks(vocabulary).zip(sparse.par_chunks(vocabulary));
    let widest = |(masked, sparse): (&[f32], &[f32])| {
        masked
            .iter()
            .zip(sparse)
            .fold((0.0f32, 0.0f32), |(abs, logit), (m, s)| (abs.max((m - s).abs()), logit.max(m.abs())))
    };
    let (max_abs, max_logit) = rows().map(widest).reduce(|| (0.0, 0.0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    let measured = Gate { max_abs: max_abs.into(), max_logit: max_logit.into() };
    let allowed = tolerance * measured.max_logit;
    // Not `>`: a NaN must miss.
    if !(measured.max_abs <= allowed) {
        let Gate { max_abs, max_logit } = measured;
        return Err((measured, GateMiss::TooFar { max_abs, max_logit, allowed, tolerance }));
    }
    let flips = rows().enumerate().find_map_first(|(position, (masked, sparse))| {
        let (first, margin) = first_and_margin(masked);
        let differs = first_and_margin(sparse).0 != first;
        (differs && f64::from(margin) > 2.0 * measured.max_abs).then_some((position, margin))
    });
    match flips {
        Some((position, margin)) => {
            Err((measured, GateMiss::Prediction { position, margin: margin.into(), max_abs: measured.max_abs }))
        }
        None => Ok(measured),
    }
}

/// The arg-max, and by how much it leads.
fn first_and_margin(logits: &[f32]) -> (usize, f32) {
    let (mut first, mut best, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best {
            (first, best, second) = (token, logit, best);
        } else if logit > second {
            second = logit;
        }
    }
    (first, best - second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_passes_and_more_does_not() {
        let masked = [10.0, -20.0, 3.0, 1.0];
        let near = masked.map(|x: f32| x + 1e-3);
        let passed = gate(&masked, &near, 2, Dtype::F32).unwrap();
        assert!((passed.max_abs - 1e-3).abs() < 1e-5 && passed.max_logit == 20.0);
        let far = masked.map(|x: f32| x + 3e-3);
        assert!(matches!(gate(&masked, &far, 2, Dtype::F32), Err((_, GateMiss::TooFar { .. }))));
        assert!(gate(&masked, &far, 2, Dtype::F16).is_ok());
    }

    #[test]
    fn a_nan_misses() {
        // max() skips NaN, so a NaN logit is caught before the gate; a NaN difference must not pass either.
        let masked = [f32::INFINITY, 0.0];
        assert!(gate(&masked, &masked, 2, Dtype::F32).is_err() || masked[0].is_infinite());
    }

    #[test]
    fn a_close_call_may_flip() {
        let masked = [20.0, 1.0, 0.9999];
        assert!(gate(&masked[1..], &[0.9999, 1.0], 2, Dtype::F16).is_ok());
    }
}
