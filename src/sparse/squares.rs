//! (value, place) entries of squares of 16 x 16 weights: the CSR that GPU kernels read for many tokens.
//!
//! ```text
//!   tile   16 rows x 128 columns: eight squares; tiles lie row of tiles by row of tiles
//!   chunk  eight entries of one square:  values 8   places 8 x 8 bits   square 8 bits
//!   starts [tiles + 1]: the first chunk of each tile
//! ```
//! A place is where the weight lies in the tensor core's registers ([`super::fragments`]), so that a lane stores
//! an entry to shared memory and another loads its registers from there, whole. Lanes store at the same time: chunks
//! of all squares take turns, and the entries are dealt out over them so that those at one position of 32
//! neighbouring chunks lie in different banks where they can ([`super::banks`]). A square's last chunk is filled up
//! with entries that it has already.

use super::banks::{BANKS, POSITIONS, Waves};
use super::fragments::{SIDE, SPAN, SQUARE, place};
use super::{FormatError, Pattern};
use rayon::prelude::*;

/// Columns of a tile.
pub const TILE_COLUMNS: usize = 128;
/// Entries of a chunk.
const CHUNK: usize = POSITIONS;
/// Chunks that are stored at the same time: the lanes of a plane.
const LANES: usize = 32;
/// Squares of a tile.
const SQUARES: usize = 8;
/// The most waves of a tile: 2048 weights are 256 chunks.
const MOST_WAVES: usize = 8;

/// A matrix in squares.
#[derive(Clone, Debug, PartialEq)]
pub struct Squares {
    rows: usize,
    cols: usize,
    most_chunks: usize,
    /// `[tiles + 1]`
    pub starts: Vec<u32>,
    /// `[chunks]`: the square within the tile.
    pub squares: Vec<u8>,
    /// `[chunks][8]`
    pub places: Vec<u8>,
    /// `[chunks][8]`
    pub values: Vec<f32>,
}

/// The chunks of some tiles.
#[derive(Default)]
struct Chunks {
    /// Chunks of each tile.
    counts: Vec<usize>,
    squares: Vec<u8>,
    places: Vec<u8>,
    values: Vec<f32>,
}

type Entry = (f32, u8);

impl Squares {
    /// Packs the kept weights. `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, or offsets need more than 32 bits.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Pattern, Squares};
    /// let weights = [0.0, 5.0, 0.0, 7.0];
    /// let pattern = Pattern::keep_where(2, 2, &weights, |_, w| w != 0.0);
    /// let squares = Squares::from_dense(&weights, &pattern)?;
    /// // One chunk of the first square; row 0 is lane 0's, row 1 is lane 4's.
    /// assert_eq!((&squares.starts[..], &squares.squares[..]), (&[0, 1][..], &[0][..]));
    /// assert_eq!(squares.places[..2], [1, 4 * 8 + 1]);
    /// assert_eq!(squares.values[..2], [5.0, 7.0]);
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(weights: &[f32], pattern: &Pattern) -> Result<Self, FormatError> {
        let (rows, cols) = (pattern.rows(), pattern.cols());
        FormatError::check_shape(weights, pattern)?;
        let tile_rows: Vec<Chunks> =
            (0..rows.div_ceil(SIDE)).into_par_iter().map(|tile_row| row_of_tiles(weights, pattern, tile_row)).collect();
        let total: usize = tile_rows.iter().map(|chunks| chunks.squares.len()).sum();
        if u32::try_from(total * CHUNK).is_err() {
            return Err(FormatError::TooManyEntries { kept: total * CHUNK });
        }
        let mut packed = Self {
            rows,
            cols,
            most_chunks: tile_rows.iter().flat_map(|chunks| chunks.counts.iter().copied()).max().unwrap_or(0),
            starts: vec![0],
            squares: Vec::with_capacity(total),
            places: Vec::with_capacity(total * CHUNK),
            values: Vec::with_capacity(total * CHUNK),
        };
        let mut start = 0;
        for chunks in tile_rows {
            for count in chunks.counts {
                start += count as u32;
                packed.starts.push(start);
            }
            packed.squares.extend(chunks.squares);
            packed.places.extend(chunks.places);
            packed.values.extend(chunks.values);
        }
        Ok(packed)
    }

