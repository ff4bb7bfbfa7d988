//! Rows of (value, column) entries in groups of eight: the CSR that GPU kernels read for a token or a few.
//!
//! ```text
//!   row     3 . . 5 . . . . 7 . . …        a group: 8 entries of a row, ascending
//!                                            base    column of the first                     16 bits
//!   base    0                                steps   4 bits: from each entry to the next     32 bits
//!   steps   0 3 5 …  (4 bits)                     or 8 bits: from the base to each entry     64 bits
//!   values  3 5 7 …                          values  8
//!
//!   row_ptr  [rows + 1]: the first group of each row
//! ```
//! A row fills its last group with zeros at the last column. A 4-bit gap of more than 15 columns is bridged by
//! zeros; an 8-bit group ends early where an entry is more than 255 columns from the base. Whichever takes fewer
//! bytes is stored: 4 bits up to about 90 % of zeros. Groups have one size, so a lane's loads are whole vectors,
//! and their columns begin anew, so no lane waits for another's.

use super::{FormatError, Pattern};
use rayon::prelude::*;

/// Entries of a group.
pub const GROUP: usize = 8;

/// The widest matrix whose columns fit the 16 bits of a base.
const MOST_COLUMNS: usize = 1 << 16;

/// How many bits say where a group's entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepBits {
    /// From one entry to the next.
    Four,
    /// From the group's base.
    Eight,
}

impl StepBits {
    /// 32-bit words of steps that a group has.
    pub fn words(self) -> usize {
        match self {
            Self::Four => 1,
            Self::Eight => 2,
        }
    }
}

/// A matrix in groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    rows: usize,
    cols: usize,
    bits: StepBits,
    /// `[rows + 1]`
    pub row_ptr: Vec<u32>,
    /// `[groups]`
    pub bases: Vec<u16>,
    /// `[groups][words]`, the first entry in the lowest bits.
    pub steps: Vec<u32>,
    /// `[groups][GROUP]`
    pub values: Vec<f32>,
}

/// The groups of a row.
#[derive(Default)]
struct Row {
    bases: Vec<u16>,
    steps: Vec<u32>,
    values: Vec<f32>,
}

impl Groups {
    /// Packs the kept weights; `value_bytes` is what a value will take. `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, the matrix is wider than 65536, or offsets need more than 32 bits.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Groups, Pattern, StepBits};
    /// let weights = [3.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 7.0, 0.0];
    /// let pattern = Pattern::keep_where(1, 10, &weights, |_, w| w != 0.0);
    /// let groups = Groups::from_dense(&weights, &pattern, 2)?;
    /// assert_eq!((groups.bits(), &groups.row_ptr[..], &groups.bases[..]), (StepBits::Four, &[0, 1][..], &[0][..]));
    /// assert_eq!(groups.steps, [0x530]);
    /// assert_eq!(groups.values, [3.0, 5.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(weights: &[f32], pattern: &Pattern, value_bytes: usize) -> Result<Self, FormatError> {
        let (rows, cols) = (pattern.rows(), pattern.cols());
        FormatError::check_shape(weights, pattern)?;
        if cols > MOST_COLUMNS {
            return Err(FormatError::TooManyColumns { cols, most: MOST_COLUMNS });
        }
        let bytes = |bits: StepBits| {
            let groups = |row| encode(pattern, row, bits, |_| 0.0).bases.len();
            let groups: usize = (0..rows).into_par_iter().step_by(SAMPLED_ROWS).map(groups).sum();
            groups * (GROUP * value_bytes + 4 * bits.words() + 2)
        };
        let bits = if bytes(StepBits::Four) <= bytes(StepBits::Eight) { StepBits::Four } else { StepBits::Eight };
        let encode = |row| encode(pattern, row, bits, |col| weights[row * cols + col]);
        let encoded: Vec<Row> = (0..rows).into_par_iter().map(encode).collect();
        let groups: usize = encoded.iter().map(|row| row.bases.len()).sum();
        if u32::try_from(groups * GROUP).is_err() {
            return Err(FormatError::TooManyEntries { kept: groups * GROUP });
        }
        let mut packed = Self {
            rows,
            cols,
            bits,
            row_ptr: vec![0],
            bases: Vec::with_capacity(groups),
            steps: Vec::with_capacity(groups * bits.words()),
            values: Vec::with_capacity(groups * GROUP),
        };
        for row in encoded {
            packed.bases.extend(row.bases);
            packed.steps.extend(row.steps);
            packed.values.extend(row.values);
            packed.row_ptr.push(packed.bases.len() as u32);
        }
        Ok(packed)
    }

    /// The dense matrix again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows * self.cols];
        for row in 0..self.rows {
            for group in self.row_ptr[row] as usize..self.row_ptr[row + 1] as usize {
                let mut column = usize::from(self.bases[group]);
                for entry in 0..GROUP {
                    match self.bits {
                        StepBits::Four => column += (self.steps[group] >> (4 * entry)) as usize & 15,
                        StepBits::Eight => {
                            let step = self.steps[2 * group + entry / 4] >> (8 * (entry % 4)) & 255;
                            column = usize::from(self.bases[group]) + step as usize;
                        }
                    }
                    dense[row * self.cols + column] += self.values[group * GROUP + entry];
                }
            }
        }
        dense
    }

    /// How many bits say where a group's entries are.
    pub fn bits(&self) -> StepBits {
        self.bits
    }

    /// Bytes stored, for values of this many bytes.
    pub fn bytes(&self, value_bytes: usize) -> usize {
        size_of_val(&*self.row_ptr)
            + size_of_val(&*self.bases)
            + size_of_val(&*self.steps)
            + self.values.len() * value_bytes
    }
}

