//! Kernels in CubeCL. They know arrays of numbers, not weights, formats or models.

pub mod argmax;
pub mod attention;
pub mod fma;
pub mod fragments;
pub mod gate;
pub mod gemm;
pub mod groups;
pub mod hold;
pub mod norm;
pub mod prune;
pub mod squares;
pub mod table;
pub mod threshold;
pub mod tiles;
pub mod tiles_f32;
