//! A weight in the format that a kernel cell asks for.

use crate::config::experiment::{Dtype, KernelFormat};
use crate::execute::{ColumnWeight, LayerShape, PackError, SparseBackend, SparseWeight};
use crate::model::{DenseWeight, Linear, LinearWeight};
use crate::run::backend::{burn_dtype, bytes_per_number};
use crate::sparse::Pattern;
use burn::tensor::Tensor;

/// A stored weight of a kernel cell.
pub(super) enum KernelWeight<B: SparseBackend> {
    /// That of a model's linear.
    Linear(Linear<B>),
    /// All weights, by columns; small inputs count as zero.
    Columns(ColumnWeight<B>),
}

impl<B: SparseBackend> KernelWeight<B> {
    /// The product; only columns look at the threshold.
    ///
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    pub fn forward(&self, x: Tensor<B, 2>, threshold: f32) -> Tensor<B, 2> {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Columns(columns) => columns.forward(x, threshold),
        }
    }

    /// The name of the kernel for this many tokens.
    pub fn kernel(&self, tokens: usize) -> String {
        match self {
            Self::Linear(linear) => linear.weight.kernel(tokens),
            Self::Columns(_) => B::threshold_kernel().into(),
        }
    }
}

/// Stores a weight, in memory of its own; and the bytes that it takes there. `auto` takes what is fastest
/// for this many tokens.
///
/// # Shapes
/// - `weights`: `[out_features, in_features]`, as is the pattern, which `dense` and `threshold` do not look at
///
/// # Errors
/// When the format can't hold that many weights, or the backend lacks it.
pub(super) fn build_weight<B: SparseBackend>(
    format: KernelFormat,
    weights: &[f32],
    pattern: &Pattern,
    tokens: usize,
    dtype: Dtype,
    device: &B::Device,
) -> Result<(KernelWeight<B>, u64), PackError> {
    let linear = |weight| KernelWeight::Linear(Linear { weight, bias: None });
    let shape = LayerShape { rows: pattern.rows(), cols: pattern.cols(), kept: pattern.kept() };
    let format = match format {
        KernelFormat::Dense => None,
        KernelFormat::Sparse(format) => Some(format),
        KernelFormat::Auto => B::fastest(shape, tokens),
        KernelFormat::Threshold => {
            let columns = ColumnWeight::new(weights, [shape.rows, shape.cols], burn_dtype(dtype), device);
            let bytes = columns.bytes() as u64;
            return Ok((KernelWeight::Columns(columns), bytes));
        }
    };
    let Some(format) = format else {
        let weight = DenseWeight::new(weights.into(), [shape.rows, shape.cols], burn_dtype(dtype), device);
        return Ok((linear(LinearWeight::Dense(weight)), weights.len() as u64 * bytes_per_number(dtype)));
    };
    let weight = SparseWeight::new(format, weights, pattern, None, burn_dtype(dtype), tokens, device)?;
    let bytes = weight.bytes() as u64;
    Ok((linear(LinearWeight::Sparse(weight)), bytes))
}
