//! A linear layer, and the one place where dense and sparse execution part.

use crate::execute::{CsrWeight, SparseBackend, WeightLayout};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, Tensor, TensorData, TensorMetadata, TensorPrimitive};
use std::borrow::Cow;

/// `y = x · Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear<B: SparseBackend> {
    /// The weight, in one of the formats.
    pub weight: LinearWeight<B>,
    /// `[out_features]`
    pub bias: Option<Tensor<B, 1>>,
}

/// A linear's weight, in one of the formats.
#[derive(Clone, Debug)]
pub enum LinearWeight<B: SparseBackend> {
    /// Every weight, zeros in place.
    Dense(DenseWeight<B>),
    /// Compressed sparse rows; the bias is inside, since the kernel adds it.
    Csr(CsrWeight<B>),
}

/// A dense weight, in the order of [`SparseBackend::WEIGHT_LAYOUT`].
///
/// Held as the backend's own tensor, which lets [`DenseWeight::host`] borrow its numbers.
#[derive(Clone, Debug)]
pub struct DenseWeight<B: SparseBackend>(FloatTensor<B>);

impl<B: SparseBackend> DenseWeight<B> {
    /// Takes `[out_features, in_features]` numbers in row-major order.
    pub fn new(weights: Cow<'_, [f32]>, shape: [usize; 2], dtype: DType, device: &B::Device) -> Self {
        let [out, inp] = shape;
        let tensor = match B::WEIGHT_LAYOUT {
            WeightLayout::OutIn => tensor::<B, 2>(weights.into_owned(), shape, dtype, device),
            WeightLayout::InOut => tensor::<B, 2>(transpose(&weights, out, inp), [inp, out], dtype, device),
        };
        Self(tensor.into_primitive().tensor())
    }

    /// Shares a table `[out_features, in_features]` that is already on the device, where the layouts agree.
    pub fn shared(table: &Tensor<B, 2>) -> Self {
        let weight = match B::WEIGHT_LAYOUT {
            WeightLayout::OutIn => table.clone(),
            // A lazy transpose would be copied on every product, so it is copied once.
            WeightLayout::InOut => {
                let [out, inp] = table.dims();
                let device = table.device();
                let numbers = table.clone().into_primitive().tensor();
                let transposed = transpose(&B::host_f32(&numbers), out, inp);
                tensor(transposed, [inp, out], table.dtype(), &device)
            }
        };
        Self(weight.into_primitive().tensor())
    }

    /// `[out_features, in_features]` numbers in row-major order, borrowed where the backend holds them so.
    pub fn host(&self) -> Cow<'_, [f32]> {
        let numbers = B::host_f32(&self.0);
        match B::WEIGHT_LAYOUT {
            WeightLayout::OutIn => numbers,
            WeightLayout::InOut => {
                let shape = self.0.shape();
                Cow::Owned(transpose(&numbers, shape[0], shape[1]))
            }
        }
    }

    /// `x · Wᵀ`
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let weight = Tensor::from_primitive(TensorPrimitive::Float(self.0.clone()));
        match B::WEIGHT_LAYOUT {
            WeightLayout::OutIn => x.matmul(weight.transpose()),
            WeightLayout::InOut => x.matmul(weight),
        }
    }
}

impl<B: SparseBackend> Linear<B> {
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match (&self.weight, &self.bias) {
            (LinearWeight::Dense(weight), Some(bias)) => weight.forward(x) + bias.clone().unsqueeze(),
            (LinearWeight::Dense(weight), None) => weight.forward(x),
            (LinearWeight::Csr(weight), _) => {
                let x = x.into_primitive().tensor();
                Tensor::from_primitive(TensorPrimitive::Float(B::csr_linear(x, weight)))
            }
        }
    }
}

/// A tensor of host numbers.
pub(super) fn tensor<B: SparseBackend, const D: usize>(
    numbers: Vec<f32>,
    shape: [usize; D],
    dtype: DType,
    device: &B::Device,
) -> Tensor<B, D> {
    let data = TensorData::new(numbers, shape);
    // Converting f32 to f32 would copy.
    let data = if dtype == DType::F32 { data } else { data.convert_dtype(dtype) };
    Tensor::from_data(data, (device, dtype))
}

/// `[rows, cols]` → `[cols, rows]`, in blocks that fit the first cache.
pub(crate) fn transpose(from: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut to = vec![0.0; from.len()];
    for row0 in (0..rows).step_by(BLOCK) {
        for col0 in (0..cols).step_by(BLOCK) {
            for row in row0..rows.min(row0 + BLOCK) {
                for col in col0..cols.min(col0 + BLOCK) {
                    to[col * rows + row] = from[row * cols + col];
                }
            }
        }
    }
    to
}
