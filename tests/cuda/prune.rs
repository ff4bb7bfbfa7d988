//! Pruning on a GPU decides what pruning on the host decides, bit by bit.
//! Run with `cargo test --release --features cuda --test cuda -- --ignored --test-threads 1`.

use crate::panics;
use burn::tensor::{DType, Tensor, TensorData};
use sparsify_exp::config::experiment::{Dtype, Method, NmPattern, Scope};
use sparsify_exp::execute::{Cuda, SparseBackend, cuda_device};
use sparsify_exp::model::DenseWeight;
use sparsify_exp::prune::{Layer, Magnitudes, Request, by_magnitude, prune};
use sparsify_exp::sparse::{Digit, Pattern};
use std::cell::RefCell;

const DTYPES: [(DType, Dtype); 3] = [(DType::F32, Dtype::F32), (DType::F16, Dtype::F16), (DType::BF16, Dtype::Bf16)];
/// Rows and columns: words that are not full, rows of one word and of many, one number.
const SHAPES: [[usize; 2]; 9] =
    [[1, 1], [3, 31], [5, 32], [7, 33], [2, 64], [9, 70], [129, 1000], [1, 70001], [1030, 4096]];

fn no_panics() {
    assert_eq!(panics::take(), 0, "a thread of the device has panicked");
}

