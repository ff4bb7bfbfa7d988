//! The one extension trait: what a Burn backend must add to run linears fast, dense and sparse.

use super::convert::{ReadError, narrow};
use super::decode::DecodeOps;
use super::own::{OwnArrays, OwnError, OwnKernel, OwnSource};
use crate::choice::Choice;
use crate::config::format::Format;
use crate::sparse::{Digit, FormatError, Pattern};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, Tensor, TensorMetadata, TensorPrimitive};
use rayon::prelude::*;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// What decides which form of a layer is fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Weights kept.
    pub kept: usize,
}

impl LayerShape {
    /// The share of weights that are gone.
    pub fn sparsity(self) -> f64 {
        1.0 - self.kept as f64 / (self.rows * self.cols).max(1) as f64
    }
}

/// Why weights can't be packed for a backend.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PackError {
    /// They do not fit the format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The backend has no kernel for the format.
    #[error("the {backend} backend has no kernel for the {format} format")]
    NoKernel {
        /// The format.
        format: Format,
        /// The backend.
        backend: &'static str,
    },
}

/// A sparse weight as a backend's kernels read it.
#[derive(Clone, Debug)]
pub struct Packing<P> {
    /// The weight with its bias.
    pub packed: P,
    /// Bytes stored for the weight, without the bias.
    pub bytes: usize,
    /// The exact layout, as tables name it: `csr-u16`, say.
    pub layout: &'static str,
}

/// The version of how kernels are chosen and timed: raised by hand when either changes, since a
/// kernel cell's time then means something else.
pub const KERNEL_POLICY_VERSION: u32 = 8;

/// What a weight is packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackFor {
    /// The tokens at once that matter most.
    pub tokens: usize,
    /// Whether a format may be laid out in one way for few tokens and in another for many: a format that the user names has one
    /// layout, whatever is fastest may have several.
    pub mixes: bool,
}

impl From<usize> for PackFor {
    fn from(tokens: usize) -> Self {
        Self { tokens, mixes: false }
    }
}

/// The form in which a layer is fastest, and how that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Fastest {
    /// The form; none is dense.
    pub format: Option<Format>,
    /// The measurement, where one was made for this layer.
    pub choice: Option<Choice>,
}

impl From<Option<Format>> for Fastest {
    fn from(format: Option<Format>) -> Self {
        Self { format, choice: None }
    }
}

/// What a device does at best, measured on it: the bounds of the roofline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Bytes read from memory, or written, in a second.
    pub bytes_per_s: f64,
    /// Multiplications and additions in a second.
    pub flops_per_s: f64,
}

