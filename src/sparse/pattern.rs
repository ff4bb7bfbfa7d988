//! The symbolic half of a pruned layer: one bit a weight, kept or not.
//!
//! ```text
//!   Pattern { rows: 2, cols: 70 }      words_per_row = ceil(70 / 64) = 2
//!   words  [ row 0: cols 0..64 | row 0: cols 64..70, rest 0 | row 1: ... ]
//!   bit c % 64 of word c / 64 of a row is 1 when column c is kept
//! ```
//!
//! Rows start at word boundaries, so that threads may fill rows apart from each other, and the bits
//! after the last column are always 0, so that counting needs no masks.

use super::Value;
use super::digit::magnitude;
use rayon::prelude::*;

/// Rows handed to a thread at a time when a pattern is filled or read: a few thousand weights each.
const ROWS_PER_TASK: usize = 16;

/// Which weights of a `[rows, cols]` matrix are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    rows: usize,
    cols: usize,
    words: Vec<u64>,
}

impl Pattern {
    /// Builds a pattern row by row; `fill(row, words)` sets the bits of one row, which start at 0.
    ///
    /// Bits after the last column are cleared, whatever `fill` leaves there.
    pub fn from_rows(rows: usize, cols: usize, fill: impl Fn(usize, &mut [u64]) + Sync) -> Self {
        let per_row = cols.div_ceil(64);
        let mut words = vec![0u64; rows * per_row];
        if per_row > 0 {
            let tail = tail_mask(cols);
            words.par_chunks_mut(per_row * ROWS_PER_TASK).enumerate().for_each(|(task, chunk)| {
                for (i, row) in chunk.chunks_mut(per_row).enumerate() {
                    fill(task * ROWS_PER_TASK + i, row);
                    row[per_row - 1] &= tail;
                }
            });
        }
        Self { rows, cols, words }
    }

    /// Keeps the weights for which `keep(index, weight)` holds, `index` being row-major.
    ///
    /// # Panics
    /// When `weights.len() != rows * cols`.
    ///
    /// ```
    /// # use sparsify_exp::sparse::Pattern;
    /// let pattern = Pattern::keep_where(2, 2, &[0.1, -3.0, 2.0, 0.0], |_, w| w.abs() > 1.0);
    /// assert_eq!(pattern.kept(), 2);
    /// assert!(pattern.get(0, 1) && pattern.get(1, 0));
    /// ```
    pub fn keep_where(rows: usize, cols: usize, weights: &[f32], keep: impl Fn(usize, f32) -> bool + Sync) -> Self {
        assert_eq!(weights.len(), rows * cols, "a pattern of {rows} x {cols} needs as many weights");
        Self::from_rows(rows, cols, |row, words| {
            let start = row * cols;
            for (w, (word, part)) in words.iter_mut().zip(weights[start..start + cols].chunks(64)).enumerate() {
                for (bit, &weight) in part.iter().enumerate() {
                    *word |= u64::from(keep(start + w * 64 + bit, weight)) << bit;
                }
            }
        })
    }

    /// Keeps the weights whose magnitudes are above a threshold; all, where there is none.
    ///
    /// # Panics
    /// When `weights.len() != rows * cols`.
    pub fn above(rows: usize, cols: usize, weights: &[f32], threshold: Option<u32>) -> Self {
        let above = |weight| threshold.is_none_or(|threshold| magnitude(weight) > threshold);
        Self::keep_where(rows, cols, weights, |_, weight| above(weight))
    }

    /// Keeps every weight.
    pub fn full(rows: usize, cols: usize) -> Self {
        Self::from_rows(rows, cols, |_, words| words.fill(u64::MAX))
    }

    /// Takes the bits of all rows as [`Pattern::words`] gives them, or nothing where their number is another.
    ///
    /// Bits after the last column are cleared, whatever is there.
    pub fn from_words(rows: usize, cols: usize, mut words: Vec<u64>) -> Option<Self> {
        let per_row = cols.div_ceil(64);
        if words.len() != rows * per_row {
            return None;
        }
        if !cols.is_multiple_of(64) {
            words.iter_mut().skip(per_row - 1).step_by(per_row).for_each(|word| *word &= tail_mask(cols));
        }
        Some(Self { rows, cols, words })
    }

    /// The bits of all rows, each row from a word of its own on.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bits of one row, 64 columns a word.
    pub fn row(&self, row: usize) -> &[u64] {
        let per_row = self.cols.div_ceil(64);
        &self.words[row * per_row..(row + 1) * per_row]
    }

    /// Whether the weight at `row`, `col` is kept.
    pub fn get(&self, row: usize, col: usize) -> bool {
        self.row(row)[col / 64] >> (col % 64) & 1 == 1
    }

    /// The number of weights kept.
    pub fn kept(&self) -> usize {
        self.words.par_chunks(1 << 14).map(|part| part.iter().map(|w| w.count_ones() as usize).sum::<usize>()).sum()
    }

