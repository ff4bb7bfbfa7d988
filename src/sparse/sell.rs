//! SELL-C-σ with C = 8 and σ = 128, in blocks of columns: CSR for vector units.
//!
//! SELL stands for *sliced ELLPACK*: rows are cut into slices of C, whose entries are interleaved and padded to the
//! slice's longest row. σ is how many rows are put in order of length before they are cut, so that rows of a slice are
//! about as long as each other. Here C is [`SLICE`], the lanes of a vector, and σ is [`CHUNK`]; and each block of
//! columns has slices of its own.
//!
//! ```text
//!   matrix ─> chunks of σ = 128 rows ─> blocks of `width` columns ─> 16 slices of C = 8 rows
//!
//!   one block                         its slices
//!   row  kept columns                 order    2 0 | 3 1        longest rows first
//!   0    1 5 9                        lengths   4  |  2         of a slice: its longest row's, made even
//!   1    4                            columns   0 1 3 5 6 9 8 .   [length][rows of the slice]
//!   2    0 3 6 8                              | 2 4 7 .           a byte each, counted from the block's first
//!   3    2 7                          values    likewise, 0 where a row has ended
//! ```
//! (drawn with C = 2 and σ = 4.) What it buys over plain CSR, `[rows + 1]` pointers and 16-bit columns:
//! - a column takes one byte, since a block has at most 256, so a kept weight takes 5 bytes instead of 6;
//! - the inputs of a block stay in the L1 cache while all rows of the chunk use them;
//! - rows of a slice end together, so loops have no remainders and their ends are predicted; sorting keeps
//!   the padding that this needs at a few percent.
//!
//! Source: Kreutzer et al., SIAM J. Sci. Comput. 36, 2014, for SELL-C-σ; the row swizzle of Gale et al., SC 2020, has
//! the same aim. Index and values are apart: [`SellIndex`] is the pattern, and values follow its order.

use super::{FormatError, Pattern, Value};
use rayon::prelude::*;
use std::ops::Range;

/// σ: rows of a chunk, put in order of length. A row's place in it fits a byte.
pub const CHUNK: usize = 128;
/// C: rows of a slice.
pub const SLICE: usize = 8;
/// Slices of a block.
pub const SLICES: usize = CHUNK / SLICE;

/// Below this share of kept weights blocks are 256 columns wide, else 128: a block should hold enough
/// entries a row for its loops to pay, and its inputs should fit the L1 cache.
const WIDE_BELOW: f64 = 0.2;

/// Where the values of a matrix belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SellIndex {
    rows: usize,
    cols: usize,
    width: usize,
    kept: usize,
    /// `[chunks * blocks + 1]`: the first entry of each block.
    starts: Vec<u32>,
    /// `[chunks * blocks][SLICES]`: steps of each slice, even.
    lengths: Vec<u16>,
    /// `[chunks * blocks][CHUNK]`: which row of the chunk stands at each place.
    order: Vec<u8>,
    /// `[entries]`: columns within the block.
    columns: Vec<u8>,
}

/// A matrix in SELL-C-σ.
#[derive(Clone, Debug, PartialEq)]
pub struct Sell<V = f32> {
    index: SellIndex,
    values: Vec<V>,
}

/// One block of a chunk, borrowed.
#[derive(Clone, Copy)]
pub struct Block<'a, V> {
    /// `[SLICES]`: steps of each slice, even.
    pub lengths: &'a [u16],
    /// `[CHUNK]`: the row, counted from the chunk's first, at each place; below [`CHUNK`].
    pub order: &'a [u8],
    /// `[entries]`: columns within the block, `[length][SLICE]` slice by slice.
    pub columns: &'a [u8],
    /// `[entries]`: values in the same order.
    pub values: &'a [V],
    /// The block's first column.
    pub first_column: usize,
}

/// What the first pass learns of a chunk: for every block the lengths and the order.
struct Plan {
    lengths: Vec<u16>,
    order: Vec<u8>,
}

