//! Rows of (value, gap) entries, cut into chunks of one size: the CSR that a GPU reads for one token to four.
//!
//! ```text
//!   row      . 5 . . 7 3 . …        entry  value 16 bits, gap 4 bits: columns between the entry before and this one
//!   entries  (5,1) (7,2) (3,0) …    group  8 entries: 16 bytes of values and 4 of gaps; a row has whole groups
//!
//!   block    block_rows rows, their groups end to end:
//!            | row 0 ........ | row 1 ..... | row 2 .......... | zeros
//!            | chunk 0 | chunk 1 | chunk 2 | chunk 3 | chunk 4 | …       `groups` groups each, one for each thread
//!
//!   values   [blocks][groups][threads][8]     the k-th groups of neighbouring threads lie side by side
//!   gaps     [blocks][groups][threads]        entries 0 to 3 in the low halves of the bytes, 4 to 7 in the high ones
//!   heads    [blocks][threads]                bits 0..16 the column after the entry before the chunk
//!                                             bits 16..22 the group at which the next row begins, or 63
//!                                             bits 22..32 which chunk of the block this is
//!   bounds   [blocks][block_rows + 1]         the first group of each row
//! ```
//! A gap of more than 15 columns is bridged by zeros. Every thread has as much to do as another, however long the rows
//! are. A row has at least as many groups as a chunk, so that no chunk has the ends of two rows. Chunks are dealt out to
//! threads by the columns where they begin, so that neighbours read neighbouring inputs.

use super::{FormatError, Pattern};
use rayon::prelude::*;

/// Entries of a group.
const GROUP: usize = 8;
/// The widest gap that an entry has.
const MOST_GAP: usize = 15;
/// The widest matrix: a head has 16 bits for a column.
const MOST_COLUMNS: usize = u16::MAX as usize;
/// The most groups of a chunk: a head has 6 bits for one of them, and for none.
const MOST_GROUPS: usize = 62;
/// A head's word for a chunk of one row.
const NO_SWITCH: u32 = 63;
/// The most threads of a block, so that two fit a multiprocessor, and the fewest that keep it busy.
const MOST_THREADS: usize = 512;
const MANY_THREADS: usize = 352;
/// Blocks that a multiprocessor runs at once.
const BLOCKS: usize = 2;
/// Threads come in warps.
const WARP: usize = 32;

/// How rows are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaCut {
    /// Blocks of rows.
    pub blocks: usize,
    /// Rows of a block; the last may have fewer.
    pub block_rows: usize,
    /// Groups of a chunk.
    pub groups: usize,
    /// Chunks of a block.
    pub threads: usize,
}

/// A matrix as gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    rows: usize,
    cols: usize,
    cut: DeltaCut,
    /// `[blocks][groups][threads][8]`
    pub values: Vec<f32>,
    /// `[blocks][groups][threads]`
    pub gaps: Vec<u32>,
    /// `[blocks][threads]`
    pub heads: Vec<u32>,
    /// `[blocks][block_rows + 1]`
    pub bounds: Vec<u16>,
}

impl Delta {
    /// Packs the kept weights for a device of this many multiprocessors. `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ or the matrix is wider than 65535.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Delta, Pattern};
    /// let weights = [0.0, 5.0, 0.0, 0.0, 7.0, 3.0];
    /// let pattern = Pattern::keep_where(1, 6, &weights, |_, w| w != 0.0);
    /// let delta = Delta::from_dense(&weights, &pattern, 132)?;
    /// assert_eq!((delta.values[..4].to_vec(), delta.gaps[0]), (vec![5.0, 7.0, 3.0, 0.0], 0x0201));
    /// assert_eq!((delta.heads[0], &delta.bounds[..]), (63 << 16, &[0, 1][..]));
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(weights: &[f32], pattern: &Pattern, processors: usize) -> Result<Self, FormatError> {
        let (rows, cols) = (pattern.rows(), pattern.cols());
        FormatError::check_shape(weights, pattern)?;
        if cols > MOST_COLUMNS {
            return Err(FormatError::TooManyColumns { cols, most: MOST_COLUMNS });
        }
        let lengths: Vec<usize> = (0..rows).into_par_iter().map(|row| entries(pattern, row).div_ceil(GROUP)).collect();
        let cut = DeltaCut::new(&lengths, processors);
        let DeltaCut { blocks, block_rows, groups, threads } = cut;
        let mut packed = Self {
            rows,
            cols,
            cut,
            values: vec![0.0; blocks * groups * threads * GROUP],
            gaps: vec![0; blocks * groups * threads],
            heads: vec![0; blocks * threads],
            bounds: vec![0; blocks * (block_rows + 1)],
        };
        let of_blocks = packed
            .values
            .par_chunks_mut((groups * threads * GROUP).max(1))
            .zip(packed.gaps.par_chunks_mut((groups * threads).max(1)))
            .zip(packed.heads.par_chunks_mut(threads.max(1)))
            .zip(packed.bounds.par_chunks_mut(block_rows + 1));
        of_blocks.enumerate().for_each(|(block, (((values, gaps), heads), bounds))| {
            let of = block * block_rows..((block + 1) * block_rows).min(rows);
            Block::new(weights, pattern, of, groups).store(cut, values, gaps, heads, bounds);
        });
        Ok(packed)
    }

