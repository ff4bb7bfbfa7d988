//! What the backends in host memory share: packed weights, and the CPU kernels on slices.

use super::backend::{Format, PackError, Packing, Peaks};
use super::kernels::cpu::{
    Simd, bitmap_kernel_name, bitmap_linear, bitmap_pairs_linear, dense_kernel_name, peaks as cpu_peaks,
    sell_kernel_name, sell_linear,
};
use crate::sparse::{Bitmap, BitmapPairs, Pattern, Sell};
use burn::tensor::DType;
use half::bf16;
use std::sync::Arc;

/// A sparse weight and its bias in host memory.
#[derive(Clone, Debug)]
pub struct HostWeight {
    matrix: Arc<Matrix>,
    bias: Option<Arc<[f32]>>,
}

#[derive(Clone, Debug)]
enum Matrix {
    Csr(Sell<f32>),
    CsrBf16(Sell<bf16>),
    Bitmap(Bitmap),
    BitmapBf16(BitmapPairs),
}

impl HostWeight {
    /// Packs the kept weights: as bf16 where that is the dtype, else as f32.
    ///
    /// # Errors
    /// When the weights do not fit the format.
    pub(super) fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&[f32]>,
        dtype: DType,
    ) -> Result<Packing<Self>, PackError> {
        let (matrix, layout) = match (format, dtype) {
            (Format::Csr, DType::BF16) => (Matrix::CsrBf16(Sell::from_dense(weights, pattern)?), "csr-sliced"),
            (Format::Csr, _) => (Matrix::Csr(Sell::from_dense(weights, pattern)?), "csr-sliced"),
            (Format::Bitmap, DType::BF16) => {
                (Matrix::BitmapBf16(BitmapPairs::from_dense(weights, pattern)?), "bitmap-pairs")
            }
            (Format::Bitmap, _) => (Matrix::Bitmap(Bitmap::from_dense(weights, pattern)?), "bitmap-panels"),
        };
        let bytes = match &matrix {
            Matrix::Csr(sell) => sell.bytes(),
            Matrix::CsrBf16(sell) => sell.bytes(),
            Matrix::Bitmap(bitmap) => bitmap.bytes(),
            Matrix::BitmapBf16(bitmap) => bitmap.bytes(),
        };
        Ok(Packing { packed: Self { matrix: Arc::new(matrix), bias: bias.map(Into::into) }, bytes, layout })
    }

    /// The same weight in memory of its own.
    pub(super) fn copied(&self) -> Self {
        Self { matrix: Arc::new(Matrix::clone(&self.matrix)), bias: self.bias.clone() }
    }

    /// Output features.
    pub(super) fn rows(&self) -> usize {
        match &*self.matrix {
            Matrix::Csr(sell) => sell.index().rows(),
            Matrix::CsrBf16(sell) => sell.index().rows(),
            Matrix::Bitmap(bitmap) => bitmap.index().rows(),
            Matrix::BitmapBf16(bitmap) => bitmap.rows(),
        }
    }

    /// `y = x · Wᵀ + bias`, `[tokens, rows]`.
    pub(super) fn linear(&self, x: &[f32], tokens: usize) -> Vec<f32> {
        let (bias, simd) = (self.bias.as_deref(), Simd::detect());
        match &*self.matrix {
            Matrix::Csr(sell) => sell_linear(sell, bias, x, tokens, simd),
            Matrix::CsrBf16(sell) => sell_linear(sell, bias, x, tokens, simd),
            Matrix::Bitmap(bitmap) => bitmap_linear(bitmap, bias, x, tokens, simd),
            Matrix::BitmapBf16(bitmap) => bitmap_pairs_linear(bitmap, bias, x, tokens, simd),
        }
    }

    /// The name of the kernel for so many tokens.
    pub(super) fn kernel(&self, tokens: usize) -> String {
        match &*self.matrix {
            Matrix::Csr(_) | Matrix::CsrBf16(_) => sell_kernel_name(tokens, Simd::detect()),
            Matrix::Bitmap(_) | Matrix::BitmapBf16(_) => bitmap_kernel_name(tokens, Simd::detect()),
        }
    }
}

/// The name of the dense CPU kernel for so many tokens.
pub(super) fn dense_kernel(tokens: usize) -> String {
    dense_kernel_name(tokens, Simd::detect())
}

/// What this CPU does at best: its arithmetic is f32 whatever weights are stored as.
pub(super) fn peaks() -> Peaks {
    let (bytes_per_s, flops_per_s) = cpu_peaks(Simd::detect());
    Peaks { bytes_per_s, flops_per_s }
}
