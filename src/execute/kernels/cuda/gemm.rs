//! Dense product of many tokens with a weight, on the tensor cores: `y = x . weight^T + bias`.
//!
//! `x` is `[tokens, cols]`, `weight` `[rows, cols]`, `y` `[tokens, rows]`, all row-major; 16-bit values, sums in `f32`.
//! It knows arrays of numbers and tiles, not models, formats or when another path is faster.
//!
//! # One cube
//!
//! A cube makes a tile of `y`; its planes share it as a grid, and every plane keeps its part in registers:
//!
//! ```text
//!                     tile.rows (weight rows)
//!                  +-----------+-----------+
//!                  | plane 0   | plane 1   |      a plane: squares of 16 tokens x 8 rows,
//!     tile.tokens  +-----------+-----------+      one matrix instruction a square and 16 columns
//!                  | plane 2   | plane 3   |
//!                  +-----------+-----------+
//! ```
//!
//! It goes through the columns 64 at a time. A ring of `tile.stages` slots in shared memory holds the inputs of as many
//! steps, filled by the bulk copy engine while earlier steps are multiplied:
//!
//! ```text
//!     slot:  [ weight: tile.rows x 64 | tokens: tile.tokens x 64 ]   a line is 64 values, 8 chunks of 16 bytes
//!     line r keeps its chunk c at place c ^ (r % 8)      so that equal chunks of 8 lines lie in different banks
//! ```
//!
//! A barrier a slot says when its bytes have arrived. Inside a step, the fragments of the next 16 columns are read
//! while those of the last are multiplied; the last quarter of a step begins the next slot, and hands its own back to
//! the copy engine.
//!
//! # Few tiles
//!
//! When there are fewer tiles than multiprocessors, the columns are cut into parts (`CUBE_POS_Z`), each part writes its
//! sums to its own plane of `parts`, and [`add_parts`] adds them up in the order of the parts: the same bytes in
//! every run.

use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

/// Columns of a step: a line of 64 two-byte values is the widest that the copy engine spreads over the banks.
pub const STEP: u32 = 64;

/// How a cube and its planes divide the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Weight rows of a cube, at most 256.
    pub rows: u32,
    /// Tokens of a cube, at most 256.
    pub tokens: u32,
    /// Planes along the rows; `rows / planes_rows` is a multiple of 16.
    pub planes_rows: u32,
    /// Planes along the tokens; `tokens / planes_tokens` is a multiple of 16.
    pub planes_tokens: u32,
    /// Slots of the ring, at least 2.
    pub stages: u32,
}

impl Tile {
    /// Units of a cube.
    pub const fn units(&self) -> u32 {
        32 * self.planes_rows * self.planes_tokens
    }

    /// Weight rows of a plane.
    const fn plane_rows(&self) -> u32 {
        self.rows / self.planes_rows
    }

    /// Tokens of a plane.
    const fn plane_tokens(&self) -> u32 {
        self.tokens / self.planes_tokens
    }

    /// Squares of a plane along the tokens.
    const fn squares_tokens(&self) -> u32 {
        self.plane_tokens() / 16
    }

    /// Squares of a plane along the rows, an even number.
    const fn squares_rows(&self) -> u32 {
        self.plane_rows() / 8
    }

    /// Values of a slot.
    const fn slot(&self) -> u32 {
        (self.rows + self.tokens) * STEP
    }

    /// Bytes of shared memory that a cube needs, the barriers not counted.
    pub const fn shared_bytes(&self) -> u32 {
        2 * self.stages * self.slot()
    }
}

type Fragments<F> = Sequence<Array<Vector<F, Const<2>>>>;
type Sums = Sequence<Array<Vector<f32, Const<2>>>>;

