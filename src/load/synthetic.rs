//! Seeded random weights of a published shape: for timing and memory without a download.
//!
//! Normal-looking numbers with the spread that such models start from (0.02), gains near 1. One
//! ChaCha stream a tensor, read at the weight's place, and integer arithmetic up to the last
//! division: the same weights on every machine and for any number of threads. Where the published files have 16 bits,
//! each number is rounded to them as it is drawn.

use crate::config::experiment::Dtype;
use crate::model::{Halves, Kind, Module, Numbers, Part};
use half::{bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What the weights are, apart from the shape; raised when they change.
const VERSION: &str = "synthetic weights 1";
/// The standard deviation of weights and biases.
const SPREAD: f32 = 0.02;
const CHUNK: usize = 1 << 14;

/// What decides the weights of the model called `name`: what a change changes is another model.
pub fn recipe(name: &str, config: &Value, dtype: Dtype) -> String {
    let rounded = match dtype {
        Dtype::F32 => String::new(),
        Dtype::F16 | Dtype::Bf16 => format!("\nrounded to {dtype}"),
    };
    format!("{VERSION}\n{name}\n{config}{rounded}")
}

/// A tensor of the model called `name`, of numbers of `dtype`; `index` is the module's place.
pub fn tensor(name: &str, index: usize, module: &Module, part: Part, dtype: Dtype) -> Numbers<'static> {
    let (length, stream) = match part {
        Part::Weight => (module.weights(), 2 * index as u64),
        Part::Bias => (module.biases(), 2 * index as u64 + 1),
    };
    let label = format!("{VERSION}{name}");
    let is_gain = module.kind == Kind::Norm && part == Part::Weight;
    let number = |number: f32| if is_gain { 1.0 + SPREAD * number } else { SPREAD * number };
    match dtype {
        Dtype::F32 => Numbers::Wide(drawn(&label, stream, length, number).into()),
        Dtype::F16 => {
            let numbers = drawn(&label, stream, length, |drawn| f16::from_f32(number(drawn)));
            Numbers::Halves(Halves::F16(Arc::new(numbers)))
        }
        Dtype::Bf16 => {
            let numbers = drawn(&label, stream, length, |drawn| bf16::from_f32(number(drawn)));
            Numbers::Halves(Halves::Bf16(Arc::new(numbers)))
        }
    }
}

/// Nearly normal numbers of mean 0 and standard deviation `spread`, which depend on the label and the
/// stream and nothing else.
pub fn normals(label: &str, stream: u64, spread: f32, length: usize) -> Vec<f32> {
    drawn(label, stream, length, |number| spread * number)
}

/// What is made of nearly normal numbers of mean 0 and standard deviation 1.
fn drawn<V: Copy + Default + Send>(label: &str, stream: u64, length: usize, of: impl Fn(f32) -> V + Sync) -> Vec<V> {
    let generator = ChaCha8Rng::from_seed(Sha256::digest(label).into());
    let mut numbers = vec![V::default(); length];
    numbers.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, numbers)| {
        let mut generator = generator.clone();
        generator.set_stream(stream);
        generator.set_word_pos((chunk * CHUNK * 2) as u128);
        for number in numbers {
            *number = of(normal(generator.next_u64()));
        }
    });
    numbers
}

/// The sum of three uniform numbers of 21 bits: mean 0, variance 1, and nearly normal.
fn normal(bits: u64) -> f32 {
    const MASK: u64 = (1 << 21) - 1;
    let sum = (bits & MASK) + (bits >> 21 & MASK) + (bits >> 42 & MASK);
    // The three uniforms on 0..2^21 have a joint variance of 3 * 2^42 / 12, a deviation of 2^20.
    (sum as f32 - 1.5 * MASK as f32) / (1 << 20) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Group;

    fn wide(index: usize, module: &Module, part: Part) -> Vec<f32> {
        tensor("opt-125m", index, module, part, Dtype::F32).wide().into_owned()
    }

    #[test]
    fn tensors_are_repeatable_distinct_and_of_the_right_spread() {
        let module = Module::linear("fc", Group::MlpLinear, 300, 200, true);
        let weights = wide(7, &module, Part::Weight);
        assert_eq!(weights, wide(7, &module, Part::Weight));
        assert_ne!(weights[..300], wide(7, &module, Part::Bias));
        assert_ne!(weights, wide(8, &module, Part::Weight));
        let mean = weights.iter().sum::<f32>() / weights.len() as f32;
        let variance = weights.iter().map(|w| (w - mean).powi(2)).sum::<f32>() / weights.len() as f32;
        assert!(mean.abs() < 1e-3 && (variance.sqrt() - SPREAD).abs() < 1e-3, "{mean} {variance}");
        let gains = wide(7, &Module::norm("norm", 64, true), Part::Weight);
        assert!(gains.iter().all(|gain| (gain - 1.0).abs() < 0.1));
    }

    /// Of 16 bits they are the same numbers, rounded.
    #[test]
    fn numbers_of_16_bits_are_the_wide_ones_rounded() {
        for module in [Module::linear("fc", Group::MlpLinear, 30, 20, true), Module::norm("norm", 64, true)] {
            for part in [Part::Weight, Part::Bias] {
                let exact = wide(3, &module, part);
                for dtype in [Dtype::F16, Dtype::Bf16] {
                    let Numbers::Halves(halves) = tensor("opt-125m", 3, &module, part, dtype) else {
                        panic!("{dtype} has 16 bits")
                    };
                    let rounded = |&number: &f32| match dtype {
                        Dtype::Bf16 => bf16::from_f32(number).to_f32(),
                        Dtype::F16 | Dtype::F32 => f16::from_f32(number).to_f32(),
                    };
                    assert_eq!(halves.wide(), exact.iter().map(rounded).collect::<Vec<f32>>());
                }
            }
        }
    }
}
