//! Outlier-weighed layerwise sparsity: blocks with more outliers among their scores get less sparsity.
//!
//! Yin et al., "Outlier weighed layerwise sparsity", arXiv 2310.05175, section 3: a block's share of Wanda scores
//! above M times their mean, all shares scaled to `[0, 2 lambda]` and moved so that their mean is the density
//! asked for. One share a transformer block, as the released code has it.

use super::wanda::Wanda;
use super::{GramStatistics, Layer, PruneError};
use rayon::prelude::*;

/// The share of a block's Wanda scores that are above `m` times their mean, over all its linears together.
pub fn outlier_share(linears: &[(Layer<'_>, &GramStatistics)], m: f64) -> f64 {
    let scores: Vec<(Wanda<'_>, usize)> =
        linears.iter().map(|(layer, inputs)| (Wanda::new(layer, inputs), layer.rows)).collect();
    let weights: usize = linears.iter().map(|(layer, _)| layer.rows * layer.cols).sum();
    // Row sums in double precision, then added in order: the same whatever the number of threads.
    let total: f64 = scores
        .iter()
        .flat_map(|(scores, rows)| {
            let sum = |row| scores.row(row).map(f64::from).sum::<f64>();
            (0..*rows).into_par_iter().map(sum).collect::<Vec<f64>>()
        })
        .sum();
    let bound = m * total / weights.max(1) as f64;
    let outliers: usize = scores
        .iter()
        .map(|(scores, rows)| {
            let above = |row| scores.row(row).filter(|&score| f64::from(score) > bound).count();
            (0..*rows).into_par_iter().map(above).sum::<usize>()
        })
        .sum();
    outliers as f64 / weights.max(1) as f64
}

/// The sparsity of every block, from the blocks' shares of outliers: `target` on average.
///
/// # Errors
/// When a block would get a sparsity below 0, or would lose every weight.
///
/// ```
/// # use sparsify_exp::prune::owl;
/// let sparsities = owl::sparsities(&[0.01, 0.02, 0.03], 0.5, 0.1)?;
/// let expected = [0.6, 0.5, 0.4];
/// assert!(sparsities.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12));
/// # Ok::<(), sparsify_exp::prune::PruneError>(())
/// ```
pub fn sparsities(shares: &[f64], target: f64, lambda: f64) -> Result<Vec<f64>, PruneError> {
    let (low, high) =
        shares.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &share| (low.min(share), high.max(share)));
    // Equal shares ask for equal sparsities.
    let scale = if high > low { 2.0 * lambda / (high - low) } else { 0.0 };
    let scaled: Vec<f64> = shares.iter().map(|share| (share - low) * scale).collect();
    let mean = scaled.iter().sum::<f64>() / scaled.len().max(1) as f64;
    let of_block = |(block, scaled): (usize, f64)| match target + mean - scaled {
        sparsity if (0.0..1.0).contains(&sparsity) => Ok(sparsity),
        sparsity => Err(PruneError::Budget { block, sparsity, target, lambda }),
    };
    scaled.into_iter().enumerate().map(of_block).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::layer;
    use super::*;

    #[test]
    fn shares_by_hand() {
        // Scores 1 2 1 2 and 10 10 1 1: their mean is 28 / 8 = 3.5.
        let (a, b) = (layer(2, 2, &[1.0, 1.0, -1.0, 1.0]), layer(1, 4, &[10.0, -5.0, 1.0, 1.0]));
        let (x, y) =
            (GramStatistics::new(1, vec![1.0, 4.0], None), GramStatistics::new(1, vec![1.0, 4.0, 1.0, 1.0], None));
        let block = [(a, &x), (b, &y)];
        assert_eq!(outlier_share(&block, 2.0), 0.25);
        assert_eq!(outlier_share(&block, 3.0), 0.0);
        assert_eq!(outlier_share(&block, 0.5), 0.5);
        assert_eq!(outlier_share(&[], 5.0), 0.0);
    }

    #[test]
    fn sparsities_keep_their_mean() {
        let close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        // Scaled to 0, 0.16, 0.04, 0.04, whose mean is 0.06.
        let sparsities_of = |target| sparsities(&[1.0, 5.0, 2.0, 2.0], target, 0.08);
        assert!(close(&sparsities_of(0.7).unwrap(), &[0.76, 0.6, 0.72, 0.72]));
        assert_eq!(sparsities(&[0.3; 3], 0.7, 0.08).unwrap(), [0.7; 3]);
        assert!(sparsities(&[], 0.7, 0.08).unwrap().is_empty());
        let error = sparsities_of(0.95).unwrap_err();
        assert!(matches!(error, PruneError::Budget { block: 0, .. }) && error.hint().is_some(), "{error}");
        assert!(error.to_string().contains("block 0 would get a sparsity of 1.010"), "{error}");
        assert!(matches!(sparsities_of(0.05), Err(PruneError::Budget { block: 1, .. })));
    }
}
