//! Kernels in CUDA C++, and NVIDIA's matrix product, on Burn's stream with Burn's buffers.
//!
//! ```text
//!   *.cu ──> source ──> NVRTC ──> ~/.cache/sparsify-exp/NVIDIA-H200/cuda/HASH.cubin ──> stream ──> GPU
//!            macros     once for a driver, an architecture and a source                 └── CubeCL's server thread
//!   delta, octets, panels, nm: the launches of a format   dense: one token   decode: what is between linears, or
//!   reads: made by a linear itself   flash: attention of many tokens   likely: log-softmax of what is asked for
//!   blas: cublasLt   page: launches as a thread writes them down   script: a page of them as a CUDA graph
//!   capability: which code of the sources a GPU runs, and whether it is known to be right there
//! ```
//! Nothing here knows when another path is faster. Where something is missing (the stream can't be found, a source can't
//! be compiled, the library is not installed, a GPU gave wrong numbers), callers take the kernels in CubeCL instead: [`Gpu::of`] and [`blas::can`]
//! tell before anything is packed.

pub(super) mod blas;
pub(super) mod capability;
pub(super) mod decode;
pub(super) mod delta;
pub(super) mod dense;
pub(super) mod flash;
pub(super) mod likely;
pub(super) mod nm;
pub(super) mod octets;
pub(super) mod own;
mod page;
pub(super) mod panels;
// One of either lives while a launch waits: a box would cost an allocation a launch.
#[expect(clippy::large_enum_variant)]
pub(super) mod reads;
pub(super) mod script;
mod source;
mod stream;

pub(super) use stream::Gpu;
