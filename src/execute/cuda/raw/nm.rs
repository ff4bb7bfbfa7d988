//! Launches of `nm.cu`: up to 192 tokens by two of every four weights, and the dense matrix again.

use super::source::{Kernel, Source};
use super::stream::{Gpu, Launch, Passing};
use crate::execute::cuda::Tensor;
use crate::sparse::NM_COLUMNS;
use burn::tensor::{DType, TensorMetadata};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The most tokens that are multiplied at once.
pub(in crate::execute::cuda) const MOST_TOKENS: usize = 192;
/// Tokens of a tile, and the most tiles of a block.
const TILE: usize = 8;
const MOST_TILES: usize = 8;
/// Rows of a unit, its bytes, and those of a token's inputs for it.
const ROWS: usize = 16;
const UNIT: usize = 1152;
const LINE: usize = 2 * NM_COLUMNS;
/// Warps of a block.
const WARPS: usize = 8;

/// A matrix on the device; see [`crate::sparse::TwoOfFour`].
#[derive(Clone, Debug)]
pub(in crate::execute::cuda) struct NmArrays {
    pub units: Tensor,
    /// Whether a launch has come after the one that wrote the arrays: later ones may read them before they wait.
    pub settled: Arc<AtomicBool>,
}

/// What a block multiplies; the macros of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    /// Eights of tokens.
    tiles: usize,
    /// Sixteens of rows of a warp.
    deep: usize,
    /// Warps with rows of their own; the others share the columns.
    down: usize,
    stages: usize,
}

impl Block {
    /// The one with most rows that three of five multiprocessors have a block of: its inputs are read for more rows, which
    /// counts for more than the others that idle, on an H200. Where none is so small, the last; none where shared memory
    /// is too little for any.
    fn choose(rows: usize, tokens: usize, processors: usize, shared: usize) -> Option<Self> {
        let tiles = tokens.div_ceil(TILE).next_power_of_two().clamp(1, MOST_TILES);
        let sizes: &[[usize; 2]] = match tiles {
            1 => &[[1, 1]],
            2 | 4 => &[[2, 2], [2, 1], [1, 2]],
            _ => &[[4, 2], [2, 2], [2, 1], [1, 2]],
        };
        let mut blocks = sizes.iter().filter_map(|&[deep, down]| Self { tiles, deep, down, stages: 0 }.staged(shared));
        let enough = |block: &Self| 5 * block.blocks(rows, tokens) >= 3 * processors;
        blocks.clone().find(enough).or_else(|| blocks.next_back())
    }

    /// With as many stages as there is room for, but not more than help: two blocks share a multiprocessor then.
    fn staged(self, shared: usize) -> Option<Self> {
        let fits = |stages: &usize| Self { stages: *stages, ..self }.shared() <= shared;
        let most = if self.tiles == 1 { 4 } else { 3 };
        (2..=most).rev().find(fits).map(|stages| Self { stages, ..self })
    }

    fn rows(self) -> usize {
        ROWS * self.deep * self.down
    }

    fn blocks(self, rows: usize, tokens: usize) -> usize {
        rows.div_ceil(self.rows()) * tokens.div_ceil(TILE * self.tiles)
    }

    /// Bytes of shared memory: what the block has while it reads, or the sums at its end.
    fn shared(self) -> usize {
        let inputs = WARPS / self.down * TILE * self.tiles * LINE;
        let reading = self.stages * (WARPS * self.deep * UNIT + inputs);
        reading.max(WARPS * self.deep * self.tiles * 512)
    }

    fn kernel(self, entry: &'static str, dtype: DType) -> Kernel {
        let macros = vec![
            ("TILES", self.tiles as u32),
            ("DEEP", self.deep as u32),
            ("DOWN", self.down as u32),
            ("STAGES", self.stages as u32),
            ("BRAIN_NUMBERS", u32::from(dtype == DType::BF16)),
        ];
        Kernel { source: Source::Nm, entry, macros }
    }
}

/// Whether matrices of so many rows can be multiplied, which compiles the kernel for so many tokens.
pub(in crate::execute::cuda) fn can(gpu: &Gpu, rows: usize, tokens: usize, dtype: DType) -> bool {
    let block = Block::choose(rows, tokens.min(MOST_TOKENS), gpu.processors, gpu.shared);
    block.is_some_and(|block| gpu.has(&block.kernel("nm_rows", dtype)))
}

