//! Inputs of a linear with the small ones set to 0: how many go, what becomes of the output, what a batch shares.
//!
//! ```text
//!   x [tokens, in]   .3  -2  .1  0       kept: |x| > t = 0.2     1 1 0 0     achieved 2 of 4
//!                     1  .1  .1 -3                               1 0 0 1     achieved 2 of 4
//!                                        union of the batch      1 1 0 1     3 of 4 columns of W are read
//! ```
//! Output errors are summed in f64, without bias. Tokens and outputs are taken in tiles of fixed sizes, whose sums are
//! added in order: the number of threads does not matter.

use super::popcount::ones;
use super::stats::{mean, quantile, ratio};
use crate::sparse::Pattern;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

/// Tokens and outputs of a tile: 256 x 4096 numbers of 8 bytes are 8 MiB.
const TILE: usize = 256;

/// The input of a linear and its weight.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// `[tokens, in]`, row-major.
    pub inputs: &'a [f32],
    /// `[out, in]`, row-major.
    pub weights: &'a [f32],
    /// Which weights are kept, `[out, in]`.
    pub pattern: &'a Pattern,
}

/// A row of table `activation_sparsity`.
#[derive(Clone, Debug)]
pub struct ActivationRow {
    /// Inputs of at most this magnitude are set to 0.
    pub threshold: f64,
    /// Inputs kept, of all tokens.
    pub kept_total: u64,
    /// The share of a token's inputs that is 0, exact zeros included: over tokens.
    pub achieved_mean: f64,
    /// The quantile 0.05 over tokens.
    pub achieved_p5: f64,
    /// The quantile 0.95 over tokens.
    pub achieved_p95: f64,
    /// The norm of the change of all outputs over the norm of all outputs; undefined where that is 0.
    pub rel_output_error: f64,
    /// The same for each token, over tokens whose output is not 0.
    pub rel_output_error_token_mean: f64,
    /// For each batch size asked for the share of inputs that a batch keeps anywhere, over batches.
    pub batch_union_kept: Vec<(usize, f64)>,
    /// Kept weights that meet a kept input, of all tokens.
    pub weights_touched: u64,
    /// Of tokens times weights.
    pub weights_touched_fraction: f64,
    /// Of tokens times kept weights.
    pub weights_touched_of_kept: f64,
}

/// The thresholds that set these shares of all inputs to 0: quantiles of their magnitudes, not rounded to f32. The
/// share 0 has the threshold 0: nothing but zeros goes.
///
/// ```
/// # use sparsify_exp::analysis::input_thresholds;
/// assert_eq!(input_thresholds(&[-1.0, 2.0, 4.0], &[0.0, 0.5, 0.75]), [0.0, 2.0, 3.0]);
/// ```
pub fn input_thresholds(inputs: &[f32], targets: &[f64]) -> Vec<f64> {
    let mut sizes: Vec<f32> = inputs.par_iter().map(|x| x.abs()).collect();
    sizes.par_sort_unstable_by(f32::total_cmp);
    let of = |&target: &f64| {
        let Some(last) = sizes.len().checked_sub(1) else { return f64::NAN };
        let below = ((target * last as f64).floor() as usize).min(last);
        let pair = [f64::from(sizes[below]), f64::from(sizes[(below + 1).min(last)])];
        if target == 0.0 { 0.0 } else { quantile(&pair, (target * last as f64 - below as f64).clamp(0.0, 1.0)) }
    };
    targets.iter().map(of).collect()
}

