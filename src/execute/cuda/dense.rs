//! Which kernel a product with a dense weight runs on the device.
//!
//! ```text
//!   tokens            1         2 .. 16                        more
//!   16 bits, cublas   rows *    the fastest of cublas          the fastest of cublas        timed once, see choice.rs;
//!                                                              over 128 and no multiple of 64: cublas's own choice
//!     without it      rows *    tiles                          gemm
//!   f32               fma rows                                 fma blocks
//!   elsewhere         Burn's matrix product, which tunes itself: half a minute a shape, at the first use
//!
//!   *                 in a script, of columns in whole eights; elsewhere one of those that are compared
//! ```

use super::inputs::{SPAN, contiguous, from_16_bytes, two};
use super::raw::Gpu;
use super::raw::blas::{self, Job};
use super::raw::dense::{self as rows, Part};
use super::raw::script;
use super::{Cuda, Tensor, tensor_core};
use super::{choice, cube, fma, gemm, outputs};
use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{DType, Shape, TensorMetadata};

/// The most tokens that the skinny kernel multiplies.
const TILE_TOKENS: usize = 16;
/// Numbers of tokens up to this many, or in whole steps of so many, are asked for again and again: kernels are worth
/// comparing. Others are what some texts together happen to have.
const FEW_TOKENS: usize = 128;
const TOKEN_STEP: usize = 64;

/// `y = x · Wᵀ + bias` of a dense weight `[rows, cols]`.
pub(super) fn product(x: Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let (tokens, [rows, cols]) = (x.shape()[0], two(weight));
    let kernel = DenseKernel::of(weight, tokens, bias);
    if !matches!(kernel, DenseKernel::Rows | DenseKernel::Blas(_)) {
        script::leave();
    }
    match kernel {
        DenseKernel::Rows => rows_product(x, weight, bias),
        DenseKernel::Blas(candidate) => blas_product(&from_16_bytes(contiguous(x.clone())), weight, bias, candidate)
            .unwrap_or_else(|| {
                script::leave();
                matmul(x, weight, bias)
            }),
        DenseKernel::Tiles => cube::dense_tiles(contiguous(x), weight.clone(), bias, [tokens, rows, cols]),
        DenseKernel::Fma => fma::product(x, weight.clone(), bias),
        DenseKernel::Gemm => match gemm::gemm(x.clone(), weight.clone(), bias) {
            Some(y) => y,
            None => matmul(x, weight, bias),
        },
        DenseKernel::Matmul => matmul(x, weight, bias),
    }
}

/// The name of the kernel that [`product`] runs; without a bias, that of the same shape with one if that has run: a
/// layer's name is asked without its bias.
pub(super) fn kernel(weight: &Tensor, tokens: usize, bias: Option<&Tensor>) -> String {
    let biased = job(weight, tokens, true).and_then(|job| {
        let all = DenseKernel::comparable(weight, job);
        let known = choice::known(&weight.device, &name(job, all.len()));
        known.map(|known| all[known.map_or(0, |choice| choice.best())])
    });
    let kernel = biased.filter(|_| bias.is_none()).unwrap_or_else(|| DenseKernel::of(weight, tokens, bias));
    kernel.name(tokens).into()
}

/// Whether this number of tokens is worth a comparison.
fn comes_again(tokens: usize) -> bool {
    tokens <= FEW_TOKENS || tokens.is_multiple_of(TOKEN_STEP)
}

/// What a choice is kept under.
fn name(job: Job, kernels: usize) -> String {
    format!("dense 5, {}, {kernels} kernels, {job:?}", blas::version().unwrap_or_default())
}

/// A kernel, and of cublasLt which of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DenseKernel {
    Rows,
    Blas(usize),
    Tiles,
    Gemm,
    Fma,
    Matmul,
}

/// What can multiply a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Has {
    /// Kernels of cublasLt for this product.
    blas: usize,
    /// Tensor cores, and a weight without gaps.
    tensor_core: bool,
}

impl Has {
    fn of(weight: &Tensor, job: Option<Job>) -> Self {
        let candidates = |job| Gpu::of(&weight.device).map_or(0, |gpu| blas::candidates(&gpu, job));
        let tensor_core = weight.is_contiguous() && tensor_core(&weight.client, weight.dtype);
        Self { blas: job.map_or(0, candidates), tensor_core }
    }
}

