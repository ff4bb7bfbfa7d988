//! Kernels in CubeCL. They know arrays of numbers, not weights, formats or models.

pub mod argmax;
pub mod attention;
pub mod gate;
pub mod hold;
pub mod norm;
pub mod prune;
pub mod rows;
pub mod table;
pub mod threshold;
