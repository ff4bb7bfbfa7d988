//! Dense products of 32-bit numbers by fused multiply-adds: tensor cores would round the inputs to 19 bits.
//!
//! ```text
//!   few tokens    a cube four rows; its planes share the columns, a lane loads four at a time
//!   many tokens   a cube a block of y: 16 columns of both inputs at a time in shared memory, columns by columns,
//!                 the next 16 on their way in registers; a unit has 8 x 8 or 4 x 4 of the block's sums
//! ```
//! Sums are added in one order, whatever the device does first.

use cubecl::prelude::*;

/// Rows that a cube of [`fma_rows`] takes.
pub const ROWS: usize = 4;
/// Planes of a cube of [`fma_rows`].
pub const PLANES: usize = 8;
/// The most tokens of [`fma_rows`]: each has [`ROWS`] sums in registers.
pub const MOST_TOKENS: usize = 16;

/// Columns of a step of [`fma_blocks`].
pub const STEP: u32 = 16;
/// Floats between the ends of lines in shared memory, so that fewer stores meet in a bank.
const PAD: u32 = 4;

/// The part of `y` that a cube of [`fma_blocks`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// Weight rows, a multiple of `4 * unit`.
    pub rows: u32,
    /// Tokens, likewise.
    pub tokens: u32,
    /// Rows and tokens of a unit, a multiple of 4.
    pub unit: u32,
}

impl Block {
    /// Units of a cube.
    pub const fn units(&self) -> u32 {
        self.rows / self.unit * (self.tokens / self.unit)
    }
}

/// `y[token, row] = bias[row] + Σ weight[row, column] · x[token, column]`; `vectors` of `N` columns a row.
///
/// Launched for `tokens` or fewer: those after the last read the last one's inputs and are not written.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn fma_rows<N: Size>(
    x: &Array<Vector<f32, N>>,
    weight: &Array<Vector<f32, N>>,
    bias: &Array<f32>,
    y: &mut Array<f32>,
    rows: u32,
    count: u32,
    vectors: u32,
    #[comptime] tokens: usize,
    #[comptime] vector: usize,
    #[comptime] has_bias: bool,
) {
    let lane = UNIT_POS_X % 32;
    let plane = UNIT_POS_X / 32;
    let row0 = CUBE_POS_X * comptime!(ROWS as u32);
    let mut sums = Array::<f32>::new(comptime!(ROWS * tokens));
    #[unroll]
    for i in 0..comptime!(ROWS * tokens) {
        sums[i] = 0.0f32;
    }
    let mut at = UNIT_POS_X;
    while at < vectors {
        let mut weights = Array::<Vector<f32, N>>::new(ROWS);
        #[unroll]
        for row in 0..ROWS {
            let line = u32::min(row0 + comptime!(row as u32), rows - 1);
            weights[row] = weight[(line * vectors + at) as usize];
        }
        #[unroll]
        for token in 0..tokens {
            let line = u32::min(comptime!(token as u32), count - 1);
            let inputs = x[(line * vectors + at) as usize];
            #[unroll]
            for row in 0..ROWS {
                let these = weights[row];
                #[unroll]
                for e in 0..vector {
                    sums[comptime!(token * ROWS + row)] += these[e] * inputs[e];
                }
            }
        }
        at += comptime!(32 * PLANES as u32);
    }
    // [plane][token][row]
    let width = comptime!(ROWS * tokens);
    let mut shared = SharedMemory::<f32>::new(comptime!(PLANES * width));
    #[unroll]
    for i in 0..width {
        let mut sum = sums[i];
        sum += plane_shuffle_xor(sum, 16);
        sum += plane_shuffle_xor(sum, 8);
        sum += plane_shuffle_xor(sum, 4);
        sum += plane_shuffle_xor(sum, 2);
        sum += plane_shuffle_xor(sum, 1);
        if lane == 0 {
            shared[plane as usize * width + i] = sum;
        }
    }
    sync_cube();
    if UNIT_POS_X < comptime!(width as u32) {
        let (token, row) = (UNIT_POS_X / comptime!(ROWS as u32), row0 + UNIT_POS_X % comptime!(ROWS as u32));
        if token < count && row < rows {
            let mut sum = 0.0f32;
            #[unroll]
            for p in 0..PLANES {
                sum += shared[comptime!(p * width) + UNIT_POS_X as usize];
            }
            if comptime!(has_bias) {
                sum += bias[row as usize];
            }
            y[(token * rows + row) as usize] = sum;
        }
    }
}