/// One tile of `y`, or of one part of it.
///
/// `CUBE_POS_X` counts tiles of tokens, `CUBE_POS_Y` tiles of rows, `CUBE_POS_Z` parts of the columns; `steps` is
/// `cols / 64`, of which a part takes `part_steps` (no part is empty). `x` and `weight` are tensor maps with boxes of
/// `[tile.tokens, 64]` and `[tile.rows, 64]`, 128-byte swizzle and zero fill. With `split`, sums go to `parts`
/// `[parts, tokens, rows]` and `y` and `bias` are not touched, else `parts` is not. `wide` says that `rows` is a
/// multiple of 8.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn gemm<F: Float>(
    x: &TensorMap<F, Tiled>,
    weight: &TensorMap<F, Tiled>,
    bias: &Array<F>,
    y: &mut Array<F>,
    parts: &mut Array<f32>,
    rows: u32,
    tokens: u32,
    steps: u32,
    part_steps: u32,
    #[comptime] tile: Tile,
    #[comptime] has_bias: bool,
    #[comptime] split: bool,
    #[comptime] wide: bool,
    #[define(F)] _dtype: StorageType,
) {
    let token0 = CUBE_POS_X * comptime!(tile.tokens);
    let row0 = CUBE_POS_Y * comptime!(tile.rows);
    let first = CUBE_POS_Z * part_steps;
    let end = first + u32::min(steps - first, part_steps);

    let mut ring = SharedMemory::<F>::new_aligned(comptime!((tile.stages * tile.slot()) as usize), 1024usize);
    let arrived = barriers(comptime!(tile.stages));
    #[unroll]
    for slot in 0..tile.stages {
        if first + slot < end {
            fill::<F>(x, weight, &mut ring, &arrived, slot, first + slot, row0, token0, tile);
        }
    }

    let mut sums = zeros(comptime!((tile.squares_tokens() * tile.squares_rows()) as usize));
    accumulate::<F>(x, weight, &mut ring, &arrived, &mut sums, first, end, row0, token0, tile);

    if comptime!(split) {
        write_part(&sums, parts, row0, token0, rows, tokens, wide, tile);
    } else {
        stage_tile::<F>(&sums, bias, &mut ring, row0, rows, has_bias, tile);
        sync_cube();
        write_tile::<F>(&ring, y, row0, token0, rows, tokens, wide, tile);
    }
}

/// `y = bias + the sum over p of parts[p]`, in the order of p; `N` outputs a unit, `rows` a multiple of it.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn add_parts<F: Float, N: Size>(
    parts: &Array<Vector<f32, N>>,
    bias: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    count: u32,
    row_groups: u32,
    outputs: u32,
    #[comptime] has_bias: bool,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS_X;
    if at < outputs {
        let mut sum = parts[at as usize];
        for p in 1..count {
            sum += parts[(p * outputs + at) as usize];
        }
        if comptime!(has_bias) {
            sum += Vector::<f32, N>::cast_from(bias[(at % row_groups) as usize]);
        }
        y[at as usize] = Vector::<F, N>::cast_from(sum);
    }
}

/// Adds the products of the steps from `first` to `end`, whose first ones are on their way to the ring.
#[cube]
#[allow(clippy::too_many_arguments)]
fn accumulate<F: Float>(
    x: &TensorMap<F, Tiled>,
    weight: &TensorMap<F, Tiled>,
    ring: &mut SharedMemory<F>,
    arrived: &Sequence<Shared<Barrier>>,
    sums: &mut Sums,
    first: u32,
    end: u32,
    row0: u32,
    token0: u32,
    #[comptime] tile: Tile,
) {
    // Two sets of fragments, one read while the other is multiplied.
    let mut tf = fragments::<F>(comptime!(2 * tile.squares_tokens() as usize));
    let mut wf = fragments::<F>(comptime!(tile.squares_rows() as usize));
    let t_lane = tokens_lane(tile);
    let w_lane = rows_lane(tile);

    let mut slot = 0u32;
    let mut phase = 0u32;
    wait(arrived, slot, phase, comptime!(tile.stages));
    read::<F>(ring, &mut tf, &mut wf, t_lane, w_lane, 0usize, tile);
    let mut step = first;
    while step < end {
        let base = slot * comptime!(tile.slot());
        #[unroll]
        for quarter in 0..4u32 {
            let set = comptime!((quarter % 2) as usize);
            let other = comptime!(1 - set);
            if comptime!(quarter < 3) {
                // Chunk 2 q + h of a line is at (2 q + h) ^ flip, which is 2 q ^ (h ^ flip).
                let shift = comptime!((quarter + 1) * 16);
                read::<F>(ring, &mut tf, &mut wf, base + (t_lane ^ shift), base + (w_lane ^ shift), other, tile);
            } else {
                let used = slot;
                slot += 1;
                if slot == comptime!(tile.stages) {
                    slot = 0u32;
                    phase ^= 1;
                }
                if step + 1 < end {
                    wait(arrived, slot, phase, comptime!(tile.stages));
                }
                // Every plane has read the slot to its end: it may be filled anew.
                sync_cube();
                let refill = step + comptime!(tile.stages);
                if refill < end {
                    fill::<F>(x, weight, ring, arrived, used, refill, row0, token0, tile);
                }
                if step + 1 < end {
                    let next = slot * comptime!(tile.slot());
                    read::<F>(ring, &mut tf, &mut wf, next + t_lane, next + w_lane, other, tile);
                }
            }
            multiply::<F>(&tf, &wf, sums, set, tile);
        }
        step += 1;
    }
}