/// What an input is multiplied with.
#[derive(Debug)]
pub enum Operand<'a, B: SparseBackend> {
    /// A dense weight, and its bias.
    Dense(&'a FloatTensor<B>, Option<FloatTensor<B>>),
    /// A sparse weight with its bias.
    Sparse(&'a B::Packed),
}

/// A backend that can run linears in every format. Inference only.
pub trait SparseBackend: DecodeOps {
    /// A sparse weight and its bias, as this backend's kernels read them; clones share their memory.
    type Packed: Clone + fmt::Debug + Send + Sync + 'static;

    /// Whether tensors are host memory and operations run on the calling thread.
    const ON_HOST: bool;

    /// Packs the kept ones of `weights` `[out_features, in_features]`; `tokens` is how many at once matter most,
    /// where a format has several layouts.
    ///
    /// # Errors
    /// When the weights do not fit the format, or the backend lacks it.
    fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&FloatTensor<Self>>,
        dtype: DType,
        for_use: PackFor,
        device: &Self::Device,
    ) -> Result<Packing<Self::Packed>, PackError>;

    /// Lets the host's copies go of what was sent to a device so far: a large model would otherwise be in host memory
    /// twice, until something is computed.
    fn sent(_device: &Self::Device) {}

    /// The same weight in memory of its own, which a clone would share.
    fn copied(weight: &Self::Packed) -> Self::Packed;

    /// `y = x · Wᵀ + bias`: the custom op.
    ///
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    fn sparse_linear(x: FloatTensor<Self>, weight: &Self::Packed) -> FloatTensor<Self>;

    /// `y = x · Wᵀ + bias` on the fastest dense path of this backend.
    ///
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - `weight`: `[out_features, in_features]`
    /// - returns `[tokens, out_features]`
    fn dense_linear(
        x: FloatTensor<Self>,
        weight: &FloatTensor<Self>,
        bias: Option<&FloatTensor<Self>>,
    ) -> FloatTensor<Self>;

    /// Products of one input with several weights at once, each as of [`SparseBackend::sparse_linear`] or
    /// [`SparseBackend::dense_linear`]; none where that is no faster, or can't be done.
    fn products(x: &FloatTensor<Self>, operands: &[Operand<'_, Self>]) -> Option<Vec<FloatTensor<Self>>> {
        let _ = (x, operands);
        None
    }

    /// The name of the kernel that [`SparseBackend::sparse_linear`] runs for this many tokens.
    fn sparse_kernel(weight: &Self::Packed, tokens: usize) -> String;

    /// The name of the kernel that [`SparseBackend::dense_linear`] runs for this many tokens.
    fn dense_kernel(weight: &FloatTensor<Self>, tokens: usize) -> String;

    /// The form in which a layer is fastest at this many tokens: from tables of measurements, or measured on the device.
    fn fastest(layer: LayerShape, tokens: usize, dtype: DType, device: &Self::Device) -> Fastest;

    /// Measures what the device does at best in a dtype; takes about a second.
    ///
    /// # Errors
    /// What the device says, when it fails.
    fn peaks(device: &Self::Device, dtype: DType) -> Result<Peaks, String>;

    /// `y = (x · 1[|x| > threshold]) · Wᵀ`: entries of the input that are not above the threshold count as zero.
    /// Here the mask is put on the input and every column is read: right, and no faster than dense.
    ///
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    fn threshold_linear(x: FloatTensor<Self>, weight: &ColumnWeight<Self>, threshold: f32) -> FloatTensor<Self> {
        masked_dense_linear(x, weight, threshold)
    }

    /// The name of the kernel that [`SparseBackend::threshold_linear`] runs.
    fn threshold_kernel(weight: &ColumnWeight<Self>, tokens: usize) -> String {
        let _ = (weight, tokens);
        "threshold-masked-dense".into()
    }

    /// A user's kernel with a weight on the device.
    ///
    /// # Errors
    /// Where it can't be compiled, or this is no backend for it.
    fn own_kernel(
        _source: &OwnSource,
        _weight: &OwnArrays,
        _dtype: DType,
        _device: &Self::Device,
    ) -> Result<Box<dyn OwnKernel<Self>>, OwnError> {
        Err(OwnError::NotHere)
    }

    /// Keeps the device busy for about this long and returns at once, so that calls that follow are launched
    /// before the first of them runs. The host needs no such thing.
    fn hold(_device: &Self::Device, _time: Duration) {}

    /// Bytes that tensors take on the device now; none where they are host memory.
    fn memory_in_use(_device: &Self::Device) -> Option<u64> {
        None
    }

    /// A tensor's numbers in row-major order, borrowed where they are host memory in that order.
    ///
    /// # Errors
    /// When the device does not give them back; of backends in host memory never.
    fn host_f32(tensor: &FloatTensor<Self>) -> Result<Cow<'_, [f32]>, ReadError>;

    /// How many numbers of a tensor have each value of a digit of their magnitudes.
    ///
    /// # Errors
    /// When the device does not give the counts back.
    fn count_magnitudes(tensor: &FloatTensor<Self>, digit: Digit) -> Result<Vec<u32>, ReadError> {
        Ok(digit.count(&Self::host_f32(tensor)?))
    }

    /// Which numbers of a tensor `[rows, cols]` have magnitudes above a threshold.
    ///
    /// # Errors
    /// When the device does not give the pattern back.
    fn magnitudes_above(tensor: &FloatTensor<Self>, threshold: u32) -> Result<Pattern, ReadError> {
        let shape = tensor.shape();
        Ok(Pattern::above(shape[0], shape[1], &Self::host_f32(tensor)?, Some(threshold)))
    }

    /// A tensor `[rows, cols]` with +0.0 where the pattern keeps nothing.
    ///
    /// # Errors
    /// When the numbers have to come to the host, and the device does not give them back.
    fn masked(tensor: &FloatTensor<Self>, pattern: &Pattern) -> Result<FloatTensor<Self>, ReadError> {
        let numbers = pattern.apply(&Self::host_f32(tensor)?);
        let data = narrow(numbers.into(), tensor.shape(), tensor.dtype());
        Ok(Self::float_from_data(data, &Self::float_device(tensor)))
    }
}

/// A dense weight, a column of the matrix after the other, so that whole columns can be left out.
///
/// ```text
///   W = [a b c]    stored   a d g 0 0 0 0 0    a row an input feature; zeros fill it up to
///       [d e f]             b e h 0 0 0 0 0    a multiple of PAD outputs, for wide loads
///       [g h i]             c f i 0 0 0 0 0
/// ```
#[derive(Clone, Debug)]
pub struct ColumnWeight<B: SparseBackend> {
    /// `[in_features * stride]`: of one dimension, since rows of two may be spread.
    weight: FloatTensor<B>,
    inputs: usize,
    outputs: usize,
    stride: usize,
}

impl<B: SparseBackend> ColumnWeight<B> {
    /// Outputs are padded to a multiple of this: 16 bytes of halves.
    pub const PAD: usize = 8;

    /// Stores `weights` `[out_features, in_features]`, row-major.
    pub fn new(weights: &[f32], [outputs, inputs]: [usize; 2], dtype: DType, device: &B::Device) -> Self {
        let stride = outputs.next_multiple_of(Self::PAD);
        let mut columns = vec![0.0; inputs * stride];
        // Inputs in blocks, so that the rows that are written to stay in the cache meanwhile.
        const BLOCK: usize = 16;
        columns.par_chunks_mut(BLOCK * stride).enumerate().for_each(|(block, columns)| {
            for (output, row) in weights.chunks(inputs).enumerate() {
                for (column, &weight) in columns.chunks_mut(stride).zip(&row[block * BLOCK..]) {
                    column[output] = weight;
                }
            }
        });
        let data = narrow(columns.into(), [inputs * stride], dtype);
        let weight = Tensor::<B, 1>::from_data(data, (device, dtype)).into_primitive().tensor();
        Self { weight, inputs, outputs, stride }
    }

    /// The same numbers in memory of their own, which a clone would share.
    pub fn copied(&self) -> Self {
        let weight = self.tensor().mul_scalar(1.0).into_primitive().tensor();
        Self { weight, ..*self }
    }

    /// `y = (x · 1[|x| > threshold]) · Wᵀ`
    ///
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    pub fn forward(&self, x: Tensor<B, 2>, threshold: f32) -> Tensor<B, 2> {
        let y = B::threshold_linear(x.into_primitive().tensor(), self, threshold);
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }

    /// The numbers, `[in_features * stride]`.
    pub fn tensor(&self) -> Tensor<B, 1> {
        Tensor::from_primitive(TensorPrimitive::Float(self.weight.clone()))
    }

    /// Input features.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Output features.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Numbers stored for an input feature.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes stored.
    pub fn bytes(&self) -> usize {
        self.inputs * self.stride * self.tensor().dtype().size()
    }
}

/// [`SparseBackend::threshold_linear`] with the mask on the input, and every column read.
pub(super) fn masked_dense_linear<B: SparseBackend>(
    x: FloatTensor<B>,
    weight: &ColumnWeight<B>,
    threshold: f32,
) -> FloatTensor<B> {
    let x = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(x));
    let low = x.clone().abs().lower_equal_elem(threshold);
    let y = x.mask_fill(low, 0.0).matmul(weight.tensor().reshape([weight.inputs, weight.stride]));
    y.narrow(1, 0, weight.outputs).into_primitive().tensor()
}

