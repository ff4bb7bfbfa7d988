//! The one extension trait: what a Burn backend must add to run sparse linears.

use crate::sparse::{Columns, Csr};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{DType, Int, Tensor, TensorData};
use std::borrow::Cow;

/// The order in which a dense weight lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[out_features, in_features]`, multiplied as its lazy transpose.
    OutIn,
    /// `[in_features, out_features]`: the backend copies a transposed operand on every call.
    InOut,
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

/// A backend that can run a CSR linear. Inference only.
pub trait SparseBackend: Backend {
    /// The order of dense weights that this backend multiplies fastest.
    const WEIGHT_LAYOUT: WeightLayout;

    /// Whether tensors are host memory and operations run on the calling thread.
    const ON_HOST: bool;

    /// `y = x · Wᵀ + bias`: the custom op.
    ///
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    fn csr_linear(x: FloatTensor<Self>, weight: &CsrWeight<Self>) -> FloatTensor<Self>;

    /// The name of the kernel that [`SparseBackend::csr_linear`] runs for so many tokens.
    fn csr_kernel(tokens: usize) -> String;

    /// Measures what the device does at best in a dtype; takes about a second.
    fn peaks(device: &Self::Device, dtype: DType) -> Peaks;

    /// A tensor's numbers in row-major order, borrowed where they are host memory in that order.
    fn host_f32(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]>;
}

/// A CSR matrix as a backend's tensors. Only made from a [`Csr`], so that kernels need not check indices.
#[derive(Clone, Debug)]
pub struct CsrWeight<B: Backend> {
    pub(super) cols: usize,
    pub(super) rows: usize,
    pub(super) row_ptr: IntTensor<B>,
    pub(super) columns: IntTensor<B>,
    pub(super) values: FloatTensor<B>,
    pub(super) bias: Option<FloatTensor<B>>,
    bytes: usize,
}

impl<B: Backend> CsrWeight<B> {
    /// Moves a matrix to the device; its values take the device tensors' `dtype`.
    ///
    /// # Shapes
    /// - `bias`: `[out_features]`
    pub fn new(csr: Csr, bias: Option<Tensor<B, 1>>, dtype: DType, device: &B::Device) -> Self {
        let (rows, cols) = (csr.rows(), csr.cols());
        let (row_ptr, columns, values) = csr.into_parts();
        let kept = values.len();
        let index_bytes = columns.bytes() + 4 * row_ptr.len();
        let columns = match columns {
            Columns::U16(columns) => ints::<B>(TensorData::new(columns, [kept]), DType::U16, device),
            Columns::U32(columns) => ints::<B>(TensorData::new(columns, [kept]), DType::U32, device),
        };
        let row_ptr = ints::<B>(TensorData::new(row_ptr, [rows + 1]), DType::U32, device);
        let values = TensorData::new(values, [kept]);
        // Converting f32 to f32 would copy.
        let values = if dtype == DType::F32 { values } else { values.convert_dtype(dtype) };
        let values = Tensor::<B, 1>::from_data(values, (device, dtype)).into_primitive().tensor();
        let bytes = kept * dtype.size() + index_bytes;
        Self { cols, rows, row_ptr, columns, values, bias: bias.map(|b| b.into_primitive().tensor()), bytes }
    }

    /// Bytes stored for the weight: values, columns and row pointers, without the bias.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

fn ints<B: Backend>(data: TensorData, dtype: DType, device: &B::Device) -> IntTensor<B> {
    Tensor::<B, 1, Int>::from_data(data, (device, dtype)).into_primitive()
}
