//! Plain CSR, 32-bit columns and row pointers, times a batch of token rows: what the notebooks' layout is worth on the
//! same machine.
//!
//! Few tokens: sixteen entries of a row at a time, with gathered inputs; what is left of the row one by one. More tokens:
//! a kept weight is broadcast and multiplied with the lanes of its column. Both walk the row from its first entry to its
//! last, since the layout knows no other order.

use super::lanes::{Lanes, Number};
use super::tiles::{Scratch, Tiles, put, with_scratch, with_tiles};
use super::{AHEAD, Kernel, Shared, Simd, SparseKernels, prefetch, share};
use crate::sparse::Csr;
use std::ops::Range;
use std::sync::Arc;

/// Fewer tokens than this are gathered.
const TILES_FROM: usize = 4;
/// Rows of a task.
const ROWS: usize = 32;
/// Entries whose products go into one sum before it is added to the others.
const PART: usize = 1024;

impl<V: Number> SparseKernels for Csr<V> {
    fn shape(&self) -> [usize; 2] {
        [self.rows(), self.cols()]
    }

    fn layout(&self) -> &'static str {
        "csr-32"
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn kernel(&self, tokens: usize, simd: Simd) -> String {
        format!("csr32-{}-{}", simd.name(), if tokens < TILES_FROM { "gather" } else { "tiles" })
    }

    fn multiply(&self, bias: Option<&[f32]>, x: &[f32], tokens: usize, y: &mut [f32], simd: Simd) {
        if tokens < TILES_FROM {
            few(self, bias, x, tokens, y, simd);
        } else {
            let lanes = if tokens <= 16 { 16 } else { 32 };
            with_tiles(x, self.cols(), tokens, lanes, simd, |tiles| many(self, bias, tiles, y, simd));
        }
    }

    fn copied(&self) -> Arc<dyn SparseKernels> {
        Arc::new(self.clone())
    }
}

/// The rows of a task.
fn rows_of<V: Number>(weights: &Csr<V>, task: usize) -> Range<usize> {
    task * ROWS..weights.rows().min((task + 1) * ROWS)
}

fn few<V: Number>(weights: &Csr<V>, bias: Option<&[f32]>, x: &[f32], tokens: usize, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    share(weights.rows().div_ceil(ROWS), weights.values().len() * tokens / 4, |task| {
        let rows = rows_of(weights, task);
        // SAFETY: `simd` is there; `x` and `y` have their shapes; a task alone has its rows.
        unsafe { simd.run(Gather { weights, bias, x, tokens, rows, out }) };
    });
}

struct Gather<'a, V> {
    weights: &'a Csr<V>,
    bias: Option<&'a [f32]>,
    x: &'a [f32],
    tokens: usize,
    rows: Range<usize>,
    out: Shared,
}

impl<V: Number> Kernel for Gather<'_, V> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (rows, cols) = (self.weights.rows(), self.weights.cols());
        for row in self.rows.clone() {
            let entries = self.weights.entries(row..row + 1);
            for token in 0..self.tokens {
                let x = &self.x[token * cols..][..cols];
                // SAFETY: columns are below `cols`; `y` is [tokens, rows], and this row is this task's.
                unsafe {
                    let sum = dot::<V, L>(self.weights, entries.clone(), x.as_ptr());
                    *self.out.pointer().add(token * rows + row) = sum + self.bias.map_or(0.0, |bias| bias[row]);
                }
            }
        }
    }
}

/// The sum of some entries, each times its input.
///
/// # Safety
/// As [`Lanes`]; `x` has a number for every column of the entries.
#[inline(always)]
unsafe fn dot<V: Number, L: Lanes>(weights: &Csr<V>, entries: Range<usize>, x: *const f32) -> f32 {
    let (values, columns) = (&weights.values()[entries.clone()], &weights.columns()[entries]);
    let (count, values, columns) = (values.len(), values.as_ptr(), columns.as_ptr());
    let (mut sum, mut at) = (0.0, 0);
    // SAFETY: the entries are those of the slices; columns are those of `x`.
    unsafe {
        while at + 16 <= count {
            let end = count.min(at + PART);
            let (mut even, mut odd) = (L::splat(0.0), L::splat(0.0));
            while at + 32 <= end {
                prefetch(values.wrapping_add(at + AHEAD));
                prefetch(columns.wrapping_add(at + AHEAD));
                even = even.fma(V::load(values.add(at)), L::gather_wide(x, columns.add(at)));
                odd = odd.fma(V::load(values.add(at + 16)), L::gather_wide(x, columns.add(at + 16)));
                at += 32;
            }
            if at + 16 <= end {
                even = even.fma(V::load(values.add(at)), L::gather_wide(x, columns.add(at)));
                at += 16;
            }
            sum += even.add(odd).sum();
        }
        let mut rest = 0.0;
        while at < count {
            rest += (*values.add(at)).to_f32() * *x.add(*columns.add(at) as usize);
            at += 1;
        }
        sum + rest
    }
}

