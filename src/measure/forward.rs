//! Sequences → logits, so many rows at a time that memory stays bounded whatever the vocabulary.

use crate::execute::{Likely, ReadError, SparseBackend, Target, host_numbers};
use crate::model::{Batch, Decoder, DecoderError, KvCache};
use burn::tensor::Tensor;
use rayon::prelude::*;
use std::ops::Range;
use thiserror::Error;

/// Tokens of a pass over windows of a text, on the host and on a device: enough for dense kernels to be efficient, and on a device for
/// sparse ones that begin with the dense matrix; activations stay small.
pub const WINDOW_TOKENS: [usize; 2] = [512, 4096];
/// Tokens of a pass over the items of tasks, on the host and on a device, which needs more of them to be busy.
pub const PASS_TOKENS: [usize; 2] = [1024, 8192];
/// Logits held at a time, in elements: 64 MiB of f32.
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

impl From<ReadError> for ForwardError {
    fn from(ReadError(reason): ReadError) -> Self {
        Self::Read(reason)
    }
}

/// Runs the sequences, many at once, and hands over what their tokens came to in order: `visit(decoder, first_token,
/// hidden)`, where `hidden` is `[tokens, width]` from `first_token` on, counted over all sequences.
///
/// # Errors
/// When a sequence does not fit the model, and as `visit`.
pub(super) fn each_hidden<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    sequences: &[Vec<u32>],
    mut visit: impl FnMut(&Decoder<B>, usize, Tensor<B, 2>) -> Result<(), ForwardError>,
) -> Result<(), ForwardError> {
    let mut first = 0;
    for sequences in batches(sequences, here::<B>(WINDOW_TOKENS)) {
        let batch = Batch::new(sequences.iter().map(Vec::as_slice));
        let hidden = decoder.hidden(&batch)?;
        visit(decoder, first, hidden)?;
        first += batch.tokens();
    }
    Ok(())
}

/// What is for the host, or for a device.
pub(super) fn here<B: SparseBackend>([host, device]: [usize; 2]) -> usize {
    if B::ON_HOST { host } else { device }
}

/// The logits of rows, so many at a time that they may be held, and which rows these are.
fn logits_by_part<B: SparseBackend>(
    decoder: &Decoder<B>,
    hidden: Tensor<B, 2>,
) -> impl Iterator<Item = (Range<usize>, Tensor<B, 2>)> {
    let rows = hidden.dims()[0];
    let most = (LOGITS_PER_CHUNK / decoder.architecture().vocabulary).max(1);
    (0..rows).step_by(most).map(move |start| {
        let part = start..rows.min(start + most);
        let of_part = if part.len() == rows { hidden.clone() } else { hidden.clone().narrow(0, start, part.len()) };
        (part, decoder.logits(of_part))
    })
}

/// How likely targets are by the logits of `hidden`, `[rows, width]`; they are in the order of their rows. None where a
/// row has a logit that is NaN or infinite.
///
/// # Errors
/// When the device could not give the numbers back.
pub(super) fn likely<B: SparseBackend>(
    decoder: &Decoder<B>,
    hidden: Tensor<B, 2>,
    targets: &[Target],
) -> Result<Vec<Option<Likely>>, ForwardError> {
    let mut rest = targets;
    let asked = logits_by_part(decoder, hidden).map(|(rows, logits)| {
        let (here, behind) = rest.split_at(rest.partition_point(|target| target.row < rows.end));
        rest = behind;
        B::likely(logits, here.iter().map(|target| Target { row: target.row - rows.start, ..*target }).collect())
    });
    // A device is asked for all parts before the first is waited for.
    let asked: Vec<_> = asked.collect();
    let mut found = Vec::with_capacity(targets.len());
    for later in asked {
        found.extend(later()?);
    }
    Ok(found)
}

/// The logits of every token of the sequences, `[tokens, vocabulary]`.
///
/// # Errors
/// When a sequence does not fit the model, or a logit is not finite.
pub fn all_logits<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    sequences: &[Vec<u32>],
) -> Result<Vec<f32>, ForwardError> {
    let tokens: usize = sequences.iter().map(Vec::len).sum();
    let vocabulary = decoder.architecture().vocabulary;
    let mut all = Vec::with_capacity(tokens * vocabulary);
    each_hidden(decoder, sequences, |decoder, first, hidden| {
        for (rows, logits) in logits_by_part(decoder, hidden) {
            let logits = host_numbers(logits)?;
            if let Some(bad) = first_not_finite(&logits) {
                return Err(ForwardError::NotFinite { token: first + rows.start + bad / vocabulary });
            }
            all.extend_from_slice(&logits);
        }
        Ok(())
    })?;
    Ok(all)
}

/// The logits of the last tokens of a sequence, run one at a time as they are when text is generated, after the
/// others: `[tokens, vocabulary]`, of [`DECODED_TOKENS`] tokens if the sequence has as many.
///
/// # Errors
/// As [`all_logits`]; `NotFinite` counts from the first of these tokens.
pub fn decoded_logits<B: SparseBackend>(decoder: &mut Decoder<B>, sequence: &[u32]) -> Result<Vec<f32>, ForwardError> {
    let prompt = sequence.len().saturating_sub(DECODED_TOKENS);
    let mut cache = KvCache::new(decoder.architecture(), 1, sequence.len());
    if prompt > 0 {
        decoder.extend(&Batch::new([&sequence[..prompt]]), &mut cache)?;
    }
    let mut all = Vec::new();
    for token in sequence[prompt..].chunks(1) {
        let hidden = decoder.extend(&Batch::new([token]), &mut cache)?;
        all.extend(host_numbers(decoder.logits(hidden))?);
    }
    match first_not_finite(&all) {
        Some(bad) => Err(ForwardError::NotFinite { token: bad / decoder.architecture().vocabulary }),
        None => Ok(all),
    }
}

/// Consecutive sequences, together at most `most` tokens unless one alone has more.
fn batches(sequences: &[Vec<u32>], most: usize) -> impl Iterator<Item = &[Vec<u32>]> {
    let mut rest = sequences;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|sequence| {
            tokens += sequence.len();
            tokens <= most
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, behind) = rest.split_at(count);
        rest = behind;
        (!batch.is_empty()).then_some(batch)
    })
}

/// The place of the first number that is NaN or infinite.
fn first_not_finite(numbers: &[f32]) -> Option<usize> {
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
        let lengths: Vec<Vec<usize>> = batches(&sequences, 512).map(|b| b.iter().map(Vec::len).collect()).collect();
        assert_eq!(lengths, [vec![300, 200], vec![100], vec![600], vec![10]]);
        assert_eq!(batches(&[], 512).count(), 0);
        // Windows that divide a batch fill it.
        for length in [64, 512] {
            let windows = vec![vec![0; length]; 16];
            assert!(batches(&windows, 512).all(|batch| batch.len() * length == 512), "{length}");
        }
    }
}
