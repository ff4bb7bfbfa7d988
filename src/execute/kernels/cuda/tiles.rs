//! Dense and bitmap weights times up to 64 tokens on tensor cores; 16-bit numbers, sums in f32.
//!
//! ```text
//!   dense    a lane loads its registers straight from the row-major matrix: 32 bytes of two rows a step
//!   bitmap   values ─> shared memory ─> the lane's registers, zeros where its mask has no bit
//!            the next tile's mask and values are on their way while one is multiplied
//! ```
//! Weights are read once, whatever the number of tokens. Columns are a multiple of 64; `x` has as many.

use super::fragments::{finish, multiply, token_starts, write_span, zero_sums};
use cubecl::prelude::*;

/// Numbers that the values of a tile take in shared memory for each 256 of them, and a few that a lane reads past
/// the end.
const PAST: usize = 8;

/// Dense `[rows, cols]` times `x` `[tokens, cols]`. A plane takes `tall` rows of tiles at a time, which share the inputs.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn dense_tiles<F: Float>(
    x: &Array<Vector<u32, Const<4>>>,
    weight: &Array<Vector<u32, Const<4>>>,
    bias: &Array<F>,
    y: &mut Array<F>,
    rows: u32,
    cols: u32,
    tokens: u32,
    #[comptime] planes: u32,
    #[comptime] tall: u32,
    #[comptime] blocks: usize,
    #[comptime] has_bias: bool,
    #[define(F)] _dtype: StorageType,
) {
    let lane = UNIT_POS_X % 32;
    let eighths = cols / 8;
    let row0 = CUBE_POS_X * comptime!(16 * tall);
    // Where the lane's rows begin, an upper and a lower one of every tile.
    let mut lines = Sequence::<u32>::new();
    #[unroll]
    for half in 0..comptime!(2 * tall) {
        let row = row0 + comptime!(8 * half) + lane / 4;
        // Rows after the last read the last one's weights: their sums are not written.
        lines.push(select(row < rows, row, rows - 1) * eighths + 2 * (lane % 4));
    }
    let starts = token_starts(tokens, eighths, lane, blocks);
    let mut all = zero_sums(comptime!(blocks * tall as usize));
    let mut span = UNIT_POS_X / 32;
    while span < cols / 64 {
        let at = span * 8;
        let mut w = Sequence::<Vector<u32, Const<4>>>::new();
        #[unroll]
        for half in 0..comptime!(2 * tall as usize) {
            w.push(weight[(*lines.index(half) + at) as usize]);
            w.push(weight[(*lines.index(half) + at + 1) as usize]);
        }
        #[unroll]
        for block in 0..blocks {
            let (x0, x1) = (x[(starts[block] + at) as usize], x[(starts[block] + at + 1) as usize]);
            #[unroll]
            for tile in 0..comptime!(tall as usize) {
                let (u0, u1) = (*w.index(comptime!(4 * tile)), *w.index(comptime!(4 * tile + 1)));
                let (l0, l1) = (*w.index(comptime!(4 * tile + 2)), *w.index(comptime!(4 * tile + 3)));
                let sums = all.index_mut(comptime!(tile * blocks + block));
                multiply::<F>(u0[0], l0[0], u0[1], l0[1], x0[0], x0[1], sums);
                multiply::<F>(u0[2], l0[2], u0[3], l0[3], x0[2], x0[3], sums);
                multiply::<F>(u1[0], l1[0], u1[1], l1[1], x1[0], x1[1], sums);
                multiply::<F>(u1[2], l1[2], u1[3], l1[3], x1[2], x1[3], sums);
            }
        }
        span += planes;
    }
    #[unroll]
    for tile in 0..tall {
        let row = row0 + comptime!(16 * tile);
        finish::<F>(&all, bias, y, row, rows, tokens, planes, blocks, comptime!(tile as usize * blocks), has_bias);
    }
}

