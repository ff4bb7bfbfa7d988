//! Kernels in CubeCL. They know arrays of numbers, not weights, formats or models.

pub mod hold;
pub mod prune;
pub mod rows;
pub mod threshold;
