//! The op on NdArray: tensors are host memory, the CPU kernel reads them in place. f32 only.

use super::backend::{CsrWeight, Peaks, SparseBackend, WeightLayout};
use super::kernels::cpu::{Column, CsrView, Simd, csr_kernel_name, csr_linear, peaks};
use ::ndarray::{ArcArray, ArrayViewD, IxDyn};
use burn::tensor::{DType, TensorMetadata};
use burn_ndarray::{NdArray, NdArrayTensor, SharedArray};
use std::borrow::Cow;

impl SparseBackend for NdArray<f32> {
    const WEIGHT_LAYOUT: WeightLayout = WeightLayout::InOut;
    const ON_HOST: bool = true;

    fn csr_linear(x: NdArrayTensor, weight: &CsrWeight<Self>) -> NdArrayTensor {
        let tokens = x.shape()[0];
        let y = match &weight.columns {
            NdArrayTensor::U16(columns) => run(&x, tokens, slice(&columns.view()), weight),
            NdArrayTensor::U32(columns) => run(&x, tokens, slice(&columns.view()), weight),
            other => unreachable!("`CsrWeight` holds 16- or 32-bit columns, not {:?}", other.dtype()),
        };
        let y: SharedArray<f32> = ArcArray::from_shape_vec(IxDyn(&[tokens, weight.rows]), y)
            .expect("the kernel returns tokens * rows numbers");
        y.into()
    }

    fn csr_kernel(tokens: usize) -> String {
        csr_kernel_name(tokens, Simd::detect())
    }

    fn peaks(_device: &Self::Device, _dtype: DType) -> Peaks {
        peaks()
    }

    fn host_f32(tensor: &NdArrayTensor) -> Cow<'_, [f32]> {
        Cow::Owned(floats(tensor).iter().copied().collect())
    }
}

fn run<C: Column>(x: &NdArrayTensor, tokens: usize, columns: &[C], weight: &CsrWeight<NdArray<f32>>) -> Vec<f32> {
    let NdArrayTensor::U32(row_ptr) = &weight.row_ptr else { unreachable!("`CsrWeight` holds 32-bit row pointers") };
    let (x, row_ptr, values) = (floats(x), row_ptr.view(), floats(&weight.values));
    let x = x.as_standard_layout();
    let bias = weight.bias.as_ref().map(floats);
    // SAFETY: a `CsrWeight` is only made from a `Csr`, whose arrays are well formed.
    let view = unsafe {
        CsrView::new_unchecked(
            weight.cols,
            slice(&row_ptr),
            columns,
            slice(&values),
            bias.as_ref().map(|bias| slice(bias)),
        )
    };
    csr_linear(&view, x.as_slice().expect("a standard layout is a slice"), tokens, Simd::detect())
}

fn floats(tensor: &NdArrayTensor) -> ArrayViewD<'_, f32> {
    match tensor {
        NdArrayTensor::F32(storage) => storage.view(),
        other => unreachable!("this backend's floats are f32, not {:?}", other.dtype()),
    }
}

fn slice<'a, T>(view: &ArrayViewD<'a, T>) -> &'a [T] {
    view.to_slice().expect("one-dimensional tensors made from data are contiguous")
}
