//! Bitmap times a batch of token rows.
//!
//! A mask and the next values become sixteen weights of a column (sixteen rows) with one expand instruction.
//! Up to sixteen tokens multiply them at once, each with its own input broadcast, so that a weight is
//! expanded once whatever the number of tokens; the sums of all rows and tokens stay in registers. For more
//! tokens a block of the panel is expanded into the L1 cache and multiplied as the dense kernel does:
//! nothing is skipped then, but the weights are a fraction of the bytes. (SparAMX, arXiv 2502.12444, decodes
//! a bitmap for both cases too, with its rows in other places.)

use super::dense::{Product, lanes_for};
use super::lanes::Lanes;
use super::tiles::{Line, Scratch, Tiles, put, with_scratch, with_tiles};
use super::{AHEAD, Kernel, Shared, Simd, left, prefetch, share};
use crate::sparse::{Bitmap, PANEL};
use std::ops::Range;

/// Up to so many tokens are multiplied while weights are expanded.
pub(super) const FEW: usize = 16;
/// Panels of a task with few tokens.
pub(super) const PANELS_FEW: usize = 4;
/// Panels of a task with many tokens.
pub(super) const PANELS: usize = 6;
/// Columns that are expanded at a time: their weights fit the L1 cache beside a part of the tile.
pub(super) const WIDTH: usize = 256;

/// `y = x · Wᵀ + bias`.
///
/// # Shapes
/// - `x`: `[tokens, cols]`, row-major
/// - `bias`: `[rows]`
/// - returns `[tokens, rows]`, row-major
///
/// # Panics
/// When a length does not fit, or the machine lacks the instruction set.
pub fn bitmap_linear(weights: &Bitmap, bias: Option<&[f32]>, x: &[f32], tokens: usize, simd: Simd) -> Vec<f32> {
    let index = weights.index();
    let (rows, cols) = (index.rows(), index.cols());
    assert!(simd.is_available(), "this machine has no {}", simd.name());
    assert_eq!(x.len(), tokens * cols, "x is [tokens, cols]");
    assert!(bias.is_none_or(|bias| bias.len() == rows), "one bias a row");
    let mut y = vec![0.0; tokens * rows];
    if y.is_empty() {
        return y;
    }
    match tokens {
        1 => few(weights, bias, x, 1, 1, &mut y, simd),
        2..=FEW => {
            let width = tokens.next_power_of_two();
            with_scratch(Scratch::Tiles, cols * width, |lines| {
                let turned = turn(x, cols, tokens, width, lines);
                few(weights, bias, turned, tokens, width, &mut y, simd);
            });
        }
        _ => with_tiles(x, cols, tokens, lanes_for(tokens), simd, |tiles| many(weights, bias, tiles, &mut y, simd)),
    }
    y
}

/// The name of the code path that [`bitmap_linear`] takes.
pub fn bitmap_kernel_name(tokens: usize, simd: Simd) -> String {
    format!("bitmap-{}-{}", simd.name(), if tokens <= FEW { "expand" } else { "tiles" })
}

/// `x` `[tokens, cols]` as `[cols][width]`, 0 behind the last token.
pub(super) fn turn<'a>(x: &[f32], cols: usize, tokens: usize, width: usize, lines: &'a mut [Line]) -> &'a [f32] {
    let turned = lines.as_mut_ptr().cast::<f32>();
    // SAFETY: lines are sixteen numbers each, and there are enough of them for cols * width.
    let turned = unsafe { std::slice::from_raw_parts_mut(turned, cols * width) };
    for (column, to) in turned.chunks_exact_mut(width).enumerate() {
        for (token, to) in to.iter_mut().enumerate() {
            *to = if token < tokens { x[token * cols + column] } else { 0.0 };
        }
    }
    turned
}

/// `x` is `[cols][width]`.
fn few(weights: &Bitmap, bias: Option<&[f32]>, x: &[f32], tokens: usize, width: usize, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    let index = weights.index();
    share(index.panels().div_ceil(PANELS_FEW), index.panels() * index.cols() * (width + 2), |task| {
        let panels = task * PANELS_FEW..index.panels().min((task + 1) * PANELS_FEW);
        // SAFETY: `simd` is there; `x` and `y` have their shapes; a task alone has its panels' rows.
        unsafe { simd.run(Expand { weights, bias, x, tokens, width, panels, out }) };
    });
}

