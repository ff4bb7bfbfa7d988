//! Compressed sparse rows.
//!
//! ```text
//!   . 5 . 7      row_ptr  0 2 2 5        row r owns entries row_ptr[r] .. row_ptr[r + 1]
//!   . . . .      columns  1 3 0 1 3      ascending within a row; 16-bit when cols <= 65536
//!   1 2 . 4      values   5 7 1 2 4
//!
//!   bytes = 4 * kept (values) + 2 or 4 * kept (columns) + 4 * (rows + 1) (row_ptr)
//! ```

use super::{FormatError, Pattern};
use rayon::prelude::*;

/// The widest matrix whose column indices fit 16 bits.
const U16_COLUMNS: usize = 1 << 16;

/// A sparse matrix in CSR form.
#[derive(Clone, Debug, PartialEq)]
pub struct Csr {
    rows: usize,
    cols: usize,
    row_ptr: Vec<u32>,
    columns: Columns,
    values: Vec<f32>,
}

/// Column indices, as narrow as the matrix allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Up to 65536 columns.
    U16(Vec<u16>),
    /// More.
    U32(Vec<u32>),
}

impl Csr {
    /// Packs the kept weights. `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, or more than 2^32 - 1 weights are kept.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Csr, Pattern};
    /// let weights = [0.0, 5.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 4.0];
    /// let pattern = Pattern::keep_where(3, 4, &weights, |_, w| w != 0.0);
    /// let csr = Csr::from_dense(&weights, &pattern)?;
    /// assert_eq!(csr.row_ptr(), [0, 2, 2, 5]);
    /// assert_eq!(csr.values(), [5.0, 7.0, 1.0, 2.0, 4.0]);
    /// assert_eq!(csr.bytes(), 5 * (4 + 2) + 4 * 4);
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(weights: &[f32], pattern: &Pattern) -> Result<Self, FormatError> {
        let (rows, cols) = (pattern.rows(), pattern.cols());
        FormatError::check_shape(weights, pattern)?;
        let row_ptr = row_pointers(pattern)?;
        let kept = row_ptr[rows] as usize;
        let mut values = vec![0.0f32; kept];
        let columns = if cols <= U16_COLUMNS {
            let mut columns = vec![0u16; kept];
            pack(weights, pattern, &row_ptr, &mut values, &mut columns, |c| c as u16);
            Columns::U16(columns)
        } else {
            let mut columns = vec![0u32; kept];
            pack(weights, pattern, &row_ptr, &mut values, &mut columns, |c| c as u32);
            Columns::U32(columns)
        };
        Ok(Self { rows, cols, row_ptr, columns, values })
    }

    /// The dense matrix again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows * self.cols];
        for row in 0..self.rows {
            for entry in self.row_ptr[row] as usize..self.row_ptr[row + 1] as usize {
                dense[row * self.cols + self.columns.get(entry)] = self.values[entry];
            }
        }
        dense
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `[rows + 1]` entry offsets.
    pub fn row_ptr(&self) -> &[u32] {
        &self.row_ptr
    }

    /// `[kept]` column indices.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// `[kept]` values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The arrays themselves: row pointers, columns, values.
    pub fn into_parts(self) -> (Vec<u32>, Columns, Vec<f32>) {
        (self.row_ptr, self.columns, self.values)
    }

    /// Bytes stored: values, columns and row pointers.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.values) + self.columns.bytes() + size_of_val(&*self.row_ptr)
    }
}

impl Columns {
    /// The column of one entry.
    pub fn get(&self, entry: usize) -> usize {
        match self {
            Self::U16(columns) => usize::from(columns[entry]),
            Self::U32(columns) => columns[entry] as usize,
        }
    }

    /// Bytes stored.
    pub fn bytes(&self) -> usize {
        match self {
            Self::U16(columns) => size_of_val(&**columns),
            Self::U32(columns) => size_of_val(&**columns),
        }
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
fn pack<C: Copy + Send>(
    weights: &[f32],
    pattern: &Pattern,
    row_ptr: &[u32],
    values: &mut [f32],
    columns: &mut [C],
    index: impl Fn(usize) -> C + Sync,
) {
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
            *value = weights[col];
            *column = index(col);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn column_width_follows_the_matrix() {
        for (cols, bytes) in [(U16_COLUMNS, 2), (U16_COLUMNS + 1, 4)] {
            let mut weights = vec![0.0; cols];
            weights[cols - 1] = 3.0;
            let pattern = Pattern::keep_where(1, cols, &weights, |_, w| w != 0.0);
            let csr = Csr::from_dense(&weights, &pattern).unwrap();
            assert_eq!(csr.columns().bytes(), bytes);
            assert_eq!(csr.columns().get(0), cols - 1);
            assert_eq!(csr.bytes(), 4 + bytes + 8);
        }
    }

    #[test]
    fn a_pattern_of_another_shape_is_refused() {
        let pattern = Pattern::keep_where(2, 2, &[1.0; 4], |_, _| true);
        assert_eq!(Csr::from_dense(&[1.0; 3], &pattern), Err(FormatError::Shape { weights: 3, rows: 2, cols: 2 }));
    }

    proptest! {
        #[test]
        fn packing_and_unpacking_is_masking(rows in 0usize..30, cols in 0usize..140, percent in 0u64..=100, seed in any::<u64>()) {
            let hash = |i: usize| (i as u64).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            let weights: Vec<f32> = (0..rows * cols).map(|i| hash(i) as f32 + 1.0).collect();
            let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| hash(i + 7) % 100 < percent);
            let csr = Csr::from_dense(&weights, &pattern).unwrap();
            prop_assert_eq!(csr.to_dense(), pattern.apply(&weights));
            prop_assert_eq!(csr.values().len(), pattern.kept());
            prop_assert_eq!(csr.bytes(), pattern.kept() * 6 + (rows + 1) * 4);
        }
    }
}