    /// How rows are shared out.
    pub fn cut(&self) -> DeltaCut {
        self.cut
    }

    /// The dense matrix again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows * self.cols];
        for block in 0..self.cut.blocks {
            for thread in 0..self.cut.threads {
                self.walk(block, thread, |row, column, value| {
                    if value != 0.0 {
                        dense[row * self.cols + column] = value;
                    }
                });
            }
        }
        dense
    }

    /// Gives row, column and value of a thread's entries, as the kernel goes through them; those after the last column
    /// fill up.
    fn walk(&self, block: usize, thread: usize, mut each: impl FnMut(usize, usize, f32)) {
        let DeltaCut { block_rows, groups, threads, .. } = self.cut;
        let head = self.heads[block * threads + thread];
        let bounds = &self.bounds[block * (block_rows + 1)..][..block_rows + 1];
        let begin = (head >> 22) as usize * groups;
        let Some(mut row) = (0..block_rows).find(|&row| (bounds[row]..bounds[row + 1]).contains(&(begin as u16)))
        else {
            return;
        };
        let mut column = head as usize & 0xffff;
        for group in 0..groups {
            if group as u32 == head >> 16 & 63 {
                (row, column) = (row + 1, 0);
            }
            let at = (block * groups + group) * threads + thread;
            for entry in 0..GROUP {
                column += (self.gaps[at] >> shift(entry)) as usize & 15;
                each(block * block_rows + row, column, self.values[at * GROUP + entry]);
                column += 1;
            }
        }
    }

    /// Bytes stored, for values of this many bytes.
    pub fn bytes(&self, value_bytes: usize) -> usize {
        self.values.len() * value_bytes
            + size_of_val(&*self.gaps)
            + size_of_val(&*self.heads)
            + size_of_val(&*self.bounds)
    }
}

impl DeltaCut {
    /// For rows of this many groups: as many blocks as a device runs at once, or whole multiples, with the chunks that
    /// waste least.
    fn new(lengths: &[usize], processors: usize) -> Self {
        let rows = lengths.len();
        let once = BLOCKS * processors.max(1);
        for waves in 1.. {
            let block_rows = rows.div_ceil(once * waves).max(1);
            let cuts = (1..=MOST_GROUPS).map(|groups| {
                let of_block = |rows: &[usize]| rows.iter().map(|&length| length.max(groups)).sum::<usize>();
                let most = lengths.chunks(block_rows).map(of_block).max().unwrap_or(0);
                let threads = most.div_ceil(groups).next_multiple_of(WARP).max(WARP);
                Self { blocks: rows.div_ceil(block_rows), block_rows, groups, threads }
            });
            let few = |cut: &Self| cut.threads <= MANY_THREADS;
            let fit = cuts.filter(|cut| cut.threads <= MOST_THREADS);
            let best = fit.min_by_key(|cut| (few(cut), if few(cut) { cut.groups } else { cut.groups * cut.threads }));
            // One row of the most columns always fits.
            if let Some(best) = best {
                return best;
            }
        }
        unreachable!("blocks of one row fit")
    }
}

/// Where a group's word has the gap of an entry.
fn shift(entry: usize) -> usize {
    if entry < 4 { 8 * entry } else { 8 * (entry - 4) + 4 }
}

