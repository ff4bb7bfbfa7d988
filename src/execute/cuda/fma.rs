//! Dense products of 32-bit numbers on CUDA: how the work is divided, and the launches.
//!
//! Burn's own choice among its products takes the fastest, which rounds f32 to 19 bits on the way.

use super::gemm::add_parts;
use super::outputs::{self, array};
use super::{Tensor, processors};
use crate::execute::kernels::cuda::fma::{self as kernel, Block, MOST_TOKENS, PLANES, ROWS, STEP};
use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::kernel::into_contiguous;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;

/// For up to 32 tokens, and for more.
const SMALL: Block = Block { rows: 64, tokens: 32, unit: 4 };
const LARGE: Block = Block { rows: 128, tokens: 64, unit: 8 };
/// Cubes that a multiprocessor has room for: their registers fill it.
const CUBES: usize = 4;
/// The fewest columns of a part, and the most parts.
const PART_COLUMNS: usize = 256;
const MOST_PARTS: usize = 8;

/// The name of the kernel for this many tokens.
pub(super) fn name(tokens: usize) -> &'static str {
    if tokens <= MOST_TOKENS { "dense-cube-fma-rows" } else { "dense-cube-fma-blocks" }
}

/// `x · weightᵀ + bias`.
///
/// # Shapes
/// `x` `[tokens, cols]`, `weight` `[rows, cols]`, `bias` `[rows]`, all f32 and none of them empty.
pub(super) fn product(x: Tensor, weight: Tensor, bias: Option<&Tensor>) -> Tensor {
    // A device may leave gaps between rows of odd lengths.
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    if x.shape()[0] <= MOST_TOKENS { rows(x, weight, bias) } else { blocks(x, weight, bias) }
}

fn rows(x: Tensor, weight: Tensor, bias: Option<&Tensor>) -> Tensor {
    let ([tokens, cols], rows) = (x.shape().dims(), weight.shape()[0]);
    let (client, vector) = (x.client.clone(), vector(cols));
    let y = empty(&x, [tokens, rows]);
    let has_bias = bias.is_some();
    // A kernel without a bias reads nothing of what stands in its place.
    let bias = bias.cloned().unwrap_or_else(|| x.clone());
    // SAFETY: lines and tokens after the last are clamped when they are read and not written; `vector` divides a row.
    unsafe {
        kernel::fma_rows::launch_unchecked::<CudaRuntime>(
            &client,
            CubeCount::Static(rows.div_ceil(ROWS) as u32, 1, 1),
            CubeDim::new_1d(32 * PLANES as u32),
            vector,
            array(&x),
            array(&weight),
            array(&bias),
            array(&y),
            rows as u32,
            tokens as u32,
            (cols / vector) as u32,
            // A power of two, so that few kernels are compiled.
            tokens.next_power_of_two(),
            vector,
            has_bias,
        );
    }
    y
}

fn blocks(x: Tensor, weight: Tensor, bias: Option<&Tensor>) -> Tensor {
    let ([tokens, cols], rows) = (x.shape().dims(), weight.shape()[0]);
    let (client, vector) = (x.client.clone(), vector(cols));
    let (block, parts) = divided(tokens, rows, cols, processors(&client));
    let (split, has_bias) = (parts > 1, bias.is_some());
    let y = empty(&x, [tokens, rows]);
    let sums = if split { empty(&x, [parts * tokens, rows]) } else { y.clone() };
    let bias = bias.cloned().unwrap_or_else(|| x.clone());
    let counts = [tokens.div_ceil(block.tokens as usize), rows.div_ceil(block.rows as usize), parts];
    let [across, down, parts] = counts.map(|count| count as u32);
    // SAFETY: lines after the last and columns after a row's end are zeros and not read; only tokens and rows that
    // `y` has are written, to `sums` for `parts` times as many; `vector` divides a row and a step.
    unsafe {
        kernel::fma_blocks::launch_unchecked::<CudaRuntime>(
            &client,
            CubeCount::Static(across, down, parts),
            CubeDim::new_1d(block.units()),
            vector,
            array(&x),
            array(&weight),
            array(&bias),
            array(&sums),
            rows as u32,
            tokens as u32,
            cols as u32,
            (cols as u32).div_ceil(parts).next_multiple_of(STEP),
            block,
            vector as u32,
            has_bias,
            split,
        );
    }
    if split {
        add_parts(sums, bias, &y, parts, has_bias);
    }
    y
}

/// The block, and the parts that the columns are cut into so that every multiprocessor has work; none is empty.
fn divided(tokens: usize, rows: usize, cols: usize, processors: usize) -> (Block, usize) {
    let block = if tokens <= SMALL.tokens as usize { SMALL } else { LARGE };
    let cubes = tokens.div_ceil(block.tokens as usize) * rows.div_ceil(block.rows as usize);
    let wanted = (CUBES * processors / cubes.max(1)).min(cols / PART_COLUMNS).clamp(1, MOST_PARTS);
    let part = cols.div_ceil(wanted).next_multiple_of(STEP as usize);
    (block, cols.div_ceil(part))
}

fn empty(like: &Tensor, shape: [usize; 2]) -> Tensor {
    outputs::output(like, Shape::new(shape), DType::F32)
}

/// Columns of a load.
fn vector(cols: usize) -> usize {
    if cols.is_multiple_of(4) { 4 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_columns_and_none_is_empty() {
        for (tokens, rows, cols) in
            [(17, 1, 1), (65, 4096, 4096), (64, 100, 130), (300, 768, 3073), (5000, 50000, 4096)]
        {
            for processors in [1, 40, 132] {
                let (_, parts) = divided(tokens, rows, cols, processors);
                let part = cols.div_ceil(parts).next_multiple_of(STEP as usize);
                assert!((parts - 1) * part < cols && parts * part >= cols, "{cols} columns in {parts}");
            }
        }
        assert_eq!(divided(5000, 50000, 4096, 132), (LARGE, 1));
        assert_eq!(divided(17, 4096, 4096, 132), (SMALL, 8));
        assert_eq!(divided(256, 11008, 4096, 132), (LARGE, 1));
    }

    #[test]
    fn units_fill_a_block() {
        for block in [SMALL, LARGE] {
            assert!(block.rows.is_multiple_of(4 * block.unit) && block.tokens.is_multiple_of(4 * block.unit));
            assert!(block.unit.is_multiple_of(4) && block.units() <= 256);
        }
    }
}
