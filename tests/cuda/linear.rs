//! Linears on a GPU against sums in double precision, at the edges of every kernel.

use crate::panics;
use burn::tensor::{DType, Tensor, TensorData};
use half::{bf16, f16};
use sparsify_exp::execute::decode::{DecodeOps, Places, Span};
use sparsify_exp::execute::{Cuda, Format, PackFor, SparseWeight, cuda_device};
use sparsify_exp::model::{DenseWeight, Linear, LinearWeight};
use sparsify_exp::sparse::Pattern;
use std::time::Instant;

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

/// A matrix, its inputs, and their product in double precision, which is computed once for all forms of the matrix and all
/// numbers of tokens: fewer tokens are the first of more.
struct Matrix {
    shape: [usize; 2],
    dtype: DType,
    sparsity: f64,
    weights: Vec<f32>,
    pattern: Pattern,
    bias: Option<Vec<f32>>,
    x: Vec<f32>,
    /// Rows that are compared: about a hundred, the first and the last among them.
    rows: Vec<usize>,
    /// `[token][row of those]`
    expected: Vec<f64>,
}

impl Matrix {
    fn new(shape: [usize; 2], sparsity: f64, dtype: DType, bias: bool, most_tokens: usize) -> Self {
        let pattern = Pattern::random(shape[0], shape[1], sparsity, 3);
        Self { sparsity, ..Self::of(&pattern, dtype, bias, most_tokens) }
    }

    /// Of every four weights at most two, of which a share is left out again.
    fn two_of_four([rows, cols]: [usize; 2], sparsity: f64, dtype: DType, bias: bool, most_tokens: usize) -> Self {
        let (pairs, kept) = (Pattern::random_two_of_four(rows, cols, 3), Pattern::random(rows, cols, sparsity, 4));
        let both = Pattern::from_rows(rows, cols, |row, words| {
            for (word, (pair, kept)) in words.iter_mut().zip(pairs.row(row).iter().zip(kept.row(row))) {
                *word = pair & kept;
            }
        });
        Self { sparsity, ..Self::of(&both, dtype, bias, most_tokens) }
    }

    fn of(pattern: &Pattern, dtype: DType, bias: bool, most_tokens: usize) -> Self {
        let ([rows, cols], pattern) = ([pattern.rows(), pattern.cols()], pattern.clone());
        let weights = numbers(1, rows * cols);
        let (bias, x) = (bias.then(|| numbers(2, rows)), numbers(4, most_tokens * cols));
        let compared: Vec<usize> = (0..rows).step_by((rows / 97).max(1)).chain([rows - 1]).collect();
        let wide = |numbers: &[f32]| numbers.iter().map(|&number| rounded(number, dtype)).collect::<Vec<f64>>();
        let masked = pattern.apply(&weights);
        let lines: Vec<Vec<f64>> = compared.iter().map(|row| wide(&masked[row * cols..][..cols])).collect();
        let product = |token: &[f64]| {
            let of = |(&row, line): (&usize, &Vec<f64>)| {
                let sum: f64 = line.iter().zip(token).map(|(w, x)| w * x).sum();
                sum + bias.as_ref().map_or(0.0, |bias| rounded(bias[row], dtype))
            };
            compared.iter().zip(&lines).map(of).collect::<Vec<f64>>()
        };
        let expected = wide(&x).chunks_exact(cols).flat_map(product).collect();
        Self { shape: [rows, cols], dtype, sparsity: 0.0, weights, pattern, bias, x, rows: compared, expected }
    }

    /// On the device, in a form that is packed for a number of tokens.
    fn linear(&self, format: Option<Format>, packed_for: usize) -> Linear<Cuda> {
        let (device, dtype, shape) = (cuda_device(0), self.dtype, self.shape);
        let bias = self.bias.as_ref().map(|bias| {
            let data = TensorData::new(bias.clone(), [shape[0]]).convert_dtype(dtype);
            Tensor::<Cuda, 1>::from_data(data, (&device, dtype))
        });
        let Some(format) = format else {
            let masked = self.pattern.apply(&self.weights);
            let weight = DenseWeight::new(masked[..].into(), shape, dtype, &device);
            return Linear { weight: LinearWeight::Dense(weight), bias };
        };
        let packed_for = PackFor { tokens: packed_for, mixes: true };
        let packed = SparseWeight::new(format, &self.weights, &self.pattern, bias.as_ref(), dtype, packed_for, &device);
        Linear { weight: LinearWeight::Sparse(packed.unwrap()), bias: None }
    }

