//! Vectors, units and tensors of launches in CubeCL.

use super::{Cuda, Tensor, by_hand, outputs};
use burn::tensor::{Shape, Tensor as BurnTensor, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;

/// Lanes of a plane.
pub(super) const PLANE: usize = 32;
/// Bytes that a lane loads at once.
const LOAD: usize = 16;

pub(super) type Client = ComputeClient<CudaRuntime>;

/// Numbers that a lane loads at once, of which each of `counts` is a multiple.
pub(super) fn lanes(tensor: &Tensor, counts: &[usize]) -> usize {
    let mut lanes = LOAD / tensor.dtype.size();
    while counts.iter().any(|count| !count.is_multiple_of(lanes)) {
        lanes /= 2;
    }
    lanes
}

/// Units for this many pieces of work: whole planes, `most` at most.
pub(super) fn units(work: usize, most: usize) -> u32 {
    (work.div_ceil(PLANE) * PLANE).clamp(PLANE, most) as u32
}

pub(super) fn client(tensor: &Tensor) -> Client {
    tensor.client.clone()
}

pub(super) fn flat<const D: usize>(tensor: BurnTensor<Cuda, D>) -> Tensor {
    let tensor = tensor.into_primitive().tensor();
    if !tensor.is_contiguous() {
        by_hand::otherwise();
    }
    into_contiguous(tensor)
}

/// A matrix whose rows are contiguous, though there may be gaps between them.
pub(super) fn by_rows(table: Tensor) -> Tensor {
    if table.meta.strides()[1] == 1 { table } else { into_contiguous(table) }
}

pub(super) fn like(tensor: &Tensor, shape: [usize; 2]) -> Tensor {
    outputs::output(tensor, Shape::new(shape), tensor.dtype)
}

pub(super) fn burn(tensor: Tensor) -> BurnTensor<Cuda, 2> {
    BurnTensor::from_primitive(TensorPrimitive::Float(tensor))
}