/// The first of the cube's weight rows that are the plane's.
#[cube]
fn plane_row(#[comptime] tile: Tile) -> u32 {
    UNIT_POS_X / 32 % comptime!(tile.planes_rows) * comptime!(tile.plane_rows())
}

/// The first of the cube's tokens that are the plane's.
#[cube]
fn plane_token(#[comptime] tile: Tile) -> u32 {
    UNIT_POS_X / 32 / comptime!(tile.planes_rows) * comptime!(tile.plane_tokens())
}

/// Where in a slot the chunk of tokens lies that this lane names when its plane reads four 8 x 8 matrices.
#[cube]
fn tokens_lane(#[comptime] tile: Tile) -> u32 {
    let lane = UNIT_POS_X % 32;
    let line = plane_token(tile) + lane % 16;
    comptime!(tile.rows * STEP) + line * STEP + (((lane / 16) ^ (lane % 8)) * 8)
}

/// Where in a slot the chunk of weight rows lies that this lane names, as [`tokens_lane`].
#[cube]
fn rows_lane(#[comptime] tile: Tile) -> u32 {
    let lane = UNIT_POS_X % 32;
    let line = plane_row(tile) + lane % 8 + lane / 16 * 8;
    line * STEP + (((lane / 8 % 2) ^ (lane % 8)) * 8)
}

/// A barrier a slot, each waiting for one arrival and the bytes that it announces.
#[cube]
fn barriers(#[comptime] count: u32) -> Sequence<Shared<Barrier>> {
    let mut all = Sequence::<Shared<Barrier>>::new();
    #[unroll]
    for _ in 0..count {
        all.push(Barrier::shared_uninit());
    }
    if UNIT_POS_X == 0 {
        #[unroll]
        for i in 0..count {
            all.index(i as usize).init_manual(1u32);
        }
        sync_async_proxy_shared();
    }
    sync_cube();
    all
}

/// Waits until the bytes of `slot` are there. Barriers have no addresses: the slot is found by comparing.
#[cube]
fn wait(arrived: &Sequence<Shared<Barrier>>, slot: u32, phase: u32, #[comptime] stages: u32) {
    #[unroll]
    for s in 0..stages {
        if slot == s {
            arrived.index(s as usize).wait_parity(phase);
        }
    }
}

/// Begins to fill `slot` with the inputs of `step`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn fill<F: Float>(
    x: &TensorMap<F, Tiled>,
    weight: &TensorMap<F, Tiled>,
    ring: &mut SharedMemory<F>,
    arrived: &Sequence<Shared<Barrier>>,
    slot: u32,
    step: u32,
    row0: u32,
    token0: u32,
    #[comptime] tile: Tile,
) {
    if UNIT_POS_X == 0 {
        #[unroll]
        for s in 0..tile.stages {
            if slot == s {
                let barrier = arrived.index(s as usize);
                let _arrival = barrier.arrive_and_expect_tx(1u32, comptime!(2 * tile.slot()));
                let at = comptime!((s * tile.slot()) as usize);
                let middle = comptime!((s * tile.slot() + tile.rows * STEP) as usize);
                let end = comptime!(((s + 1) * tile.slot()) as usize);
                copy::<F>(weight, barrier, &mut ring.slice_mut(at, middle), row0, step);
                copy::<F>(x, barrier, &mut ring.slice_mut(middle, end), token0, step);
            }
        }
    }
}

