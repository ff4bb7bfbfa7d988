//! Panels of sixteen rows times a batch of token rows: what the bitmap layouts share.
//!
//! A mask and the next values become sixteen weights of a column (sixteen rows), or of two columns, with one expand
//! instruction. Up to sixteen tokens multiply them at once, each with its own input broadcast, so that a weight is
//! expanded once whatever the number of tokens; the sums of all rows and tokens stay in registers. For more
//! tokens a block of the panel is expanded into the L1 cache and multiplied as the dense kernel does:
//! nothing is skipped then, but the weights are a fraction of the bytes. (SparAMX, arXiv 2502.12444, decodes
//! a bitmap for both cases too, with its rows in other places.)

use super::dense::{Product, lanes_for};
use super::lanes::Lanes;
use super::tiles::{Line, Scratch, Tiles, put, with_scratch, with_tiles};
use super::{Kernel, Shared, Simd, left, share};
use crate::sparse::PANEL;
use std::ops::Range;

/// Up to this many tokens are multiplied while weights are expanded.
const FEW: usize = 16;
/// Panels of a task with few tokens.
const PANELS_FEW: usize = 4;
/// Panels of a task with many tokens.
const PANELS: usize = 6;
/// Columns that are expanded at a time: their weights fit the L1 cache beside a part of the tile.
const WIDTH: usize = 256;
/// Columns whose products go into one sum before it is added to the others.
const PART: usize = 256;

/// A matrix in panels of [`PANEL`] rows: a mask for every [`Panels::COLUMNS`] columns, and the values whose bits are set.
pub(super) trait Panels: Sync + Sized {
    /// The bits of a mask.
    type Mask: Copy + Sync;
    /// A value.
    type Value: Copy + Sync;
    /// Columns that a mask is for.
    const COLUMNS: usize;
    /// What expanding a column costs, in multiply-adds.
    const COST: usize;

    /// Rows and columns.
    fn shape(&self) -> [usize; 2];

    /// The masks of a panel, and the values from its first on, with as many after the last as an expansion reads.
    fn panel(&self, panel: usize) -> (&[Self::Mask], &[Self::Value]);

    /// The instruction set that expands such values: the given one, or another that the machine has.
    fn simd(simd: Simd) -> Simd;

    /// Runs a kernel that expands such values.
    ///
    /// # Safety
    /// As [`Simd::run`]; `simd` comes from [`Panels::simd`].
    unsafe fn run<K: Kernel>(simd: Simd, kernel: K);

    /// Adds the columns of mask `k` of P panels, times T tokens; `next` goes on to the values of mask `k + 1`.
    ///
    /// # Safety
    /// As [`Lanes`]; the panels have mask `k` and its values; `x` is at the inputs of its first column, `stride`
    /// numbers a column.
    unsafe fn step<L: Lanes, const T: usize, const P: usize>(
        masks: &[*const Self::Mask; P],
        next: &mut [*const Self::Value; P],
        x: *const f32,
        stride: usize,
        k: usize,
        sums: &mut [[L; T]; P],
    );

    /// The weights of the first column of the mask `[PANEL]`.
    ///
    /// # Safety
    /// As [`Lanes`]; the mask's values are at `next`.
    unsafe fn first<L: Lanes>(mask: Self::Mask, next: *const Self::Value) -> L;

    /// Writes the weights of the columns of a mask, `[COLUMNS][PANEL]`, and goes on to the values of the next.
    ///
    /// # Safety
    /// As [`Lanes`]; the mask's values are at `next`.
    unsafe fn unpack<L: Lanes>(mask: Self::Mask, next: *const Self::Value, to: *mut f32) -> *const Self::Value;
}