/// A linear's weight in a sparse format, with its bias.
#[derive(Clone, Debug)]
pub struct SparseWeight<B: SparseBackend> {
    format: Format,
    packing: Packing<B::Packed>,
}

impl<B: SparseBackend> SparseWeight<B> {
    /// Packs the kept ones of `weights` for the device, and for the number of tokens at once that matters most.
    ///
    /// # Shapes
    /// - `weights`: `[out_features, in_features]`, row-major
    /// - `bias`: `[out_features]`
    ///
    /// # Errors
    /// When the weights do not fit the format, or the backend lacks it.
    pub fn new(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&Tensor<B, 1>>,
        dtype: DType,
        for_use: impl Into<PackFor>,
        device: &B::Device,
    ) -> Result<Self, PackError> {
        let bias = bias.map(|bias| bias.clone().into_primitive().tensor());
        let packing = B::pack(format, weights, pattern, bias.as_ref(), dtype, for_use.into(), device)?;
        Ok(Self { format, packing })
    }

    /// `y = x · Wᵀ + bias`
    ///
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        Tensor::from_primitive(TensorPrimitive::Float(B::sparse_linear(
            x.into_primitive().tensor(),
            &self.packing.packed,
        )))
    }

    /// As what an input is multiplied with.
    pub fn operand(&self) -> Operand<'_, B> {
        Operand::Sparse(&self.packing.packed)
    }

    /// The same weight in memory of its own, which a clone would share.
    pub fn copied(&self) -> Self {
        let packing = Packing { packed: B::copied(&self.packing.packed), ..self.packing.clone() };
        Self { format: self.format, packing }
    }

    /// The name of the kernel that runs for this many tokens.
    pub fn kernel(&self, tokens: usize) -> String {
        B::sparse_kernel(&self.packing.packed, tokens)
    }

    /// How it is stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes stored for the weight, without the bias.
    pub fn bytes(&self) -> usize {
        self.packing.bytes
    }

    /// The exact layout, as tables name it.
    pub fn layout(&self) -> &'static str {
        self.packing.layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    fn columns(shape: [usize; 2]) -> (Vec<f32>, ColumnWeight<Flex>) {
        let weights: Vec<f32> = (0..shape[0] * shape[1]).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
        let stored = ColumnWeight::new(&weights, shape, DType::F32, &Default::default());
        (weights, stored)
    }

    #[test]
    fn columns_are_padded_and_zero_behind() {
        let (weights, stored) = columns([3, 37]);
        let numbers: Vec<f32> = stored.tensor().into_data().into_vec().unwrap();
        assert_eq!((stored.stride(), stored.bytes(), numbers.len()), (8, 37 * 8 * 4, 37 * 8));
        for (input, column) in numbers.chunks(8).enumerate() {
            let expected = [weights[input], weights[37 + input], weights[74 + input], 0.0, 0.0, 0.0, 0.0, 0.0];
            assert_eq!(column, expected);
        }
        assert_eq!(columns([16, 2]).1.stride(), 16);
    }

    #[test]
    fn entries_at_the_threshold_do_not_count() {
        let (weights, stored) = columns([3, 4]);
        let x = Tensor::<Flex, 2>::from_data([[1.0, -2.0, 0.5, -1.0], [0.0, 1.5, 3.0, -0.25]], &Default::default());
        let y: Vec<f32> = stored.copied().forward(x, 1.0).into_data().into_vec().unwrap();
        let masked = [[0.0, -2.0, 0.0, 0.0], [0.0, 1.5, 3.0, 0.0]];
        let product = |x: &[f32; 4]| {
            let x = *x;
            weights.chunks(4).map(move |row| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>()).collect::<Vec<_>>()
        };
        assert_eq!(y, masked.iter().flat_map(product).collect::<Vec<_>>());
    }
}
