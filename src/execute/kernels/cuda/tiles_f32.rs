//! Bitmap weights of 32-bit numbers ([`crate::sparse::BitTiles`]) times few tokens, without tensor cores, which would
//! round them; and the same as a dense matrix.
//!
//! ```text
//!   a lane decodes its eight weights of a square, four columns of two rows, and multiplies them as they come
//!   four lanes share a row: their sums are added by shuffles, those of planes in shared memory, in order
//! ```

use super::tiles::{Before, before};
use cubecl::prelude::*;

/// The most tokens: each has two sums in registers.
pub const MOST_TOKENS: usize = 4;

/// `y = x · Wᵀ + bias`; `x` is `[tokens, cols]`, `cols` a multiple of 64; a tile has at most `chunks` times 128 values.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn bitmap_f32(
    x: &Array<Vector<f32, Const<4>>>,
    masks: &Array<u32>,
    starts: &Array<u32>,
    values: &Array<Vector<f32, Const<4>>>,
    bias: &Array<f32>,
    y: &mut Array<f32>,
    rows: u32,
    cols: u32,
    #[comptime] tokens: usize,
    #[comptime] planes: u32,
    #[comptime] chunks: u32,
    #[comptime] has_bias: bool,
) {
    let lane = UNIT_POS_X % 32;
    let plane = UNIT_POS_X / 32;
    let quarters = cols / 4;
    let mut stage = SharedMemory::<f32>::new_aligned(comptime!(planes as usize * chunks as usize * 128 + 1), 16usize);
    let mine = plane as usize * comptime!(chunks as usize * 128);
    let mut sums = Array::<f32>::new(comptime!(2 * tokens));
    #[unroll]
    for i in 0..comptime!(2 * tokens) {
        sums[i] = 0.0f32;
    }
    let tiles = cols / 64;
    let mut tile = plane;
    while tile < tiles {
        let at = CUBE_POS_X * tiles + tile;
        load(values, starts, at, lane, &mut stage, mine, chunks);
        sync_plane();
        let bits = masks[(at * 32 + lane) as usize];
        let lanes = before(bits, lane);
        #[unroll]
        for square in 0..4u32 {
            let (upper, lower) = decode(&stage, mine as u32, bits, &lanes, square);
            #[unroll]
            for token in 0..tokens {
                let inputs = x[token * quarters as usize + (tile * 16 + 4 * (lane % 4) + square) as usize];
                #[unroll]
                for i in 0..4usize {
                    sums[comptime!(2 * token)] += upper[i] * inputs[i];
                    sums[comptime!(2 * token + 1)] += lower[i] * inputs[i];
                }
            }
        }
        sync_plane();
        tile += planes;
    }
    // [plane][token][row]
    let width = comptime!(tokens * 16);
    let mut shared = SharedMemory::<f32>::new(comptime!(planes as usize * width));
    #[unroll]
    for i in 0..comptime!(2 * tokens) {
        let mut sum = sums[i];
        sum += plane_shuffle_xor(sum, 1);
        sum += plane_shuffle_xor(sum, 2);
        if lane & 3u32 == 0 {
            shared[plane as usize * width + comptime!(i / 2 * 16 + i % 2 * 8) + (lane / 4) as usize] = sum;
        }
    }
    sync_cube();
    if UNIT_POS_X < comptime!(width as u32) {
        let row = CUBE_POS_X * 16 + UNIT_POS_X % 16;
        if row < rows {
            let mut sum = 0.0f32;
            #[unroll]
            for p in 0..planes {
                sum += shared[comptime!(p as usize * width) + UNIT_POS_X as usize];
            }
            if comptime!(has_bias) {
                sum += bias[row as usize];
            }
            y[(UNIT_POS_X / 16 * rows + row) as usize] = sum;
        }
    }
}

/// A bitmap weight as a dense matrix `[rows, cols]`; a plane a tile.
#[cube(launch_unchecked)]
pub fn bitmap_f32_expand(
    masks: &Array<u32>,
    starts: &Array<u32>,
    values: &Array<Vector<f32, Const<4>>>,
    dense: &mut Array<Vector<f32, Const<4>>>,
    rows: u32,
    cols: u32,
    #[comptime] planes: u32,
    #[comptime] chunks: u32,
) {
    let lane = UNIT_POS_X % 32;
    let plane = UNIT_POS_X / 32;
    let mut stage = SharedMemory::<f32>::new_aligned(comptime!(planes as usize * chunks as usize * 128 + 1), 16usize);
    let mine = plane as usize * comptime!(chunks as usize * 128);
    let tiles = cols / 64;
    let tile = CUBE_POS_X * planes + plane;
    if tile < tiles * rows.div_ceil(16) {
        load(values, starts, tile, lane, &mut stage, mine, chunks);
        sync_plane();
        let bits = masks[(tile * 32 + lane) as usize];
        let lanes = before(bits, lane);
        let row = tile / tiles * 16 + lane / 4;
        #[unroll]
        for square in 0..4u32 {
            let (upper, lower) = decode(&stage, mine as u32, bits, &lanes, square);
            let at = tile % tiles * 16 + 4 * (lane % 4) + square;
            if row < rows {
                dense[(row * (cols / 4) + at) as usize] = upper;
            }
            if row + 8 < rows {
                dense[((row + 8) * (cols / 4) + at) as usize] = lower;
            }
        }
    }
}

/// A tile's values into the plane's part of shared memory, four at a time; starts count eights.
#[cube]
fn load(
    values: &Array<Vector<f32, Const<4>>>,
    starts: &Array<u32>,
    tile: u32,
    lane: u32,
    stage: &mut SharedMemory<f32>,
    mine: usize,
    #[comptime] chunks: u32,
) {
    let from = 2 * starts[tile as usize];
    let count = 2 * starts[tile as usize + 1] - from;
    let mut view =
        stage.slice_mut(mine, mine + comptime!(chunks as usize * 128)).into_vectorized().with_vector_size::<Const<4>>();
    #[unroll]
    for chunk in 0..chunks {
        if chunk * 32 + lane < count {
            view[(chunk * 32 + lane) as usize] = values[(from + chunk * 32 + lane) as usize];
        }
    }
}

/// A lane's weights of a square: four columns of its upper row, and of its lower one.
#[cube]
fn decode(
    stage: &SharedMemory<f32>,
    mine: u32,
    bits: u32,
    lanes: &Before,
    #[comptime] square: u32,
) -> (Vector<f32, Const<4>>, Vector<f32, Const<4>>) {
    let mut next = mine + lanes.of(square);
    let byte = (bits >> comptime!(8 * square)) & 255u32;
    let mut upper = Vector::<f32, Const<4>>::empty();
    let mut lower = Vector::<f32, Const<4>>::empty();
    #[unroll]
    for bit in 0..8usize {
        // Without branches: a compiler has run out of predicates. The place after the last value is there to read.
        let kept = (byte >> comptime!(bit as u32)) & 1u32;
        let weight = select(kept == 1, stage[next as usize], 0.0f32);
        next += kept;
        let slot = comptime!(bit / 4 * 2 + bit % 2);
        if comptime!(bit / 2 % 2 == 0) {
            upper[slot] = weight;
        } else {
            lower[slot] = weight;
        }
    }
    (upper, lower)
}