struct Expand<'a> {
    weights: &'a Bitmap,
    bias: Option<&'a [f32]>,
    x: &'a [f32],
    tokens: usize,
    /// Tokens with those that fill up: 1, 2, 4, 8 or 16.
    width: usize,
    panels: Range<usize>,
    out: Shared,
}

impl Kernel for Expand<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // Several panels side by side, since memory is read at its full rate only in several runs at once.
        // SAFETY: the contract of `Kernel`; `x` is [cols][width].
        unsafe {
            match (self.width, L::REGISTERS >= 24) {
                (1, true) => self.tokens::<L, 1, 4, 2>(),
                (2, true) => self.tokens::<L, 2, 4, 2>(),
                (4, true) => self.tokens::<L, 4, 4, 1>(),
                (8, true) => self.tokens::<L, 8, 2, 1>(),
                (_, true) => self.tokens::<L, 16, 1, 1>(),
                (1, false) => self.tokens::<L, 1, 2, 2>(),
                (2, false) => self.tokens::<L, 2, 2, 1>(),
                _ => self.tokens::<L, 4, 1, 1>(),
            }
        }
    }
}

impl Expand<'_> {
    /// T tokens and P panels at a time, A columns side by side.
    #[inline(always)]
    unsafe fn tokens<L: Lanes, const T: usize, const P: usize, const A: usize>(&self) {
        let mut panel = self.panels.start;
        // SAFETY: P panels are left, or one.
        unsafe {
            while panel + P <= self.panels.end {
                self.panels::<L, T, P, A>(panel);
                panel += P;
            }
            while panel < self.panels.end {
                self.panels::<L, T, 1, A>(panel);
                panel += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn panels<L: Lanes, const T: usize, const P: usize, const A: usize>(&self, panel: usize) {
        let index = self.weights.index();
        let (rows, cols) = (index.rows(), index.cols());
        for token in (0..self.tokens).step_by(T) {
            let mut sums = [[[0.0f32; PANEL]; T]; P];
            let panels: [_; P] = std::array::from_fn(|p| self.weights.panel(panel + p));
            // SAFETY: `width` is a multiple of T, so T tokens from here are in `x`.
            unsafe {
                let x = self.x.as_ptr().add(token);
                expand::<L, T, P, A>(panels, x, self.width, cols, &mut sums);
            }
            for (p, sums) in sums.iter().enumerate() {
                let first = (panel + p) * PANEL;
                for (t, sums) in sums.iter().enumerate().take(left(token, self.tokens, T)) {
                    for (row, sum) in (first..rows).zip(sums) {
                        let sum = sum + self.bias.map_or(0.0, |bias| bias[row]);
                        // SAFETY: `y` is [tokens, rows], and these rows are this task's.
                        unsafe { *self.out.pointer().add((token + t) * rows + row) = sum };
                    }
                }
            }
        }
    }
}

/// Columns whose products go into one sum before it is added to the others.
pub(super) const PART: usize = 256;

/// Sums of the rows of P panels for T tokens.
///
/// # Safety
/// Each panel has a value for every bit of its masks and sixteen more; `x` has `cols` rows of `stride` numbers.
#[inline(always)]
unsafe fn expand<L: Lanes, const T: usize, const P: usize, const A: usize>(
    panels: [(&[u16], &[f32]); P],
    x: *const f32,
    stride: usize,
    cols: usize,
    out: &mut [[[f32; PANEL]; T]; P],
) {
    let masks = panels.map(|(masks, _)| masks.as_ptr());
    let mut next = panels.map(|(_, values)| values.as_ptr());
    for part in (0..cols).step_by(PART) {
        let end = cols.min(part + PART);
        // SAFETY: the caller's contract; `k + a < end <= cols`.
        unsafe {
            let mut sums = [[[L::splat(0.0); T]; P]; A];
            let mut k = part;
            while k + A <= end {
                for (a, sums) in sums.iter_mut().enumerate() {
                    column(&masks, &mut next, x.add((k + a) * stride), k + a, sums);
                }
                k += A;
            }
            while k < end {
                column(&masks, &mut next, x.add(k * stride), k, &mut sums[0]);
                k += 1;
            }
            for (p, out) in out.iter_mut().enumerate() {
                for (t, out) in out.iter_mut().enumerate() {
                    let sum = sums.iter().skip(1).fold(sums[0][p][t], |sum, part| sum.add(part[p][t]));
                    L::load(out.as_ptr()).add(sum).store(out.as_mut_ptr());
                }
            }
        }
    }
}

/// One column of P panels with T tokens. A function, not a closure: it must be inlined wherever it is used.
///
/// # Safety
/// As [`expand`], with `x` at the column's inputs.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "adaptors over vectors are not always inlined: a call each")]
unsafe fn column<L: Lanes, const T: usize, const P: usize>(
    masks: &[*const u16; P],
    next: &mut [*const f32; P],
    x: *const f32,
    k: usize,
    sums: &mut [[L; T]; P],
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut xs = [L::splat(0.0); T];
        for t in 0..T {
            xs[t] = L::splat(*x.add(t));
        }
        for p in 0..P {
            let mask = *masks[p].add(k);
            let weights = L::expand(mask, next[p]);
            next[p] = next[p].add(mask.count_ones() as usize);
            for t in 0..T {
                sums[p][t] = sums[p][t].fma(weights, xs[t]);
            }
            // A column in two takes a line of values or less.
            if k.is_multiple_of(2) {
                prefetch(next[p].wrapping_add(AHEAD));
            }
        }
    }
}

fn many(weights: &Bitmap, bias: Option<&[f32]>, tiles: Tiles<'_>, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    let index = weights.index();
    let work = index.panels() * index.cols() * tiles.count() * tiles.lanes;
    share(index.panels().div_ceil(PANELS), work, |task| {
        let panels = task * PANELS..index.panels().min((task + 1) * PANELS);
        let numbers = WIDTH * PANEL + tiles.count() * panels.len() * PANEL * tiles.lanes;
        with_scratch(Scratch::Sums, numbers, |memory| {
            let memory = memory.as_mut_ptr().cast();
            // SAFETY: as in `few`; `memory` holds a block of weights and the sums of all tiles.
            unsafe { simd.run(Panels { weights, bias, tiles, panels, memory, out }) };
        });
    });
}

/// Some panels with all tiles, block by block of columns.
struct Panels<'a> {
    weights: &'a Bitmap,
    bias: Option<&'a [f32]>,
    tiles: Tiles<'a>,
    panels: Range<usize>,
    /// `[WIDTH][PANEL]` weights, then `[tiles][rows][lanes]` sums.
    memory: *mut f32,
    out: Shared,
}

