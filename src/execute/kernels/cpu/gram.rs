//! The Gram matrix XᵀX of token rows, which calibration needs, or its diagonal: products of all pairs of columns, or
//! squares of every column.
//!
//! ```text
//!   x [tokens, cols] ─> panels [cols / 64][tokens][64]            0 after the last column
//!   gram, lower part: a square [64][64] for every pair of panels   squares[i][j] += panel iᵀ · panel j
//! ```
//!
//! The product is symmetric, so that only pairs with `j <= i` are computed: half of the work. A square is one
//! task's, and adds token after token: results do not depend on the number of threads.

use super::dense::Product;
use super::lanes::Lanes;
use super::tiles::{Line, Scratch, with_scratch};
use super::{Kernel, Shared, Simd, left, share};

/// Columns of a panel.
const WIDTH: usize = 64;
/// Tokens whose squares go into one sum before it is added to the others.
const PART: usize = 128;
/// Tokens that a task takes of its panels at a time: both stay in the L2 cache.
const DEPTH: usize = 512;

/// Adds the squares of every column of `x` `[tokens, cols]` to `sums` `[cols]`.
///
/// # Panics
/// When a length does not fit, or the machine lacks the instruction set.
pub fn add_squares(sums: &mut [f32], x: &[f32], tokens: usize, simd: Simd) {
    let cols = sums.len();
    assert!(simd.is_available(), "this machine has no {}", simd.name());
    assert_eq!(x.len(), tokens * cols, "x is [tokens, cols]");
    let out = Shared(sums.as_mut_ptr());
    share(cols.div_ceil(WIDTH), tokens * cols / 16, |panel| {
        let first = panel * WIDTH;
        let columns = left(first, cols, WIDTH);
        // SAFETY: `simd` is there; `x` has these columns, and no other task adds to their sums.
        unsafe { simd.run(Squares { x, cols, tokens, first, columns, out }) };
    });
}

struct Squares<'a> {
    x: &'a [f32],
    cols: usize,
    tokens: usize,
    first: usize,
    columns: usize,
    out: Shared,
}

impl Kernel for Squares<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let mut buffer = [0.0f32; WIDTH];
        let mut token = 0;
        while token < self.tokens {
            let end = self.tokens.min(token + PART);
            // SAFETY: the tokens and columns are those of `x` and of the sums.
            unsafe {
                let from = self.x.as_ptr().add(self.first);
                let to = self.out.pointer().add(self.first);
                let mut parts = [L::splat(0.0); WIDTH / 16];
                for token in token..end {
                    let row = from.add(token * self.cols);
                    let row = match self.columns {
                        WIDTH => row,
                        columns => {
                            buffer.as_mut_ptr().copy_from_nonoverlapping(row, columns);
                            buffer.as_ptr()
                        }
                    };
                    for (i, part) in parts.iter_mut().enumerate() {
                        let x = L::load(row.add(16 * i));
                        *part = part.fma(x, x);
                    }
                }
                let mut sums = [0.0f32; WIDTH];
                for (i, part) in parts.iter().enumerate() {
                    part.store(sums.as_mut_ptr().add(16 * i));
                }
                for (i, sum) in sums.iter().take(self.columns).enumerate() {
                    *to.add(i) += sum;
                }
            }
            token = end;
        }
    }
}

/// The lower part of XᵀX, as it is summed up.
#[derive(Clone, Debug)]
pub struct Gram {
    cols: usize,
    /// `[64][64]` for every pair of panels `j <= i`, row after row of pairs.
    squares: Vec<f32>,
}

impl Gram {
    /// Zeros, for inputs of this many columns.
    pub fn new(cols: usize) -> Self {
        let panels = cols.div_ceil(WIDTH);
        Self { cols, squares: vec![0.0; panels * (panels + 1) / 2 * WIDTH * WIDTH] }
    }

    /// Adds XᵀX of `x` `[tokens, cols]`.
    ///
    /// # Panics
    /// When a length does not fit, or the machine lacks the instruction set.
    pub fn add(&mut self, x: &[f32], tokens: usize, simd: Simd) {
        let cols = self.cols;
        assert!(simd.is_available(), "this machine has no {}", simd.name());
        assert_eq!(x.len(), tokens * cols, "x is [tokens, cols]");
        let panels = cols.div_ceil(WIDTH);
        let pairs = self.squares.len() / (WIDTH * WIDTH);
        let out = Shared(self.squares.as_mut_ptr());
        with_scratch(Scratch::Tiles, panels * tokens * WIDTH, |lines| {
            let to = Shared(lines.as_mut_ptr().cast());
            share(panels, tokens * cols / 16, |panel| {
                // SAFETY: the panel lies within `lines`, and is this task's.
                let panel_of =
                    unsafe { std::slice::from_raw_parts_mut(to.pointer().add(panel * tokens * WIDTH), tokens * WIDTH) };
                fill(panel_of, x, cols, panel * WIDTH);
            });
            let lines: &[Line] = lines;
            share(pairs, pairs * WIDTH * WIDTH * tokens / 16, |pair| {
                let (i, j) = place(pair);
                let sums = Shared(out.pointer().wrapping_add(pair * WIDTH * WIDTH));
                // SAFETY: `simd` is there; both panels hold `tokens` rows; a pair's sums are one task's.
                unsafe { simd.run(Pair { lines, tokens, i, j, sums }) };
            });
        });
    }

