//! Entries in groups of eight ([`crate::sparse::Groups`]) times few tokens, and the same as a dense matrix.
//!
//! ```text
//!   16 or 32 lanes a row; a lane takes every 16th or 32nd group: a load of values, of steps and of a base each
//!   inputs in shared memory, tokens of a column side by side: any lane may read any column
//!   two groups of a lane are on their way while two are multiplied
//! ```
//! Launched without bounds checks: every index comes from a well-formed matrix, or is compared before.

use cubecl::prelude::*;

/// The most tokens: each has its own sum in a register.
pub const MOST_TOKENS: usize = 4;

/// `y[token, row] = bias[row] + Σ values · x[token, column]`, sums in f32.
///
/// `x` is read `N` numbers at a time, more than one only where there is one token. `S` is how many numbers a column has
/// in shared memory: not less than `tokens`. There is room for `room` columns, in whole `N`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn groups_rows<F: Float, N: Size, S: Size>(
    x: &Array<Vector<F, N>>,
    values: &Array<Vector<F, Const<8>>>,
    steps: &Array<u32>,
    bases: &Array<u16>,
    row_ptr: &Array<u32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    rows: u32,
    cols: u32,
    #[comptime] room: usize,
    #[comptime] tokens: usize,
    #[comptime] width: usize,
    #[comptime] words: usize,
    #[comptime] vector: usize,
    #[comptime] lanes: u32,
    #[comptime] has_bias: bool,
    #[define(F)] _dtype: StorageType,
) {
    let lane = UNIT_POS_X % lanes;
    let row = (CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X) / lanes;
    let mut group = 0u32;
    let mut end = 0u32;
    if row < rows {
        group = row_ptr[row as usize] + lane;
        end = row_ptr[row as usize + 1];
    }
    // The first entries are on their way while the inputs are laid out.
    let mut held = Array::<Vector<F, Const<8>>>::new(2usize);
    let mut held_steps = Array::<u32>::new(comptime!(2 * words));
    let mut held_bases = Array::<u32>::new(2usize);
    #[unroll]
    for k in 0..2u32 {
        let at = group + k * lanes;
        if at < end {
            held[k as usize] = values[at as usize];
            held_bases[k as usize] = u32::cast_from(bases[at as usize]);
            #[unroll]
            for word in 0..words {
                held_steps[comptime!(k as usize * words + word)] = steps[at as usize * words + word];
            }
        }
    }
    let mut inputs = SharedMemory::<F>::new_aligned(comptime!(room * width), 16usize);
    let mut i = UNIT_POS_X;
    if comptime!(tokens == 1) {
        let mut several = inputs.to_slice_mut().into_vectorized().with_vector_size::<N>();
        while i < cols.div_ceil(comptime!(vector as u32)) {
            several[i as usize] = x[i as usize];
            i += CUBE_DIM_X;
        }
    } else {
        let mut columns = inputs.to_slice_mut().into_vectorized().with_vector_size::<S>();
        while i < cols {
            let mut column = Vector::<F, S>::new(F::new(0.0));
            #[unroll]
            for token in 0..tokens {
                column[token] = x[token * cols as usize + i as usize][0];
            }
            columns[i as usize] = column;
            i += CUBE_DIM_X;
        }
    }
    sync_cube();
    let columns = inputs.to_slice().into_vectorized().with_vector_size::<S>();
    let mut sums = Array::<f32>::new(tokens);
    #[unroll]
    for token in 0..tokens {
        sums[token] = 0.0f32;
    }
    while group < end {
        #[unroll]
        for k in 0..2u32 {
            if group + k * lanes < end {
                let entries = held[k as usize];
                let base = held_bases[k as usize];
                let mut these = Array::<u32>::new(words);
                #[unroll]
                for word in 0..words {
                    these[word] = held_steps[comptime!(k as usize * words + word)];
                }
                let next = group + (k + 2) * lanes;
                if next < end {
                    held[k as usize] = values[next as usize];
                    held_bases[k as usize] = u32::cast_from(bases[next as usize]);
                    #[unroll]
                    for word in 0..words {
                        held_steps[comptime!(k as usize * words + word)] = steps[next as usize * words + word];
                    }
                }
                let mut column = base;
                #[unroll]
                for entry in 0..8usize {
                    column = step(&these, base, column, entry, words);
                    let value = f32::cast_from(entries[entry]);
                    let numbers = columns[column as usize];
                    #[unroll]
                    for token in 0..tokens {
                        sums[token] += value * f32::cast_from(numbers[token]);
                    }
                }
            }
        }
        group += 2 * lanes;
    }
    #[unroll]
    for token in 0..tokens {
        let mut sum = sums[token];
        if comptime!(lanes == 32) {
            sum += plane_shuffle_xor(sum, 16);
        }
        sum += plane_shuffle_xor(sum, 8);
        sum += plane_shuffle_xor(sum, 4);
        sum += plane_shuffle_xor(sum, 2);
        sum += plane_shuffle_xor(sum, 1);
        if lane == 0 && row < rows {
            if comptime!(has_bias) {
                sum += f32::cast_from(bias[row as usize]);
            }
            y[token * rows as usize + row as usize] = F::cast_from(sum);
        }
    }
}

