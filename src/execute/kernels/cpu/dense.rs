//! Dense times a batch of token rows: the yardstick of every sparse kernel, so as fast as they are.
//!
//! Weights stay `[rows, cols]`, row-major, as models are pruned and stored. One to eight tokens take dot
//! products along a row, which reads the weights once and in order. More tokens are turned into tiles: a
//! weight is then broadcast and multiplied with the lanes of its column, without a sum over lanes. A block
//! of columns of the tile stays in a cache while the rows of a task use it.

use super::lanes::{Lanes, Number};
use super::tiles::{Scratch, Tiles, put, with_scratch, with_tiles};
use super::{Kernel, Shared, Simd, left, share};
use std::ops::Range;

/// Up to this many tokens take dot products, with 32 registers.
const FEW: usize = 8;
/// Rows of a task with few tokens.
const ROWS_FEW: usize = 40;
/// Rows of a task, and columns of a block, where there is one tile: weights are used once.
const ONE_TILE: (usize, usize) = (24, 1024);
/// The same for several tiles: a tile's block stays in the L1 cache while a task's rows use it.
const MANY_TILES: (usize, usize) = (96, 128);
/// Rows of a task where there would be too few tasks.
const ROWS_LEAST: usize = 48;

/// `y = x · Wᵀ + bias`.
///
/// # Shapes
/// - `weights`: `[rows, cols]`, row-major
/// - `x`: `[tokens, cols]`, row-major
/// - `bias`: `[rows]`
/// - returns `[tokens, rows]`, row-major
///
/// # Panics
/// When a length does not fit, or the machine lacks the instruction set.
#[allow(private_bounds, reason = "how kernels read numbers is their own affair")]
pub fn dense_linear<V: Number>(
    weights: &[V],
    [rows, cols]: [usize; 2],
    bias: Option<&[f32]>,
    x: &[f32],
    tokens: usize,
    simd: Simd,
) -> Vec<f32> {
    assert_eq!(weights.len(), rows * cols, "weights are [rows, cols]");
    assert!(simd.is_available(), "this machine has no {}", simd.name());
    assert_eq!(x.len(), tokens * cols, "x is [tokens, cols]");
    assert!(bias.is_none_or(|bias| bias.len() == rows), "one bias a row");
    // Not zeros first: on one thread that takes a while.
    let mut y = Vec::with_capacity(tokens * rows);
    if tokens * rows > 0 {
        let (matrix, out) = (Matrix { weights, rows, cols, bias }, Shared(y.as_mut_ptr()));
        if tokens <= few_tokens(simd) {
            few(matrix, x, tokens, out, simd);
        } else {
            let whole = in_wide_tiles(tokens);
            for tokens in [0..whole, whole..tokens].into_iter().filter(|tokens| !tokens.is_empty()) {
                let x = &x[tokens.start * cols..tokens.end * cols];
                let out = Shared(out.pointer().wrapping_add(tokens.start * rows));
                with_tiles(x, cols, tokens.len(), lanes_for(tokens.len()), simd, |tiles| {
                    many(matrix, tiles, out, simd)
                });
            }
        }
    }
    // SAFETY: there is room for them, and the tasks have written every row of every token.
    unsafe { y.set_len(tokens * rows) };
    y
}

/// The name of the code path that [`dense_linear`] takes.
pub fn dense_kernel_name(tokens: usize, simd: Simd) -> String {
    format!("dense-{}-{}", simd.name(), if tokens <= few_tokens(simd) { "dot" } else { "tiles" })
}

/// Up to this many tokens take dot products: as many as the registers hold sums for.
fn few_tokens(simd: Simd) -> usize {
    if simd == Simd::Avx512 { FEW } else { FEW / 2 }
}

#[derive(Clone, Copy)]
struct Matrix<'a, V> {
    weights: &'a [V],
    rows: usize,
    cols: usize,
    bias: Option<&'a [f32]>,
}

