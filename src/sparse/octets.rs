//! One bit a weight and the kept values of 16 bits, in the order of a GPU's tensor core, in chunks that are copied as one.
//!
//! ```text
//!   unit    8 rows x 128 columns: an octet. A lane owns row lane / 4 and
//!           eights   of every 32 columns, eight in a row: 8 (lane mod 4) .. + 8, so that its inputs are 16 bytes side by
//!                    side; for a token or a few
//!           pairs    of every 8 columns, two in a row: 2 (lane mod 4) .. + 2, as the tensor core has them; for many
//!                    tokens, whose inputs lie in shared memory as they come
//!   mask    of a lane and unit: 32 bits, its columns in order; or 16, one for two neighbours, which are then stored both:
//!           fewer steps for the kernel where few weights are kept
//!   chunk   some octets of the same 128 columns:  masks [octets][32 lanes] | values, lane after lane | to 16 bytes
//!   block   `octets` octets of rows; of its columns 128 after 128, `chunks` chunks each: chunk j has octets
//!           octets * j / chunks .. octets * (j + 1) / chunks
//!   starts  [blocks * columns / 128 * chunks + 1], in 16 bytes
//! ```
//! A lane's values of a chunk lie one after the other, and where they begin is a prefix sum over the lanes' counts:
//! nothing is stored but a bit a weight, the values, and a start for a few kilobytes.

use super::{FormatError, Pattern};
use rayon::prelude::*;

/// Rows of an octet.
const OCTET: usize = 8;
/// Columns of a unit.
pub const OCTET_COLUMNS: usize = 128;
/// Lanes of a warp.
const LANES: usize = 32;
/// The most octets of a block: its sums have to fit a warp's registers.
const MOST_OCTETS: usize = 12;
/// Numbers of 16 bits in 16 bytes.
const ALIGN: usize = 8;
/// Where fewer than one weight in this many is kept, two share a bit.
const PAIRS_BELOW: usize = 7;

/// Which columns of a unit are a lane's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneOrder {
    /// Eight of every 32.
    Eights,
    /// Two of every eight.
    Pairs,
}

/// How a matrix is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OctetsCut {
    /// Blocks of rows.
    pub blocks: usize,
    /// Octets of a block.
    pub octets: usize,
    /// Chunks that 128 columns of a block come in.
    pub chunks: usize,
    /// Weights that share a bit: 1 or 2.
    pub grain: usize,
    /// Which columns are a lane's.
    pub order: LaneOrder,
}

/// A bitmap matrix in octets of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Octets {
    rows: usize,
    cols: usize,
    cut: OctetsCut,
    most_bytes: usize,
    /// Masks and values, in 16 bits.
    pub chunks: Vec<u16>,
    /// `[chunks + 1]`
    pub starts: Vec<u32>,
}

impl Octets {
    /// Packs the kept weights for a device of this many multiprocessors, in chunks of at most this many bytes where an octet
    /// fits that. `bits` gives a value's 16 bits; `weights` is `[rows, cols]`, row-major.
    ///
    /// # Errors
    /// When the shapes differ, or starts need more than 32 bits.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Octets, Pattern};
    /// let weights = [0.0, 5.0, 0.0, 7.0];
    /// let pattern = Pattern::keep_where(2, 2, &weights, |_, w| w != 0.0);
    /// let octets = Octets::from_dense(&weights, &pattern, 132, 4096, |w| w as u16)?;
    /// // Row 0 is lane 0's and row 1 lane 4's; a mask takes two numbers, an octet's 32 take 64.
    /// assert_eq!((octets.chunks[0], octets.chunks[8], &octets.chunks[64..66]), (0b10, 0b10, &[5, 7][..]));
    /// assert_eq!(octets.starts, [0, 9]);
    /// # Ok::<(), sparsify_exp::sparse::FormatError>(())
    /// ```
    pub fn from_dense(
        weights: &[f32],
        pattern: &Pattern,
        processors: usize,
        chunk_bytes: usize,
        bits: impl Fn(f32) -> u16 + Sync,
    ) -> Result<Self, FormatError> {
        FormatError::check_shape(weights, pattern)?;
        let (units, grain) = (pattern.rows().div_ceil(OCTET), grain(pattern));
        let order = LaneOrder::Eights;
        let across = pattern.cols().div_ceil(OCTET_COLUMNS);
        let of_octet = |octet| (0..across).map(|unit| stored(pattern, octet, unit, grain, order)).max().unwrap_or(0);
        let fullest = (0..units).into_par_iter().map(of_octet).max().unwrap_or(0);
        let cut = OctetsCut::new(pattern.rows(), fullest, processors, chunk_bytes, grain);
        Self::cut_as(weights, pattern, cut, bits)
    }

