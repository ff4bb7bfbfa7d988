//! Which kernel a product runs on the device, and the launches.
//!
//! ```text
//!   tokens            1            2 .. 16         .. 32       .. 64       more
//!   dense, 16 bits    tiles        tiles           gemm        gemm        gemm
//!   csr groups        groups       groups to 4, then expand
//!   csr squares       squares      squares         squares     squares     expand
//!   bitmap tiles      tiles        tiles           tiles       expand      expand
//!
//!   expand            the dense matrix in a scratch buffer, then the dense kernel for so many tokens
//!   f32               fma rows to 16 tokens, fma blocks; groups, bitmap tiles to 4 tokens, expand
//!   16 bits on devices without tensor cores: groups, expand, Burn's matrix product
//! ```
//! The bounds are measurements on an H200 with matrices of 11008 x 4096 and 4096 x 4096.

use super::outputs::{self, array};
use super::weight::{CudaWeight, GroupArrays, SquareArrays, Stored, TileArrays};
use super::{Cuda, Tensor, processors, tensor_core};
use super::{fma, gemm};
use crate::execute::kernels::cuda::{groups, squares, tiles, tiles_f32};
use crate::sparse::TILE_COLUMNS;
use burn::tensor::ops::FloatTensorOps;
use burn::tensor::{DType, Shape, Tensor as BurnTensor, TensorMetadata, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;

/// The most tokens that the skinny dense kernel multiplies.
const DENSE_TILE_TOKENS: usize = 16;
/// The most tokens that squares are multiplied for as they are.
const SQUARE_TOKENS: usize = 64;
/// The most tokens that bitmap tiles are multiplied for as they are.
const BITMAP_TOKENS: usize = 32;
/// Columns that a step of the tile kernels takes.
const SPAN: usize = 64;
/// Shared memory that the inputs of the groups kernel may take: two cubes fit a multiprocessor of an H200.
const INPUT_BYTES: usize = 96 << 10;
/// Threads that a cube of the groups kernel should have: each cube lays the inputs out for itself, but few large cubes
/// start and end together.
const GROUP_THREADS: usize = 768;
/// Planes that it has at least, to lay inputs out.
const GROUP_PLANES: usize = 4;
/// From so many rows on, half a plane a row keeps an H200 busy.
pub(super) const MANY_ROWS: usize = 8192;
/// Threads that expand a row of groups.
const EXPAND_THREADS: u32 = 256;
/// Planes of a cube of the bitmap kernel for f32.
const F32_PLANES: u32 = 8;
/// Planes of a cube that expands tiles.
const EXPAND_PLANES: u32 = 4;

/// `y = x · Wᵀ + bias` of a dense weight `[rows, cols]`.
pub(super) fn dense(x: Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let (tokens, [rows, cols]) = (x.shape()[0], two(weight));
    match DenseKernel::of(weight, tokens) {
        DenseKernel::Tiles => dense_tiles(into_contiguous(x), weight.clone(), bias, [tokens, rows, cols]),
        DenseKernel::Fma => fma::product(x, weight.clone(), bias),
        DenseKernel::Gemm => match gemm::gemm(x.clone(), weight.clone(), bias) {
            Some(y) => y,
            None => matmul(x, weight, bias),
        },
        DenseKernel::Matmul => matmul(x, weight, bias),
    }
}

/// `y = x · Wᵀ + bias` of a sparse weight.
pub(super) fn sparse(x: Tensor, weight: &CudaWeight) -> Tensor {
    let x = into_contiguous(x);
    let tokens = x.shape()[0];
    if tokens == 0 || weight.rows == 0 {
        return output(&x, tokens, weight);
    }
    match SparseKernel::of(weight, tokens) {
        SparseKernel::Groups(arrays) => groups_rows(x, weight, arrays, tokens),
        SparseKernel::Squares(arrays) => squares_tiles(x, weight, arrays, tokens),
        SparseKernel::Tiles(arrays) => bitmap_tiles(x, weight, arrays, tokens),
        SparseKernel::TilesF32(arrays) => bitmap_f32(x, weight, arrays, tokens),
        SparseKernel::Expand => {
            let dense = expand(&x, weight);
            let width = two(&dense)[1];
            self::dense(padded(x, weight.cols, width), &dense, weight.bias.as_ref())
        }
    }
}

/// The name of the kernel behind [`dense`].
pub(super) fn dense_kernel(weight: &Tensor, tokens: usize) -> String {
    DenseKernel::of(weight, tokens).name(tokens).into()
}

/// The name of the kernel behind [`sparse`].
pub(super) fn sparse_kernel(weight: &CudaWeight, tokens: usize) -> String {
    let client = &weight.stored.any().client;
    match SparseKernel::of(weight, tokens) {
        SparseKernel::Groups(_) => "csr-cube-groups".into(),
        SparseKernel::Squares(_) => "csr-cube-squares".into(),
        SparseKernel::Tiles(_) | SparseKernel::TilesF32(_) => "bitmap-cube-tiles".into(),
        SparseKernel::Expand => {
            let format = match weight.stored {
                Stored::Groups(_) | Stored::Squares(_) => "csr",
                Stored::Tiles(_) => "bitmap",
            };
            let (has_core, gemm) = (tensor_core(client, weight.dtype), || gemm::can(client, weight.dtype));
            let dense = DenseKernel::new(weight.dtype, has_core, gemm, [tokens, weight.rows, expanded_width(weight)]);
            format!("{format}-cube-expand+{}", dense.name(tokens))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DenseKernel {
    Tiles,
    Gemm,
    Fma,
    Matmul,
}

impl DenseKernel {
    fn of(weight: &Tensor, tokens: usize) -> Self {
        let [rows, cols] = two(weight);
        let has_core = weight.is_contiguous() && tensor_core(&weight.client, weight.dtype);
        let gemm = || gemm::can(&weight.client, weight.dtype);
        Self::new(weight.dtype, has_core, gemm, [tokens, rows, cols])
    }

    /// Tensor cores read matrices without gaps; whether `gemm` can be used is asked where it matters.
    fn new(dtype: DType, tensor_core: bool, gemm: impl FnOnce() -> bool, [tokens, rows, cols]: [usize; 3]) -> Self {
        match tokens {
            _ if tokens * rows * cols == 0 => Self::Matmul,
            _ if dtype == DType::F32 => Self::Fma,
            _ if !tensor_core || !cols.is_multiple_of(SPAN) => Self::Matmul,
            ..=DENSE_TILE_TOKENS => Self::Tiles,
            _ if gemm() => Self::Gemm,
            _ => Self::Matmul,
        }
    }

    fn name(self, tokens: usize) -> &'static str {
        match self {
            Self::Tiles => "dense-cube-tiles",
            Self::Gemm => gemm::NAME,
            Self::Fma => fma::name(tokens),
            Self::Matmul => "dense-cube-matmul",
        }
    }
}

/// What multiplies a stored weight, with the arrays that it reads.
enum SparseKernel<'a> {
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
            input_room(weight.cols) * tokens.next_power_of_two() * weight.dtype.size() <= most
        };
        let f32 = weight.dtype == DType::F32;
        match &weight.stored {
            Stored::Groups(arrays) if tokens <= groups::MOST_TOKENS && inputs() => Self::Groups(arrays),
            Stored::Squares(arrays) if tokens <= SQUARE_TOKENS => Self::Squares(arrays),
            Stored::Tiles(arrays) if tokens <= BITMAP_TOKENS && tensor_core(client, weight.dtype) => {
                Self::Tiles(arrays)
            }
            Stored::Tiles(arrays) if tokens <= tiles_f32::MOST_TOKENS && f32 => Self::TilesF32(arrays),
            Stored::Groups(_) | Stored::Squares(_) | Stored::Tiles(_) => Self::Expand,
        }
    }
}

