//! Two of every four weights of a row, of 16 bits each, in the order of a GPU's sparse tensor core (`mma.sp.m16n8k32`; PTX
//! ISA, "Matrix fragments for sparse mma.m16n8k32 with .f16 and .bf16 types").
//!
//! ```text
//!   group     4 columns of a row, from a multiple of four on: two values and their places, which ascend. Where fewer are
//!             kept, zeros fill it up, so that nothing but the shape decides the size.
//!   unit      16 rows x 64 columns, two products of 32 columns:
//!               values   [2 products][32 lanes][4 words], a word a group, its first value in the low half:
//!                          lane 4 g + q     words 0, 1   rows g and g + 8, columns 4 q .. 4 q + 4
//!                                           words 2, 3   the same rows, columns 16 + 4 q .. 16 + 4 q + 4
//!               places   [32 lanes], four bits a group, the first place in the low two:
//!                          lane 4 g + 2 p + h    product p, columns 16 h .. 16 h + 16: of row g in the low half,
//!                                                of row g + 8 in the high one
//!             288 words: a byte and an eighth for a weight, kept or not
//!   matrix    units of 16 rows, those of a row of units one after the other; rows and columns after the last are zeros
//! ```
//! An instruction takes the places of a product from two lanes of every four. Here the first product has them in lanes 0
//! and 1 and the second in 2 and 3, so that every lane has one word of places for both.

use super::{FormatError, Pattern};
use rayon::prelude::*;

/// Rows of a unit.
const ROWS: usize = 16;
/// Columns of a unit.
pub const NM_COLUMNS: usize = 64;
/// Columns of a group, and how many of them are stored.
const GROUP: usize = 4;
const STORED: usize = 2;
/// Words of a unit's values, and of all.
const VALUES: usize = 256;
const UNIT: usize = VALUES + 32;

/// A matrix of which at most two of every four neighbouring weights are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct TwoOfFour {
    rows: usize,
    cols: usize,
    /// `[ceil(rows / 16), ceil(cols / 64), 288]`
    pub units: Vec<u32>,
}

impl TwoOfFour {
    /// Packs the kept weights; `bits` gives a value's 16 bits; `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, or more than two of four weights are kept.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Pattern, TwoOfFour};
    /// let weights = [0.0, 5.0, 0.0, 7.0];
    /// let pattern = Pattern::keep_where(1, 4, &weights, |_, w| w != 0.0);
    /// let packed = TwoOfFour::from_dense(&weights, &pattern, |w| w as u16)?;
    /// // Both values in a word, their places 1 and 3 in four bits.
    /// assert_eq!((packed.units[0], packed.units[256] & 15), (7 << 16 | 5, 0b11_01));
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(
        weights: &[f32],
        pattern: &Pattern,
        bits: impl Fn(f32) -> u16 + Sync,
    ) -> Result<Self, FormatError> {
        FormatError::check_shape(weights, pattern)?;
        let (rows, cols) = (pattern.rows(), pattern.cols());
        let across = cols.div_ceil(NM_COLUMNS);
        let mut units = vec![0; rows.div_ceil(ROWS) * across * UNIT];
        units.par_chunks_mut((across * UNIT).max(1)).enumerate().try_for_each(|(tile, units)| {
            for row in tile * ROWS..rows.min((tile + 1) * ROWS) {
                for (at, unit) in units.chunks_mut(UNIT).enumerate() {
                    let weights = &weights[row * cols + at * NM_COLUMNS..(row + 1) * cols];
                    pack(unit, row, at * NM_COLUMNS, pattern.row(row)[at], weights, &bits)?;
                }
            }
            // Rows after the last: groups of zeros, whose places have to ascend too.
            for row in rows.max(tile * ROWS)..(tile + 1) * ROWS {
                for unit in units.chunks_mut(UNIT) {
                    pack(unit, row, 0, 0, &[], &bits)?;
                }
            }
            Ok(())
        })?;
        Ok(Self { rows, cols, units })
    }