    /// The number of weights kept in one row.
    pub fn kept_in_row(&self, row: usize) -> usize {
        self.row(row).iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The kept columns of one row, ascending.
    pub fn columns_of(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        self.row(row).iter().enumerate().flat_map(|(w, &word)| Bits(word).map(move |bit| w * 64 + bit))
    }

    /// The weights with the pruned ones replaced by +0.0: what the `masked` variant stores.
    ///
    /// # Panics
    /// When `weights.len() != rows * cols`.
    pub fn apply<V: Value>(&self, weights: &[V]) -> Vec<V> {
        assert_eq!(weights.len(), self.rows * self.cols, "the pattern is of another shape");
        let mut masked = vec![V::default(); weights.len()];
        if self.cols > 0 {
            let chunk = self.cols * ROWS_PER_TASK;
            masked.par_chunks_mut(chunk).enumerate().for_each(|(task, out)| {
                for (i, out) in out.chunks_mut(self.cols).enumerate() {
                    let row = task * ROWS_PER_TASK + i;
                    let from = &weights[row * self.cols..(row + 1) * self.cols];
                    for (&word, (out, from)) in self.row(row).iter().zip(out.chunks_mut(64).zip(from.chunks(64))) {
                        for (bit, (out, &from)) in out.iter_mut().zip(from).enumerate() {
                            *out = if word >> bit & 1 == 1 { from } else { V::default() };
                        }
                    }
                }
            });
        }
        masked
    }

    /// The numbers of the weights kept, row after row.
    ///
    /// # Panics
    /// When `weights.len() != rows * cols`.
    pub fn pack(&self, weights: &[f32]) -> Vec<f32> {
        assert_eq!(weights.len(), self.rows * self.cols, "the pattern is of another shape");
        let of_row = |row: usize| self.columns_of(row).map(move |col| weights[row * self.cols + col]);
        (0..self.rows).into_par_iter().flat_map_iter(of_row).collect()
    }

    /// The weights whose kept ones [`Pattern::pack`] gave, with +0.0 elsewhere.
    ///
    /// # Panics
    /// When there is not one number for every weight kept.
    pub fn unpack(&self, packed: &[f32]) -> Vec<f32> {
        assert_eq!(packed.len(), self.kept(), "the pattern keeps another number of weights");
        let mut weights = vec![0.0; self.rows * self.cols];
        let mut rest = packed;
        let rows = weights.chunks_mut(self.cols.max(1)).enumerate().map(|(row, to)| {
            let (these, behind) = rest.split_at(self.kept_in_row(row));
            rest = behind;
            (row, to, these)
        });
        let rows: Vec<(usize, &mut [f32], &[f32])> = rows.collect();
        rows.into_par_iter().with_min_len(ROWS_PER_TASK).for_each(|(row, to, these)| {
            for (col, &number) in self.columns_of(row).zip(these) {
                to[col] = number;
            }
        });
        weights
    }
}

/// The bits of the last word that belong to columns.
fn tail_mask(cols: usize) -> u64 {
    match cols % 64 {
        0 => u64::MAX,
        used => (1 << used) - 1,
    }
}

/// The positions of the set bits of a word, ascending.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bits_behind_the_last_column_stay_clear() {
        let pattern = Pattern::from_rows(3, 70, |_, words| words.fill(u64::MAX));
        assert_eq!(pattern.kept(), 210);
        assert_eq!(pattern.kept_in_row(2), 70);
        assert_eq!(Pattern::from_words(3, 70, vec![u64::MAX; 6]), Some(pattern.clone()));
        assert_eq!((Pattern::from_words(3, 70, vec![0; 7]), pattern), (None, Pattern::full(3, 70)));
    }

    #[test]
    fn empty_shapes_keep_nothing() {
        for (rows, cols) in [(0, 5), (5, 0), (0, 0)] {
            let pattern = Pattern::keep_where(rows, cols, &[], |_, _| true);
            assert_eq!(pattern.kept(), 0);
            assert!(pattern.apply::<f32>(&[]).is_empty());
        }
    }

    proptest! {
        #[test]
        fn counts_positions_and_masks_agree(rows in 0usize..40, cols in 0usize..150, seed in any::<u64>()) {
            let weights: Vec<f32> =
                (0..rows * cols).map(|i| ((i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 - 8e6).collect();
            let pattern = Pattern::keep_where(rows, cols, &weights, |_, w| w > 0.0);
            prop_assert_eq!(Pattern::from_words(rows, cols, pattern.words().to_vec()), Some(pattern.clone()));
            let masked = pattern.apply(&weights);
            let positive = weights.iter().filter(|&&w| w > 0.0).count();
            prop_assert_eq!(pattern.kept(), positive);
            prop_assert_eq!(masked.iter().filter(|&&w| w != 0.0).count(), positive);
            let packed = pattern.pack(&weights);
            prop_assert_eq!(packed.len(), positive);
            prop_assert_eq!(&pattern.unpack(&packed), &masked);
            for row in 0..rows {
                let columns: Vec<usize> = pattern.columns_of(row).collect();
                prop_assert_eq!(columns.len(), pattern.kept_in_row(row));
                prop_assert!(columns.iter().all(|&c| pattern.get(row, c) && masked[row * cols + c] == weights[row * cols + c]));
            }
        }
    }
}
