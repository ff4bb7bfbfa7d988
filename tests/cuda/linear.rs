//! Linears on a GPU against sums in double precision, at the edges of every kernel.

use crate::panics;
use burn::tensor::{DType, Tensor, TensorData};
use half::{bf16, f16};
use sparsify_exp::execute::decode::{DecodeOps, Places, Span};
use sparsify_exp::execute::{Cuda, Format, PackFor, SparseWeight, cuda_device};
use sparsify_exp::model::{DenseWeight, Linear, LinearWeight};
use sparsify_exp::sparse::Pattern;

fn numbers(seed: u64, length: usize) -> Vec<f32> {
    let number = |index: usize| {
        let random = (index as u64 ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        (random.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..length).map(number).collect()
}

fn rounded(number: f32, dtype: DType) -> f64 {
    match dtype {
        DType::F16 => f16::from_f32(number).to_f64(),
        DType::BF16 => bf16::from_f32(number).to_f64(),
        _ => f64::from(number),
    }
}

/// What the error may be: rounding of the output, and of f32 sums of a few thousand products.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        _ => 1e-5,
    }
}

struct Case {
    shape: [usize; 2],
    dtype: DType,
    format: Option<Format>,
    sparsity: f64,
    bias: bool,
    /// Tokens of the products, and those that the weight is packed for.
    tokens: Vec<usize>,
    packed_for: usize,
}

/// A product that is written down, and then computed a second time by a graph.
fn repeated(linear: &Linear<Cuda>, x: &Tensor<Cuda, 2>) -> Option<Tensor<Cuda, 2>> {
    let tokens = x.dims()[0];
    let spans = vec![Span { past: 0, new: 1, capacity: 4 }; tokens];
    let places = Places::<Cuda>::new(&vec![0; tokens], spans, 1, &cuda_device(0));
    let recorded = Cuda::record(&cuda_device(0), &places, || linear.forward(x.clone()))?;
    let first = recorded.logits();
    let [tokens, rows] = first.dims();
    let before: Vec<f32> = first.into_data().convert::<f32>().into_vec().unwrap();
    recorded.replay().unwrap();
    let after = recorded.logits();
    let same: Vec<f32> = after.clone().into_data().convert::<f32>().into_vec().unwrap();
    let alike = same.len() == tokens * rows && same.iter().zip(&before).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(alike, "a graph gives other numbers than its launches");
    Some(after)
}

