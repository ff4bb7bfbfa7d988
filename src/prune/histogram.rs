//! Magnitude pruning of weights that stay where they are: the rule of `select.rs`, by histograms alone.
//!
//! ```text
//!   count    how many weights have each value of the magnitudes' upper digit, layer by layer
//!            -> the value of the k-th smallest, and its rank among those of that value
//!   again    for the next digit, of the weights with the values found so far
//!   above    which weights' magnitudes are larger than the k-th smallest
//! ```
//!
//! The counts of a layer are 32-bit, those of a model 64-bit. Whoever holds the weights counts and compares; counts
//! that can't be right are an error, since a device may fail in the middle of them.

use super::{Decided, to_prune};
use crate::dtype::Dtype;
use crate::sparse::{Digit, Pattern};
use thiserror::Error;

/// Weights whose magnitudes are counted and compared where they are.
pub trait Magnitudes {
    /// Why that may fail; a miscount is a failure too.
    type Error: From<Miscount>;

    /// How many weights of a layer have each value of the digit.
    ///
    /// # Errors
    /// When the counts can't be had.
    fn count(&self, layer: usize, digit: Digit) -> Result<Vec<u32>, Self::Error>;

    /// The weights of a layer whose magnitudes are above the threshold; all, where there is none.
    ///
    /// # Errors
    /// When the pattern can't be had.
    fn above(&self, layer: usize, threshold: Option<u32>) -> Result<Pattern, Self::Error>;
}

/// Counts that do not hold as many weights as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a histogram of magnitudes holds {counted} weights, at least {expected} were expected")]
pub struct Miscount {
    /// Weights in all bins.
    pub counted: u64,
    /// Weights that there are at least.
    pub expected: u64,
}

/// Prunes by magnitude: of all layers together, or each by itself; one pattern a layer, in order.
///
/// `sizes` are the layers' weights, and `dtype` is what they are stored as: it decides how many digits tell
/// magnitudes apart.
///
/// # Errors
/// What counting or comparing returns, and a [`Miscount`].
pub fn by_magnitude<M: Magnitudes>(
    weights: &M,
    sizes: &[usize],
    together: bool,
    sparsity: f64,
    dtype: Dtype,
) -> Result<Decided, M::Error> {
    let layers: Vec<usize> = (0..sizes.len()).collect();
    let groups = if together { vec![&layers[..]] } else { layers.chunks(1).collect() };
    let (mut patterns, mut ties) = (Vec::with_capacity(sizes.len()), 0);
    for group in groups {
        let cut = threshold(weights, group, sizes, sparsity, dtype)?;
        for &layer in group {
            patterns.push(weights.above(layer, cut.map(|(threshold, _)| threshold))?);
        }
        ties += cut.filter(|(threshold, _)| *threshold > 0).map_or(0, |(_, beyond)| beyond);
    }
    Ok(Decided { patterns, ties: Some(ties) })
}

/// The k-th smallest magnitude of some layers, and how many beyond the k-th are equal to it; none for k = 0.
fn threshold<M: Magnitudes>(
    weights: &M,
    layers: &[usize],
    sizes: &[usize],
    sparsity: f64,
    dtype: Dtype,
) -> Result<Option<(u32, u64)>, M::Error> {
    let mut rank = to_prune(layers.iter().map(|&layer| sizes[layer]).sum(), sparsity) as u64;
    if rank == 0 {
        return Ok(None);
    }
    let (mut found, mut equal, mut shift) = (0, 0, 31);
    for &bits in digits(dtype) {
        shift -= bits;
        let digit = Digit { shift, bits, above: found };
        let mut counts = vec![0u64; digit.bins()];
        for &layer in layers {
            for (sum, count) in counts.iter_mut().zip(weights.count(layer, digit)?) {
                *sum += u64::from(count);
            }
        }
        let (bin, below) = bin_of(&counts, rank)?;
        rank -= below;
        equal = counts[bin];
        found = found << bits | bin as u32;
    }
    // Of the last digit: magnitudes that agree in all of them are equal.
    Ok(Some((found << shift, equal - rank)))
}

/// The digits that tell the magnitudes of a dtype apart, from above: what is below them is always 0.
fn digits(dtype: Dtype) -> &'static [u32] {
    match dtype {
        Dtype::F32 => &[15, 16],
        // 8 bits of exponent, 10 of mantissa.
        Dtype::F16 => &[18],
        Dtype::Bf16 => &[15],
    }
}

/// The bin that holds the k-th smallest, and how many lie in bins below it.
///
/// # Errors
/// When the bins hold fewer than k.
pub(super) fn bin_of(counts: &[u64], k: u64) -> Result<(usize, u64), Miscount> {
    let mut below: u64 = 0;
    for (bin, &count) in counts.iter().enumerate() {
        if below.saturating_add(count) >= k {
            return Ok((bin, below));
        }
        below += count;
    }
    Err(Miscount { counted: below, expected: k })
}