/// What each threshold does to a linear. `batches` are sizes of batches of consecutive tokens, the last of which may be
/// smaller; 0 is taken as 1.
///
/// # Panics
/// When shapes do not fit together, or there is no token.
pub fn activation_sparsity(linear: &Linear, thresholds: &[f64], batches: &[usize]) -> Vec<ActivationRow> {
    let (out, width) = (linear.pattern.rows(), linear.pattern.cols());
    assert_eq!(linear.weights.len(), out * width, "weights have another shape than their pattern");
    assert!(
        width > 0 && !linear.inputs.is_empty() && linear.inputs.len().is_multiple_of(width),
        "inputs have another width than weights",
    );
    let norms = output_norms(linear, thresholds);
    let counts = kept_by_column(linear.pattern);
    let row = |(cut, &threshold): (usize, &f64)| {
        let kept = kept_inputs(linear.inputs, width, threshold);
        let (outputs, changes) = (&norms[0], &norms[cut + 1]);
        let by_token = changes.iter().zip(outputs).filter(|(_, output)| **output > 0.0).map(|(c, o)| (c / o).sqrt());
        let (change, output): (f64, f64) = (changes.iter().sum(), outputs.iter().sum());
        let tokens = kept.rows();
        let touched =
            (0..tokens).into_par_iter().map(|token| kept.columns_of(token).map(|col| counts[col]).sum::<u64>());
        let weights_touched: u64 = touched.sum();
        let mut achieved: Vec<f64> =
            (0..tokens).map(|token| 1.0 - kept.kept_in_row(token) as f64 / width as f64).collect();
        let achieved_mean = mean(&achieved);
        achieved.sort_by(f64::total_cmp);
        ActivationRow {
            threshold,
            kept_total: kept.kept() as u64,
            achieved_mean,
            achieved_p5: quantile(&achieved, 0.05),
            achieved_p95: quantile(&achieved, 0.95),
            rel_output_error: ratio(change, output).sqrt(),
            rel_output_error_token_mean: mean(&by_token.collect::<Vec<_>>()),
            batch_union_kept: batches.iter().map(|&batch| (batch, union_kept(&kept, batch))).collect(),
            weights_touched,
            weights_touched_fraction: ratio(weights_touched as f64, (tokens * out * width) as f64),
            weights_touched_of_kept: ratio(weights_touched as f64, (tokens * linear.pattern.kept()) as f64),
        }
    };
    thresholds.iter().enumerate().map(row).collect()
}

/// Inputs above a threshold, `[tokens, in]`.
fn kept_inputs(inputs: &[f32], width: usize, threshold: f64) -> Pattern {
    Pattern::keep_where(inputs.len() / width, width, inputs, |_, x| f64::from(x.abs()) > threshold)
}

/// The weights that each input meets.
fn kept_by_column(pattern: &Pattern) -> Vec<u64> {
    let mut counts = vec![0; pattern.cols()];
    (0..pattern.rows()).for_each(|row| pattern.columns_of(row).for_each(|col| counts[col] += 1));
    counts
}

/// The share of inputs that are kept anywhere in a batch, over batches.
fn union_kept(kept: &Pattern, batch: usize) -> f64 {
    let tokens: Vec<usize> = (0..kept.rows()).collect();
    let share = |tokens: &[usize]| {
        let mut union = vec![0; kept.cols().div_ceil(64)];
        tokens.iter().for_each(|&token| union.iter_mut().zip(kept.row(token)).for_each(|(all, word)| *all |= word));
        ones(&union) as f64 / kept.cols() as f64
    };
    mean(&tokens.par_chunks(batch.max(1)).map(share).collect::<Vec<_>>())
}

/// Squared norms by token: of the outputs, then for every threshold of their change, `[1 + thresholds][tokens]`.
///
/// The change is what the inputs set to 0 would have given, so that without any it is 0 exactly.
fn output_norms(linear: &Linear, thresholds: &[f64]) -> Vec<Vec<f64>> {
    let (out, width) = (linear.pattern.rows(), linear.pattern.cols());
    let of_block = |block: usize| {
        let rows = block * TILE..out.min((block + 1) * TILE);
        let weights = wide(&linear.weights[rows.start * width..rows.end * width], width, |_| true);
        let mut norms = vec![Vec::new(); 1 + thresholds.len()];
        for inputs in linear.inputs.chunks(TILE * width) {
            let mut add = |which: usize, keep: &dyn Fn(f64) -> bool| {
                let outputs = wide(inputs, width, keep).dot(&weights.t());
                let squares = outputs.rows().into_iter().map(|row| row.iter().map(|y| y * y).sum::<f64>());
                norms[which].extend(squares.collect::<Vec<_>>());
            };
            add(0, &|_| true);
            thresholds.iter().enumerate().for_each(|(cut, &threshold)| add(cut + 1, &|x| x.abs() <= threshold));
        }
        norms
    };
    let blocks: Vec<Vec<Vec<f64>>> = (0..out.div_ceil(TILE)).into_par_iter().map(of_block).collect();
    let mut norms = vec![vec![0.0; linear.inputs.len() / width]; 1 + thresholds.len()];
    for block in blocks {
        for (norms, block) in norms.iter_mut().zip(block) {
            norms.iter_mut().zip(block).for_each(|(sum, square)| *sum += square);
        }
    }
    norms
}

