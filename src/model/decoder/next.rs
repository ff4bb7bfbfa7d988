//! One more token of every sequence, by a pass that is written down once and repeated, where the backend can.
//!
//! ```text
//!   token        first            second                         later
//!                record           pass, and replay beside it     replay
//!                                 └ other logits? never again
//! ```
//! What was written down belongs to a cache and to the weights that the decoder had. The second token is computed in both
//! ways, and only if the logits are the same to the last bit is the second way trusted: a pass of which something was not
//! written down gives others.

use super::*;
use crate::execute::decode::{Recorded, TimedLaunch};
use std::borrow::Cow;

/// A pass over one token of each sequence, as it is known.
pub(in super::super) enum Known<B: SparseBackend> {
    /// Nobody tried.
    Nothing,
    /// It can't be repeated.
    Never,
    /// It was written down.
    Written(Written<B>),
}

impl<B: SparseBackend> Known<B> {
    pub fn is_repeated(&self) -> bool {
        match self {
            Self::Nothing | Self::Never => false,
            Self::Written(written) => written.compared,
        }
    }
}

pub(in super::super) struct Written<B: SparseBackend> {
    recorded: Box<dyn Recorded<B>>,
    /// Whether it was compared with a pass.
    compared: bool,
    /// [`Decoder::weights`] of then.
    weights: u64,
    places: Places<B>,
    /// What stands in the places on the device: the tokens that come next, and how many came before each.
    expected: (Vec<u32>, Vec<usize>),
}

impl<B: SparseBackend> Decoder<B> {
    /// As [`Decoder::extend_each`] by a token of each sequence, and the arg-max of its logits; none where one is NaN or
    /// infinite.
    ///
    /// # Errors
    /// When the tokens do not fit the cache or the model, or the device does not give the numbers back.
    pub fn next(&mut self, tokens: &[u32], cache: &mut KvCache<B>) -> Result<Vec<Option<u32>>, DecoderError> {
        let batch = Batch::new(tokens.iter().map(std::slice::from_ref));
        let spans = spans_of_each(&batch.lengths, cache)?;
        self.check(&batch, &spans)?;
        // A pass whose parts are timed waits between them, and one that changes its inputs does more than launch.
        let plain = self.clock.is_some() || !self.thresholds.is_empty() || !launches_only(&self.architecture);
        if plain || matches!(cache.known, Known::Never) {
            let hidden = match cache.is_even() {
                true => self.extend(&batch, cache)?,
                false => self.extend_each(&tokens.iter().map(|&token| vec![token]).collect::<Vec<_>>(), cache)?,
            };
            return self.largest(hidden);
        }
        let known = std::mem::replace(&mut cache.known, Known::Nothing);
        let (next, known) = match known {
            Known::Written(written) if written.weights == self.weights => self.again(written, &batch, spans, cache)?,
            Known::Nothing | Known::Never | Known::Written(_) => self.written(&batch, spans, cache)?,
        };
        cache.known = known;
        cache.grow(batch.ids.chunks(1));
        Ok(next)
    }

    /// The device's times of every launch of one more token of each sequence, `rounds` of each. The cache does not take the
    /// tokens in. None where a pass can't be repeated.
    ///
    /// # Errors
    /// As [`Decoder::next`].
    pub fn timed_launches(
        &mut self,
        tokens: &[u32],
        cache: &mut KvCache<B>,
        rounds: usize,
    ) -> Result<Option<Vec<TimedLaunch>>, DecoderError> {
        let batch = Batch::new(tokens.iter().map(std::slice::from_ref));
        let spans = cache_spans(&batch, cache)?;
        self.check(&batch, &spans)?;
        if !self.thresholds.is_empty() || !launches_only(&self.architecture) {
            return Ok(None);
        }
        let numbers = Places::<B>::numbers_of(&batch.ids, &spans, self.architecture.attention.kv_heads);
        let places = self.places(&batch, spans);
        let clock = self.clock.replace(Arc::new(Clock::Names));
        let (decoder, blocks) = (&*self, &mut cache.blocks);
        let recorded = B::record(&self.device, &places, || decoder.logits(decoder.run(&places, blocks)));
        self.clock = clock;
        let Some(recorded) = recorded else { return Ok(None) };
        recorded.timed(&places, &numbers, rounds).map(Some).map_err(DecoderError::Read)
    }

    /// The arg-max of the logits.
    fn largest(&self, hidden: Tensor<B, 2>) -> Result<Vec<Option<u32>>, DecoderError> {
        self.arg_max(self.logits(hidden)).map_err(DecoderError::Read)
    }

    /// A pass that is written down.
    fn written(
        &mut self,
        batch: &Batch,
        spans: Vec<Span>,
        cache: &mut KvCache<B>,
    ) -> Result<(Vec<Option<u32>>, Known<B>), DecoderError> {
        let after = after(&spans);
        let places = self.places(batch, spans.clone());
        let (decoder, blocks) = (&*self, &mut cache.blocks);
        let recorded = B::record(&self.device, &places, || decoder.logits(decoder.run(&places, blocks)));
        let Some(recorded) = recorded else {
            let hidden = self.pass(batch, spans, &mut cache.blocks)?;
            return Ok((self.largest(hidden)?, Known::Never));
        };
        let next = recorded.largest().map_err(DecoderError::Read)?;
        let expected = (ids(&next), after);
        let known = Known::Written(Written { recorded, compared: false, weights: self.weights, places, expected });
        Ok((next, known))
    }

