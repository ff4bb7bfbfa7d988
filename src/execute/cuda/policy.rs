//! Which format of a layer is fastest on a GPU: tables of measurements, here and nowhere else.
//!
//! The figures are sparsities from which a format beats the dense product, cuBLAS where its kernels are in CUDA C++ (f16,
//! H100) and this program's own elsewhere (f16, H200: results/reference/kernels-cuda).

use crate::config::format::Format;
use crate::execute::backend::LayerShape;

/// From which sparsity on a format is faster than dense for up to this many tokens, in matrices of at least this many weights.
struct Row {
    tokens: usize,
    format: Format,
    large: f64,
    small: f64,
}

const NEVER: f64 = 2.0;
/// Weights of a large matrix: one that takes a GPU twice as long as to start and end a kernel.
const LARGE: usize = 32 << 20;

/// Kernels in CUDA C++.
const BY_HAND: [Row; 5] = [
    Row { tokens: 2, format: Format::Csr, large: 0.4, small: 0.4 },
    Row { tokens: 4, format: Format::Csr, large: 0.45, small: 0.5 },
    Row { tokens: 16, format: Format::Bitmap, large: 0.45, small: 0.55 },
    Row { tokens: 32, format: Format::Bitmap, large: 0.45, small: 0.65 },
    Row { tokens: 64, format: Format::Bitmap, large: 0.5, small: 0.92 },
];

/// Kernels in CubeCL: there, what matters is whether there are many rows.
const MANY_ROWS: usize = super::cube::MANY_ROWS;
/// For one token where there are many rows, and elsewhere.
const ONE_TOKEN_MANY_ROWS: f64 = 0.45;
const SPARSE_ENOUGH: f64 = 0.65;
/// Up to this many tokens at [`SPARSE_ENOUGH`], and where rows are few.
const SKINNY_TOKENS: usize = 16;
const FEW_TOKENS: usize = 64;

/// The fastest format; none is dense.
pub(super) fn fastest(layer: LayerShape, tokens: usize, by_hand: bool) -> Option<Format> {
    if by_hand {
        let row = BY_HAND.iter().find(|row| tokens <= row.tokens)?;
        let least = if layer.rows * layer.cols >= LARGE { row.large } else { row.small };
        return (layer.sparsity() >= least).then_some(row.format);
    }
    let least = match (tokens, layer.rows >= MANY_ROWS) {
        (0..=1, true) => ONE_TOKEN_MANY_ROWS,
        (..=SKINNY_TOKENS, _) | (..=FEW_TOKENS, false) => SPARSE_ENOUGH,
        _ => NEVER,
    };
    (layer.sparsity() >= least).then_some(Format::Csr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(rows: usize, cols: usize, sparsity: f64) -> LayerShape {
        LayerShape { rows, cols, kept: ((1.0 - sparsity) * (rows * cols) as f64) as usize }
    }

    #[test]
    fn more_sparsity_never_leads_back_to_dense() {
        for by_hand in [false, true] {
            for (tokens, rows) in [(1, 11008), (4, 4096), (16, 11008), (64, 4096), (256, 11008), (1000, 768)] {
                let forms = (0..=20).map(|step| fastest(layer(rows, 4096, f64::from(step) / 20.0), tokens, by_hand));
                let sparse: Vec<bool> = forms.map(|form| form.is_some()).collect();
                assert!(sparse.windows(2).all(|pair| pair[0] <= pair[1]), "{tokens} tokens, {rows} rows");
            }
        }
    }

    #[test]
    fn the_format_follows_the_tokens() {
        let of = |tokens| fastest(layer(11008, 4096, 0.7), tokens, true);
        assert_eq!([1, 4, 5, 64].map(of), [Format::Csr, Format::Csr, Format::Bitmap, Format::Bitmap].map(Some));
        assert_eq!(of(257), None);
        assert_eq!(fastest(layer(4096, 4096, 0.7), 64, true), None);
        assert_eq!(fastest(layer(11008, 4096, 0.5), 1, false), Some(Format::Csr));
        assert_eq!(fastest(layer(4096, 4096, 0.5), 1, false), None);
    }
}
