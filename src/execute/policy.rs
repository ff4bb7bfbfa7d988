//! Which form of a layer is fastest on the CPU: a table of measurements, here and nowhere else.
//!
//! The figures are sparsities from which a form wins, read off `experiments/kernels-cpu.toml` (AVX-512) and
//! `cargo bench --bench parts` (the others, one shape). Shapes matter little beside tokens and sparsity, so the
//! tables have no axis for them. A change of the figures raises `KERNEL_POLICY_VERSION`.

use super::backend::LayerShape;
use super::kernels::cpu::Simd;
use crate::config::format::Format;

/// From which sparsity on a form is the fastest, for up to this many tokens.
struct Row {
    tokens: usize,
    bitmap_from: f64,
    csr_from: f64,
}

const NEVER: f64 = 2.0;

const AVX512: [Row; 4] = [
    Row { tokens: 3, bitmap_from: 0.1, csr_from: 0.8 },
    Row { tokens: 8, bitmap_from: 0.1, csr_from: 0.85 },
    Row { tokens: 24, bitmap_from: 0.1, csr_from: 0.5 },
    Row { tokens: usize::MAX, bitmap_from: NEVER, csr_from: 0.4 },
];

const AVX2: [Row; 3] = [
    Row { tokens: 3, bitmap_from: 0.3, csr_from: 0.6 },
    Row { tokens: 4, bitmap_from: 0.1, csr_from: 0.8 },
    Row { tokens: usize::MAX, bitmap_from: NEVER, csr_from: 0.5 },
];

const PORTABLE: [Row; 2] = [
    Row { tokens: 4, bitmap_from: NEVER, csr_from: 0.65 },
    Row { tokens: usize::MAX, bitmap_from: NEVER, csr_from: 0.1 },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sparsity_never_leads_back_to_dense() {
        for simd in [Simd::Avx512, Simd::Avx2, Simd::Portable] {
            for tokens in [1, 4, 16, 64, 1000] {
                let form =
                    |percent: usize| fastest(LayerShape { rows: 10, cols: 10, kept: 100 - percent }, tokens, simd);
                // Dense, then bitmap, then CSR, each at most once.
                let order = |form| [None, Some(Format::Bitmap), Some(Format::Csr)].iter().position(|f| *f == form);
                let forms: Vec<Option<usize>> = (0..=100).map(|percent| order(form(percent))).collect();
                assert!(forms.is_sorted(), "{simd:?}, {tokens} tokens: {forms:?}");
                assert_eq!((forms[0], forms[100]), (Some(0), Some(2)), "{simd:?}, {tokens} tokens");
            }
        }
    }
}
