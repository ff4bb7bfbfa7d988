//! What the backends in host memory share: packed weights, and the CPU kernels on slices.

use super::backend::{Format, PackError, Packing};
use super::kernels::cpu::{
    Simd, bitmap_kernel_name, bitmap_linear, dense_kernel_name, sliced_kernel_name, sliced_linear,
};
use crate::sparse::{Bitmap, Pattern, Sliced};
use std::sync::Arc;

/// A sparse weight and its bias in host memory.
#[derive(Clone, Debug)]
pub struct HostWeight {
    matrix: Arc<Matrix>,
    bias: Option<Arc<[f32]>>,
}

#[derive(Debug)]
enum Matrix {
    Csr(Sliced),
    Bitmap(Bitmap),
}

impl HostWeight {
    /// Packs the kept weights.
    ///
    /// # Errors
    /// When the weights do not fit the format.
    pub(super) fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&[f32]>,
    ) -> Result<Packing<Self>, PackError> {
        let (matrix, bytes, layout) = match format {
            Format::Csr => {
                let sliced = Sliced::from_dense(weights, pattern)?;
                let bytes = sliced.bytes();
                (Matrix::Csr(sliced), bytes, "csr-sliced")
            }
            Format::Bitmap => {
                let bitmap = Bitmap::from_dense(weights, pattern)?;
                let bytes = bitmap.bytes();
                (Matrix::Bitmap(bitmap), bytes, "bitmap-panels")
            }
        };
        Ok(Packing { packed: Self { matrix: Arc::new(matrix), bias: bias.map(Into::into) }, bytes, layout })
    }

    /// Output features.
    pub(super) fn rows(&self) -> usize {
        match &*self.matrix {
            Matrix::Csr(sliced) => sliced.index().rows(),
            Matrix::Bitmap(bitmap) => bitmap.index().rows(),
        }
    }

    /// `y = x · Wᵀ + bias`, `[tokens, rows]`.
    pub(super) fn linear(&self, x: &[f32], tokens: usize) -> Vec<f32> {
        let (bias, simd) = (self.bias.as_deref(), Simd::detect());
        match &*self.matrix {
            Matrix::Csr(sliced) => sliced_linear(sliced, bias, x, tokens, simd),
            Matrix::Bitmap(bitmap) => bitmap_linear(bitmap, bias, x, tokens, simd),
        }
    }
}

/// The name of the CPU kernel for so many tokens.
pub(super) fn kernel(format: Option<Format>, tokens: usize) -> String {
    let simd = Simd::detect();
    match format {
        None => dense_kernel_name(tokens, simd),
        Some(Format::Csr) => sliced_kernel_name(tokens, simd),
        Some(Format::Bitmap) => bitmap_kernel_name(tokens, simd),
    }
}
