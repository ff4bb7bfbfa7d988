//! Kernels: the arithmetic of sparse layers on slices, without Burn and without layers.
//!
//! Every `unsafe` block of the crate that is not a memory map is below this folder.

pub mod cpu;
#[cfg(feature = "cuda")]
#[allow(missing_docs, reason = "the `cube` macro makes public items")]
pub mod cuda;
