//! Sequences → logits, so many rows at a time that memory stays bounded whatever the vocabulary.

use crate::execute::{ReadError, SparseBackend, host_numbers};
use crate::model::{Batch, Decoder, DecoderError, KvCache};
use burn::tensor::Tensor;
use rayon::prelude::*;
use thiserror::Error;

/// Tokens of a forward pass: enough for dense kernels to be efficient, and activations stay small.
const TOKENS_PER_BATCH: usize = 512;
/// Logits held at a time, in elements: 64 MiB.
const LOGITS_PER_CHUNK: usize = 16 << 20;

/// Numbers that a task looks through.
const TASK: usize = 1 << 16;

/// Tokens that [`decoded_logits`] runs one at a time.
const DECODED_TOKENS: usize = 4;

/// Why there are no logits.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// The batch does not fit the model.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    /// A logit is NaN or infinite.
    #[error("the logits of token {token} contain NaN or infinity")]
    NotFinite {
        /// The token's place among all sequences.
        token: usize,
    },
    /// The device could not give the numbers back.
    #[error("reading the logits back failed: {0}")]
    Read(String),
}

/// Runs the sequences and hands over their logits in order: `visit(first_token, logits)`, where
/// `logits` is `[rows, vocabulary]` of the tokens from `first_token`, counted over all sequences.
///
/// # Errors
/// When a sequence does not fit the model, or a logit is not finite.
pub fn each_logits<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    sequences: &[Vec<u32>],
    mut visit: impl FnMut(usize, &[f32]),
) -> Result<(), ForwardError> {
    let vocabulary = decoder.architecture().vocabulary;
    let rows_per_chunk = (LOGITS_PER_CHUNK / vocabulary).max(1);
    let mut first = 0;
    for sequences in batches(sequences) {
        let batch = Batch::new(sequences.iter().map(Vec::as_slice));
        let hidden = decoder.hidden(&batch)?;
        let tokens = batch.tokens();
        for start in (0..tokens).step_by(rows_per_chunk) {
            let rows = rows_per_chunk.min(tokens - start);
            let part = if rows == tokens { hidden.clone() } else { hidden.clone().narrow(0, start, rows) };
            let logits = host(decoder.logits(part))?;
            if let Some(bad) = first_not_finite(&logits) {
                return Err(ForwardError::NotFinite { token: first + start + bad / vocabulary });
            }
            visit(first + start, &logits);
        }
        first += tokens;
    }
    Ok(())
}

/// The logits of every token of the sequences, `[tokens, vocabulary]`.
///
/// # Errors
/// As [`each_logits`].
pub fn all_logits<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    sequences: &[Vec<u32>],
) -> Result<Vec<f32>, ForwardError> {
    let tokens: usize = sequences.iter().map(Vec::len).sum();
    let mut all = Vec::with_capacity(tokens * decoder.architecture().vocabulary);
    each_logits(decoder, sequences, |_, logits| all.extend_from_slice(logits))?;
    Ok(all)
}

/// The logits of the last tokens of a sequence, run one at a time as they are when text is generated, after the
/// others: `[tokens, vocabulary]`, of [`DECODED_TOKENS`] tokens if the sequence has as many.
///
/// # Errors
/// As [`each_logits`]; `NotFinite` counts from the first of these tokens.
pub fn decoded_logits<B: SparseBackend>(decoder: &mut Decoder<B>, sequence: &[u32]) -> Result<Vec<f32>, ForwardError> {
    let prompt = sequence.len().saturating_sub(DECODED_TOKENS);
    let mut cache = KvCache::new(decoder.architecture(), 1, sequence.len());
    if prompt > 0 {
        decoder.extend(&Batch::new([&sequence[..prompt]]), &mut cache)?;
    }
    let mut all = Vec::new();
    for token in sequence[prompt..].chunks(1) {
        let hidden = decoder.extend(&Batch::new([token]), &mut cache)?;
        all.extend(host(decoder.logits(hidden))?);
    }
    match first_not_finite(&all) {
        Some(bad) => Err(ForwardError::NotFinite { token: bad / decoder.architecture().vocabulary }),
        None => Ok(all),
    }
}

/// Consecutive sequences, together at most [`TOKENS_PER_BATCH`] tokens unless one alone has more.
fn batches(sequences: &[Vec<u32>]) -> impl Iterator<Item = &[Vec<u32>]> {
    let mut rest = sequences;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|sequence| {
            tokens += sequence.len();
            tokens <= TOKENS_PER_BATCH
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, behind) = rest.split_at(count);
        rest = behind;
        (!batch.is_empty()).then_some(batch)
    })
}

/// The numbers of logits.
pub(super) fn host<B: SparseBackend>(logits: Tensor<B, 2>) -> Result<Vec<f32>, ForwardError> {
    host_numbers(logits).map_err(|ReadError(reason)| ForwardError::Read(reason))
}

/// The place of the first number that is NaN or infinite.
pub(super) fn first_not_finite(numbers: &[f32]) -> Option<usize> {
    // A task is whole or not: the place is looked for where there is one.
    let bad = |part: &&[f32]| !part.iter().all(|number| number.is_finite());
    let (task, part) = numbers.par_chunks(TASK).enumerate().find_first(|(_, part)| bad(part))?;
    part.iter().position(|number| !number.is_finite()).map(|place| task * TASK + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_that_is_not_finite_is_found() {
        let mut numbers = vec![1.0f32; 3 * TASK + 5];
        assert_eq!((first_not_finite(&numbers), first_not_finite(&[])), (None, None));
        for (place, bad) in
            [(3 * TASK + 4, f32::NAN), (TASK + 7, f32::INFINITY), (TASK, f32::NEG_INFINITY), (0, f32::NAN)]
        {
            numbers[place] = bad;
            assert_eq!(first_not_finite(&numbers), Some(place));
        }
    }

    #[test]
    fn batches_hold_whole_sequences_in_order() {
        let sequences: Vec<Vec<u32>> = [300, 200, 100, 600, 10].map(|length| vec![0; length]).into();
        let lengths: Vec<Vec<usize>> = batches(&sequences).map(|b| b.iter().map(Vec::len).collect()).collect();
        assert_eq!(lengths, [vec![300, 200], vec![100], vec![600], vec![10]]);
        assert_eq!(batches(&[]).count(), 0);
        // Windows that divide a batch fill it.
        for length in [64, 512] {
            let windows = vec![vec![0; length]; 16];
            assert!(batches(&windows).all(|batch| batch.len() * length == TOKENS_PER_BATCH), "{length}");
        }
    }
}
