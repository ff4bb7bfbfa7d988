//! Rotary positions (arXiv 2104.09864, equation 34), in the half-split order of the checkpoints:
//! feature `i` is paired with feature `i + dim / 2`.

use super::architecture::{RopeScaling, Rotary};
use crate::execute::decode::Turns;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};

/// Cosines and sines of every position up to a length, in host memory.
#[derive(Clone, Debug)]
pub(super) struct Angles {
    /// Features of a head that are rotated.
    dim: usize,
    /// `[positions, dim / 2]`
    cos: Vec<f32>,
    /// `[positions, dim / 2]`
    sin: Vec<f32>,
}

impl Angles {
    fn new(rotary: &Rotary, positions: usize) -> Self {
        let frequencies = frequencies(rotary);
        let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (cos, sin) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Self { dim: rotary.dim, cos, sin }
    }

    /// Rotates a head's features.
    ///
    /// # Shapes
    /// - `from`, `to`: `[head_dim]`
    pub fn rotate(&self, from: &[f32], position: usize, to: &mut [f32]) {
        let half = self.dim / 2;
        let part = |table: &'_ [f32], i: usize| table[position * half + i];
        for i in 0..half {
            let (cos, sin) = (part(&self.cos, i), part(&self.sin, i));
            to[i] = from[i] * cos - from[half + i] * sin;
            to[half + i] = from[half + i] * cos + from[i] * sin;
        }
        to[self.dim..].copy_from_slice(&from[self.dim..]);
    }
}

/// [`Angles`], and the same as a tensor where the device is not the host.
#[derive(Clone, Debug)]
pub(super) struct RotaryTable<B: Backend> {
    positions: usize,
    angles: Angles,
    turns: Turns<B>,
}

impl<B: Backend> RotaryTable<B> {
    /// The table for positions `0..positions`; none where nothing is rotated.
    pub fn new(rotary: &Rotary, positions: usize, device: &B::Device) -> Option<Self> {
        let pairs = rotary.dim / 2;
        if pairs == 0 {
            return None;
        }
        let angles = Angles::new(rotary, positions);
        let both: Vec<f32> = angles.cos.iter().zip(&angles.sin).flat_map(|(&cos, &sin)| [cos, sin]).collect();
        let data = TensorData::new(both, [positions * pairs * 2]);
        let turns = Turns { pairs, table: Tensor::from_data(data, (device, DType::F32)) };
        Some(Self { positions, angles, turns })
    }

    /// How many positions the table covers.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// The table in host memory.
    pub fn angles(&self) -> &Angles {
        &self.angles
    }

    /// The table on the device.
    pub fn turns(&self) -> &Turns<B> {
        &self.turns
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