    /// How far `y`, of the first tokens, is from what is expected, as a share of it.
    fn error(&self, y: &[f32]) -> f64 {
        let (mut difference, mut size) = (0.0, 0.0);
        for (of_token, expected) in y.chunks_exact(self.shape[0]).zip(self.expected.chunks_exact(self.rows.len())) {
            for (&row, &expected) in self.rows.iter().zip(expected) {
                difference += (f64::from(of_token[row]) - expected).powi(2);
                size += expected.powi(2);
            }
        }
        if difference == 0.0 { 0.0 } else { (difference / size).sqrt() }
    }
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

/// What is wrong with the products of a form of a matrix; every finding is told, since a run on a GPU is dear.
fn check(matrix: &Matrix, format: Option<Format>, packed_for: usize, tokens: &[usize], findings: &mut Vec<String>) {
    let Matrix { shape: [rows, cols], dtype, sparsity, .. } = *matrix;
    let linear = matrix.linear(format, packed_for);
    for &tokens in tokens {
        let x = TensorData::new(matrix.x[..tokens * cols].to_vec(), [tokens, cols]).convert_dtype(dtype);
        let x = Tensor::from_data(x, (&cuda_device(0), dtype));
        let read = |y: Tensor<Cuda, 2>| y.into_data().convert::<f32>().into_vec::<f32>().unwrap();
        let begin = Instant::now();
        let y = read(linear.forward(x.clone()));
        let launched = begin.elapsed().as_millis();
        assert_eq!(y.len(), tokens * rows);
        let again = repeated(&linear, &x).map(read);
        let repeated = begin.elapsed().as_millis() - launched;
        let error = matrix.error(&y);
        // Another kernel may be launched there: its rounding is of the same size.
        let of_graph = again.as_ref().map_or(0.0, |again| distance(again, &y));
        let kernel = linear.weight.kernel(tokens);
        let count = panics::take();
        // NaN is no small error.
        if count > 0 || [error, of_graph].iter().any(|error| error.is_nan() || *error > tolerance(dtype)) {
            findings.push(format!(
                "{kernel} {rows}x{cols} {dtype:?} {format:?} {sparsity} {tokens} tokens: error {error:e}, {of_graph:e} in a graph, {count} panics"
            ));
        }
        let graph = if again.is_some() { "graph" } else { "no graph" };
        println!(
            "{kernel} {rows}x{cols} {dtype:?} {sparsity} {tokens}: {error:.1e}, {graph} {of_graph:.1e}; {launched} + {repeated} ms"
        );
    }
}

/// The edges of the kernels of a format and a dtype, the cheapest first.
fn edges(dtype: DType, format: Option<Format>) {
    panics::watch();
    let mut findings = Vec::new();
    for (shape, sparsity) in [
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
        let make = if format == Some(Format::Nm) { Matrix::two_of_four } else { Matrix::new };
        let matrix = make(shape, sparsity, dtype, shape[0] % 2 == 1, 300);
        check(&matrix, format, 1, &[1, 2, 3, 4, 5], &mut findings);
        check(&matrix, format, 16, &[1, 9, 16, 17, 65], &mut findings);
        check(&matrix, format, 64, &[1, 33, 64, 129, 256, 300], &mut findings);
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

/// A test for each, since most of the time is the compiler's: tests that run in processes of their own compile side by side.
macro_rules! edges {
    ($($name:ident: $dtype:ident $format:expr,)*) => {
        $(
            #[test]
            #[ignore = "needs a GPU"]
            fn $name() {
                edges(DType::$dtype, $format);
            }
        )*
    };
}

edges! {
    edges_of_dense_f16: F16 None,
    edges_of_csr_f16: F16 Some(Format::Csr),
    edges_of_bitmap_f16: F16 Some(Format::Bitmap),
    edges_of_nm_f16: F16 Some(Format::Nm),
    edges_of_dense_bf16: BF16 None,
    edges_of_csr_bf16: BF16 Some(Format::Csr),
    edges_of_bitmap_bf16: BF16 Some(Format::Bitmap),
    edges_of_nm_bf16: BF16 Some(Format::Nm),
    edges_of_dense_f32: F32 None,
    edges_of_csr_f32: F32 Some(Format::Csr),
    edges_of_bitmap_f32: F32 Some(Format::Bitmap),
}

#[test]
#[ignore = "needs a GPU"]
fn large_matrices_are_right_for_any_number_of_tokens() {
    panics::watch();
    let mut findings = Vec::new();
    let csr = [1, 16].map(|tokens| (Some(Format::Csr), tokens));
    let bitmap = [1, 64].map(|tokens| (Some(Format::Bitmap), tokens));
    let forms: Vec<_> = [(None, 1)].into_iter().chain(csr).chain(bitmap).collect();
    for (shape, sparsity, dtype, tokens) in [
        ([11008, 4096], 0.5, DType::F16, &[1, 2, 8, 16, 32, 64, 130, 256][..]),
        ([4096, 11008], 0.9, DType::F16, &[1, 2, 8, 16, 32, 64, 130, 256]),
        ([768, 3072], 0.7, DType::F16, &[1, 2, 8, 16, 32, 64, 130, 256]),
        ([4096, 4096], 0.7, DType::F32, &[1, 4, 16]),
    ] {
        let matrix = Matrix::new(shape, sparsity, dtype, true, tokens[tokens.len() - 1]);
        for &(format, packed_for) in &forms {
            check(&matrix, format, packed_for, tokens, &mut findings);
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
#[ignore = "needs a GPU"]
fn large_matrices_of_pairs_are_right_for_any_number_of_tokens() {
    panics::watch();
    let mut findings = Vec::new();
    for (shape, dtype) in [([11008, 4096], DType::F16), ([4096, 11008], DType::BF16), ([768, 3072], DType::F16)] {
        let matrix = Matrix::two_of_four(shape, 0.0, dtype, true, 256);
        check(&matrix, Some(Format::Nm), 16, &[1, 2, 8, 16, 32, 64, 130, 256], &mut findings);
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
