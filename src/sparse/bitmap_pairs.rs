//! The bitmap format for 16-bit values: panels of sixteen rows, two columns interleaved.
//!
//! ```text
//!            column 0   1 | 2   3            bits of a mask, low to high: row 0 column 0, row 0 column 1,
//!   row 0           a   . | .   d            row 1 column 0, ...
//!   row 1           b   c | .   .
//!                                            masks 0b1101 0b0010, values a b c d      (drawn with 2 rows)
//! ```
//! A vector unit expands thirty-two 16-bit numbers with one instruction: a lane of 32 bits then holds a row's
//! two weights, and since a bf16 is the upper half of an f32, a shift gives the even column's and a mask the
//! odd one's. A matrix with an odd number of columns has one more, empty. Thirty-two zeros follow the
//! values: kernels load whole vectors.

use super::panels::{PANEL, Panels};
use super::{FormatError, Pattern, Value};
use half::bf16;

/// A bitmap matrix of bf16 values: masks `[panels][pairs]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BitmapPairs(Panels<u32, bf16>);

/// Zeros after the values.
const ZEROS: usize = 32;

impl BitmapPairs {
    /// Packs the kept weights, rounded to bf16. `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, or more than 2^32 - 1 weights are kept.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{BitmapPairs, Pattern};
    /// let weights = [1.0, 0.0, 0.0, 4.0, 2.0, 3.0, 0.0, 0.0];
    /// let pattern = Pattern::keep_where(2, 4, &weights, |_, w| w != 0.0);
    /// let bitmap = BitmapPairs::from_dense(&weights, &pattern)?;
    /// assert_eq!(bitmap.panel(0).0, [0b1101, 0b0010]);
    /// assert_eq!(bitmap.bytes(), 2 * 4 + (4 + 32) * 2 + 2 * 4);
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(weights: &[f32], pattern: &Pattern) -> Result<Self, FormatError> {
        FormatError::check_shape(weights, pattern)?;
        let fill = |panel, masks: &mut [u32], values: &mut [bf16]| fill(weights, pattern, panel, masks, values);
        Panels::pack(pattern, pattern.cols().div_ceil(2), ZEROS, fill).map(Self)
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.0.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.0.cols
    }

    /// The masks `[ceil(cols / 2)]` of a panel, and the values from its first on: its own, those of later
    /// panels, and thirty-two zeros.
    ///
    /// # Panics
    /// When there is no such panel.
    pub fn panel(&self, panel: usize) -> (&[u32], &[bf16]) {
        self.0.panel(panel)
    }

    /// The dense matrix again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let (rows, cols) = (self.rows(), self.cols());
        let mut dense = vec![0.0; rows * cols];
        for panel in 0..self.0.count() {
            let (masks, values) = self.panel(panel);
            let mut values = values.iter();
            for (pair, &mask) in masks.iter().enumerate() {
                for bit in (0..2 * PANEL).filter(|bit| mask >> bit & 1 == 1) {
                    if let Some(&value) = values.next() {
                        dense[(panel * PANEL + bit / 2) * cols + 2 * pair + bit % 2] = value.to_f32();
                    }
                }
            }
        }
        dense
    }

    /// Bytes stored: masks, values with the zeros after them, and the panels' starts.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

fn fill(weights: &[f32], pattern: &Pattern, panel: usize, masks: &mut [u32], values: &mut [bf16]) {
    let cols = pattern.cols();
    let first = panel * PANEL;
    let rows = PANEL.min(pattern.rows() - first);
    let mut values = values.iter_mut();
    for (pair, mask) in masks.iter_mut().enumerate() {
        let (word, shift) = (pair / 32, pair % 32 * 2);
        for row in 0..rows {
            let bits = (pattern.row(first + row)[word] >> shift) as u32 & 3;
            *mask |= bits << (2 * row);
            for column in (0..2).filter(|column| bits >> column & 1 == 1) {
                if let Some(value) = values.next() {
                    *value = bf16::of(weights[(first + row) * cols + 2 * pair + column]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_and_unpacking_is_masking(rows in 0usize..70, cols in 0usize..140, percent in 0u64..=100, seed in any::<u64>()) {
            let hash = |i: usize| (i as u64).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            // Eight bits of mantissa: exact in bf16.
            let weights: Vec<f32> = (0..rows * cols).map(|i| (hash(i) % 255) as f32 + 1.0).collect();
            let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| hash(i + 7) % 100 < percent);
            let bitmap = BitmapPairs::from_dense(&weights, &pattern).unwrap();
            prop_assert_eq!(bitmap.to_dense(), pattern.apply(&weights));
            let panels = rows.div_ceil(PANEL);
            prop_assert_eq!(bitmap.bytes(), panels * cols.div_ceil(2) * 4 + (pattern.kept() + 32) * 2 + (panels + 1) * 4);
        }
    }
}
