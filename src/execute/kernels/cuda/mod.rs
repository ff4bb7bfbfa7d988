//! Kernels in CubeCL. They know arrays of numbers, not weights, formats or models.

pub mod rows;