impl<V: Value> Sell<V> {
    /// Packs the kept weights. `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, or the entries are more than 2^32 - 1.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Pattern, Sell};
    /// let weights = [0.0, 5.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 4.0];
    /// let pattern = Pattern::keep_where(3, 4, &weights, |_, w| w != 0.0);
    /// let sell: Sell = Sell::from_dense(&weights, &pattern)?;
    /// // Three kept weights in the longest row make four steps for eight rows.
    /// assert_eq!(sell.index().entries(), 4 * 8);
    /// assert_eq!(sell.to_dense(), weights);
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(weights: &[f32], pattern: &Pattern) -> Result<Self, FormatError> {
        let (rows, cols) = (pattern.rows(), pattern.cols());
        FormatError::check_shape(weights, pattern)?;
        let kept = pattern.kept();
        let width = if (kept as f64) < WIDE_BELOW * (rows * cols) as f64 { 256 } else { 128 };
        let blocks = cols.div_ceil(width);
        let chunks = rows.div_ceil(CHUNK);
        let plans: Vec<Plan> = (0..chunks).into_par_iter().map(|chunk| plan(pattern, chunk, width)).collect();

        let mut starts = Vec::with_capacity(chunks * blocks + 1);
        let mut entries = 0usize;
        for lengths in plans.iter().flat_map(|plan| plan.lengths.chunks_exact(SLICES)) {
            starts.push(entries as u32);
            entries += lengths.iter().map(|&length| usize::from(length) * SLICE).sum::<usize>();
        }
        u32::try_from(entries).map_err(|_| FormatError::TooManyEntries { kept: entries })?;
        starts.push(entries as u32);

        let (mut columns, mut values) = (vec![0u8; entries], vec![V::default(); entries]);
        let mut spans = Vec::with_capacity(chunks);
        let (mut rest_columns, mut rest_values) = (&mut columns[..], &mut values[..]);
        for chunk in 0..chunks {
            let length = (starts[(chunk + 1) * blocks] - starts[chunk * blocks]) as usize;
            let (c, rest) = rest_columns.split_at_mut(length);
            let (v, rest_v) = rest_values.split_at_mut(length);
            (rest_columns, rest_values) = (rest, rest_v);
            spans.push((chunk, c, v));
        }
        spans.into_par_iter().for_each(|(chunk, columns, values)| {
            fill(weights, pattern, chunk, width, &plans[chunk], columns, values);
        });
        let lengths = plans.iter().flat_map(|plan| &plan.lengths).copied().collect();
        let order = plans.iter().flat_map(|plan| &plan.order).copied().collect();
        Ok(Self { index: SellIndex { rows, cols, width, kept, starts, lengths, order, columns }, values })
    }

    /// Where the values belong.
    pub fn index(&self) -> &SellIndex {
        &self.index
    }

    /// The dense matrix again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let index = &self.index;
        let mut dense = vec![0.0; index.rows * index.cols];
        for chunk in 0..index.chunks() {
            for block in (0..index.blocks()).map(|block| self.block(chunk, block)) {
                let mut at = 0;
                for (slice, &length) in block.lengths.iter().enumerate() {
                    for place in 0..usize::from(length) * SLICE {
                        let row = usize::from(block.order[slice * SLICE + place % SLICE]) + chunk * CHUNK;
                        let value = block.values[at + place].to_f32();
                        // Padding is +0.0 at a column that may be another entry's.
                        if value.to_bits() != 0 {
                            let column = block.first_column + usize::from(block.columns[at + place]);
                            dense[row * index.cols + column] = value;
                        }
                    }
                    at += usize::from(length) * SLICE;
                }
            }
        }
        dense
    }

    /// One block of a chunk.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn block(&self, chunk: usize, block: usize) -> Block<'_, V> {
        let index = &self.index;
        let at = chunk * index.blocks() + block;
        let entries: Range<usize> = index.starts[at] as usize..index.starts[at + 1] as usize;
        Block {
            lengths: &index.lengths[at * SLICES..][..SLICES],
            order: &index.order[at * CHUNK..][..CHUNK],
            columns: &index.columns[entries.clone()],
            values: &self.values[entries],
            first_column: block * index.width,
        }
    }

    /// Bytes stored: values with their padding and the index.
    pub fn bytes(&self) -> usize {
        let index = &self.index;
        size_of_val(&*self.values)
            + size_of_val(&*index.columns)
            + size_of_val(&*index.order)
            + size_of_val(&*index.lengths)
            + size_of_val(&*index.starts)
    }
}

impl SellIndex {
    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Columns of a block: 128 or 256; the last may have fewer.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Weights kept.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Entries stored: weights kept, and padding.
    pub fn entries(&self) -> usize {
        self.columns.len()
    }

    /// Chunks of [`CHUNK`] rows; the last may have fewer.
    pub fn chunks(&self) -> usize {
        self.rows.div_ceil(CHUNK)
    }

    /// Blocks of a chunk.
    pub fn blocks(&self) -> usize {
        self.cols.div_ceil(self.width)
    }

    /// The rows of a chunk.
    pub fn rows_of(&self, chunk: usize) -> Range<usize> {
        chunk * CHUNK..self.rows.min((chunk + 1) * CHUNK)
    }
}

/// The pattern's words of one row that make up a block. Blocks begin at word boundaries.
fn words(pattern: &Pattern, row: usize, block: usize, width: usize) -> &[u64] {
    let words = pattern.row(row);
    let per_block = width / 64;
    &words[block * per_block..words.len().min((block + 1) * per_block)]
}