    /// Packs the kept weights two octets at a time, for many tokens.
    ///
    /// # Errors
    /// As of [`Octets::from_dense`].
    pub fn panels(weights: &[f32], pattern: &Pattern, bits: impl Fn(f32) -> u16 + Sync) -> Result<Self, FormatError> {
        let blocks = pattern.rows().div_ceil(2 * OCTET);
        let cut = OctetsCut { blocks, octets: 2, chunks: 1, grain: grain(pattern), order: LaneOrder::Pairs };
        Self::cut_as(weights, pattern, cut, bits)
    }

    fn cut_as(
        weights: &[f32],
        pattern: &Pattern,
        cut: OctetsCut,
        bits: impl Fn(f32) -> u16 + Sync,
    ) -> Result<Self, FormatError> {
        let (rows, cols) = (pattern.rows(), pattern.cols());
        FormatError::check_shape(weights, pattern)?;
        let across = cols.div_ceil(OCTET_COLUMNS);
        let of_block = |block: usize| {
            let (mut chunks, mut ends) = (Vec::new(), Vec::with_capacity(across * cut.chunks));
            for unit in 0..across {
                for chunk in 0..cut.chunks {
                    pack(weights, pattern, cut, cut.octets_of(block, chunk), unit, &bits, &mut chunks);
                    ends.push(chunks.len() / ALIGN);
                }
            }
            (chunks, ends)
        };
        let packed: Vec<(Vec<u16>, Vec<usize>)> = (0..cut.blocks).into_par_iter().map(of_block).collect();
        let total: usize = packed.iter().map(|(chunks, _)| chunks.len()).sum();
        if u32::try_from(total / ALIGN).is_err() {
            return Err(FormatError::TooManyEntries { kept: total });
        }
        let (mut chunks, mut starts) = (Vec::with_capacity(total), vec![0]);
        for (of_block, ends) in packed {
            let begin = chunks.len() / ALIGN;
            starts.extend(ends.into_iter().map(|end| (begin + end) as u32));
            chunks.extend(of_block);
        }
        let most = starts.windows(2).map(|bounds| bounds[1] - bounds[0]).max().unwrap_or(0);
        Ok(Self { rows, cols, cut, most_bytes: most as usize * ALIGN * 2, chunks, starts })
    }

    /// How the matrix is cut.
    pub fn cut(&self) -> OctetsCut {
        self.cut
    }

    /// Bytes of the largest chunk.
    pub fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    /// The dense matrix's bits again, `[rows, cols]` row-major, zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<u16> {
        let mut dense = vec![0; self.rows * self.cols];
        let across = self.cols.div_ceil(OCTET_COLUMNS);
        for (index, bounds) in self.starts.windows(2).enumerate() {
            let (block, unit) = (index / self.cut.chunks / across, index / self.cut.chunks % across);
            let octets = self.cut.octets_of(block, index % self.cut.chunks);
            let chunk = &self.chunks[bounds[0] as usize * ALIGN..bounds[1] as usize * ALIGN];
            let grain = self.cut.grain;
            let mut value = 2 / grain * LANES * octets.len();
            for lane in 0..LANES {
                for (at, octet) in octets.clone().enumerate() {
                    let word = 2 / grain * (at * LANES + lane);
                    let mask = match grain {
                        1 => u32::from(chunk[word]) | u32::from(chunk[word + 1]) << 16,
                        _ => u32::from(chunk[word]),
                    };
                    for place in (0..32).filter(|place| mask >> (place / grain) & 1 == 1) {
                        let column = unit * OCTET_COLUMNS + self.cut.order.column(lane, place);
                        let row = octet * OCTET + lane / 4;
                        // One of two may be after the last column.
                        if column < self.cols {
                            dense[row * self.cols + column] = chunk[value];
                        }
                        value += 1;
                    }
                }
            }
        }
        dense
    }

    /// Bytes stored.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.chunks) + size_of_val(&*self.starts)
    }
}

