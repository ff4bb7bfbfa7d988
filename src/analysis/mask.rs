//! The mask of a matrix as the analyses see it: a row of bits for every feature.
//!
//! ```text
//!   weight [out 3, in 4]       Axis::In: 4 features        Axis::Out: 3 features
//!   .  5  .  7                 0 | 0 0 1                   0 | 0 1 0 1
//!   .  .  .  .                 1 | 1 0 1                   1 | 0 0 0 0
//!   1  2  .  4                 2 | 0 0 0                   2 | 1 1 0 1
//!                              3 | 1 0 1
//!                                  length 3                    length 4
//! ```
//! Feature f has `length` bits in `ceil(length / 64)` words of its own; bits after the last are 0. Counts of kept
//! positions are held beside them, for every figure needs them.

use super::popcount::ones;
use crate::sparse::Pattern;
use rayon::prelude::*;

/// Which side of a matrix its features are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Columns: input features, each a vector over the outputs.
    In,
    /// Rows: output features, each a vector over the inputs.
    Out,
}

/// Bits of features.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    length: usize,
    /// `[features][ceil(length / 64)]`
    words: Vec<u64>,
    /// `[features]`
    kept: Vec<u32>,
}

impl Mask {
    /// Fills the words of each feature, which start at 0; bits after the last are cleared.
    ///
    /// # Panics
    /// When a feature has no position, or more than 2^31.
    pub fn from_rows(features: usize, length: usize, fill: impl Fn(usize, &mut [u64]) + Sync) -> Self {
        assert!((1..=1 << 31).contains(&length), "features have 1 to 2^31 positions, not {length}");
        let pattern = Pattern::from_rows(features, length, fill);
        let per = length.div_ceil(64);
        let kept = pattern.words().par_chunks(per).map(|row| ones(row) as u32).collect();
        Self { length, words: pattern.words().to_vec(), kept }
    }

    /// Keeps the positions for which `keep(feature, position)` holds.
    ///
    /// # Panics
    /// As [`Mask::from_rows`].
    pub fn from_fn(features: usize, length: usize, keep: impl Fn(usize, usize) -> bool + Sync) -> Self {
        Self::from_rows(features, length, |feature, words| {
            for (w, word) in words.iter_mut().enumerate() {
                for bit in 0..64.min(length - w * 64) {
                    *word |= u64::from(keep(feature, w * 64 + bit)) << bit;
                }
            }
        })
    }

    /// The features of a `[out, in]` matrix.
    ///
    /// # Panics
    /// When a side of the matrix is 0.
    pub fn of(pattern: &Pattern, axis: Axis) -> Self {
        match axis {
            Axis::Out => {
                Self::from_rows(pattern.rows(), pattern.cols(), |row, words| words.copy_from_slice(pattern.row(row)))
            }
            Axis::In => {
                let (rows, cols) = (pattern.rows(), pattern.cols());
                let per = rows.div_ceil(64);
                // Blocks of 64 x 64 bits are turned one by one: [word of columns][word of rows][64].
                let blocks: Vec<[u64; 64]> = (0..cols.div_ceil(64) * per)
                    .into_par_iter()
                    .map(|block| {
                        let (column, first) = (block / per, block % per * 64);
                        let row = |bit: usize| if first + bit < rows { pattern.row(first + bit)[column] } else { 0 };
                        turned(std::array::from_fn(row))
                    })
                    .collect();
                Self::from_rows(cols, rows, |col, words| {
                    let blocks = &blocks[col / 64 * per..][..per];
                    words.iter_mut().zip(blocks).for_each(|(word, block)| *word = block[col % 64]);
                })
            }
        }
    }

    /// Features, F.
    pub fn features(&self) -> usize {
        self.kept.len()
    }

    /// Positions of a feature, R.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The bits of a feature.
    pub fn row(&self, feature: usize) -> &[u64] {
        let per = self.length.div_ceil(64);
        &self.words[feature * per..][..per]
    }

