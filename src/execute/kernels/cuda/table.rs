//! Rows of a table by number.

use cubecl::prelude::*;

/// `y[token] = (x[token] +) table[numbers[from + token] + offset]`, a cube a token.
///
/// # Shapes
/// - `x`, `y`: `[tokens, vectors]`
/// - `table`: rows of `vectors` vectors, from one to the next `stride`
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub fn table_rows<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    table: &Array<Vector<F, N>>,
    numbers: &Array<i32>,
    y: &mut Array<Vector<F, N>>,
    vectors: u32,
    stride: u32,
    from: u32,
    offset: u32,
    #[comptime] added: bool,
    #[define(F)] _dtype: StorageType,
) {
    let token = CUBE_POS_X;
    let row = (u32::cast_from(numbers[(from + token) as usize]) + offset) * stride;
    let mut at = UNIT_POS_X;
    while at < vectors {
        let mut numbers = table[(row + at) as usize];
        if comptime!(added) {
            numbers += x[(token * vectors + at) as usize];
        }
        y[(token * vectors + at) as usize] = numbers;
        at += CUBE_DIM_X;
    }
}