/// The narrowest tile that holds the tokens, and the widest for more.
pub(super) fn lanes_for(tokens: usize) -> usize {
    match tokens {
        0..=16 => 16,
        17..=32 => 32,
        _ => 64,
    }
}

/// How many of the tokens go into tiles of 64: a last one that would be half empty is a narrower one, which costs
/// less. Each token's sums are the same in either.
fn in_wide_tiles(tokens: usize) -> usize {
    let rest = tokens % 64;
    if tokens > 64 && lanes_for(rest) < 64 { tokens - rest } else { tokens }
}

fn few<V: Number>(matrix: Matrix<'_, V>, x: &[f32], tokens: usize, out: Shared, simd: Simd) {
    share(matrix.rows.div_ceil(ROWS_FEW), matrix.rows * matrix.cols * tokens / 16, |task| {
        let rows = task * ROWS_FEW..matrix.rows.min((task + 1) * ROWS_FEW);
        // SAFETY: `simd` is there; the matrix, `x` and `y` have their shapes; a task alone has its rows.
        unsafe { simd.run(Dots { matrix, x, tokens, rows, out }) };
    });
}

struct Dots<'a, V> {
    matrix: Matrix<'a, V>,
    x: &'a [f32],
    tokens: usize,
    rows: Range<usize>,
    out: Shared,
}

impl<V: Number> Kernel for Dots<'_, V> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // Several rows side by side: memory is read at its full rate only in several runs at once, and the
        // latency of an FMA is hidden; their sums must fit the registers.
        // SAFETY: the contract of `Kernel`.
        unsafe {
            match (self.tokens, L::REGISTERS >= 24) {
                (1, true) => self.rows::<L, 8, 1, 2>(),
                (2, true) => self.rows::<L, 8, 2, 1>(),
                (3, true) => self.rows::<L, 6, 3, 1>(),
                (4, true) => self.rows::<L, 5, 4, 1>(),
                (5, true) => self.rows::<L, 4, 5, 1>(),
                (6, true) => self.rows::<L, 4, 6, 1>(),
                (7, true) => self.rows::<L, 3, 7, 1>(),
                (_, true) => self.rows::<L, 3, 8, 1>(),
                (1, false) => self.rows::<L, 4, 1, 1>(),
                (2, false) => self.rows::<L, 2, 2, 1>(),
                (3, false) => self.rows::<L, 1, 3, 1>(),
                _ => self.rows::<L, 1, 4, 1>(),
            }
        }
    }
}

impl<V: Number> Dots<'_, V> {
    #[inline(always)]
    unsafe fn rows<L: Lanes, const R: usize, const T: usize, const A: usize>(&self) {
        let mut row = self.rows.start;
        // SAFETY: R rows are left, or one.
        unsafe {
            while row + R <= self.rows.end {
                self.block::<L, R, T, A>(row);
                row += R;
            }
            while row < self.rows.end {
                self.block::<L, 1, T, A>(row);
                row += 1;
            }
        }
    }

    /// R rows with T tokens, A vectors of columns side by side.
    #[inline(always)]
    unsafe fn block<L: Lanes, const R: usize, const T: usize, const A: usize>(&self, row: usize) {
        let (cols, rows) = (self.matrix.cols, self.matrix.rows);
        // SAFETY: `row + R <= rows`, and `x` has T rows: every read is inside.
        unsafe {
            let w = self.matrix.weights.as_ptr().add(row * cols);
            let x = self.x.as_ptr();
            let mut sums = [[[L::splat(0.0); A]; T]; R];
            let mut k = 0;
            while k + 16 * A <= cols {
                for a in 0..A {
                    let xs: [L; T] = std::array::from_fn(|t| L::load(x.add(t * cols + k + 16 * a)));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let w: L = V::load(w.add(r * cols + k + 16 * a));
                        for (sums, &x) in sums.iter_mut().zip(&xs) {
                            sums[a] = sums[a].fma(w, x);
                        }
                    }
                }
                k += 16 * A;
            }
            for (r, sums) in sums.iter().enumerate() {
                for (t, sums) in sums.iter().enumerate() {
                    let mut sum = sums.iter().skip(1).fold(sums[0], |sum, &part| sum.add(part)).sum();
                    for c in k..cols {
                        sum += (*w.add(r * cols + c)).to_f32() * *x.add(t * cols + c);
                    }
                    let bias = self.matrix.bias.map_or(0.0, |bias| bias[row + r]);
                    *self.out.pointer().add(t * rows + row + r) = sum + bias;
                }
            }
        }
    }
}