/// Begins to copy a step's columns of the lines from `line` on; lines after the last one are zeros.
#[cube]
fn copy<F: Float>(from: &TensorMap<F, Tiled>, barrier: &Barrier, to: &mut SliceMut<F>, line: u32, step: u32) {
    barrier.tma_load_2d(from, to, line as i32, (step * STEP) as i32);
}

/// Reads the fragments of 16 columns into a set.
#[cube]
fn read<F: Float>(
    ring: &SharedMemory<F>,
    tf: &mut Fragments<F>,
    wf: &mut Fragments<F>,
    tokens_at: u32,
    rows_at: u32,
    #[comptime] set: usize,
    #[comptime] tile: Tile,
) {
    let unit = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let (squares_t, pairs_r) = comptime!((tile.squares_tokens() as usize, (tile.squares_rows() / 2) as usize));
    #[unroll]
    for t in 0..squares_t {
        let at = (tokens_at + comptime!(t as u32 * 16 * STEP)) as usize;
        unit.load_matrix_inplace(
            &ring.slice(at, at + 8),
            tf.index_mut(comptime!(set * squares_t + t)),
            MatrixIdent::A,
            4usize,
            false,
        );
    }
    #[unroll]
    for r in 0..pairs_r {
        let at = (rows_at + comptime!(r as u32 * 16 * STEP)) as usize;
        unit.load_matrix_inplace(
            &ring.slice(at, at + 8),
            wf.index_mut(comptime!(set * pairs_r + r)),
            MatrixIdent::B,
            4usize,
            false,
        );
    }
}

/// Adds the products of a set's 16 columns to the sums.
#[cube]
fn multiply<F: Float>(
    tf: &Fragments<F>,
    wf: &Fragments<F>,
    sums: &mut Sums,
    #[comptime] set: usize,
    #[comptime] tile: Tile,
) {
    let unit = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let (squares_t, squares_r) = comptime!((tile.squares_tokens() as usize, tile.squares_rows() as usize));
    #[unroll]
    for t in 0..squares_t {
        let a = tf.index(comptime!(set * squares_t + t));
        #[unroll]
        for r in 0..squares_r {
            let pair = wf.index(comptime!((set * squares_r + r) / 2));
            let mut b = Array::<Vector<F, Const<2>>>::new(2usize);
            b[0] = pair[comptime!(r % 2 * 2)];
            b[1] = pair[comptime!(r % 2 * 2 + 1)];
            unit.execute_inplace(a, &b, sums.index_mut(comptime!(t * squares_r + r)));
        }
    }
}

/// Writes a plane's sums to its part: pairs of rows, 32 bytes of a token from four neighbouring lanes.
#[cube]
#[allow(clippy::too_many_arguments)]
fn write_part(
    sums: &Sums,
    parts: &mut Array<f32>,
    row0: u32,
    token0: u32,
    rows: u32,
    tokens: u32,
    #[comptime] wide: bool,
    #[comptime] tile: Tile,
) {
    let (squares_t, squares_r) = comptime!((tile.squares_tokens() as usize, tile.squares_rows() as usize));
    let (first_row, first_token) = (row0 + plane_row(tile), token0 + plane_token(tile));
    let (g, q) = (UNIT_POS_X % 32 / 4, UNIT_POS_X % 4);
    #[unroll]
    for t in 0..squares_t {
        #[unroll]
        for half in 0..2usize {
            let token = first_token + comptime!((16 * t + 8 * half) as u32) + g;
            let line = (CUBE_POS_Z * tokens + token) * rows;
            #[unroll]
            for r in 0..squares_r {
                let row = first_row + comptime!(8 * r as u32) + 2 * q;
                let pair = sums.index(comptime!(t * squares_r + r))[half];
                if token < tokens {
                    if comptime!(wide) {
                        if row < rows {
                            let mut view = parts.to_slice_mut().into_vectorized().with_vector_size::<Const<2>>();
                            view[((line + row) / 2) as usize] = pair;
                        }
                    } else {
                        if row < rows {
                            parts[(line + row) as usize] = pair[0];
                        }
                        if row + 1 < rows {
                            parts[(line + row + 1) as usize] = pair[1];
                        }
                    }
                }
            }
        }
    }
}

