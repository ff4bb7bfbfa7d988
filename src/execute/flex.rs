//! The op on Flex: tensors are host memory, the CPU kernel reads them in place.

use super::backend::{CsrWeight, Peaks, SparseBackend, WeightLayout};
use super::kernels::cpu::{Column, CsrView, Simd, csr_kernel_name, csr_linear, peaks};
use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use std::borrow::Cow;

impl SparseBackend for Flex {
    const WEIGHT_LAYOUT: WeightLayout = WeightLayout::OutIn;
    const ON_HOST: bool = true;

    fn csr_linear(x: FlexTensor, weight: &CsrWeight<Self>) -> FlexTensor {
        let x = if x.is_contiguous() { x } else { x.to_contiguous() };
        let tokens = x.layout().shape()[0];
        let y = match weight.columns.dtype() {
            DType::U16 => run(&x, tokens, weight.columns.storage::<u16>(), weight),
            _ => run(&x, tokens, weight.columns.storage::<u32>(), weight),
        };
        FlexTensor::new(Bytes::from_elems(y), Layout::contiguous(Shape::new([tokens, weight.rows])), DType::F32)
    }

    fn csr_kernel(tokens: usize) -> String {
        csr_kernel_name(tokens, Simd::detect())
    }

    fn peaks(_device: &Self::Device, _dtype: DType) -> Peaks {
        peaks()
    }

    fn host_f32(tensor: &FlexTensor) -> Cow<'_, [f32]> {
        match tensor.as_slice::<f32>() {
            Some(slice) if tensor.is_contiguous() => Cow::Borrowed(slice),
            _ => Cow::Owned(tensor.to_contiguous().storage::<f32>().to_vec()),
        }
    }
}

fn run<C: Column>(x: &FlexTensor, tokens: usize, columns: &[C], weight: &CsrWeight<Flex>) -> Vec<f32> {
    let bias = weight.bias.as_ref().map(|bias| bias.storage());
    // SAFETY: a `CsrWeight` is only made from a `Csr`, whose arrays are well formed.
    let view = unsafe {
        CsrView::new_unchecked(weight.cols, weight.row_ptr.storage(), columns, weight.values.storage(), bias)
    };
    csr_linear(&view, x.storage(), tokens, Simd::detect())
}