/// Planes of a cube and rows of tiles that a plane takes, for as many cubes as keep the device busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    planes: u32,
    tall: u32,
    /// Eights of tokens; a power of two, so that few kernels are compiled.
    blocks: usize,
}

impl Grid {
    /// Of squares.
    fn squares(rows: usize, tokens: usize, processors: usize) -> Self {
        let (tile_rows, blocks) = (rows.div_ceil(16), tokens.div_ceil(8).next_power_of_two());
        let many = tile_rows >= 4 * processors;
        let (planes, tall) = match blocks {
            2 | 4 if many => (4, 2),
            3.. => (8, 2),
            _ if many => (4, 1),
            _ if tile_rows >= processors => (8, 1),
            _ => (16, 1),
        };
        Self { planes, tall, blocks }
    }

    /// Of bitmap tiles.
    fn tiles(rows: usize, tokens: usize, processors: usize) -> Self {
        let blocks = tokens.div_ceil(8).next_power_of_two();
        let many = rows.div_ceil(16) >= 4 * processors;
        let planes = match blocks {
            3.. => 8,
            _ if many => 4,
            _ => 16,
        };
        Self { planes, tall: 1, blocks }
    }

    /// Of the skinny dense kernel.
    fn dense(rows: usize, tokens: usize, processors: usize) -> Self {
        let many = rows.div_ceil(16) >= 4 * processors;
        let (planes, tall) = match (many, tokens) {
            (true, ..=8) => (4, 1),
            (true, _) => (8, 2),
            (false, _) => (16, 1),
        };
        Self { planes, tall, blocks: tokens.div_ceil(8).next_power_of_two() }
    }