/// One block of `y`, or of one part of it: as [`fma_rows`], or, with `split`, the sums of the columns of part
/// `CUBE_POS_Z` to `y` as `[parts, tokens, rows]`.
///
/// `CUBE_POS_X` counts blocks of tokens, `CUBE_POS_Y` blocks of rows; a part takes `part` columns, a multiple of the
/// step. `vector` divides `cols`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn fma_blocks<N: Size>(
    x: &Array<Vector<f32, N>>,
    weight: &Array<Vector<f32, N>>,
    bias: &Array<f32>,
    y: &mut Array<f32>,
    rows: u32,
    tokens: u32,
    cols: u32,
    part: u32,
    #[comptime] block: Block,
    #[comptime] vector: u32,
    #[comptime] has_bias: bool,
    #[comptime] split: bool,
) {
    let (token0, row0) = (CUBE_POS_X * comptime!(block.tokens), CUBE_POS_Y * comptime!(block.rows));
    let first = CUBE_POS_Z * part;
    let end = u32::min(first + part, cols);
    let unit = comptime!(block.unit);
    let across = comptime!(block.rows / block.unit);
    let mine = (UNIT_POS_X % across * 4, UNIT_POS_X / across * 4);

    let mut lines = SharedMemory::<f32>::new_aligned(comptime!(2 * buffer_floats(block) as usize), 16usize);
    let mut sums = Array::<f32>::new(comptime!((unit * unit) as usize));
    #[unroll]
    for i in 0..comptime!((unit * unit) as usize) {
        sums[i] = 0.0f32;
    }
    let w_loads = comptime!((block.rows * STEP / vector).div_ceil(block.units()));
    let x_loads = comptime!((block.tokens * STEP / vector).div_ceil(block.units()));
    let mut w_next = Array::<Vector<f32, N>>::new(comptime!(w_loads as usize));
    let mut x_next = Array::<Vector<f32, N>>::new(comptime!(x_loads as usize));

    load(weight, &mut w_next, row0, rows, first, end, cols, comptime!(block.rows), vector, comptime!(block.units()));
    load(x, &mut x_next, token0, tokens, first, end, cols, comptime!(block.tokens), vector, comptime!(block.units()));
    let mut buffer = 0u32;
    let mut column = first;
    while column < end {
        let w_at = buffer * comptime!(buffer_floats(block));
        let x_at = w_at + comptime!(STEP * (block.rows + PAD));
        store(&mut lines, &w_next, w_at, comptime!(block.rows), vector, comptime!(block.units()));
        store(&mut lines, &x_next, x_at, comptime!(block.tokens), vector, comptime!(block.units()));
        // The other buffer is only written once every unit is past this, and so done with it.
        sync_cube();
        column += STEP;
        let units = comptime!(block.units());
        load(weight, &mut w_next, row0, rows, column, end, cols, comptime!(block.rows), vector, units);
        load(x, &mut x_next, token0, tokens, column, end, cols, comptime!(block.tokens), vector, units);
        multiply(&lines, &mut sums, w_at + mine.0, x_at + mine.1, block);
        buffer = 1 - buffer;
    }
    write(&sums, bias, y, row0 + mine.0, token0 + mine.1, rows, tokens, block, has_bias, split);
}

/// Floats of a buffer.
const fn buffer_floats(block: Block) -> u32 {
    STEP * (block.rows + block.tokens + 2 * PAD)
}

