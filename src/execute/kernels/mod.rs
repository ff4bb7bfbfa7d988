//! Kernels: the arithmetic of sparse layers and of attention on slices, without Burn and without layers.
//!
//! `unsafe` lives here, in the few lines beside this folder that hand a tensor's memory to a kernel, and in
//! the memory maps of `load/weights`; nowhere else.

pub mod attention;
pub mod cpu;
#[cfg(feature = "cuda")]
#[allow(missing_docs, reason = "the `cube` macro makes public items")]
pub mod cuda;
pub mod exp;
mod heads;
pub mod softmax;
