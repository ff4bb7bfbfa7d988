//! Bitmap with bf16 values, two columns interleaved, times a batch of token rows: see `bitmap.rs`, whose steps
//! these are with two columns at a time.

use super::bitmap::{FEW, PANELS, PANELS_FEW, PART, WIDTH, turn};
use super::dense::{Product, lanes_for};
use super::lanes::Lanes;
use super::tiles::{Scratch, Tiles, put, with_scratch, with_tiles};
use super::{AHEAD, Kernel, Shared, Simd, left, prefetch, share};
use crate::sparse::{BitmapPairs, PANEL};
use half::bf16;
use std::ops::Range;

/// `y = x · Wᵀ + bias`.
///
/// # Shapes
/// - `x`: `[tokens, cols]`, row-major
/// - `bias`: `[rows]`
/// - returns `[tokens, rows]`, row-major
///
/// # Panics
/// When a length does not fit, or the machine lacks the instruction set.
pub fn bitmap_pairs_linear(
    weights: &BitmapPairs,
    bias: Option<&[f32]>,
    x: &[f32],
    tokens: usize,
    simd: Simd,
) -> Vec<f32> {
    let (rows, cols) = (weights.rows(), weights.cols());
    assert!(simd.is_available(), "this machine has no {}", simd.name());
    assert_eq!(x.len(), tokens * cols, "x is [tokens, cols]");
    assert!(bias.is_none_or(|bias| bias.len() == rows), "one bias a row");
    let mut y = vec![0.0; tokens * rows];
    if y.is_empty() {
        return y;
    }
    let simd = simd.for_pairs();
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

/// `x` is `[cols][width]`.
fn few(weights: &BitmapPairs, bias: Option<&[f32]>, x: &[f32], tokens: usize, width: usize, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    share(weights.panels().div_ceil(PANELS_FEW), weights.panels() * weights.cols() * (width + 1), |task| {
        let panels = task * PANELS_FEW..weights.panels().min((task + 1) * PANELS_FEW);
        // SAFETY: `simd` is there; `x` and `y` have their shapes; a task alone has its panels' rows.
        unsafe { simd.run_pairs(Expand { weights, bias, x, tokens, width, panels, out }) };
    });
}

struct Expand<'a> {
    weights: &'a BitmapPairs,
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
    /// T tokens and P panels at a time, A pairs side by side.
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
        let (rows, cols) = (self.weights.rows(), self.weights.cols());
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

/// Sums of the rows of P panels for T tokens.
///
/// # Safety
/// Each panel has a value for every bit of its masks and thirty-two more; `x` has `cols` rows of `stride` numbers.
#[inline(always)]
unsafe fn expand<L: Lanes, const T: usize, const P: usize, const A: usize>(
    panels: [(&[u32], &[bf16]); P],
    x: *const f32,
    stride: usize,
    cols: usize,
    out: &mut [[[f32; PANEL]; T]; P],
) {
    let masks = panels.map(|(masks, _)| masks.as_ptr());
    let mut next = panels.map(|(_, values)| values.as_ptr());
    for part in (0..cols / 2).step_by(PART / 2) {
        let end = (cols / 2).min(part + PART / 2);
        // SAFETY: the caller's contract; `k + a < end`, and both columns of such a pair are there.
        unsafe {
            let mut sums = [[[L::splat(0.0); T]; P]; A];
            let mut k = part;
            while k + A <= end {
                for (a, sums) in sums.iter_mut().enumerate() {
                    pair(&masks, &mut next, x.add(2 * (k + a) * stride), stride, k + a, sums);
                }
                k += A;
            }
            while k < end {
                pair(&masks, &mut next, x.add(2 * k * stride), stride, k, &mut sums[0]);
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
    if cols % 2 == 1 {
        for (p, out) in out.iter_mut().enumerate() {
            // SAFETY: the last column stands alone.
            unsafe {
                let (last, _) = L::expand_pairs(panels[p].0[cols / 2], next[p]);
                for (t, out) in out.iter_mut().enumerate() {
                    let x = L::splat(*x.add((cols - 1) * stride + t));
                    L::load(out.as_ptr()).fma(last, x).store(out.as_mut_ptr());
                }
            }
        }
    }
}

/// One pair of columns of P panels with T tokens.
///
/// # Safety
/// As [`expand`], with `x` at the even column's inputs.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "adaptors over vectors are not always inlined: a call each")]
unsafe fn pair<L: Lanes, const T: usize, const P: usize>(
    masks: &[*const u32; P],
    next: &mut [*const bf16; P],
    x: *const f32,
    stride: usize,
    k: usize,
    sums: &mut [[L; T]; P],
) {
    // SAFETY: the caller's contract.
    unsafe {
        for p in 0..P {
            let mask = *masks[p].add(k);
            let (even, odd) = L::expand_pairs(mask, next[p]);
            next[p] = next[p].add(mask.count_ones() as usize);
            for t in 0..T {
                let sum = sums[p][t].fma(even, L::splat(*x.add(t)));
                sums[p][t] = sum.fma(odd, L::splat(*x.add(stride + t)));
            }
            if k.is_multiple_of(2) {
                prefetch(next[p].wrapping_add(2 * AHEAD));
            }
        }
    }
}

fn many(weights: &BitmapPairs, bias: Option<&[f32]>, tiles: Tiles<'_>, y: &mut [f32], simd: Simd) {
    let out = Shared(y.as_mut_ptr());
    let work = weights.panels() * weights.cols() * tiles.count() * tiles.lanes;
    share(weights.panels().div_ceil(PANELS), work, |task| {
        let panels = task * PANELS..weights.panels().min((task + 1) * PANELS);
        let numbers = (WIDTH + 1) * PANEL + tiles.count() * panels.len() * PANEL * tiles.lanes;
        with_scratch(Scratch::Sums, numbers, |memory| {
            let memory = memory.as_mut_ptr().cast();
            // SAFETY: as in `few`; `memory` holds a block of weights and the sums of all tiles.
            unsafe { simd.run_pairs(Panels { weights, bias, tiles, panels, memory, out }) };
        });
    });
}

/// Some panels with all tiles, block by block of columns.
struct Panels<'a> {
    weights: &'a BitmapPairs,
    bias: Option<&'a [f32]>,
    tiles: Tiles<'a>,
    panels: Range<usize>,
    /// `[WIDTH + 1][PANEL]` weights, then `[tiles][rows][lanes]` sums.
    memory: *mut f32,
    out: Shared,
}

impl Kernel for Panels<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (cols, lanes) = (self.weights.cols(), self.tiles.lanes);
        let rows = self.panels.len() * PANEL;
        let block = self.memory;
        // SAFETY: `memory` holds the block and the sums; blocks and tiles are within their matrices (the block
        // has room for the empty column behind an odd number of them); `y` is [tokens, rows], and these rows are
        // this task's.
        unsafe {
            let sums = self.memory.add((WIDTH + 1) * PANEL);
            sums.write_bytes(0, self.tiles.count() * rows * lanes);
            for (place, panel) in self.panels.clone().enumerate() {
                let (masks, values) = self.weights.panel(panel);
                let mut values = values.as_ptr();
                for column in (0..cols).step_by(WIDTH) {
                    let depth = left(column, cols, WIDTH);
                    for (k, &mask) in masks[column / 2..(column + depth).div_ceil(2)].iter().enumerate() {
                        let (even, odd) = L::expand_pairs(mask, values);
                        even.store(block.add(2 * k * PANEL));
                        odd.store(block.add((2 * k + 1) * PANEL));
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
            let own = self.panels.start * PANEL..self.weights.rows().min(self.panels.end * PANEL);
            for tile in 0..self.tiles.count() {
                let (tokens, y) = (self.tiles.tokens_of(tile), self.out.pointer());
                put::<L>(sums.add(tile * rows * lanes), lanes, own.clone(), tokens, y, self.weights.rows(), self.bias);
            }
        }
    }
}