fn many<V: Number>(matrix: Matrix<'_, V>, tiles: Tiles<'_>, out: Shared, simd: Simd) {
    let (chunk, width) = match (tiles.count() == 1, matrix.rows / MANY_TILES.0 < 2 * rayon::current_num_threads()) {
        (true, _) => ONE_TILE,
        (false, true) => (ROWS_LEAST, MANY_TILES.1),
        (false, false) => MANY_TILES,
    };
    let work = matrix.rows * matrix.cols * tiles.count() * tiles.lanes / 16;
    share(matrix.rows.div_ceil(chunk), work, |task| {
        let rows = task * chunk..matrix.rows.min((task + 1) * chunk);
        let (sums, block) = (tiles.count() * rows.len() * tiles.lanes, rows.len() * width);
        with_scratch(Scratch::Sums, sums + block, |memory| {
            let memory: *mut f32 = memory.as_mut_ptr().cast();
            let block = memory.wrapping_add(sums);
            // SAFETY: as in `few`; `memory` holds every tile's sums and a block of weights.
            unsafe { simd.run(Rows { matrix, tiles, width, rows, sums: memory, block, out }) };
        });
    });
}

/// Some rows with all tiles, block by block of columns.
struct Rows<'a, V> {
    matrix: Matrix<'a, V>,
    tiles: Tiles<'a>,
    width: usize,
    rows: Range<usize>,
    sums: *mut f32,
    /// Room for a block of widened weights, where they are not f32.
    block: *mut f32,
    out: Shared,
}

impl<V: Number> Kernel for Rows<'_, V> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { matrix, tiles, ref rows, .. } = self;
        let (lanes, count) = (tiles.lanes, rows.len());
        for column in (0..matrix.cols).step_by(self.width) {
            let depth = left(column, matrix.cols, self.width);
            // SAFETY: these rows and columns are the matrix's; `block` holds them, its width being a multiple of 16.
            let (weights, row_stride) = unsafe {
                let from = matrix.weights.as_ptr().add(rows.start * matrix.cols + column);
                V::widen::<L>(from, matrix.cols, count, depth, self.block)
            };
            for tile in 0..tiles.count() {
                // SAFETY: the rows and columns are the matrix's, the tile's and the sums'.
                unsafe {
                    let product = Product {
                        weights,
                        row_stride,
                        column_stride: 1,
                        x: tiles.column(tile, column),
                        depth,
                        fresh: column == 0,
                    };
                    product.add::<L>(count, lanes, self.sums.add(tile * count * lanes));
                }
            }
        }
        if matrix.cols == 0 {
            // SAFETY: the sums of every tile.
            unsafe { self.sums.write_bytes(0, tiles.count() * count * lanes) };
        }
        for tile in 0..tiles.count() {
            let (rows, tokens, y) = (rows.clone(), tiles.tokens_of(tile), self.out.pointer());
            // SAFETY: `sums` holds `count` rows of every tile; `y` is [tokens, rows], and these are this task's.
            unsafe {
                let sums = self.sums.add(tile * count * lanes);
                put::<L>(sums, lanes, rows, tokens, y, matrix.rows, matrix.bias);
            }
        }
    }
}

/// Columns whose products go into one sum before it is added to the others: deep models blow rounding up, and
/// sparse and masked execution must agree after dozens of layers.
const PART: usize = 128;

