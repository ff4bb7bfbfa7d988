//! Tiles: tokens turned so that those of a column lie side by side, and results turned back.
//!
//! ```text
//!   x [tokens, cols] ─> [tiles][cols][lanes]       lanes = 16, 32 or 64 tokens, 0 after the last
//!   sums [rows][lanes] ─> y[token][first row ..]
//! ```

use super::lanes::Lanes;
use super::{Kernel, Shared, Simd, left, share};
use std::cell::RefCell;
use std::ops::Range;

/// Sixteen numbers that no cache line boundary divides.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(#[expect(dead_code, reason = "read through pointers")] [f32; 16]);

thread_local! {
    /// What a thread keeps between calls, for tiles and for sums.
    static SCRATCH: RefCell<[Vec<Line>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Which of a thread's scratch memories: a call holds its tiles while tasks take memory for sums.
#[derive(Clone, Copy)]
pub(super) enum Scratch {
    /// The inputs as tiles.
    Tiles,
    /// A task's sums.
    Sums,
}

/// Lends `numbers` numbers of this thread's scratch memory, with whatever they held.
pub(super) fn with_scratch<R>(which: Scratch, numbers: usize, work: impl FnOnce(&mut [Line]) -> R) -> R {
    // Taken out, so that a task which this thread picks up while it waits may borrow its own.
    let mut memory = SCRATCH.with_borrow_mut(|all| std::mem::take(&mut all[which as usize]));
    let lines = numbers.div_ceil(16);
    if memory.len() < lines {
        memory.resize(lines, Line([0.0; 16]));
    }
    let result = work(&mut memory[..lines]);
    SCRATCH.with_borrow_mut(|all| all[which as usize] = memory);
    result
}

/// The inputs as tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    lines: &'a [Line],
    cols: usize,
    tokens: usize,
    /// Tokens of a tile: 16, 32 or 64.
    pub lanes: usize,
}

impl Tiles<'_> {
    /// How many tiles there are.
    pub fn count(&self) -> usize {
        self.tokens.div_ceil(self.lanes)
    }

    /// The numbers of a tile from a column on.
    pub fn column(&self, tile: usize, column: usize) -> *const f32 {
        self.lines[(tile * self.cols + column) * self.lanes / 16..].as_ptr().cast()
    }

    /// The tokens of a tile.
    pub fn tokens_of(&self, tile: usize) -> Range<usize> {
        tile * self.lanes..self.tokens.min((tile + 1) * self.lanes)
    }
}

/// Turns `x` `[tokens, cols]` into tiles of `lanes` tokens and lends them to `work`.
pub(super) fn with_tiles<R>(
    x: &[f32],
    cols: usize,
    tokens: usize,
    lanes: usize,
    simd: Simd,
    work: impl FnOnce(Tiles<'_>) -> R,
) -> R {
    /// Columns that a task turns: its reads of up to 64 rows stay within a few pages each.
    const COLUMNS: usize = 128;
    assert_eq!(x.len(), tokens * cols, "x is [tokens, cols]");
    let tiles = tokens.div_ceil(lanes);
    with_scratch(Scratch::Tiles, tiles * cols * lanes, |lines| {
        let to = Shared(lines.as_mut_ptr().cast());
        let blocks = cols.div_ceil(COLUMNS);
        // A number that is moved takes as long as sixteen that are multiplied.
        share(tiles * blocks, tokens * cols, |task| {
            let (tile, block) = (task / blocks, task % blocks);
            let columns = block * COLUMNS..cols.min((block + 1) * COLUMNS);
            let turn = Turn { x, cols, tokens, lanes, tile, columns, to };
            // SAFETY: `simd` is there; the tile's columns lie within `lines`, and no other task has them.
            unsafe { simd.run(turn) };
        });
        work(Tiles { lines, cols, tokens, lanes })
    })
}

struct Turn<'a> {
    x: &'a [f32],
    cols: usize,
    tokens: usize,
    lanes: usize,
    tile: usize,
    columns: Range<usize>,
    to: Shared,
}

impl Kernel for Turn<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for first in (self.tile * self.lanes..(self.tile + 1) * self.lanes).step_by(16) {
            let tokens = self.tokens.saturating_sub(first).min(16);
            let mut column = self.columns.start;
            while column < self.columns.end {
                let columns = left(column, self.columns.end, 16);
                // SAFETY: [tokens, cols] holds what is read, and the tile what is written.
                unsafe {
                    let from = self.x.as_ptr().wrapping_add(first * self.cols + column);
                    let to = self.to.pointer().add((self.tile * self.cols + column) * self.lanes + first % self.lanes);
                    if tokens == 16 && columns == 16 {
                        L::transpose(from, self.cols, to, self.lanes);
                    } else {
                        for c in 0..columns {
                            for token in 0..16 {
                                let value = if token < tokens { *from.add(token * self.cols + c) } else { 0.0 };
                                *to.add(c * self.lanes + token) = value;
                            }
                        }
                    }
                }
                column += columns;
            }
        }
    }
}

/// Writes sums `[rows][lanes]` to `y[token][row]`, with the bias.
///
/// # Safety
/// `sums` holds `rows * lanes` numbers; `y` has room for `[tokens.end, stride]` with `first_row + rows <=
/// stride`; no other task writes these rows of these tokens; `bias` covers the rows.
#[inline(always)]
pub(super) unsafe fn put<L: Lanes>(
    sums: *const f32,
    lanes: usize,
    rows: Range<usize>,
    tokens: Range<usize>,
    y: *mut f32,
    stride: usize,
    bias: Option<&[f32]>,
) {
    let count = rows.len();
    for token in tokens.clone().step_by(16) {
        let tokens = left(token, tokens.end, 16);
        let mut row = 0;
        while row < count {
            let here = left(row, count, 16);
            // SAFETY: the caller's contract.
            unsafe {
                let from = sums.add(row * lanes + token % lanes);
                let to = y.add(token * stride + rows.start + row);
                if tokens == 16 && here == 16 {
                    L::transpose(from, lanes, to, stride);
                } else {
                    for t in 0..tokens {
                        for r in 0..here {
                            *to.add(t * stride + r) = *from.add(r * lanes + t);
                        }
                    }
                }
                if let Some(bias) = bias {
                    for t in 0..tokens {
                        for r in 0..here {
                            *to.add(t * stride + r) += bias[rows.start + row + r];
                        }
                    }
                }
            }
            row += here;
        }
    }
}
