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
//! A file a layout; which format has which is said once for each backend:
//!
//! ```text
//!   format    CPU, f32      CPU, bf16           GPU
//!   csr       Sell          Sell                Delta for up to 4 tokens; elsewhere Groups for one token, Squares
//!   bitmap    Bitmap        BitmapPairs         Octets; elsewhere BitTiles
//!   csr32     Csr           Csr                 none
//!   nm        none          none                TwoOfFour
//!             kernels::cpu::pack                cuda/weight.rs
//! ```
//!
//! Words, in all layouts and their kernels:
//! - *entry*: a stored weight with its place; padding is an entry too. *Kept*: the weights of the pattern, no padding.
//! - *panel*: 16 rows of a bitmap. *Chunk*: 128 rows of SELL-C-σ, *slice*: 8 of them.
//! - *block*: neighbouring columns of such rows that are stored, or worked on, together. (A transformer's block is
//!   `model`'s, a `[[prune]]` block `config`'s.)
//! - *square*: 16 x 16 weights. *Tile*: 16 rows of some columns as a GPU takes them at once; on the CPU a tile is no part
//!   of a weight but of the inputs, see [`crate::execute`].
//! - *shape*: `[rows, cols]`, nothing else. (*Point* is no word of this module: a prune point is `plan`'s.)
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
mod nm;
mod octets;
mod panels;
mod pattern;
mod random;
mod sell;
mod squares;
mod tiles;

pub use bitmap::Bitmap;
pub use bitmap_pairs::BitmapPairs;
pub use csr::Csr;
pub use delta::{Delta, DeltaCut};
pub use digit::{Digit, magnitude};
pub use groups::{GROUP, Groups, StepBits};
pub use nm::{NM_COLUMNS, TwoOfFour};
pub use octets::{LaneOrder, OCTET_COLUMNS, Octets, OctetsCut};
pub use panels::PANEL;
pub use pattern::Pattern;
pub use sell::{Block, CHUNK, SLICE, SLICES, Sell, SellIndex};
pub use squares::{Squares, TILE_COLUMNS};
pub use tiles::BitTiles;

use half::{bf16, f16};
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

impl Value for f16 {
    #[inline(always)]
    fn of(number: f32) -> Self {
        Self::from_f32(number)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
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
    /// More of four weights are kept than the format holds.
    #[error("row {row} keeps {kept} of its columns {column} to {last}, and the format holds 2 of every 4: prune to the pattern `2:4` first", last = .column + 3)]
    Crowded {
        /// The row, counted from 0.
        row: usize,
        /// The first of the four columns, counted from 0.
        column: usize,
        /// How many of them are kept.
        kept: u32,
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
