//! A linear layer, and the one place where dense and sparse execution part.

use super::halves::{Halves, Numbers};
use crate::execute::decode::{Column, Places};
use crate::execute::kernels::cpu::{Simd, dense_kernel_name};
use crate::execute::{Format, Operand, ReadError, SparseBackend, SparseWeight, narrow};
use crate::sparse::{Digit, Pattern};
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
    /// The kept weights; the bias is inside, since the kernel adds it.
    Sparse(SparseWeight<B>),
}

impl<B: SparseBackend> LinearWeight<B> {
    /// The name of the kernel that runs for this many tokens.
    pub fn kernel(&self, tokens: usize) -> String {
        match self {
            Self::Dense(weight) => weight.kernel(tokens),
            Self::Sparse(weight) => weight.kernel(tokens),
        }
    }

    /// The same weight in memory of its own, which a clone would share.
    pub fn copied(&self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.copied()),
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

/// A dense weight `[out_features, in_features]`, or a table of as many rows.
#[derive(Clone, Debug)]
pub struct DenseWeight<B: SparseBackend>(Held<B>);

#[derive(Clone, Debug)]
enum Held<B: SparseBackend> {
    /// The backend's own, which lets [`DenseWeight::host`] borrow its numbers.
    Tensor(FloatTensor<B>),
    /// In host memory, of backends that compute there in f32.
    Halves(Halves, [usize; 2]),
}

impl<B: SparseBackend> DenseWeight<B> {
    /// Takes `[out_features, in_features]` numbers in row-major order.
    pub fn new(weights: Cow<'_, [f32]>, shape: [usize; 2], dtype: DType, device: &B::Device) -> Self {
        Self(Held::Tensor(tensor::<B, 2>(weights, shape, dtype, device).into_primitive().tensor()))
    }

    /// As [`DenseWeight::new`]; numbers of 16 bits stay as they are.
    ///
    /// # Panics
    /// When numbers of 16 bits are for a backend that is not in host memory, or does not compute in f32.
    pub fn of(weights: Numbers<'_>, shape: [usize; 2], dtype: DType, device: &B::Device) -> Self {
        match weights {
            Numbers::Wide(weights) => Self::new(weights, shape, dtype, device),
            Numbers::Halves(halves) => {
                assert!(B::ON_HOST && dtype == DType::F32, "halves are for the host, which computes in f32");
                Self(Held::Halves(halves, shape))
            }
        }
    }

    /// `[out_features, in_features]` numbers in row-major order, borrowed where the backend holds them so.
    ///
    /// # Errors
    /// When the device does not give them back.
    pub fn host(&self) -> Result<Cow<'_, [f32]>, ReadError> {
        match &self.0 {
            Held::Tensor(weight) => B::host_f32(weight),
            Held::Halves(halves, _) => Ok(halves.wide().into()),
        }
    }

    /// How many weights have each value of a digit of their magnitudes; counted where they are.
    ///
    /// # Errors
    /// When the device does not give the counts back.
    pub fn count_magnitudes(&self, digit: Digit) -> Result<Vec<u32>, ReadError> {
        match &self.0 {
            Held::Tensor(weight) => B::count_magnitudes(weight, digit),
            Held::Halves(halves, _) => Ok(digit.count(&halves.wide())),
        }
    }

    /// Which weights have magnitudes above a threshold; compared where they are.
    ///
    /// # Errors
    /// When the device does not give the pattern back.
    pub fn magnitudes_above(&self, threshold: u32) -> Result<Pattern, ReadError> {
        match &self.0 {
            Held::Tensor(weight) => B::magnitudes_above(weight, threshold),
            Held::Halves(halves, [rows, cols]) => Ok(Pattern::above(*rows, *cols, &halves.wide(), Some(threshold))),
        }
    }

    /// The weight with zeros where the pattern keeps nothing, in memory of its own.
    ///
    /// # Errors
    /// When the device does not give back what is masked on the host.
    pub fn masked(&self, pattern: &Pattern) -> Result<Self, ReadError> {
        match &self.0 {
            Held::Tensor(weight) => B::masked(weight, pattern).map(|masked| Self(Held::Tensor(masked))),
            Held::Halves(halves, shape) => Ok(Self(Held::Halves(halves.masked(pattern), *shape))),
        }
    }

