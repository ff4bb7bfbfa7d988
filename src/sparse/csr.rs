//! Compressed sparse rows, as the notebooks and most libraries store them: nothing is laid out for a processor.
//!
//! ```text
//!   . 5 . 7      row_ptr  0 2 2 5        row r owns entries row_ptr[r] .. row_ptr[r + 1]     32 bits
//!   . . . .      columns  1 3 0 1 3      ascending within a row                              32 bits
//!   1 2 . 4      values   5 7 1 2 4      in the same order                                   32 bits, or 16
//!
//!   bytes = (4 + 4) * kept + 4 * (rows + 1)          of f32 values: more than dense below 50 % zeros
//! ```

use super::{FormatError, Pattern, Value};
use rayon::prelude::*;
use std::ops::Range;

/// A sparse matrix in CSR form.
#[derive(Clone, Debug, PartialEq)]
pub struct Csr<V = f32> {
    cols: usize,
    /// `[rows + 1]`
    row_ptr: Vec<u32>,
    /// `[kept]`, each below `cols`.
    columns: Vec<u32>,
    /// `[kept]`
    values: Vec<V>,
}

impl<V: Value> Csr<V> {
    /// Packs the kept weights. `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, more than 2^32 - 1 weights are kept, or there are more than 2^31 - 1 columns.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Csr, Pattern};
    /// let weights = [0.0, 5.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 4.0];
    /// let pattern = Pattern::keep_where(3, 4, &weights, |_, w| w != 0.0);
    /// let csr: Csr = Csr::from_dense(&weights, &pattern)?;
    /// assert_eq!(csr.row_ptr(), [0, 2, 2, 5]);
    /// assert_eq!(csr.columns(), [1, 3, 0, 1, 3]);
    /// assert_eq!(csr.values(), [5.0, 7.0, 1.0, 2.0, 4.0]);
    /// assert_eq!(csr.bytes(), 5 * (4 + 4) + 4 * 4);
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(weights: &[f32], pattern: &Pattern) -> Result<Self, FormatError> {
        let cols = pattern.cols();
        FormatError::check_shape(weights, pattern)?;
        // Vector units gather by signed columns.
        let most = i32::MAX as usize;
        if cols > most {
            return Err(FormatError::TooManyColumns { cols, most });
        }
        let row_ptr = row_pointers(pattern)?;
        let kept = row_ptr.last().map_or(0, |&kept| kept as usize);
        let (mut values, mut columns) = (vec![V::default(); kept], vec![0; kept]);
        pack(weights, pattern, &row_ptr, &mut values, &mut columns);
        Ok(Self { cols, row_ptr, columns, values })
    }

    /// The dense matrix again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows() * self.cols];
        for row in 0..self.rows() {
            for entry in self.entries(row..row + 1) {
                dense[row * self.cols + self.columns[entry] as usize] = self.values[entry].to_f32();
            }
        }
        dense
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.row_ptr.len() - 1
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The entries of some rows.
    ///
    /// # Panics
    /// When there are no such rows.
    pub fn entries(&self, rows: Range<usize>) -> Range<usize> {
        self.row_ptr[rows.start] as usize..self.row_ptr[rows.end] as usize
    }

    /// `[rows + 1]` entry offsets.
    pub fn row_ptr(&self) -> &[u32] {
        &self.row_ptr
    }

    /// `[kept]` column indices.
    pub fn columns(&self) -> &[u32] {
        &self.columns
    }

    /// `[kept]` values.
    pub fn values(&self) -> &[V] {
        &self.values
    }

    /// Bytes stored: values, columns and row pointers.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.values) + size_of_val(&*self.columns) + size_of_val(&*self.row_ptr)
    }
}

fn row_pointers(pattern: &Pattern) -> Result<Vec<u32>, FormatError> {
    let counts: Vec<usize> = (0..pattern.rows()).into_par_iter().map(|row| pattern.kept_in_row(row)).collect();
    let kept: usize = counts.iter().sum();
    if u32::try_from(kept).is_err() {
        return Err(FormatError::TooManyEntries { kept });
    }
    let mut row_ptr = Vec::with_capacity(counts.len() + 1);
    row_ptr.push(0u32);
    let mut offset = 0u32;
    for count in counts {
        offset += count as u32;
        row_ptr.push(offset);
    }
    Ok(row_ptr)
}