    /// XᵀX, `[cols, cols]`.
    pub fn into_matrix(self) -> Vec<f32> {
        let cols = self.cols;
        let mut matrix = vec![0.0; cols * cols];
        for (pair, square) in self.squares.chunks_exact(WIDTH * WIDTH).enumerate() {
            let (i, j) = place(pair);
            for (row, sums) in (i * WIDTH..cols).zip(square.chunks_exact(WIDTH)) {
                // Of a square on the diagonal the lower part counts: so the matrix is symmetric to the last bit.
                for (col, &sum) in (j * WIDTH..=row).zip(sums) {
                    matrix[row * cols + col] = sum;
                    matrix[col * cols + row] = sum;
                }
            }
        }
        matrix
    }
}

/// The panels of a pair: the row of pairs that holds it, and its place there.
fn place(pair: usize) -> (usize, usize) {
    let before = |row: usize| row * (row + 1) / 2;
    let mut row = (((8 * pair + 1) as f64).sqrt() as usize).saturating_sub(1) / 2;
    while before(row + 1) <= pair {
        row += 1;
    }
    (row, pair - before(row))
}

/// Copies up to 64 columns from `first` on, and zeros after the last.
fn fill(panel: &mut [f32], x: &[f32], cols: usize, first: usize) {
    let columns = left(first, cols, WIDTH);
    for (to, from) in panel.chunks_exact_mut(WIDTH).zip(x.chunks_exact(cols)) {
        to[..columns].copy_from_slice(&from[first..first + columns]);
        to[columns..].fill(0.0);
    }
}

/// Two panels whose products are added up.
struct Pair<'a> {
    lines: &'a [Line],
    tokens: usize,
    i: usize,
    j: usize,
    sums: Shared,
}

impl Kernel for Pair<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let mut token = 0;
        while token < self.tokens {
            let depth = left(token, self.tokens, DEPTH);
            // SAFETY: the panels hold these tokens; the sums are [64][64].
            unsafe {
                let numbers: *const f32 = self.lines.as_ptr().cast();
                let at = |panel: usize| numbers.add((panel * self.tokens + token) * WIDTH);
                let (weights, x) = (at(self.i), at(self.j));
                let product = Product { weights, row_stride: 1, column_stride: WIDTH, x, depth, fresh: false };
                product.add::<L>(WIDTH, WIDTH, self.sums.pointer());
            }
            token += depth;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(tokens: usize, cols: usize, seed: usize) -> Vec<f32> {
        (0..tokens * cols).map(|i| (((i + seed) * 7919) % 1013) as f32 / 506.0 - 1.0).collect()
    }

    #[test]
    fn sums_equal_those_in_double_precision() {
        for (tokens, cols) in [(1, 1), (7, 64), (130, 65), (600, 200), (513, 130)] {
            let batches = [inputs(tokens, cols, 0), inputs(3, cols, 5)];
            let mut squares = vec![0.0f64; cols];
            let mut gram = vec![0.0f64; cols * cols];
            for row in batches.iter().flat_map(|x| x.chunks(cols)) {
                for (i, &a) in row.iter().enumerate() {
                    squares[i] += f64::from(a) * f64::from(a);
                    gram[i * cols..][..cols].iter_mut().zip(row).for_each(|(g, &b)| *g += f64::from(a) * f64::from(b));
                }
            }
            for simd in Simd::available() {
                let (mut sums, mut ours) = (vec![0.0; cols], Gram::new(cols));
                for x in &batches {
                    add_squares(&mut sums, x, x.len() / cols, simd);
                    ours.add(x, x.len() / cols, simd);
                }
                let ours = ours.into_matrix();
                let close = |a: &[f32], b: &[f64]| {
                    let error = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs();
                    a.len() == b.len() && a.iter().zip(b).map(error).fold(0.0, f64::max) < 1e-6 * tokens as f64
                };
                assert!(close(&sums, &squares) && close(&ours, &gram), "{tokens} {cols} {}", simd.name());
                assert!((0..cols * cols).all(|i| ours[i] == ours[i % cols * cols + i / cols]));
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (tokens, cols) = (300, 200);
        let x = inputs(tokens, cols, 3);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut sums, mut gram) = (vec![0.0; cols], Gram::new(cols));
                add_squares(&mut sums, &x, tokens, Simd::detect());
                gram.add(&x, tokens, Simd::detect());
                (sums, gram.into_matrix())
            })
        };
        assert!(with(1) == with(2) && with(1) == with(3));
    }

    #[test]
    fn pairs_have_places() {
        let mut pair = 0;
        for i in 0..200 {
            for j in 0..=i {
                assert_eq!(place(pair), (i, j));
                pair += 1;
            }
        }
    }
}
