//! The one place where a backend's name becomes its type.

use crate::config::Experiment;
use crate::config::experiment::Dtype;
use crate::execute::SparseBackend;
use crate::plan::Backend;
use crate::record::Machine;
use burn::backend::{Flex, NdArray};
use burn::tensor::DType;

/// Work that is done on whichever backend.
pub(super) trait OnBackend {
    /// What it gives.
    type Output;
    /// Does it.
    fn on<B: SparseBackend>(self, device: B::Device) -> Self::Output;
}

/// Does work on a backend; of GPUs, on the one of this index.
pub(super) fn on_backend<W: OnBackend>(backend: Backend, device_index: usize, work: W) -> W::Output {
    // Only a GPU has an index.
    let _ = device_index;
    match backend {
        Backend::Flex => work.on::<Flex>(Default::default()),
        Backend::NdArray => work.on::<NdArray<f32>>(Default::default()),
        #[cfg(feature = "cuda")]
        Backend::Cuda => {
            super::panics::collect();
            work.on::<crate::execute::Cuda>(crate::execute::cuda_device(device_index))
        }
        #[cfg(not(feature = "cuda"))]
        Backend::Cuda => unreachable!("no cell is planned on a backend that is not built in"),
    }
}

/// Bytes of a number.
pub(super) fn bytes_per_number(dtype: Dtype) -> u64 {
    burn_dtype(dtype).size() as u64
}

/// Burn's name of a dtype.
pub(super) fn burn_dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
    }
}

/// What a backend computes on, as far as times depend on it.
pub(super) fn device_name<'a>(machine: &'a Machine, experiment: &Experiment, backend: Backend) -> &'a str {
    match backend.is_cpu() {
        true => &machine.cpu,
        false => machine.gpu(experiment.device_index).unwrap_or("GPU"),
    }
}

/// The threads of the CPU: 0 in the file means what rayon takes, which the environment may limit.
pub(super) fn threads(experiment: &Experiment) -> usize {
    if experiment.threads == 0 { rayon::current_num_threads() } else { experiment.threads }
}