    fn cubes(self, rows: usize) -> CubeCount {
        CubeCount::Static(rows.div_ceil(16 * self.tall as usize) as u32, 1, 1)
    }

    fn threads(self) -> CubeDim {
        CubeDim::new_1d(32 * self.planes)
    }
}

fn dense_tiles(x: Tensor, weight: Tensor, bias: Option<&Tensor>, [tokens, rows, cols]: [usize; 3]) -> Tensor {
    let dtype = x.dtype;
    let y = outputs::output(&x, Shape::new([tokens, rows]), dtype);
    let (client, grid) = (x.client.clone(), Grid::dense(rows, tokens, processors(&x.client)));
    // SAFETY: `weight` is [rows, cols] and `x` [tokens, cols] without gaps, `cols` a multiple of a step; rows and
    // tokens behind the last are clamped when they are read and not written.
    unsafe {
        tiles::dense_tiles::launch_unchecked::<CudaRuntime>(
            &client,
            grid.cubes(rows),
            grid.threads(),
            array(&x),
            array(&weight),
            array(bias.unwrap_or(&x)),
            array(&y),
            rows as u32,
            cols as u32,
            tokens as u32,
            grid.planes,
            grid.tall,
            grid.blocks,
            bias.is_some(),
            dtype.into(),
        );
    }
    y
}

/// Burn's product.
pub(super) fn matmul(x: Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let y = Cuda::float_matmul(x, Cuda::float_swap_dims(weight.clone(), 0, 1));
    match bias {
        Some(bias) => Cuda::float_add(y, Cuda::float_reshape(bias.clone(), Shape::new([1, bias.shape()[0]]))),
        None => y,
    }
}

fn groups_rows(x: Tensor, weight: &CudaWeight, arrays: &GroupArrays, tokens: usize) -> Tensor {
    let GroupArrays { bits, row_ptr, bases, steps, values } = arrays;
    let (y, client) = (output(&x, tokens, weight), x.client.clone());
    // Eight at a time where there are eights.
    let vector = if tokens == 1 && weight.cols.is_multiple_of(8) { 8 } else { 1 };
    let lanes = if weight.rows < MANY_ROWS { 32 } else { 16 };
    let width = tokens.next_power_of_two();
    let threads = group_threads(weight.rows, lanes, processors(&client));
    let count = CubeCount::Static((weight.rows * lanes).div_ceil(threads) as u32, 1, 1);
    // SAFETY: a weight is only made from `Groups`: groups are inside the arrays, columns inside a row of `x`, for
    // which there is room in shared memory; rows behind the last have no groups and write nothing.
    unsafe {
        groups::groups_rows::launch_unchecked::<CudaRuntime>(
            &client,
            count,
            CubeDim::new_1d(threads as u32),
            vector,
            width,
            array(&x),
            array(values),
            array(steps),
            array(bases),
            array(row_ptr),
            array(weight.bias.as_ref().unwrap_or(&x)),
            array(&y),
            weight.rows as u32,
            weight.cols as u32,
            input_room(weight.cols),
            tokens,
            width,
            bits.words(),
            vector,
            lanes as u32,
            weight.bias.is_some(),
            weight.dtype.into(),
        );
    }
    y
}

