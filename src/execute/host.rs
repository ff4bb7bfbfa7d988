//! What the backends in host memory share: packed weights, and the CPU kernels on slices.

use super::backend::{PackError, Packing, Peaks};
use super::kernels::cpu::{self, Simd, SparseKernels, Values, dense_kernel_name, peaks as cpu_peaks};
use crate::config::format::Format;
use crate::sparse::Pattern;
use burn::tensor::DType;
use std::sync::Arc;

/// A sparse weight and its bias in host memory.
#[derive(Clone, Debug)]
pub struct HostWeight {
    matrix: Arc<dyn SparseKernels>,
    bias: Option<Arc<[f32]>>,
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
        let values = if dtype == DType::BF16 { Values::Bf16 } else { Values::F32 };
        let matrix = cpu::pack(format, weights, pattern, values)?;
        let matrix = matrix.ok_or(PackError::NoKernel { format, backend: "CPU" })?;
        let (bytes, layout) = (matrix.bytes(), matrix.layout());
        Ok(Packing { packed: Self { matrix, bias: bias.map(Into::into) }, bytes, layout })
    }

    /// The same weight in memory of its own.
    pub(super) fn copied(&self) -> Self {
        Self { matrix: self.matrix.copied(), bias: self.bias.clone() }
    }

    /// Output features.
    pub(super) fn rows(&self) -> usize {
        self.matrix.shape()[0]
    }

    /// `y = x · Wᵀ + bias`, `[tokens, rows]`.
    pub(super) fn linear(&self, x: &[f32], tokens: usize) -> Vec<f32> {
        cpu::sparse_linear(&*self.matrix, self.bias.as_deref(), x, tokens, Simd::detect())
    }

    /// The name of the kernel for this many tokens.
    pub(super) fn kernel(&self, tokens: usize) -> String {
        self.matrix.kernel(tokens, Simd::detect())
    }
}

/// The name of the dense CPU kernel for this many tokens.
pub(super) fn dense_kernel(tokens: usize) -> String {
    dense_kernel_name(tokens, Simd::detect())
}

/// What this CPU does at best: its arithmetic is f32 whatever weights are stored as.
pub(super) fn peaks() -> Peaks {
    let (bytes_per_s, flops_per_s) = cpu_peaks(Simd::detect());
    Peaks { bytes_per_s, flops_per_s }
}