/// A block of weights times a block of a tile.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// The block's first weight.
    pub weights: *const f32,
    /// From a row's weight to the next row's.
    pub row_stride: usize,
    /// From a column's weight to the next column's.
    pub column_stride: usize,
    /// The block's first column in the tile.
    pub x: *const f32,
    /// Columns of the block.
    pub depth: usize,
    /// Whether the sums begin here.
    pub fresh: bool,
}

impl Product {
    /// Adds the products to sums `[rows][lanes]`.
    ///
    /// # Safety
    /// The pointers reach `rows` rows of `depth` columns, `depth` columns of `lanes` numbers, and
    /// `rows * lanes` sums.
    #[inline(always)]
    pub unsafe fn add<L: Lanes>(self, rows: usize, lanes: usize, sums: *mut f32) {
        // SAFETY: the caller's contract.
        unsafe {
            // As many rows side by side as the registers hold sums for, without a remainder where that can be.
            match (L::REGISTERS, lanes, rows.is_multiple_of(12)) {
                (24.., 16, true) => self.rows::<L, 12, 1>(rows, 0, 16, sums),
                (24.., 16, false) => self.rows::<L, 8, 1>(rows, 0, 16, sums),
                (24.., 32, _) => self.rows::<L, 8, 2>(rows, 0, 32, sums),
                (24.., _, true) => self.rows::<L, 6, 4>(rows, 0, 64, sums),
                (24.., _, false) => self.rows::<L, 4, 4>(rows, 0, 64, sums),
                // Loops, not adaptors: what these call must be inlined into the instruction set.
                (6.., ..) => {
                    let mut lane = 0;
                    while lane < lanes {
                        self.rows::<L, 6, 1>(rows, lane, lanes, sums);
                        lane += 16;
                    }
                }
                _ => {
                    let mut lane = 0;
                    while lane < lanes {
                        self.rows::<L, 2, 1>(rows, lane, lanes, sums);
                        lane += 16;
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<L: Lanes, const R: usize, const N: usize>(
        self,
        rows: usize,
        lane: usize,
        lanes: usize,
        sums: *mut f32,
    ) {
        let mut row = 0;
        // SAFETY: R rows are left, or one.
        unsafe {
            while row + R <= rows {
                self.block::<L, R, N>(row, lane, lanes, sums);
                row += R;
            }
            while row < rows {
                self.block::<L, 1, N>(row, lane, lanes, sums);
                row += 1;
            }
        }
    }

    /// R rows with N vectors of lanes, all sums in registers.
    #[inline(always)]
    unsafe fn block<L: Lanes, const R: usize, const N: usize>(
        self,
        row: usize,
        lane: usize,
        lanes: usize,
        sums: *mut f32,
    ) {
        let mut column = 0;
        while column < self.depth {
            let end = self.depth.min(column + PART);
            // SAFETY: the caller's contract.
            unsafe {
                let weights = self.weights.add(row * self.row_stride);
                let x = self.x.add(lane);
                let mut parts = [[L::splat(0.0); N]; R];
                for k in column..end {
                    let xs: [L; N] = std::array::from_fn(|n| L::load(x.add(k * lanes + 16 * n)));
                    for (r, parts) in parts.iter_mut().enumerate() {
                        let weight = L::splat(*weights.add(r * self.row_stride + k * self.column_stride));
                        for (part, &x) in parts.iter_mut().zip(&xs) {
                            *part = part.fma(weight, x);
                        }
                    }
                }
                for (r, parts) in parts.iter().enumerate() {
                    for (n, part) in parts.iter().enumerate() {
                        let to = sums.add((row + r) * lanes + lane + 16 * n);
                        let sum = if self.fresh && column == 0 { *part } else { L::load(to).add(*part) };
                        sum.store(to);
                    }
                }
            }
            column = end;
        }
    }
}
