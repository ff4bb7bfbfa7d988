//! Which form of a layer is fastest on the CPU: a table of measurements, here and nowhere else.
//!
//! The figures are sparsities from which a form wins, read off `kernels.csv` of `experiments/kernels-cpu.toml`.
//! Shapes matter little beside tokens and sparsity, so the table has no axis for them.

use super::backend::{Format, LayerShape};
use super::kernels::cpu::Simd;

/// From which sparsity on a form is the fastest, for up to so many tokens.
struct Row {
    tokens: usize,
    bitmap_from: f64,
    csr_from: f64,
}

const NEVER: f64 = 2.0;

const AVX512: [Row; 4] = [
    Row { tokens: 3, bitmap_from: 0.15, csr_from: 0.75 },
    Row { tokens: 16, bitmap_from: 0.2, csr_from: 0.6 },
    Row { tokens: 64, bitmap_from: NEVER, csr_from: 0.5 },
    Row { tokens: usize::MAX, bitmap_from: NEVER, csr_from: 0.45 },
];

const AVX2: [Row; 2] =
    [Row { tokens: 3, bitmap_from: 0.3, csr_from: 0.6 }, Row { tokens: usize::MAX, bitmap_from: NEVER, csr_from: 0.5 }];

const PORTABLE: [Row; 2] = [
    Row { tokens: 3, bitmap_from: NEVER, csr_from: 0.5 },
    Row { tokens: usize::MAX, bitmap_from: NEVER, csr_from: 0.4 },
];

/// The fastest form; none is dense.
pub(super) fn fastest(layer: LayerShape, tokens: usize, simd: Simd) -> Option<Format> {
    let table: &[Row] = match simd {
        Simd::Avx512 => &AVX512,
        Simd::Avx2 => &AVX2,
        Simd::Portable => &PORTABLE,
    };
    let row = table.iter().find(|row| tokens <= row.tokens)?;
    match layer.sparsity() {
        sparsity if sparsity >= row.csr_from => Some(Format::Csr),
        sparsity if sparsity >= row.bitmap_from => Some(Format::Bitmap),
        _ => None,
    }
}
