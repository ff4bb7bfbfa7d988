//! Which device answers, as data.

use crate::config::experiment::{BackendChoice, Dtype};
use crate::plan::Backend;
use thiserror::Error;

/// Why a device can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DeviceError {
    /// The program was built without CUDA.
    #[error("`backend = \"cuda\"`, but this program was built without the `cuda` feature")]
    CudaNotBuiltIn,
    /// No GPU can be used.
    #[error("`backend = \"cuda\"`, but no GPU answers: {reason}")]
    NoGpu {
        /// What was looked for and not found.
        reason: String,
    },
    /// There are fewer GPUs than that.
    #[error("`device.index` is {index}, but there are {count} GPUs")]
    NoSuchGpu {
        /// The index asked for.
        index: usize,
        /// GPUs that answer.
        count: usize,
    },
}

impl DeviceError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::CudaNotBuiltIn => "build with `cargo build --release --features cuda`, or take `backend = \"auto\"`",
            Self::NoGpu { .. } => "check `nvidia-smi`, or take `backend = \"auto\"`",
            Self::NoSuchGpu { .. } => "GPUs count from 0",
        };
        Some(hint.into())
    }
}

/// Decides `auto`, and checks that the backend can be used.
///
/// # Errors
/// When a GPU is asked for and none can be used.
pub fn resolve(choice: BackendChoice, index: usize) -> Result<Backend, DeviceError> {
    match choice {
        BackendChoice::NdArray => Ok(Backend::NdArray),
        BackendChoice::Flex => Ok(Backend::Flex),
        BackendChoice::Cuda => gpu(index).map(|()| Backend::Cuda),
        BackendChoice::Auto => Ok(if gpu(index).is_ok() { Backend::Cuda } else { Backend::Flex }),
    }
}

/// What a backend computes in, unless the experiment says otherwise; `checkpoint` is what its weights are.
pub fn default_dtype(backend: Backend, checkpoint: Dtype) -> Dtype {
    if backend.is_cpu() { Dtype::F32 } else { checkpoint }
}

#[cfg(not(feature = "cuda"))]
fn gpu(_index: usize) -> Result<(), DeviceError> {
    Err(DeviceError::CudaNotBuiltIn)
}

#[cfg(feature = "cuda")]
fn gpu(index: usize) -> Result<(), DeviceError> {
    let count = super::cuda::gpus().map_err(|reason| DeviceError::NoGpu { reason })?;
    if index < count { Ok(()) } else { Err(DeviceError::NoSuchGpu { index, count }) }
}
