//! What lies between linears: norms and nonlinearities of token rows, in one pass over memory each.
//!
//! ```text
//!   x [rows, width] ── mean, deviation ──> (x - mean) / deviation · gain + bias
//!   x, up           ── element by element ──> f(x), f(x) · up
//! ```
//!
//! A row is one task's, so results do not depend on the number of threads.

use super::super::exp::exp;
use super::lanes::Lanes;
use super::{Kernel, Simd};
use crate::execute::decode::{Activation, NormKind};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Numbers that a task takes, at least.
const PIECE: usize = 1 << 14;
/// Sums side by side in a row.
const SUMS: usize = 16;

/// A norm's parameters, each `[width]`.
#[derive(Clone, Copy, Debug)]
pub struct NormRows<'a> {
    /// How it computes.
    pub kind: NormKind,
    /// Factors.
    pub gain: &'a [f32],
    /// Terms.
    pub bias: Option<&'a [f32]>,
}

/// The norm of every row of `x` `[rows, width]`.
///
/// # Panics
/// When a length does not fit, or the machine lacks the instruction set.
pub fn norm_rows(x: &[f32], norm: NormRows<'_>, simd: Simd) -> Vec<f32> {
    let width = norm.gain.len();
    assert!(simd.is_available(), "this machine has no {}", simd.name());
    assert!(width > 0 && x.len().is_multiple_of(width), "x is [rows, width]");
    assert!(norm.bias.is_none_or(|bias| bias.len() == width), "one bias a feature");
    // SAFETY: the kernel writes every number of its piece, which is whole rows.
    unsafe {
        in_pieces(x.len(), PIECE.next_multiple_of(width), |piece, y| {
            // SAFETY: `simd` is there; the kernel reads and writes slices.
            simd.run(Norms { x: &x[piece], norm, y });
        })
    }
}

/// `f(x)`, or `f(x) · up`, element by element.
///
/// # Panics
/// When lengths differ, or the machine lacks the instruction set.
pub fn activate(function: Activation, x: &[f32], up: Option<&[f32]>, simd: Simd) -> Vec<f32> {
    assert!(simd.is_available(), "this machine has no {}", simd.name());
    assert!(up.is_none_or(|up| up.len() == x.len()), "a factor a number");
    // SAFETY: the kernel writes every number of its piece.
    unsafe {
        in_pieces(x.len(), PIECE, |piece, y| {
            // SAFETY: as above.
            simd.run(Activations { function, x: &x[piece.clone()], up: up.map(|up| &up[piece]), y });
        })
    }
}

/// Numbers that `work` writes, piece by piece; on this thread where there is one piece.
///
/// # Safety
/// `work` writes every number of its piece.
unsafe fn in_pieces(
    length: usize,
    piece: usize,
    work: impl Fn(Range<usize>, &mut [MaybeUninit<f32>]) + Sync,
) -> Vec<f32> {
    // Not zeros first: that would take as long as the work does, and on one thread.
    let mut y = Vec::with_capacity(length);
    let room = &mut y.spare_capacity_mut()[..length];
    match length <= piece {
        true => work(0..length, room),
        false => room.par_chunks_mut(piece).enumerate().for_each(|(index, y)| {
            let start = index * piece;
            work(start..start + y.len(), y);
        }),
    }
    // SAFETY: there is room, and all pieces have been written.
    unsafe { y.set_len(length) };
    y
}

struct Norms<'a> {
    x: &'a [f32],
    norm: NormRows<'a>,
    y: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Norms<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let NormRows { kind, gain, bias } = self.norm;
        let width = gain.len();
        for (x, y) in self.x.chunks_exact(width).zip(self.y.chunks_exact_mut(width)) {
            let (mean, eps) = match kind {
                NormKind::Layer { eps } => (sum(x, |x| x) / width as f32, eps),
                NormKind::Rms { eps } => (0.0, eps),
            };
            let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
            let scale = 1.0 / (variance + eps as f32).sqrt();
            match bias {
                Some(bias) => {
                    for (((y, &x), &gain), &bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
                        y.write((x - mean) * scale * gain + bias);
                    }
                }
                None => {
                    for ((y, &x), &gain) in y.iter_mut().zip(x).zip(gain) {
                        y.write((x - mean) * scale * gain);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn sum(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<SUMS>();
    let mut sums = [0.0f32; SUMS];
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += term(x);
        }
    }
    sums.into_iter().sum::<f32>() + rest.iter().map(|&x| term(x)).sum::<f32>()
}

struct Activations<'a> {
    function: Activation,
    x: &'a [f32],
    up: Option<&'a [f32]>,
    y: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Activations<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        match self.function {
            // Not `max`, which hides what is not a number.
            Activation::Relu => self.map(|x| if x < 0.0 { 0.0 } else { x }),
            Activation::Gelu => self.map(|x| 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))),
            // Hendrycks and Gimpel, arXiv 1606.08415, section 2, with (1 + tanh u) / 2 = σ(2u).
            Activation::GeluTanh => self.map(|x| x * sigmoid(1.595_769 * (x + 0.044_715 * x * x * x))),
            // There too.
            Activation::QuickGelu => self.map(|x| x * sigmoid(1.702 * x)),
            Activation::Silu => self.map(|x| x * sigmoid(x)),
        }
    }
}