/// `y = x · Wᵀ + bias`: see [`super::SparseKernels::multiply`].
pub(super) fn multiply<W: Panels>(
    weights: &W,
    bias: Option<&[f32]>,
    x: &[f32],
    tokens: usize,
    y: &mut [f32],
    simd: Simd,
) {
    let (cols, simd) = (weights.shape()[1], W::simd(simd));
    match tokens {
        1 => few(weights, bias, x, 1, 1, y, simd),
        2..=FEW => {
            let width = tokens.next_power_of_two();
            with_scratch(Scratch::Tiles, cols * width, |lines| {
                let turned = turn(x, cols, tokens, width, lines);
                few(weights, bias, turned, tokens, width, y, simd);
            });
        }
        _ => with_tiles(x, cols, tokens, lanes_for(tokens), simd, |tiles| many(weights, bias, tiles, y, simd)),
    }
}

/// The name of the code path that [`multiply`] takes.
pub(super) fn kernel_name(tokens: usize, simd: Simd) -> String {
    format!("bitmap-{}-{}", simd.name(), if tokens <= FEW { "expand" } else { "tiles" })
}

/// `x` `[tokens, cols]` as `[cols][width]`, 0 after the last token.
fn turn<'a>(x: &[f32], cols: usize, tokens: usize, width: usize, lines: &'a mut [Line]) -> &'a [f32] {
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
fn few<W: Panels>(
    weights: &W,
    bias: Option<&[f32]>,
    x: &[f32],
    tokens: usize,
    width: usize,
    y: &mut [f32],
    simd: Simd,
) {
    let out = Shared(y.as_mut_ptr());
    let [rows, cols] = weights.shape();
    let all = rows.div_ceil(PANEL);
    share(all.div_ceil(PANELS_FEW), all * cols * (width + W::COST), |task| {
        let panels = task * PANELS_FEW..all.min((task + 1) * PANELS_FEW);
        // SAFETY: `simd` is there; `x` and `y` have their shapes; a task alone has its panels' rows.
        unsafe { W::run(simd, Expand { weights, bias, x, tokens, width, panels, out }) };
    });
}

struct Expand<'a, W> {
    weights: &'a W,
    bias: Option<&'a [f32]>,
    x: &'a [f32],
    tokens: usize,
    /// Tokens with those that fill up: 1, 2, 4, 8 or 16.
    width: usize,
    panels: Range<usize>,
    out: Shared,
}

impl<W: Panels> Kernel for Expand<'_, W> {
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
                (_, false) => self.tokens::<L, 4, 1, 1>(),
            }
        }
    }
}

