//! A weight in the format that a kernel cell asks for.

use super::session::{burn_dtype, bytes_per_number};
use crate::config::experiment::{Dtype, KernelFormat};
use crate::execute::{Format, LayerShape, PackError, SparseBackend, SparseWeight};
use crate::model::{DenseWeight, LinearWeight};
use crate::sparse::Pattern;

/// Stores a weight, in memory of its own; and the bytes that it takes there. `auto` takes what is fastest
/// for so many tokens.
///
/// # Shapes
/// - `weights`: `[out_features, in_features]`, as is the pattern, which `dense` does not look at
///
/// # Errors
/// When the format can't hold so many weights, or the backend lacks it.
pub(super) fn build_weight<B: SparseBackend>(
    format: KernelFormat,
    weights: &[f32],
    pattern: &Pattern,
    tokens: usize,
    dtype: Dtype,
    device: &B::Device,
) -> Result<(LinearWeight<B>, u64), PackError> {
    let shape = LayerShape { rows: pattern.rows(), cols: pattern.cols(), kept: pattern.kept() };
    let format = match format {
        KernelFormat::Dense => None,
        KernelFormat::Csr => Some(Format::Csr),
        KernelFormat::Bitmap => Some(Format::Bitmap),
        KernelFormat::Auto => B::fastest(shape, tokens),
    };
    let Some(format) = format else {
        let weight = DenseWeight::new(weights.into(), [shape.rows, shape.cols], burn_dtype(dtype), device);
        return Ok((LinearWeight::Dense(weight), weights.len() as u64 * bytes_per_number(dtype)));
    };
    let weight = SparseWeight::new(format, weights, pattern, None, burn_dtype(dtype), device)?;
    let bytes = weight.bytes() as u64;
    Ok((LinearWeight::Sparse(weight), bytes))
}
