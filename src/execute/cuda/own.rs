//! A user's kernel on the device: its arrays, its output, and its launches.

use super::outputs;
use super::raw::Gpu;
use super::raw::own::OwnFunction;
use super::{Cuda, Tensor};
use crate::execute::convert::narrow;
use crate::execute::own::{OwnArray, OwnArrays, OwnError, OwnKernel, OwnSource, own_bytes};
use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::kernel::into_contiguous;
use cubecl::Runtime;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::server::Handle;
use std::sync::Arc;

struct CudaOwn {
    function: OwnFunction,
    name: String,
    host: Arc<OwnArrays>,
    dtype: DType,
    device: CudaDevice,
    /// The arrays on the device, in order.
    arrays: Vec<Handle>,
}

/// See [`crate::execute::SparseBackend::own_kernel`].
pub(super) fn own_kernel(
    source: &OwnSource,
    weight: &OwnArrays,
    dtype: DType,
    device: &CudaDevice,
) -> Result<Box<dyn OwnKernel<Cuda>>, OwnError> {
    let failed = |reason| OwnError::Kernel { name: source.name.clone(), reason };
    let gpu = Gpu::any(device).ok_or_else(|| failed("the stream of this thread was not found".into()))?;
    let function = OwnFunction::compile(gpu, source, dtype).map_err(failed)?;
    let host = Arc::new(weight.clone());
    let arrays = uploaded(&host, dtype, device);
    let name = format!("{}:{}", source.name, source.entry);
    Ok(Box::new(CudaOwn { function, name, host, dtype, device: device.clone(), arrays }))
}

fn uploaded(weight: &OwnArrays, dtype: DType, device: &CudaDevice) -> Vec<Handle> {
    let client = CudaRuntime::client(device);
    let upload = |array: &OwnArray| match array {
        // An empty array still has an address.
        OwnArray::Numbers(numbers) if numbers.is_empty() => client.empty(16),
        OwnArray::Numbers(numbers) => {
            let data = narrow(numbers.as_slice().into(), [numbers.len()], dtype);
            <Cuda as FloatTensorOps<Cuda>>::float_from_data(data, device).handle
        }
        OwnArray::Words(words) if words.is_empty() => client.empty(16),
        OwnArray::Words(words) => client.create_from_slice(bytemuck::cast_slice(words)),
        OwnArray::Halves(halves) if halves.is_empty() => client.empty(16),
        OwnArray::Halves(halves) => client.create_from_slice(bytemuck::cast_slice(halves)),
    };
    weight.arrays.iter().map(upload).collect()
}

impl CudaOwn {
    fn output(&self, x: &Tensor) -> Tensor {
        outputs::output(x, Shape::new([x.shape()[0], self.host.shape[0]]), x.dtype)
    }

    fn buffers(&self, x: &Tensor, y: &Tensor) -> Vec<Handle> {
        self.arrays.iter().chain([&x.handle, &y.handle]).cloned().collect()
    }

    /// Rows, columns, tokens and weights that are kept.
    fn sizes(&self, x: &Tensor) -> [u32; 4] {
        let OwnArrays { shape: [rows, cols], kept, .. } = *self.host;
        [rows, cols, x.shape()[0], kept].map(|size| size as u32)
    }
}

impl OwnKernel<Cuda> for CudaOwn {
    fn run(&self, x: Tensor) -> Tensor {
        let x = into_contiguous(x);
        let y = self.output(&x);
        self.function.run(self.buffers(&x, &y), self.sizes(&x));
        y
    }

    fn checked(&self, x: Tensor) -> Result<Tensor, OwnError> {
        let x = into_contiguous(x);
        let y = self.output(&x);
        let bytes = y.shape().num_elements() * y.dtype.size();
        let ran = self.function.checked(self.buffers(&x, &y), self.sizes(&x), bytes);
        ran.map_err(|reason| OwnError::Kernel { name: self.name.clone(), reason })?;
        Ok(y)
    }

    fn copied(&self) -> Box<dyn OwnKernel<Cuda>> {
        Box::new(Self {
            function: self.function.clone(),
            name: self.name.clone(),
            host: self.host.clone(),
            dtype: self.dtype,
            device: self.device.clone(),
            arrays: uploaded(&self.host, self.dtype, &self.device),
        })
    }

    fn bytes(&self) -> u64 {
        own_bytes(&self.host.arrays, self.dtype)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