/// Copies the kept entries of every row into its span of `values` and `columns`.
fn pack<V: Value>(weights: &[f32], pattern: &Pattern, row_ptr: &[u32], values: &mut [V], columns: &mut [u32]) {
    let cols = pattern.cols();
    let mut spans = Vec::with_capacity(pattern.rows());
    let (mut values, mut columns) = (values, columns);
    for row in 0..pattern.rows() {
        let kept = (row_ptr[row + 1] - row_ptr[row]) as usize;
        let (v, rest_v) = values.split_at_mut(kept);
        let (c, rest_c) = columns.split_at_mut(kept);
        (values, columns) = (rest_v, rest_c);
        spans.push((row, v, c));
    }
    spans.into_par_iter().with_min_len(16).for_each(|(row, values, columns)| {
        let weights = &weights[row * cols..(row + 1) * cols];
        for ((value, column), col) in values.iter_mut().zip(columns).zip(pattern.columns_of(row)) {
            *value = V::of(weights[col]);
            *column = col as u32;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use proptest::prelude::*;

    #[test]
    fn columns_have_32_bits_whatever_the_width() {
        for cols in [1, 255, 1 << 16, (1 << 16) + 1] {
            let mut weights = vec![0.0; cols];
            weights[cols - 1] = 3.0;
            let pattern = Pattern::keep_where(1, cols, &weights, |_, w| w != 0.0);
            let csr: Csr = Csr::from_dense(&weights, &pattern).unwrap();
            assert_eq!((csr.columns(), csr.bytes()), (&[cols as u32 - 1][..], 4 + 4 + 8));
        }
    }

    #[test]
    fn a_pattern_of_another_shape_is_refused() {
        let pattern = Pattern::keep_where(2, 2, &[1.0; 4], |_, _| true);
        let error = Csr::<f32>::from_dense(&[1.0; 3], &pattern).unwrap_err();
        assert_eq!(error, FormatError::Shape { weights: 3, rows: 2, cols: 2 });
    }

    #[test]
    fn rows_may_be_empty_and_all_of_them() {
        let weights: Vec<f32> = (0..15).map(|i| i as f32 + 1.0).collect();
        let csr = |keep: fn(usize) -> bool| {
            let pattern = Pattern::keep_where(5, 3, &weights, |i, _| keep(i));
            Csr::<f32>::from_dense(&weights, &pattern).unwrap()
        };
        assert_eq!(csr(|_| false).row_ptr(), [0; 6]);
        assert_eq!(csr(|_| false).bytes(), 6 * 4);
        assert_eq!(csr(|_| true).row_ptr(), [0, 3, 6, 9, 12, 15]);
        assert_eq!(csr(|_| true).to_dense(), weights);
        let holes = csr(|i| i / 3 == 1 || i == 13);
        assert_eq!((holes.row_ptr(), holes.columns()), (&[0, 0, 3, 3, 3, 4][..], &[0, 1, 2, 1][..]));
    }

    proptest! {
        #[test]
        fn packing_and_unpacking_is_masking(rows in 0usize..30, cols in 0usize..140, percent in 0u64..=100, seed in any::<u64>()) {
            let hash = |i: usize| (i as u64).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            // Eight bits of mantissa: exact in bf16 too.
            let weights: Vec<f32> = (0..rows * cols).map(|i| (hash(i) % 255) as f32 + 1.0).collect();
            let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| hash(i + 7) % 100 < percent);
            let csr = Csr::<f32>::from_dense(&weights, &pattern).unwrap();
            prop_assert_eq!(csr.to_dense(), pattern.apply(&weights));
            prop_assert_eq!(csr.bytes(), pattern.kept() * 8 + (rows + 1) * 4);
            let half = Csr::<bf16>::from_dense(&weights, &pattern).unwrap();
            prop_assert_eq!(half.to_dense(), pattern.apply(&weights));
            prop_assert_eq!(half.bytes(), pattern.kept() * 6 + (rows + 1) * 4);
        }
    }
}
