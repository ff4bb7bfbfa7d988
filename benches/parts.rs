//! What happens around the kernels: conversion, the choice of weights, a whole forward pass.
//!
//! `cargo bench --bench parts` prints a line each: median and fastest of a few repeats. Kernels themselves
//! are timed by `sparsify-exp run experiments/kernels-cpu.toml`.

use burn::backend::Flex;
use burn::tensor::DType;
use sparsify_exp::config::experiment::{Method, NmPattern, Scope};
use sparsify_exp::execute::kernels::cpu::*;
use sparsify_exp::execute::{Format, SparseWeight};
use sparsify_exp::model::{Batch, Decoder, LinearWeight, Part, architecture, published};
use sparsify_exp::prune::{Layer, Request, prune};
use sparsify_exp::sparse::{Bitmap, Csr, Pattern, Sell};
use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const REPEATS: usize = 9;
const SPARSITY: f64 = 0.5;

fn random(i: usize) -> f32 {
    let mut h = i as u64 + 1;
    h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (h >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn bench<T>(name: &str, mut work: impl FnMut() -> T) {
    let mut times: Vec<f64> = (0..REPEATS + 1)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64() * 1e3
        })
        .skip(1)
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name:<60} {:>9.2} ms, fastest {:>9.2} ms", times[REPEATS / 2], times[0]);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (rows, cols) = (4096, 4096);
    let weights: Vec<f32> = (0..rows * cols).map(random).collect();
    let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| f64::from(random(i + 77).abs()) >= SPARSITY);
    bench("4096 x 4096 at 50 % to plain CSR", || Csr::<f32>::from_dense(&weights, &pattern));
    bench("4096 x 4096 at 50 % to SELL", || Sell::<f32>::from_dense(&weights, &pattern));
    bench("4096 x 4096 at 50 % to bitmap", || Bitmap::from_dense(&weights, &pattern));

    let layer = || vec![Layer { name: "w", rows, cols, weights: Cow::Borrowed(&weights) }];
    for (name, scope, pattern) in [
        ("global threshold", Some(Scope::Global), NmPattern::Unstructured),
        ("threshold a row", Some(Scope::Row), NmPattern::Unstructured),
        ("2:4", None, NmPattern::NofM { n: 2, m: 4 }),
    ] {
        let (sparsity, settings) = (SPARSITY, Default::default());
        let request = Request { method: Method::Magnitude, scope, pattern, sparsity, seed: 0, settings };
        bench(&format!("16.8 M weights, magnitude, {name}"), || prune(&layer(), &request));
    }
    instruction_sets(&weights, rows, cols);
    forward()
}

/// Every kernel on every instruction set: what the policy's tables rest on.
fn instruction_sets(weights: &[f32], rows: usize, cols: usize) {
    for sparsity in [0.3, 0.5, 0.7, 0.9] {
        let pattern = Pattern::keep_where(rows, cols, weights, |i, _| f64::from(random(i + 77).abs()) >= sparsity);
        let masked = pattern.apply(weights);
        // Those that the CPU has kernels for.
        let formats =
            Format::ALL.iter().filter_map(|word| pack(word.value, &masked, &pattern, Values::F32).transpose());
        let Ok(formats) = formats.collect::<Result<Vec<_>, _>>() else { return };
        for tokens in [1, 4, 16, 64] {
            let x: Vec<f32> = (0..tokens * cols).map(random).collect();
            for simd in Simd::available() {
                let name = |kernel: String| format!("{kernel}, {} %, {tokens} tokens", sparsity * 100.0);
                if sparsity == 0.3 {
                    let dense = || dense_linear(&masked, [rows, cols], None, &x, tokens, simd);
                    bench(&name(dense_kernel_name(tokens, simd)), dense);
                }
                for matrix in &formats {
                    bench(&name(matrix.kernel(tokens, simd)), || sparse_linear(&**matrix, None, &x, tokens, simd));
                }
            }
        }
    }
}

/// A prompt through OPT-125m's shape, every form of its linears.
fn forward() -> Result<(), Box<dyn std::error::Error>> {
    let shape = Arc::new(architecture(&published("opt-125m").ok_or("no such shape")?)?);
    let device = Default::default();
    let read = |module: usize, part: Part| -> Result<Cow<'_, [f32]>, std::convert::Infallible> {
        let module = &shape.modules[module];
        let (count, scale) = match part {
            Part::Weight => (module.weights(), 0.02),
            Part::Bias => (module.biases(), 0.02),
        };
        Ok((0..count).map(|i| random(i) * scale).collect::<Vec<_>>().into())
    };
    let dense = Decoder::<Flex>::load(shape.clone(), DType::F32, &device, read)?;
    for (name, format) in [("dense", None), ("csr", Some(Format::Csr)), ("bitmap", Some(Format::Bitmap))] {
        let mut decoder = dense.clone();
        for (index, module) in shape.linears().filter(|(_, module)| module.tied_to.is_none()) {
            let (Some(format), LinearWeight::Dense(weight)) = (format, &dense.linear(index).weight) else { continue };
            let (rows, cols) = (module.shape[0], module.shape[1]);
            let weights = weight.host()?;
            let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| f64::from(random(i + 77).abs()) >= SPARSITY);
            let bias = dense.linear(index).bias.as_ref();
            let packed = SparseWeight::new(format, &weights, &pattern, bias, DType::F32, 1, &device)?;
            decoder.set_weight(index, LinearWeight::Sparse(packed));
        }
        for tokens in [1, 16, 128] {
            let ids: Vec<u32> = (0..tokens).collect();
            let batch = Batch::new([&ids[..]]);
            bench(&format!("forward of OPT-125m's shape, {name}, {tokens} tokens"), || {
                decoder.hidden(&batch).map(|hidden| decoder.logits(hidden))
            });
        }
    }
    Ok(())
}
