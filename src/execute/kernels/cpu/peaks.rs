//! What this CPU does at best: bytes read and products added in a second, by all threads together.
//!
//! The bounds of the roofline, measured by the program itself, so that they hold for the threads and
//! the clock that the kernels had.

use super::super::super::backend::Peaks;
use super::Simd;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Floats that are read: 512 MB, more than any cache.
const READ: usize = 128 << 20;
/// Floats that a thread takes at a time.
const CHUNK: usize = 1 << 16;
/// The best of so many counts: whatever disturbs only slows down.
const ROUNDS: usize = 5;
/// Sums that don't wait for each other: more than latency times ports of a multiplier.
const CHAINS: usize = 12;
/// Products added to each lane of each sum: a few milliseconds.
const LENGTH: usize = 1 << 20;

/// Measures both; takes about a second.
pub fn peaks() -> Peaks {
    Peaks { bytes_per_s: bytes_per_s(), flops_per_s: flops_per_s() }
}

fn bytes_per_s() -> f64 {
    // Not zeros, which would be one page of memory mapped everywhere.
    let mut numbers = Vec::with_capacity(READ);
    (0..READ).into_par_iter().map(|i| i as f32).collect_into_vec(&mut numbers);
    let seconds = best(|| {
        black_box(numbers.par_chunks(CHUNK).map(sum).sum::<f32>());
    });
    size_of_val(numbers.as_slice()) as f64 / seconds
}

fn sum(chunk: &[f32]) -> f32 {
    let mut sums = [0.0f32; 64];
    for part in chunk.chunks_exact(sums.len()) {
        for (sum, number) in sums.iter_mut().zip(part) {
            *sum += number;
        }
    }
    sums.iter().sum()
}

fn flops_per_s() -> f64 {
    let threads = rayon::current_num_threads();
    let simd = Simd::detect();
    let lanes = multiply_add(simd, 1).1;
    let seconds = best(|| {
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            black_box(multiply_add(simd, LENGTH));
        });
    });
    (2 * threads * CHAINS * lanes * LENGTH) as f64 / seconds
}

fn best(work: impl Fn()) -> f64 {
    let seconds = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(seconds).fold(f64::INFINITY, f64::min)
}

/// What products are made of: sums stay at 1, and no factor is known to the compiler.
fn factors() -> (f32, f32) {
    (black_box(0.999), black_box(0.001))
}

/// Runs every chain so many times. The mean of the sums, and lanes of each.
fn multiply_add(simd: Simd, length: usize) -> (f32, usize) {
    match simd {
        // SAFETY: `simd` comes from run-time detection.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => (unsafe { x86::avx512(length) }, 16),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => (unsafe { x86::avx2(length) }, 8),
        _ => (portable(length), 4),
    }
}

fn portable(length: usize) -> f32 {
    let (x, y) = factors();
    let mut sums = [[1.0f32; 4]; CHAINS];
    for _ in 0..length {
        for sum in sums.iter_mut().flatten() {
            *sum = *sum * x + y;
        }
    }
    sums.iter().flatten().sum::<f32>() / (4 * CHAINS) as f32
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, factors};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub fn avx512(length: usize) -> f32 {
        let (x, y) = factors();
        let (x, y) = (_mm512_set1_ps(x), _mm512_set1_ps(y));
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..length {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        sums.iter().map(|sum| _mm512_reduce_add_ps(*sum)).sum::<f32>() / (16 * CHAINS) as f32
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(length: usize) -> f32 {
        let (x, y) = factors();
        let (x, y) = (_mm256_set1_ps(x), _mm256_set1_ps(y));
        let mut sums = [_mm256_set1_ps(1.0); CHAINS];
        for _ in 0..length {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        let total = sums.into_iter().reduce(|a, b| _mm256_add_ps(a, b));
        // One lane stands for all eight, which are equal.
        total.map_or(0.0, |total| _mm256_cvtss_f32(total) / CHAINS as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_adds_the_same_products() {
        // The fixed point of s = 0.999 s + 0.001 is 1, where every sum starts.
        let paths = [Simd::detect(), Simd::Portable].map(|simd| multiply_add(simd, 1000).0);
        assert!(paths.iter().all(|mean| (mean - 1.0).abs() < 0.01), "{paths:?}");
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            assert!((multiply_add(Simd::Avx2, 1000).0 - 1.0).abs() < 0.01);
        }
        assert_eq!(sum(&[1.0; 256]), 256.0);
    }
}
