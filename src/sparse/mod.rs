//! Sparse matrices: which weights are kept, and how the kept ones are stored.
//!
//! A linear layer's weight is `[rows, cols] = [out_features, in_features]`, row-major, in every format.
//! What is kept ([`Pattern`]) and the numbers that are kept are separate, so that every variant of a
//! prune point shares one pattern and no two of them can be timed on different masks.
//!
//! ```text
//!   weight [3, 4]        Pattern        Csr
//!   . 5 . 7              0 1 0 1        row_ptr  0   2 2     5
//!   . . . .              0 0 0 0        columns  1 3     0 1 3
//!   1 2 . 4              1 1 0 1        values   5 7     1 2 4
//! ```
//!
//! Formats of CPU kernels: [`Sliced`], a CSR; [`Bitmap`], and [`BitmapPairs`] for 16-bit values. Of GPU kernels:
//! [`Groups`] and [`Squares`], CSR for one token and for several; [`BitTiles`], a bitmap; of kernels in CUDA C++
//! [`Delta`], CSR for a token or a few, and [`Octets`], a bitmap. [`Csr`] is the plain one.
//!
//! This module knows no layer, model or device: it turns slices into other slices.

mod banks;
mod bitmap;
mod bitmap_pairs;
mod csr;
mod delta;
mod digit;
mod fragments;
mod groups;
mod octets;
mod pattern;
mod random;
mod sliced;
mod squares;
mod tiles;

pub use bitmap::{Bitmap, BitmapIndex, PANEL};
pub use bitmap_pairs::BitmapPairs;
pub use csr::{Columns, Csr};
pub use delta::{Delta, DeltaCut};
pub use digit::{Digit, magnitude};
pub use groups::{GROUP, Groups, StepBits};
pub use octets::{LaneOrder, OCTET_COLUMNS, Octets, OctetsCut};
pub use pattern::Pattern;
pub use sliced::{Block, CHUNK, SLICE, SLICES, Sliced, SlicedIndex};
pub use squares::{Squares, TILE_COLUMNS};
pub use tiles::BitTiles;

use half::bf16;
use thiserror::Error;

/// A number as weights are stored.
pub trait Value: Copy + Default + PartialEq + Send + Sync + std::fmt::Debug + 'static {
    /// The nearest one.
    fn of(number: f32) -> Self;
    /// The same number, exactly.
    fn to_f32(self) -> f32;
}

impl Value for f32 {
    #[inline(always)]
    fn of(number: f32) -> Self {
        number
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Value for bf16 {
    #[inline(always)]
    fn of(number: f32) -> Self {
        Self::from_f32(number)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        // Its bits are the upper half of an f32's.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Why weights can't be packed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// More entries than 32-bit offsets count.
    #[error("{kept} entries are more than 32-bit offsets can count")]
    TooManyEntries {
        /// Entries kept.
        kept: usize,
    },
    /// A matrix too wide for its column indices.
    #[error("{cols} columns are more than {most}, the most that the format can hold")]
    TooManyColumns {
        /// Columns of the matrix.
        cols: usize,
        /// The most that fit.
        most: usize,
    },
    /// The weights do not have the pattern's shape.
    #[error("{weights} weights for a pattern of {rows} x {cols}")]
    Shape {
        /// Weights given.
        weights: usize,
        /// Rows of the pattern.
        rows: usize,
        /// Columns of the pattern.
        cols: usize,
    },
}

impl FormatError {
    fn check_shape(weights: &[f32], pattern: &Pattern) -> Result<(), Self> {
        let (rows, cols) = (pattern.rows(), pattern.cols());
        if weights.len() == rows * cols { Ok(()) } else { Err(Self::Shape { weights: weights.len(), rows, cols }) }
    }
}
