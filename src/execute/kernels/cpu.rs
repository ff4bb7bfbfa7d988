//! CSR times a batch of token rows on the CPU, chosen at run time: AVX-512, AVX2 + FMA, or portable.
//!
//! ```text
//!   y [tokens, rows] = x [tokens, cols] · Wᵀ + bias          W [rows, cols] in CSR
//!
//!   tokens < 4     one dot product a row and token: values times gathered x
//!   tokens >= 4    x is transposed once into tiles of L = 16, 32 or 64 tokens,
//!                  tile [cols][L]: a kept weight then costs one broadcast and L / 16 FMAs on
//!                  contiguous lanes, the L sums of a row stay in registers
//! ```
//!
//! Sums are taken in two levels, partial sums of 64 entries and then those: rounding grows with
//! 64 + n / 64 instead of n. Deep models whose activations blow rounding up need it to agree with
//! dense products, which sum in blocks too.
//!
//! Threads own row blocks and no sum is split between them, so the result does not depend on the
//! number of threads. It does depend on the instruction set, in the last bits.

use rayon::prelude::*;

mod peaks;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use peaks::peaks;

/// Fewer tokens than this are done one by one.
const TILE_FROM: usize = 4;
/// Rows a task owns: few enough to balance, enough to amortise a task (about a microsecond).
const ROWS_PER_TASK: usize = 32;
/// Entries that a partial sum takes before it goes to the row's: see the module's word on rounding.
const PARTIAL: usize = 64;
/// The widest tile: 64 sums are four AVX-512 registers.
const MAX_LANES: usize = 64;

/// The instruction set that the kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simd {
    /// 16 lanes, gathers and FMA.
    Avx512,
    /// 8 lanes, gathers and FMA.
    Avx2,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

impl Simd {
    /// The best that this machine has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// The name that tables show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

/// A column index: 16 or 32 bits. Inlined by force: a call an entry would double the kernels' time.
pub trait Column: Copy + Send + Sync + 'static {
    /// As an offset.
    fn index(self) -> usize;
}

impl Column for u16 {
    #[inline(always)]
    fn index(self) -> usize {
        usize::from(self)
    }
}

impl Column for u32 {
    #[inline(always)]
    fn index(self) -> usize {
        self as usize
    }
}

/// Borrowed CSR arrays that are known to be well formed.
#[derive(Clone, Copy)]
pub struct CsrView<'a, C> {
    rows: usize,
    cols: usize,
    row_ptr: &'a [u32],
    columns: &'a [C],
    values: &'a [f32],
    bias: Option<&'a [f32]>,
}

impl<'a, C: Column> CsrView<'a, C> {
    /// Takes the arrays without looking at every index: the kernels read without bounds checks.
    ///
    /// # Safety
    /// `row_ptr` ascends from 0 to `columns.len()`, and every column is below `cols`.
    ///
    /// # Panics
    /// When the lengths of the arrays do not fit each other.
    pub unsafe fn new_unchecked(
        cols: usize,
        row_ptr: &'a [u32],
        columns: &'a [C],
        values: &'a [f32],
        bias: Option<&'a [f32]>,
    ) -> Self {
        let rows = row_ptr.len() - 1;
        assert_eq!(columns.len(), values.len(), "as many columns as values");
        assert_eq!(row_ptr[rows] as usize, values.len(), "the last row pointer counts the values");
        assert!(bias.is_none_or(|bias| bias.len() == rows), "one bias a row");
        Self { rows, cols, row_ptr, columns, values, bias }
    }

    fn entries(&self, row: usize) -> std::ops::Range<usize> {
        self.row_ptr[row] as usize..self.row_ptr[row + 1] as usize
    }

    fn bias(&self, row: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[row])
    }
}

