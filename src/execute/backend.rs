//! The one extension trait: what a Burn backend must add to run linears fast, dense and sparse.

use super::decode::DecodeOps;
use crate::sparse::{FormatError, Pattern};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, Tensor, TensorPrimitive};
use std::borrow::Cow;
use std::fmt;
use thiserror::Error;

/// How a sparse weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Compressed sparse rows: values and column indices.
    Csr,
    /// One bit a weight and packed values.
    Bitmap,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Csr => "csr",
            Self::Bitmap => "bitmap",
        })
    }
}

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
pub const KERNEL_POLICY_VERSION: u32 = 1;

/// What a device does at best, measured on it: the bounds of the roofline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Bytes read from memory in a second.
    pub bytes_per_s: f64,
    /// Multiplications and additions in a second.
    pub flops_per_s: f64,
}

/// A backend that can run linears in every format. Inference only.
pub trait SparseBackend: DecodeOps {
    /// A sparse weight and its bias, as this backend's kernels read them; clones share their memory.
    type Packed: Clone + fmt::Debug + Send + Sync + 'static;

    /// Whether tensors are host memory and operations run on the calling thread.
    const ON_HOST: bool;

    /// Packs the kept ones of `weights` `[out_features, in_features]`.
    ///
    /// # Errors
    /// When the weights do not fit the format, or the backend lacks it.
    fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&FloatTensor<Self>>,
        dtype: DType,
        device: &Self::Device,
    ) -> Result<Packing<Self::Packed>, PackError>;

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

    /// The name of the kernel that runs for so many tokens: of a sparse format, or of the dense path.
    fn kernel(format: Option<Format>, tokens: usize) -> String;

    /// The form in which a layer is fastest at so many tokens, from measurements; none is dense.
    fn fastest(layer: LayerShape, tokens: usize) -> Option<Format>;

    /// Measures what the device does at best in a dtype; takes about a second.
    fn peaks(device: &Self::Device, dtype: DType) -> Peaks;

    /// A tensor's numbers in row-major order, borrowed where they are host memory in that order.
    fn host_f32(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]>;
}

/// A linear's weight in a sparse format, with its bias.
#[derive(Clone, Debug)]
pub struct SparseWeight<B: SparseBackend> {
    format: Format,
    packing: Packing<B::Packed>,
}

impl<B: SparseBackend> SparseWeight<B> {
    /// Packs the kept ones of `weights` for the device.
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
        device: &B::Device,
    ) -> Result<Self, PackError> {
        let bias = bias.map(|bias| bias.clone().into_primitive().tensor());
        let packing = B::pack(format, weights, pattern, bias.as_ref(), dtype, device)?;
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