/// Rows of `width` numbers as f64, 0 where `keep` does not hold.
fn wide(numbers: &[f32], width: usize, keep: impl Fn(f64) -> bool) -> Array2<f64> {
    let rows = ArrayView2::from_shape((numbers.len() / width, width), numbers);
    let number = |&x: &f32| if keep(f64::from(x)) { f64::from(x) } else { 0.0 };
    rows.map_or_else(|_| Array2::zeros((0, width)), |rows| rows.map(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(rows: usize, weights: &[f32]) -> Pattern {
        Pattern::keep_where(rows, weights.len() / rows, weights, |_, weight| weight != 0.0)
    }

    #[test]
    fn what_goes_and_what_is_left() {
        let inputs = [0.3, -2.0, 0.1, 0.0, 1.0, 0.1, 0.1, -3.0];
        let weights = [1.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        let pattern = pattern(2, &weights);
        let linear = Linear { inputs: &inputs, weights: &weights, pattern: &pattern };
        let row = &activation_sparsity(&linear, &[0.2], &[1, 2, 9])[0];
        assert_eq!((row.kept_total, row.achieved_mean), (4, 0.5));
        assert_eq!(row.batch_union_kept, [(1, 0.5), (2, 0.75), (9, 0.75)]);
        // Outputs: (0.5, -2), (1.2, -2.9); without: (0.3, -2), (1, -3).
        let expected = ((0.04 + 0.04 + 0.01) / (0.25 + 4.0 + 1.44 + 8.41f64)).sqrt();
        assert!((row.rel_output_error - expected).abs() < 1e-7, "{} {expected}", row.rel_output_error);
        assert_eq!((row.weights_touched, row.weights_touched_fraction, row.weights_touched_of_kept), (4, 0.25, 0.5));
    }

    #[test]
    fn nothing_goes_at_0_and_everything_beyond_the_largest() {
        let inputs: Vec<f32> = (0..300 * 7).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
        let weights: Vec<f32> = (0..600 * 7).map(|i| (i * 53 % 7) as f32 - 3.0).collect();
        let pattern = pattern(600, &weights);
        let linear = Linear { inputs: &inputs, weights: &weights, pattern: &pattern };
        let rows = activation_sparsity(&linear, &[0.0, 1e9], &[300]);
        assert_eq!((rows[0].rel_output_error, rows[0].batch_union_kept[0].1), (0.0, 1.0));
        assert_eq!((rows[1].rel_output_error, rows[1].achieved_p5, rows[1].kept_total), (1.0, 1.0, 0));
        assert!((rows[1].rel_output_error_token_mean - 1.0).abs() < 1e-12);
    }

    #[test]
    fn without_output_an_error_is_undefined() {
        let (inputs, weights) = ([0.0; 6], [1.0; 3]);
        let pattern = pattern(1, &weights);
        let row =
            &activation_sparsity(&Linear { inputs: &inputs, weights: &weights, pattern: &pattern }, &[0.0], &[1])[0];
        assert!(row.rel_output_error.is_nan() && row.rel_output_error_token_mean.is_nan() && row.achieved_mean == 1.0);
        let empty = pattern.clone();
        let row =
            &activation_sparsity(&Linear { inputs: &[1.0; 3], weights: &[0.0; 3], pattern: &empty }, &[0.5], &[1])[0];
        assert!(row.rel_output_error.is_nan());
    }

    #[test]
    fn thresholds_are_quantiles_of_magnitudes() {
        // numpy.quantile([1, 2, 3, 5, 8], q)
        let inputs = [-3.0, 1.0, 8.0, -5.0, 2.0];
        let found = input_thresholds(&inputs, &[0.0, 0.1, 0.25, 0.9, 1.0]);
        let expected = [0.0, 1.4, 2.0, 6.8, 8.0];
        assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-14), "{found:?}");
    }
}
