//! The op on CUDA.

pub(super) mod cache;
mod decode;
mod hold;
pub(super) mod probe;
mod prune;
mod threshold;

use super::backend::{ColumnWeight, Format, LayerShape, PackError, Packing, Peaks, ReadError, SparseBackend};
use super::convert::{narrow, widen};
use super::kernels::cuda::rows::{LANES, ROWS_PER_CUBE, csr_expand, csr_rows};
use crate::sparse::{Columns, Csr, Digit, Pattern};
use burn::tensor::Tensor as BurnTensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{DType, Int, Shape, TensorData, TensorMetadata, read_sync};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::prelude::*;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// Burn's CUDA backend, without operator fusion, which is slower for one token.
pub type Cuda = CubeBackend<CudaRuntime, f32, i32, u8>;

type Tensor = CubeTensor<CudaRuntime>;

/// A CSR weight and its bias on the device. Only made from a [`Csr`], so that kernels need not check indices.
#[derive(Clone, Debug)]
pub struct CudaCsr {
    cols: usize,
    rows: usize,
    row_ptr: Tensor,
    columns: Tensor,
    values: Tensor,
    bias: Option<Tensor>,
}

/// Fewer tokens than this are multiplied row by row; more, by a dense product on the expanded matrix.
const EXPAND_FROM: usize = 5;
/// Threads that expand a row.
const EXPAND_THREADS: u32 = 256;

/// Bytes that are read for the peak of the memory.
const PEAK_BYTES: usize = 1 << 30;
/// Side of the matrices that are multiplied for the peak of the arithmetic.
const PEAK_SIDE: usize = 4096;
/// The best of so many counts, after as many that tune and compile.
const PEAK_ROUNDS: usize = 10;

/// The GPU at an index.
pub fn cuda_device(index: usize) -> CudaDevice {
    cache::install(index);
    CudaDevice::new(index)
}

impl SparseBackend for Cuda {
    type Packed = CudaCsr;
    const ON_HOST: bool = false;

    fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&Tensor>,
        dtype: DType,
        device: &CudaDevice,
    ) -> Result<Packing<CudaCsr>, PackError> {
        if format != Format::Csr {
            return Err(PackError::NoKernel { format, backend: "cuda" });
        }
        let (rows, cols) = (pattern.rows(), pattern.cols());
        let (row_ptr, columns, values) = Csr::from_dense(weights, pattern)?.into_parts();
        let kept = values.len();
        let bytes = kept * dtype.size() + columns.bytes() + size_of_val(&*row_ptr);
        let (columns, layout) = match columns {
            Columns::U16(columns) => (ints(TensorData::new(columns, [kept]), DType::U16, device), "csr-u16"),
            Columns::U32(columns) => (ints(TensorData::new(columns, [kept]), DType::U32, device), "csr-u32"),
        };
        let row_ptr = ints(TensorData::new(row_ptr, [rows + 1]), DType::U32, device);
        let values = narrow(values.into(), [kept], dtype);
        let values = BurnTensor::<Cuda, 1>::from_data(values, (device, dtype)).into_primitive().tensor();
        let packed = CudaCsr { cols, rows, row_ptr, columns, values, bias: bias.cloned() };
        Ok(Packing { packed, bytes, layout })
    }

    fn sparse_linear(x: Tensor, weight: &CudaCsr) -> Tensor {
        let x = into_contiguous(x);
        let tokens = x.shape()[0];
        if tokens < EXPAND_FROM { by_rows(x, tokens, weight) } else { by_expansion(x, weight) }
    }

    fn dense_linear(x: Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        add_bias(Self::float_matmul(x, Self::float_swap_dims(weight.clone(), 0, 1)), bias)
    }

    fn kernel(format: Option<Format>, tokens: usize) -> String {
        let name = match format {
            None => "dense-cube-matmul",
            Some(_) if tokens < EXPAND_FROM => "csr-cube-rows",
            Some(_) => "csr-cube-expand",
        };
        name.into()
    }

    fn fastest(_layer: LayerShape, _tokens: usize) -> Option<Format> {
        // Its sparse kernels have not been measured: dense is what is known.
        None
    }

    fn peaks(device: &CudaDevice, dtype: DType) -> Result<Peaks, String> {
        let numbers = PEAK_BYTES / dtype.size();
        let read = BurnTensor::<Self, 1>::ones([numbers], (device, dtype));
        let square = BurnTensor::<Self, 2>::ones([PEAK_SIDE, PEAK_SIDE], (device, dtype));
        let sum = best(device, || drop(read.clone().sum()))?;
        let product = best(device, || drop(square.clone().matmul(square.clone().transpose())))?;
        let flops = 2.0 * (PEAK_SIDE as f64).powi(3);
        Ok(Peaks { bytes_per_s: (numbers * dtype.size()) as f64 / sum, flops_per_s: flops / product })
    }

    fn threshold_linear(x: Tensor, weight: &ColumnWeight<Self>, threshold: f32) -> Tensor {
        threshold::threshold_linear(x, weight, threshold)
    }

    fn threshold_kernel() -> &'static str {
        threshold::NAME
    }

    fn hold(device: &CudaDevice, time: Duration) {
        hold::hold(device, time);
    }

    fn memory_in_use(device: &CudaDevice) -> Option<u64> {
        CudaRuntime::client(device).memory_usage().ok().map(|usage| usage.bytes_in_use)
    }

    fn host_f32(tensor: &Tensor) -> Cow<'_, [f32]> {
        // A failed transfer gives no numbers: the shapes that follow do not fit, and the cell fails.
        let data = read_sync(Self::float_into_data(tensor.clone()));
        Cow::Owned(data.ok().and_then(widen).unwrap_or_default())
    }

    fn count_magnitudes(tensor: &Tensor, digit: Digit) -> Result<Vec<u32>, ReadError> {
        prune::count(tensor, digit).unwrap_or_else(|| Ok(digit.count(&Self::host_f32(tensor))))
    }

    fn magnitudes_above(tensor: &Tensor, threshold: u32) -> Result<Pattern, ReadError> {
        prune::above(tensor, threshold).unwrap_or_else(|| {
            let shape = tensor.shape();
            Ok(Pattern::above(shape[0], shape[1], &Self::host_f32(tensor), Some(threshold)))
        })
    }

    fn masked(tensor: &Tensor, pattern: &Pattern) -> Tensor {
        prune::mask(tensor, pattern).unwrap_or_else(|| {
            let numbers = pattern.apply(&Self::host_f32(tensor));
            Self::float_from_data(narrow(numbers.into(), tensor.shape(), tensor.dtype), &tensor.device)
        })
    }
}