impl OctetsCut {
    /// `fullest` is the most weights that a unit stores.
    fn new(rows: usize, fullest: usize, processors: usize, chunk_bytes: usize, grain: usize) -> Self {
        let all = rows.div_ceil(OCTET);
        let processors = processors.max(1);
        let waves = all.div_ceil(processors * MOST_OCTETS).max(1);
        let octets = all.div_ceil(processors * waves).max(1);
        let of_chunk = (chunk_bytes / (4 / grain * LANES + 2 * fullest)).clamp(1, octets);
        Self {
            blocks: all.div_ceil(octets),
            octets,
            chunks: octets.div_ceil(of_chunk),
            grain,
            order: LaneOrder::Eights,
        }
    }

    /// The octets of a chunk, those after the last row among them.
    fn octets_of(self, block: usize, chunk: usize) -> std::ops::Range<usize> {
        let bound = |chunk: usize| block * self.octets + self.octets * chunk / self.chunks;
        bound(chunk)..bound(chunk + 1)
    }
}

impl LaneOrder {
    /// The column of a place in a lane's mask, within a unit.
    fn column(self, lane: usize, place: usize) -> usize {
        match self {
            Self::Eights => place / 8 * 32 + lane % 4 * 8 + place % 8,
            Self::Pairs => place / 2 * 8 + lane % 4 * 2 + place % 2,
        }
    }
}

/// How many weights share a bit.
fn grain(pattern: &Pattern) -> usize {
    if pattern.kept() * PAIRS_BELOW < pattern.rows() * pattern.cols() { 2 } else { 1 }
}

/// A lane's mask, a bit a weight.
fn mask(pattern: &Pattern, octet: usize, unit: usize, lane: usize, order: LaneOrder) -> u32 {
    let row = octet * OCTET + lane / 4;
    if row >= pattern.rows() {
        return 0;
    }
    let words = pattern.row(row);
    let word = |at: usize| words.get(unit * 2 + at).copied().unwrap_or(0);
    match order {
        LaneOrder::Eights => {
            let byte = |eight: usize| (word(eight / 2) >> (32 * (eight % 2) + 8 * (lane % 4))) as u32 & 255;
            (0..4).map(|eight| byte(eight) << (8 * eight)).sum()
        }
        LaneOrder::Pairs => {
            let two = |pair: usize| (word(pair / 8) >> (8 * (pair % 8) + 2 * (lane % 4))) as u32 & 3;
            (0..16).map(|pair| two(pair) << (2 * pair)).sum()
        }
    }
}

/// Weights that a unit stores.
fn stored(pattern: &Pattern, octet: usize, unit: usize, grain: usize, order: LaneOrder) -> usize {
    let of_lane = |lane| match grain {
        1 => mask(pattern, octet, unit, lane, order).count_ones(),
        _ => 2 * pairs(mask(pattern, octet, unit, lane, order)).count_ones(),
    };
    (0..LANES).map(of_lane).sum::<u32>() as usize
}

/// A bit for every two of a mask, where one of them is set.
fn pairs(mask: u32) -> u32 {
    (0..16).map(|pair| u32::from(mask >> (2 * pair) & 3 != 0) << pair).sum()
}

