//! Blocks of features that are zero together: what a kernel that skips blocks would find.
//!
//! ```text
//!   order        2   0  |  1   3        blocks of 2 features
//!   position 0   .   .  |  x   .        zero in block 0
//!   position 1   .   x  |  .   .        zero in block 1
//!   position 2   .   .  |  .   .        zero in both
//!   coherence     2/3   |   2/3         null: (1 - d_2)(1 - d_0), what column-wise shuffling gives on average
//! ```
//! The null holds the features' densities and no more: dead positions (rows of the weight) raise coherence of any order,
//! so their number belongs beside every lift.

use super::Mask;
use super::popcount::ones;
use super::stats::{mean, ratio};
use rayon::prelude::*;

/// A row of table `block_coherence`.
#[derive(Clone, Copy, Debug)]
pub struct BlockRow {
    /// Which block, in the order of features.
    pub block_index: usize,
    /// Its features; the last block may have fewer.
    pub size: usize,
    /// Positions of a feature.
    pub rows: usize,
    /// Positions at which no feature of the block keeps anything.
    pub all_zero_rows: usize,
    /// Their share.
    pub coherence: f64,
    /// The share expected under shuffles.
    pub null: f64,
    /// coherence / null.
    pub lift: f64,
    /// The standard deviation of the share under shuffles, exact.
    pub null_sd: f64,
}

/// A row of table `block_coherence_summary`.
#[derive(Clone, Copy, Debug)]
pub struct CoherenceSummary {
    /// Features of a block.
    pub block: usize,
    /// Blocks, the last and shorter one among them.
    pub blocks: usize,
    /// Over blocks, unweighted.
    pub coherence_mean: f64,
    /// Over blocks, unweighted.
    pub null_mean: f64,
    /// coherence_mean / null_mean.
    pub lift: f64,
    /// Positions in all-zero rows of blocks, of all positions: what a kernel could skip.
    pub skippable_fraction: f64,
    /// The same under shuffles.
    pub null_skippable_fraction: f64,
    /// Over blocks that have all their features.
    pub coherence_mean_complete: f64,
}

/// Cuts the order of features into blocks of `block` (0 is taken as 1) and counts the positions at which a whole block is zero.
///
/// # Panics
/// When the order names what is not there.
pub fn block_coherence(mask: &Mask, order: &[usize], block: usize) -> (Vec<BlockRow>, CoherenceSummary) {
    let block = block.max(1);
    let rows: Vec<BlockRow> =
        order.par_chunks(block).enumerate().map(|(i, features)| block_row(mask, i, features)).collect();
    let over = |of: &dyn Fn(&BlockRow) -> f64| mean(&rows.iter().map(of).collect::<Vec<_>>());
    let (coherence_mean, null_mean) = (over(&|row| row.coherence), over(&|row| row.null));
    let cells: usize = rows.iter().map(|row| row.size * row.all_zero_rows).sum();
    let expected: f64 = rows.iter().map(|row| row.size as f64 * row.null).sum();
    let complete: Vec<f64> = rows.iter().filter(|row| row.size == block).map(|row| row.coherence).collect();
    let summary = CoherenceSummary {
        block,
        blocks: rows.len(),
        coherence_mean,
        null_mean,
        lift: ratio(coherence_mean, null_mean),
        skippable_fraction: ratio(cells as f64, (mask.length() * order.len()) as f64),
        null_skippable_fraction: ratio(expected, order.len() as f64),
        coherence_mean_complete: mean(&complete),
    };
    (rows, summary)
}

fn block_row(mask: &Mask, block_index: usize, features: &[usize]) -> BlockRow {
    let length = mask.length();
    let mut kept = vec![0; length.div_ceil(64)];
    features.iter().for_each(|&feature| kept.iter_mut().zip(mask.row(feature)).for_each(|(all, word)| *all |= word));
    let all_zero_rows = length - ones(&kept) as usize;
    let (null, null_sd) = zero_rows_by_chance(mask, features);
    let coherence = all_zero_rows as f64 / length as f64;
    BlockRow {
        block_index,
        size: features.len(),
        rows: length,
        all_zero_rows,
        coherence,
        null,
        lift: ratio(coherence, null),
        null_sd,
    }
}

/// The mean and the standard deviation of the share of all-zero positions when every feature is shuffled on its own.
///
/// With z zeros of R in feature j, p = prod z/R is the chance of one position, and q = prod z(z-1)/(R(R-1)) that of
/// two, so the count has the variance R p + R(R-1) q - (R p)^2.
fn zero_rows_by_chance(mask: &Mask, features: &[usize]) -> (f64, f64) {
    let length = mask.length() as f64;
    let zeros = || features.iter().map(|&feature| length - mask.kept(feature) as f64);
    let one: f64 = zeros().map(|z| z / length).product();
    let two: f64 =
        if length > 1.0 { zeros().map(|z| z * (z - 1.0) / (length * (length - 1.0))).product() } else { 0.0 };
    let expected = length * one;
    let variance = expected + length * (length - 1.0) * two - expected * expected;
    (one, variance.max(0.0).sqrt() / length)
}

#[cfg(test)]
mod tests {
    use super::super::{order, shuffled};
    use super::*;

    #[test]
    fn blocks_are_cut_from_the_order_and_the_last_is_kept() {
        let mask = Mask::from_fn(5, 3, |feature, at| {
            [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]][feature][at] == 1
        });
        let (rows, summary) = block_coherence(&mask, &[2, 0, 1, 3, 4], 2);
        let found: Vec<_> = rows.iter().map(|row| (row.size, row.all_zero_rows)).collect();
        assert_eq!(found, [(2, 2), (2, 2), (1, 0)]);
        assert!((rows[0].null - 2.0 / 3.0).abs() < 1e-15 && rows[2].lift.is_nan());
        assert_eq!((summary.blocks, summary.skippable_fraction), (3, 8.0 / 15.0));
        assert!((summary.coherence_mean - 4.0 / 9.0).abs() < 1e-15);
        assert!((summary.coherence_mean_complete - 2.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn chance_is_what_shuffling_gives() {
        let mask = Mask::from_fn(8, 400, |feature, at| (at * 7 + feature * 3) % 10 < 3);
        let shares: Vec<f64> = (0..200)
            .map(|seed| block_coherence(&shuffled(&mask, seed), &order::identity(&mask), 8).0[0].coherence)
            .collect();
        let row = block_coherence(&mask, &order::identity(&mask), 8).0[0];
        assert!((mean(&shares) - row.null).abs() < 5.0 * row.null_sd / 200f64.sqrt());
        let sd = super::super::stats::sd(&shares, 1);
        assert!((0.8..1.2).contains(&(sd / row.null_sd)), "{sd} {}", row.null_sd);
    }

    #[test]
    fn planted_blocks_are_lifted_in_their_order_alone() {
        // Blocks of features i, i + 16, i + 32, ... are zero together at 30 % of positions.
        let mask = Mask::from_fn(128, 512, |feature, at| {
            let mut random = super::super::random::Random::new((feature % 16 * 512 + at) as u64, 0);
            if random.unit() < 0.3 {
                return false;
            }
            super::super::random::Random::new((feature * 512 + at) as u64, 1).unit() < 0.7
        });
        let planted: Vec<usize> = (0..128).map(|i| i % 8 * 16 + i / 8).collect();
        let lift = |order: &[usize]| block_coherence(&mask, order, 8).1.lift;
        assert!(lift(&planted) > 50.0, "{}", lift(&planted));
        assert!((0.6..1.6).contains(&lift(&order::identity(&mask))), "{}", lift(&order::identity(&mask)));
    }
}
