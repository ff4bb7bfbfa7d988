//! Which kernel a product with a sparse weight runs on the device, and the launches.
//!
//! ```text
//!   tokens            1            2 .. 16         .. 32       .. 64       more
//!   csr delta         delta        delta to 4, then expand
//!   csr groups        groups       groups to 4, then expand
//!   csr squares       squares      squares         squares     squares     expand
//!   bitmap octets     octets       octets          octets*     expand      expand
//!   bitmap panels     panels       panels          panels      panels      panels to 256, then expand
//!   bitmap tiles      tiles        tiles           tiles       expand      expand
//!   nm                nm           nm              nm          nm          nm to 192, then expand
//!
//!   *                 where two tiles of inputs have room beside the chunks, else expand
//!   expand            the dense matrix in a scratch buffer, then the dense kernel for this many tokens (dense.rs)
//!   f32               groups, bitmap tiles to 4 tokens, expand
//!   16 bits on devices without tensor cores: groups, expand, Burn's matrix product
//! ```
//! The bounds are measurements on an H200 with matrices of 11008 x 4096 and 4096 x 4096.

use super::inputs::{SPAN, contiguous, from_16_bytes, output, padded, two};
use super::outputs::{self, array};
use super::raw::delta::{DeltaArrays, Part};
use super::raw::nm::NmArrays;
use super::raw::octets::OctetsArrays;
use super::raw::{Gpu, delta, nm, octets, panels, script};
use super::weight::{CudaWeight, GroupArrays, SQUARE_TOKENS, SquareArrays, Stored, TileArrays};
use super::{Cuda, Tensor, tensor_core};
use super::{cube, dense};
use crate::execute::backend::Operand;
use crate::execute::kernels::cuda::{groups, squares, tiles, tiles_f32};
use crate::sparse::{LaneOrder, NM_COLUMNS, OCTET_COLUMNS, TILE_COLUMNS};
use burn::tensor::{DType, Shape, TensorMetadata};
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;

/// The most tokens that bitmap tiles are multiplied for as they are.
const BITMAP_TOKENS: usize = 32;
/// Shared memory that the inputs of the groups kernel may take: two cubes fit a multiprocessor of an H200.
const INPUT_BYTES: usize = 96 << 10;
/// Threads that expand a row of groups.
const EXPAND_THREADS: u32 = 256;
/// Planes of a cube that expands tiles.
const EXPAND_PLANES: u32 = 4;

/// `y = x · Wᵀ + bias` of a sparse weight.
pub(super) fn sparse(x: Tensor, weight: &CudaWeight) -> Tensor {
    let x = contiguous(x);
    let tokens = x.shape()[0];
    if tokens == 0 || weight.rows == 0 {
        return output(&x, tokens, weight);
    }
    match &weight.stored {
        Stored::Delta(_) | Stored::Octets(_) | Stored::Nm(_) => {}
        Stored::Groups(_) | Stored::Squares(_) | Stored::Tiles(_) => script::leave(),
    }
    match SparseKernel::of(weight, tokens) {
        SparseKernel::Delta(arrays) => delta_rows(x, weight, arrays, tokens),
        SparseKernel::Octets(arrays) => octets_rows(x, weight, arrays, tokens),
        SparseKernel::Panels(arrays) => panels_rows(x, weight, arrays, tokens),
        SparseKernel::Nm(arrays) => nm_rows(x, weight, arrays, tokens),
        SparseKernel::Groups(arrays) => cube::groups_rows(x, weight, arrays, tokens),
        SparseKernel::Squares(arrays) => cube::squares_tiles(x, weight, arrays, tokens),
        SparseKernel::Tiles(arrays) => cube::bitmap_tiles(x, weight, arrays, tokens),
        SparseKernel::TilesF32(arrays) => cube::bitmap_f32(x, weight, arrays, tokens),
        SparseKernel::Expand => {
            let dense = expand(&x, weight);
            let width = two(&dense)[1];
            dense::product(padded(x, weight.cols, width), &dense, weight.bias.as_ref())
        }
    }
}

