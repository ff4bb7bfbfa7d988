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
//! This module knows no layer, model or device: it turns slices into other slices.

mod csr;
mod pattern;
mod random;

pub use csr::{Columns, Csr, CsrError};
pub use pattern::Pattern;
