//! A user's kernel: the arrays in which it gets a weight, and what a backend makes of it.
//!
//! ```text
//!   weights, pattern ──layout──> arrays ──┐
//!   source, entry ───────────────────────>│ backend ──> OwnKernel: run(x) = y
//!   grid, block, shared ─────────────────>┘
//! ```

use crate::config::arena::{ArenaLaunch, ArenaLayout};
use crate::sparse::Pattern;
use burn::tensor::DType;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use thiserror::Error;

/// A kernel as the user wrote it.
#[derive(Clone, Debug)]
pub struct OwnSource {
    /// The file's name, for messages.
    pub name: String,
    /// CUDA C++.
    pub text: String,
    /// The function.
    pub entry: String,
    /// How it is launched.
    pub launch: ArenaLaunch,
}

/// An array of a layout.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnArray {
    /// Numbers of the cell's dtype.
    Numbers(Vec<f32>),
    /// Of 32 bits.
    Words(Vec<u32>),
    /// Of 16 bits.
    Halves(Vec<u16>),
}

/// A weight in the arrays of a layout, in the order of the kernel's parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnArrays {
    /// The arrays.
    pub arrays: Vec<OwnArray>,
    /// `[out_features, in_features]`
    pub shape: [usize; 2],
    /// Weights that are kept.
    pub kept: usize,
}

/// Why a user's kernel does not run.
#[derive(Debug, Error)]
pub enum OwnError {
    /// The backend runs no CUDA.
    #[error("kernels of your own run on `cuda` alone")]
    NotHere,
    /// It can't be compiled, loaded or launched, or failed while it ran.
    #[error("`{name}`: {reason}")]
    Kernel {
        /// The file.
        name: String,
        /// What compiler or driver say.
        reason: String,
    },
}

/// A user's kernel with a weight on a device.
pub trait OwnKernel<B: Backend> {
    /// `y = x . W^T`, whatever the kernel makes of it.
    ///
    /// # Shapes
    /// - `x`: `[tokens, in_features]`
    /// - returns `[tokens, out_features]`
    fn run(&self, x: FloatTensor<B>) -> FloatTensor<B>;

    /// The same, where every number is NaN before the kernel writes it, and what the device says is waited for.
    ///
    /// # Errors
    /// What the driver says.
    fn checked(&self, x: FloatTensor<B>) -> Result<FloatTensor<B>, OwnError>;

    /// The same with a weight in memory of its own.
    fn copied(&self) -> Box<dyn OwnKernel<B>>;

    /// Bytes of the weight's arrays.
    fn bytes(&self) -> u64;

    /// As tables name it.
    fn name(&self) -> String;
}

/// The arrays of a layout.
pub fn own_arrays(layout: ArenaLayout, weights: &[f32], pattern: &Pattern) -> OwnArrays {
    let (rows, cols) = (pattern.rows(), pattern.cols());
    let columns = || (0..rows).flat_map(|row| pattern.columns_of(row));
    let arrays = match layout {
        ArenaLayout::Dense => vec![OwnArray::Numbers(pattern.apply(weights))],
        ArenaLayout::Csr => vec![
            OwnArray::Numbers(pattern.pack(weights)),
            OwnArray::Words(columns().map(|col| col as u32).collect()),
            OwnArray::Words(row_ptr(pattern)),
        ],
        ArenaLayout::Csr16 => vec![
            OwnArray::Numbers(pattern.pack(weights)),
            OwnArray::Halves(columns().map(|col| col as u16).collect()),
            OwnArray::Words(row_ptr(pattern)),
        ],
        ArenaLayout::Bitmap => vec![
            OwnArray::Words(masks(pattern)),
            OwnArray::Numbers(pattern.pack(weights)),
            OwnArray::Words(row_ptr(pattern)),
        ],
    };
    OwnArrays { arrays, shape: [rows, cols], kept: pattern.kept() }
}

fn row_ptr(pattern: &Pattern) -> Vec<u32> {
    let mut end = 0;
    let ends = (0..pattern.rows()).map(|row| {
        end += pattern.kept_in_row(row) as u32;
        end
    });
    std::iter::once(0).chain(ends).collect()
}

/// Bit `i` of word `w` of a row is column `32 w + i`.
fn masks(pattern: &Pattern) -> Vec<u32> {
    let words = pattern.cols().div_ceil(32);
    let halves = |row: usize| pattern.row(row).iter().flat_map(|&word| [word as u32, (word >> 32) as u32]).take(words);
    (0..pattern.rows()).flat_map(halves).collect()
}

/// Bytes of arrays whose numbers are of a dtype.
pub fn own_bytes(arrays: &[OwnArray], dtype: DType) -> u64 {
    let bytes = |array: &OwnArray| match array {
        OwnArray::Numbers(numbers) => numbers.len() * dtype.size(),
        OwnArray::Words(words) => words.len() * 4,
        OwnArray::Halves(halves) => halves.len() * 2,
    };
    arrays.iter().map(bytes).sum::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_as_documented() {
        // A row of 35 columns that keeps the first and the two last but one, an empty row, and one that keeps column 32.
        let weights: Vec<f32> = (0..3 * 35).map(|i| i as f32 + 1.0).collect();
        let kept = [0, 33, 34, 2 * 35 + 32];
        let pattern = Pattern::keep_where(3, 35, &weights, |at, _| kept.contains(&at));
        let of = |layout| own_arrays(layout, &weights, &pattern).arrays;
        let values = OwnArray::Numbers(vec![1.0, 34.0, 35.0, 103.0]);
        let row_ptr = OwnArray::Words(vec![0, 3, 3, 4]);
        let columns = [0, 33, 34, 32];
        assert_eq!(
            of(ArenaLayout::Csr),
            [values.clone(), OwnArray::Words(columns.map(u32::from).to_vec()), row_ptr.clone()]
        );
        assert_eq!(of(ArenaLayout::Csr16), [values.clone(), OwnArray::Halves(columns.to_vec()), row_ptr.clone()]);
        let masks = OwnArray::Words(vec![1, 0b110, 0, 0, 0, 1]);
        assert_eq!(of(ArenaLayout::Bitmap), [masks, values, row_ptr]);
        let [OwnArray::Numbers(dense)] = &of(ArenaLayout::Dense)[..] else { panic!("one array") };
        assert_eq!(dense.iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(at, _)| at).collect::<Vec<_>>(), kept);
        assert_eq!(own_bytes(&of(ArenaLayout::Bitmap), DType::F16), 6 * 4 + 4 * 2 + 4 * 4);
        assert_eq!(own_bytes(&of(ArenaLayout::Csr16), DType::F32), 4 * 4 + 4 * 2 + 4 * 4);
    }
}