/// Entries of a row, those that bridge among them.
fn entries(pattern: &Pattern, row: usize) -> usize {
    let mut next = 0;
    let of = |column| {
        let count = (column - next) / (MOST_GAP + 1) + 1;
        next = column + 1;
        count
    };
    pattern.columns_of(row).map(of).sum()
}

/// The groups of some rows, end to end.
#[derive(Default)]
struct Block {
    values: Vec<f32>,
    gaps: Vec<u8>,
    /// `[groups]`: the column after the entry before the group.
    columns: Vec<u16>,
    /// `[rows + 1]`
    bounds: Vec<u16>,
}

impl Block {
    fn new(weights: &[f32], pattern: &Pattern, rows: std::ops::Range<usize>, least: usize) -> Self {
        let cols = pattern.cols();
        let mut block = Self::default();
        for row in rows {
            block.bounds.push(block.columns.len() as u16);
            let mut next = 0;
            for column in pattern.columns_of(row) {
                while column - next > MOST_GAP {
                    block.push(next, 0.0, MOST_GAP);
                    next += MOST_GAP + 1;
                }
                block.push(next, weights[row * cols + column], column - next);
                next = column + 1;
            }
            let end = usize::from(block.bounds[block.bounds.len() - 1]) + least;
            while !block.values.len().is_multiple_of(GROUP) || block.columns.len() < end {
                block.push(next.min(cols), 0.0, 0);
                next += 1;
            }
        }
        block.bounds.push(block.columns.len() as u16);
        block
    }

    fn push(&mut self, next: usize, value: f32, gap: usize) {
        if self.values.len().is_multiple_of(GROUP) {
            self.columns.push(next as u16);
        }
        self.values.push(value);
        self.gaps.push(gap as u8);
    }

