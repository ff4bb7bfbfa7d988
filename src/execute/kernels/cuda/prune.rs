//! Counting, comparing and masking numbers by their magnitudes on a GPU, in CubeCL.
//!
//! ```text
//!   count_magnitudes   every number adds one to a bin: whole numbers, so the order does not matter
//!   magnitudes_above   32 lanes compare 32 columns of a row, a ballot makes one word of the answers
//!   masked             32 lanes read one word, and each writes its number or zero
//!
//!   words of a row: two of 32 bits for every 64 columns, as the host has them
//! ```
//!
//! A magnitude is a number widened to f32, read as bits without the sign. All kernels are launched without bounds
//! checks; threads stride over more work than there are threads. Indices are 32-bit: see [`MOST`].

use cubecl::prelude::*;

/// Lanes of a plane, and columns of a word.
pub const LANES: u32 = 32;
/// Planes of a cube.
pub const PLANES: u32 = 8;
/// The most cubes of a launch.
pub const CUBES: u32 = 4096;
/// The most numbers of a matrix: a stride more must not overflow 32 bits.
pub const MOST: usize = u32::MAX as usize - (CUBES * PLANES * LANES) as usize;

/// A digit of magnitudes, for [`count_magnitudes`].
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct DigitBits {
    /// Bits below.
    pub shift: u32,
    /// As many ones as it has bits.
    pub mask: u32,
    /// Bits of it and of those below.
    pub above_shift: u32,
    /// What the bits above must be.
    pub above: u32,
}

#[cube]
fn magnitude_of<F: Float>(number: F) -> u32 {
    u32::reinterpret(f32::cast_from(number)) & 0x7fff_ffff
}

/// Adds the digits of `length` numbers to `bins`.
#[cube(launch_unchecked)]
pub fn count_magnitudes<F: Float>(
    numbers: &Array<F>,
    bins: &mut Array<Atomic<u32>>,
    length: u32,
    digit: DigitBits,
    #[define(F)] _dtype: StorageType,
) {
    let mut index = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    while index < length {
        let magnitude = magnitude_of::<F>(numbers[index as usize]);
        if magnitude >> digit.above_shift == digit.above {
            let bin = (magnitude >> digit.shift) & digit.mask;
            bins[bin as usize].fetch_add(1u32);
        }
        index += CUBE_COUNT_X * CUBE_DIM_X;
    }
}

/// One bit a number of `[rows, cols]`: whether its magnitude is above the threshold.
#[cube(launch_unchecked)]
pub fn magnitudes_above<F: Float>(
    numbers: &Array<F>,
    words: &mut Array<u32>,
    cols: u32,
    words_per_row: u32,
    total_words: u32,
    threshold: u32,
    #[define(F)] _dtype: StorageType,
) {
    // The same for all lanes of a plane, so that all of them take part in every ballot.
    let mut word = CUBE_POS_X * CUBE_DIM_Y + UNIT_POS_Y;
    while word < total_words {
        let row = word / words_per_row;
        let col = word % words_per_row * CUBE_DIM_X + UNIT_POS_X;
        let mut magnitude = 0u32;
        if col < cols {
            magnitude = magnitude_of::<F>(numbers[(row * cols + col) as usize]);
        }
        let ballot = plane_ballot(magnitude > threshold);
        if UNIT_POS_X == 0 {
            words[word as usize] = ballot[0];
        }
        word += CUBE_COUNT_X * CUBE_DIM_Y;
    }
}

/// The numbers of `[rows, cols]` whose bits are set, and zeros.
#[cube(launch_unchecked)]
pub fn masked<F: Float>(
    numbers: &Array<F>,
    words: &Array<u32>,
    out: &mut Array<F>,
    cols: u32,
    words_per_row: u32,
    total_words: u32,
    #[define(F)] _dtype: StorageType,
) {
    let mut word = CUBE_POS_X * CUBE_DIM_Y + UNIT_POS_Y;
    while word < total_words {
        let row = word / words_per_row;
        let col = word % words_per_row * CUBE_DIM_X + UNIT_POS_X;
        if col < cols {
            let index = (row * cols + col) as usize;
            let kept = (words[word as usize] >> UNIT_POS_X) & 1u32 == 1u32;
            let mut number = F::new(0.0);
            if kept {
                number = numbers[index];
            }
            out[index] = number;
        }
        word += CUBE_COUNT_X * CUBE_DIM_Y;
    }
}