/// `y = x · Wᵀ + bias`.
///
/// # Shapes
/// - `x`: `[tokens, cols]`, row-major
/// - returns `[tokens, rows]`, row-major
///
/// # Panics
/// When `x` is not `tokens * cols` long.
pub fn csr_linear<C: Column>(weight: &CsrView<'_, C>, x: &[f32], tokens: usize, simd: Simd) -> Vec<f32> {
    assert_eq!(x.len(), tokens * weight.cols, "x is [tokens, cols]");
    let mut y = vec![0.0; tokens * weight.rows];
    if tokens < TILE_FROM {
        gather_rows(weight, x, &mut y, simd);
    } else {
        tiled_rows(weight, x, tokens, &mut y, simd);
    }
    y
}

/// The name of the code path that [`csr_linear`] takes.
pub fn csr_kernel_name(tokens: usize, simd: Simd) -> String {
    let path = if tokens < TILE_FROM { "gather" } else { "tiles" };
    format!("csr-{}-{path}", simd.name())
}

/// One dot product a row and token.
fn gather_rows<C: Column>(weight: &CsrView<'_, C>, x: &[f32], y: &mut [f32], simd: Simd) {
    if weight.rows == 0 {
        return;
    }
    for (token, y) in y.chunks_mut(weight.rows).enumerate() {
        let x = &x[token * weight.cols..][..weight.cols];
        y.par_chunks_mut(ROWS_PER_TASK).enumerate().for_each(|(task, y)| {
            let first = task * ROWS_PER_TASK;
            match simd {
                // SAFETY: `simd` comes from run-time detection; columns are below x.len() by CsrView's contract.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx512 => unsafe { x86::gather_avx512(weight, x, first, y) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => unsafe { x86::gather_avx2(weight, x, first, y) },
                _ => gather_portable(weight, x, first, y),
            }
        });
    }
}

