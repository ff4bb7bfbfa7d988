//! (value, place) entries of squares of 16 x 16 weights: the CSR that GPU kernels read for many tokens.
//!
//! ```text
//!   tile   16 rows x 128 columns: eight squares; tiles lie row of tiles by row of tiles
//!   chunk  eight entries of one square:  values 8   places 8 x 8 bits   square 8 bits
//!   starts [tiles + 1]: the first chunk of each tile
//! ```
//! A place is where the weight lies in the matrix unit's registers ([`super::fragments`]), so that a lane stores
//! an entry to shared memory and another loads its registers from there, whole. Lanes store at the same time: the
//! entries of a square are dealt out so that those that stand at one position of 32 neighbouring chunks lie in
//! different banks where they can. A square's last chunk is filled up with entries that it has already.

use super::fragments::{SIDE, SPAN, SQUARE, place};
use super::{FormatError, Pattern};
use rayon::prelude::*;

/// Columns of a tile.
pub const TILE_COLUMNS: usize = 128;
/// Entries of a chunk.
const CHUNK: usize = 8;
/// Chunks that are stored at the same time: the lanes of a plane.
const LANES: usize = 32;
/// Banks of shared memory, each of two 16-bit numbers.
const BANKS: usize = 32;

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

    /// Bytes stored, for values of so many bytes.
    pub fn bytes(&self, value_bytes: usize) -> usize {
        size_of_val(&*self.starts) + self.squares.len() + self.places.len() + self.values.len() * value_bytes
    }
}

fn row_of_tiles(weights: &[f32], pattern: &Pattern, tile_row: usize) -> Chunks {
    let cols = pattern.cols();
    let mut chunks = Chunks::default();
    for tile in 0..cols.div_ceil(TILE_COLUMNS) {
        let mut squares: [Vec<Entry>; 8] = Default::default();
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
        chunks.tile(&squares);
    }
    chunks
}

impl Chunks {
    fn tile(&mut self, squares: &[Vec<Entry>; 8]) {
        let begin = self.squares.len();
        // How often each bank is stored to by the entries at a position of 32 chunks.
        let mut usage: Vec<[[u8; BANKS]; CHUNK]> = Vec::new();
        for (square, entries) in squares.iter().enumerate().filter(|(_, entries)| !entries.is_empty()) {
            let first = self.squares.len() - begin;
            let behind = first + entries.len().div_ceil(CHUNK);
            let waves = first / LANES..(behind - 1) / LANES + 1;
            usage.resize(usage.len().max(waves.end), [[0; BANKS]; CHUNK]);
            let room = |wave: usize| behind.min((wave + 1) * LANES) - first.max(wave * LANES);
            let mut dealt: Vec<Vec<Entry>> = vec![Vec::new(); waves.len() * CHUNK];
            for &(value, place) in entries {
                let bank = usize::from(place) / 2 % BANKS;
                let (mut best, mut least) = (0, u8::MAX);
                for (index, dealt) in dealt.iter().enumerate() {
                    let (wave, position) = (waves.start + index / CHUNK, index % CHUNK);
                    if dealt.len() < room(wave) && usage[wave][position][bank] < least {
                        (best, least) = (index, usage[wave][position][bank]);
                    }
                }
                usage[waves.start + best / CHUNK][best % CHUNK][bank] += 1;
                dealt[best].push((value, place));
            }
            for chunk in first..behind {
                let wave = chunk / LANES;
                let index = chunk - first.max(wave * LANES);
                self.squares.push(square as u8);
                for dealt in &dealt[(wave - waves.start) * CHUNK..][..CHUNK] {
                    let &(value, place) = dealt.get(index).or(dealt.first()).unwrap_or(&entries[0]);
                    self.values.push(value);
                    self.places.push(place);
                }
            }
        }
        self.counts.push(self.squares.len() - begin);
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

    #[test]
    fn stores_of_one_moment_seldom_share_a_bank() {
        let pattern = Pattern::random(16, 128, 0.5, 1);
        let squares = Squares::from_dense(&vec![1.0; 16 * 128], &pattern).unwrap();
        let mut rounds = 0;
        for wave in squares.places.chunks(LANES * CHUNK) {
            for position in 0..CHUNK {
                let mut words: Vec<u8> = wave.chunks(CHUNK).map(|chunk| chunk[position] / 2).collect();
                words.sort();
                words.dedup();
                let most = (0..BANKS).map(|b| words.iter().filter(|&&w| usize::from(w) % BANKS == b).count()).max();
                rounds += most.unwrap_or(0);
            }
        }
        let stores = squares.squares.len().div_ceil(LANES) * CHUNK;
        // Dealt out at random, 32 stores to 32 banks take three to four rounds.
        assert!(rounds < 2 * stores, "{rounds} rounds of {stores} stores");
    }
}