fn many<V: Number>(weights: &Csr<V>, bias: Option<&[f32]>, tiles: Tiles<'_>, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    let tasks = weights.rows().div_ceil(ROWS);
    // Tile by tile: a tile stays in the L2 cache while the weights stream past it.
    share(tiles.count() * tasks, weights.values().len() * tiles.count() * tiles.lanes / 16, |task| {
        let (tile, rows) = (task / tasks, rows_of(weights, task % tasks));
        with_scratch(Scratch::Sums, ROWS * tiles.lanes, |sums| {
            let sums = sums.as_mut_ptr().cast();
            // SAFETY: as in `few`; `sums` holds a task's rows.
            unsafe { simd.run(Rows { weights, bias, tiles, tile, rows, sums, out }) };
        });
    });
}

/// Some rows with one tile.
struct Rows<'a, V> {
    weights: &'a Csr<V>,
    bias: Option<&'a [f32]>,
    tiles: Tiles<'a>,
    tile: usize,
    rows: Range<usize>,
    sums: *mut f32,
    out: Shared,
}

impl<V: Number> Kernel for Rows<'_, V> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let lanes = self.tiles.lanes;
        let x = self.tiles.column(self.tile, 0);
        // SAFETY: `sums` holds the rows; `x` has `lanes` numbers for every column; `y` is [tokens, rows], and these
        // rows of this tile's tokens are this task's.
        unsafe {
            for (place, row) in self.rows.clone().enumerate() {
                let entries = self.weights.entries(row..row + 1);
                let sums = self.sums.add(place * lanes);
                let mut lane = 0;
                while lane < lanes {
                    lanes_of_row::<V, L>(self.weights, entries.clone(), x.add(lane), lanes, sums.add(lane));
                    lane += 16;
                }
            }
            let tokens = self.tiles.tokens_of(self.tile);
            let (y, stride) = (self.out.pointer(), self.weights.rows());
            put::<L>(self.sums, lanes, self.rows.clone(), tokens, y, stride, self.bias);
        }
    }
}

/// A row times sixteen lanes of a tile, entries in turns over four sums.
///
/// # Safety
/// As [`Lanes`]; `x` has sixteen numbers for every column of the entries, `stride` numbers a column; `sums` holds sixteen.
#[inline(always)]
unsafe fn lanes_of_row<V: Number, L: Lanes>(
    weights: &Csr<V>,
    entries: Range<usize>,
    x: *const f32,
    stride: usize,
    sums: *mut f32,
) {
    let (values, columns) = (&weights.values()[entries.clone()], &weights.columns()[entries]);
    let (count, values, columns) = (values.len(), values.as_ptr(), columns.as_ptr());
    // SAFETY: the entries are those of the slices; columns are those of `x`.
    unsafe {
        let mut total = L::splat(0.0);
        let mut at = 0;
        while at < count {
            let end = count.min(at + PART);
            let mut parts = [L::splat(0.0); 4];
            while at + 4 <= end {
                for (i, part) in parts.iter_mut().enumerate() {
                    let value = L::splat((*values.add(at + i)).to_f32());
                    *part = part.fma(value, L::load(x.add(*columns.add(at + i) as usize * stride)));
                }
                at += 4;
            }
            while at < end {
                let value = L::splat((*values.add(at)).to_f32());
                parts[0] = parts[0].fma(value, L::load(x.add(*columns.add(at) as usize * stride)));
                at += 1;
            }
            total = total.add(parts[0].add(parts[1]).add(parts[2].add(parts[3])));
        }
        total.store(sums);
    }
}
