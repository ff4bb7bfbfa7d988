//! Sums of rows of bits, kept as bits.
//!
//! ```text
//!   rows   1 0 1 1       planes of their sum   bit 0   0 0 1 1
//!          1 0 0 1                             bit 1   1 0 0 1
//!          0 0 0 1                             sign    0 0 0 0       sum   2 0 1 3
//! ```
//! The product of a row x with such a sum is a few population counts: the sum over planes of 2^plane |x & plane|, the
//! sign's counted negatively. It is a whole number and exact. A hundred rows need seven planes, so this is several
//! times faster than adding numbers, and a small difference of two sums has fewer planes than either.

use super::Mask;
use super::popcount::{TILE, ones, tile};
use rayon::prelude::*;

/// A whole number for every position, in two's complement: the last plane is the sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BitSum {
    words: usize,
    /// `[planes][words]`; none where every number is 0.
    planes: Vec<u64>,
}

impl BitSum {
    /// Zeros.
    pub(super) fn zero(words: usize) -> Self {
        Self { words, planes: Vec::new() }
    }

    /// How many rows keep each position. Rows have `words` words.
    pub(super) fn of(words: usize, rows: &[&[u64]]) -> Self {
        let planes = (usize::BITS - rows.len().leading_zeros()) as usize + 1;
        // Adding eight rows at a time fills planes 0, 1 and 2 and carries into plane 3.
        let planes = planes.max(5);
        let mut sum = Self { words, planes: vec![0; planes * words] };
        let none = vec![0; words];
        for rows in rows.chunks(8) {
            sum.add_eight(std::array::from_fn(|i| rows.get(i).copied().unwrap_or(&none)));
        }
        sum.trim();
        sum
    }

    /// Adds eight rows by seven full adders a word (Harley and Seal), and what they carry to the planes above.
    fn add_eight(&mut self, rows: [&[u64]; 8]) {
        let (low, high) = self.planes.split_at_mut(3 * self.words);
        let (ones, rest) = low.split_at_mut(self.words);
        let (twos, fours) = rest.split_at_mut(self.words);
        let mut eights = vec![0; self.words];
        for (w, eights) in eights.iter_mut().enumerate() {
            let [a, b, c, d, e, f, g, h] = rows.map(|row| row[w]);
            let (one, two_a) = full_adder(ones[w], a, b);
            let (one, two_b) = full_adder(one, c, d);
            let (two, four_a) = full_adder(twos[w], two_a, two_b);
            let (one, two_a) = full_adder(one, e, f);
            let (one, two_b) = full_adder(one, g, h);
            let (two, four_b) = full_adder(two, two_a, two_b);
            let (four, eight) = full_adder(fours[w], four_a, four_b);
            (ones[w], twos[w], fours[w], *eights) = (one, two, four, eight);
        }
        let mut carry = eights;
        for plane in high.chunks_mut(self.words) {
            let mut any = 0;
            for (plane, carry) in plane.iter_mut().zip(&mut carry) {
                (*plane, *carry) = (*plane ^ *carry, *plane & *carry);
                any |= *carry;
            }
            if any == 0 {
                break;
            }
        }
    }

    /// Leaves out planes that only repeat the sign.
    fn trim(&mut self) {
        let words = self.words;
        while self.planes.len() > words {
            let (below, sign) = self.planes.split_at(self.planes.len() - words);
            if below[below.len() - words..] != *sign {
                break;
            }
            self.planes.truncate(below.len());
        }
        if self.planes.iter().take(words).all(|&word| word == 0) && self.planes.len() <= words {
            self.planes.clear();
        }
    }

    fn plane_count(&self) -> usize {
        self.planes.len() / self.words.max(1)
    }

    /// A plane; the sign beyond the last.
    fn plane(&self, plane: usize, w: usize) -> u64 {
        match self.plane_count().checked_sub(1) {
            Some(sign) => self.planes[plane.min(sign) * self.words + w],
            None => 0,
        }
    }

    /// `self - other`.
    pub(super) fn minus(&self, other: &Self) -> Self {
        self.combined(other, true)
    }

    /// `self + other`.
    pub(super) fn plus(&self, other: &Self) -> Self {
        self.combined(other, false)
    }

    fn combined(&self, other: &Self, subtract: bool) -> Self {
        let count = self.plane_count().max(other.plane_count()) + 1;
        let mut planes = vec![0; count * self.words];
        for w in 0..self.words {
            // a - b = a + !b + 1
            let mut carry = if subtract { u64::MAX } else { 0 };
            for plane in 0..count {
                let b = other.plane(plane, w) ^ if subtract { u64::MAX } else { 0 };
                (planes[plane * self.words + w], carry) = full_adder(self.plane(plane, w), b, carry);
            }
        }
        let mut sum = Self { words: self.words, planes };
        sum.trim();
        sum
    }

    /// The planes that have a bit, each with what its bits are worth.
    pub(super) fn weighted(&self) -> Vec<(i64, &[u64])> {
        let last = self.plane_count().saturating_sub(1);
        let planes = self.planes.chunks(self.words.max(1)).enumerate();
        let worth = |plane: usize| if plane == last { -(1i64 << plane) } else { 1i64 << plane };
        planes
            .map(|(plane, bits)| (worth(plane), bits))
            .filter(|(_, bits)| bits.iter().any(|&word| word != 0))
            .collect()
    }

    /// The numbers of the first `length` positions.
    pub(super) fn values(&self, length: usize) -> Vec<i64> {
        let mut values = vec![0; length];
        for (worth, bits) in self.weighted() {
            for (values, &word) in values.chunks_mut(64).zip(bits) {
                for (bit, value) in values.iter_mut().enumerate() {
                    *value += worth * (word >> bit & 1) as i64;
                }
            }
        }
        values
    }

