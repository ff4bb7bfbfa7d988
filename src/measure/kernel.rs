//! A bare linear: how long it takes, and how far it is from double precision.
//!
//! ```text
//!   copies of one weight, together larger than the last-level cache
//!     copy 0   copy 1   copy 2   copy 0 …      a call each, in turn: every call reads memory
//! ```
//!
//! On the host a call is timed by itself; on a device calls are timed back to back: see [`time_calls`].

use super::stats::quantile;
use crate::config::experiment::Dtype;
use crate::execute::SparseBackend;
use burn::tensor::Tensor;
use half::{bf16, f16};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::iter::Cycle;
use std::ops::Range;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The least that copies of a weight take together on a CPU, in bytes.
const CPU_BYTES: u64 = 256 << 20;
/// On a GPU: three times the largest second-level cache.
const GPU_BYTES: u64 = 3 * (64 << 20);
/// The most that copies of a weight take together on a GPU, unless a single one takes more.
const GPU_ROOM: u64 = 16 << 30;
/// The most copies of a weight: tiny ones would need ever more, and their calls measure overhead anyway.
const MOST_COPIES: u64 = 1000;

/// Seconds of back-to-back calls that make a sample on a device.
const SAMPLE_SECONDS: f64 = 4e-3;
/// The fewest calls of such a sample.
const LEAST_CALLS: usize = 4;
/// The most: CubeCL's queue makes the host wait for the device at 128 small transfers, of which a call of
/// Burn's matmul has one or two.
const MOST_CALLS: usize = 60;
/// Samples without a hold, which tell how many calls a sample has and what launching costs.
const WALL_ROUNDS: usize = 5;

/// Output rows and tokens that are compared with the reference.
const COMPARED: [usize; 2] = [64, 16];
/// Multiplications of the reference where as much as possible is compared: a second of a processor.
const MOST_COMPARED: usize = 1 << 29;

/// How much of an output is compared with the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// 64 rows of the weight and 16 tokens, evenly spread: kernels of ours, which have tests of their own.
    Some,
    /// All rows, and as many tokens as take a second: kernels that nobody knows.
    Most,
}

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

/// What a call does with a stored weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that are stored.
    pub stored: u64,
    /// Bytes of them that a call reads.
    pub read: u64,
    /// Whether it is host memory.
    pub on_host: bool,
}

/// How many copies of a weight are multiplied in turn, so that what is read of them together exceeds every cache.
/// A weight that exceeds them by itself needs no copy; on a device all copies take at most 16 GiB, or one weight.
pub fn rotated_copies(traffic: Traffic, last_cache: Option<u64>) -> usize {
    let Traffic { stored, read, on_host } = traffic;
    let exceeded = if on_host { CPU_BYTES.max(last_cache.unwrap_or(0)) } else { GPU_BYTES };
    let room = if on_host { u64::MAX } else { (GPU_ROOM / stored.max(1)).max(1) };
    (exceeded / read.max(1) + 1).min(MOST_COPIES).min(room) as usize
}

/// The times of a product.
#[derive(Clone, Debug, PartialEq)]
pub struct CallTimes {
    /// Seconds of a call, one number a sample, in order.
    pub seconds: Vec<f64>,
    /// What else is known where calls were timed back to back; none on the host.
    pub back_to_back: Option<BackToBack>,
}

/// Calls that follow each other on a device without a synchronisation between them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackToBack {
    /// Calls of a sample.
    pub calls: usize,
    /// Seconds a call where nothing holds the device: the longer one of what the host needs to launch a
    /// call and of what the device needs to run it.
    pub wall_seconds: f64,
}