    fn store(&self, cut: DeltaCut, values: &mut [f32], gaps: &mut [u32], heads: &mut [u32], bounds: &mut [u16]) {
        let DeltaCut { groups, threads, .. } = cut;
        let last = self.bounds[self.bounds.len() - 1];
        bounds.fill(last);
        bounds[..self.bounds.len()].copy_from_slice(&self.bounds);
        let start = |chunk: usize| self.columns.get(chunk * groups).copied().unwrap_or(0);
        let mut chunks: Vec<usize> = (0..threads).collect();
        chunks.sort_by_key(|&chunk| start(chunk));
        for (thread, &chunk) in chunks.iter().enumerate() {
            let begin = chunk * groups;
            let inside = self.bounds.iter().map(|&bound| usize::from(bound));
            let next_row = inside.filter(|&bound| bound > begin && bound < usize::from(last)).min();
            let switch = next_row.map(|bound| bound - begin).filter(|&group| group < groups);
            let switch = switch.map_or(NO_SWITCH, |group| group as u32);
            heads[thread] = u32::from(start(chunk)) | switch << 16 | (chunk as u32) << 22;
            for group in begin..(begin + groups).min(self.columns.len()) {
                let at = (group - begin) * threads + thread;
                let of = group * GROUP..(group + 1) * GROUP;
                values[at * GROUP..(at + 1) * GROUP].copy_from_slice(&self.values[of.clone()]);
                let word = |(entry, &gap): (usize, &u8)| u32::from(gap) << shift(entry);
                gaps[at] = self.gaps[of].iter().enumerate().map(word).sum();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel works out: chunks' sums before and after a row's end, then those of a row.
    fn product(delta: &Delta, x: &[f64]) -> Vec<f64> {
        let DeltaCut { blocks, block_rows, groups, threads } = delta.cut();
        let mut y = vec![f64::NAN; delta.rows];
        for block in 0..blocks {
            let (mut before, mut behind) = (vec![f64::NAN; threads], vec![f64::NAN; threads]);
            for thread in 0..threads {
                let head = delta.heads[block * threads + thread];
                let (mut sums, mut at, mut entry) = ([0.0; 2], 0, 0);
                let mut column = head as usize & 0xffff;
                for group in 0..groups {
                    if group as u32 == head >> 16 & 63 {
                        (at, column) = (1, 0);
                    }
                    let place = (block * groups + group) * threads + thread;
                    for number in 0..GROUP {
                        column += (delta.gaps[place] >> shift(number)) as usize & 15;
                        assert!(column < delta.cols + 8 * groups + 16, "inside the zeros behind the inputs");
                        let input = x.get(column).copied().unwrap_or(0.0);
                        sums[at] += f64::from(delta.values[place * GROUP + number]) * input;
                        column += 1;
                        entry += 1;
                    }
                }
                assert_eq!(entry, groups * GROUP);
                let chunk = (head >> 22) as usize;
                before[chunk] = sums[0];
                behind[chunk] = sums[at];
            }
            let bounds = &delta.bounds[block * (block_rows + 1)..][..block_rows + 1];
            for row in 0..block_rows.min(delta.rows - block * block_rows) {
                let (begin, end) = (usize::from(bounds[row]), usize::from(bounds[row + 1]));
                assert!(end > begin, "a row has groups");
                let of = |chunk| if chunk * groups < begin { behind[chunk] } else { before[chunk] };
                y[block * block_rows + row] = (begin / groups..=(end - 1) / groups).map(of).sum();
            }
        }
        y
    }

    fn check(rows: usize, cols: usize, pattern: &Pattern, processors: usize) {
        let weights: Vec<f32> = (0..rows * cols).map(|i| (i % 1000) as f32 + 1.0).collect();
        let delta = Delta::from_dense(&weights, pattern, processors).unwrap();
        let masked = pattern.apply(&weights);
        assert_eq!(delta.to_dense(), masked);
        let x: Vec<f64> = (0..cols).map(|column| (column % 17) as f64 - 8.0).collect();
        let sum = |row: &[f32]| row.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
        let y: Vec<f64> = masked.chunks(cols).map(sum).collect();
        assert_eq!(product(&delta, &x), y);
        let cut = delta.cut();
        assert!(cut.threads.is_multiple_of(WARP) && cut.threads <= MOST_THREADS && cut.groups <= MOST_GROUPS);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_kept_and_multiplied(
            rows in 0usize..40, cols in 1usize..700, sparsity in 0.0f64..1.0, processors in 1usize..5, seed: u64
        ) {
            check(rows, cols, &Pattern::random(rows, cols, sparsity, seed), processors);
        }
    }

    #[test]
    fn rows_of_any_length_share_blocks() {
        // Long rows, empty ones and gaps of every width, in few blocks.
        let (rows, cols) = (90, 600);
        let pattern = Pattern::keep_where(rows, cols, &vec![1.0; rows * cols], |index, _| match index / cols % 5 {
            0 => true,
            1 => false,
            2 => index % 16 == 0,
            3 => index % 97 == 0,
            _ => index % cols == cols - 1,
        });
        check(rows, cols, &pattern, 1);
        check(rows, cols, &pattern, 132);
        check(1, 65535, &Pattern::full(1, 65535), 132);
        check(3, 1, &Pattern::full(3, 1), 132);
    }

    #[test]
    fn large_matrices_take_a_block_for_each_half_of_a_multiprocessor() {
        let cut = |rows, length| DeltaCut::new(&vec![length; rows], 132);
        // Half of 4096 columns: 256 groups a row.
        let half = cut(11008, 257);
        assert_eq!((half.blocks, half.block_rows), (263, 42));
        assert!(half.threads > MANY_THREADS && half.threads * half.groups < 42 * 257 * 104 / 100, "{half:?}");
        let tenth = cut(4096, 68);
        assert_eq!((tenth.blocks, tenth.block_rows, tenth.threads), (256, 16, 384), "{tenth:?}");
        // A head of 128256 rows takes several rounds of 264 blocks.
        assert_eq!(cut(128_256, 257).blocks, 1052);
    }

    #[test]
    fn matrices_that_are_too_wide_are_refused() {
        let error = Delta::from_dense(&vec![0.0; 65536], &Pattern::full(1, 65536), 132).unwrap_err();
        assert_eq!(error, FormatError::TooManyColumns { cols: 65536, most: 65535 });
    }

    #[test]
    fn half_of_the_weights_take_about_five_eighths_of_dense() {
        let pattern = Pattern::random(336, 4096, 0.5, 1);
        let delta = Delta::from_dense(&vec![1.0; 336 * 4096], &pattern, 4).unwrap();
        let bytes = delta.bytes(2) as f64 / (336.0 * 4096.0);
        assert!((1.25..1.35).contains(&bytes), "{bytes}");
    }
}
