//! The place of the largest number of each row, and whether all of them are finite.

use cubecl::prelude::*;

/// Lanes of a plane.
const PLANE: u32 = 32;
/// The bits of a float's exponent: all of them are set where it is NaN or infinite.
const EXPONENT: u32 = 0x7f80_0000;

/// A cube a row of `vectors` vectors; `found[row] = [place of the first largest, 1 if one is not finite]`.
#[cube(launch_unchecked)]
pub fn arg_max_rows<F: Float, N: Size>(
    rows: &Array<Vector<F, N>>,
    found: &mut Array<u32>,
    vectors: u32,
    #[comptime] lanes: usize,
    #[comptime] planes: u32,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS_X * vectors;
    let mut best = f32::cast_from(rows[row as usize][0]);
    let mut place = 0u32;
    let mut bad = 0u32;
    let mut at = UNIT_POS_X;
    while at < vectors {
        let numbers = rows[(row + at) as usize];
        #[unroll]
        for lane in 0..lanes {
            let number = f32::cast_from(numbers[lane]);
            if u32::reinterpret(number) & EXPONENT == EXPONENT {
                bad = 1u32;
            }
            // A unit's places rise: an equal number is not the first.
            if number > best {
                best = number;
                place = at * comptime!(lanes as u32) + comptime!(lane as u32);
            }
        }
        at += CUBE_DIM_X;
    }
    #[unroll]
    for level in 0..5u32 {
        let offset = comptime!(1u32 << level);
        let (other, there) = (plane_shuffle_xor(best, offset), plane_shuffle_xor(place, offset));
        if other > best || (other == best && there < place) {
            best = other;
            place = there;
        }
        bad |= plane_shuffle_xor(bad, offset);
    }
    let mut bests = SharedMemory::<f32>::new(comptime!(planes as usize));
    let mut places = SharedMemory::<u32>::new(comptime!(planes as usize));
    let mut bads = SharedMemory::<u32>::new(comptime!(planes as usize));
    let lane = UNIT_POS_X % PLANE;
    if lane == 0 {
        let plane = (UNIT_POS_X / PLANE) as usize;
        bests[plane] = best;
        places[plane] = place;
        bads[plane] = bad;
    }
    sync_cube();
    if UNIT_POS_X == 0 {
        #[unroll]
        for plane in 1..planes {
            let (other, there) = (bests[plane as usize], places[plane as usize]);
            if other > best || (other == best && there < place) {
                best = other;
                place = there;
            }
            bad |= bads[plane as usize];
        }
        found[(2 * CUBE_POS_X) as usize] = place;
        found[(2 * CUBE_POS_X + 1) as usize] = bad;
    }
}
