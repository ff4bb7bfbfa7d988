//! Sliced CSR times a batch of token rows.
//!
//! Few tokens: a slice's entries are sixteen at a time two steps of its eight rows, so their products with
//! gathered inputs need no sum over lanes until the slice ends. More tokens: a kept weight is broadcast and
//! multiplied with the lanes of its column, for several rows of a slice side by side. The block's columns of
//! the tile stay in the first cache while the rows of the chunk use them.

use super::lanes::{Lanes, Number};
use super::tiles::{Scratch, Tiles, put, with_scratch, with_tiles};
use super::{Kernel, Shared, Simd, share};
use crate::sparse::{Block, CHUNK, SLICE, Sliced};

/// Fewer tokens than this are gathered, one by one while a chunk's weights are in the cache.
const TILES_FROM: usize = 4;

/// `y = x · Wᵀ + bias`.
///
/// # Shapes
/// - `x`: `[tokens, cols]`, row-major
/// - `bias`: `[rows]`
/// - returns `[tokens, rows]`, row-major
///
/// # Panics
/// When a length does not fit.
#[allow(private_bounds, reason = "how kernels read numbers is their own affair")]
pub fn sliced_linear<V: Number>(
    weights: &Sliced<V>,
    bias: Option<&[f32]>,
    x: &[f32],
    tokens: usize,
    simd: Simd,
) -> Vec<f32> {
    let index = weights.index();
    let (rows, cols) = (index.rows(), index.cols());
    assert_eq!(x.len(), tokens * cols, "x is [tokens, cols]");
    assert!(bias.is_none_or(|bias| bias.len() == rows), "one bias a row");
    let mut y = vec![0.0; tokens * rows];
    if y.is_empty() {
        return y;
    }
    if tokens < TILES_FROM {
        few(weights, bias, x, tokens, &mut y, simd);
    } else {
        with_tiles(x, cols, tokens, lanes_for(weights, tokens), simd, |tiles| many(weights, bias, tiles, &mut y, simd));
    }
    y
}

/// The name of the code path that [`sliced_linear`] takes.
pub fn sliced_kernel_name(tokens: usize, simd: Simd) -> String {
    format!("csr-{}-{}", simd.name(), if tokens < TILES_FROM { "gather" } else { "tiles" })
}

/// The narrowest tile that holds the tokens; of more tokens so many that a block's columns fit the first cache.
fn lanes_for<V: Number>(weights: &Sliced<V>, tokens: usize) -> usize {
    let narrow_blocks = weights.index().width() <= 128;
    match tokens {
        0..=16 => 16,
        33.. if narrow_blocks => 64,
        _ => 32,
    }
}

fn few<V: Number>(weights: &Sliced<V>, bias: Option<&[f32]>, x: &[f32], tokens: usize, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    let index = weights.index();
    share(index.chunks(), index.entries() * tokens / 4, |chunk| {
        // SAFETY: `simd` is there; `x` and `y` have their shapes; a task alone has its chunk's rows.
        unsafe { simd.run(Gather { weights, bias, x, tokens, chunk, out }) };
    });
}

struct Gather<'a, V> {
    weights: &'a Sliced<V>,
    bias: Option<&'a [f32]>,
    x: &'a [f32],
    tokens: usize,
    chunk: usize,
    out: Shared,
}

impl<V: Number> Kernel for Gather<'_, V> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let index = self.weights.index();
        let rows = index.rows_of(self.chunk);
        for token in 0..self.tokens {
            let x = &self.x[token * index.cols()..][..index.cols()];
            let mut sums = [0.0f32; CHUNK];
            for block in (0..index.blocks()).map(|block| self.weights.block(self.chunk, block)) {
                // SAFETY: every column of the block, counted from its first, is one of `x`.
                unsafe { gather_block::<V, L>(block, x.as_ptr().add(block.first_column), &mut sums) };
            }
            for (row, sum) in rows.clone().zip(sums) {
                let sum = sum + self.bias.map_or(0.0, |bias| bias[row]);
                // SAFETY: `y` is [tokens, rows], and these rows are this task's.
                unsafe { *self.out.pointer().add(token * index.rows() + row) = sum };
            }
        }
    }
}

/// Entries ahead of those in use that are asked for, in numbers.
const AHEAD: usize = 512;

#[inline(always)]
unsafe fn gather_block<V: Number, L: Lanes>(block: Block<'_, V>, x: *const f32, sums: &mut [f32; CHUNK]) {
    let mut at = 0;
    for (slice, &length) in block.lengths.iter().enumerate() {
        let entries = usize::from(length) * SLICE;
        let (values, columns) = (&block.values[at..at + entries], &block.columns[at..at + entries]);
        let (values, columns) = (values.as_ptr(), columns.as_ptr());
        at += entries;
        // SAFETY: lengths are even, so entries come in sixteens; padding has column 0, which is there.
        let parts = unsafe {
            let product = |sum: L, i: usize| sum.fma(V::load(values.add(i)), L::gather(x, columns.add(i)));
            let (mut even, mut odd) = (L::splat(0.0), L::splat(0.0));
            let mut i = 0;
            while i + 32 <= entries {
                prefetch(values.wrapping_add(i + AHEAD));
                prefetch(values.wrapping_add(i + AHEAD + 16));
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
        };
        let order = &block.order[slice * SLICE..][..SLICE];
        for (lane, &row) in order.iter().enumerate() {
            sums[usize::from(row) % CHUNK] += parts[lane] + parts[lane + SLICE];
        }
    }
}

/// Asks for memory that is needed soon; the address need not exist.
#[inline(always)]
fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults at nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

fn many<V: Number>(weights: &Sliced<V>, bias: Option<&[f32]>, tiles: Tiles<'_>, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    let index = weights.index();
    let chunks = index.chunks();
    // Tile by tile: a tile stays in the second cache while the weights stream past it.
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
    weights: &'a Sliced<V>,
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
                let x = self.tiles.from_column(self.tile, block.first_column);
                match (L::REGISTERS, lanes) {
                    (24.., 16) => tile_block::<V, L, 1, 8>(block, x, 0, 16, self.sums),
                    (24.., 32) => tile_block::<V, L, 2, 8>(block, x, 0, 32, self.sums),
                    (24.., _) => tile_block::<V, L, 4, 4>(block, x, 0, 64, self.sums),
                    (6.., _) => {
                        (0..lanes).step_by(16).for_each(|l| tile_block::<V, L, 1, 4>(block, x, l, lanes, self.sums))
                    }
                    _ => (0..lanes).step_by(16).for_each(|l| tile_block::<V, L, 1, 2>(block, x, l, lanes, self.sums)),
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