fn plan(pattern: &Pattern, chunk: usize, width: usize) -> Plan {
    let blocks = pattern.cols().div_ceil(width);
    let mut plan = Plan { lengths: Vec::with_capacity(blocks * SLICES), order: Vec::with_capacity(blocks * CHUNK) };
    for block in 0..blocks {
        let count = |place: usize| match chunk * CHUNK + place {
            row if row < pattern.rows() => {
                words(pattern, row, block, width).iter().map(|word| word.count_ones()).sum::<u32>()
            }
            _ => 0,
        };
        let mut rows: [(u32, u8); CHUNK] = std::array::from_fn(|place| (count(place), place as u8));
        // A stable sort: the order, and with it every sum, depends on the pattern alone.
        rows.sort_by_key(|&(count, _)| std::cmp::Reverse(count));
        plan.lengths.extend(rows.chunks_exact(SLICE).map(|slice| slice[0].0.next_multiple_of(2) as u16));
        plan.order.extend(rows.iter().map(|&(_, place)| place));
    }
    plan
}

/// Writes the entries of a chunk, block by block; what is not written is padding.
fn fill<V: Value>(
    weights: &[f32],
    pattern: &Pattern,
    chunk: usize,
    width: usize,
    plan: &Plan,
    columns: &mut [u8],
    values: &mut [V],
) {
    let cols = pattern.cols();
    let mut at = 0;
    for (block, (lengths, order)) in plan.lengths.chunks_exact(SLICES).zip(plan.order.chunks_exact(CHUNK)).enumerate() {
        for (&length, places) in lengths.iter().zip(order.chunks_exact(SLICE)) {
            for (lane, &place) in places.iter().enumerate() {
                let row = chunk * CHUNK + usize::from(place);
                if row >= pattern.rows() {
                    continue;
                }
                let weights = &weights[row * cols + block * width..];
                let mut to = at + lane;
                for (w, &word) in words(pattern, row, block, width).iter().enumerate() {
                    let mut bits = word;
                    while bits != 0 {
                        let column = w * 64 + bits.trailing_zeros() as usize;
                        bits &= bits - 1;
                        columns[to] = column as u8;
                        values[to] = V::of(weights[column]);
                        to += SLICE;
                    }
                }
            }
            at += usize::from(length) * SLICE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn longest_rows_come_first() {
        let weights: Vec<f32> = (0..130 * 4).map(|i| if i % 4 <= (i / 4) % 3 { 1.0 } else { 0.0 }).collect();
        let pattern = Pattern::keep_where(130, 4, &weights, |_, w| w != 0.0);
        let sell: Sell = Sell::from_dense(&weights, &pattern).unwrap();
        assert_eq!((sell.index().chunks(), sell.index().blocks()), (2, 1));
        let block = sell.block(0, 0);
        assert_eq!(&block.order[..4], [2, 5, 8, 11]);
        // 42 rows of three, 43 of two, 43 of one; slices are as long as their longest row, made even.
        assert_eq!(block.lengths, [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        // The two rows of the second chunk, of three entries and one, share a slice.
        assert_eq!(sell.block(1, 0).lengths[..2], [4, 0]);
    }

    #[test]
    fn dense_matrices_have_narrow_blocks() {
        let weights = vec![1.0; 256];
        let all = Pattern::keep_where(1, 256, &weights, |_, _| true);
        let few = Pattern::keep_where(1, 256, &weights, |i, _| i % 10 == 0);
        assert_eq!(Sell::<f32>::from_dense(&weights, &all).unwrap().index().blocks(), 2);
        assert_eq!(Sell::<f32>::from_dense(&weights, &few).unwrap().index().blocks(), 1);
    }

    proptest! {
        #[test]
        fn packing_and_unpacking_is_masking(rows in 0usize..300, cols in 0usize..400, percent in 0u64..=100, seed in any::<u64>()) {
            let hash = |i: usize| (i as u64).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            let weights: Vec<f32> = (0..rows * cols).map(|i| hash(i) as f32 + 1.0).collect();
            let pattern = Pattern::keep_where(rows, cols, &weights, |i, _| hash(i + 7) % 100 < percent);
            let sell: Sell = Sell::from_dense(&weights, &pattern).unwrap();
            prop_assert_eq!(sell.to_dense(), pattern.apply(&weights));
            let index = sell.index();
            prop_assert_eq!(index.kept(), pattern.kept());
            let blocks = index.chunks() * index.blocks();
            prop_assert_eq!(sell.bytes(), 5 * index.entries() + blocks * (CHUNK + 2 * SLICES + 4) + 4);
            prop_assert!(index.entries() >= index.kept());
        }
    }
}
