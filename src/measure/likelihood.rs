//! The likelihood of a text by the field's convention: windows of equal length, the mean over their shifted positions. Where
//! windows overlap, each token counts once, in the first window that has it.

use super::forward::{ForwardError, each_hidden, likely};
use crate::execute::{SparseBackend, Target};
use crate::model::Decoder;

/// How likely a text is to a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// The negative log-likelihood of the scored tokens, their sum, in nats.
    pub nats: f64,
    /// How many there are.
    pub tokens: usize,
    /// Bytes of the text that they stand for.
    pub bytes: usize,
}

impl Likelihood {
    /// exp of the mean negative log-likelihood of a token.
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }

    /// The negative log-likelihood in bits, for each byte of the text; Gao et al., "The Pile", arXiv 2101.00027,
    /// section 3.1, with the bytes of the scored tokens alone.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes as f64
    }
}

/// The negative log-likelihood of the tokens of the windows, given those before them in
/// the same window; `bytes` of the text are what they stand for. The first token of a window is not predicted, nor are the first `overlap` of every
/// window but the first: they are there as context.
///
/// `done` is called with the number of tokens that are done.
///
/// # Errors
/// When a window does not fit the model, or a logit of a position that is scored is not finite.
pub fn likelihood<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    windows: &[Vec<u32>],
    overlap: usize,
    bytes: usize,
    mut done: impl FnMut(usize),
) -> Result<Likelihood, ForwardError> {
    let context = windows.first().map_or(0, Vec::len);
    let scored = |window: usize, i: usize| window == 0 || i >= overlap;
    let targets = windows
        .iter()
        .enumerate()
        .flat_map(|(index, window)| (1..=context).map(move |i| window.get(i).copied().filter(|_| scored(index, i))));
    let targets: Vec<Option<u32>> = targets.collect();
    let (mut nats, mut tokens) = (0.0, 0usize);
    each_hidden(decoder, windows, |decoder, first, hidden| {
        let rows = hidden.dims()[0];
        let here = targets[first..first + rows].iter().enumerate();
        let asked: Vec<Target> = here.filter_map(|(row, id)| Some(Target { row, id: (*id)? })).collect();
        let found = likely(decoder, hidden, &asked)?;
        // Summed in order, so that the number of threads does not matter.
        for (target, found) in asked.iter().zip(found) {
            nats -= found.ok_or(ForwardError::NotFinite { token: first + target.row })?.log;
            tokens += 1;
        }
        done(first + rows);
        Ok(())
    })?;
    Ok(Likelihood { nats, tokens, bytes })
}
