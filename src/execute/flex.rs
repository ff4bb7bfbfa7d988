//! The ops on Flex: tensors are host memory, the CPU kernels read them in place. f32 only.

use super::backend::{Format, LayerShape, PackError, Packing, SparseBackend};
use super::host::{self, HostWeight};
use super::kernels::cpu::{Simd, dense_linear};
use super::policy;
use crate::sparse::Pattern;
use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexDevice, FlexTensor, Layout};
use std::borrow::Cow;

impl SparseBackend for Flex {
    type Packed = HostWeight;
    const ON_HOST: bool = true;

    fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&FlexTensor>,
        _dtype: DType,
        _device: &FlexDevice,
    ) -> Result<Packing<HostWeight>, PackError> {
        HostWeight::pack(format, weights, pattern, bias.map(Self::host_f32).as_deref())
    }

    fn sparse_linear(x: FlexTensor, weight: &HostWeight) -> FlexTensor {
        let tokens = x.layout().shape()[0];
        tensor(weight.linear(&Self::host_f32(&x), tokens), tokens, weight.rows())
    }

    fn dense_linear(x: FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
        let (tokens, shape) = (x.layout().shape()[0], weight.layout().shape());
        let shape = [shape[0], shape[1]];
        let bias = bias.map(Self::host_f32);
        let (x, weights) = (Self::host_f32(&x), Self::host_f32(weight));
        tensor(dense_linear(&weights, shape, bias.as_deref(), &x, tokens, Simd::detect()), tokens, shape[0])
    }

    fn kernel(format: Option<Format>, tokens: usize) -> String {
        host::kernel(format, tokens)
    }

    fn fastest(layer: LayerShape, tokens: usize) -> Option<Format> {
        policy::fastest(layer, tokens, Simd::detect())
    }

    fn host_f32(tensor: &FlexTensor) -> Cow<'_, [f32]> {
        match tensor.as_slice::<f32>() {
            Some(slice) if tensor.is_contiguous() => Cow::Borrowed(slice),
            _ => Cow::Owned(tensor.to_contiguous().storage::<f32>().to_vec()),
        }
    }
}

fn tensor(numbers: Vec<f32>, rows: usize, cols: usize) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(numbers), Layout::contiguous(Shape::new([rows, cols])), DType::F32)
}