fn squares_tiles(x: Tensor, weight: &CudaWeight, arrays: &SquareArrays, tokens: usize) -> Tensor {
    let SquareArrays { starts, squares, places, values, chunks } = arrays;
    let (y, client) = (output(&x, tokens, weight), x.client.clone());
    let cols = weight.cols.next_multiple_of(TILE_COLUMNS);
    let x = padded(x, weight.cols, cols);
    let grid = Grid::squares(weight.rows, tokens, processors(&client));
    // SAFETY: a weight is only made from `Squares`: chunks are inside the arrays and at most `chunks` a lane, places
    // inside a square; `x` has whole tiles of columns; tokens behind the last are clamped, rows not written.
    unsafe {
        squares::squares_tiles::launch_unchecked::<CudaRuntime>(
            &client,
            grid.cubes(weight.rows),
            grid.threads(),
            array(&x),
            array(values),
            array(places),
            array(squares),
            array(starts),
            array(weight.bias.as_ref().unwrap_or(&x)),
            array(&y),
            weight.rows as u32,
            cols as u32,
            tokens as u32,
            grid.planes,
            grid.tall,
            grid.blocks,
            *chunks,
            weight.bias.is_some(),
            weight.dtype.into(),
        );
    }
    y
}

fn bitmap_tiles(x: Tensor, weight: &CudaWeight, arrays: &TileArrays, tokens: usize) -> Tensor {
    let TileArrays { masks, starts, values, chunks } = arrays;
    let (y, client) = (output(&x, tokens, weight), x.client.clone());
    let cols = weight.cols.next_multiple_of(SPAN);
    let x = padded(x, weight.cols, cols);
    let grid = Grid::tiles(weight.rows, tokens, processors(&client));
    // SAFETY: a weight is only made from `BitTiles`: values are inside the array and at most `chunks` loads a lane;
    // `x` has whole tiles of columns; tokens behind the last are clamped, rows not written.
    unsafe {
        tiles::bitmap_tiles::launch_unchecked::<CudaRuntime>(
            &client,
            grid.cubes(weight.rows),
            grid.threads(),
            array(&x),
            array(masks),
            array(starts),
            array(values),
            array(weight.bias.as_ref().unwrap_or(&x)),
            array(&y),
            weight.rows as u32,
            cols as u32,
            tokens as u32,
            grid.planes,
            grid.blocks,
            *chunks,
            weight.bias.is_some(),
            weight.dtype.into(),
        );
    }
    y
}

fn bitmap_f32(x: Tensor, weight: &CudaWeight, arrays: &TileArrays, tokens: usize) -> Tensor {
    let TileArrays { masks, starts, values, chunks } = arrays;
    let (y, client) = (output(&x, tokens, weight), x.client.clone());
    let cols = weight.cols.next_multiple_of(SPAN);
    let x = padded(x, weight.cols, cols);
    // SAFETY: as of the kernel for 16-bit numbers; a load is half as many values, so there are twice as many.
    unsafe {
        tiles_f32::bitmap_f32::launch_unchecked::<CudaRuntime>(
            &client,
            CubeCount::Static(weight.rows.div_ceil(16) as u32, 1, 1),
            CubeDim::new_1d(32 * F32_PLANES),
            array(&x),
            array(masks),
            array(starts),
            array(values),
            array(weight.bias.as_ref().unwrap_or(&x)),
            array(&y),
            weight.rows as u32,
            cols as u32,
            tokens,
            F32_PLANES,
            2 * chunks,
            weight.bias.is_some(),
        );
    }
    y
}

/// Columns of the expanded matrix: whole tiles.
fn expanded_width(weight: &CudaWeight) -> usize {
    match weight.stored {
        Stored::Squares(_) => weight.cols.next_multiple_of(TILE_COLUMNS),
        Stored::Groups(_) | Stored::Tiles(_) => weight.cols.next_multiple_of(SPAN),
    }
}