    /// A pass that was written down.
    fn again(
        &mut self,
        mut written: Written<B>,
        batch: &Batch,
        spans: Vec<Span>,
        cache: &mut KvCache<B>,
    ) -> Result<(Vec<Option<u32>>, Known<B>), DecoderError> {
        let after = after(&spans);
        let came = spans.iter().map(|span| span.past);
        if written.expected.0 != batch.ids || !came.eq(written.expected.1.iter().copied()) {
            let at = Places::<B>::numbers_of(&batch.ids, &spans, self.architecture.attention.kv_heads);
            written.recorded.place(&written.places, at);
        }
        // Chosen and launched as that one was.
        let passed = match written.compared {
            true => None,
            false => {
                let places = self.places(batch, spans);
                let (decoder, blocks) = (&*self, &mut cache.blocks);
                B::record(&self.device, &places, || decoder.logits(decoder.run(&places, blocks)))
            }
        };
        let next = written.recorded.replay().map_err(DecoderError::Read)?;
        if !written.compared {
            let read = |logits: Tensor<B, 2>| {
                let logits = logits.into_primitive().tensor();
                B::host_f32(&logits).map(Cow::into_owned).map_err(|error| DecoderError::Read(error.to_string()))
            };
            let Some(passed) = passed else { return Err(DecoderError::Read("a pass can't be repeated".into())) };
            let (a, b) = (read(passed.logits())?, read(written.recorded.logits())?);
            if a.len() != b.len() || a.iter().zip(&b).any(|(a, b)| a.to_bits() != b.to_bits()) {
                return Ok((passed.largest().map_err(DecoderError::Read)?, Known::Never));
            }
            written.compared = true;
        }
        written.expected = (ids(&next), after);
        Ok((next, Known::Written(written)))
    }
}

/// Whether a pass over one token of each sequence does nothing on the device but what [`DecodeOps`] and linears do, in the
/// same way at every position. Others have operations of Burn between, which nobody writes down.
///
/// [`DecodeOps`]: crate::execute::decode::DecodeOps
fn launches_only(architecture: &Architecture) -> bool {
    let Architecture { attention, positions, residual, constants, blocks, final_norm, .. } = architecture;
    let Constants { embedding, residual: of_added, logits, logit_cap, .. } = *constants;
    let unscaled = [embedding, of_added, logits] == [1.0; 3] && logit_cap.is_none();
    let plain_scores = attention.cap.is_none() && attention.clip.is_none();
    let same_turns = match positions {
        Positions::Learned { .. } => true,
        Positions::Rotary(rotaries) => {
            rotaries.iter().all(|rotary| !rotary.neighbours && rotary.scaling.turned_as(usize::MAX) == 0)
        }
        Positions::Alibi(_) => false,
    };
    let of_launches = |block: &Block| {
        let norms = block.norms.attention.is_some() && (block.norms.mlp.is_some() || *residual == Residual::Parallel);
        let one_layer = match block.mlp {
            Mlp::Plain { .. } | Mlp::Gated(_) => true,
            Mlp::Fused { .. } | Mlp::Experts(_) => false,
        };
        let heads = match block.head_norms {
            HeadNorms::None | HeadNorms::Whole { .. } | HeadNorms::Shared { .. } => true,
            HeadNorms::Own { .. } => false,
        };
        norms && one_layer && heads
    };
    unscaled && plain_scores && same_turns && final_norm.is_some() && blocks.iter().all(of_launches)
}

/// How many tokens of each sequence come before those behind these spans.
fn after(spans: &[Span]) -> Vec<usize> {
    spans.iter().map(|span| span.past + span.new).collect()
}

/// Tokens as they stand on the device: it knows no missing ones.
fn ids(next: &[Option<u32>]) -> Vec<u32> {
    // What stands there is not known: no token has this id.
    next.iter().map(|id| id.unwrap_or(u32::MAX)).collect()
}

/// What the sequences of a cache have, whom a batch continues.
pub(super) fn cache_spans<B: SparseBackend>(batch: &Batch, cache: &KvCache<B>) -> Result<Vec<Span>, DecoderError> {
    if !cache.is_even() || batch.lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(DecoderError::OtherSequences { sequences: cache.sequences() });
    }
    spans_of_each(&batch.lengths, cache)
}

/// What the sequences of a cache have that go on by so many tokens each.
///
/// # Errors
/// When there are other sequences, or there is no room.
pub(super) fn spans_of_each<B: SparseBackend>(new: &[usize], cache: &KvCache<B>) -> Result<Vec<Span>, DecoderError> {
    let (sequences, capacity) = (cache.sequences(), cache.capacity());
    if new.len() != sequences {
        return Err(DecoderError::OtherSequences { sequences });
    }
    let span = |(seen, &new): (&Vec<u32>, &usize)| Span { past: seen.len(), new, capacity };
    let spans: Vec<Span> = cache.seen().iter().zip(new).map(span).collect();
    match spans.iter().map(|span| span.past + span.new).find(|&needed| needed > capacity) {
        Some(needed) => Err(DecoderError::CacheFull { needed, capacity }),
        None => Ok(spans),
    }
}
