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
}

/// Compares sparse with masked logits, both `[positions, vocabulary]` and finite.
///
/// # Errors
/// When they differ by more than 1e-4 (f32) or 2e-2 (f16, bf16) of the largest logit. Within that, an
/// arg-max can only differ where its margin is at most twice the largest difference.
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
    if measured.max_abs > allowed {
        let Gate { max_abs, max_logit } = measured;
        return Err((measured, GateMiss::TooFar { max_abs, max_logit, allowed, tolerance }));
    }
    Ok(measured)
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
}
