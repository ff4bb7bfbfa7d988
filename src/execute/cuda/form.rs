//! Which form a layer is fastest in on this GPU: dense, or a format, timed on random weights of its shape.
//!
//! ```text
//!   layer 11008 x 4096, 68 % zeros, 1 token ──bin──> 70 % ──> dense, csr, bitmap timed once ──> csr
//! ```
//! Small layers, and GPUs without kernels in CUDA C++, go by the tables of [`policy`].

use super::raw::{Gpu, panels};
use super::weight::CudaWeight;
use super::{Cuda, Tensor, choice, dense, linear, outputs, policy};
use crate::config::format::Format;
use crate::execute::backend::{Fastest, LayerShape, PackFor};
use crate::execute::convert::narrow;
use crate::sparse::Pattern;
use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use cubecl::cuda::CudaDevice;

/// Sparsities are told apart in steps of a twentieth.
const BINS: f64 = 20.0;
/// Fewer weights are as fast in any form: a launch takes longer.
const FEWEST_WEIGHTS: usize = 1 << 20;

/// The forms that are timed, the likeliest first.
const FORMS: [Option<Format>; 3] = [None, Some(Format::Csr), Some(Format::Bitmap)];

/// The fastest form of a layer for this many tokens.
pub(super) fn fastest(layer: LayerShape, tokens: usize, dtype: DType, device: &CudaDevice) -> Fastest {
    let by_table = || Fastest::from(policy::fastest(layer, tokens, Gpu::of(device).is_some()));
    let large = layer.rows * layer.cols >= FEWEST_WEIGHTS;
    let worth = large && dtype.size() == 2 && (1..=panels::MOST_TOKENS).contains(&tokens);
    let Some(gpu) = Gpu::of(device).filter(|_| worth) else { return by_table() };
    let sparsity = bin(layer.sparsity());
    let what = question([layer.rows, layer.cols], dtype, sparsity, tokens);
    let names = FORMS.map(|form| form.map_or("dense", Format::name).to_owned());
    let choice = choice::fastest(&gpu, device, &what, names.into(), || {
        prepare([layer.rows, layer.cols], sparsity, tokens, dtype, device)
    });
    match choice {
        Some(choice) => Fastest { format: FORMS[choice.best()], choice: Some(choice) },
        None => by_table(),
    }
}

/// What a choice is kept under.
fn question(shape: [usize; 2], dtype: DType, sparsity: f64, tokens: usize) -> String {
    let noun = if tokens == 1 { "token" } else { "tokens" };
    format!("form 1 of {dtype:?} {shape:?} at {:.0} %, {tokens} {noun}", sparsity * 100.0)
}

fn bin(sparsity: f64) -> f64 {
    (sparsity * BINS).round() / BINS
}

/// A layer in one form, as often as it takes to exceed every cache.
enum Copies {
    Dense(Vec<Tensor>),
    Sparse(Vec<CudaWeight>),
}

/// Runs a form of a layer of random weights; none where a format does not take it: its time would be made up.
fn prepare(
    [rows, cols]: [usize; 2],
    sparsity: f64,
    tokens: usize,
    dtype: DType,
    device: &CudaDevice,
) -> Option<impl Fn(usize, usize) + use<>> {
    let weights: Vec<f32> = (0..rows * cols).map(|at| ((at * 37 + at / 509) % 251) as f32 / 251.0 - 0.5).collect();
    let pattern = Pattern::random(rows, cols, sparsity, 0);
    let dense = Cuda::float_from_data(narrow((&weights[..]).into(), [rows, cols], dtype), device);
    let x = outputs::output(&dense, Shape::new([tokens, cols]), dtype);
    let for_use = PackFor { tokens, mixes: true };
    let count = |bytes: usize| choice::copies(bytes, choice::MOST_COPIES);
    let copies = |form: Option<Format>| {
        let Some(format) = form else {
            return Some(Copies::Dense((0..count(rows * cols * dtype.size())).map(|_| dense.copy()).collect()));
        };
        let packing = CudaWeight::pack(format, &weights, &pattern, None, dtype, for_use, device).ok()?;
        Some(Copies::Sparse((0..count(packing.bytes)).map(|_| packing.packed.copied()).collect()))
    };
    let forms: Vec<Copies> = FORMS.into_iter().map(copies).collect::<Option<_>>()?;
    Some(move |form: usize, call: usize| match &forms[form] {
        Copies::Dense(copies) => drop(dense::product(x.clone(), &copies[call % copies.len()], None)),
        Copies::Sparse(copies) => drop(linear::sparse(x.clone(), &copies[call % copies.len()])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_about_the_same_sparsity_share_an_answer() {
        let of = |sparsity| question([4096, 4096], DType::F16, bin(sparsity), 1);
        assert_eq!(of(0.68), of(0.72));
        assert_ne!(of(0.68), of(0.74));
        assert_eq!(of(0.7), "form 1 of F16 [4096, 4096] at 70 %, 1 token");
        assert!(bin(0.999) <= 1.0 && bin(0.0) == 0.0);
    }
}
