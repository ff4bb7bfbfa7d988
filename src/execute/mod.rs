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
//!
//! Words, beside those of [`crate::sparse`]:
//! - *format*: how a weight is stored as the user names it, a row of [`crate::config::format`]; *layout*: one of the forms
//!   that a format has on a backend, a file of [`crate::sparse`]; *kernel*: code that multiplies a layout.
//! - *tile*: on the CPU 16, 32 or 64 tokens with all of their columns, side by side in lanes; on a GPU the part of a
//!   weight that a plane multiplies at once.
//! - *block*: of a product, the columns that are summed up before the next are begun. *Shape*: `[rows, cols]`.

mod backend;
mod burn_ops;
mod convert;
#[cfg(feature = "cuda")]
mod cuda;
pub mod decode;
pub mod device;
mod flex;
mod gram;
mod host;
pub mod kernels;
mod ndarray;
mod own;
mod policy;
pub mod stage;

pub use crate::config::format::Format;
pub use backend::{
    ColumnWeight, Fastest, KERNEL_POLICY_VERSION, LayerShape, Operand, PackError, PackFor, Packing, Peaks,
    SparseBackend, SparseWeight,
};
pub use convert::{Later, ReadError, host_numbers, narrow, wide_bf16, wide_f16, widen};
#[cfg(feature = "cuda")]
pub use cuda::{Cuda, CudaWeight, cuda_device};
pub use decode::{DecodeOps, Likely, Target};
pub use gram::{GramSums, GramTotals};
pub use host::HostWeight;
pub use own::{OwnArray, OwnArrays, OwnError, OwnKernel, OwnSource, own_arrays, own_bytes};
