//! SELL-C-σ times a batch of token rows.
//!
//! Few tokens: a slice's entries are sixteen at a time two steps of its eight rows, so their products with
//! gathered inputs need no sum over lanes until the slice ends. More tokens: a kept weight is broadcast and
//! multiplied with the lanes of its column, for several rows of a slice side by side. The block's columns of
//! the tile stay in the L1 cache while the rows of the chunk use them.

use super::lanes::{Lanes, Number};
use super::tiles::{Scratch, Tiles, put, with_scratch, with_tiles};
use super::{AHEAD, Kernel, Shared, Simd, SparseKernels, prefetch, share};
use crate::sparse::{Block, CHUNK, SLICE, SLICES, Sell};
use std::ops::Range;
use std::sync::Arc;

/// Fewer tokens than this are gathered, one by one while a chunk's weights are in the cache.
const TILES_FROM: usize = 4;

impl<V: Number> SparseKernels for Sell<V> {
    fn shape(&self) -> [usize; 2] {
        [self.index().rows(), self.index().cols()]
    }

    fn layout(&self) -> &'static str {
        "csr-sliced"
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn kernel(&self, tokens: usize, simd: Simd) -> String {
        format!("csr-{}-{}", simd.name(), if tokens < TILES_FROM { "gather" } else { "tiles" })
    }

    fn multiply(&self, bias: Option<&[f32]>, x: &[f32], tokens: usize, y: &mut [f32], simd: Simd) {
        if tokens < TILES_FROM {
            few(self, bias, x, tokens, y, simd);
        } else {
            let (cols, lanes) = (self.index().cols(), lanes_for(self, tokens));
            with_tiles(x, cols, tokens, lanes, simd, |tiles| many(self, bias, tiles, y, simd));
        }
    }

    fn copied(&self) -> Arc<dyn SparseKernels> {
        Arc::new(self.clone())
    }
}

/// The narrowest tile that holds the tokens; of more tokens so many that a block's columns fit the L1 cache.
fn lanes_for<V: Number>(weights: &Sell<V>, tokens: usize) -> usize {
    let narrow_blocks = weights.index().width() <= 128;
    match tokens {
        0..=16 => 16,
        33.. if narrow_blocks => 64,
        _ => 32,
    }
}

fn few<V: Number>(weights: &Sell<V>, bias: Option<&[f32]>, x: &[f32], tokens: usize, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    let index = weights.index();
    // As many chunks at once as leave every thread some.
    let group = (index.chunks() / rayon::current_num_threads()).clamp(1, CHUNKS);
    share(index.chunks().div_ceil(group), index.entries() * tokens / 4, |task| {
        let chunks = task * group..index.chunks().min((task + 1) * group);
        // SAFETY: `simd` is there; `x` and `y` have their shapes; a task alone has its chunks' rows.
        unsafe { simd.run(Gather { weights, bias, x, tokens, chunks, out }) };
    });
}

/// Chunks whose slices are taken in turns: memory is read at its full rate only in several runs at once.
const CHUNKS: usize = 4;

struct Gather<'a, V> {
    weights: &'a Sell<V>,
    bias: Option<&'a [f32]>,
    x: &'a [f32],
    tokens: usize,
    /// At most [`CHUNKS`].
    chunks: Range<usize>,
    out: Shared,
}

