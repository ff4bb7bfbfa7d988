//! The ops on Flex: tensors are host memory, the CPU kernels read them in place. Weights may be f32 or bf16;
//! bf16 activations are widened on the way in and rounded on the way out.

use super::backend::{Fastest, LayerShape, PackError, PackFor, Packing, Peaks, SparseBackend};
use super::burn_ops;
use super::convert::ReadError;
use super::decode::{Activation, DecodeOps, Norm};
use super::host::{self, HostWeight};
use super::kernels::cpu::{NormRows, Simd, activate, dense_linear, norm_rows};
use super::policy;
use crate::config::format::Format;
use crate::sparse::{Pattern, Value};
use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Shape, Tensor, TensorPrimitive};
use burn_flex::{FlexDevice, FlexTensor, Layout};
use half::bf16;
use std::borrow::Cow;

impl SparseBackend for Flex {
    type Packed = HostWeight;
    const ON_HOST: bool = true;

    fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&FlexTensor>,
        dtype: DType,
        _for_use: PackFor,
        _device: &FlexDevice,
    ) -> Result<Packing<HostWeight>, PackError> {
        HostWeight::pack(format, weights, pattern, bias.map(numbers).as_deref(), dtype)
    }

    fn copied(weight: &HostWeight) -> HostWeight {
        weight.copied()
    }

    fn sparse_linear(x: FlexTensor, weight: &HostWeight) -> FlexTensor {
        let tokens = x.layout().shape()[0];
        tensor(weight.linear(&numbers(&x), tokens), tokens, weight.rows(), x.dtype())
    }

    fn dense_linear(x: FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
        let (tokens, shape) = (x.layout().shape()[0], weight.layout().shape());
        let shape = [shape[0], shape[1]];
        let (dtype, simd) = (x.dtype(), Simd::detect());
        let (bias, x) = (bias.map(numbers), numbers(&x));
        let bias = bias.as_deref();
        let y = match weight.as_slice::<bf16>() {
            Some(weights) if weight.is_contiguous() => dense_linear(weights, shape, bias, &x, tokens, simd),
            _ => dense_linear(&numbers(weight), shape, bias, &x, tokens, simd),
        };
        tensor(y, tokens, shape[0], dtype)
    }

    fn sparse_kernel(weight: &HostWeight, tokens: usize) -> String {
        weight.kernel(tokens)
    }

    fn dense_kernel(_weight: &FlexTensor, tokens: usize) -> String {
        host::dense_kernel(tokens)
    }

    fn fastest(layer: LayerShape, tokens: usize, _dtype: DType, _device: &FlexDevice) -> Fastest {
        policy::fastest(layer, tokens, Simd::detect()).into()
    }

    fn peaks(_device: &Self::Device, _dtype: DType) -> Result<Peaks, String> {
        Ok(host::peaks())
    }

    fn host_f32(tensor: &FlexTensor) -> Result<Cow<'_, [f32]>, ReadError> {
        Ok(numbers(tensor))
    }
}

impl DecodeOps for Flex {
    fn norm(x: Tensor<Self, 2>, added: Vec<Tensor<Self, 2>>, norm: Norm<'_, Self>) -> [Tensor<Self, 2>; 2] {
        if x.dtype() != DType::F32 {
            return burn_ops::norm(x, added, norm);
        }
        let sum = added.into_iter().fold(x, |sum, added| sum + added);
        let gain = norm.gain.clone().into_primitive().tensor();
        let bias = norm.bias.map(|bias| bias.clone().into_primitive().tensor());
        let (gain, bias) = (numbers(&gain), bias.as_ref().map(numbers));
        let rows = NormRows { kind: norm.kind, gain: &gain, bias: bias.as_deref() };
        let normed = map(&sum, |x| norm_rows(x, rows, Simd::detect()));
        [sum, normed]
    }

    fn activate(function: Activation, x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        match x.dtype() {
            DType::F32 => map(&x, |x| activate(function, x, None, Simd::detect())),
            _ => burn_ops::activate(function, x),
        }
    }

    fn gate(function: Activation, x: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        if x.dtype() != DType::F32 {
            return burn_ops::activate(function, x) * up;
        }
        let up = up.into_primitive().tensor();
        map(&x, |x| activate(function, x, Some(&numbers(&up)), Simd::detect()))
    }
}

/// A tensor's numbers in row-major order, in place where they are f32 in that order.
fn numbers(tensor: &FlexTensor) -> Cow<'_, [f32]> {
    if tensor.dtype() == DType::BF16 {
        let tensor = tensor.to_contiguous();
        return Cow::Owned(tensor.storage::<bf16>().iter().map(|number| number.to_f32()).collect());
    }
    match tensor.as_slice::<f32>() {
        Some(slice) if tensor.is_contiguous() => Cow::Borrowed(slice),
        _ => Cow::Owned(tensor.to_contiguous().storage::<f32>().to_vec()),
    }
}

/// A matrix of new numbers, as large as `x`.
fn map(x: &Tensor<Flex, 2>, work: impl FnOnce(&[f32]) -> Vec<f32>) -> Tensor<Flex, 2> {
    let [rows, cols] = x.dims();
    let x = x.clone().into_primitive().tensor();
    Tensor::from_primitive(TensorPrimitive::Float(tensor(work(&numbers(&x)), rows, cols, DType::F32)))
}

fn tensor(values: Vec<f32>, rows: usize, cols: usize, dtype: DType) -> FlexTensor {
    let layout = Layout::contiguous(Shape::new([rows, cols]));
    if dtype == DType::BF16 {
        let values: Vec<bf16> = values.into_iter().map(bf16::of).collect();
        return FlexTensor::new(Bytes::from_elems(values), layout, dtype);
    }
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}
