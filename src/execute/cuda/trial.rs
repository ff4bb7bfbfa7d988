//! Whether the kernels in CUDA C++ are right on a GPU that they were not measured on: asked once a process.
//!
//! ```text
//!   numbers of 16 bits ─┬─ this GPU, by those kernels ──┐
//!                       └─ the CPU, in f32 ─────────────┴─ the same but for rounding? else the kernels in CubeCL are taken
//! ```
//! Products in every format, a norm, a gate, attention of many tokens and of one, likelihoods, and tokens that are written
//! down as a graph, in f16 and, from 8.0 on, in bf16. It is no proof: shapes are few. What stops the GPU altogether (an address
//! that is not there) stops the process's other kernels too, and is told where their numbers are read.

use super::raw::capability;
use super::{Cuda, probe};
use crate::config::format::Format;
use crate::execute::backend::{SparseBackend, SparseWeight};
use crate::execute::convert::{ReadError, host_numbers, narrow};
use crate::execute::decode::{Activation, Norm, NormKind, Places, Projected, Span, Target, Turns};
use crate::execute::kernels::attention::Heads;
use crate::panics;
use crate::sparse::Pattern;
use burn::backend::Flex;
use burn::tensor::{DType, Tensor, TensorPrimitive};
use cubecl::cuda::CudaDevice;
use std::sync::{Mutex, PoisonError};

/// The matrix of the products, with rows for several octets of every multiprocessor, and the tokens that they are made for.
const SHAPE: [usize; 2] = [4096, 256];
const TOKENS: [usize; 5] = [1, 3, 16, 20, 70];
/// Shares of weights that are gone: with the higher one two share a bit of a bitmap.
const SPARSITIES: [f64; 2] = [0.6, 0.9];
/// Numbers may be off by this, as a share of the largest of a kind: those of 16 bits have 11.
const TOLERANCE: f32 = 2e-2;

/// One thread asks; the others wait for what it finds.
static ASKING: Mutex<()> = Mutex::new(());

/// Asks a GPU of which nothing is known.
///
/// # Panics
/// When the answers are wrong of code for an older GPU that was asked for: a test that went on would test other kernels.
pub(super) fn ask(device: &CudaDevice) {
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    // Which also has the driver begin.
    if probe::gpus().is_err() || !capability::is_unknown(device.index) {
        return;
    }
    // They have to be used for that.
    capability::trust(device.index, true);
    let dtypes = if capability::has_bf16(device.index) { &[DType::F16, DType::BF16][..] } else { &[DType::F16] };
    let right = dtypes.iter().all(|&dtype| {
        let found = panics::caught(|| answers::<Cuda>(device, dtype));
        let expected = answers::<Flex>(&Default::default(), DType::F32);
        matches!((found, expected), (Ok(Ok(found)), Ok(expected)) if alike(&found, &expected))
    });
    // Those of the server's thread: nobody else is to find them.
    let right = panics::take().is_none() && right;
    capability::trust(device.index, right);
    assert!(right || !capability::is_older(device.index), "the code for the older GPU that was asked for is wrong");
}

fn alike(found: &[Vec<f32>], expected: &[Vec<f32>]) -> bool {
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| {
            let largest = expected.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * largest;
            found.len() == expected.len() && found.iter().zip(expected).all(near)
        })
}

/// Numbers between -1 and 1 that 8 bits hold.
fn numbers(seed: usize, count: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 37 + seed * 101) % 113) as f32 / 64.0 - 0.875;
    (0..count).map(|i| number(i + i / 113)).collect()
}

/// What a backend makes of the same numbers.
fn answers<B: SparseBackend>(device: &B::Device, dtype: DType) -> Result<Vec<Vec<f32>>, ReadError> {
    let tensor = |seed, rows: usize, cols: usize| {
        Tensor::<B, 2>::from_data(narrow(numbers(seed, rows * cols).into(), [rows, cols], dtype), (device, dtype))
    };
    let mut all = products(device, dtype, &tensor)?;
    let [x, up] = [tensor(5, 3, 256), tensor(6, 3, 256)];
    let gain = tensor(7, 1, 256).reshape([256]);
    let norm = Norm { kind: NormKind::Rms { eps: 1e-5 }, gain: &gain, bias: None };
    for normed in B::norm(x.clone(), vec![up.clone()], norm) {
        all.push(host_numbers(normed)?);
    }
    all.push(host_numbers(B::gate(Activation::Silu, x, up))?);
    all.extend(written(device, dtype, &tensor)?);
    all.extend(attention(device, dtype, &tensor)?);
    let logits = tensor(8, 2, 1000).mul_scalar(8.0);
    let targets = [(0, 3), (1, 999)].map(|(row, id)| Target { row, id }).into();
    let likely = B::likely(logits, targets)()?;
    all.push(likely.into_iter().map(|likely| likely.map_or(f32::NAN, |likely| likely.log as f32)).collect());
    Ok(all)
}

