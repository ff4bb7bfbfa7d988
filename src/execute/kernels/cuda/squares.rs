//! Weights in squares ([`crate::sparse::Squares`]) times up to 64 tokens on tensor cores; 16-bit numbers, sums in f32.
//!
//! ```text
//!   chunks ─> registers ─> scattered over a tile of zeros in shared memory ─> the tensor core's registers
//!
//!   a plane's tile  [8 squares][32 lanes][8 weights]: a lane loads 16 bytes a square
//!   and cleans up after itself: few entries are scattered again as zeros, of many the whole tile is
//! ```
//! The next tiles' chunks are on their way while one is multiplied. Weights are read once, whatever the number of
//! tokens. Columns are a multiple of 128; `x` has as many.
//!
//! What bounds it is the L1 cache, which is shared memory too. Counted on an H200, 11008 x 4096, 70 % zeros, sixteen
//! tokens: 161 rounds for a tile of 2048 weights, 33 of them to load it, 32 to clear it, 37 to scatter the entries and
//! 59 to bring entries and inputs; four fifths of the time that multiprocessors work at all. Sharing the tiles out
//! evenly over multiprocessors (5.2 rows of tiles each, the slowest has 6) was tried in three ways and took longer: the
//! sums of a row that several share have to meet.

use super::fragments::{finish, multiply, token_starts, write_span, zero_sums};
use cubecl::prelude::*;

/// Weights of a tile.
const TILE: usize = 2048;
/// Blocks of eight tokens whose inputs a lane holds.
const HELD_BLOCKS: usize = 2;
/// Up to this many chunks a lane, scattering zeros takes less than clearing the tile.
const ERASED_CHUNKS: u32 = 2;
/// Up to this many chunks a lane and blocks of tokens, two tiles' entries are on their way: more take registers that
/// other planes need.
const AHEAD_CHUNKS: u32 = 3;
const AHEAD_BLOCKS: usize = 4;