impl<V: Number> Kernel for Gather<'_, V> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let index = self.weights.index();
        for token in 0..self.tokens {
            let x = &self.x[token * index.cols()..][..index.cols()];
            let mut sums = [[0.0f32; CHUNK]; CHUNKS];
            for block in 0..index.blocks() {
                let mut runs: [Option<Run<'_, V>>; CHUNKS] = [const { None }; CHUNKS];
                for (run, chunk) in runs.iter_mut().zip(self.chunks.clone()) {
                    *run = Some(Run { block: self.weights.block(chunk, block), at: 0 });
                }
                let mut parts = [[[0.0f32; 2 * SLICE]; SLICES]; CHUNKS];
                for slice in 0..SLICES {
                    for (run, parts) in runs.iter_mut().zip(&mut parts) {
                        let Some(run) = run else { break };
                        // SAFETY: every column of the block, counted from its first, is one of `x`.
                        parts[slice] = unsafe { run.gather::<L>(slice, x.as_ptr().add(run.block.first_column)) };
                    }
                }
                // Afterwards, in one go: a sum read right after its store would wait for it.
                for ((run, parts), sums) in runs.iter().zip(&parts).zip(&mut sums) {
                    let Some(run) = run else { break };
                    for (order, parts) in run.block.order.chunks_exact(SLICE).zip(parts) {
                        for (lane, &row) in order.iter().enumerate() {
                            sums[usize::from(row) % CHUNK] += parts[lane] + parts[lane + SLICE];
                        }
                    }
                }
            }
            for (chunk, sums) in self.chunks.clone().zip(sums) {
                for (row, sum) in index.rows_of(chunk).zip(sums) {
                    let sum = sum + self.bias.map_or(0.0, |bias| bias[row]);
                    // SAFETY: `y` is [tokens, rows], and these rows are this task's.
                    unsafe { *self.out.pointer().add(token * index.rows() + row) = sum };
                }
            }
        }
    }
}

/// A block, and how far it is done.
struct Run<'a, V> {
    block: Block<'a, V>,
    at: usize,
}

impl<V: Number> Run<'_, V> {
    /// Sums of the next slice: of its rows in even steps, and in odd ones.
    #[inline(always)]
    unsafe fn gather<L: Lanes>(&mut self, slice: usize, x: *const f32) -> [f32; 2 * SLICE] {
        let entries = usize::from(self.block.lengths[slice]) * SLICE;
        let range = self.at..self.at + entries;
        self.at += entries;
        let (values, columns) = (&self.block.values[range.clone()], &self.block.columns[range]);
        let (values, columns) = (values.as_ptr(), columns.as_ptr());
        // SAFETY: lengths are even, so entries come in sixteens; padding has column 0, which is there.
        unsafe {
            let product = |sum: L, i: usize| sum.fma(V::load(values.add(i)), L::gather(x, columns.add(i)));
            let (mut even, mut odd) = (L::splat(0.0), L::splat(0.0));
            let mut i = 0;
            while i + 32 <= entries {
                prefetch(values.wrapping_add(i + AHEAD));
                prefetch(values.wrapping_add(i + AHEAD + 16));
                prefetch(columns.wrapping_add(i + AHEAD));
                even = product(even, i);
                odd = product(odd, i + 16);
                i += 32;
            }
            if i < entries {
                even = product(even, i);
            }
            let mut parts = [0.0f32; 16];
            even.add(odd).store(parts.as_mut_ptr());
            parts
        }
    }
}

fn many<V: Number>(weights: &Sell<V>, bias: Option<&[f32]>, tiles: Tiles<'_>, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    let index = weights.index();
    let chunks = index.chunks();
    // Tile by tile: a tile stays in the L2 cache while the weights stream past it.
    share(tiles.count() * chunks, index.entries() * tiles.count() * tiles.lanes / 16, |task| {
        let (tile, chunk) = (task / chunks, task % chunks);
        with_scratch(Scratch::Sums, CHUNK * tiles.lanes, |sums| {
            let sums = sums.as_mut_ptr().cast();
            // SAFETY: as in `few`; `sums` holds a chunk's rows.
            unsafe { simd.run(Chunk { weights, bias, tiles, tile, chunk, sums, out }) };
        });
    });
}

/// A chunk of rows with one tile.
struct Chunk<'a, V> {
    weights: &'a Sell<V>,
    bias: Option<&'a [f32]>,
    tiles: Tiles<'a>,
    tile: usize,
    chunk: usize,
    sums: *mut f32,
    out: Shared,
}