impl Activations<'_> {
    #[inline(always)]
    fn map(self, function: impl Fn(f32) -> f32) {
        match self.up {
            Some(up) => {
                for ((y, &x), &up) in self.y.iter_mut().zip(self.x).zip(up) {
                    y.write(function(x) * up);
                }
            }
            None => {
                for (y, &x) in self.y.iter_mut().zip(self.x) {
                    y.write(function(x));
                }
            }
        }
    }
}

/// 1 / (1 + exp(-x)), without an exp that overflows.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 5] =
        [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu];

    fn numbers(length: usize) -> Vec<f32> {
        (0..length).map(|i| ((i * 7919) % 1013) as f32 / 60.0 - 8.0).collect()
    }

    #[test]
    fn norms_are_those_of_their_definition() {
        for (rows, width) in [(1, 1), (3, 7), (130, 576), (1, 70_000)] {
            let (x, gain, bias) = (numbers(rows * width), numbers(width), numbers(width + 1));
            for kind in [NormKind::Layer { eps: 1e-5 }, NormKind::Rms { eps: 1e-5 }] {
                for bias in [None, Some(&bias[1..])] {
                    for simd in Simd::available() {
                        let y = norm_rows(&x, NormRows { kind, gain: &gain, bias }, simd);
                        for (x, y) in x.chunks(width).zip(y.chunks(width)) {
                            let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                            let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
                            let (centre, eps) = match kind {
                                NormKind::Layer { eps } => (mean(&x), eps),
                                NormKind::Rms { eps } => (0.0, eps),
                            };
                            let squares: Vec<f64> = x.iter().map(|x| (x - centre).powi(2)).collect();
                            let deviation = (mean(&squares) + eps).sqrt();
                            for (i, &y) in y.iter().enumerate() {
                                let factor = f64::from(gain[i]);
                                let expected =
                                    (x[i] - centre) / deviation * factor + bias.map_or(0.0, |b| f64::from(b[i]));
                                let error = (f64::from(y) - expected).abs();
                                assert!(error < 5e-6 * expected.abs().max(1.0), "{simd:?} {kind:?} {rows} {width}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nonlinearities_are_those_of_their_definition() {
        let x: Vec<f32> = (-40_000..40_000).map(|i| i as f32 / 2000.0).collect();
        let up: Vec<f32> = x.iter().rev().copied().collect();
        let expected = |function, x: f64| match function {
            Activation::Relu => x.max(0.0),
            Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
            }
            Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
            Activation::Silu => x / (1.0 + (-x).exp()),
        };
        for function in ALL {
            for simd in Simd::available() {
                let (alone, gated) = (activate(function, &x, None, simd), activate(function, &x, Some(&up), simd));
                for (i, &x) in x.iter().enumerate() {
                    let expected = expected(function, f64::from(x));
                    let close =
                        |y: f32, expected: f64| (f64::from(y) - expected).abs() < 1e-6 * expected.abs().max(1.0);
                    assert!(close(alone[i], expected), "{function:?} {simd:?} {x}: {} {expected}", alone[i]);
                    assert!(close(gated[i], expected * f64::from(up[i])), "{function:?} {simd:?} {x}");
                }
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for (rows, width) in [(1, 70_000), (33, 2048), (700, 192), (257, 576), (5, 3)] {
            let (x, gain) = (numbers(rows * width), numbers(width));
            let norm = NormRows { kind: NormKind::Layer { eps: 1e-5 }, gain: &gain, bias: Some(&gain) };
            let all = || {
                let each = |function| activate(function, &x, Some(&x), Simd::detect());
                (norm_rows(&x, norm, Simd::detect()), ALL.map(each))
            };
            assert!(pool(1).install(all) == pool(3).install(all), "{rows} {width}");
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for simd in Simd::available() {
            for function in ALL {
                assert!(activate(function, &[1.0, f32::NAN], None, simd)[1].is_nan(), "{function:?}");
            }
            let norm = NormRows { kind: NormKind::Rms { eps: 1e-5 }, gain: &[1.0, 1.0], bias: None };
            assert!(norm_rows(&[1.0, f32::NAN], norm, simd)[0].is_nan());
        }
    }
}