impl DenseKernel {
    fn of(weight: &Tensor, tokens: usize, bias: Option<&Tensor>) -> Self {
        if tokens == 1 && script::is_open() && Gpu::of(&weight.device).is_some_and(|gpu| rows::can(&gpu, weight)) {
            return Self::Rows;
        }
        let [rows, cols] = two(weight);
        let job = job(weight, tokens, bias.is_some());
        let gemm = || gemm::can(&weight.client, weight.dtype);
        let first = Self::new(weight.dtype, Has::of(weight, job), gemm, [tokens, rows, cols]);
        match (first, job, Gpu::of(&weight.device)) {
            (Self::Blas(_), Some(job), Some(gpu)) if comes_again(tokens) && rows * cols >= blas::WORTH_COMPARING => {
                Self::fastest(&gpu, weight, bias, job)
            }
            _ => first,
        }
    }

    /// Tensor cores read matrices without gaps; whether `gemm` can be used is asked where it matters.
    fn new(dtype: DType, has: Has, gemm: impl FnOnce() -> bool, [tokens, rows, cols]: [usize; 3]) -> Self {
        match tokens {
            _ if tokens * rows * cols == 0 => Self::Matmul,
            _ if dtype == DType::F32 => Self::Fma,
            _ if has.blas > 0 => Self::Blas(0),
            _ if !has.tensor_core || !cols.is_multiple_of(SPAN) => Self::Matmul,
            ..=TILE_TOKENS => Self::Tiles,
            _ if gemm() => Self::Gemm,
            _ => Self::Matmul,
        }
    }

    /// All that can multiply this many tokens and be repeated in a graph, the likeliest first.
    fn comparable(weight: &Tensor, job: Job) -> Vec<Self> {
        let rows = job.tokens == 1 && Gpu::of(&weight.device).is_some_and(|gpu| rows::can(&gpu, weight));
        let blas = Has::of(weight, Some(job)).blas;
        (0..blas).map(Self::Blas).chain(rows.then_some(Self::Rows)).collect()
    }

    /// The fastest of them, timed once for a device, a shape and a version of the library.
    fn fastest(gpu: &Gpu, weight: &Tensor, bias: Option<&Tensor>, job: Job) -> Self {
        let all = Self::comparable(weight, job);
        let names = all.iter().map(|kernel| kernel.candidate(job.tokens)).collect();
        let chosen = choice::fastest(gpu, &weight.device, &name(job, all.len()), names, || {
            let x = outputs::output(weight, Shape::new([job.tokens, job.cols]), weight.dtype);
            let copies = copies(weight);
            let all = &all;
            Some(move |candidate: usize, call: usize| {
                let weight = &copies[call % copies.len()];
                match all[candidate] {
                    Self::Rows => drop(rows_product(x.clone(), weight, bias)),
                    Self::Blas(candidate) => drop(blas_product(&x, weight, bias, candidate)),
                    Self::Tiles | Self::Gemm | Self::Fma | Self::Matmul => drop(matmul(x.clone(), weight, bias)),
                }
            })
        });
        all[chosen.map_or(0, |choice| choice.best())]
    }

    /// What it is called where several are compared.
    fn candidate(self, tokens: usize) -> String {
        match self {
            Self::Blas(number) => format!("{} {number}", self.name(tokens)),
            Self::Rows | Self::Tiles | Self::Gemm | Self::Fma | Self::Matmul => self.name(tokens).into(),
        }
    }

    fn name(self, tokens: usize) -> &'static str {
        match self {
            Self::Rows => rows::NAME,
            Self::Blas(_) => blas::NAME,
            Self::Tiles => "dense-cube-tiles",
            Self::Gemm => gemm::NAME,
            Self::Fma => fma::name(tokens),
            Self::Matmul => "dense-cube-matmul",
        }
    }
}

/// One token by dense matrices that share their input, at once; none where they can't be.
pub(super) fn together(x: &Tensor, weights: &[(&Tensor, Option<&Tensor>)]) -> Option<Vec<Tensor>> {
    let gpu = Gpu::of(&x.device).filter(|_| x.shape()[0] == 1 && weights.len() <= rows::MOST_PARTS)?;
    let (first, bias) = weights.first()?;
    let alike = |(weight, other): &(&Tensor, Option<&Tensor>)| {
        let same = weight.shape()[1] == first.shape()[1] && weight.dtype == first.dtype;
        same && other.is_some() == bias.is_some() && rows::can(&gpu, weight)
    };
    if !weights.iter().all(alike) || x.dtype != first.dtype {
        return None;
    }
    let x = from_16_bytes(contiguous(x.clone()));
    let output =
        |(weight, _): &(&Tensor, Option<&Tensor>)| outputs::output(&x, Shape::new([1, two(weight)[0]]), x.dtype);
    let outputs: Vec<Tensor> = weights.iter().map(output).collect();
    let part = |(&(weight, bias), y)| Part { weight, bias, y };
    let parts: Vec<Part<'_>> = weights.iter().zip(&outputs).map(part).collect();
    // SAFETY: they can be multiplied and are alike, as was just asked; `x` begins where it should; an output has a number
    // for each of its matrix's rows.
    unsafe { rows::rows(&gpu, &x, &parts) };
    Some(outputs)
}

