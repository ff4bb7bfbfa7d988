//! Patterns at random, of exactly the share that is asked for.

use super::Pattern;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

impl Pattern {
    /// Leaves out exactly floor(sparsity * rows * cols) positions, every set of that many being equally
    /// likely. The same seed gives the same pattern on every machine.
    ///
    /// ```
    /// # use sparsify_exp::sparse::Pattern;
    /// assert_eq!(Pattern::random(3, 5, 0.5, 0).kept(), 15 - 7);
    /// assert_eq!(Pattern::random(3, 5, 0.5, 0), Pattern::random(3, 5, 0.5, 0));
    /// ```
    pub fn random(rows: usize, cols: usize, sparsity: f64, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // Selection sampling: a position goes with the probability of what has to go among what is left.
        let mut left = (rows * cols) as u64;
        let mut going = ((sparsity * left as f64) as u64).min(left);
        let per_row = cols.div_ceil(64);
        let mut words = vec![0u64; rows * per_row];
        for row in 0..rows {
            for col in 0..cols {
                let goes = (u128::from(random.next_u64()) * u128::from(left)) >> 64 < u128::from(going);
                words[row * per_row + col / 64] |= u64::from(!goes) << (col % 64);
                going -= u64::from(goes);
                left -= 1;
            }
        }
        Self::from_rows(rows, cols, |row, out| out.copy_from_slice(&words[row * per_row..][..per_row]))
    }

    /// Keeps two of every four neighbouring weights of a row, every pair being equally likely; of the rest of a row half,
    /// rounded up. The same seed gives the same pattern on every machine.
    ///
    /// ```
    /// # use sparsify_exp::sparse::Pattern;
    /// let pattern = Pattern::random_two_of_four(3, 8, 0);
    /// assert!((0..3).all(|row| (0..4).filter(|&col| pattern.get(row, col)).count() == 2));
    /// ```
    pub fn random_two_of_four(rows: usize, cols: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut kept = vec![false; rows * cols];
        for row in kept.chunks_mut(cols.max(1)) {
            for group in row.chunks_mut(4) {
                let (mut going, mut left) = (group.len() as u64 / 2, group.len() as u64);
                for kept in group {
                    let goes = (u128::from(random.next_u64()) * u128::from(left)) >> 64 < u128::from(going);
                    *kept = !goes;
                    going -= u64::from(goes);
                    left -= 1;
                }
            }
        }
        Self::from_rows(rows, cols, |row, words| {
            for (col, _) in kept[row * cols..][..cols].iter().enumerate().filter(|(_, kept)| **kept) {
                words[col / 64] |= 1 << (col % 64);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exactly_so_many_go(rows in 1usize..9, cols in 1usize..200, sparsity in 0.0f64..1.0, seed: u64) {
            let gone = (sparsity * (rows * cols) as f64) as usize;
            prop_assert_eq!(Pattern::random(rows, cols, sparsity, seed).kept(), rows * cols - gone);
        }
    }

    #[test]
    fn every_pair_of_four_comes_up() {
        let pattern = Pattern::random_two_of_four(64, 256, 5);
        let mut counts = [0; 16];
        for row in 0..64 {
            for word in pattern.row(row) {
                (0..16).for_each(|group| counts[(word >> (4 * group) & 15) as usize] += 1);
            }
        }
        let pairs = (0..16usize).filter(|mask| mask.count_ones() == 2).map(|mask| counts[mask]);
        assert!(pairs.clone().all(|count| (550..820).contains(&count)), "{counts:?}");
        assert_eq!(pairs.sum::<i32>(), 64 * 64);
        assert_ne!(pattern, Pattern::random_two_of_four(64, 256, 6));
    }

    #[test]
    fn no_part_of_the_matrix_is_preferred() {
        let pattern = Pattern::random(100, 100, 0.7, 1);
        let halves = [0..50, 50..100].map(|rows: std::ops::Range<usize>| rows.map(|r| pattern.kept_in_row(r)).sum());
        assert!(halves.iter().all(|&kept: &usize| (1350..1650).contains(&kept)), "{halves:?}");
        assert_ne!(pattern, Pattern::random(100, 100, 0.7, 2));
    }
}
