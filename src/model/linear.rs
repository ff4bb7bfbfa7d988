//! A linear layer, and the one place where dense and sparse execution part.

use crate::execute::{Format, Operand, ReadError, SparseBackend, SparseWeight, narrow};
use crate::sparse::{Digit, Pattern};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, Tensor, TensorPrimitive};
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
    /// The kept weights; the bias is inside, since the kernel adds it.
    Sparse(SparseWeight<B>),
}

impl<B: SparseBackend> LinearWeight<B> {
    /// The name of the kernel that runs for this many tokens.
    pub fn kernel(&self, tokens: usize) -> String {
        match self {
            Self::Dense(weight) => B::dense_kernel(&weight.0, tokens),
            Self::Sparse(weight) => weight.kernel(tokens),
        }
    }

    /// The same weight in memory of its own, which a clone would share.
    pub fn copied(&self) -> Self {
        match self {
            Self::Dense(weight) => {
                let tensor = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(weight.0.clone()));
                Self::Dense(DenseWeight(tensor.mul_scalar(1.0).into_primitive().tensor()))
            }
            Self::Sparse(weight) => Self::Sparse(weight.copied()),
        }
    }

    /// The sparse format, of a sparse weight.
    pub fn format(&self) -> Option<Format> {
        match self {
            Self::Dense(_) => None,
            Self::Sparse(weight) => Some(weight.format()),
        }
    }
}

/// A dense weight `[out_features, in_features]`.
///
/// Held as the backend's own tensor, which lets [`DenseWeight::host`] borrow its numbers.
#[derive(Clone, Debug)]
pub struct DenseWeight<B: SparseBackend>(FloatTensor<B>);

impl<B: SparseBackend> DenseWeight<B> {
    /// Takes `[out_features, in_features]` numbers in row-major order.
    pub fn new(weights: Cow<'_, [f32]>, shape: [usize; 2], dtype: DType, device: &B::Device) -> Self {
        Self(tensor::<B, 2>(weights, shape, dtype, device).into_primitive().tensor())
    }

    /// Shares a table `[out_features, in_features]` that is already on the device.
    pub fn shared(table: &Tensor<B, 2>) -> Self {
        Self(table.clone().into_primitive().tensor())
    }

    /// `[out_features, in_features]` numbers in row-major order, borrowed where the backend holds them so.
    ///
    /// # Errors
    /// When the device does not give them back.
    pub fn host(&self) -> Result<Cow<'_, [f32]>, ReadError> {
        B::host_f32(&self.0)
    }

    /// How many weights have each value of a digit of their magnitudes; counted where they are.
    ///
    /// # Errors
    /// When the device does not give the counts back.
    pub fn count_magnitudes(&self, digit: Digit) -> Result<Vec<u32>, ReadError> {
        B::count_magnitudes(&self.0, digit)
    }

    /// Which weights have magnitudes above a threshold; compared where they are.
    ///
    /// # Errors
    /// When the device does not give the pattern back.
    pub fn magnitudes_above(&self, threshold: u32) -> Result<Pattern, ReadError> {
        B::magnitudes_above(&self.0, threshold)
    }

    /// The weight with zeros where the pattern keeps nothing, in memory of its own.
    ///
    /// # Errors
    /// When the device does not give back what is masked on the host.
    pub fn masked(&self, pattern: &Pattern) -> Result<Self, ReadError> {
        B::masked(&self.0, pattern).map(Self)
    }
}

impl<B: SparseBackend> Linear<B> {
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.weight {
            LinearWeight::Dense(weight) => {
                let bias = self.bias.clone().map(|bias| bias.into_primitive().tensor());
                let y = B::dense_linear(x.into_primitive().tensor(), &weight.0, bias.as_ref());
                Tensor::from_primitive(TensorPrimitive::Float(y))
            }
            LinearWeight::Sparse(weight) => weight.forward(x),
        }
    }
}

impl<B: SparseBackend> Linear<B> {
    /// [`Linear::forward`] of linears that read the same, at once where the backend does better so.
    pub fn together<const N: usize>(linears: [&Self; N], x: Tensor<B, 2>) -> [Tensor<B, 2>; N] {
        let operands = linears.map(|linear| match &linear.weight {
            LinearWeight::Dense(weight) => {
                Operand::Dense(&weight.0, linear.bias.clone().map(|bias| bias.into_primitive().tensor()))
            }
            LinearWeight::Sparse(weight) => weight.operand(),
        });
        let input = x.clone().into_primitive().tensor();
        let all = B::products(&input, &operands).map(|all| all.into_iter().map(TensorPrimitive::Float));
        let all: Option<Vec<_>> = all.map(|all| all.map(Tensor::from_primitive).collect());
        match all.map(<[Tensor<B, 2>; N]>::try_from) {
            Some(Ok(all)) => all,
            Some(Err(_)) | None => linears.map(|linear| linear.forward(x.clone())),
        }
    }
}

/// A tensor of host numbers.
pub(super) fn tensor<B: SparseBackend, const D: usize>(
    numbers: Cow<'_, [f32]>,
    shape: [usize; D],
    dtype: DType,
    device: &B::Device,
) -> Tensor<B, D> {
    Tensor::from_data(narrow(numbers, shape, dtype), (device, dtype))
}

/// `[rows, cols]` → `[cols, rows]`, in blocks that fit the L1 cache.
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