    /// The dense matrix's bits again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<u16> {
        let mut dense = vec![0; self.rows * self.cols];
        let across = self.cols.div_ceil(NM_COLUMNS);
        for (at, unit) in self.units.chunks(UNIT).enumerate() {
            let (tile, left) = (at / across, at % across * NM_COLUMNS);
            for row in tile * ROWS..self.rows.min((tile + 1) * ROWS) {
                for group in 0..NM_COLUMNS / GROUP {
                    let Place { value, places, shift } = Place::of(row, group);
                    for (i, place) in
                        [unit[places] >> shift & 3, unit[places] >> (shift + 2) & 3].into_iter().enumerate()
                    {
                        let column = left + group * GROUP + place as usize;
                        if column < self.cols {
                            dense[row * self.cols + column] = (unit[value] >> (16 * i)) as u16;
                        }
                    }
                }
            }
        }
        dense
    }

    /// Bytes stored.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.units)
    }
}

/// Where a group is within a unit: the word of its values, that of its places, and their first bit.
struct Place {
    value: usize,
    places: usize,
    shift: usize,
}

impl Place {
    fn of(row: usize, group: usize) -> Self {
        let (first, low) = (4 * (row % 8), row % ROWS / 8);
        let (product, right, lane) = (group / 8, group / 4 % 2, first + group % 4);
        Self {
            value: VALUES / 2 * product + 4 * lane + 2 * right + low,
            places: VALUES + first + 2 * product + right,
            shift: 16 * low + 4 * (group % 4),
        }
    }
}

/// A row of a unit, whose columns begin at `left`; `weights` are those of the row from there on.
fn pack(
    unit: &mut [u32],
    row: usize,
    left: usize,
    kept: u64,
    weights: &[f32],
    bits: &impl Fn(f32) -> u16,
) -> Result<(), FormatError> {
    for group in 0..NM_COLUMNS / GROUP {
        let (column, mask) = (group * GROUP, kept >> (group * GROUP) & 15);
        let Some(stored) = stored(mask) else {
            return Err(FormatError::Crowded { row, column: left + column, kept: mask.count_ones() });
        };
        let Place { value, places, shift } = Place::of(row, group);
        for (i, place) in stored.into_iter().enumerate() {
            let number = if mask >> place & 1 == 1 { bits(weights[column + place]) } else { 0 };
            unit[value] |= u32::from(number) << (16 * i);
            unit[places] |= (place as u32) << (shift + 2 * i);
        }
    }
    Ok(())
}