/// The norm of a difference as a share of that of `b`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |number: f32| f64::from(number).powi(2);
    let (difference, size): (f64, f64) = a
        .iter()
        .zip(b)
        .map(|(a, b)| (square(a - b), square(*b)))
        .fold((0.0, 0.0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    if difference == 0.0 { 0.0 } else { (difference / size).sqrt() }
}

/// Of every four at most two, of which a share is left out again.
fn two_of_four(rows: usize, cols: usize, sparsity: f64) -> Pattern {
    let (pairs, kept) = (Pattern::random_two_of_four(rows, cols, 3), Pattern::random(rows, cols, sparsity, 4));
    Pattern::from_rows(rows, cols, |row, words| {
        for (word, (pair, kept)) in words.iter_mut().zip(pairs.row(row).iter().zip(kept.row(row))) {
            *word = pair & kept;
        }
    })
}

/// What is wrong with a case; every finding is told, since a run on a GPU is dear.
fn check(case: &Case, findings: &mut Vec<String>) {
    let device = cuda_device(0);
    let Case { shape: [rows, cols], dtype, .. } = *case;
    let weights = numbers(1, rows * cols);
    let bias = case.bias.then(|| numbers(2, rows));
    let device_bias = bias.as_ref().map(|bias| {
        let data = TensorData::new(bias.clone(), [rows]).convert_dtype(dtype);
        Tensor::<Cuda, 1>::from_data(data, (&device, dtype))
    });
    let by_pairs = case.format == Some(Format::Nm);
    let any = if by_pairs { two_of_four } else { |rows, cols, sparsity| Pattern::random(rows, cols, sparsity, 3) };
    let pattern = any(rows, cols, case.sparsity);
    let masked = pattern.apply(&weights);
    let (weight, bias_outside) = match case.format {
        None => (LinearWeight::Dense(DenseWeight::new(masked[..].into(), [rows, cols], dtype, &device)), device_bias),
        Some(format) => {
            let packed = SparseWeight::<Cuda>::new(
                format,
                &weights,
                &pattern,
                device_bias.as_ref(),
                dtype,
                PackFor { tokens: case.packed_for, mixes: true },
                &device,
            );
            (LinearWeight::Sparse(packed.unwrap()), None)
        }
    };
    let linear = Linear { weight, bias: bias_outside };
    for &tokens in &case.tokens {
        let x = numbers(4, tokens * cols);
        let data = TensorData::new(x.clone(), [tokens, cols]).convert_dtype(dtype);
        let x_there = Tensor::from_data(data, (&device, dtype));
        let read = |y: Tensor<Cuda, 2>| y.into_data().convert::<f32>().into_vec::<f32>().unwrap();
        let y = read(linear.forward(x_there.clone()));
        let again = repeated(&linear, &x_there).map(read);
        let (mut difference, mut size) = (0.0, 0.0);
        let some_rows: Vec<usize> = (0..rows).step_by((rows / 97).max(1)).chain([rows - 1]).collect();
        for token in 0..tokens {
            for &row in &some_rows {
                let products = masked[row * cols..][..cols].iter().zip(&x[token * cols..][..cols]);
                let sum: f64 = products.map(|(w, x)| rounded(*w, dtype) * rounded(*x, dtype)).sum();
                let expected = sum + bias.as_ref().map_or(0.0, |bias| rounded(bias[row], dtype));
                let found = f64::from(y[token * rows + row]);
                difference += (found - expected).powi(2);
                size += expected.powi(2);
            }
        }
        let error = if difference == 0.0 { 0.0 } else { (difference / size).sqrt() };
        // Another kernel may be launched there: its rounding is of the same size.
        let of_graph = again.as_ref().map_or(0.0, |again| distance(again, &y));
        let kernel = linear.weight.kernel(tokens);
        let count = panics::take();
        // NaN is no small error.
        if count > 0 || [error, of_graph].iter().any(|error| error.is_nan() || *error > tolerance(dtype)) {
            let (format, sparsity) = (case.format, case.sparsity);
            findings.push(format!(
                "{kernel} {rows}x{cols} {dtype:?} {format:?} {sparsity} {tokens} tokens: error {error:e}, {of_graph:e} in a graph, {count} panics"
            ));
        }
        let graph = if again.is_some() { "graph" } else { "no graph" };
        println!("{kernel} {rows}x{cols} {dtype:?} {} {tokens}: {error:.1e}, {graph} {of_graph:.1e}", case.sparsity);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn every_kernel_is_right_at_its_edges() {
    panics::watch();
    let mut findings = Vec::new();
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        for format in [None, Some(Format::Csr), Some(Format::Bitmap), Some(Format::Nm)] {
            if (format, dtype) == (Some(Format::Nm), DType::F32) {
                continue;
            }
            for ([rows, cols], sparsity) in [
                ([1, 1], 0.0),
                ([5, 3], 0.5),
                ([33, 64], 0.9),
                ([100, 130], 0.5),
                ([17, 4096], 1.0),
                ([200, 1000], 0.0),
                ([9, 1], 0.3),
                ([300, 2999], 0.97),
                ([777, 136], 0.3),
                ([77, 512], 0.5),
            ] {
                let bias = rows % 2 == 1;
                let case = |packed_for, tokens| Case {
                    shape: [rows, cols],
                    dtype,
                    format,
                    sparsity,
                    bias,
                    tokens,
                    packed_for,
                };
                check(&case(1, vec![1, 2, 3, 4, 5]), &mut findings);
                check(&case(16, vec![1, 9, 16, 17, 65]), &mut findings);
                check(&case(64, vec![1, 33, 64, 129, 256, 300]), &mut findings);
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
#[ignore = "needs a GPU"]
fn large_matrices_are_right_for_any_number_of_tokens() {
    panics::watch();
    let mut findings = Vec::new();
    let csr = [1, 16].map(|tokens| (Some(Format::Csr), tokens));
    let bitmap = [1, 64].map(|tokens| (Some(Format::Bitmap), tokens));
    let pairs = [(Some(Format::Nm), 16)];
    for (format, packed_for) in [(None, 1)].into_iter().chain(csr).chain(bitmap).chain(pairs) {
        for (shape, sparsity) in [([11008, 4096], 0.5), ([4096, 11008], 0.9), ([768, 3072], 0.7)] {
            let tokens = vec![1, 2, 8, 16, 32, 64, 130, 256];
            let case = Case { shape, dtype: DType::F16, format, sparsity, bias: true, tokens, packed_for };
            check(&case, &mut findings);
        }
        if format == Some(Format::Nm) {
            continue;
        }
        let tokens = vec![1, 4, 16];
        let shape = [4096, 4096];
        check(&Case { shape, dtype: DType::F32, format, sparsity: 0.7, bias: true, tokens, packed_for }, &mut findings);
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