#[cfg(test)]
mod tests {
    use super::super::{Layer, Request, decide};
    use super::super::{Method, NmPattern, Scope};
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;
    /// Layers of one row in host memory.
    struct Rows(Vec<Vec<f32>>);

    impl Magnitudes for Rows {
        type Error = Miscount;

        fn count(&self, layer: usize, digit: Digit) -> Result<Vec<u32>, Miscount> {
            Ok(digit.count(&self.0[layer]))
        }

        fn above(&self, layer: usize, threshold: Option<u32>) -> Result<Pattern, Miscount> {
            let row = &self.0[layer];
            Ok(Pattern::above(1, row.len(), row, threshold))
        }
    }

    fn same_as_on_the_host(rows: Vec<Vec<f32>>, sparsity: f64, dtype: Dtype) {
        let round = |weight: &f32| match dtype {
            Dtype::F32 => *weight,
            Dtype::F16 => f16::from_f32(*weight).to_f32(),
            Dtype::Bf16 => bf16::from_f32(*weight).to_f32(),
        };
        let rows = Rows(rows.iter().map(|row| row.iter().map(round).collect()).collect());
        let sizes: Vec<usize> = rows.0.iter().map(Vec::len).collect();
        let layer = |row: &Vec<f32>| Layer { name: "row", rows: 1, cols: row.len(), weights: row.clone().into() };
        let layers: Vec<Layer<'_>> = rows.0.iter().map(layer).collect();
        for (scope, together) in [(Scope::Global, true), (Scope::Layer, false)] {
            let (method, pattern) = (Method::Magnitude, NmPattern::Unstructured);
            let request =
                Request { method, scope: Some(scope), pattern, sparsity, seed: 0, settings: Default::default() };
            let expected = decide(0, &layers, &request).unwrap();
            let decided = by_magnitude(&rows, &sizes, together, sparsity, dtype).unwrap();
            assert!(decided == expected, "{dtype:?} {scope:?} {sparsity}: {sizes:?}");
        }
    }

    #[test]
    fn every_share_of_few_weights() {
        let all = vec![0.25, -0.25, 0.0, -0.0, 1e-7, -6e-8, 3.0, 0.25, 1e-40, -65504.0];
        let zeros = vec![0.0; 7];
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            for percent in 0..=100 {
                let sparsity = f64::from(percent) / 100.0;
                same_as_on_the_host(vec![all.clone()], sparsity, dtype);
                same_as_on_the_host(vec![zeros.clone()], sparsity, dtype);
                same_as_on_the_host(vec![all.clone(), zeros.clone(), all[3..].to_vec()], sparsity, dtype);
            }
        }
    }

    /// A device that loses weights: it counts only the first `counted` of a layer, from a pass on.
    struct Losing {
        rows: Rows,
        counted: usize,
        from_pass: u32,
    }

    impl Magnitudes for Losing {
        type Error = Miscount;

        fn count(&self, layer: usize, digit: Digit) -> Result<Vec<u32>, Miscount> {
            let row = &self.rows.0[layer];
            let pass = if digit.shift == 0 { 1 } else { 0 };
            let counted = if pass >= self.from_pass { self.counted.min(row.len()) } else { row.len() };
            Ok(digit.count(&row[..counted]))
        }

        fn above(&self, layer: usize, threshold: Option<u32>) -> Result<Pattern, Miscount> {
            self.rows.above(layer, threshold)
        }
    }

    #[test]
    fn a_device_that_miscounts_is_an_error() {
        let row: Vec<f32> = (1..=10).map(|i| i as f32).collect();
        let pruned = |counted, from_pass, sparsity| {
            let weights = Losing { rows: Rows(vec![row.clone(), row.clone()]), counted, from_pass };
            by_magnitude(&weights, &[10, 10], true, sparsity, Dtype::F32).map(drop)
        };
        assert_eq!(pruned(10, 0, 0.9), Ok(()));
        // Two layers of which four weights each are counted, where the 18th smallest is wanted.
        assert_eq!(pruned(4, 0, 0.9), Err(Miscount { counted: 8, expected: 18 }));
        assert_eq!(pruned(0, 0, 0.05), Err(Miscount { counted: 0, expected: 1 }));
        // In the second pass, the bin that the first has found is empty.
        assert_eq!(pruned(0, 1, 0.5), Err(Miscount { counted: 0, expected: 2 }));
        assert_eq!(bin_of(&[], 1), Err(Miscount { counted: 0, expected: 1 }));
        assert_eq!(bin_of(&[u64::MAX, u64::MAX], u64::MAX), Ok((0, 0)));
    }

    proptest! {
        #[test]
        fn patterns_equal_those_of_the_host(
            rows in prop::collection::vec(
                prop::collection::vec(prop_oneof![-2.0f32..2.0, -1e-4f32..1e-4, Just(0.0), Just(0.25)], 1..3000), 1..4),
            sparsity in 0.0f64..=1.0,
        ) {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                same_as_on_the_host(rows.clone(), sparsity, dtype);
            }
        }
    }
}
