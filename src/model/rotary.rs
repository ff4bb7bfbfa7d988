//! Rotary positions (arXiv 2104.09864, equation 34): tables of cosines and sines.
//!
//! ```text
//!   a table     row 0 .. positions-1 for sequences of one length | the same for another length | ..
//! ```
//!
//! Most rules turn sequences of every length in the same way, and have one part; two depend on the length.

use super::architecture::{RopeScaling, Rotary};
use crate::execute::decode::Turns;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use std::f64::consts::TAU;
use std::sync::Arc;

/// Cosines and sines in host memory.
#[derive(Clone, Debug)]
pub(super) struct Angles {
    /// Features of a head that are rotated.
    dim: usize,
    /// Features `2 i` and `2 i + 1` are a pair.
    neighbours: bool,
    /// `[rows, dim / 2]`
    cos: Vec<f32>,
    /// `[rows, dim / 2]`
    sin: Vec<f32>,
}

impl Angles {
    /// The tables for sequences of each of some lengths, positions `0..positions` of one after those of the other.
    fn new(rotary: &Rotary, lengths: &[usize], positions: usize) -> Self {
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for &length in lengths {
            let (frequencies, size) = (frequencies(rotary, length), rotary.scaling.size() as f32);
            let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
            for angle in angles {
                cos.push(angle.cos() * size);
                sin.push(angle.sin() * size);
            }
        }
        Self { dim: rotary.dim, neighbours: rotary.neighbours, cos, sin }
    }

    /// Rotates a head's features as a row of the table says.
    ///
    /// # Shapes
    /// - `from`, `to`: `[head_dim]`
    pub fn rotate(&self, from: &[f32], row: usize, to: &mut [f32]) {
        let half = self.dim / 2;
        let part = |table: &'_ [f32], i: usize| table[row * half + i];
        for i in 0..half {
            let (cos, sin) = (part(&self.cos, i), part(&self.sin, i));
            let (a, b) = if self.neighbours { (2 * i, 2 * i + 1) } else { (i, half + i) };
            to[a] = from[a] * cos - from[b] * sin;
            to[b] = from[b] * cos + from[a] * sin;
        }
        to[self.dim..].copy_from_slice(&from[self.dim..]);
    }
}

/// [`Angles`], and the same as a tensor where the device is not the host.
#[derive(Clone, Debug)]
pub(super) struct RotaryTable<B: Backend> {
    positions: usize,
    /// The lengths of sequences that are turned in different ways.
    lengths: Vec<usize>,
    angles: Arc<Angles>,
    turns: Turns<B>,
}

impl<B: Backend> RotaryTable<B> {
    /// The table for positions `0..positions` of sequences of these lengths; none where nothing is rotated.
    pub fn new(rotary: &Rotary, sequences: &[usize], positions: usize, device: &B::Device) -> Option<Self> {
        let pairs = rotary.dim / 2;
        if pairs == 0 {
            return None;
        }
        let lengths = distinct(rotary, sequences);
        let angles = Arc::new(Angles::new(rotary, &lengths, positions));
        let both: Vec<f32> = angles.cos.iter().zip(&angles.sin).flat_map(|(&cos, &sin)| [cos, sin]).collect();
        let data = TensorData::new(both, [lengths.len() * positions * pairs * 2]);
        let table = Tensor::from_data(data, (device, DType::F32));
        let mut made = Self {
            positions,
            lengths,
            angles,
            turns: Turns { pairs, neighbours: rotary.neighbours, table, starts: None },
        };
        made.begin(rotary, sequences);
        Some(made)
    }

    /// Whether the table is one for sequences of these lengths.
    pub fn fits(&self, rotary: &Rotary, sequences: &[usize], positions: usize) -> bool {
        self.positions >= positions && distinct(rotary, sequences).iter().all(|length| self.lengths.contains(length))
    }

    /// Looks up where the sequences of a batch begin.
    pub fn begin(&mut self, rotary: &Rotary, sequences: &[usize]) {
        let place = |&length: &usize| {
            let turned = rotary.scaling.turned_as(length);
            self.lengths.iter().position(|&known| known == turned).unwrap_or(0) * self.positions
        };
        let starts: Vec<usize> = sequences.iter().map(place).collect();
        self.turns.starts = starts.iter().any(|&start| start > 0).then_some(starts);
    }

    /// The table in host memory.
    pub fn angles(&self) -> &Angles {
        &self.angles
    }

    /// The table on the device, and where sequences begin in it.
    pub fn turns(&self) -> &Turns<B> {
        &self.turns
    }
}