    /// Rows of a table, by a number that each token has and `offset`, added to `x` if given: `[tokens, width]`.
    pub(super) fn rows(
        &self,
        x: Option<Tensor<B, 2>>,
        places: &Places<B>,
        column: Column,
        offset: usize,
    ) -> Tensor<B, 2> {
        let (halves, width) = match &self.0 {
            Held::Tensor(table) => {
                let table = Tensor::from_primitive(TensorPrimitive::Float(table.clone()));
                return B::table_rows(x, &table, places, column, offset);
            }
            Held::Halves(halves, [_, width]) => (halves, *width),
        };
        let numbers = places.numbers().clone().narrow(0, places.column(column), places.tokens());
        let device = numbers.device();
        let mut rows = vec![0.0; places.tokens() * width];
        for (number, row) in numbers.into_data().iter::<i64>().zip(rows.chunks_exact_mut(width.max(1))) {
            halves.widen_row(number as usize + offset, row);
        }
        let rows = Tensor::from_data(TensorData::new(rows, [places.tokens(), width]), &device);
        match x {
            Some(x) => x + rows,
            None => rows,
        }
    }

    /// The same weight in memory of its own, which a clone would share.
    fn copied(&self) -> Self {
        Self(match &self.0 {
            Held::Tensor(weight) => {
                let tensor = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(weight.clone()));
                Held::Tensor(tensor.mul_scalar(1.0).into_primitive().tensor())
            }
            Held::Halves(halves, shape) => Held::Halves(halves.copied(), *shape),
        })
    }

    /// The name of the kernel that runs for this many tokens.
    fn kernel(&self, tokens: usize) -> String {
        match &self.0 {
            Held::Tensor(weight) => B::dense_kernel(weight, tokens),
            Held::Halves(..) => dense_kernel_name(tokens, Simd::detect()),
        }
    }

    /// As backends multiply it with others; none where they don't know it.
    fn operand(&self, bias: Option<&Tensor<B, 1>>) -> Option<Operand<'_, B>> {
        match &self.0 {
            Held::Tensor(weight) => {
                Some(Operand::Dense(weight, bias.map(|bias| bias.clone().into_primitive().tensor())))
            }
            Held::Halves(..) => None,
        }
    }

    fn forward(&self, x: Tensor<B, 2>, bias: Option<&FloatTensor<B>>) -> Tensor<B, 2> {
        let x = x.into_primitive().tensor();
        match &self.0 {
            Held::Tensor(weight) => Tensor::from_primitive(TensorPrimitive::Float(B::dense_linear(x, weight, bias))),
            Held::Halves(halves, shape) => {
                let tokens = x.shape()[0];
                let host = |tensor| B::host_f32(tensor).expect("a backend in host memory always has its numbers");
                let bias = bias.map(host);
                let y = halves.linear(*shape, bias.as_deref(), &host(&x), tokens);
                Tensor::from_data(TensorData::new(y, [tokens, shape[0]]), &B::float_device(&x))
            }
        }
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
                weight.forward(x, bias.as_ref())
            }
            LinearWeight::Sparse(weight) => weight.forward(x),
        }
    }
}

impl<B: SparseBackend> Linear<B> {
    /// [`Linear::forward`] of linears that read the same, at once where the backend does better so.
    pub fn together<const N: usize>(linears: [&Self; N], x: Tensor<B, 2>) -> [Tensor<B, 2>; N] {
        let operands: Option<Vec<Operand<'_, B>>> = linears.iter().map(|linear| linear.operand()).collect();
        let input = x.clone().into_primitive().tensor();
        let all = operands.and_then(|operands| B::products(&input, &operands));
        let all = all.map(|all| all.into_iter().map(TensorPrimitive::Float));
        let all: Option<Vec<_>> = all.map(|all| all.map(Tensor::from_primitive).collect());
        match all.map(<[Tensor<B, 2>; N]>::try_from) {
            Some(Ok(all)) => all,
            Some(Err(_)) | None => linears.map(|linear| linear.forward(x.clone())),
        }
    }

    fn operand(&self) -> Option<Operand<'_, B>> {
        match &self.weight {
            LinearWeight::Dense(weight) => weight.operand(self.bias.as_ref()),
            LinearWeight::Sparse(weight) => Some(weight.operand()),
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