/// Of this many rows, one tells which steps are smaller.
const SAMPLED_ROWS: usize = 16;

fn encode(pattern: &Pattern, row: usize, bits: StepBits, value: impl Fn(usize) -> f32) -> Row {
    let mut columns = pattern.columns_of(row).peekable();
    let mut encoded = Row::default();
    while let Some(&base) = columns.peek() {
        let (mut values, mut steps, mut at) = ([0.0; GROUP], 0u64, base);
        for (entry, slot) in values.iter_mut().enumerate() {
            let Some(&column) = columns.peek() else {
                if bits == StepBits::Eight {
                    steps |= ((at - base) as u64) << (8 * entry);
                }
                continue;
            };
            match bits {
                StepBits::Four => {
                    let gap = (column - at).min(15);
                    at += gap;
                    steps |= (gap as u64) << (4 * entry);
                }
                StepBits::Eight => {
                    if column - base <= 255 {
                        at = column;
                    }
                    steps |= ((at - base) as u64) << (8 * entry);
                }
            }
            if at == column {
                *slot = value(column);
                columns.next();
            }
        }
        encoded.bases.push(base as u16);
        encoded.steps.push(steps as u32);
        if bits == StepBits::Eight {
            encoded.steps.push((steps >> 32) as u32);
        }
        encoded.values.extend(values);
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(rows: usize, cols: usize, sparsity: f64, seed: u64) -> (Vec<f32>, Pattern) {
        let pattern = Pattern::random(rows, cols, sparsity, seed);
        let weights: Vec<f32> = (0..rows * cols).map(|i| i as f32 + 1.0).collect();
        (weights, pattern)
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_kept(rows in 0usize..20, cols in 1usize..700, sparsity in 0.0f64..1.0, seed: u64) {
            let (weights, pattern) = matrix(rows, cols, sparsity, seed);
            let groups = Groups::from_dense(&weights, &pattern, 2).unwrap();
            prop_assert_eq!(groups.to_dense(), pattern.apply(&weights));
            prop_assert!(groups.bases.iter().all(|&base| usize::from(base) < cols));
        }
    }

    #[test]
    fn few_entries_take_wide_steps_and_many_narrow_ones() {
        let bits = |sparsity| {
            let (weights, pattern) = matrix(32, 4096, sparsity, 1);
            let groups = Groups::from_dense(&weights, &pattern, 2).unwrap();
            assert_eq!(groups.to_dense(), pattern.apply(&weights));
            (groups.bits(), groups.bytes(2) as f64 / weights.len() as f64)
        };
        let (half, bytes) = bits(0.5);
        assert_eq!(half, StepBits::Four);
        assert!((1.37..1.40).contains(&bytes), "{bytes}");
        let (few, bytes) = bits(0.95);
        assert_eq!(few, StepBits::Eight);
        assert!(bytes < 0.2, "{bytes}");
    }

    #[test]
    fn matrices_that_are_too_wide_are_refused() {
        let pattern = Pattern::full(1, 65537);
        let error = Groups::from_dense(&vec![0.0; 65537], &pattern, 2).unwrap_err();
        assert_eq!(error, FormatError::TooManyColumns { cols: 65537, most: 65536 });
    }
}