/// The places of a group that are stored, those of the mask among them; none where they are more than two.
fn stored(mask: u64) -> Option<[usize; STORED]> {
    let kept = |place: &usize| mask >> place & 1 == 1;
    let missing = STORED.checked_sub((0..GROUP).filter(kept).count())?;
    // What fills up is taken from the end, since it is never the only one that is kept.
    let filling = (0..GROUP).rev().filter(|place| !kept(place)).take(missing);
    let mut stored: Vec<usize> = (0..GROUP).filter(kept).chain(filling).collect();
    stored.sort_unstable();
    stored.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// At most `most` of every four kept, chosen by a hash.
    fn crowded(rows: usize, cols: usize, most: u32, seed: u64) -> Pattern {
        let random = |i: usize| (i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) % 6;
        Pattern::from_rows(rows, cols, |row, words| {
            for group in 0..cols.div_ceil(GROUP) {
                let pair = [0b0011, 0b0101, 0b1001, 0b0110, 0b1010, 0b1100][random(row * 7919 + group) as usize];
                let mask = if most == 1 { pair & (pair - 1) } else { pair };
                words[group / 16] |= mask << (group % 16 * GROUP);
            }
        })
    }

    /// A . x as `mma.sp.m16n8k32` adds it up, by the maps of the PTX ISA from lanes to rows and columns: nothing here knows
    /// how it was packed.
    fn multiplied(packed: &TwoOfFour, x: &[f64]) -> Vec<f64> {
        let across = packed.cols.div_ceil(NM_COLUMNS);
        let mut y = vec![0.0; packed.rows.next_multiple_of(ROWS)];
        for (at, unit) in packed.units.chunks(UNIT).enumerate() {
            for selector in 0..2 {
                let a = &unit[VALUES / 2 * selector..];
                for lane in 0..32 {
                    let (group_id, in_group) = (lane / 4, lane % 4);
                    for i in 0..8 {
                        let low_row = i < 2 || (4..6).contains(&i);
                        let row = if low_row { group_id } else { group_id + 8 };
                        let first = if i < 4 { in_group * 4 } else { in_group * 4 + 16 };
                        // Lanes 2 * selector and the next of every four have the places, each of 16 columns.
                        let word = unit[VALUES + group_id * 4 + 2 * selector + first / 16];
                        let of_row = if low_row { word & 0xffff } else { word >> 16 };
                        let place = of_row >> (4 * (first % 16 / 4) + 2 * (i % 2)) & 3;
                        let value = a[4 * lane + i / 2] >> (16 * (i % 2)) & 0xffff;
                        let column = at % across * NM_COLUMNS + 32 * selector + first + place as usize;
                        y[at / across * ROWS + row] += f64::from(value) * x.get(column).copied().unwrap_or(0.0);
                    }
                }
            }
        }
        y
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_kept(
            rows in 0usize..70, cols in 0usize..300, most in 1u32..3, seed: u64
        ) {
            let pattern = crowded(rows, cols, most, seed);
            let weights: Vec<f32> = (0..rows * cols).map(|i| (i % 60_000) as f32 + 1.0).collect();
            let packed = TwoOfFour::from_dense(&weights, &pattern, |w| w as u16).unwrap();
            let masked = pattern.apply(&weights);
            prop_assert_eq!(packed.to_dense(), masked.iter().map(|&w| w as u16).collect::<Vec<_>>());
            prop_assert_eq!(packed.bytes(), rows.div_ceil(16) * cols.div_ceil(64) * 1152);
            let x: Vec<f64> = (0..cols).map(|i| (i * 31 % 17) as f64 - 8.0).collect();
            let y = multiplied(&packed, &x);
            for row in 0..rows {
                let products = masked[row * cols..(row + 1) * cols].iter().zip(&x);
                prop_assert_eq!(y[row], products.map(|(w, x)| f64::from(*w) * x).sum::<f64>());
            }
            prop_assert!(y[rows..].iter().all(|&sum| sum == 0.0));
        }
    }

    #[test]
    fn places_of_a_group_always_ascend() {
        let all: Vec<_> = (0..16).map(stored).collect();
        for (mask, places) in all.iter().enumerate() {
            assert_eq!(places.is_some(), mask.count_ones() <= 2);
            if let Some([first, second]) = *places {
                assert!(first < second && second < 4 && mask & !(1 << first | 1 << second) == 0, "{mask:b}");
            }
        }
        assert_eq!([all[0], all[1], all[8], all[6]], [Some([2, 3]), Some([0, 3]), Some([2, 3]), Some([1, 2])]);
        // Rows and columns of the padding too: the instruction is undefined otherwise.
        let packed =
            TwoOfFour::from_dense(&[1.0; 5], &Pattern::keep_where(1, 5, &[1.0; 5], |i, _| i == 4), |_| 1).unwrap();
        let places = packed.units[VALUES..].iter().flat_map(|word| (0..8).map(move |group| word >> (4 * group) & 15));
        assert!(places.into_iter().all(|two| two & 3 < two >> 2));
    }

    #[test]
    fn three_of_four_are_refused_by_their_place() {
        let keep = |at: [usize; 3]| {
            let weights = vec![1.0; 40 * 132];
            TwoOfFour::from_dense(&weights, &Pattern::keep_where(40, 132, &weights, |i, _| at.contains(&i)), |_| 1)
        };
        let crowded = |row, column| Err(FormatError::Crowded { row, column, kept: 3 });
        assert_eq!(keep([0, 1, 3]), crowded(0, 0));
        assert_eq!(keep([37 * 132 + 128, 37 * 132 + 130, 37 * 132 + 131]), crowded(37, 128));
        // The same number across a border of groups.
        assert!(keep([2, 3, 4]).is_ok());
        let text = FormatError::Crowded { row: 37, column: 128, kept: 3 }.to_string();
        assert!(text.starts_with("row 37 keeps 3 of its columns 128 to 131"), "{text}");
    }

    #[test]
    fn random_pairs_can_be_packed_and_are_half_of_all() {
        for (rows, cols) in [(33, 64), (5, 131)] {
            let pattern = Pattern::random_two_of_four(rows, cols, 1);
            let weights = vec![1.0; rows * cols];
            assert!(TwoOfFour::from_dense(&weights, &pattern, |_| 1).is_ok());
            assert_eq!(pattern.kept(), rows * (cols / 4 * 2 + (cols % 4).div_ceil(2)));
        }
    }
}
