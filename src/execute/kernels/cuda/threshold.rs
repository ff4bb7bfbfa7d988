//! A dense weight, stored by columns, times an input of which small entries count as zero: only the columns that
//! some token needs are read.
//!
//! ```text
//!                     outputs, THREADS * vector of them a cube
//!            split 0  cube cube cube ...       a cube lists the inputs of its split that are large enough, then
//!   inputs   split 1  cube cube cube ...       reads these rows, every thread 16 bytes of each, and adds up for
//!            split 2  cube cube cube ...       every token in registers
//!                       |
//!            partial  [splits, tokens, stride] f32 ──threshold_sum──> y [tokens, outputs], splits in a fixed order
//! ```
//! No atomics: the same input gives the same bits.

use cubecl::prelude::*;

/// Threads of a cube, each with 16 bytes of adjacent outputs.
pub const THREADS: u32 = 128;
/// The most inputs of a split: what the list has room for.
pub const MOST_INPUTS: usize = 512;
/// Rows of the weight that a thread loads before it uses the first.
const IN_FLIGHT: usize = 4;
/// Lanes of a plane.
const LANES: u32 = 32;
/// Outputs and parts of the splits of a cube of `threshold_sum`.
pub const SUM_CUBE: [u32; 2] = [32, 8];

/// `partial[split, token, output] = Σ weight[input, output] · x[token, input]` over the split's inputs of which
/// |x| exceeds the threshold for any token; smaller entries of other tokens count as zero.
///
/// `weight` has rows of `stride` vectors of `vector` numbers, `partial` the same numbers in vectors of 4.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn threshold_columns<F: Float, N: Size>(
    x: &Array<F>,
    weight: &Array<Vector<F, N>>,
    partial: &mut Array<Vector<f32, Const<4>>>,
    threshold: f32,
    inputs: u32,
    stride: u32,
    inputs_per_split: u32,
    #[comptime] tokens: usize,
    #[comptime] vector: usize,
    #[define(F)] _dtype: StorageType,
) {
    let mut listed = SharedMemory::<u32>::new(MOST_INPUTS);
    let mut kept = SharedMemory::<f32>::new(comptime!(MOST_INPUTS * tokens));
    let mut counted = SharedMemory::<u32>::new(1usize);

    let split = CUBE_POS_Y;
    let first = split * inputs_per_split;
    // One plane lists the inputs in order: a split has a hundred of them.
    if UNIT_POS_X < LANES {
        let end = u32::min(first + inputs_per_split, inputs);
        let before = (1u32 << UNIT_POS_X) - 1u32;
        let mut count = 0u32;
        let mut group = first;
        while group < end {
            let input = group + UNIT_POS_X;
            let inside = input < end;
            let read = select(inside, input, first);
            let mut any = false;
            #[unroll]
            for token in 0..tokens {
                let number = f32::cast_from(x[(token as u32 * inputs + read) as usize]);
                any = any || f32::abs(number) > threshold;
            }
            let large = any && inside;
            let ballot = plane_ballot(large)[0];
            if large {
                let place = count + (ballot & before).count_ones();
                listed[place as usize] = input;
                #[unroll]
                for token in 0..tokens {
                    let number = f32::cast_from(x[(token as u32 * inputs + read) as usize]);
                    let at = place * tokens as u32 + token as u32;
                    kept[at as usize] = select(f32::abs(number) > threshold, number, f32::new(0.0));
                }
            }
            count += ballot.count_ones();
            group += LANES;
        }
        if UNIT_POS_X == 0 {
            counted[0] = count;
        }
    }
    sync_cube();

    let place = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if place >= stride {
        terminate!();
    }
    let count = counted[0];
    let mut sums = Array::<f32>::new(comptime!(tokens * vector));
    #[unroll]
    for i in 0..comptime!(tokens * vector) {
        sums[i] = f32::new(0.0);
    }
    let mut rows = Array::<Vector<F, N>>::new(IN_FLIGHT);
    let mut entry = 0u32;
    while entry < count {
        // After the end the last row once more, times zero: it is in the cache, and loads stay side by side.
        #[unroll]
        for j in 0..IN_FLIGHT {
            let input = listed[u32::min(entry + j as u32, count - 1u32) as usize];
            rows[j] = weight[(input * stride + place) as usize];
        }
        #[unroll]
        for j in 0..IN_FLIGHT {
            let row = rows[j];
            let here = entry + j as u32;
            let read = u32::min(here, count - 1u32);
            #[unroll]
            for token in 0..tokens {
                let number = kept[(read * tokens as u32 + token as u32) as usize];
                let number = select(here < count, number, f32::new(0.0));
                #[unroll]
                for i in 0..vector {
                    sums[token * vector + i] += f32::cast_from(row[i]) * number;
                }
            }
        }
        entry += comptime!(IN_FLIGHT as u32);
    }

    let quarters = comptime!(vector / 4);
    #[unroll]
    for token in 0..tokens {
        let row = (split * tokens as u32 + token as u32) * stride + place;
        #[unroll]
        for quarter in 0..quarters {
            let mut four = Vector::<f32, Const<4>>::empty();
            #[unroll]
            for i in 0..4usize {
                four[i] = sums[token * vector + quarter * 4 + i];
            }
            partial[(row * quarters as u32 + quarter as u32) as usize] = four;
        }
    }
}

/// `y[token, output] = Σ partial[split, token, output]`: a thread adds up every eighth split, in order; the first
/// of eight threads adds up theirs, in order.
#[cube(launch_unchecked)]
pub fn threshold_sum<F: Float>(
    partial: &Array<f32>,
    y: &mut Array<F>,
    splits: u32,
    tokens: u32,
    outputs: u32,
    width: u32,
    #[define(F)] _dtype: StorageType,
) {
    let mut sums = SharedMemory::<f32>::new(comptime!((SUM_CUBE[0] * SUM_CUBE[1]) as usize));
    let output = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    let token = CUBE_POS_Y;
    let mut sum = f32::new(0.0);
    if output < outputs {
        let mut split = UNIT_POS_Y;
        while split < splits {
            sum += partial[((split * tokens + token) * width + output) as usize];
            split += CUBE_DIM_Y;
        }
    }
    sums[(UNIT_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize] = sum;
    sync_cube();
    if UNIT_POS_Y == 0 && output < outputs {
        let mut total = f32::new(0.0);
        #[unroll]
        for part in 0..comptime!(SUM_CUBE[1]) {
            total += sums[(part * CUBE_DIM_X + UNIT_POS_X) as usize];
        }
        y[(token * outputs + output) as usize] = F::cast_from(total);
    }
}
