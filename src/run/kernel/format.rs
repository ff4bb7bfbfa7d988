//! A weight in the format that a kernel cell asks for.

use crate::choice::Choice;
use crate::config::experiment::{Dtype, KernelFormat};
use crate::execute::{
    ColumnWeight, LayerShape, OwnError, OwnKernel, OwnSource, PackError, PackFor, SparseBackend, SparseWeight,
    own_arrays,
};
use crate::model::{DenseWeight, Linear, LinearWeight};
use crate::plan::OwnKernel as OwnKernelCell;
use crate::run::backend::{burn_dtype, bytes_per_number};
use crate::sparse::Pattern;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use std::path::Path;

/// A stored weight of a kernel cell.
pub(super) enum KernelWeight<B: SparseBackend> {
    /// That of a model's linear.
    Linear(Linear<B>),
    /// All weights, by columns; small inputs count as zero.
    Columns(ColumnWeight<B>),
    /// That of a user's kernel.
    Own(Box<dyn OwnKernel<B>>),
}

impl<B: SparseBackend> KernelWeight<B> {
    /// The product; only columns look at the threshold.
    ///
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    pub fn forward(&self, x: Tensor<B, 2>, threshold: f32) -> Tensor<B, 2> {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Columns(columns) => columns.forward(x, threshold),
            Self::Own(kernel) => burn(kernel.run(x.into_primitive().tensor())),
        }
    }

    /// The same for the output that is compared: a user's kernel must write every number of it.
    ///
    /// # Errors
    /// When a user's kernel fails.
    pub fn checked(&self, x: Tensor<B, 2>, threshold: f32) -> Result<Tensor<B, 2>, OwnError> {
        match self {
            Self::Own(kernel) => kernel.checked(x.into_primitive().tensor()).map(burn),
            Self::Linear(_) | Self::Columns(_) => Ok(self.forward(x, threshold)),
        }
    }

    /// The same weight in memory of its own: a clone would share the first one's.
    pub fn copied(&self) -> Self {
        match self {
            Self::Columns(columns) => Self::Columns(columns.copied()),
            Self::Linear(linear) => Self::Linear(Linear { weight: linear.weight.copied(), bias: None }),
            Self::Own(kernel) => Self::Own(kernel.copied()),
        }
    }

    /// The name of the kernel for this many tokens.
    pub fn kernel(&self, tokens: usize) -> String {
        match self {
            Self::Linear(linear) => linear.weight.kernel(tokens),
            Self::Columns(columns) => B::threshold_kernel(columns, tokens),
            Self::Own(kernel) => kernel.name(),
        }
    }
}

fn burn<B: SparseBackend>(y: FloatTensor<B>) -> Tensor<B, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(y))
}

/// Stores a weight in the arrays of a user's kernel, whose text was read; and their bytes.
///
/// # Errors
/// When the kernel can't be compiled.
pub(super) fn build_own<B: SparseBackend>(
    own: &OwnKernelCell,
    text: String,
    weights: &[f32],
    pattern: &Pattern,
    dtype: Dtype,
    device: &B::Device,
) -> Result<(KernelWeight<B>, u64), OwnError> {
    let name = Path::new(&own.source.file).file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
    let source = OwnSource { name, text, entry: own.entry.clone(), launch: own.launch() };
    let arrays = own_arrays(own.layout, weights, pattern);
    let kernel = B::own_kernel(&source, &arrays, burn_dtype(dtype), device)?;
    let bytes = kernel.bytes();
    Ok((KernelWeight::Own(kernel), bytes))
}

/// Stores a weight, in memory of its own; the bytes that it takes there, and what was measured for it. `auto` takes what is
/// fastest for this many tokens.
///
/// # Shapes
/// - `weights`: `[out_features, in_features]`, as is the pattern, which `dense` and `threshold` do not look at
///
/// # Errors
/// When the format can't hold that many weights, or the backend lacks it.
pub(super) fn build_weight<B: SparseBackend>(
    format: KernelFormat,
    weights: &[f32],
    pattern: &Pattern,
    tokens: usize,
    dtype: Dtype,
    device: &B::Device,
) -> Result<(KernelWeight<B>, u64, Option<Choice>), PackError> {
    let linear = |weight| KernelWeight::Linear(Linear { weight, bias: None });
    let shape = LayerShape { rows: pattern.rows(), cols: pattern.cols(), kept: pattern.kept() };
    let (mut choice, mixes) = (None, format == KernelFormat::Auto);
    let format = match format {
        KernelFormat::Dense => None,
        KernelFormat::Sparse(format) => Some(format),
        KernelFormat::Auto => {
            let fastest = B::fastest(shape, tokens, burn_dtype(dtype), device);
            choice = fastest.choice;
            fastest.format
        }
        KernelFormat::Source => unreachable!("a user's kernel is built by `build_own`"),
        KernelFormat::Threshold => {
            let columns = ColumnWeight::new(weights, [shape.rows, shape.cols], burn_dtype(dtype), device);
            let bytes = columns.bytes() as u64;
            return Ok((KernelWeight::Columns(columns), bytes, None));
        }
    };
    let Some(format) = format else {
        let weight = DenseWeight::new(weights.into(), [shape.rows, shape.cols], burn_dtype(dtype), device);
        return Ok((linear(LinearWeight::Dense(weight)), weights.len() as u64 * bytes_per_number(dtype), choice));
    };
    let weight =
        SparseWeight::new(format, weights, pattern, None, burn_dtype(dtype), PackFor { tokens, mixes }, device)?;
    let bytes = weight.bytes() as u64;
    Ok((linear(LinearWeight::Sparse(weight)), bytes, choice))
}
