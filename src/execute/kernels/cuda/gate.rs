//! Nonlinearities of feed-forward layers, element by element, in f32.

// The standard library may get an `erf` of its own.
#![allow(unstable_name_collisions)]

use crate::execute::decode::Activation;
use cubecl::prelude::*;

/// `y = f(x)`, or `y = f(x) · up`, all of `vectors` vectors.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn gate<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    up: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    vectors: u32,
    #[comptime] lanes: usize,
    #[comptime] function: Activation,
    #[comptime] gated: bool,
    #[define(F)] _dtype: StorageType,
) {
    let at = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if at >= vectors {
        terminate!();
    }
    let numbers = x[at as usize];
    let mut result = Vector::<F, N>::empty();
    #[unroll]
    for lane in 0..lanes {
        result[lane] = F::cast_from(apply(f32::cast_from(numbers[lane]), function));
    }
    if comptime!(gated) {
        let factors = up[at as usize];
        #[unroll]
        for lane in 0..lanes {
            result[lane] = F::cast_from(f32::cast_from(result[lane]) * f32::cast_from(factors[lane]));
        }
    }
    y[at as usize] = result;
}

#[cube]
fn apply(x: f32, #[comptime] function: Activation) -> f32 {
    if comptime!(function == Activation::Relu) {
        max(x, 0.0f32)
    } else if comptime!(function == Activation::Gelu) {
        // 1 / √2
        0.5f32 * x * (1.0f32 + f32::erf(x * 0.707_106_77f32))
    } else if comptime!(function == Activation::GeluTanh) {
        // √(2 / π), and Hendrycks and Gimpel's constant, arXiv 1606.08415, section 2.
        0.5f32 * x * (1.0f32 + f32::tanh(0.797_884_6f32 * (x + 0.044_715f32 * x * x * x)))
    } else if comptime!(function == Activation::QuickGelu) {
        x / (1.0f32 + f32::exp(-1.702f32 * x))
    } else {
        x / (1.0f32 + f32::exp(-x))
    }
}