/// Times `repeats` samples, after `warmup` calls that don't count. `call` is told which of `copies` copies of
/// the weight to multiply; they take turns.
///
/// On the host a sample is one call. On another device it is many of them in a row:
///
/// ```text
///   host     hold  call call call ... call  sync            launching is done before the device is free
///   device   [ spins ........................ ][call][call] ... [call]
///            '------ taken off: a hold alone, and its sync -----'  over the number of calls = seconds
/// ```
/// so that what it takes to launch a kernel and to wait for it counts for nobody.
///
/// # Errors
/// When the device fails.
pub fn time_calls<B: SparseBackend>(
    device: &B::Device,
    copies: usize,
    call: impl Fn(usize) -> Tensor<B, 2>,
    warmup: usize,
    repeats: usize,
) -> Result<CallTimes, KernelError> {
    let mut clock = Clock::<B, _> { device, copies: (0..copies).cycle(), call };
    if B::ON_HOST {
        let seconds = clock.single_calls(warmup, repeats)?;
        return Ok(CallTimes { seconds, back_to_back: None });
    }
    clock.calls_behind_holds(warmup, repeats)
}

struct Clock<'a, B: SparseBackend, F> {
    device: &'a B::Device,
    copies: Cycle<Range<usize>>,
    call: F,
}