    /// The dense matrix again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows * self.cols];
        let across = self.cols.div_ceil(TILE_COLUMNS);
        for (tile, bounds) in self.starts.windows(2).enumerate() {
            for chunk in bounds[0] as usize..bounds[1] as usize {
                let square = usize::from(self.squares[chunk]);
                for entry in chunk * CHUNK..(chunk + 1) * CHUNK {
                    let (row, column) = super::fragments::position(square % 4, usize::from(self.places[entry]));
                    let row = tile / across * SIDE + row;
                    let column = tile % across * TILE_COLUMNS + square / 4 * SPAN + column;
                    dense[row * self.cols + column] = self.values[entry];
                }
            }
        }
        dense
    }

    /// The most chunks of a tile.
    pub fn most_chunks(&self) -> usize {
        self.most_chunks
    }

    /// Bytes stored, for values of this many bytes.
    pub fn bytes(&self, value_bytes: usize) -> usize {
        size_of_val(&*self.starts) + self.squares.len() + self.places.len() + self.values.len() * value_bytes
    }
}

fn row_of_tiles(weights: &[f32], pattern: &Pattern, tile_row: usize) -> Chunks {
    let cols = pattern.cols();
    let mut chunks = Chunks::default();
    for tile in 0..cols.div_ceil(TILE_COLUMNS) {
        let mut squares: [Vec<Entry>; SQUARES] = Default::default();
        for row in tile_row * SIDE..((tile_row + 1) * SIDE).min(pattern.rows()) {
            let words = pattern.row(row);
            for word in 2 * tile..(2 * tile + 2).min(words.len()) {
                let mut bits = words[word];
                while bits != 0 {
                    let column = 64 * word + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    let (square, place) = place(row, column);
                    squares[word % 2 * 4 + square].push((weights[row * cols + column], place as u8));
                }
            }
        }
        // A word's two weights side by side.
        squares.iter_mut().for_each(|entries| entries.sort_unstable_by_key(|&(_, place)| place));
        chunks.tile(&squares);
    }
    chunks
}

impl Chunks {
    fn tile(&mut self, squares: &[Vec<Entry>; SQUARES]) {
        let begin = self.squares.len();
        // One chunk of every square in turn, so that every square has chunks in every wave.
        let chunks = squares.each_ref().map(|entries| entries.len().div_ceil(CHUNK));
        let mut chunks_of: [Vec<usize>; SQUARES] = Default::default();
        for turn in 0..chunks.into_iter().max().unwrap_or(0) {
            for square in (0..SQUARES).filter(|&square| turn < chunks[square]) {
                chunks_of[square].push(self.squares.len() - begin);
                self.squares.push(square as u8);
            }
        }
        self.places.resize(self.squares.len() * CHUNK, 0);
        self.values.resize(self.squares.len() * CHUNK, 0.0);
        let mut waves = Waves::default();
        for (entries, chunks) in squares.iter().zip(&chunks_of).filter(|(entries, _)| !entries.is_empty()) {
            self.deal(entries, begin, chunks, &mut waves);
        }
        self.counts.push(self.squares.len() - begin);
    }