/// A bitmap weight ([`crate::sparse::BitTiles`]) times `x` `[tokens, cols]`; a tile has at most `chunks` times 256
/// values.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn bitmap_tiles<F: Float>(
    x: &Array<Vector<u32, Const<4>>>,
    masks: &Array<u32>,
    starts: &Array<u32>,
    values: &Array<Vector<u16, Const<8>>>,
    bias: &Array<F>,
    y: &mut Array<F>,
    rows: u32,
    cols: u32,
    tokens: u32,
    #[comptime] planes: u32,
    #[comptime] blocks: usize,
    #[comptime] chunks: u32,
    #[comptime] has_bias: bool,
    #[define(F)] _dtype: StorageType,
) {
    let lane = UNIT_POS_X % 32;
    let plane = UNIT_POS_X / 32;
    let eighths = cols / 8;
    let room = comptime!(chunks as usize * 256 + PAST);
    let mut stage = SharedMemory::<u16>::new_aligned(comptime!(planes as usize * room), 16usize);
    let mine = plane as usize * room;
    let token_at = token_starts(tokens, eighths, lane, blocks);
    let mut all = zero_sums(blocks);
    let tiles = cols / 64;
    let first = CUBE_POS_X * tiles;
    let mut tile = plane;
    let mut mask = 0u32;
    let mut from = 0u32;
    let mut count = 0u32;
    let mut held = Array::<Vector<u16, Const<8>>>::new(comptime!(chunks as usize));
    if tile < tiles {
        mask = masks[((first + tile) * 32 + lane) as usize];
        from = starts[(first + tile) as usize];
        count = starts[(first + tile + 1) as usize] - from;
    }
    fetch(values, from, count, lane, &mut held, chunks);
    while tile < tiles {
        store(&mut stage, mine, count, lane, &held, room, chunks);
        sync_plane();
        let bits = mask;
        let at = tile * 8;
        tile += planes;
        count = 0u32;
        if tile < tiles {
            mask = masks[((first + tile) * 32 + lane) as usize];
            from = starts[(first + tile) as usize];
            count = starts[(first + tile + 1) as usize] - from;
        }
        fetch(values, from, count, lane, &mut held, chunks);
        let squares = decode(&stage, mine as u32, bits, lane);
        #[unroll]
        for square in 0..4usize {
            let w = squares[square];
            #[unroll]
            for block in 0..blocks {
                let inputs = x[(token_at[block] + at + comptime!(square as u32 / 2)) as usize];
                let (b0, b1) = (inputs[comptime!(square % 2 * 2)], inputs[comptime!(square % 2 * 2 + 1)]);
                multiply::<F>(w[0], w[1], w[2], w[3], b0, b1, all.index_mut(block));
            }
        }
        sync_plane();
    }
    finish::<F>(&all, bias, y, CUBE_POS_X * 16, rows, tokens, planes, blocks, 0usize, has_bias);
}

/// A bitmap weight as a dense matrix `[rows, cols]`; a plane a tile.
#[cube(launch_unchecked)]
pub fn bitmap_expand(
    masks: &Array<u32>,
    starts: &Array<u32>,
    values: &Array<Vector<u16, Const<8>>>,
    dense: &mut Array<Vector<u32, Const<4>>>,
    rows: u32,
    cols: u32,
    #[comptime] planes: u32,
    #[comptime] chunks: u32,
) {
    let lane = UNIT_POS_X % 32;
    let plane = UNIT_POS_X / 32;
    let room = comptime!(chunks as usize * 256 + PAST);
    let mut stage = SharedMemory::<u16>::new_aligned(comptime!(planes as usize * room), 16usize);
    let mine = plane as usize * room;
    let tiles = cols / 64;
    let tile = CUBE_POS_X * planes + plane;
    if tile < tiles * rows.div_ceil(16) {
        let from = starts[tile as usize];
        let count = starts[tile as usize + 1] - from;
        let mut held = Array::<Vector<u16, Const<8>>>::new(comptime!(chunks as usize));
        fetch(values, from, count, lane, &mut held, chunks);
        store(&mut stage, mine, count, lane, &held, room, chunks);
        sync_plane();
        let squares = decode(&stage, mine as u32, masks[(tile * 32 + lane) as usize], lane);
        let at = tile % tiles * 8 + 2 * (lane % 4);
        write_span(dense, &squares, tile / tiles * 16 + lane / 4, rows, at, cols / 8);
    }
}