/// The dense matrix, as wide as whole tiles of it are.
fn expand(x: &Tensor, weight: &CudaWeight) -> Tensor {
    let width = expanded_width(weight);
    let shape = Shape::new([weight.rows, width]);
    let dense = outputs::output(x, shape, weight.dtype);
    let client = &x.client;
    let cubes = |tile: usize| {
        let tiles = weight.rows.div_ceil(16) * (width / tile);
        CubeCount::Static((tiles as u32).div_ceil(EXPAND_PLANES), 1, 1)
    };
    let threads = CubeDim::new_1d(32 * EXPAND_PLANES);
    let (rows, cols) = (weight.rows as u32, width as u32);
    // SAFETY: the arrays are a well-formed matrix's, whose rows and columns are inside `dense`; tiles behind the last
    // and rows behind the last are not written.
    unsafe {
        match &weight.stored {
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

impl Stored {
    /// One of the arrays.
    fn any(&self) -> &Tensor {
        match self {
            Self::Groups(GroupArrays { values, .. })
            | Self::Squares(SquareArrays { values, .. })
            | Self::Tiles(TileArrays { values, .. }) => values,
        }
    }
}

fn output(x: &Tensor, tokens: usize, weight: &CudaWeight) -> Tensor {
    outputs::output(x, Shape::new([tokens, weight.rows]), x.dtype)
}

/// `x` `[tokens, cols]` with zeros up to a width.
fn padded(x: Tensor, cols: usize, width: usize) -> Tensor {
    if cols == width {
        return x;
    }
    let tokens = x.shape()[0];
    let x = BurnTensor::<Cuda, 2>::from_primitive(TensorPrimitive::Float(x));
    let wide = BurnTensor::<Cuda, 2>::zeros([tokens, width], (&x.device(), x.dtype()));
    into_contiguous(wide.slice_assign([0..tokens, 0..cols], x).into_primitive().tensor())
}

/// Threads of a cube, in whole planes, that give every multiprocessor as many rows as another.
fn group_threads(rows: usize, lanes: usize, processors: usize) -> usize {
    let cubes = (rows * lanes).div_ceil(GROUP_THREADS * processors).max(1);
    let rows = rows.div_ceil(processors * cubes);
    (rows * lanes).next_multiple_of(32).max(32 * GROUP_PLANES)
}

/// Numbers of shared memory that a token's inputs take.
fn input_room(cols: usize) -> usize {
    // In steps, so that layers of similar width share a kernel.
    cols.next_multiple_of(1024)
}

fn two(tensor: &Tensor) -> [usize; 2] {
    let shape = tensor.shape();
    [shape[0], shape[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_matrices_take_many_small_cubes_and_small_ones_few_large_ones() {
        let shape = |Grid { planes, tall, blocks }| (planes, tall, blocks);
        let squares = |rows, tokens| shape(Grid::squares(rows, tokens, 132));
        assert_eq!([1, 16, 17, 64].map(|tokens| squares(11008, tokens)), [(4, 1, 1), (4, 2, 2), (4, 2, 4), (8, 2, 8)]);
        assert_eq!(squares(4096, 17), (8, 2, 4));
        assert_eq!([1, 16, 64].map(|tokens| squares(4096, tokens)), [(8, 1, 1), (8, 1, 2), (8, 2, 8)]);
        assert_eq!(squares(768, 1), (16, 1, 1));
        let tiles = |rows, tokens| shape(Grid::tiles(rows, tokens, 132));
        assert_eq!([tiles(11008, 1), tiles(4096, 16), tiles(4096, 32)], [(4, 1, 1), (16, 1, 2), (8, 1, 4)]);
        let dense = |rows, tokens| Grid::dense(rows, tokens, 132);
        assert_eq!(dense(11008, 1), Grid { planes: 4, tall: 1, blocks: 1 });
        assert_eq!(dense(11008, 16), Grid { planes: 8, tall: 2, blocks: 2 });
        assert_eq!(dense(4096, 16), Grid { planes: 16, tall: 1, blocks: 2 });
    }

    #[test]
    fn rows_of_groups_are_shared_out_evenly() {
        for (rows, lanes, threads) in
            [(11008, 16, 672), (4096, 32, 512), (13824, 16, 576), (100, 32, 128), (1, 32, 128)]
        {
            assert_eq!(group_threads(rows, lanes, 132), threads, "{rows}");
        }
        // Two cubes for each of 132 multiprocessors.
        assert_eq!((11008 * 16usize).div_ceil(group_threads(11008, 16, 132)), 263);
    }

    #[test]
    fn dense_kernels_need_their_hardware_and_whole_steps() {
        let name = |dtype, unit, gemm: bool, cols, tokens| {
            DenseKernel::new(dtype, unit, || gemm, [tokens, 100, cols]).name(tokens)
        };
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
}