fn pack(
    weights: &[f32],
    pattern: &Pattern,
    OctetsCut { grain, order, .. }: OctetsCut,
    octets: std::ops::Range<usize>,
    unit: usize,
    bits: impl Fn(f32) -> u16,
    chunks: &mut Vec<u16>,
) {
    let masks: Vec<u32> =
        octets.clone().flat_map(|octet| (0..LANES).map(move |lane| mask(pattern, octet, unit, lane, order))).collect();
    match grain {
        1 => chunks.extend(masks.iter().flat_map(|&mask| [mask as u16, (mask >> 16) as u16])),
        _ => chunks.extend(masks.iter().map(|&mask| pairs(mask) as u16)),
    }
    for lane in 0..LANES {
        for (at, octet) in octets.clone().enumerate() {
            let first = (octet * OCTET + lane / 4) * pattern.cols() + unit * OCTET_COLUMNS;
            let kept = masks[at * LANES + lane];
            let of_pairs = pairs(kept) as u64;
            // Of both weights of a pair one may be pruned: it is stored as zero.
            let stored =
                (0..32).filter(|place| kept >> place & 1 == 1 || (grain == 2 && of_pairs >> (place / 2) & 1 == 1));
            chunks.extend(stored.map(|place| match kept >> place & 1 {
                1 => bits(weights[first + order.column(lane, place)]),
                _ => 0,
            }));
        }
    }
    chunks.resize(chunks.len().next_multiple_of(ALIGN), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_kept(
            rows in 0usize..300, cols in 0usize..400, sparsity in 0.0f64..1.0, processors in 1usize..6, seed: u64
        ) {
            let pattern = Pattern::random(rows, cols, sparsity, seed);
            let weights: Vec<f32> = (0..rows * cols).map(|i| (i % 60_000) as f32 + 1.0).collect();
            let octets = Octets::from_dense(&weights, &pattern, processors, 4096, |w| w as u16).unwrap();
            let masked: Vec<u16> = pattern.apply(&weights).into_iter().map(|w| w as u16).collect();
            prop_assert_eq!(&octets.to_dense(), &masked);
            let panels = Octets::panels(&weights, &pattern, |w| w as u16).unwrap();
            prop_assert_eq!(panels.to_dense(), masked);
            prop_assert_eq!(panels.starts.len(), rows.div_ceil(16) * cols.div_ceil(OCTET_COLUMNS) + 1);
            let cut = octets.cut();
            prop_assert!(cut.octets <= MOST_OCTETS && cut.chunks <= cut.octets && octets.most_bytes() <= 4096);
            prop_assert_eq!(octets.starts.len(), cut.blocks * cols.div_ceil(OCTET_COLUMNS) * cut.chunks + 1);
        }
    }

    #[test]
    fn every_multiprocessor_has_a_block_and_a_chunk_fits() {
        let cut = |rows, fullest, bytes| OctetsCut::new(rows, fullest, 132, bytes, 1);
        // Half, three and nine tenths of 11008 x 4096 pruned.
        assert_eq!(
            cut(11008, 584, 4096),
            OctetsCut { blocks: 126, octets: 11, chunks: 4, grain: 1, order: LaneOrder::Eights }
        );
        assert_eq!(
            cut(11008, 375, 4096),
            OctetsCut { blocks: 126, octets: 11, chunks: 3, grain: 1, order: LaneOrder::Eights }
        );
        assert_eq!(
            cut(11008, 146, 4096),
            OctetsCut { blocks: 126, octets: 11, chunks: 2, grain: 1, order: LaneOrder::Eights }
        );
        assert_eq!(
            cut(4096, 584, 3072),
            OctetsCut { blocks: 128, octets: 4, chunks: 2, grain: 1, order: LaneOrder::Eights }
        );
        assert_eq!(
            OctetsCut::new(11008, 220, 132, 4096, 2),
            OctetsCut { blocks: 126, octets: 11, chunks: 2, grain: 2, order: LaneOrder::Eights }
        );
        // Nothing pruned: an octet at a time.
        assert_eq!(cut(4096, 1024, 4096).chunks, 4);
        assert!(cut(128_256, 584, 4096).octets <= MOST_OCTETS);
    }

    #[test]
    fn few_weights_share_bits_by_two() {
        let grain = |sparsity| {
            let pattern = Pattern::random(64, 1024, sparsity, 1);
            Octets::from_dense(&vec![1.0; 64 * 1024], &pattern, 132, 4096, |_| 1).unwrap().cut().grain
        };
        assert_eq!([0.0, 0.5, 0.8, 0.9, 1.0].map(grain), [1, 1, 1, 2, 2]);
        assert_eq!([0, 1, 2, 0b1101, u32::MAX].map(pairs), [0, 1, 1, 0b11, 0xffff]);
    }

    #[test]
    fn half_of_the_weights_take_a_bit_and_a_number_each() {
        let pattern = Pattern::random(1056, 4096, 0.5, 1);
        let octets = Octets::from_dense(&vec![1.0; 1056 * 4096], &pattern, 132, 4096, |_| 1).unwrap();
        let bytes = octets.bytes() as f64 / (1056.0 * 4096.0);
        assert!((1.12..1.14).contains(&bytes), "{bytes}");
    }
}
