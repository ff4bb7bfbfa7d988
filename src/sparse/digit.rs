//! Magnitudes of weights as whole numbers, and the digits by which they are counted.
//!
//! ```text
//!   |w| as f32, read as bits: 31 bits that order as magnitudes do
//!
//!   bit   30 ........... shift+bits | shift+bits-1 ..... shift | shift-1 .... 0
//!         `above`, the same of all    the digit: a bin each      not looked at
//! ```
//!
//! Weights of 16 bits widen exactly, so their magnitudes order alike in any type.

use rayon::prelude::*;

/// Weights that a thread counts at least: many more than there are bins.
const CHUNK: usize = 1 << 20;

/// A weight's magnitude: its bits as f32 without the sign.
#[inline(always)]
pub fn magnitude(weight: f32) -> u32 {
    weight.to_bits() & !(1 << 31)
}

/// Some bits of the magnitudes that have given bits above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit {
    /// Bits below.
    pub shift: u32,
    /// Bits of the digit; with those below at most 31.
    pub bits: u32,
    /// What the bits above must be.
    pub above: u32,
}

impl Digit {
    /// Values of the digit.
    pub fn bins(self) -> usize {
        1 << self.bits
    }

    /// The digit of a magnitude, if the bits above are right.
    #[inline(always)]
    pub fn of(self, magnitude: u32) -> Option<usize> {
        let digit = magnitude >> self.shift;
        (digit >> self.bits == self.above).then_some(digit as usize & (self.bins() - 1))
    }

    /// How many weights have each value of the digit.
    ///
    /// ```
    /// # use sparsify_exp::sparse::{Digit, magnitude};
    /// // The sign is no part of a magnitude: two weights of magnitude 1 in the bin of 1.
    /// let digit = Digit { shift: 16, bits: 15, above: 0 };
    /// assert_eq!(digit.count(&[1.0, -1.0, 3.0])[(magnitude(1.0) >> 16) as usize], 2);
    /// ```
    pub fn count(self, weights: &[f32]) -> Vec<u32> {
        let parts = weights.par_chunks(CHUNK).map(|weights| {
            let mut bins = vec![0u32; self.bins()];
            for bin in weights.iter().filter_map(|&weight| self.of(magnitude(weight))) {
                bins[bin] += 1;
            }
            bins
        });
        let add = |a: Vec<u32>, b: Vec<u32>| a.into_iter().zip(b).map(|(a, b)| a + b).collect();
        parts.reduce_with(add).unwrap_or_else(|| vec![0; self.bins()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_magnitude_is_counted_in_its_bin_alone() {
        let upper = Digit { shift: 16, bits: 15, above: 0 };
        let weights = [0.0, -0.0, 1.0, -1.0, 1.5, f32::MIN_POSITIVE / 2.0, f32::MAX, -f32::MAX];
        let counts = upper.count(&weights);
        assert_eq!(counts.iter().sum::<u32>(), 8);
        assert_eq!((counts[0], counts[0x3f80], counts[0x3fc0], counts[0x7f7f]), (2, 2, 1, 2));
        let lower = Digit { shift: 0, bits: 16, above: 0x3f80 };
        assert_eq!(lower.count(&weights).iter().sum::<u32>(), 2);
        assert_eq!(upper.count(&[]).len(), upper.bins());
    }
}