/// `y [tokens, rows] = x . weight^T + bias`.
///
/// # Safety
/// The array is a [`crate::sparse::TwoOfFour`] of `[rows, cols]`; `x` is `[tokens, width]` without gaps, begins at 16 bytes
/// and has zeros after the last column, `width` being a multiple of [`NM_COLUMNS`]; `y` is `[tokens, rows]`, `bias`
/// `[rows]`, all of the same 16-bit type; there are 1 to [`MOST_TOKENS`] tokens, for which a block was chosen.
///
/// # Panics
/// Where shared memory is too little for any block, which [`can`] denies.
pub(in crate::execute::cuda) unsafe fn rows(
    gpu: &Gpu,
    weight: &NmArrays,
    x: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
) {
    let ([tokens, width], rows) = (x.shape().dims(), y.shape()[1]);
    let block = Block::choose(rows, tokens, gpu.processors, gpu.shared).expect("weights are packed where a block fits");
    let early = weight.settled.swap(true, Ordering::Relaxed);
    let launch = Launch {
        kernel: &block.kernel("nm_rows", x.dtype),
        blocks: block.blocks(rows, tokens),
        threads: 32 * WARPS,
        shared: block.shared(),
        early,
        map: None,
        passing: Passing::Apart,
        params: params([rows, width, tokens], bias.is_some()),
    };
    let buffers = [&weight.units, x, bias.unwrap_or(x), y];
    // SAFETY: the caller's promise, of which the parameters say the same; blocks cover the rows and the tokens.
    unsafe { gpu.launch(launch, buffers.map(|tensor| tensor.handle.clone()).into()) };
}

/// The dense matrix `[rows, width]`, zeros after the last column.
///
/// # Safety
/// The array is a [`crate::sparse::TwoOfFour`] of as many rows as `dense` has, without gaps, of the same 16-bit type, and
/// its columns up to a multiple of [`NM_COLUMNS`] are as many.
pub(in crate::execute::cuda) unsafe fn expand(gpu: &Gpu, weight: &NmArrays, dense: &Tensor) {
    let [rows, width] = dense.shape().dims();
    let units = rows.div_ceil(ROWS) * (width / NM_COLUMNS);
    let launch = Launch {
        kernel: &Block { tiles: 1, deep: 1, down: 1, stages: 2 }.kernel("nm_expand", dense.dtype),
        blocks: units.div_ceil(WARPS),
        threads: 32 * WARPS,
        shared: 0,
        early: false,
        map: None,
        passing: Passing::Apart,
        params: params([rows, width, 0], false),
    };
    let buffers = [&weight.units, dense];
    // SAFETY: the caller's promise; a warp writes the rows and columns of its unit, of those that there are.
    unsafe { gpu.launch(launch, buffers.map(|tensor| tensor.handle.clone()).into()) };
}

/// The struct `NmParams`.
fn params(sizes: [usize; 3], bias: bool) -> Vec<u32> {
    let [rows, width, tokens] = sizes.map(|size| size as u32);
    vec![rows, width, tokens, u32::from(bias)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_cover_every_row_and_token_and_fit(
            rows in 1usize..40_000, tokens in 1usize..=MOST_TOKENS, processors in 1usize..200, shared in (48usize << 10)..(228 << 10)
        ) {
            if let Some(block) = Block::choose(rows, tokens, processors, shared) {
                let across = tokens.div_ceil(TILE * block.tiles);
                prop_assert!(block.blocks(rows, tokens) / across * block.rows() >= rows);
                prop_assert!(across * TILE * block.tiles >= tokens);
                prop_assert!(block.shared() <= shared && block.stages >= 2 && WARPS.is_multiple_of(block.down));
                // Sums of a warp have to fit the registers of its lanes.
                prop_assert!(block.deep * block.tiles * 4 <= 128);
            }
        }
    }

    #[test]
    fn every_gpu_of_these_sources_has_room_for_a_block() {
        // Ampere 8.0, 8.6 and Ada, Hopper: bytes that a block may have.
        for shared in [163 << 10, 99 << 10, 227 << 10] {
            for tokens in [1, 8, 16, 64, MOST_TOKENS] {
                assert!(Block::choose(4096, tokens, 132, shared).is_some(), "{shared} {tokens}");
            }
        }
    }
}