impl<B: SparseBackend, F: Fn(usize) -> Tensor<B, 2>> Clock<'_, B, F> {
    fn single_calls(&mut self, warmup: usize, repeats: usize) -> Result<Vec<f64>, KernelError> {
        let seconds: Result<Vec<f64>, _> = (0..warmup + repeats).map(|_| self.seconds(None, 1)).collect();
        seconds.map(|mut seconds| seconds.split_off(warmup))
    }

    fn calls_behind_holds(&mut self, warmup: usize, repeats: usize) -> Result<CallTimes, KernelError> {
        self.seconds(None, warmup.max(1))?;
        let mut walls = Vec::with_capacity(WALL_ROUNDS);
        let mut calls = MOST_CALLS;
        for _ in 0..WALL_ROUNDS {
            walls.push(self.seconds(None, calls)? / calls as f64);
            calls = calls_of_a_sample(quantile(&walls, 0.5));
        }
        let wall_seconds = quantile(&walls, 0.5);
        let hold = hold_for(calls, wall_seconds);
        // The first one measures how long the device spins.
        self.seconds(Some(hold), 0)?;
        let (mut held, mut whole) = (Vec::with_capacity(repeats), Vec::with_capacity(repeats));
        for _ in 0..repeats {
            held.push(self.seconds(Some(hold), 0)?);
            whole.push(self.seconds(Some(hold), calls)?);
        }
        // The holds are alike: their median is nearer to any of them than a neighbour that was disturbed.
        let held = quantile(&held, 0.5);
        let seconds = whole.into_iter().map(|whole| (whole - held) / calls as f64).collect();
        Ok(CallTimes { seconds, back_to_back: Some(BackToBack { calls, wall_seconds }) })
    }

    /// Seconds of this many calls and one synchronisation, after a hold or none. Outputs go as they come.
    fn seconds(&mut self, hold: Option<Duration>, calls: usize) -> Result<f64, KernelError> {
        let start = Instant::now();
        if let Some(hold) = hold {
            B::hold(self.device, hold);
        }
        for copy in self.copies.by_ref().take(calls) {
            black_box((self.call)(copy));
        }
        B::sync(self.device).map_err(|error| KernelError::Device { reason: error.to_string() })?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// How many calls a sample has: enough for a few milliseconds, so that what a synchronisation varies by
/// (10 µs) vanishes; not more than a queue takes before it makes the host wait.
fn calls_of_a_sample(wall_seconds: f64) -> usize {
    ((SAMPLE_SECONDS / wall_seconds.max(1e-9)).ceil() as usize).clamp(LEAST_CALLS, MOST_CALLS)
}

/// How long the device must be busy while the host launches this many calls: 8 µs each, which a launch takes at
/// most, or what a call was seen to take where it has several launches; and a margin.
fn hold_for(calls: usize, wall_seconds: f64) -> Duration {
    Duration::from_secs_f64(calls as f64 * wall_seconds.clamp(8e-6, 40e-6) + 300e-6)
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
/// All of a small output is compared, and of a large one what [`Compared`] says. Every number must be finite.
///
/// # Errors
/// When a number is not finite, or the difference exceeds 1e-4 (f32) or 2e-2 (f16, bf16).
///
/// # Panics
/// When the lengths don't fit the shape.
pub fn max_rel_err(product: &Product<'_>, compared: Compared) -> Result<f64, KernelError> {
    let Product { x, weights, y, shape: [out, inp], dtype } = *product;
    let tokens = x.len() / inp;
    assert_eq!((weights.len(), y.len()), (out * inp, out * tokens), "weight and output are of the product's shape");
    if !y.iter().all(|y| y.is_finite()) {
        return Err(KernelError::NotFinite);
    }
    let [rows, of_tokens] = match compared {
        Compared::Some => COMPARED,
        Compared::Most => [out, (MOST_COMPARED / weights.len().max(1)).max(1)],
    };
    let pairs: Vec<(usize, usize)> =
        spread(out, rows).flat_map(|row| spread(tokens, of_tokens).map(move |token| (row, token))).collect();
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

/// The threshold below which the share `sparsity` of an input lies, as the dtype stores it: the k-th smallest
/// |x|, k = floor(sparsity · numbers). An entry is kept when |x| is above it, so that ties go; k = 0 keeps all.
pub fn input_threshold(x: &[f32], sparsity: f64, dtype: Dtype) -> f32 {
    let dropped = (sparsity * x.len() as f64).floor() as usize;
    let Some(last) = dropped.checked_sub(1).filter(|&last| last < x.len()) else { return -1.0 };
    let mut sizes: Vec<f32> = x.iter().map(|&x| round(x, dtype).abs()).collect();
    *sizes.select_nth_unstable_by(last, f32::total_cmp).1
}

/// An input with zeros where it is not above the threshold, and how many entries and columns of the weight
/// are left; a column is left where any token keeps its entry.
///
/// # Shapes
/// - `x`: `[tokens, in_features]`, not empty
pub fn masked_input(x: &[f32], threshold: f32, in_features: usize, dtype: Dtype) -> MaskedInput {
    let keep = |&x: &f32| if round(x, dtype).abs() > threshold { x } else { 0.0 };
    let kept = |x: &f32| round(*x, dtype).abs() > threshold;
    let columns = (0..in_features).filter(|&column| x.iter().skip(column).step_by(in_features).any(kept)).count();
    MaskedInput { x: x.iter().map(keep).collect(), entries: x.iter().filter(|x| kept(x)).count(), columns }
}

/// What a threshold leaves of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedInput {
    /// `[tokens, in_features]`, zeros in place.
    pub x: Vec<f32>,
    /// Entries that are left.
    pub entries: usize,
    /// Columns of the weight that any token needs.
    pub columns: usize,
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
    use burn::backend::Flex;
    use proptest::prelude::*;

    #[test]
    fn copies_exceed_every_cache() {
        let copies = |bytes, on_host, cache| rotated_copies(Traffic { stored: bytes, read: bytes, on_host }, cache);
        assert_eq!(copies(64 << 20, true, None), 5);
        assert_eq!(copies(64 << 20, true, Some(1 << 30)), 17);
        assert_eq!(copies(64 << 20, false, Some(1 << 30)), 4);
        assert_eq!((copies(1 << 40, true, None), copies(1 << 40, false, None)), (1, 1));
        assert_eq!((copies(4, true, None), copies(0, true, None)), (1000, 1000));
    }

    #[test]
    fn copies_of_which_little_is_read_are_more_but_fit_the_device() {
        let copies = |stored, read| rotated_copies(Traffic { stored, read, on_host: false }, None);
        assert_eq!((copies(64 << 20, 64 << 20), copies(64 << 20, 8 << 20)), (4, 25));
        assert_eq!((copies(1 << 30, 1 << 10), copies(1 << 40, 1 << 10)), (16, 1));
    }

    #[test]
    fn a_sample_takes_a_few_milliseconds() {
        assert_eq!(calls_of_a_sample(1e-3), 4);
        assert_eq!(calls_of_a_sample(2e-4), 20);
        assert_eq!((calls_of_a_sample(5e-6), calls_of_a_sample(0.0)), (60, 60));
        assert_eq!((calls_of_a_sample(1.0), hold_for(4, 1.0)), (4, Duration::from_micros(460)));
        assert_eq!(hold_for(60, 1e-6), Duration::from_micros(780));
    }

    #[test]
    fn copies_take_turns_and_the_warm_up_does_not_count() {
        let calls = std::cell::RefCell::new(Vec::new());
        let device = Default::default();
        let call = |copy| {
            calls.borrow_mut().push(copy);
            Tensor::<Flex, 2>::ones([1, 1], &device)
        };
        let times = time_calls::<Flex>(&device, 3, call, 2, 5).unwrap();
        assert_eq!((times.seconds.len(), times.back_to_back), (5, None));
        assert_eq!(*calls.borrow(), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn ties_with_the_threshold_go() {
        let x = [0.5, -0.25, 0.25, -1.0, 0.0, 2.0];
        let kept = |sparsity| {
            let threshold = input_threshold(&x, sparsity, Dtype::F32);
            (threshold, masked_input(&x, threshold, 3, Dtype::F32))
        };
        let (threshold, all) = kept(0.1);
        assert_eq!((threshold, all.x.as_slice(), all.entries, all.columns), (-1.0, &x[..], 6, 3));
        let (threshold, some) = kept(0.4);
        assert_eq!(threshold, 0.25, "the second of six");
        assert_eq!(some, MaskedInput { x: vec![0.5, 0.0, 0.0, -1.0, 0.0, 2.0], entries: 3, columns: 2 });
        assert_eq!(kept(0.99).1, MaskedInput { x: vec![0.0, 0.0, 0.0, 0.0, 0.0, 2.0], entries: 1, columns: 1 });
    }

    #[test]
    fn a_threshold_is_a_number_of_the_dtype() {
        let x = [0.1, 0.3, -0.7];
        let threshold = input_threshold(&x, 0.4, Dtype::F16);
        assert_eq!(threshold, f16::from_f32(0.1).to_f32());
        assert_eq!(masked_input(&x, threshold, 3, Dtype::F16).entries, 2, "what is stored is not above itself");
    }

    proptest! {
        #[test]
        fn exactly_the_share_is_dropped_where_nothing_ties(
            order in Just((1..60u16).collect::<Vec<_>>()).prop_shuffle(),
            count in 1..59usize,
            sparsity in 0.0..1.0f64,
        ) {
            // Distinct sizes, of either sign.
            let x: Vec<f32> = order[..count].iter().map(|&n| f32::from(n) * if n % 2 == 0 { -0.5 } else { 0.5 }).collect();
            let threshold = input_threshold(&x, sparsity, Dtype::Bf16);
            let masked = masked_input(&x, threshold, count, Dtype::Bf16);
            prop_assert_eq!(count - masked.entries, (sparsity * count as f64).floor() as usize);
            prop_assert_eq!(masked.columns, masked.entries);
            for (kept, x) in masked.x.iter().zip(&x) {
                prop_assert_eq!(*kept, if x.abs() > threshold { *x } else { 0.0 });
            }
        }
    }

    #[test]
    fn the_error_is_relative_to_the_largest_output() {
        let (x, weights) = ([1.0, 2.0], [3.0, 4.0, 0.0, 0.5]);
        let check = |y: &[f32], dtype| {
            max_rel_err(&Product { x: &x, weights: &weights, y, shape: [2, 2], dtype }, Compared::Some)
        };
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
        assert_eq!(max_rel_err(&product, Compared::Some), Ok(0.0));
        assert!(max_rel_err(&Product { dtype: Dtype::F32, ..product }, Compared::Some).is_err());
    }

    #[test]
    fn a_wrong_row_between_those_of_the_spread_is_found_where_most_is_compared() {
        let (x, weights) = ([1.0], vec![1.0; 1000]);
        let mut y = vec![1.0; 1000];
        y[7] = 0.0;
        let product = Product { x: &x, weights: &weights, y: &y, shape: [1000, 1], dtype: Dtype::F32 };
        assert_eq!(max_rel_err(&product, Compared::Some), Ok(0.0));
        assert!(matches!(max_rel_err(&product, Compared::Most), Err(KernelError::Gate { .. })));
    }

    #[test]
    fn what_is_compared_is_spread_over_all() {
        assert_eq!(spread(3, 64).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(1000, 4).collect::<Vec<_>>(), [0, 250, 500, 750]);
        assert_eq!(spread(0, 4).count(), 0);
    }
}
