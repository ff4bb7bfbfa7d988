//! Launches of the kernels in CubeCL that multiply by dense and sparse matrices: how the work is divided.
//! It does not know when which of them is faster.

use super::inputs::{SPAN, output, padded};
use super::outputs::{self, array};
use super::weight::{CudaWeight, GroupArrays, SquareArrays, TileArrays};
use super::{Tensor, processors};
use crate::execute::kernels::cuda::{groups, squares, tiles, tiles_f32};
use crate::sparse::TILE_COLUMNS;
use burn::tensor::Shape;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;

/// Threads that a cube of the groups kernel should have: each cube lays the inputs out for itself, but few large cubes
/// start and end together.
const GROUP_THREADS: usize = 768;
/// Planes that it has at least, to lay inputs out.
const GROUP_PLANES: usize = 4;
/// From this many rows on, half a plane a row keeps an H200 busy.
pub(super) const MANY_ROWS: usize = 8192;
/// Planes of a cube of the bitmap kernel for f32.
const F32_PLANES: u32 = 8;

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

pub(super) fn dense_tiles(
    x: Tensor,
    weight: Tensor,
    bias: Option<&Tensor>,
    [tokens, rows, cols]: [usize; 3],
) -> Tensor {
    let dtype = x.dtype;
    let y = outputs::output(&x, Shape::new([tokens, rows]), dtype);
    let (client, grid) = (x.client.clone(), Grid::dense(rows, tokens, processors(&x.client)));
    // SAFETY: `weight` is [rows, cols] and `x` [tokens, cols] without gaps, `cols` a multiple of a step; rows and
    // tokens after the last are clamped when they are read and not written.
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

pub(super) fn groups_rows(x: Tensor, weight: &CudaWeight, arrays: &GroupArrays, tokens: usize) -> Tensor {
    let GroupArrays { bits, row_ptr, bases, steps, values } = arrays;
    let (y, client) = (output(&x, tokens, weight), x.client.clone());
    // Eight at a time where there are eights.
    let vector = if tokens == 1 && weight.cols.is_multiple_of(8) { 8 } else { 1 };
    let lanes = if weight.rows < MANY_ROWS { 32 } else { 16 };
    let width = tokens.next_power_of_two();
    let threads = group_threads(weight.rows, lanes, processors(&client));
    let count = CubeCount::Static((weight.rows * lanes).div_ceil(threads) as u32, 1, 1);
    // SAFETY: a weight is only made from `Groups`: groups are inside the arrays, columns inside a row of `x`, for
    // which there is room in shared memory; rows after the last have no groups and write nothing.
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

pub(super) fn squares_tiles(x: Tensor, weight: &CudaWeight, arrays: &SquareArrays, tokens: usize) -> Tensor {
    let SquareArrays { starts, squares, places, values, chunks } = arrays;
    let (y, client) = (output(&x, tokens, weight), x.client.clone());
    let cols = weight.cols.next_multiple_of(TILE_COLUMNS);
    let x = padded(x, weight.cols, cols);
    let grid = Grid::squares(weight.rows, tokens, processors(&client));
    // SAFETY: a weight is only made from `Squares`: chunks are inside the arrays and at most `chunks` a lane, places
    // inside a square; `x` has whole tiles of columns; tokens after the last are clamped, rows not written.
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

pub(super) fn bitmap_tiles(x: Tensor, weight: &CudaWeight, arrays: &TileArrays, tokens: usize) -> Tensor {
    let TileArrays { masks, starts, values, chunks } = arrays;
    let (y, client) = (output(&x, tokens, weight), x.client.clone());
    let cols = weight.cols.next_multiple_of(SPAN);
    let x = padded(x, weight.cols, cols);
    let grid = Grid::tiles(weight.rows, tokens, processors(&client));
    // SAFETY: a weight is only made from `BitTiles`: values are inside the array and at most `chunks` loads a lane;
    // `x` has whole tiles of columns; tokens after the last are clamped, rows not written.
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

pub(super) fn bitmap_f32(x: Tensor, weight: &CudaWeight, arrays: &TileArrays, tokens: usize) -> Tensor {
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

/// Threads of a cube, in whole planes, that give every multiprocessor as many rows as another.
fn group_threads(rows: usize, lanes: usize, processors: usize) -> usize {
    let cubes = (rows * lanes).div_ceil(GROUP_THREADS * processors).max(1);
    let rows = rows.div_ceil(processors * cubes);
    (rows * lanes).next_multiple_of(32).max(32 * GROUP_PLANES)
}

/// Numbers of shared memory that a token's inputs take.
pub(super) fn input_room(cols: usize) -> usize {
    // In steps, so that layers of similar width share a kernel.
    cols.next_multiple_of(1024)
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
}