impl<W: Panels> Expand<'_, W> {
    /// T tokens and P panels at a time, A masks of each side by side.
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
        let [rows, cols] = self.weights.shape();
        for token in (0..self.tokens).step_by(T) {
            let mut sums = [[[0.0f32; PANEL]; T]; P];
            let panels: [_; P] = std::array::from_fn(|p| self.weights.panel(panel + p));
            // SAFETY: `width` is a multiple of T, so T tokens from here are in `x`.
            unsafe {
                let x = self.x.as_ptr().add(token);
                expand::<W, L, T, P, A>(panels, x, self.width, cols, &mut sums);
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

/// The masks and the values of a panel.
type Panel<'a, W> = (&'a [<W as Panels>::Mask], &'a [<W as Panels>::Value]);

/// Sums of the rows of P panels for T tokens.
///
/// # Safety
/// Each panel has a value for every bit of its masks, and as many more as an expansion reads; `x` has `cols` rows of
/// `stride` numbers.
#[inline(always)]
unsafe fn expand<W: Panels, L: Lanes, const T: usize, const P: usize, const A: usize>(
    panels: [Panel<'_, W>; P],
    x: *const f32,
    stride: usize,
    cols: usize,
    out: &mut [[[f32; PANEL]; T]; P],
) {
    let masks = panels.map(|(masks, _)| masks.as_ptr());
    let mut next = panels.map(|(_, values)| values.as_ptr());
    let (whole, part_masks) = (cols / W::COLUMNS, PART / W::COLUMNS);
    for part in (0..whole).step_by(part_masks) {
        let end = whole.min(part + part_masks);
        // SAFETY: the caller's contract; `k + a < end`, and all columns of such a mask are there.
        unsafe {
            let mut sums = [[[L::splat(0.0); T]; P]; A];
            let mut k = part;
            while k + A <= end {
                for (a, sums) in sums.iter_mut().enumerate() {
                    W::step(&masks, &mut next, x.add(W::COLUMNS * (k + a) * stride), stride, k + a, sums);
                }
                k += A;
            }
            while k < end {
                W::step(&masks, &mut next, x.add(W::COLUMNS * k * stride), stride, k, &mut sums[0]);
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
    if !cols.is_multiple_of(W::COLUMNS) {
        for (p, out) in out.iter_mut().enumerate() {
            // SAFETY: the last column stands alone in its mask.
            unsafe {
                let last = W::first::<L>(panels[p].0[whole], next[p]);
                for (t, out) in out.iter_mut().enumerate() {
                    let x = L::splat(*x.add((cols - 1) * stride + t));
                    L::load(out.as_ptr()).fma(last, x).store(out.as_mut_ptr());
                }
            }
        }
    }
}

fn many<W: Panels>(weights: &W, bias: Option<&[f32]>, tiles: Tiles<'_>, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    let [rows, cols] = weights.shape();
    let all = rows.div_ceil(PANEL);
    share(all.div_ceil(PANELS), all * cols * tiles.count() * tiles.lanes, |task| {
        let panels = task * PANELS..all.min((task + 1) * PANELS);
        let numbers = block_columns::<W>() * PANEL + tiles.count() * panels.len() * PANEL * tiles.lanes;
        with_scratch(Scratch::Sums, numbers, |memory| {
            let memory = memory.as_mut_ptr().cast();
            // SAFETY: as in `few`; `memory` holds a block of weights and the sums of all tiles.
            unsafe { W::run(simd, Blocks { weights, bias, tiles, panels, memory, out }) };
        });
    });
}

/// Columns that a block of expanded weights has room for: with those that a last mask fills up.
const fn block_columns<W: Panels>() -> usize {
    WIDTH + W::COLUMNS - 1
}

/// Some panels with all tiles, block by block of columns.
struct Blocks<'a, W> {
    weights: &'a W,
    bias: Option<&'a [f32]>,
    tiles: Tiles<'a>,
    panels: Range<usize>,
    /// `[block_columns][PANEL]` weights, then `[tiles][rows][lanes]` sums.
    memory: *mut f32,
    out: Shared,
}

impl<W: Panels> Kernel for Blocks<'_, W> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let ([all_rows, cols], lanes) = (self.weights.shape(), self.tiles.lanes);
        let rows = self.panels.len() * PANEL;
        let block = self.memory;
        // SAFETY: `memory` holds the block and the sums; blocks and tiles are within their matrices; `y` is
        // [tokens, rows], and these rows are this task's.
        unsafe {
            let sums = self.memory.add(block_columns::<W>() * PANEL);
            sums.write_bytes(0, self.tiles.count() * rows * lanes);
            for (place, panel) in self.panels.clone().enumerate() {
                let (masks, values) = self.weights.panel(panel);
                let mut values = values.as_ptr();
                for column in (0..cols).step_by(WIDTH) {
                    let depth = left(column, cols, WIDTH);
                    let masks = &masks[column / W::COLUMNS..(column + depth).div_ceil(W::COLUMNS)];
                    for (k, &mask) in masks.iter().enumerate() {
                        values = W::unpack::<L>(mask, values, block.add(k * W::COLUMNS * PANEL));
                    }
                    for tile in 0..self.tiles.count() {
                        let x = self.tiles.column(tile, column);
                        let product =
                            Product { weights: block, row_stride: 1, column_stride: PANEL, x, depth, fresh: false };
                        product.add::<L>(PANEL, lanes, sums.add((tile * rows + place * PANEL) * lanes));
                    }
                }
            }
            let own = self.panels.start * PANEL..all_rows.min(self.panels.end * PANEL);
            for tile in 0..self.tiles.count() {
                let (tokens, y) = (self.tiles.tokens_of(tile), self.out.pointer());
                put::<L>(sums.add(tile * rows * lanes), lanes, own.clone(), tokens, y, all_rows, self.bias);
            }
        }
    }
}
