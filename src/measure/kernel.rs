//! A bare linear: how long it takes, and how far it is from double precision.
//!
//! ```text
//!   copies of one weight, together larger than the last cache
//!     copy 0   copy 1   copy 2   copy 0 …      a call each, in turn: every call reads memory
//! ```

use crate::config::experiment::Dtype;
use crate::execute::SparseBackend;
use crate::model::Linear;
use burn::tensor::Tensor;
use half::{bf16, f16};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;
use thiserror::Error;

/// The least that copies of a weight take together on a CPU, in bytes.
const CPU_BYTES: u64 = 256 << 20;
/// On a GPU: three times the largest second-level cache.
const GPU_BYTES: u64 = 3 * (64 << 20);
/// The most copies of a weight: tiny ones would need ever more, and their calls measure overhead anyway.
const MOST_COPIES: u64 = 1000;

/// Output rows and tokens that are compared with the reference.
const COMPARED: [usize; 2] = [64, 16];

/// Why there is no time.
#[derive(Debug, Error, PartialEq)]
pub enum KernelError {
    /// The device failed.
    #[error("the device failed: {reason}")]
    Device {
        /// What it says.
        reason: String,
    },
    /// A number of the output is NaN or infinite.
    #[error("the output contains NaN or infinity")]
    NotFinite,
    /// The output is too far from the reference.
    #[error("gate missed: the output is {max_rel_err:.3e} off in double precision, allowed are {tolerance:e}")]
    Gate {
        /// max |y − ref| / max |ref|
        max_rel_err: f64,
        /// The most that is allowed.
        tolerance: f64,
    },
}

/// How many copies of a weight of `bytes` are multiplied in turn, so that together they exceed every cache.
pub fn rotated_copies(bytes: u64, on_host: bool, last_cache: Option<u64>) -> usize {
    let exceeded = if on_host { CPU_BYTES.max(last_cache.unwrap_or(0)) } else { GPU_BYTES };
    (exceeded / bytes.max(1) + 1).min(MOST_COPIES) as usize
}

/// Seconds of each of `repeats` calls, after `warmup` that don't count. The linears take turns.
///
/// # Shapes
/// - `x`: `[tokens, in_features]`
///
/// # Errors
/// When the device fails.
pub fn time_linear<B: SparseBackend>(
    linears: &[Linear<B>],
    x: &Tensor<B, 2>,
    warmup: usize,
    repeats: usize,
) -> Result<Vec<f64>, KernelError> {
    let device = x.device();
    let mut seconds = Vec::with_capacity(repeats);
    for (call, linear) in linears.iter().cycle().take(warmup + repeats).enumerate() {
        let start = Instant::now();
        let y = linear.forward(x.clone());
        B::sync(&device).map_err(|error| KernelError::Device { reason: error.to_string() })?;
        let elapsed = start.elapsed().as_secs_f64();
        black_box(y);
        if call >= warmup {
            seconds.push(elapsed);
        }
    }
    Ok(seconds)
}

/// A product and what it is a product of, on the host.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// `[tokens, in_features]`, before rounding to the dtype.
    pub x: &'a [f32],
    /// `[out_features, in_features]`, zeros in place, before rounding to the dtype.
    pub weights: &'a [f32],
    /// `[tokens, out_features]`, as the kernel returned it.
    pub y: &'a [f32],
    /// `[out_features, in_features]`
    pub shape: [usize; 2],
    /// What weight, input and output are rounded to.
    pub dtype: Dtype,
}