/// A weight in squares times `x` `[tokens, cols]`. A plane takes `tall` rows of tiles in turn, which share the inputs
/// that it holds; a tile has at most `chunks` times 32 chunks.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn squares_tiles<F: Float>(
    x: &Array<Vector<u32, Const<4>>>,
    values: &Array<Vector<u32, Const<4>>>,
    places: &Array<Vector<u32, Const<2>>>,
    squares: &Array<u8>,
    starts: &Array<u32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    rows: u32,
    cols: u32,
    tokens: u32,
    #[comptime] planes: u32,
    #[comptime] tall: u32,
    #[comptime] blocks: usize,
    #[comptime] chunks: u32,
    #[comptime] has_bias: bool,
    #[define(F)] _dtype: StorageType,
) {
    let lane = UNIT_POS_X % 32;
    let plane = UNIT_POS_X / 32;
    let row0 = CUBE_POS_X * comptime!(16 * tall);
    let eighths = cols / 8;
    let mut stage = SharedMemory::<u16>::new_aligned(comptime!(planes as usize * TILE), 16usize);
    let mine = plane * comptime!(TILE as u32);
    let mut all = zero_sums(comptime!(blocks * tall as usize));
    let token_at = token_starts(tokens, eighths, lane, blocks);
    clear(&mut stage, mine, lane);
    sync_plane();
    let tiles = cols / 128;
    let first = CUBE_POS_X * comptime!(tall) * tiles;
    let last = rows.div_ceil(16) * tiles;
    let mut tile = plane;
    // Entries are on their way while others are multiplied: a row of tiles' next ones where registers suffice, or those
    // of the next tile; and where those after them begin is known.
    let sets = comptime!(if blocks <= AHEAD_BLOCKS && chunks <= AHEAD_CHUNKS { tall } else { 1 });
    let each = comptime!(sets == tall);
    let mut v = Array::<Vector<u32, Const<4>>>::new(comptime!((sets * chunks) as usize));
    let mut p = Array::<Vector<u32, Const<2>>>::new(comptime!((sets * chunks) as usize));
    let mut d = Array::<u32>::new(comptime!((sets * chunks) as usize));
    let mut count = Array::<u32>::new(comptime!(sets as usize));
    let mut next_from = Array::<u32>::new(comptime!(sets as usize));
    let mut next_count = Array::<u32>::new(comptime!(sets as usize));
    #[unroll]
    for set in 0..sets {
        let (from, here) = entries(starts, first + set * tiles, tile, tiles, last);
        fetch(values, places, squares, from, here, lane, &mut v, &mut p, &mut d, set, chunks);
        count[set as usize] = here;
        let row = first + comptime!(if each { set } else { 1 }) * tiles;
        let (from, next) = entries(starts, row, tile + comptime!(if each { planes } else { 0 }), tiles, last);
        next_from[set as usize] = from;
        next_count[set as usize] = next;
    }
    while tile < tiles {
        let at = tile * 16;
        // Few tokens' inputs are held; those of many come from the L1 cache at every square.
        let mut xs = Sequence::<Vector<u32, Const<4>>>::new();
        #[unroll]
        for b in 0..blocks {
            if comptime!(blocks <= HELD_BLOCKS) {
                #[unroll]
                for s in 0..4u32 {
                    xs.push(x[(token_at[b] + at + comptime!(s / 2 * 8 + s % 2)) as usize]);
                }
            }
        }
        #[unroll]
        for r in 0..tall {
            let set = comptime!(r % sets);
            let held = count[set as usize];
            scatter(&mut stage, mine, held, lane, &v, &p, &d, set, chunks);
            let mut kp = Array::<Vector<u32, Const<2>>>::new(comptime!(chunks as usize));
            let mut kd = Array::<u32>::new(comptime!(chunks as usize));
            #[unroll]
            for c in 0..chunks {
                if comptime!(chunks <= ERASED_CHUNKS) {
                    kp[c as usize] = p[comptime!((set * chunks + c) as usize)];
                    kd[c as usize] = d[comptime!((set * chunks + c) as usize)];
                }
            }
            let (from, next) = (next_from[set as usize], next_count[set as usize]);
            fetch(values, places, squares, from, next, lane, &mut v, &mut p, &mut d, set, chunks);
            count[set as usize] = next;
            let behind = tile + comptime!(if each { 2 * planes } else { planes });
            let (from, next) = entries(starts, first + r * tiles, behind, tiles, last);
            next_from[set as usize] = from;
            next_count[set as usize] = next;
            sync_plane();
            #[unroll]
            for s in 0..8usize {
                let mut view = stage.to_slice_mut().into_vectorized().with_vector_size::<Const<8>>();
                let slot = mine as usize / 8 + s * 32 + lane as usize;
                let w = view[slot];
                if comptime!(chunks > ERASED_CHUNKS) {
                    view[slot] = Vector::new(0u16);
                }
                let w = Vector::<u32, Const<4>>::reinterpret(w);
                #[unroll]
                for b in 0..blocks {
                    let xv = if comptime!(blocks <= HELD_BLOCKS) {
                        *xs.index(comptime!(b * 4 + s / 4 * 2 + s % 4 / 2))
                    } else {
                        x[(token_at[b] + at + comptime!((s / 4 * 8 + s % 4 / 2) as u32)) as usize]
                    };
                    let (b0, b1) = (xv[comptime!(s % 2 * 2)], xv[comptime!(s % 2 * 2 + 1)]);
                    multiply::<F>(w[0], w[1], w[2], w[3], b0, b1, all.index_mut(comptime!(r as usize * blocks + b)));
                }
            }
            sync_plane();
            if comptime!(chunks <= ERASED_CHUNKS) {
                erase(&mut stage, mine, held, lane, &kp, &kd, chunks);
                sync_plane();
            }
        }
        tile += planes;
    }
    #[unroll]
    for r in 0..tall {
        finish::<F>(
            &all,
            bias,
            y,
            row0 + comptime!(16 * r),
            rows,
            tokens,
            planes,
            blocks,
            comptime!(r as usize * blocks),
            has_bias,
        );
    }
}

/// Where the entries of a row's tile begin and how many chunks they are; none after its last tile or the last row.
#[cube]
fn entries(starts: &Array<u32>, row: u32, tile: u32, tiles: u32, last: u32) -> (u32, u32) {
    let mut from = 0u32;
    let mut count = 0u32;
    if tile < tiles && row < last {
        from = starts[(row + tile) as usize];
        count = starts[(row + tile) as usize + 1] - from;
    }
    (from, count)
}

#[cube]
fn clear(stage: &mut SharedMemory<u16>, mine: u32, lane: u32) {
    let mut view = stage.to_slice_mut().into_vectorized().with_vector_size::<Const<8>>();
    #[unroll]
    for s in 0..8usize {
        view[mine as usize / 8 + s * 32 + lane as usize] = Vector::new(0u16);
    }
}