/// The lengths of sequences that are turned in different ways, in order.
fn distinct(rotary: &Rotary, sequences: &[usize]) -> Vec<usize> {
    let turned = sequences.iter().map(|&length| rotary.scaling.turned_as(length));
    turned.collect::<std::collections::BTreeSet<usize>>().into_iter().collect()
}

impl RopeScaling {
    /// The shortest length of sequences that are turned as those of `length` tokens are.
    pub fn turned_as(&self, length: usize) -> usize {
        match *self {
            Self::None | Self::Linear(_) | Self::Llama3 { .. } | Self::Yarn { .. } => 0,
            Self::Dynamic { original, .. } => length.max(original),
            Self::Long { original, .. } => {
                if length > original {
                    original + 1
                } else {
                    0
                }
            }
        }
    }

    /// Whether keys that were turned for `before` tokens are wrong once a sequence has `after` of them, as is all that
    /// was computed from them: that of `Dynamic` is kept as it was, as the library does.
    pub fn outgrown(&self, before: usize, after: usize) -> bool {
        match self {
            Self::None | Self::Linear(_) | Self::Llama3 { .. } | Self::Yarn { .. } | Self::Dynamic { .. } => false,
            Self::Long { .. } => self.turned_as(before) != self.turned_as(after),
        }
    }

    /// What cosines and sines are multiplied by.
    fn size(&self) -> f64 {
        match *self {
            Self::None | Self::Linear(_) | Self::Llama3 { .. } | Self::Dynamic { .. } => 1.0,
            Self::Yarn { attention, .. } | Self::Long { attention, .. } => attention,
        }
    }
}

/// The `dim / 2` angular frequencies for a sequence of `length` tokens, in f32 as the reference implementations
/// hold them.
fn frequencies(rotary: &Rotary, length: usize) -> Vec<f32> {
    let dim = rotary.dim as f64;
    let theta = match rotary.scaling {
        RopeScaling::Dynamic { factor, original } if length > original => {
            let longer = factor * length as f64 / original as f64 - (factor - 1.0);
            rotary.theta * longer.powf(dim / (dim - 2.0))
        }
        RopeScaling::Dynamic { .. }
        | RopeScaling::None
        | RopeScaling::Linear(_)
        | RopeScaling::Llama3 { .. }
        | RopeScaling::Yarn { .. }
        | RopeScaling::Long { .. } => rotary.theta,
    };
    let plain = (0..rotary.dim / 2).map(|pair| (pair, theta.powf(-2.0 * pair as f64 / dim)));
    plain.map(|(pair, frequency)| scale(rotary, pair, frequency, length) as f32).collect()
}

fn scale(rotary: &Rotary, pair: usize, frequency: f64, length: usize) -> f64 {
    match &rotary.scaling {
        RopeScaling::None | RopeScaling::Dynamic { .. } => frequency,
        RopeScaling::Linear(factor) => frequency / factor,
        RopeScaling::Llama3 { factor, low, high, original } => {
            let turns = original * frequency / TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            frequency * (kept + (1.0 - kept) / factor)
        }
        RopeScaling::Yarn { factor, fast, slow, original, whole, .. } => {
            let kept = 1.0 - ramp(rotary, [*fast, *slow], *original, *whole, pair);
            frequency * (kept + (1.0 - kept) / factor)
        }
        RopeScaling::Long { short, long, original, .. } => {
            frequency / if length > *original { long[pair] } else { short[pair] }
        }
    }
}

/// How far a pair of features is between the one that turns `bounds[0]` times in the first context and the one that
/// turns `bounds[1]` times: 0 to 1 (arXiv 2309.00071, section 3.2).
fn ramp(rotary: &Rotary, bounds: [f64; 2], original: f64, whole: bool, pair: usize) -> f64 {
    let dim = rotary.dim as f64;
    let [low, high] = bounds.map(|turns| dim * (original / (turns * TAU)).ln() / (2.0 * rotary.theta.ln()));
    let [low, high] = if whole { [low.floor(), high.ceil()] } else { [low, high] };
    let (low, high) = (low.max(0.0), high.min(dim - 1.0));
    let high = if low == high { high + 0.001 } else { high };
    ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotary(scaling: RopeScaling) -> Rotary {
        Rotary { dim: 16, theta: 1e4, scaling, neighbours: false }
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        let rotary = rotary(RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 });
        let scale = |frequency| scale(&rotary, 0, frequency, 0);
        assert_eq!(scale(1.0), 1.0);
        assert_eq!(scale(1e-5), 1e-5 / 8.0);
        let between = scale(2.0 * TAU / 8192.0);
        let frequency = 2.0 * TAU / 8192.0;
        assert!((between - frequency * (1.0 / 3.0 + 2.0 / 3.0 / 8.0)).abs() < 1e-12);
    }
}