    /// The bits of all features.
    pub(super) fn rows(&self) -> Vec<&[u64]> {
        self.words.chunks(self.length.div_ceil(64)).collect()
    }

    /// Whether a position of a feature is kept.
    pub fn get(&self, feature: usize, at: usize) -> bool {
        self.row(feature)[at / 64] >> (at % 64) & 1 == 1
    }

    /// Positions that a feature keeps.
    pub fn kept(&self, feature: usize) -> usize {
        self.kept[feature] as usize
    }

    /// The share of positions that a feature keeps.
    pub fn density(&self, feature: usize) -> f64 {
        self.kept(feature) as f64 / self.length as f64
    }

    /// Positions that all features keep together.
    pub fn total(&self) -> u64 {
        self.kept.iter().map(|&kept| u64::from(kept)).sum()
    }

    /// Whether a feature keeps no position.
    pub fn is_dead(&self, feature: usize) -> bool {
        self.kept(feature) == 0
    }

    /// Whether a feature keeps every position.
    pub fn is_full(&self, feature: usize) -> bool {
        self.kept(feature) == self.length
    }

    /// Whether a feature is dead or full.
    pub fn is_constant(&self, feature: usize) -> bool {
        self.is_dead(feature) || self.is_full(feature)
    }

    /// The features that are not constant: what `skip_constant` leaves.
    pub fn varying(&self) -> Vec<usize> {
        (0..self.features()).filter(|&feature| !self.is_constant(feature)).collect()
    }

    /// Some features, in the order of the list.
    ///
    /// # Panics
    /// When there is no such feature.
    pub fn select(&self, features: &[usize]) -> Self {
        let words = features.iter().flat_map(|&feature| self.row(feature).iter().copied()).collect();
        Self { length: self.length, words, kept: features.iter().map(|&feature| self.kept[feature]).collect() }
    }
}

/// The block whose word i holds bit i of every word (Hacker's Delight, 7-3: halves are swapped, then quarters, ...).
fn turned(mut block: [u64; 64]) -> [u64; 64] {
    let mut width = 32;
    let mut low = 0xffff_ffffu64;
    while width > 0 {
        let mut k = 0;
        while k < 64 {
            let swap = (block[k] >> width ^ block[k + width]) & low;
            block[k] ^= swap << width;
            block[k + width] ^= swap;
            k = (k + width + 1) & !width;
        }
        width /= 2;
        low ^= low << width;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn features_are_columns_or_rows(rows in 1usize..150, cols in 1usize..150, seed: u64) {
            let pattern = Pattern::random(rows, cols, 0.4, seed);
            let (columns, lines) = (Mask::of(&pattern, Axis::In), Mask::of(&pattern, Axis::Out));
            prop_assert_eq!((columns.features(), columns.length(), lines.features()), (cols, rows, rows));
            for row in 0..rows {
                prop_assert_eq!(lines.row(row), pattern.row(row));
                for col in 0..cols {
                    prop_assert_eq!(columns.get(col, row), pattern.get(row, col));
                }
            }
            prop_assert_eq!(columns.total(), pattern.kept() as u64);
            prop_assert_eq!(Mask::from_fn(cols, rows, |col, row| pattern.get(row, col)), columns);
        }
    }

    #[test]
    fn dead_and_full_features_do_not_vary() {
        let mask = Mask::from_fn(4, 65, |feature, at| [false, true, at == 64, at != 3][feature]);
        assert_eq!(mask.varying(), [2, 3]);
        assert!(mask.is_dead(0) && mask.is_full(1) && !mask.is_constant(2));
        let some = mask.select(&[3, 0]);
        assert_eq!((some.kept(0), some.kept(1), some.row(0) == mask.row(3)), (64, 0, true));
        assert_eq!(mask.density(2), 1.0 / 65.0);
    }
}