/// Seconds of the fastest call.
fn best(device: &CudaDevice, work: impl Fn()) -> Result<f64, String> {
    let seconds = |_| {
        let start = Instant::now();
        work();
        <Cuda as Backend>::sync(device).map_err(|error| error.to_string())?;
        Ok(start.elapsed().as_secs_f64())
    };
    let seconds: Vec<f64> = (0..2 * PEAK_ROUNDS).map(seconds).collect::<Result<_, String>>()?;
    Ok(seconds[PEAK_ROUNDS..].iter().copied().fold(f64::INFINITY, f64::min))
}

fn by_rows(x: Tensor, tokens: usize, weight: &CudaCsr) -> Tensor {
    let (rows, dtype) = (weight.rows, x.dtype);
    let bias = match &weight.bias {
        Some(bias) => bias.clone(),
        None => Cuda::float_zeros(Shape::new([rows]), &x.device, dtype.into()),
    };
    let shape = Shape::new([tokens, rows]);
    let y = empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, dtype);
    let count = CubeCount::Static((rows as u32).div_ceil(ROWS_PER_CUBE), 1, 1);
    // SAFETY: a `CudaCsr` is only made from a `Csr`: entries are inside `columns` and `values`, columns
    // inside a row of `x`; rows behind the last one end at once; `y` has room for [tokens, rows].
    unsafe {
        csr_rows::launch_unchecked::<CudaRuntime>(
            &x.client.clone(),
            count,
            CubeDim::new_2d(LANES, ROWS_PER_CUBE),
            x.into_array_arg(),
            weight.values.clone().into_array_arg(),
            weight.columns.clone().into_array_arg(),
            weight.row_ptr.clone().into_array_arg(),
            bias.into_array_arg(),
            y.clone().into_array_arg(),
            weight.cols as u32,
            rows as u32,
            tokens as u32,
            [dtype.into(), weight.columns.dtype.into()],
        );
    }
    y
}

fn by_expansion(x: Tensor, weight: &CudaCsr) -> Tensor {
    let dtype: DType = weight.values.dtype;
    let shape = Shape::new([weight.rows, weight.cols]);
    let dense = into_contiguous(Cuda::float_zeros(shape, &x.device, dtype.into()));
    // SAFETY: a `CudaCsr` is only made from a `Csr`: rows and columns are inside `dense`.
    unsafe {
        csr_expand::launch_unchecked::<CudaRuntime>(
            &x.client.clone(),
            CubeCount::Static(weight.rows as u32, 1, 1),
            CubeDim::new_1d(EXPAND_THREADS),
            weight.values.clone().into_array_arg(),
            weight.columns.clone().into_array_arg(),
            weight.row_ptr.clone().into_array_arg(),
            dense.clone().into_array_arg(),
            weight.cols as u32,
            [dtype.into(), weight.columns.dtype.into()],
        );
    }
    add_bias(Cuda::float_matmul(x, Cuda::float_swap_dims(dense, 0, 1)), weight.bias.as_ref())
}

/// `y` `[tokens, rows]` plus `bias` `[rows]`.
fn add_bias(y: Tensor, bias: Option<&Tensor>) -> Tensor {
    match bias {
        Some(bias) => Cuda::float_add(y, Cuda::float_reshape(bias.clone(), Shape::new([1, bias.shape()[0]]))),
        None => y,
    }
}

fn ints(data: TensorData, dtype: DType, device: &CudaDevice) -> Tensor {
    BurnTensor::<Cuda, 1, Int>::from_data(data, (device, dtype)).into_primitive()
}