fn gather_portable<C: Column>(weight: &CsrView<'_, C>, x: &[f32], first: usize, y: &mut [f32]) {
    for (i, y) in y.iter_mut().enumerate() {
        let entries = weight.entries(first + i);
        let (values, columns) = (&weight.values[entries.clone()], &weight.columns[entries]);
        // Four sums, so that an addition need not wait for the one before it.
        let mut sums = [0.0f32; 4];
        for (values, columns) in values.chunks(4).zip(columns.chunks(4)) {
            for ((sum, &value), &column) in sums.iter_mut().zip(values).zip(columns) {
                *sum += value * x[column.index()];
            }
        }
        *y = weight.bias(first + i) + ((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}

/// 16 tokens of one column, aligned so that no load crosses a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([f32; 16]);

/// Where a task writes its rows of the output; tasks write disjoint rows.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: only `Output::store` writes through the pointer, and its callers own disjoint rows.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// Writes `block` `[rows of the task][lanes]` to `y[token][row]`.
    ///
    /// # Safety
    /// `y` has room for `[tokens, stride]` and no other task writes the rows from `first`.
    unsafe fn store(self, block: &[f32], lanes: usize, tokens: std::ops::Range<usize>, first: usize, stride: usize) {
        for (lane, token) in tokens.enumerate() {
            // SAFETY: the caller's contract: token * stride + first + rows <= tokens * stride.
            let row = unsafe { self.0.add(token * stride + first) };
            for (i, sums) in block.chunks_exact(lanes).enumerate() {
                // SAFETY: as above.
                unsafe { row.add(i).write(sums[lane]) };
            }
        }
    }
}

fn tiled_rows<C: Column>(weight: &CsrView<'_, C>, x: &[f32], tokens: usize, y: &mut [f32], simd: Simd) {
    let lanes = match tokens {
        0..=16 => 16,
        17..=32 => 32,
        _ => MAX_LANES,
    };
    let tile_lines = weight.cols * lanes / 16;
    let tiles = transpose(x, weight.cols, tokens, lanes);
    let blocks = weight.rows.div_ceil(ROWS_PER_TASK);
    let out = Output(y.as_mut_ptr());
    (0..tokens.div_ceil(lanes) * blocks).into_par_iter().for_each(|task| {
        let (tile, block) = (task / blocks, task % blocks);
        let first = block * ROWS_PER_TASK;
        let rows = ROWS_PER_TASK.min(weight.rows - first);
        let mut sums = [0.0f32; ROWS_PER_TASK * MAX_LANES];
        let sums = &mut sums[..rows * lanes];
        run_tile(weight, &tiles[tile * tile_lines..][..tile_lines], lanes, first, sums, simd);
        for (i, sums) in sums.chunks_exact_mut(lanes).enumerate() {
            let bias = weight.bias(first + i);
            sums.iter_mut().for_each(|sum| *sum += bias);
        }
        let range = tile * lanes..tokens.min((tile + 1) * lanes);
        // SAFETY: `y` is [tokens, rows]; this task alone writes rows `first..first + rows` of its tile's tokens.
        unsafe { out.store(sums, lanes, range, first, weight.rows) };
    });
}

fn run_tile<C: Column>(
    weight: &CsrView<'_, C>,
    tile: &[Line],
    lanes: usize,
    first: usize,
    sums: &mut [f32],
    simd: Simd,
) {
    match (simd, lanes) {
        // SAFETY: `simd` comes from run-time detection; columns are below cols by CsrView's contract,
        // so that every column's lanes lie inside `tile`, which holds cols * lanes floats.
        #[cfg(target_arch = "x86_64")]
        (Simd::Avx512, 16) => unsafe { x86::tile_avx512::<C, 1, 8>(weight, tile, first, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Simd::Avx512, 32) => unsafe { x86::tile_avx512::<C, 2, 4>(weight, tile, first, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Simd::Avx512, _) => unsafe { x86::tile_avx512::<C, 4, 4>(weight, tile, first, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Simd::Avx2, 16) => unsafe { x86::tile_avx2::<C, 2>(weight, tile, first, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Simd::Avx2, 32) => unsafe { x86::tile_avx2::<C, 4>(weight, tile, first, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Simd::Avx2, _) => unsafe { x86::tile_avx2::<C, 8>(weight, tile, first, sums) },
        _ => tile_portable(weight, tile, lanes, first, sums),
    }
}

fn tile_portable<C: Column>(weight: &CsrView<'_, C>, tile: &[Line], lanes: usize, first: usize, sums: &mut [f32]) {
    let lines = lanes / 16;
    for (i, sums) in sums.chunks_exact_mut(lanes).enumerate() {
        sums.fill(0.0);
        let entries = weight.entries(first + i);
        let (values, columns) = (&weight.values[entries.clone()], &weight.columns[entries]);
        for (values, columns) in values.chunks(PARTIAL).zip(columns.chunks(PARTIAL)) {
            let mut part = [0.0f32; MAX_LANES];
            for (&value, &column) in values.iter().zip(columns) {
                let x = &tile[column.index() * lines..][..lines];
                for (part, line) in part.chunks_exact_mut(16).zip(x) {
                    for (part, x) in part.iter_mut().zip(line.0) {
                        *part += value * x;
                    }
                }
            }
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
}

/// `x` `[tokens, cols]` as tiles `[ceil(tokens / lanes)][cols][lanes]`; lanes behind the last token are 0.
fn transpose(x: &[f32], cols: usize, tokens: usize, lanes: usize) -> Vec<Line> {
    /// Columns a task transposes: its reads of up to 64 rows stay within a few pages each.
    const COLUMNS: usize = 64;
    let lines = lanes / 16;
    let mut tiles = vec![Line([0.0; 16]); tokens.div_ceil(lanes) * cols * lines];
    if cols == 0 {
        return tiles;
    }
    let blocks = cols.div_ceil(COLUMNS);
    let mut parts = Vec::new();
    for tile in tiles.chunks_mut(cols * lines) {
        parts.extend(tile.chunks_mut(COLUMNS * lines));
    }
    parts.into_par_iter().enumerate().for_each(|(task, part)| {
        let (tile, block) = (task / blocks, task % blocks);
        for lane in 0..lanes.min(tokens - tile * lanes) {
            let row = &x[(tile * lanes + lane) * cols + block * COLUMNS..];
            for (column, &value) in part.chunks_exact_mut(lines).zip(row) {
                column[lane / 16].0[lane % 16] = value;
            }
        }
    });
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::{Columns, Csr, Pattern};

    fn random(i: usize, salt: u64) -> f32 {
        let h = (i as u64 + 1).wrapping_mul(salt | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (h >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn all_simd() -> Vec<Simd> {
        let mut all = vec![Simd::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Simd::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                all.push(Simd::Avx512);
            }
        }
        all
    }

    /// Compares every code path with float64 at one shape; `keep` decides the pattern.
    fn check(rows: usize, cols: usize, tokens: usize, keep: impl Fn(usize) -> bool + Sync) {
        let weights: Vec<f32> = (0..rows * cols).map(|i| random(i, 11)).collect();
        let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| keep(i));
        let csr = Csr::from_dense(&weights, &pattern).unwrap();
        let bias: Vec<f32> = (0..rows).map(|i| random(i, 5)).collect();
        // One float in front, so that x is not aligned to anything.
        let x: Vec<f32> = (0..=tokens * cols).map(|i| random(i, 3)).collect();
        let x = &x[1..];
        let masked = pattern.apply(&weights);
        for simd in all_simd() {
            let y = match csr.columns() {
                // SAFETY: the arrays come from `Csr`.
                Columns::U16(c) => csr_linear(
                    &unsafe { CsrView::new_unchecked(cols, csr.row_ptr(), c, csr.values(), Some(&bias)) },
                    x,
                    tokens,
                    simd,
                ),
                // SAFETY: the arrays come from `Csr`.
                Columns::U32(c) => csr_linear(
                    &unsafe { CsrView::new_unchecked(cols, csr.row_ptr(), c, csr.values(), Some(&bias)) },
                    x,
                    tokens,
                    simd,
                ),
            };
            assert_eq!(y.len(), tokens * rows);
            for token in 0..tokens {
                for row in 0..rows {
                    let products =
                        (0..cols).map(|c| f64::from(masked[row * cols + c]) * f64::from(x[token * cols + c]));
                    let exact = f64::from(bias[row]) + products.clone().sum::<f64>();
                    let scale = 1.0 + products.map(f64::abs).sum::<f64>();
                    let got = f64::from(y[token * rows + row]);
                    assert!(
                        (got - exact).abs() <= 1e-6 * scale,
                        "{simd:?} {rows}x{cols} t={tokens} [{token},{row}]: {got} != {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn edges_match_float64() {
        for tokens in (0..=17).chain([31, 32, 33, 63, 64, 65, 100]) {
            check(33, 70, tokens, |i| i % 3 == 0);
        }
        for (rows, cols) in [(0, 8), (1, 1), (5, 1), (1, 200), (7, 33), (100, 16), (65, 0)] {
            for tokens in [1, 3, 4, 17] {
                check(rows, cols, tokens, |i| i % 2 == 0);
            }
        }
        for tokens in [1, 5, 70] {
            check(40, 50, tokens, |_| true);
            check(40, 50, tokens, |_| false);
            check(40, 50, tokens, |i| (i / 50) % 4 == 0);
            check(2, 70_000, tokens, |i| i % 911 == 0);
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (rows, cols, tokens) = (300, 257, 70);
        let weights: Vec<f32> = (0..rows * cols).map(|i| random(i, 11)).collect();
        let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| i % 5 < 2);
        let csr = Csr::from_dense(&weights, &pattern).unwrap();
        let Columns::U16(columns) = csr.columns() else { panic!("257 columns fit 16 bits") };
        let x: Vec<f32> = (0..tokens * cols).map(|i| random(i, 3)).collect();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // SAFETY: the arrays come from `Csr`.
            let view = unsafe { CsrView::new_unchecked(cols, csr.row_ptr(), columns, csr.values(), None) };
            pool.install(|| csr_linear(&view, &x, tokens, Simd::detect()))
        };
        assert_eq!(run(1), run(3));
    }
}