/// See [`crate::execute::SparseBackend::products`].
pub(super) fn together(x: &Tensor, operands: &[Operand<'_, Cuda>]) -> Option<Vec<Tensor>> {
    let (mut dense, mut sparse) = (Vec::new(), Vec::new());
    for operand in operands {
        match operand {
            Operand::Dense(weight, bias) => dense.push((*weight, bias.as_ref())),
            Operand::Sparse(weight) => sparse.push(*weight),
        }
    }
    match (&dense[..], &sparse[..]) {
        (all, []) => dense::together(x, all),
        ([], all) => delta_together(x, all),
        // A form each is a launch each.
        _ => None,
    }
}

/// Few tokens by weights in gaps.
fn delta_together(x: &Tensor, weights: &[&CudaWeight]) -> Option<Vec<Tensor>> {
    let tokens = x.shape()[0];
    let arrays = |weight: &&CudaWeight| match &weight.stored {
        Stored::Delta(arrays) => Some(arrays.clone()),
        Stored::Octets(_) | Stored::Nm(_) | Stored::Groups(_) | Stored::Squares(_) | Stored::Tiles(_) => None,
    };
    let all: Vec<DeltaArrays> = weights.iter().map(arrays).collect::<Option<_>>()?;
    let first = *weights.first()?;
    let alike = |weight: &&CudaWeight| {
        let CudaWeight { rows, cols, dtype, bias, .. } = weight;
        (*cols, *dtype, bias.is_some()) == (first.cols, first.dtype, first.bias.is_some()) && *rows > 0
    };
    let cuts: Vec<_> = all.iter().map(|arrays| arrays.cut).collect();
    let gpu = gpu(first)
        .filter(|gpu| (1..=delta::MOST_TOKENS).contains(&tokens) && delta::fit(gpu, &cuts, first.cols, tokens))?;
    if !weights.iter().all(alike) {
        return None;
    }
    let x = contiguous(x.clone());
    let outputs: Vec<Tensor> = weights.iter().map(|weight| output(&x, tokens, weight)).collect();
    let part = |at: usize| Part { weight: &all[at], bias: weights[at].bias.as_ref(), y: &outputs[at] };
    let parts: Vec<Part<'_>> = (0..weights.len()).map(part).collect();
    // SAFETY: a weight is only made from `Delta`; `x` has no gaps and as many columns; the rest was just asked.
    unsafe { delta::rows(&gpu, &x, &parts) };
    Some(outputs)
}

/// The name of the kernel that [`sparse`] runs.
pub(super) fn sparse_kernel(weight: &CudaWeight, tokens: usize) -> String {
    match SparseKernel::of(weight, tokens) {
        SparseKernel::Delta(_) => "csr-cuda-delta".into(),
        SparseKernel::Octets(_) => "bitmap-cuda-octets".into(),
        SparseKernel::Panels(_) => "bitmap-cuda-panels".into(),
        SparseKernel::Nm(_) => "nm-cuda-mma".into(),
        SparseKernel::Groups(_) => "csr-cube-groups".into(),
        SparseKernel::Squares(_) => "csr-cube-squares".into(),
        SparseKernel::Tiles(_) | SparseKernel::TilesF32(_) => "bitmap-cube-tiles".into(),
        SparseKernel::Expand => {
            let expand = match weight.stored {
                Stored::Delta(_) => "csr-cuda-expand",
                Stored::Octets(_) => "bitmap-cuda-expand",
                Stored::Nm(_) => "nm-cuda-expand",
                Stored::Tiles(_) => "bitmap-cube-expand",
                Stored::Squares(_) | Stored::Groups(_) => "csr-cube-expand",
            };
            format!("{expand}+{}", dense::kernel(&scratch(weight.stored.any(), weight), tokens, weight.bias.as_ref()))
        }
    }
}

/// What multiplies a stored weight, with the arrays that it reads.
#[derive(Clone, Copy)]
enum SparseKernel<'a> {
    Delta(&'a DeltaArrays),
    Octets(&'a OctetsArrays),
    Panels(&'a OctetsArrays),
    Nm(&'a NmArrays),
    Groups(&'a GroupArrays),
    Squares(&'a SquareArrays),
    /// Of 16-bit numbers.
    Tiles(&'a TileArrays),
    TilesF32(&'a TileArrays),
    /// The dense matrix first: every layout has it.
    Expand,
}

impl<'a> SparseKernel<'a> {
    fn of(weight: &'a CudaWeight, tokens: usize) -> Self {
        let client = &weight.stored.any().client;
        let inputs = || {
            let most = INPUT_BYTES.min(client.properties().hardware.max_shared_memory_size);
            cube::input_room(weight.cols) * tokens.next_power_of_two() * weight.dtype.size() <= most
        };
        let fits = |arrays| gpu(weight).is_some_and(|gpu| octets::fits(&gpu, arrays, tokens));
        let by_panels = |arrays: &OctetsArrays| {
            let OctetsArrays { cut, most_bytes, .. } = arrays;
            let can = |gpu: &Gpu| panels::can(gpu, weight.rows, *most_bytes, cut.grain, weight.dtype, tokens);
            cut.order == LaneOrder::Pairs && gpu(weight).as_ref().is_some_and(can)
        };
        let by_pairs = || gpu(weight).is_some_and(|gpu| nm::can(&gpu, weight.rows, tokens, weight.dtype));
        match &weight.stored {
            Stored::Delta(arrays) if tokens <= delta::MOST_TOKENS => Self::Delta(arrays),
            Stored::Octets(arrays) if fits(arrays) => Self::Octets(arrays),
            Stored::Octets(arrays) if by_panels(arrays) => Self::Panels(arrays),
            Stored::Nm(arrays) if tokens <= nm::MOST_TOKENS && by_pairs() => Self::Nm(arrays),
            Stored::Groups(arrays) if tokens <= groups::MOST_TOKENS && inputs() => Self::Groups(arrays),
            Stored::Squares(arrays) if tokens <= SQUARE_TOKENS => Self::Squares(arrays),
            Stored::Tiles(arrays) if tokens <= BITMAP_TOKENS && tensor_core(client, weight.dtype) => {
                Self::Tiles(arrays)
            }
            Stored::Tiles(arrays) if tokens <= tiles_f32::MOST_TOKENS && weight.dtype == DType::F32 => {
                Self::TilesF32(arrays)
            }
            Stored::Delta(_)
            | Stored::Octets(_)
            | Stored::Nm(_)
            | Stored::Groups(_)
            | Stored::Squares(_)
            | Stored::Tiles(_) => Self::Expand,
        }
    }
}

/// The device of a weight that is multiplied in CUDA C++.
fn gpu(weight: &CudaWeight) -> Option<Gpu> {
    Gpu::of(&weight.stored.any().device)
}

/// As it was when the weight was packed.
///
/// # Panics
/// Never: the thread that packed has a stream, which others may borrow.
fn packed_gpu(weight: &CudaWeight) -> Gpu {
    gpu(weight).expect("the stream of the thread that packed can be borrowed")
}

fn delta_rows(x: Tensor, weight: &CudaWeight, arrays: &DeltaArrays, tokens: usize) -> Tensor {
    let y = output(&x, tokens, weight);
    let part = Part { weight: arrays, bias: weight.bias.as_ref(), y: &y };
    // SAFETY: a weight is only made from `Delta`; `x` has no gaps and as many columns; the tokens were counted.
    unsafe { delta::rows(&packed_gpu(weight), &x, &[part]) };
    y
}

fn octets_rows(x: Tensor, weight: &CudaWeight, arrays: &OctetsArrays, tokens: usize) -> Tensor {
    let y = output(&x, tokens, weight);
    let x = from_16_bytes(padded(x, weight.cols, weight.cols.next_multiple_of(OCTET_COLUMNS)));
    // SAFETY: a weight is only made from `Octets`; `x` has no gaps, zeros after the last column and begins where it
    // should; the tokens were counted.
    unsafe { octets::rows(&packed_gpu(weight), arrays, &x, weight.bias.as_ref(), &y) };
    y
}

fn panels_rows(x: Tensor, weight: &CudaWeight, arrays: &OctetsArrays, tokens: usize) -> Tensor {
    let y = output(&x, tokens, weight);
    let x = from_16_bytes(padded(x, weight.cols, weight.cols.next_multiple_of(panels::LINE)));
    // SAFETY: a weight in pairs is only made from panels; `x` has no gaps, zeros after the last column and begins where
    // it should; the tokens were counted.
    unsafe { panels::rows(&packed_gpu(weight), arrays, &x, weight.bias.as_ref(), &y) };
    y
}

fn nm_rows(x: Tensor, weight: &CudaWeight, arrays: &NmArrays, tokens: usize) -> Tensor {
    let y = output(&x, tokens, weight);
    let x = from_16_bytes(padded(x, weight.cols, weight.cols.next_multiple_of(NM_COLUMNS)));
    // SAFETY: a weight is only made from `TwoOfFour`; `x` has no gaps, zeros after the last column and begins where it
    // should; the tokens were counted.
    unsafe { nm::rows(&packed_gpu(weight), arrays, &x, weight.bias.as_ref(), &y) };
    y
}

/// The dense matrix, as wide as whole tiles of it are.
fn expand(x: &Tensor, weight: &CudaWeight) -> Tensor {
    let width = width(weight);
    let dense = scratch(x, weight);
    let client = &x.client;
    let cubes = |tile: usize| {
        let tiles = weight.rows.div_ceil(16) * (width / tile);
        CubeCount::Static((tiles as u32).div_ceil(EXPAND_PLANES), 1, 1)
    };
    let threads = CubeDim::new_1d(32 * EXPAND_PLANES);
    let (rows, cols) = (weight.rows as u32, width as u32);
    // SAFETY: the arrays are a well-formed matrix's, whose rows and columns are inside `dense`; tiles after the last
    // and rows after the last are not written.
    unsafe {
        match &weight.stored {
            Stored::Delta(arrays) => delta::expand(&packed_gpu(weight), arrays, &dense),
            Stored::Octets(arrays) => octets::expand(&packed_gpu(weight), arrays, &dense),
            Stored::Nm(arrays) => nm::expand(&packed_gpu(weight), arrays, &dense),
            Stored::Groups(GroupArrays { bits, row_ptr, bases, steps, values }) => {
                let vector = 16 / weight.dtype.size();
                groups::groups_expand::launch_unchecked::<CudaRuntime>(
                    client,
                    CubeCount::Static(rows, 1, 1),
                    CubeDim::new_1d(EXPAND_THREADS),
                    vector,
                    array(values),
                    array(steps),
                    array(bases),
                    array(row_ptr),
                    array(&dense),
                    width,
                    vector,
                    bits.words(),
                    weight.dtype.into(),
                );
            }
            Stored::Squares(SquareArrays { starts, squares, places, values, chunks }) => {
                squares::squares_expand::launch_unchecked::<CudaRuntime>(
                    client,
                    cubes(TILE_COLUMNS),
                    threads,
                    array(values),
                    array(places),
                    array(squares),
                    array(starts),
                    array(&dense),
                    rows,
                    cols,
                    EXPAND_PLANES,
                    *chunks,
                );
            }
            Stored::Tiles(TileArrays { masks, starts, values, chunks }) if weight.dtype == DType::F32 => {
                tiles_f32::bitmap_f32_expand::launch_unchecked::<CudaRuntime>(
                    client,
                    cubes(SPAN),
                    threads,
                    array(masks),
                    array(starts),
                    array(values),
                    array(&dense),
                    rows,
                    cols,
                    EXPAND_PLANES,
                    2 * chunks,
                );
            }
            Stored::Tiles(TileArrays { masks, starts, values, chunks }) => {
                tiles::bitmap_expand::launch_unchecked::<CudaRuntime>(
                    client,
                    cubes(SPAN),
                    threads,
                    array(masks),
                    array(starts),
                    array(values),
                    array(&dense),
                    rows,
                    cols,
                    EXPAND_PLANES,
                    *chunks,
                );
            }
        }
    }
    dense
}

/// Memory for the dense matrix.
fn scratch(like: &Tensor, weight: &CudaWeight) -> Tensor {
    outputs::output(like, Shape::new([weight.rows, width(weight)]), weight.dtype)
}

/// Columns of the dense matrix that a weight is expanded to.
fn width(weight: &CudaWeight) -> usize {
    match weight.stored {
        Stored::Squares(_) => weight.cols.next_multiple_of(TILE_COLUMNS),
        Stored::Octets(_) => weight.cols.next_multiple_of(OCTET_COLUMNS),
        Stored::Nm(_) => weight.cols.next_multiple_of(NM_COLUMNS),
        Stored::Delta(_) | Stored::Groups(_) | Stored::Tiles(_) => weight.cols.next_multiple_of(SPAN),
    }
}

impl Stored {
    /// One of the arrays.
    fn any(&self) -> &Tensor {
        match self {
            Self::Delta(arrays) => &arrays.values,
            Self::Octets(arrays) => &arrays.chunks,
            Self::Nm(arrays) => &arrays.units,
            Self::Groups(GroupArrays { values, .. })
            | Self::Squares(SquareArrays { values, .. })
            | Self::Tiles(TileArrays { values, .. }) => values,
        }
    }
}
