//! A weight in the format that a kernel cell asks for, and the name of the kernel that multiplies it.

use super::session::bytes_per_number;
use crate::config::experiment::{Dtype, KernelFormat};
use crate::execute::{CsrWeight, SparseBackend};
use crate::model::{DenseWeight, LinearWeight};
use crate::sparse::{Csr, CsrError, Pattern};

/// Stores a weight, in memory of its own; and the bytes that it takes there.
///
/// # Shapes
/// - `weights`: `[out_features, in_features]`, as is the pattern, which `dense` does not look at
///
/// # Errors
/// When the format can't hold so many weights.
pub(super) fn build_weight<B: SparseBackend>(
    format: KernelFormat,
    weights: &[f32],
    pattern: &Pattern,
    dtype: Dtype,
    device: &B::Device,
) -> Result<(LinearWeight<B>, u64), CsrError> {
    let burn_dtype = super::session::burn_dtype(dtype);
    Ok(match format {
        KernelFormat::Dense => {
            let weight = DenseWeight::new(weights.into(), [pattern.rows(), pattern.cols()], burn_dtype, device);
            (LinearWeight::Dense(weight), weights.len() as u64 * bytes_per_number(dtype))
        }
        KernelFormat::Csr | KernelFormat::Bitmap | KernelFormat::Auto => {
            let weight = CsrWeight::new(Csr::from_dense(weights, pattern)?, None, burn_dtype, device);
            let bytes = weight.bytes() as u64;
            (LinearWeight::Csr(weight), bytes)
        }
    })
}

/// The code path that a weight takes with so many tokens.
pub(super) fn kernel_name<B: SparseBackend>(weight: &LinearWeight<B>, tokens: usize) -> String {
    match weight {
        LinearWeight::Dense(_) => "dense-burn".into(),
        LinearWeight::Csr(_) => B::csr_kernel(tokens),
    }
}