/// Rounds a plane's sums into shared memory, `[tile.tokens][tile.rows + 8]`: the 8 keep lanes in different banks.
#[cube]
#[allow(clippy::too_many_arguments)]
fn stage_tile<F: Float>(
    sums: &Sums,
    bias: &Array<F>,
    ring: &mut SharedMemory<F>,
    row0: u32,
    rows: u32,
    #[comptime] has_bias: bool,
    #[comptime] tile: Tile,
) {
    let (squares_t, squares_r) = comptime!((tile.squares_tokens() as usize, tile.squares_rows() as usize));
    let (first_row, first_token) = (plane_row(tile), plane_token(tile));
    let (g, q) = (UNIT_POS_X % 32 / 4, UNIT_POS_X % 4);
    let mut view = ring.to_slice_mut().into_vectorized().with_vector_size::<Const<2>>();
    #[unroll]
    for r in 0..squares_r {
        let row = first_row + comptime!(8 * r as u32) + 2 * q;
        let mut add = Vector::<f32, Const<2>>::new(0.0f32);
        if comptime!(has_bias) {
            add[0] = f32::cast_from(bias[u32::min(row0 + row, rows - 1) as usize]);
            add[1] = f32::cast_from(bias[u32::min(row0 + row + 1, rows - 1) as usize]);
        }
        #[unroll]
        for t in 0..squares_t {
            #[unroll]
            for half in 0..2usize {
                let token = first_token + comptime!((16 * t + 8 * half) as u32) + g;
                let pair = sums.index(comptime!(t * squares_r + r))[half] + add;
                let at = ((token * comptime!(tile.rows + 8) + row) / 2) as usize;
                view[at] = Vector::<F, Const<2>>::cast_from(pair);
            }
        }
    }
}

/// Writes the staged tile, eight rows of a token a unit.
#[cube]
#[allow(clippy::too_many_arguments)]
fn write_tile<F: Float>(
    ring: &SharedMemory<F>,
    y: &mut Array<F>,
    row0: u32,
    token0: u32,
    rows: u32,
    tokens: u32,
    #[comptime] wide: bool,
    #[comptime] tile: Tile,
) {
    let mut i = UNIT_POS_X;
    while i < comptime!(tile.tokens * tile.rows / 8) {
        let (t, r) = (i / comptime!(tile.rows / 8), i % comptime!(tile.rows / 8) * 8);
        let (token, row) = (token0 + t, row0 + r);
        if token < tokens {
            let from = t * comptime!(tile.rows + 8) + r;
            let to = token * rows + row;
            if comptime!(wide) {
                if row < rows {
                    let staged = ring.to_slice().into_vectorized().with_vector_size::<Const<8>>();
                    let mut view = y.to_slice_mut().into_vectorized().with_vector_size::<Const<8>>();
                    view[(to / 8) as usize] = staged[(from / 8) as usize];
                }
            } else {
                #[unroll]
                for j in 0..8u32 {
                    if row + j < rows {
                        y[(to + j) as usize] = ring[(from + j) as usize];
                    }
                }
            }
        }
        i += comptime!(tile.units());
    }
}

#[cube]
fn fragments<F: Float>(#[comptime] count: usize) -> Fragments<F> {
    let mut all = Sequence::<Array<Vector<F, Const<2>>>>::new();
    #[unroll]
    for _ in 0..count {
        all.push(Array::<Vector<F, Const<2>>>::new(4usize));
    }
    all
}

#[cube]
fn zeros(#[comptime] count: usize) -> Sums {
    let mut all = Sequence::<Array<Vector<f32, Const<2>>>>::new();
    #[unroll]
    for _ in 0..count {
        let mut sums = Array::<Vector<f32, Const<2>>>::new(2usize);
        sums[0] = Vector::new(0.0f32);
        sums[1] = Vector::new(0.0f32);
        all.push(sums);
    }
    all
}
