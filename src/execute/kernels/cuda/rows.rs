//! CSR times token rows on a GPU, in CubeCL: the plain form, for correctness first.
//!
//! ```text
//!   few tokens    csr_rows: one plane (32 lanes) a row, the lanes stride over its entries
//!   more          csr_expand: the matrix once into a dense scratch buffer, then a dense product
//! ```
//!
//! Both are launched without bounds checks: every index comes from a well-formed CSR matrix.

use cubecl::prelude::*;

/// Lanes of a plane.
pub const LANES: u32 = 32;
/// Rows that a cube works on.
pub const ROWS_PER_CUBE: u32 = 8;

/// `y[token, row] = bias[row] + Σ values · x[token, column]`, sums in f32.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn csr_rows<F: Float, I: Int>(
    x: &Array<F>,
    values: &Array<F>,
    columns: &Array<I>,
    row_ptr: &Array<u32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    cols: u32,
    rows: u32,
    tokens: u32,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let row = CUBE_POS_X * CUBE_DIM_Y + UNIT_POS_Y;
    if row >= rows {
        terminate!();
    }
    let start = row_ptr[row as usize];
    let end = row_ptr[(row + 1) as usize];
    for token in 0..tokens {
        let mut sum = f32::new(0.0);
        let mut entry = start + UNIT_POS_X;
        while entry < end {
            let column = u32::cast_from(columns[entry as usize]);
            let product = f32::cast_from(values[entry as usize]) * f32::cast_from(x[(token * cols + column) as usize]);
            sum += product;
            entry += CUBE_DIM_X;
        }
        let total = plane_sum(sum);
        if UNIT_POS_X == 0 {
            y[(token * rows + row) as usize] = F::cast_from(total + f32::cast_from(bias[row as usize]));
        }
    }
}

/// The dense matrix `[rows, cols]`; one cube a row, `dense` holds zeros before.
#[cube(launch_unchecked)]
pub fn csr_expand<F: Float, I: Int>(
    values: &Array<F>,
    columns: &Array<I>,
    row_ptr: &Array<u32>,
    dense: &mut Array<F>,
    cols: u32,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let row = CUBE_POS_X;
    let end = row_ptr[(row + 1) as usize];
    let mut entry = row_ptr[row as usize] + UNIT_POS_X;
    while entry < end {
        let column = u32::cast_from(columns[entry as usize]);
        let value = values[entry as usize];
        dense[(row * cols + column) as usize] = value;
        entry += CUBE_DIM_X;
    }
}
