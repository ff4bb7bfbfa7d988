//! A matrix without its zeros: a bit per element, and the elements whose bit is set.
//!
//! ```text
//!   [[a 0 b]     NAME.shape   I64 [2]                    2 3
//!    [0 c 0]]    NAME.bitmap  U8  [rows, ceil(cols / 8)]  0b101 0b010     column c is bit c % 8 of byte c / 8
//!                NAME.values  [kept]                      a b c           row after row
//! ```
//!
//! Bits after the last column are 0. `numpy.unpackbits(bitmap, axis=1, count=cols, bitorder="little")` is the
//! mask. Owns this form, in both directions; knows no file format.

use super::error::TensorProblem;
use super::view::{TensorInfo, View, width};
use crate::load::weights::Dtype;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// What the tensors of the form are called after the matrix' name: shape, bits, elements.
pub const SUFFIXES: [&str; 3] = [".shape", ".bitmap", ".values"];

/// Bytes that a task unpacks or packs: rows of about this many.
const TASK: usize = 256 * 1024;

/// A matrix of a file that has it without its zeros.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Packed {
    /// The matrix as it is seen from outside.
    pub info: TensorInfo,
    pub bitmap: View,
    pub values: View,
}

impl Packed {
    /// Takes the three tensors of every matrix of a file out of `views`.
    ///
    /// # Errors
    /// The name of a matrix whose tensors contradict each other, and how.
    pub fn take_from(
        views: &mut BTreeMap<String, View>,
        file: &[u8],
    ) -> Result<Vec<(String, Self)>, (String, TensorProblem)> {
        let [shape, bitmap, values] = SUFFIXES;
        let names = views.keys().filter_map(|name| name.strip_suffix(bitmap)).map(ToOwned::to_owned);
        let whole = |name: &String| [shape, values].iter().all(|suffix| views.contains_key(&format!("{name}{suffix}")));
        let names: Vec<String> = names.filter(whole).collect();
        let mut packed = Vec::with_capacity(names.len());
        for name in names {
            if views.contains_key(&name) {
                return Err((name, TensorProblem::Packed("it is there a second time, with them".into())));
            }
            let mut take = |suffix| views.remove(&format!("{name}{suffix}"));
            if let (Some(shape), Some(bitmap), Some(values)) = (take(shape), take(bitmap), take(values)) {
                let one = Self::new(&shape, bitmap, values, file).map_err(|problem| (name.clone(), problem))?;
                packed.push((name, one));
            }
        }
        Ok(packed)
    }

    fn new(shape: &View, bitmap: View, values: View, file: &[u8]) -> Result<Self, TensorProblem> {
        let problem = |what: &str| TensorProblem::Packed(what.into());
        let sizes: Vec<u8> = file[shape.storage.clone()].to_vec();
        let (sizes, rest) = sizes.as_chunks::<8>();
        let (&[rows, cols], []) = (sizes, rest) else { return Err(problem("its shape is not two numbers")) };
        let size = |bytes| usize::try_from(i64::from_le_bytes(bytes)).map_err(|_| problem("its shape is negative"));
        let (rows, cols) = (size(rows)?, size(cols)?);
        let elements = rows.checked_mul(cols).filter(|_| shape.info.dtype == Dtype::I64);
        let Some(elements) = elements else { return Err(problem("its shape is not of 64-bit integers in range")) };
        let fits = (bitmap.info.dtype, &bitmap.info.shape[..]) == (Dtype::U8, &[rows, cols.div_ceil(8)]);
        // Views into a larger storage are no part of this form.
        if !fits || bitmap.storage.len() != rows * cols.div_ceil(8) {
            return Err(problem("its bitmap does not fit its shape"));
        }
        if values.info.shape.len() != 1 || values.info.shape[0] > elements || width(values.info.dtype).is_none() {
            return Err(problem("its values do not fit its shape"));
        }
        let info = TensorInfo { dtype: values.info.dtype, shape: vec![rows, cols] };
        Ok(Self { info, bitmap, values })
    }

    /// Which elements the bitmap keeps, row-major.
    pub fn kept(&self, file: &[u8]) -> Result<Vec<bool>, TensorProblem> {
        let cols = self.info.shape[1];
        // Bits that no value stands for are refused there.
        self.bytes(file)?;
        let rows = file[self.bitmap.storage.clone()].chunks(cols.div_ceil(8).max(1));
        Ok(rows.flat_map(|row| (0..cols).map(|col| row[col / 8] >> (col % 8) & 1 == 1)).collect())
    }

    /// The matrix' bytes, row-major, with its zeros.
    pub fn bytes(&self, file: &[u8]) -> Result<Vec<u8>, TensorProblem> {
        let (rows, cols) = (self.info.shape[0], self.info.shape[1]);
        let Some(width) = width(self.info.dtype) else { return Err(TensorProblem::UnsupportedDtype(self.info.dtype)) };
        let values = self.values.bytes(file)?;
        unpack(rows, cols, width, &file[self.bitmap.storage.clone()], &values)
    }
}