impl<V: Number> Kernel for Chunk<'_, V> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let index = self.weights.index();
        let lanes = self.tiles.lanes;
        let rows = index.rows_of(self.chunk);
        // SAFETY: `sums` holds a chunk; each block's columns are the tile's; `y` is [tokens, rows], and these
        // rows of this tile's tokens are this task's.
        unsafe {
            self.sums.write_bytes(0, CHUNK * lanes);
            for block in (0..index.blocks()).map(|block| self.weights.block(self.chunk, block)) {
                let x = self.tiles.column(self.tile, block.first_column);
                match (L::REGISTERS, lanes) {
                    (24.., 16) => tile_block::<V, L, 1, 8>(block, x, 0, 16, self.sums),
                    (24.., 32) => tile_block::<V, L, 2, 8>(block, x, 0, 32, self.sums),
                    (24.., _) => tile_block::<V, L, 4, 4>(block, x, 0, 64, self.sums),
                    // Loops, not adaptors: what these call must be inlined into the instruction set.
                    (6.., _) => {
                        let mut lane = 0;
                        while lane < lanes {
                            tile_block::<V, L, 1, 4>(block, x, lane, lanes, self.sums);
                            lane += 16;
                        }
                    }
                    _ => {
                        let mut lane = 0;
                        while lane < lanes {
                            tile_block::<V, L, 1, 2>(block, x, lane, lanes, self.sums);
                            lane += 16;
                        }
                    }
                }
            }
            let tokens = self.tiles.tokens_of(self.tile);
            put::<L>(self.sums, lanes, rows, tokens, self.out.pointer(), index.rows(), self.bias);
        }
    }
}

/// A block with N vectors of a tile's lanes, R rows of a slice side by side.
///
/// # Safety
/// `x` reaches the block's columns, `lanes` numbers each; `sums` holds `CHUNK * lanes` numbers.
#[inline(always)]
unsafe fn tile_block<V: Number, L: Lanes, const N: usize, const R: usize>(
    block: Block<'_, V>,
    x: *const f32,
    lane: usize,
    lanes: usize,
    sums: *mut f32,
) {
    let mut at = 0;
    for (slice, &length) in block.lengths.iter().enumerate() {
        let steps = usize::from(length);
        let (values, columns) = (&block.values[at..at + steps * SLICE], &block.columns[at..at + steps * SLICE]);
        let order = &block.order[slice * SLICE..][..SLICE];
        at += steps * SLICE;
        if steps == 0 {
            // Slices are in order of length.
            return;
        }
        for first in (0..SLICE).step_by(R) {
            // SAFETY: the slice's entries; columns are within the block; order is below CHUNK.
            unsafe {
                let mut parts = [[L::splat(0.0); N]; R];
                for step in 0..steps {
                    let entry = step * SLICE + first;
                    if first == 0 && step.is_multiple_of(2) {
                        prefetch(values.as_ptr().wrapping_add(entry + AHEAD));
                    }
                    if first == 0 && step.is_multiple_of(8) {
                        prefetch(columns.as_ptr().wrapping_add(entry + AHEAD));
                    }
                    // R columns in one load: the load ports are what limits this loop.
                    let packed: u64 = match R {
                        8 => columns.as_ptr().add(entry).cast::<u64>().read_unaligned().to_le(),
                        4 => u64::from(columns.as_ptr().add(entry).cast::<u32>().read_unaligned().to_le()),
                        _ => u64::from(columns.as_ptr().add(entry).cast::<u16>().read_unaligned().to_le()),
                    };
                    for (r, parts) in parts.iter_mut().enumerate() {
                        let x = x.add((packed >> (8 * r) & 255) as usize * lanes + lane);
                        let value = L::splat((*values.as_ptr().add(entry + r)).to_f32());
                        for (n, part) in parts.iter_mut().enumerate() {
                            *part = part.fma(value, L::load(x.add(16 * n)));
                        }
                    }
                }
                for (r, parts) in parts.iter().enumerate() {
                    for (n, part) in parts.iter().enumerate() {
                        let to = sums.add(usize::from(order[first + r]) * lanes + lane + 16 * n);
                        L::load(to).add(*part).store(to);
                    }
                }
            }
        }
    }
}
