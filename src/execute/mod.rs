//! How a model's layers run: the extension that every backend implements, and its kernels.
//!
//! ```text
//!   model/linear.rs ──> SparseBackend::csr_linear(x, CsrWeight)
//!                          ├── Flex, NdArray ──> kernels/cpu.rs on borrowed slices
//!                          └── CubeBackend   ──> kernels/cuda.rs (feature `cuda`)
//! ```
//!
//! This module knows tensors and formats; it does not know models, pruning or measurements.

mod backend;
#[cfg(feature = "cuda")]
mod cuda;
pub mod device;
mod flex;
pub mod kernels;
mod ndarray;

pub use backend::{CsrWeight, SparseBackend, WeightLayout};
#[cfg(feature = "cuda")]
pub use cuda::{Cuda, cuda_device};

/// Raised by hand when kernels change so that timings do: part of the name of every cell that times.
pub const KERNEL_POLICY_VERSION: u32 = 1;
