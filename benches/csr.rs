//! The CSR kernel alone: medians over weights that rotate through more memory than the caches hold.
//!
//! `cargo bench --bench csr` prints a line a shape, number of tokens and sparsity.

use sparsify_exp::execute::kernels::cpu::{CsrView, Simd, csr_kernel_name, csr_linear};
use sparsify_exp::sparse::{Columns, Csr, Pattern};
use std::time::Instant;

/// Copies of a weight are made until they take this much.
const ROTATED_BYTES: usize = 256 << 20;
const REPEATS: usize = 30;

fn random(i: usize) -> f32 {
    let mut h = i as u64 + 1;
    h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (h >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn main() {
    println!("{:>6} {:>6} {:>6} {:>9} {:>10}  kernel", "out", "in", "tokens", "sparsity", "median_us");
    for (rows, cols) in [(768, 768), (3072, 768), (4096, 4096)] {
        let weights: Vec<f32> = (0..rows * cols).map(random).collect();
        for sparsity in [0.3, 0.5, 0.7, 0.9] {
            let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| random(i + 77).abs() >= sparsity);
            let csr = match Csr::from_dense(&weights, &pattern) {
                Ok(csr) => csr,
                Err(error) => return println!("{error}"),
            };
            let copies = vec![csr.clone(); (ROTATED_BYTES / csr.bytes()).clamp(2, 64)];
            for tokens in [1, 16, 256] {
                let x: Vec<f32> = (0..tokens * cols).map(random).collect();
                println!(
                    "{rows:>6} {cols:>6} {tokens:>6} {sparsity:>9} {:>10.0}  {}",
                    median(&copies, &x, tokens),
                    csr_kernel_name(tokens, Simd::detect())
                );
            }
        }
    }
}

/// Microseconds of a product.
fn median(copies: &[Csr], x: &[f32], tokens: usize) -> f64 {
    let mut times: Vec<f64> = (0..REPEATS + 3)
        .map(|repeat| {
            let csr = &copies[repeat % copies.len()];
            let Columns::U16(columns) = csr.columns() else { unreachable!("these shapes have 16-bit columns") };
            // SAFETY: the arrays come from `Csr`.
            let view = unsafe { CsrView::new_unchecked(csr.cols(), csr.row_ptr(), columns, csr.values(), None) };
            let start = Instant::now();
            std::hint::black_box(csr_linear(&view, x, tokens, Simd::detect()));
            start.elapsed().as_secs_f64() * 1e6
        })
        .skip(3)
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