    /// The sum of the numbers.
    pub(super) fn total(&self) -> i64 {
        self.weighted().iter().map(|(worth, bits)| worth * ones(bits) as i64).sum()
    }
}

fn full_adder(a: u64, b: u64, c: u64) -> (u64, u64) {
    let half = a ^ b;
    (half ^ c, a & b | half & c)
}

/// The sum of the features of each cluster, `[k]`.
///
/// # Panics
/// When a label is not below `k`.
pub(super) fn cluster_sums(mask: &Mask, labels: &[usize], k: usize) -> Vec<BitSum> {
    let mut members: Vec<Vec<&[u64]>> = vec![Vec::new(); k];
    for (feature, &label) in labels.iter().enumerate() {
        members[label].push(mask.row(feature));
    }
    let words = mask.length().div_ceil(64);
    members.par_iter().map(|members| BitSum::of(words, members)).collect()
}

/// Features of a task: their rows and the planes of one sum stay in the fastest cache.
const FEATURES_PER_TASK: usize = 32;

/// Adds to `products[feature * sums.len() + i]` the product of a feature with `sums[i]`.
pub(super) fn add_products(mask: &Mask, sums: &[BitSum], products: &mut [i64]) {
    let planes: Vec<Vec<(i64, &[u64])>> = sums.iter().map(BitSum::weighted).collect();
    let chunk = FEATURES_PER_TASK * sums.len();
    if chunk == 0 {
        return;
    }
    products.par_chunks_mut(chunk).enumerate().for_each(|(task, products)| {
        let first = task * FEATURES_PER_TASK;
        let rows: Vec<&[u64]> = (first..first + products.len() / sums.len()).map(|feature| mask.row(feature)).collect();
        let mut counts = [0; FEATURES_PER_TASK * TILE];
        for (i, planes) in planes.iter().enumerate() {
            for part in planes.chunks(TILE) {
                let bits: [&[u64]; TILE] = std::array::from_fn(|p| part[p.min(part.len() - 1)].1);
                let counts = &mut counts[..rows.len() * part.len()];
                tile(&rows, &bits[..part.len()], counts);
                for (products, counts) in products.chunks_mut(sums.len()).zip(counts.chunks(part.len())) {
                    let worth = part.iter().zip(counts).map(|(&(worth, _), &count)| worth * i64::from(count));
                    products[i] += worth.sum::<i64>();
                }
            }
        }
    });
}

/// `[features * sums.len()]`: the product of each feature with each sum.
pub(super) fn products(mask: &Mask, sums: &[BitSum]) -> Vec<i64> {
    let mut products = vec![0; mask.features() * sums.len()];
    add_products(mask, sums, &mut products);
    products
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::Pattern;
    use proptest::prelude::*;

    fn sum_of(mask: &Mask, features: std::ops::Range<usize>) -> BitSum {
        let rows: Vec<&[u64]> = features.map(|feature| mask.row(feature)).collect();
        BitSum::of(mask.length().div_ceil(64), &rows)
    }

    fn counted(mask: &Mask, features: std::ops::Range<usize>) -> Vec<i64> {
        (0..mask.length()).map(|at| features.clone().filter(|&f| mask.get(f, at)).count() as i64).collect()
    }

    proptest! {
        #[test]
        fn sums_and_differences_are_those_of_numbers(
            a in 0usize..40, b in 0usize..40, length in 1usize..200, sparsity in 0.0f64..1.0, seed: u64,
        ) {
            let pattern = Pattern::random(a + b + 1, length, sparsity, seed);
            let mask = Mask::of(&pattern, super::super::Axis::Out);
            let (x, y) = (sum_of(&mask, 0..a), sum_of(&mask, a..a + b));
            prop_assert_eq!(x.values(length), counted(&mask, 0..a));
            prop_assert_eq!(x.total(), counted(&mask, 0..a).iter().sum::<i64>());
            let difference: Vec<i64> =
                counted(&mask, 0..a).iter().zip(counted(&mask, a..a + b)).map(|(x, y)| x - y).collect();
            let delta = x.minus(&y);
            prop_assert_eq!(delta.values(length), difference.clone());
            prop_assert_eq!(delta.total(), difference.iter().sum::<i64>());
            prop_assert_eq!(&y.plus(&delta), &x);
            let found = products(&mask, &[x, delta]);
            for feature in 0..mask.features() {
                let dot = |of: &[i64]| (0..length).filter(|&at| mask.get(feature, at)).map(|at| of[at]).sum::<i64>();
                prop_assert_eq!(found[feature * 2], dot(&counted(&mask, 0..a)));
                prop_assert_eq!(found[feature * 2 + 1], dot(&difference));
            }
        }
    }

    #[test]
    fn small_sums_have_few_planes() {
        let mask = Mask::from_fn(100, 70, |feature, at| (feature + at) % 2 == 0);
        assert_eq!(sum_of(&mask, 0..100).weighted().len(), 3); // 50 = 0b110010
        assert_eq!(sum_of(&mask, 0..0), BitSum::zero(2));
        let sum = sum_of(&mask, 0..50);
        assert!(sum.minus(&sum).weighted().is_empty());
        // 25 where the position is even, 26 for 51 rows: a difference of at most one has a plane, or two.
        assert!(sum_of(&mask, 0..51).minus(&sum).weighted().len() <= 2);
        assert_eq!(cluster_sums(&mask, &[1; 100], 2)[1].values(70), vec![50; 70]);
    }
}
