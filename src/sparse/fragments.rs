//! Where a weight lies in the registers of a GPU's tensor core (`mma.m16n8k16`; PTX ISA, "Matrix fragments").
//!
//! ```text
//!   a square of 16 x 16 weights: 32 lanes of 8
//!
//!   lane = 4 * (row mod 8) + q     eight weights = rows (row mod 8) and (row mod 8) + 8, four columns each
//!
//!   columns of q in four squares side by side (64 columns):  16 q + 4 s .. 16 q + 4 s + 4 of square s
//! ```
//! The unit wants other columns than these; but it adds products up, so any order does that the inputs share.
//! In this one a lane's inputs of four squares are 32 bytes side by side.

/// Rows of a square, and its columns.
pub const SIDE: usize = 16;
/// Weights of a square.
pub const SQUARE: usize = SIDE * SIDE;
/// Columns whose squares share the order.
pub const SPAN: usize = 64;

/// The square of a column within its span, and the weight's place in it.
pub fn place(row: usize, column: usize) -> (usize, usize) {
    let (row, column) = (row % SIDE, column % SPAN);
    let lane = 4 * (row % 8) + column / 16;
    let element = 4 * (column % 4 / 2) + 2 * (row / 8) + column % 2;
    (column % 16 / 4, 8 * lane + element)
}

/// Row and column within a span of a place in a square.
pub fn position(square: usize, place: usize) -> (usize, usize) {
    let (lane, element) = (place / 8, place % 8);
    let row = lane / 4 + 8 * (element / 2 % 2);
    (row, 16 * (lane % 4) + 4 * square + 2 * (element / 4) + element % 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_one_place() {
        let mut seen = vec![false; SIDE * SPAN];
        for row in 0..SIDE {
            for column in 0..SPAN {
                let (square, place) = place(row, column);
                assert_eq!(position(square, place), (row, column));
                assert!(!std::mem::replace(&mut seen[square * SQUARE + place], true));
            }
        }
    }
}
