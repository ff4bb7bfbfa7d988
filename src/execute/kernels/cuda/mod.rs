//! Kernels in CubeCL. They know arrays of numbers, not weights, formats or models.

pub mod argmax;
pub mod attention;
pub mod gate;
pub mod norm;
pub mod rows;
pub mod table;