impl Kernel for Panels<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let index = self.weights.index();
        let (cols, lanes) = (index.cols(), self.tiles.lanes);
        let rows = self.panels.len() * PANEL;
        let block = self.memory;
        // SAFETY: `memory` holds the block and the sums; blocks and tiles are within their matrices; `y` is
        // [tokens, rows], and these rows are this task's.
        unsafe {
            let sums = self.memory.add(WIDTH * PANEL);
            sums.write_bytes(0, self.tiles.count() * rows * lanes);
            for (place, panel) in self.panels.clone().enumerate() {
                let (masks, values) = self.weights.panel(panel);
                let mut values = values.as_ptr();
                for column in (0..cols).step_by(WIDTH) {
                    let depth = left(column, cols, WIDTH);
                    for (k, &mask) in masks[column..column + depth].iter().enumerate() {
                        L::expand(mask, values).store(block.add(k * PANEL));
                        values = values.add(mask.count_ones() as usize);
                    }
                    for tile in 0..self.tiles.count() {
                        let x = self.tiles.column(tile, column);
                        let product =
                            Product { weights: block, row_stride: 1, column_stride: PANEL, x, depth, fresh: false };
                        product.add::<L>(PANEL, lanes, sums.add((tile * rows + place * PANEL) * lanes));
                    }
                }
            }
            let own = self.panels.start * PANEL..index.rows().min(self.panels.end * PANEL);
            for tile in 0..self.tiles.count() {
                let (tokens, y) = (self.tiles.tokens_of(tile), self.out.pointer());
                put::<L>(sums.add(tile * rows * lanes), lanes, own.clone(), tokens, y, index.rows(), self.bias);
            }
        }
    }
}
