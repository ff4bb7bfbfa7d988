//! Perplexity by the field's convention: windows of equal length, the mean over their shifted positions. Where
//! windows overlap, each token counts once, in the first window that has it.

use super::forward::{ForwardError, each_logits};
use super::softmax::log_sum_exp;
use crate::execute::SparseBackend;
use crate::model::Decoder;
use rayon::prelude::*;

/// exp of the mean negative log-likelihood of the tokens of the windows, given those before them in
/// the same window. The first token of a window is not predicted, nor are the first `overlap` of every
/// window but the first: they are there as context.
///
/// `done` is called with the number of tokens that are done.
///
/// # Errors
/// When a window does not fit the model, or a logit is not finite.
pub fn perplexity<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    windows: &[Vec<u32>],
    overlap: usize,
    mut done: impl FnMut(usize),
) -> Result<f64, ForwardError> {
    let vocabulary = decoder.architecture().vocabulary;
    let context = windows.first().map_or(0, Vec::len);
    let scored = |window: usize, i: usize| window == 0 || i >= overlap;
    let targets = windows
        .iter()
        .enumerate()
        .flat_map(|(index, window)| (1..=context).map(move |i| window.get(i).copied().filter(|_| scored(index, i))));
    let targets: Vec<Option<u32>> = targets.collect();
    let (mut total, mut count) = (0.0, 0usize);
    each_logits(decoder, windows, |first, logits| {
        let rows = logits.len() / vocabulary;
        let losses: Vec<Option<f64>> = logits
            .par_chunks(vocabulary)
            .zip(&targets[first..first + rows])
            .map(|(logits, target)| target.map(|target| log_sum_exp(logits) - f64::from(logits[target as usize])))
            .collect();
        // Summed in order, so that the number of threads does not matter.
        for loss in losses.into_iter().flatten() {
            total += loss;
            count += 1;
        }
        done(first + rows);
    })?;
    Ok((total / count as f64).exp())
}
