//! What this CPU can do at best: the roof that kernels are held against.

use super::lanes::Lanes;
use super::{Kernel, Simd};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Numbers read to measure bandwidth: far more than caches hold.
const NUMBERS: usize = 128 << 20;
/// Multiply-adds of a thread, in vectors of sixteen.
const STEPS: usize = 2_000_000;
/// Times each is measured; the best counts.
const REPEATS: usize = 5;
/// Places that a thread reads at at once.
const RUNS: usize = 8;

/// Bytes per second that all threads of the pool read, and multiplications and additions per second that
/// they do in f32; the best of a few tries.
///
/// # Panics
/// When the machine lacks the instruction set.
pub fn peaks(simd: Simd) -> (f64, f64) {
    assert!(simd.is_available(), "this machine has no {}", simd.name());
    let numbers = vec![1.0f32; NUMBERS];
    let best = |amount: f64, work: &dyn Fn() -> f32| {
        let seconds = (0..REPEATS).map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64()
        });
        amount / seconds.fold(f64::INFINITY, f64::min)
    };
    let read = || numbers.par_chunks(1 << 16).map(|part| add_up(part, simd)).sum();
    let threads = rayon::current_num_threads();
    let multiply = || (0..threads).into_par_iter().with_max_len(1).map(|_| chains(simd)).sum();
    let bytes = best(size_of_val(&*numbers) as f64, &read);
    let flops = best((threads * STEPS * 16 * 2) as f64, &multiply);
    (bytes, flops)
}

fn add_up(numbers: &[f32], simd: Simd) -> f32 {
    let mut sum = 0.0;
    // SAFETY: `simd` is there.
    unsafe { simd.run(AddUp { numbers, sum: &mut sum }) };
    sum
}

struct AddUp<'a> {
    numbers: &'a [f32],
    sum: &'a mut f32,
}

impl Kernel for AddUp<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // In several runs at once: one alone is not read at the full rate.
        let run = self.numbers.len() / RUNS;
        // SAFETY: `run` numbers from the first of each run are there.
        unsafe {
            let mut sums = [L::splat(0.0); RUNS];
            for i in (0..run / 16 * 16).step_by(16) {
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.add(L::load(self.numbers.as_ptr().add(r * run + i)));
                }
            }
            *self.sum = sums.iter().skip(1).fold(sums[0], |sum, &part| sum.add(part)).sum();
        }
    }
}

fn chains(simd: Simd) -> f32 {
    let mut sum = 0.0;
    // SAFETY: `simd` is there.
    unsafe { simd.run(Chains { sum: &mut sum }) };
    sum
}

/// Multiply-adds that wait for nothing but themselves.
struct Chains<'a> {
    sum: &'a mut f32,
}

impl Kernel for Chains<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the contract of `Kernel`.
        unsafe {
            *self.sum = if L::REGISTERS >= 24 { multiply_add::<L, 10>() } else { multiply_add::<L, 5>() };
        }
    }
}

#[inline(always)]
unsafe fn multiply_add<L: Lanes, const N: usize>() -> f32 {
    // SAFETY: the caller's contract.
    unsafe {
        let (factor, summand) = (L::splat(black_box(0.999)), L::splat(black_box(0.001)));
        let mut chains = [L::splat(black_box(1.0)); N];
        for _ in 0..STEPS / N {
            for chain in &mut chains {
                *chain = summand.fma(*chain, factor);
            }
        }
        chains.iter().skip(1).fold(chains[0], |sum, &chain| sum.add(chain)).sum()
    }
}