/// A matrix with its zeros; `bitmap` has whole bytes per row.
fn unpack(rows: usize, cols: usize, width: usize, bitmap: &[u8], values: &[u8]) -> Result<Vec<u8>, TensorProblem> {
    let per_row = cols.div_ceil(8);
    if rows == 0 || cols == 0 {
        return Ok(Vec::new());
    }
    let tail = if cols.is_multiple_of(8) { 0 } else { u8::MAX << (cols % 8) };
    if bitmap.chunks(per_row).any(|row| row[per_row - 1] & tail != 0) {
        return Err(TensorProblem::Packed("its bitmap has bits after the last column".into()));
    }
    // Where the values of every task's rows begin.
    let task_rows = (TASK / (cols * width)).max(1);
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
    let mut starts = vec![0];
    for task in bitmap.chunks(task_rows * per_row) {
        starts.push(starts[starts.len() - 1] + ones(task));
    }
    let (bits, has) = (starts[starts.len() - 1], values.len() / width);
    if bits != has {
        return Err(TensorProblem::Packed(format!("its bitmap has {bits} bits for {has} values")));
    }
    let mut matrix = vec![0; rows * cols * width];
    let tasks = matrix.par_chunks_mut(task_rows * cols * width).zip(bitmap.par_chunks(task_rows * per_row));
    tasks.zip(starts).for_each(|((out, bitmap), start)| {
        let mut from = values[start * width..].chunks_exact(width);
        for (out, bits) in out.chunks_mut(cols * width).zip(bitmap.chunks(per_row)) {
            for (byte, out) in bits.iter().zip(out.chunks_mut(8 * width)) {
                let kept = out.chunks_mut(width).enumerate().filter(|(bit, _)| byte >> bit & 1 == 1);
                kept.zip(&mut from).for_each(|((_, out), value)| out.copy_from_slice(value));
            }
        }
    });
    Ok(matrix)
}

/// The bits of rows of `cols` columns, given as words of 64 with every row from a word of its own on, as bytes with
/// every row from a byte of its own on.
pub fn bitmap(cols: usize, words: &[u64]) -> Vec<u8> {
    let (words_per_row, bytes_per_row) = (cols.div_ceil(64), cols.div_ceil(8));
    let rows = words.chunks(words_per_row.max(1));
    rows.flat_map(|row| row.iter().flat_map(|word| word.to_le_bytes()).take(bytes_per_row)).collect()
}

/// The elements of a matrix whose bits are set in `bitmap`, of `width` bytes each.
pub fn values(cols: usize, width: usize, bitmap: &[u8], matrix: &[u8]) -> Vec<u8> {
    let rows = matrix.chunks(cols.max(1) * width).zip(bitmap.chunks(cols.div_ceil(8).max(1)));
    let elements = rows.flat_map(|(row, bits)| {
        let kept = move |column: usize| bits[column / 8] >> (column % 8) & 1 == 1;
        row.chunks(width).enumerate().filter(move |(column, _)| kept(*column)).map(|(_, element)| element)
    });
    elements.flatten().copied().collect()
}

/// Sets the elements to zero whose bits are not set in `bitmap`.
pub fn mask(cols: usize, width: usize, bitmap: &[u8], matrix: &mut [u8]) {
    let rows = matrix.par_chunks_mut(cols.max(1) * width).zip(bitmap.par_chunks(cols.div_ceil(8).max(1)));
    rows.for_each(|(row, bits)| {
        let gone = |column: usize| bits[column / 8] >> (column % 8) & 1 == 0;
        let elements = row.chunks_mut(width).enumerate().filter(|(column, _)| gone(*column));
        elements.for_each(|(_, element)| element.fill(0));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The words of a matrix' elements other than zero, of two bytes each.
    fn words(cols: usize, matrix: &[u16]) -> Vec<u64> {
        let word = |part: &[u16]| part.iter().rev().fold(0, |word, &value| word << 1 | u64::from(value != 0));
        matrix.chunks(cols).flat_map(|row| row.chunks(64).map(word).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_matrix_of_the_module_doc() {
        let matrix = [1u16, 0, 2, 0, 3, 0];
        let bytes: Vec<u8> = matrix.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bits = bitmap(3, &words(3, &matrix));
        assert_eq!(bits, [0b101, 0b010]);
        let kept = values(3, 2, &bits, &bytes);
        assert_eq!(kept, [1, 0, 2, 0, 3, 0]);
        assert_eq!(unpack(2, 3, 2, &bits, &kept).unwrap(), bytes);
        let mut masked = bytes.clone();
        mask(3, 2, &[0b001, 0b010], &mut masked);
        assert_eq!(masked, [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let said = |bits: &[u8], values: &[u8]| unpack(2, 3, 2, bits, values).unwrap_err().to_string();
        assert!(said(&[0b101, 0b010], &[0; 4]).contains("3 bits for 2 values"));
        assert!(said(&[0b1101, 0b010], &[0; 8]).contains("after the last column"));
        assert!(unpack(0, 3, 2, &[], &[]).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(rows in 1usize..30, cols in 1usize..200, seed: u64) {
            let value = |i: usize| {
                let mixed = (i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                if mixed.is_multiple_of(3) { 0 } else { mixed as u16 | 1 }
            };
            let matrix: Vec<u16> = (0..rows * cols).map(value).collect();
            let bytes: Vec<u8> = matrix.iter().flat_map(|v| v.to_le_bytes()).collect();
            let bits = bitmap(cols, &words(cols, &matrix));
            prop_assert_eq!(bits.len(), rows * cols.div_ceil(8));
            let kept = values(cols, 2, &bits, &bytes);
            prop_assert_eq!(kept.len(), 2 * matrix.iter().filter(|v| **v != 0).count());
            prop_assert_eq!(&unpack(rows, cols, 2, &bits, &kept).unwrap(), &bytes);
            let mut masked = vec![0xff; bytes.len()];
            mask(cols, 2, &bits, &mut masked);
            prop_assert!(masked.chunks(2).zip(&matrix).all(|(out, v)| (out == [0, 0]) == (*v == 0)));
        }
    }
}
