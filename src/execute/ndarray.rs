//! The ops on NdArray: tensors are host memory, the CPU kernels read them in place. f32 only.

use super::backend::{Fastest, LayerShape, PackError, PackFor, Packing, Peaks, SparseBackend};
use super::convert::ReadError;
use super::host::{self, HostWeight};
use super::kernels::cpu::{Simd, dense_linear};
use super::policy;
use crate::config::format::Format;
use crate::sparse::Pattern;
use ::ndarray::{ArcArray, ArrayViewD, IxDyn};
use burn::tensor::{DType, TensorMetadata};
use burn_ndarray::{NdArray, NdArrayDevice, NdArrayTensor, SharedArray};
use std::borrow::Cow;

impl SparseBackend for NdArray<f32> {
    type Packed = HostWeight;
    const ON_HOST: bool = true;

    fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&NdArrayTensor>,
        dtype: DType,
        _for_use: PackFor,
        _device: &NdArrayDevice,
    ) -> Result<Packing<HostWeight>, PackError> {
        HostWeight::pack(format, weights, pattern, bias.map(numbers).as_deref(), dtype)
    }

    fn copied(weight: &HostWeight) -> HostWeight {
        weight.copied()
    }

    fn sparse_linear(x: NdArrayTensor, weight: &HostWeight) -> NdArrayTensor {
        let tokens = x.shape()[0];
        tensor(weight.linear(&numbers(&x), tokens), tokens, weight.rows())
    }

    fn dense_linear(x: NdArrayTensor, weight: &NdArrayTensor, bias: Option<&NdArrayTensor>) -> NdArrayTensor {
        let (tokens, shape) = (x.shape()[0], weight.shape());
        let shape = [shape[0], shape[1]];
        let bias = bias.map(numbers);
        let (x, weights) = (numbers(&x), numbers(weight));
        tensor(dense_linear(&weights, shape, bias.as_deref(), &x, tokens, Simd::detect()), tokens, shape[0])
    }

    fn sparse_kernel(weight: &HostWeight, tokens: usize) -> String {
        weight.kernel(tokens)
    }

    fn dense_kernel(_weight: &NdArrayTensor, tokens: usize) -> String {
        host::dense_kernel(tokens)
    }

    fn fastest(layer: LayerShape, tokens: usize, _dtype: DType, _device: &NdArrayDevice) -> Fastest {
        policy::fastest(layer, tokens, Simd::detect()).into()
    }

    fn peaks(_device: &Self::Device, _dtype: DType) -> Result<Peaks, String> {
        Ok(host::peaks())
    }

    fn host_f32(tensor: &NdArrayTensor) -> Result<Cow<'_, [f32]>, ReadError> {
        Ok(numbers(tensor))
    }
}

/// A tensor's numbers in row-major order, in place where they are in that order.
fn numbers(tensor: &NdArrayTensor) -> Cow<'_, [f32]> {
    let view = floats(tensor);
    // A view's own lifetime would end here; its slice lives as long as the tensor.
    match view.to_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().copied().collect()),
    }
}

fn tensor(numbers: Vec<f32>, rows: usize, cols: usize) -> NdArrayTensor {
    let array: SharedArray<f32> =
        ArcArray::from_shape_vec(IxDyn(&[rows, cols]), numbers).expect("a kernel returns tokens * rows numbers");
    array.into()
}

fn floats(tensor: &NdArrayTensor) -> ArrayViewD<'_, f32> {
    match tensor {
        NdArrayTensor::F32(storage) => storage.view(),
        other => unreachable!("this backend's floats are f32, not {:?}", other.dtype()),
    }
}
