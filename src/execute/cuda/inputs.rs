//! What kernels read and write: rows of inputs as wide as they need them, where their copies can begin.

use super::raw::script;
use super::weight::CudaWeight;
use super::{Cuda, Tensor, outputs};
use burn::tensor::{Shape, Tensor as BurnTensor, TensorMetadata, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;

/// Columns that a step of the tile kernels takes.
pub(super) const SPAN: usize = 64;

/// The same numbers where copies of 16 bytes can begin.
pub(super) fn from_16_bytes(x: Tensor) -> Tensor {
    if x.handle.offset_start.unwrap_or(0).is_multiple_of(16) {
        return x;
    }
    script::leave();
    x.copy()
}

/// The same numbers without gaps.
pub(super) fn contiguous(x: Tensor) -> Tensor {
    if !x.is_contiguous() {
        script::leave();
    }
    into_contiguous(x)
}

/// Room for what a weight makes of `x`, `[tokens, rows]`.
pub(super) fn output(x: &Tensor, tokens: usize, weight: &CudaWeight) -> Tensor {
    outputs::output(x, Shape::new([tokens, weight.rows]), x.dtype)
}

/// `x` `[tokens, cols]` with zeros up to a width.
pub(super) fn padded(x: Tensor, cols: usize, width: usize) -> Tensor {
    if cols == width {
        return x;
    }
    script::leave();
    let tokens = x.shape()[0];
    let x = BurnTensor::<Cuda, 2>::from_primitive(TensorPrimitive::Float(x));
    let wide = BurnTensor::<Cuda, 2>::zeros([tokens, width], (&x.device(), x.dtype()));
    into_contiguous(wide.slice_assign([0..tokens, 0..cols], x).into_primitive().tensor())
}

/// The two dimensions of a matrix.
pub(super) fn two(tensor: &Tensor) -> [usize; 2] {
    let shape = tensor.shape();
    [shape[0], shape[1]]
}