/// A tile's values into registers, eight at a time.
#[cube]
fn fetch(
    values: &Array<Vector<u16, Const<8>>>,
    from: u32,
    count: u32,
    lane: u32,
    held: &mut Array<Vector<u16, Const<8>>>,
    #[comptime] chunks: u32,
) {
    #[unroll]
    for chunk in 0..chunks {
        if chunk * 32 + lane < count {
            held[chunk as usize] = values[(from + chunk * 32 + lane) as usize];
        }
    }
}

/// And from there into the plane's part of shared memory.
#[cube]
fn store(
    stage: &mut SharedMemory<u16>,
    mine: usize,
    count: u32,
    lane: u32,
    held: &Array<Vector<u16, Const<8>>>,
    #[comptime] room: usize,
    #[comptime] chunks: u32,
) {
    let mut view = stage.slice_mut(mine, mine + room).into_vectorized().with_vector_size::<Const<8>>();
    #[unroll]
    for chunk in 0..chunks {
        if chunk * 32 + lane < count {
            view[(chunk * 32 + lane) as usize] = held[chunk as usize];
        }
    }
}

/// How many values of a tile come before a lane's.
#[derive(CubeType)]
pub struct Before {
    /// Those of the lanes before this one, a byte a square.
    lanes: u32,
    /// Those of the lanes before the last one.
    last_lanes: u32,
    /// Those of the last one.
    last: u32,
}

#[cube]
impl Before {
    /// The lane's first value of a square.
    pub fn of(&self, #[comptime] square: u32) -> u32 {
        let mut at = (self.lanes >> comptime!(8 * square)) & 255u32;
        #[unroll]
        for other in 0..square {
            at += ((self.last_lanes >> comptime!(8 * other)) & 255u32) + ((self.last >> comptime!(8 * other)) & 255u32);
        }
        at
    }
}

/// Counts the bits of the lanes before this one, for four squares at once.
#[cube]
pub fn before(bits: u32, lane: u32) -> Before {
    let twos = bits - ((bits >> 1) & 0x5555_5555u32);
    let fours = (twos & 0x3333_3333u32) + ((twos >> 2) & 0x3333_3333u32);
    let counts = (fours + (fours >> 4)) & 0x0f0f_0f0fu32;
    let mut upto = counts;
    #[unroll]
    for d in 0..5u32 {
        let other = plane_shuffle_up(upto, comptime!(1u32 << d));
        if lane >= comptime!(1u32 << d) {
            upto += other;
        }
    }
    // A sum of 256 overflows its byte into the next one; taking the own count off again borrows it back.
    let lanes = upto - counts;
    Before { lanes, last_lanes: plane_shuffle(lanes, 31), last: plane_shuffle(counts, 31) }
}

/// A lane's registers of the four squares of a tile.
#[cube]
fn decode(stage: &SharedMemory<u16>, mine: u32, bits: u32, lane: u32) -> Array<Vector<u32, Const<4>>> {
    let lanes = before(bits, lane);
    let mut squares = Array::<Vector<u32, Const<4>>>::new(4usize);
    #[unroll]
    for square in 0..4u32 {
        let mut next = mine + lanes.of(square);
        let byte = (bits >> comptime!(8 * square)) & 255u32;
        let mut registers = Vector::<u32, Const<4>>::empty();
        #[unroll]
        for register in 0..4usize {
            let mut low = 0u32;
            if byte & comptime!(1u32 << (2 * register) as u32) != 0 {
                low = u32::cast_from(stage[next as usize]);
                next += 1;
            }
            let mut high = 0u32;
            if byte & comptime!(2u32 << (2 * register) as u32) != 0 {
                high = u32::cast_from(stage[next as usize]);
                next += 1;
            }
            registers[register] = low + (high << 16);
        }
        squares[square as usize] = registers;
    }
    squares
}