/// max |y − ref| / max |ref| against a float64 product of the weights and inputs as the dtype stores
/// them, and checks it.
///
/// All of a small output is compared; of a large one 64 rows of the weight and 16 tokens, evenly spread.
///
/// # Errors
/// When a number is not finite, or the difference exceeds 1e-4 (f32) or 2e-2 (f16, bf16).
///
/// # Panics
/// When the lengths don't fit the shape.
pub fn max_rel_err(product: &Product<'_>) -> Result<f64, KernelError> {
    let Product { x, weights, y, shape: [out, inp], dtype } = *product;
    let tokens = x.len() / inp;
    assert_eq!((weights.len(), y.len()), (out * inp, out * tokens), "weight and output are of the product's shape");
    if !y.iter().all(|y| y.is_finite()) {
        return Err(KernelError::NotFinite);
    }
    let pairs: Vec<(usize, usize)> =
        spread(out, COMPARED[0]).flat_map(|row| spread(tokens, COMPARED[1]).map(move |token| (row, token))).collect();
    let compare = |&(row, token): &(usize, usize)| {
        let rounded = |number: &f32| f64::from(round(*number, dtype));
        let products = weights[row * inp..][..inp].iter().zip(&x[token * inp..][..inp]);
        let reference: f64 = products.map(|(w, x)| rounded(w) * rounded(x)).sum();
        ((f64::from(y[token * out + row]) - reference).abs(), reference.abs())
    };
    let largest = |a: (f64, f64), b: (f64, f64)| (a.0.max(b.0), a.1.max(b.1));
    let (difference, reference) = pairs.par_iter().map(compare).reduce(|| (0.0, 0.0), largest);
    let max_rel_err = if difference == 0.0 { 0.0 } else { difference / reference };
    let tolerance = match dtype {
        Dtype::F32 => 1e-4,
        Dtype::F16 | Dtype::Bf16 => 2e-2,
    };
    if max_rel_err <= tolerance { Ok(max_rel_err) } else { Err(KernelError::Gate { max_rel_err, tolerance }) }
}

/// At most `most` of the numbers below `count`, evenly spread.
fn spread(count: usize, most: usize) -> impl Iterator<Item = usize> {
    let taken = count.min(most);
    (0..taken).map(move |i| i * count / taken)
}

/// A number as a dtype stores it.
fn round(number: f32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => number,
        Dtype::F16 => f16::from_f32(number).to_f32(),
        Dtype::Bf16 => bf16::from_f32(number).to_f32(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_exceed_every_cache() {
        assert_eq!(rotated_copies(64 << 20, true, None), 5);
        assert_eq!(rotated_copies(64 << 20, true, Some(1 << 30)), 17);
        assert_eq!(rotated_copies(64 << 20, false, Some(1 << 30)), 4);
        assert_eq!(rotated_copies(1 << 40, true, None), 1);
        assert_eq!((rotated_copies(4, true, None), rotated_copies(0, true, None)), (1000, 1000));
    }

    #[test]
    fn the_error_is_relative_to_the_largest_output() {
        let (x, weights) = ([1.0, 2.0], [3.0, 4.0, 0.0, 0.5]);
        let check = |y: &[f32], dtype| max_rel_err(&Product { x: &x, weights: &weights, y, shape: [2, 2], dtype });
        assert_eq!(check(&[11.0, 1.0], Dtype::F32), Ok(0.0));
        let off = check(&[11.0, 1.0005], Dtype::F32).unwrap();
        assert!((off - 0.0005 / 11.0).abs() < 1e-6);
        assert!(matches!(check(&[11.0, 1.1], Dtype::F32), Err(KernelError::Gate { .. })));
        assert!(check(&[11.0, 1.1], Dtype::F16).is_ok());
        assert_eq!(check(&[f32::NAN, 1.0], Dtype::F32), Err(KernelError::NotFinite));
    }

    #[test]
    fn the_reference_has_the_numbers_that_are_stored() {
        // 0.1 is not a half: what a kernel can know is what is stored.
        let (x, weights) = ([1.0], [0.1]);
        let y = [f16::from_f32(0.1).to_f32()];
        let product = Product { x: &x, weights: &weights, y: &y, shape: [1, 1], dtype: Dtype::F16 };
        assert_eq!(max_rel_err(&product), Ok(0.0));
        assert!(max_rel_err(&Product { dtype: Dtype::F32, ..product }).is_err());
    }

    #[test]
    fn what_is_compared_is_spread_over_all() {
        assert_eq!(spread(3, 64).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(1000, 4).collect::<Vec<_>>(), [0, 250, 500, 750]);
        assert_eq!(spread(0, 4).count(), 0);
    }
}
