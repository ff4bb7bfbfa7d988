//! Rotary positions (arXiv 2104.09864, equation 34), in the half-split order of the checkpoints:
//! feature `i` is paired with feature `i + dim / 2`.

use super::architecture::{RopeScaling, Rotary};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};

/// Cosines and sines of every position up to a length.
#[derive(Clone, Debug)]
pub(super) struct RotaryTable<B: Backend> {
    dim: usize,
    /// `[1, 1, positions, dim]`
    cos: Tensor<B, 4>,
    /// `[1, 1, positions, dim]`
    sin: Tensor<B, 4>,
}

impl<B: Backend> RotaryTable<B> {
    /// The table for positions `0..positions`.
    pub fn new(rotary: &Rotary, positions: usize, dtype: DType, device: &B::Device) -> Self {
        let frequencies = frequencies(rotary);
        let angles = (0..positions).flat_map(|p| frequencies.iter().chain(&frequencies).map(move |f| p as f32 * f));
        let angles: Vec<f32> = angles.collect();
        let shape = [1, 1, positions, rotary.dim];
        let tensor = |f: fn(f32) -> f32| {
            let data = TensorData::new(angles.iter().map(|&a| f(a)).collect::<Vec<f32>>(), shape);
            Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
        };
        Self { dim: rotary.dim, cos: tensor(f32::cos), sin: tensor(f32::sin) }
    }

    /// How many positions the table covers.
    pub fn positions(&self) -> usize {
        self.cos.dims()[2]
    }

    /// Rotates `x` `[sequences, heads, length, head_dim]`, whose positions start at 0.
    pub fn apply(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [sequences, heads, length, head_dim] = x.dims();
        if self.dim == 0 {
            return x;
        }
        let all = [0..sequences, 0..heads, 0..length];
        let part = |from: usize, to: usize| {
            let [s, h, l] = all.clone();
            x.clone().slice([s, h, l, from..to])
        };
        let half = self.dim / 2;
        let turned = Tensor::cat(vec![part(half, self.dim).neg(), part(0, half)], 3);
        let table = |t: &Tensor<B, 4>| t.clone().slice([0..1, 0..1, 0..length, 0..self.dim]);
        let rotated = part(0, self.dim) * table(&self.cos) + turned * table(&self.sin);
        if self.dim == head_dim { rotated } else { Tensor::cat(vec![rotated, part(self.dim, head_dim)], 3) }
    }
}

/// The `dim / 2` angular frequencies, in f32 as the reference implementations hold them.
fn frequencies(rotary: &Rotary) -> Vec<f32> {
    let dim = rotary.dim as f64;
    let plain = (0..rotary.dim / 2).map(|i| rotary.theta.powf(-2.0 * i as f64 / dim));
    plain.map(|f| scale(f, rotary.scaling) as f32).collect()
}

fn scale(frequency: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear(factor) => frequency / factor,
        RopeScaling::Llama3 { factor, low, high, original } => {
            let turns = original * frequency / std::f64::consts::TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            frequency * (kept + (1.0 - kept) / factor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        assert_eq!(scale(1.0, scaling), 1.0);
        assert_eq!(scale(1e-5, scaling), 1e-5 / 8.0);
        let between = scale(2.0 * std::f64::consts::TAU / 8192.0, scaling);
        let frequency = 2.0 * std::f64::consts::TAU / 8192.0;
        assert!((between - frequency * (1.0 / 3.0 + 2.0 / 3.0 / 8.0)).abs() < 1e-12);
    }
}
