//! How a model's layers run: the extension that every backend implements, and its kernels.
//!
//! ```text
//!   model/linear.rs ──> SparseBackend::{sparse_linear, dense_linear}
//!                          ├── Flex, NdArray ──> host.rs ──> kernels/cpu on borrowed slices
//!                          └── CubeBackend   ──> cuda/ ──> kernels/cuda (feature `cuda`)
//!   model/decoder.rs ──> DecodeOps: what is between linears
//!                          ├── any backend   ──> burn_ops.rs
//!                          └── CubeBackend   ──> cuda/decode.rs ──> kernels/cuda
//! ```
//!
//! This module knows tensors and formats; it does not know models, pruning or measurements.

mod backend;
mod burn_ops;
mod convert;
#[cfg(feature = "cuda")]
mod cuda;
pub mod decode;
pub mod device;
mod flex;
mod host;
pub mod kernels;
mod ndarray;
mod policy;
mod gram;

pub use backend::{
    ColumnWeight, KERNEL_POLICY_VERSION, LayerShape, PackError, Packing, Peaks, ReadError, SparseBackend,
    SparseWeight,
};
pub use crate::config::format::Format;
pub use convert::{narrow, widen};
#[cfg(feature = "cuda")]
pub use cuda::{Cuda, CudaWeight, cuda_device};
pub use decode::DecodeOps;
pub use host::HostWeight;
pub use gram::{GramSums, GramTotals};