/// A unit's share of 16 columns of a block's lines; zeros after the last line and the last column.
#[cube]
#[allow(clippy::too_many_arguments)]
fn load<N: Size>(
    from: &Array<Vector<f32, N>>,
    to: &mut Array<Vector<f32, N>>,
    line0: u32,
    lines: u32,
    column: u32,
    end: u32,
    cols: u32,
    #[comptime] count: u32,
    #[comptime] vector: u32,
    #[comptime] units: u32,
) {
    let (pieces, per_line) = comptime!((count * STEP / vector, STEP / vector));
    #[unroll]
    for i in 0..comptime!(pieces.div_ceil(units)) {
        let piece = UNIT_POS_X + comptime!(i * units);
        let (line, at) = (line0 + piece / per_line, column + piece % per_line * vector);
        let mut loaded = Vector::<f32, N>::new(0.0f32);
        if line < lines && at < end && piece < pieces {
            loaded = from[(line * (cols / vector) + at / vector) as usize];
        }
        to[i as usize] = loaded;
    }
}

/// Writes what [`load`] loaded to shared memory, `[column][line]`.
#[cube]
fn store<N: Size>(
    lines: &mut SharedMemory<f32>,
    from: &Array<Vector<f32, N>>,
    at: u32,
    #[comptime] count: u32,
    #[comptime] vector: u32,
    #[comptime] units: u32,
) {
    let (pieces, per_line) = comptime!((count * STEP / vector, STEP / vector));
    #[unroll]
    for i in 0..comptime!(pieces.div_ceil(units)) {
        let piece = UNIT_POS_X + comptime!(i * units);
        if piece < pieces {
            let loaded = from[i as usize];
            let to = at + piece % per_line * comptime!(vector * (count + PAD)) + piece / per_line;
            #[unroll]
            for e in 0..vector {
                lines[(to + comptime!(e * (count + PAD))) as usize] = loaded[e as usize];
            }
        }
    }
}

/// Adds the products of 16 columns: a unit has fours of rows and of tokens, apart by a fraction of the block.
#[cube]
fn multiply(lines: &SharedMemory<f32>, sums: &mut Array<f32>, w_at: u32, x_at: u32, #[comptime] block: Block) {
    let (unit, fours) = comptime!((block.unit as usize, block.unit as usize / 4));
    let view = lines.to_slice().into_vectorized().with_vector_size::<Const<4>>();
    #[unroll]
    for k in 0..STEP {
        let mut weights = Array::<Vector<f32, Const<4>>>::new(fours);
        #[unroll]
        for four in 0..fours {
            let apart = comptime!(k * (block.rows + PAD) + four as u32 * (block.rows / fours as u32));
            weights[four] = view[((w_at + apart) / 4) as usize];
        }
        #[unroll]
        for four in 0..fours {
            let apart = comptime!(k * (block.tokens + PAD) + four as u32 * (block.tokens / fours as u32));
            let inputs = view[((x_at + apart) / 4) as usize];
            #[unroll]
            for t in 0..4usize {
                #[unroll]
                for row in 0..unit {
                    let these = weights[comptime!(row / 4)];
                    sums[comptime!((four * 4 + t) * unit + row)] += these[comptime!(row % 4)] * inputs[t];
                }
            }
        }
    }
}

#[cube]
#[allow(clippy::too_many_arguments)]
fn write(
    sums: &Array<f32>,
    bias: &Array<f32>,
    y: &mut Array<f32>,
    row0: u32,
    token0: u32,
    rows: u32,
    tokens: u32,
    #[comptime] block: Block,
    #[comptime] has_bias: bool,
    #[comptime] split: bool,
) {
    let (unit, fours) = comptime!((block.unit as usize, block.unit / 4));
    #[unroll]
    for t in 0..unit {
        let token = token0 + comptime!(t as u32 / 4 * (block.tokens / fours) + t as u32 % 4);
        #[unroll]
        for r in 0..unit {
            let row = row0 + comptime!(r as u32 / 4 * (block.rows / fours) + r as u32 % 4);
            if token < tokens && row < rows {
                let mut sum = sums[comptime!(t * unit + r)];
                if comptime!(has_bias && !split) {
                    sum += bias[row as usize];
                }
                y[((CUBE_POS_Z * tokens + token) * rows + row) as usize] = sum;
            }
        }
    }
}