    /// Deals a square's entries out over its chunks, which are counted from the tile's first, `begin`.
    fn deal(&mut self, entries: &[Entry], begin: usize, chunks: &[usize], waves: &mut Waves) {
        let bounds: [usize; MOST_WAVES + 1] =
            std::array::from_fn(|wave| chunks.partition_point(|&chunk| chunk < wave * LANES));
        // How many entries are at each wave's position.
        let mut filled = [[0usize; CHUNK]; MOST_WAVES];
        let mut open: [u8; MOST_WAVES] =
            std::array::from_fn(|wave| if bounds[wave] < bounds[wave + 1] { 255 } else { 0 });
        let mut before = None;
        for &(value, place) in entries {
            let word = place / 2;
            let (wave, position) = match before {
                // Neighbours share a word, which is one access.
                Some((same, wave, position)) if same == word && open[wave] >> position & 1 == 1 => (wave, position),
                _ => {
                    let open = open.into_iter().enumerate().filter(|&(_, positions)| positions != 0);
                    waves.take(open, usize::from(word) % BANKS)
                }
            };
            before = Some((word, wave, position));
            let chunk = bounds[wave] + filled[wave][position];
            self.put((begin + chunks[chunk]) * CHUNK + position, value, place);
            filled[wave][position] += 1;
            if chunk + 1 == bounds[wave + 1] {
                open[wave] &= !(1 << position);
            }
        }
        for (wave, filled) in filled.iter().enumerate() {
            for (position, &filled) in filled.iter().enumerate() {
                let first = (begin + chunks[bounds[wave].min(chunks.len() - 1)]) * CHUNK + position;
                let again = if filled == 0 { entries[0] } else { (self.values[first], self.places[first]) };
                for chunk in &chunks[bounds[wave] + filled..bounds[wave + 1]] {
                    self.put((begin + chunk) * CHUNK + position, again.0, again.1);
                }
            }
        }
    }

    fn put(&mut self, at: usize, value: f32, place: u8) {
        self.values[at] = value;
        self.places[at] = place;
    }
}

const _: () = assert!(SQUARE == 256, "a place is a byte");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_kept(rows in 0usize..40, cols in 0usize..300, sparsity in 0.0f64..1.0, seed: u64) {
            let pattern = Pattern::random(rows, cols, sparsity, seed);
            let weights: Vec<f32> = (0..rows * cols).map(|i| i as f32 + 1.0).collect();
            let squares = Squares::from_dense(&weights, &pattern).unwrap();
            prop_assert_eq!(squares.to_dense(), pattern.apply(&weights));
            prop_assert!(squares.most_chunks() <= 256);
            let across = cols.div_ceil(TILE_COLUMNS);
            prop_assert_eq!(squares.starts.len(), rows.div_ceil(SIDE) * across + 1);
        }
    }

    /// Rounds of shared memory for every 32 entries' stores.
    fn rounds(sparsity: f64) -> f64 {
        let pattern = Pattern::random(16, 128 * 20, sparsity, 1);
        let squares = Squares::from_dense(&vec![1.0; 16 * 128 * 20], &pattern).unwrap();
        let mut rounds = 0;
        for bounds in squares.starts.windows(2) {
            let chunks: Vec<usize> = (bounds[0] as usize..bounds[1] as usize).collect();
            for (wave, position) in chunks.chunks(LANES).flat_map(|wave| (0..CHUNK).map(move |p| (wave, p))) {
                let word = |&chunk: &usize| {
                    128 * usize::from(squares.squares[chunk])
                        + usize::from(squares.places[chunk * CHUNK + position]) / 2
                };
                let words: std::collections::BTreeSet<usize> = wave.iter().map(word).collect();
                rounds += (0..BANKS).map(|b| words.iter().filter(|&w| w % BANKS == b).count()).max().unwrap();
            }
        }
        rounds as f64 / (pattern.kept() as f64 / 32.0)
    }

    #[test]
    fn stores_of_one_moment_seldom_share_a_bank() {
        // Dealt out at random, 32 stores to 32 banks take three to four rounds.
        for (sparsity, most) in [(0.5, 1.5), (0.7, 1.85), (0.9, 2.3)] {
            let rounds = rounds(sparsity);
            assert!(rounds < most, "{rounds} at {sparsity}");
        }
    }
}