fn products<B: SparseBackend>(
    device: &B::Device,
    dtype: DType,
    tensor: &impl Fn(usize, usize, usize) -> Tensor<B, 2>,
) -> Result<Vec<Vec<f32>>, ReadError> {
    let [rows, cols] = SHAPE;
    let mut all = Vec::new();
    for tokens in TOKENS {
        let x = tensor(2, tokens, cols);
        for (format, sparsity) in [Format::Csr, Format::Bitmap].into_iter().flat_map(|f| SPARSITIES.map(|s| (f, s))) {
            let pattern = Pattern::random(rows, cols, sparsity, 1);
            all.push(host_numbers(sparse::<B>(format, &pattern, tokens, dtype, device)?.forward(x.clone()))?);
        }
        let pattern = Pattern::keep_where(rows, cols, &numbers(1, rows * cols), |at, _| at % 4 < 2);
        let y = match sparse::<B>(Format::Nm, &pattern, tokens, dtype, device) {
            Ok(weight) => weight.forward(x.clone()),
            // Not a format of every device.
            Err(_) => {
                let masked = pattern.apply(&numbers(1, rows * cols));
                let masked = Tensor::from_data(narrow(masked.into(), [rows, cols], dtype), (device, dtype));
                dense_product(x.clone(), masked)
            }
        };
        all.push(host_numbers(y)?);
        all.push(host_numbers(dense_product(x, tensor(1, rows, cols)))?);
    }
    Ok(all)
}

/// What a pattern keeps of the matrix.
fn sparse<B: SparseBackend>(
    format: Format,
    pattern: &Pattern,
    tokens: usize,
    dtype: DType,
    device: &B::Device,
) -> Result<SparseWeight<B>, ReadError> {
    let [rows, cols] = SHAPE;
    let weight = SparseWeight::new(format, &numbers(1, rows * cols), pattern, None, dtype, tokens, device);
    weight.map_err(|error| ReadError(error.to_string()))
}

fn dense_product<B: SparseBackend>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    let y = B::dense_linear(x.into_primitive().tensor(), &weight.into_primitive().tensor(), None);
    Tensor::from_primitive(TensorPrimitive::Float(y))
}

/// A norm and a product of one token, which a graph has as one launch.
fn written<B: SparseBackend>(
    device: &B::Device,
    dtype: DType,
    tensor: &impl Fn(usize, usize, usize) -> Tensor<B, 2>,
) -> Result<Vec<Vec<f32>>, ReadError> {
    let [rows, cols] = SHAPE;
    let pattern = Pattern::random(rows, cols, SPARSITIES[0], 1);
    let (sparse, dense) = (sparse::<B>(Format::Csr, &pattern, 1, dtype, device)?, tensor(1, rows, cols));
    let gain = tensor(7, 1, cols).reshape([cols]);
    let places = Places::<B>::new(&[0], vec![Span { past: 0, new: 1, capacity: 1 }], 1, device);
    let mut all = Vec::new();
    for product in [None, Some(&sparse)] {
        let work = || {
            let norm = Norm { kind: NormKind::Rms { eps: 1e-5 }, gain: &gain, bias: None };
            let [_, x] = B::norm(tensor(2, 1, cols), Vec::new(), norm);
            match product {
                Some(sparse) => sparse.forward(x),
                None => dense_product(x, dense.clone()),
            }
        };
        let y = B::record(device, &places, work).map_or_else(work, |written| written.logits());
        all.push(host_numbers(y)?);
    }
    Ok(all)
}

/// Of 70 tokens, and then of one more.
fn attention<B: SparseBackend>(
    device: &B::Device,
    dtype: DType,
    tensor: &impl Fn(usize, usize, usize) -> Tensor<B, 2>,
) -> Result<Vec<Vec<f32>>, ReadError> {
    let shape = Heads::new(4, 2, 64);
    let (pairs, capacity) = (32, 80);
    let angles = numbers(3, capacity * pairs).into_iter().flat_map(|angle| [angle.cos(), angle.sin()]);
    let angles = narrow(angles.collect::<Vec<f32>>().into(), [2 * capacity * pairs], DType::F32);
    let table = Tensor::<B, 1>::from_data(angles, (device, DType::F32));
    let turns = Turns { pairs, neighbours: false, table, starts: None };
    let mut kept = [0, 1].map(|_| Tensor::<B, 1>::zeros([capacity * 2 * 64], (device, dtype)));
    let mut all = Vec::new();
    for (past, new) in [(0, 70), (70, 1)] {
        let places = Places::<B>::new(&vec![0; new], vec![Span { past, new, capacity }], 2, device);
        let projected = Projected::Separate([tensor(9, new, 256), tensor(10, new, 128), tensor(11, new, 128)]);
        all.push(host_numbers(B::attend(&shape, projected, &places, Some(&turns), &mut kept))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_numbers_are_seen() {
        let expected = answers::<Flex>(&Default::default(), DType::F32).unwrap();
        assert_eq!(expected.len(), 6 * TOKENS.len() + 8);
        assert!(expected.iter().flatten().all(|number| number.is_finite()) && alike(&expected, &expected));
        for kind in 0..expected.len() {
            for wrong in [f32::NAN, 0.0, 1e3] {
                let mut found = expected.clone();
                found[kind].iter_mut().for_each(|number| *number = wrong);
                assert!(!alike(&found, &expected), "{kind} {wrong}");
            }
        }
        assert!(!alike(&expected[1..], &expected));
    }
}
