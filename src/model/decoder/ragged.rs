//! Sequences of a cache that go on each by itself, as when several texts are written at once.
//!
//! ```text
//!   cache   sequence 0   [front | prompt | written ..       ]
//!           sequence 1   [front | prompt | written ....     ]      each with room for `capacity` tokens
//!           sequence 2   [front |                           ]
//!   pass    the next tokens of each: a prompt, a written token, or none
//! ```
//! Linears see the tokens of all sequences as one matrix, so that weights are read once for all of them. For models whose
//! rotary angles do not depend on how long a sequence is.

use super::{Batch, Decoder, DecoderError, next};
use crate::execute::SparseBackend;
use crate::model::cache::KvCache;
use burn::tensor::Tensor;

impl<B: SparseBackend> Decoder<B> {
    /// As [`Decoder::extend`], where every sequence continues by tokens of its own, or by none: what each new token
    /// gives, sequence by sequence.
    ///
    /// # Errors
    /// When the tokens do not fit the cache or the model; the cache is as it was then.
    pub fn extend_each(&mut self, new: &[Vec<u32>], cache: &mut KvCache<B>) -> Result<Tensor<B, 2>, DecoderError> {
        let lengths: Vec<usize> = new.iter().map(Vec::len).collect();
        let spans = next::spans_of_each(&lengths, cache)?;
        let hidden = self.pass(&Batch::new(new.iter().map(Vec::as_slice)), spans, &mut cache.blocks)?;
        cache.grow(new.iter().map(Vec::as_slice));
        Ok(hidden)
    }
}