#[cube]
#[allow(clippy::too_many_arguments)]
fn fetch(
    values: &Array<Vector<u32, Const<4>>>,
    places: &Array<Vector<u32, Const<2>>>,
    squares: &Array<u8>,
    from: u32,
    count: u32,
    lane: u32,
    v: &mut Array<Vector<u32, Const<4>>>,
    p: &mut Array<Vector<u32, Const<2>>>,
    d: &mut Array<u32>,
    #[comptime] set: u32,
    #[comptime] chunks: u32,
) {
    #[unroll]
    for c in 0..chunks {
        if c * 32 + lane < count {
            let at = (from + c * 32 + lane) as usize;
            let to = comptime!((set * chunks + c) as usize);
            v[to] = values[at];
            p[to] = places[at];
            d[to] = u32::cast_from(squares[at]);
        }
    }
}

#[cube]
#[allow(clippy::too_many_arguments)]
fn scatter(
    stage: &mut SharedMemory<u16>,
    mine: u32,
    count: u32,
    lane: u32,
    v: &Array<Vector<u32, Const<4>>>,
    p: &Array<Vector<u32, Const<2>>>,
    d: &Array<u32>,
    #[comptime] set: u32,
    #[comptime] chunks: u32,
) {
    #[unroll]
    for c in 0..chunks {
        if c * 32 + lane < count {
            let from = comptime!((set * chunks + c) as usize);
            let (vv, pp) = (v[from], p[from]);
            let to = mine + d[from] * 256;
            #[unroll]
            for e in 0..8usize {
                let word = vv[comptime!(e / 2)];
                let half = if comptime!(e % 2 == 0) { word } else { word >> 16 };
                let place = (pp[comptime!(e / 4)] >> comptime!(8 * (e as u32 % 4))) & 255u32;
                let slot = (to + place) as usize;
                stage[slot] = u16::cast_from(half);
            }
        }
    }
}

#[cube]
fn erase(
    stage: &mut SharedMemory<u16>,
    mine: u32,
    count: u32,
    lane: u32,
    p: &Array<Vector<u32, Const<2>>>,
    d: &Array<u32>,
    #[comptime] chunks: u32,
) {
    #[unroll]
    for c in 0..chunks {
        if c * 32 + lane < count {
            let pp = p[c as usize];
            let to = mine + d[c as usize] * 256;
            #[unroll]
            for e in 0..8usize {
                let place = (pp[comptime!(e / 4)] >> comptime!(8 * (e as u32 % 4))) & 255u32;
                let slot = (to + place) as usize;
                stage[slot] = 0u16;
            }
        }
    }
}

/// A weight in squares as a dense matrix `[rows, cols]`; a plane a tile.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn squares_expand(
    values: &Array<Vector<u32, Const<4>>>,
    places: &Array<Vector<u32, Const<2>>>,
    squares: &Array<u8>,
    starts: &Array<u32>,
    dense: &mut Array<Vector<u32, Const<4>>>,
    rows: u32,
    cols: u32,
    #[comptime] planes: u32,
    #[comptime] chunks: u32,
) {
    let lane = UNIT_POS_X % 32;
    let plane = UNIT_POS_X / 32;
    let mut stage = SharedMemory::<u16>::new_aligned(comptime!(planes as usize * TILE), 16usize);
    let mine = plane * comptime!(TILE as u32);
    let tiles = cols / 128;
    let tile = CUBE_POS_X * planes + plane;
    if tile < tiles * rows.div_ceil(16) {
        let from = starts[tile as usize];
        let count = starts[tile as usize + 1] - from;
        let mut v = Array::<Vector<u32, Const<4>>>::new(comptime!(chunks as usize));
        let mut p = Array::<Vector<u32, Const<2>>>::new(comptime!(chunks as usize));
        let mut d = Array::<u32>::new(comptime!(chunks as usize));
        fetch(values, places, squares, from, count, lane, &mut v, &mut p, &mut d, 0u32, chunks);
        clear(&mut stage, mine, lane);
        sync_plane();
        scatter(&mut stage, mine, count, lane, &v, &p, &d, 0u32, chunks);
        sync_plane();
        let view = stage.to_slice().into_vectorized().with_vector_size::<Const<8>>();
        #[unroll]
        for half in 0..2usize {
            let mut four = Array::<Vector<u32, Const<4>>>::new(4usize);
            #[unroll]
            for s in 0..4usize {
                let slot = mine as usize / 8 + comptime!((half * 4 + s) * 32) + lane as usize;
                four[s] = Vector::<u32, Const<4>>::reinterpret(view[slot]);
            }
            let at = tile % tiles * 16 + comptime!(8 * half as u32) + 2 * (lane % 4);
            write_span(dense, &four, tile / tiles * 16 + lane / 4, rows, at, cols / 8);
        }
    }
}