/// Numbers of many magnitudes, with ties, zeros of both signs and subnormal numbers.
fn numbers(length: usize, seed: u64) -> Vec<f32> {
    let number = |index: usize| {
        let random = (index as u64 ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let random = random.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
        match random % 16 {
            0 => 0.0,
            1 => -0.0,
            2 => 0.25,
            3 => -0.25,
            4 => (random as f32 - 2e9) * 1e-17,
            5 => (random as f32 - 2e9) * 1e-41,
            _ => (random as f32 / 4e9 - 0.5) * 0.1,
        }
    };
    (0..length).map(number).collect()
}

struct OnDevice(Vec<DenseWeight<Cuda>>);

impl Magnitudes for OnDevice {
    type Error = sparsify_exp::execute::ReadError;

    fn count(&self, layer: usize, digit: Digit) -> Result<Vec<u32>, Self::Error> {
        self.0[layer].count_magnitudes(digit)
    }

    fn above(&self, layer: usize, threshold: Option<u32>) -> Result<Pattern, Self::Error> {
        match threshold {
            Some(threshold) => self.0[layer].magnitudes_above(threshold),
            None => {
                let shape = SHAPES[layer];
                Ok(Pattern::full(shape[0], shape[1]))
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn patterns_equal_those_of_the_host() {
    panics::watch();
    let device = cuda_device(0);
    for (burn_dtype, dtype) in DTYPES {
        let weight = |(index, shape): (usize, &[usize; 2])| {
            let numbers = numbers(shape[0] * shape[1], index as u64);
            DenseWeight::<Cuda>::new(numbers.into(), *shape, burn_dtype, &device)
        };
        let weights = OnDevice(SHAPES.iter().enumerate().map(weight).collect());
        let sizes: Vec<usize> = SHAPES.iter().map(|shape| shape[0] * shape[1]).collect();
        let layers = SHAPES.iter().zip(&weights.0);
        let layers =
            layers.map(|(&[rows, cols], weight)| Layer { name: "layer", rows, cols, weights: weight.host().unwrap() });
        let layers: Vec<Layer<'_>> = layers.collect();
        for (scope, together) in [(Scope::Global, true), (Scope::Layer, false)] {
            for sparsity in [0.0, 1e-6, 0.1, 0.25, 0.5, 0.7, 0.9, 0.999, 1.0] {
                let (method, pattern) = (Method::Magnitude, NmPattern::Unstructured);
                let expected = prune(
                    &layers,
                    &Request { method, scope: Some(scope), pattern, sparsity, seed: 0, settings: Default::default() },
                )
                .unwrap();
                let patterns = by_magnitude(&weights, &sizes, together, sparsity, dtype).unwrap().patterns;
                no_panics();
                for ((expected, pattern), shape) in expected.iter().zip(&patterns).zip(SHAPES) {
                    assert!(expected == pattern, "{dtype:?} {scope:?} {sparsity} {shape:?}");
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn counts_and_masked_weights_equal_those_of_the_host() {
    panics::watch();
    let device = cuda_device(0);
    for (burn_dtype, dtype) in DTYPES {
        for (index, shape) in SHAPES.into_iter().enumerate() {
            let numbers = numbers(shape[0] * shape[1], 100 + index as u64);
            let weight = DenseWeight::<Cuda>::new(numbers.into(), shape, burn_dtype, &device);
            let host = weight.host().unwrap().into_owned();
            for digit in [Digit { shift: 13, bits: 18, above: 0 }, Digit { shift: 0, bits: 16, above: 0x3e80 }] {
                let counts = weight.count_magnitudes(digit).unwrap();
                no_panics();
                assert!(counts == digit.count(&host), "{dtype:?} {shape:?} {digit:?}");
            }
            let pattern = Pattern::keep_where(shape[0], shape[1], &host, |index, _| index * 7 % 5 < 2);
            let masked = weight.masked(&pattern).unwrap();
            no_panics();
            assert!(bits(&masked.host().unwrap()) == bits(&pattern.apply(&host)), "{dtype:?} {shape:?}");
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_matrix_that_is_not_contiguous_is_read_in_order() {
    panics::watch();
    let device = cuda_device(0);
    let data = TensorData::new(numbers(70 * 90, 3), [90, 70]);
    let transposed = Tensor::<Cuda, 2>::from_data(data, (&device, DType::F32)).transpose();
    let tensor = transposed.into_primitive().tensor();
    let host = Cuda::host_f32(&tensor).unwrap().into_owned();
    let pattern = Cuda::magnitudes_above(&tensor, 0x3c00_0000).unwrap();
    no_panics();
    assert!(pattern == Pattern::above(70, 90, &host, Some(0x3c00_0000)));
}

/// What a 7B model needs: prints, decides nothing.
#[test]
#[ignore = "needs a GPU, and is a measurement"]
fn seconds_of_a_block_of_seven_billion() {
    let device = cuda_device(0);
    let shapes = [[4096, 4096], [4096, 4096], [4096, 4096], [4096, 4096], [11008, 4096], [11008, 4096], [4096, 11008]];
    let log = RefCell::new(Vec::new());
    let timed = |what: &str, start: std::time::Instant| {
        log.borrow_mut().push(format!("{what} {:.3} s", start.elapsed().as_secs_f64()))
    };
    for round in 0..2 {
        for shape in shapes {
            let numbers = numbers(shape[0] * shape[1], round);
            let start = std::time::Instant::now();
            let weight = DenseWeight::<Cuda>::new(numbers.into(), shape, DType::F16, &device);
            timed("narrow and send", start);
            let start = std::time::Instant::now();
            let counts = weight.count_magnitudes(Digit { shift: 13, bits: 18, above: 0 }).unwrap();
            assert_eq!(counts.iter().map(|&count| count as usize).sum::<usize>(), shape[0] * shape[1]);
            timed("count", start);
            let start = std::time::Instant::now();
            let pattern = weight.magnitudes_above(0x3c00_0000).unwrap();
            timed("compare", start);
            let start = std::time::Instant::now();
            let masked = weight.masked(&pattern).unwrap();
            drop(masked);
            let kept = pattern.kept();
            timed("mask", start);
            let start = std::time::Instant::now();
            let host = weight.host().unwrap();
            timed("fetch and widen", start);
            assert!(host.iter().filter(|weight| weight.abs() > f32::from_bits(0x3c00_0000)).count() == kept);
        }
    }
    println!("{}", log.borrow().join("\n"));
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}
