//! The op on CUDA.

mod attention;
mod by_hand;
pub(super) mod cache;
mod choice;
mod cube;
mod decode;
mod dense;
mod fma;
mod form;
mod gemm;
mod hold;
mod inputs;
mod lanes;
mod linear;
mod outputs;
mod own;
mod policy;
pub(super) mod probe;
mod prune;
mod raw;
mod threshold;
mod trial;
mod weight;

pub use raw::blas::version as dense_library;
pub use weight::CudaWeight;

use super::backend::{ColumnWeight, Fastest, LayerShape, Operand, PackError, PackFor, Packing, Peaks, SparseBackend};
use super::convert::{ReadError, narrow, widen};
use super::own::{OwnArrays, OwnError, OwnKernel, OwnSource};
use crate::config::format::Format;
use crate::sparse::{Digit, Pattern};
use burn::tensor::Tensor as BurnTensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{DType, Distribution, TensorMetadata, read_sync};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// Burn's CUDA backend, without operator fusion, which is slower for one token.
pub type Cuda = CubeBackend<CudaRuntime, f32, i32, u8>;

type Tensor = CubeTensor<CudaRuntime>;

/// Multiprocessors of a GPU that does not say.
const PROCESSORS: usize = 128;

/// Bytes that are copied for the peak of the memory.
const PEAK_BYTES: usize = 1 << 30;
/// Side of the matrices that are multiplied for the peak of the arithmetic.
const PEAK_SIDE: usize = 4096;
/// The best of this many counts, after as many that tune and compile.
const PEAK_ROUNDS: usize = 10;

/// The GPU at an index.
pub fn cuda_device(index: usize) -> CudaDevice {
    cache::install(index);
    let device = CudaDevice::new(index);
    trial::ask(&device);
    device
}

impl SparseBackend for Cuda {
    type Packed = CudaWeight;
    const ON_HOST: bool = false;

    fn pack(
        format: Format,
        weights: &[f32],
        pattern: &Pattern,
        bias: Option<&Tensor>,
        dtype: DType,
        for_use: PackFor,
        device: &CudaDevice,
    ) -> Result<Packing<CudaWeight>, PackError> {
        let packing = CudaWeight::pack(format, weights, pattern, bias, dtype, for_use, device);
        Self::sent(device);
        packing
    }

    /// The runtime keeps what it sends until a kernel is launched, and counts its bytes in 32 bits: their sum wraps
    /// at 4 GiB, which is an overflow where those are checked.
    fn sent(device: &CudaDevice) {
        // What fails here fails again, with a message, when the numbers are used.
        let _ = CudaRuntime::client(device).flush();
    }

    fn copied(weight: &CudaWeight) -> CudaWeight {
        weight.copied()
    }

    fn sparse_linear(x: Tensor, weight: &CudaWeight) -> Tensor {
        linear::sparse(x, weight)
    }

    fn dense_linear(x: Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        dense::product(x, weight, bias)
    }

    fn products(x: &Tensor, operands: &[Operand<'_, Self>]) -> Option<Vec<Tensor>> {
        linear::together(x, operands)
    }

    fn sparse_kernel(weight: &CudaWeight, tokens: usize) -> String {
        linear::sparse_kernel(weight, tokens)
    }

    fn dense_kernel(weight: &Tensor, tokens: usize) -> String {
        dense::kernel(weight, tokens, None)
    }

    fn fastest(layer: LayerShape, tokens: usize, dtype: DType, device: &CudaDevice) -> Fastest {
        form::fastest(layer, tokens, dtype, device)
    }

    fn peaks(device: &CudaDevice, dtype: DType) -> Result<Peaks, String> {
        let numbers = PEAK_BYTES / dtype.size();
        let normal = Distribution::Normal(0.0, 1.0);
        let read = BurnTensor::<Self, 1>::random([numbers], normal, (device, dtype));
        let square = BurnTensor::<Self, 2>::random([PEAK_SIDE, PEAK_SIDE], normal, (device, dtype));
        let square = square.into_primitive().tensor();
        let copy = best(device, || drop(read.clone().mul_scalar(2.0)))?;
        let product = best(device, || drop(dense::product(square.clone(), &square, None)))?;
        let flops = 2.0 * (PEAK_SIDE as f64).powi(3);
        // What is written counts as what is read does.
        Ok(Peaks { bytes_per_s: 2.0 * (numbers * dtype.size()) as f64 / copy, flops_per_s: flops / product })
    }

    fn threshold_linear(x: Tensor, weight: &ColumnWeight<Self>, threshold: f32) -> Tensor {
        threshold::threshold_linear(x, weight, threshold)
    }

    fn threshold_kernel(weight: &ColumnWeight<Self>, tokens: usize) -> String {
        threshold::kernel(weight, tokens)
    }

    fn own_kernel(
        source: &OwnSource,
        weight: &OwnArrays,
        dtype: DType,
        device: &CudaDevice,
    ) -> Result<Box<dyn OwnKernel<Self>>, OwnError> {
        own::own_kernel(source, weight, dtype, device)
    }

    fn hold(device: &CudaDevice, time: Duration) {
        hold::hold(device, time);
    }

    fn memory_in_use(device: &CudaDevice) -> Option<u64> {
        CudaRuntime::client(device).memory_usage().ok().map(|usage| usage.bytes_in_use)
    }

    fn host_f32(tensor: &Tensor) -> Result<Cow<'_, [f32]>, ReadError> {
        let data = read_sync(Self::float_into_data(tensor.clone()));
        let data = data.map_err(|error| ReadError(format!("{error:?}")))?;
        widen(data).map(Cow::Owned).ok_or_else(|| ReadError("a tensor's numbers are no floating-point numbers".into()))
    }

    fn count_magnitudes(tensor: &Tensor, digit: Digit) -> Result<Vec<u32>, ReadError> {
        prune::count(tensor, digit).unwrap_or_else(|| Ok(digit.count(&Self::host_f32(tensor)?)))
    }

    fn magnitudes_above(tensor: &Tensor, threshold: u32) -> Result<Pattern, ReadError> {
        prune::above(tensor, threshold).unwrap_or_else(|| {
            let shape = tensor.shape();
            Ok(Pattern::above(shape[0], shape[1], &Self::host_f32(tensor)?, Some(threshold)))
        })
    }

    fn masked(tensor: &Tensor, pattern: &Pattern) -> Result<Tensor, ReadError> {
        if let Some(masked) = prune::mask(tensor, pattern) {
            return Ok(masked);
        }
        let numbers = pattern.apply(&Self::host_f32(tensor)?);
        Ok(Self::float_from_data(narrow(numbers.into(), tensor.shape(), tensor.dtype), &tensor.device))
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

/// Whether the device has tensor cores that multiply matrices of such numbers, 16 x 8 x 16 at a time.
fn tensor_core(client: &ComputeClient<CudaRuntime>, dtype: DType) -> bool {
    let number: StorageType = dtype.into();
    let config = MmaConfig {
        a_type: number,
        b_type: number,
        cd_type: f32::as_type_native_unchecked().storage_type(),
        m: 16,
        n: 8,
        k: 16,
    };
    dtype.size() == 2 && client.properties().features.matmul.mma.contains(&config)
}

/// Multiprocessors of the device.
fn processors(client: &ComputeClient<CudaRuntime>) -> usize {
    client.properties().hardware.num_streaming_multiprocessors.map_or(PROCESSORS, |count| count as usize)
}