/// The column of an entry: from the one before it, or from the base.
#[cube]
fn step(steps: &Array<u32>, base: u32, before: u32, #[comptime] entry: usize, #[comptime] words: usize) -> u32 {
    if comptime!(words == 1) {
        before + ((steps[0] >> comptime!(4 * entry as u32)) & 15u32)
    } else {
        base + ((steps[comptime!(entry / 4)] >> comptime!(8 * (entry as u32 % 4))) & 255u32)
    }
}

/// The dense matrix `[rows, stride]`; a cube a row. `stride` is not less than the columns, and a multiple of `vector`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn groups_expand<F: Float, N: Size>(
    values: &Array<Vector<F, Const<8>>>,
    steps: &Array<u32>,
    bases: &Array<u16>,
    row_ptr: &Array<u32>,
    dense: &mut Array<Vector<F, N>>,
    #[comptime] stride: usize,
    #[comptime] vector: usize,
    #[comptime] words: usize,
    #[define(F)] _dtype: StorageType,
) {
    let mut row = SharedMemory::<F>::new_aligned(stride, 16usize);
    let mut wide = row.slice_mut(0, stride).into_vectorized().with_vector_size::<N>();
    let mut i = UNIT_POS_X;
    while i < comptime!((stride / vector) as u32) {
        wide[i as usize] = Vector::<F, N>::new(F::new(0.0));
        i += CUBE_DIM_X;
    }
    sync_cube();
    let end = row_ptr[CUBE_POS_X as usize + 1];
    let mut group = row_ptr[CUBE_POS_X as usize] + UNIT_POS_X;
    while group < end {
        let base = u32::cast_from(bases[group as usize]);
        let entries = values[group as usize];
        let mut these = Array::<u32>::new(words);
        #[unroll]
        for word in 0..words {
            these[word] = steps[group as usize * words + word];
        }
        let mut column = base;
        #[unroll]
        for entry in 0..8usize {
            column = step(&these, base, column, entry, words);
            let value = entries[entry];
            // The zeros that fill a group up stand where an entry may be.
            if value != F::new(0.0) {
                row[column as usize] = value;
            }
        }
        group += CUBE_DIM_X;
    }
    sync_cube();
    let wide = row.to_slice().into_vectorized().with_vector_size::<N>();
    let mut i = UNIT_POS_X;
    while i < comptime!((stride / vector) as u32) {
        dense[CUBE_POS_X as usize * comptime!(stride / vector) + i as usize] = wide[i as usize];
        i += CUBE_DIM_X;
    }
}