fn rows_product(x: Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    match together(&x, &[(weight, bias)]).and_then(|mut outputs| outputs.pop()) {
        Some(y) => y,
        None => {
            script::leave();
            matmul(x, weight, bias)
        }
    }
}

/// The weight as often as it takes to exceed every cache; rows that are spread would lose their gaps.
fn copies(weight: &Tensor) -> Vec<Tensor> {
    let bytes = weight.shape().num_elements() * weight.dtype.size();
    let all = if weight.is_contiguous() { choice::copies(bytes, usize::MAX) } else { 1 };
    (1..all).map(|_| weight.copy()).chain([weight.clone()]).collect()
}

/// What cublasLt is asked for; none where it has no kernels for such a weight.
fn job(weight: &Tensor, tokens: usize, bias: bool) -> Option<Job> {
    let [rows, cols] = two(weight);
    let stride = match weight.meta.strides()[..] {
        _ if weight.is_contiguous() => cols,
        [stride, 1] => stride,
        _ => return None,
    };
    let can = tokens > 0 && blas::can(weight.dtype, [rows, cols], stride);
    can.then_some(Job { dtype: weight.dtype, tokens, rows, cols, stride, bias })
}

/// None where the library finds no kernel, or the thread's stream is not to be found.
fn blas_product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, candidate: usize) -> Option<Tensor> {
    let gpu = Gpu::of(&x.device)?;
    let job = job(weight, x.shape()[0], bias.is_some())?;
    let y = outputs::output(x, Shape::new([job.tokens, job.rows]), x.dtype);
    // SAFETY: the job says what the tensors are; `x` and `y` have no gaps, and `y` a line for each of `x`, as long as
    // `weight` has lines.
    unsafe { blas::product(&gpu, job, candidate, [x, weight], bias, &y) }.then_some(y)
}

/// Burn's product.
pub(super) fn matmul(x: Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let y = Cuda::float_matmul(x, Cuda::float_swap_dims(weight.clone(), 0, 1));
    match bias {
        Some(bias) => Cuda::float_add(y, Cuda::float_reshape(bias.clone(), Shape::new([1, bias.shape()[0]]))),
        None => y,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_need_their_hardware_and_whole_steps() {
        let name = |dtype, tensor_core, gemm: bool, cols, tokens| {
            DenseKernel::new(dtype, Has { tensor_core, blas: 0 }, || gemm, [tokens, 100, cols]).name(tokens)
        };
        let both = Has { tensor_core: true, blas: 3 };
        assert_eq!(DenseKernel::new(DType::BF16, both, || true, [1, 100, 72]), DenseKernel::Blas(0));
        assert_eq!(DenseKernel::new(DType::F32, both, || true, [1, 100, 72]), DenseKernel::Fma);
        assert_eq!(DenseKernel::new(DType::F16, both, || true, [0, 100, 72]), DenseKernel::Matmul);
        // Rows that are spread, which tensor cores of our kernels don't read.
        let spread = Has { tensor_core: false, blas: 1 };
        assert_eq!(DenseKernel::new(DType::F16, spread, || true, [1, 192, 192]), DenseKernel::Blas(0));
        let kernel = |unit, gemm, cols, tokens| name(DType::F16, unit, gemm, cols, tokens);
        assert_eq!(kernel(true, true, 4096, 16), "dense-cube-tiles");
        assert_eq!(kernel(true, true, 4096, 17), "dense-cube-gemm");
        assert_eq!(kernel(true, false, 4096, 17), "dense-cube-matmul");
        assert_eq!(kernel(false, true, 4096, 1), "dense-cube-matmul");
        assert_eq!(kernel(true, true, 4100, 1), "dense-cube-matmul");
        assert_eq!(name(DType::F32, false, false, 4099, 16), "dense-cube-fma-rows");
        assert_eq!(name(DType::F32, false, false, 4099, 17), "dense-cube-fma-blocks");
        assert_eq!(name(DType::F32, false, false, 0, 17), "dense-cube-matmul");
    }

    #[test]
    fn lengths_of_texts_are_not_compared() {
        assert!([1, 7, 127, 128, 192, 256, 2048, 4096].into_iter().all(comes_again));
        assert!(![129, 957, 8188].into_iter().any(comes_again));
    }
}
