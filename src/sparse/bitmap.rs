//! One bit a weight and the kept values, in panels of sixteen rows.
//!
//! ```text
//!   panel = 16 rows (panels.rs); for every column a 16-bit mask, then the kept weights of that column
//!
//!            column 0   1   2                masks   0b0101  0b0000  0b0011
//!   row 0           a   .   d                values  a b d e
//!   row 1           .   .   e                starts  0, then where each next panel begins
//!   row 2           b   .   .
//!   row 3           .   .   .                (drawn with 4 rows)
//! ```
//! A vector unit turns a mask and the next values into sixteen weights of one column with one expand
//! instruction, so masks and values are read once and in order, whatever the number of tokens. Rows
//! after the last have no bits. Sixteen zeros follow the values: kernels load whole vectors.

use super::panels::{PANEL, Panels};
use super::{FormatError, Pattern};

/// A bitmap matrix: masks `[panels][cols]`, and [`PANEL`] zeros after the values.
#[derive(Clone, Debug, PartialEq)]
pub struct Bitmap(Panels<u16, f32>);

impl Bitmap {
    /// Packs the kept weights. `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, or more than 2^32 - 1 weights are kept.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Bitmap, Pattern};
    /// let weights = [0.0, 5.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 4.0];
    /// let pattern = Pattern::keep_where(3, 4, &weights, |_, w| w != 0.0);
    /// let bitmap = Bitmap::from_dense(&weights, &pattern)?;
    /// let (masks, values) = bitmap.panel(0);
    /// assert_eq!(masks, [0b100, 0b101, 0, 0b101]);
    /// assert_eq!(values[..5], [1.0, 5.0, 2.0, 7.0, 4.0]);
    /// assert_eq!(bitmap.bytes(), 4 * 2 + (5 + 16) * 4 + 2 * 4);
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(weights: &[f32], pattern: &Pattern) -> Result<Self, FormatError> {
        FormatError::check_shape(weights, pattern)?;
        let fill = |panel, masks: &mut [u16], values: &mut [f32]| fill(weights, pattern, panel, masks, values);
        Panels::pack(pattern, pattern.cols(), PANEL, fill).map(Self)
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.0.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.0.cols
    }

    /// The masks `[cols]` of a panel, and the values from its first on: its own, those of later panels,
    /// and [`PANEL`] zeros.
    ///
    /// # Panics
    /// When there is no such panel.
    pub fn panel(&self, panel: usize) -> (&[u16], &[f32]) {
        self.0.panel(panel)
    }

    /// The dense matrix again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let (rows, cols) = (self.rows(), self.cols());
        let mut dense = vec![0.0; rows * cols];
        for panel in 0..self.0.count() {
            let (masks, values) = self.panel(panel);
            let mut values = values.iter();
            for (column, &mask) in masks.iter().enumerate() {
                for row in (0..PANEL).filter(|row| mask >> row & 1 == 1) {
                    if let Some(&value) = values.next() {
                        dense[(panel * PANEL + row) * cols + column] = value;
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

fn fill(weights: &[f32], pattern: &Pattern, panel: usize, masks: &mut [u16], values: &mut [f32]) {
    let cols = pattern.cols();
    let first = panel * PANEL;
    let count = PANEL.min(pattern.rows() - first);
    let mut at = 0;
    for (w, masks) in masks.chunks_mut(64).enumerate() {
        let mut words = [0u64; PANEL];
        for (row, word) in words.iter_mut().take(count).enumerate() {
            *word = pattern.row(first + row)[w];
        }
        for (bit, mask) in masks.iter_mut().enumerate() {
            *mask = words.iter().enumerate().fold(0, |mask, (row, word)| mask | ((word >> bit & 1) as u16) << row);
            let mut bits = *mask;
            while bits != 0 {
                let row = first + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                values[at] = weights[row * cols + w * 64 + bit];
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_of_another_shape_is_refused() {
        let pattern = Pattern::keep_where(2, 2, &[1.0; 4], |_, _| true);
        assert_eq!(Bitmap::from_dense(&[1.0; 3], &pattern), Err(FormatError::Shape { weights: 3, rows: 2, cols: 2 }));
    }

    proptest! {
        #[test]
        fn packing_and_unpacking_is_masking(rows in 0usize..70, cols in 0usize..140, percent in 0u64..=100, seed in any::<u64>()) {
            let hash = |i: usize| (i as u64).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            let weights: Vec<f32> = (0..rows * cols).map(|i| hash(i) as f32 + 1.0).collect();
            let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| hash(i + 7) % 100 < percent);
            let bitmap = Bitmap::from_dense(&weights, &pattern).unwrap();
            prop_assert_eq!(bitmap.to_dense(), pattern.apply(&weights));
            let panels = rows.div_ceil(PANEL);
            prop_assert_eq!(bitmap.bytes(), panels * cols * 2 + (pattern.kept() + PANEL) * 4 + (panels + 1) * 4);
        }
    }
}
