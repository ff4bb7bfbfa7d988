//! One bit a weight and the kept values, in the order of a GPU's tensor core.
//!
//! ```text
//!   tile    16 rows x 64 columns: four squares; tiles lie row of tiles by row of tiles
//!   masks   [tiles][32 lanes]: 32 bits, eight a square (the order of [`super::fragments`])
//!   values  of a tile: square by square, lane by lane, bit by bit; then zeros up to a multiple of eight
//!   starts  [tiles + 1], in eights of values
//! ```
//! The lanes of a plane find where their values begin by one prefix sum over byte counts for all four squares.

use super::fragments::{SIDE, SPAN, place};
use super::{FormatError, Pattern};
use rayon::prelude::*;

/// Values of a tile begin at multiples of this: a load of 16 bytes.
const ALIGN: usize = 8;
/// Lanes of a plane.
const LANES: usize = 32;

/// A bitmap matrix in tiles.
#[derive(Clone, Debug, PartialEq)]
pub struct BitTiles {
    rows: usize,
    cols: usize,
    /// `[tiles][32]`
    pub masks: Vec<u32>,
    /// `[tiles + 1]`
    pub starts: Vec<u32>,
    /// `[starts.last()][8]`
    pub values: Vec<f32>,
}

impl BitTiles {
    /// Packs the kept weights. `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, or offsets need more than 32 bits.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{BitTiles, Pattern};
    /// let weights = [0.0, 5.0, 0.0, 7.0];
    /// let pattern = Pattern::keep_where(2, 2, &weights, |_, w| w != 0.0);
    /// let tiles = BitTiles::from_dense(&weights, &pattern)?;
    /// assert_eq!((tiles.masks[0], tiles.masks[4], &tiles.starts[..]), (0b10, 0b10, &[0, 1][..]));
    /// assert_eq!(tiles.values, [5.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(weights: &[f32], pattern: &Pattern) -> Result<Self, FormatError> {
        let (rows, cols) = (pattern.rows(), pattern.cols());
        FormatError::check_shape(weights, pattern)?;
        let pack = |tile_row| row_of_tiles(weights, pattern, tile_row);
        let packed: Vec<(Vec<u32>, Vec<u32>, Vec<f32>)> = (0..rows.div_ceil(SIDE)).into_par_iter().map(pack).collect();
        let total: usize = packed.iter().map(|(.., values)| values.len()).sum();
        if u32::try_from(total).is_err() {
            return Err(FormatError::TooManyEntries { kept: total });
        }
        let (mut masks, mut starts, mut values) = (Vec::new(), vec![0], Vec::with_capacity(total));
        for (row_masks, ends, row_values) in packed {
            let begin = (values.len() / ALIGN) as u32;
            masks.extend(row_masks);
            starts.extend(ends.iter().map(|end| begin + end));
            values.extend(row_values);
        }
        Ok(Self { rows, cols, masks, starts, values })
    }

    /// The dense matrix again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows * self.cols];
        let across = self.cols.div_ceil(SPAN);
        for (tile, masks) in self.masks.chunks(LANES).enumerate() {
            let mut next = self.starts[tile] as usize * ALIGN;
            for square in 0..4 {
                for place in (0..256).filter(|place| masks[place / 8] >> (8 * square + place % 8) & 1 == 1) {
                    let (row, column) = super::fragments::position(square, place);
                    let (row, column) = (tile / across * SIDE + row, tile % across * SPAN + column);
                    dense[row * self.cols + column] = self.values[next];
                    next += 1;
                }
            }
        }
        dense
    }

    /// The most values of a tile, with the zeros after them.
    pub fn most_values(&self) -> usize {
        self.starts.windows(2).map(|bounds| (bounds[1] - bounds[0]) as usize * ALIGN).max().unwrap_or(0)
    }

    /// Bytes stored, for values of this many bytes.
    pub fn bytes(&self, value_bytes: usize) -> usize {
        size_of_val(&*self.masks) + size_of_val(&*self.starts) + self.values.len() * value_bytes
    }
}

/// Masks, ends (in eights of values, from the row's first) and values.
fn row_of_tiles(weights: &[f32], pattern: &Pattern, tile_row: usize) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
    let cols = pattern.cols();
    let (mut masks, mut ends, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let mut tile_values = [0.0; SIDE * SPAN];
    for tile in 0..cols.div_ceil(SPAN) {
        let mut tile_masks = [0u32; LANES];
        for row in tile_row * SIDE..((tile_row + 1) * SIDE).min(pattern.rows()) {
            let mut bits = pattern.row(row)[tile];
            while bits != 0 {
                let column = SPAN * tile + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let (square, place) = place(row, column);
                tile_masks[place / 8] |= 1 << (8 * square + place % 8);
                tile_values[256 * square + place] = weights[row * cols + column];
            }
        }
        for square in 0..4 {
            for (lane, mask) in tile_masks.iter().enumerate() {
                let kept = (0..8).filter(|bit| mask >> (8 * square + bit) & 1 == 1);
                values.extend(kept.map(|bit| tile_values[256 * square + 8 * lane + bit]));
            }
        }
        values.resize(values.len().next_multiple_of(ALIGN), 0.0);
        masks.extend(tile_masks);
        ends.push((values.len() / ALIGN) as u32);
    }
    (masks, ends, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_kept(rows in 0usize..40, cols in 0usize..300, sparsity in 0.0f64..1.0, seed: u64) {
            let pattern = Pattern::random(rows, cols, sparsity, seed);
            let weights: Vec<f32> = (0..rows * cols).map(|i| i as f32 + 1.0).collect();
            let tiles = BitTiles::from_dense(&weights, &pattern).unwrap();
            prop_assert_eq!(tiles.to_dense(), pattern.apply(&weights));
            prop_assert!(tiles.most_values() <= SIDE * SPAN);
            prop_assert_eq!(tiles.values.len(), *tiles.starts.last().unwrap() as usize * 8);
        }
    }

    #[test]
    fn half_of_the_weights_take_little_more_than_half_of_the_bytes() {
        let pattern = Pattern::random(256, 1024, 0.5, 1);
        let tiles = BitTiles::from_dense(&vec![1.0; 256 * 1024], &pattern).unwrap();
        let bytes = tiles.bytes(2) as f64 / (256.0 * 1024.0);
        assert!((1.125..1.15).contains(&bytes), "{bytes}");
    }
}
