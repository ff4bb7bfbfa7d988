//! Keys and values of the tokens that a decoder has seen.
//!
//! ```text
//!   KvCache ── one KvBlock a decoder block
//!                ├─ host memory   [sequences][kv_heads][capacity][head_dim], filled in place
//!                └─ on a device   the same, as tensors
//! ```

use super::architecture::Architecture;
use super::decoder::Known;
use super::rotary::RotaryTable;
use crate::execute::SparseBackend;
use crate::execute::decode::Projected;
use crate::execute::kernels::attention::Heads;
use burn::tensor::Tensor;
use std::fmt;
use std::sync::Arc;

/// The memory of a decoder that generates: sequences of equal length, with room for more.
pub struct KvCache<B: SparseBackend> {
    sequences: usize,
    capacity: usize,
    /// The tokens of each sequence.
    seen: Vec<Vec<u32>>,
    pub(super) blocks: Vec<KvBlock<B>>,
    /// How its next tokens are computed.
    pub(super) known: Known<B>,
}

/// A copy has memory of its own once it is written to, so that it knows no pass that was written down for the other's.
impl<B: SparseBackend> Clone for KvCache<B> {
    fn clone(&self) -> Self {
        let Self { sequences, capacity, seen, blocks, known: _ } = self;
        let (seen, blocks) = (seen.clone(), blocks.clone());
        Self { sequences: *sequences, capacity: *capacity, seen, blocks, known: Known::Nothing }
    }
}

impl<B: SparseBackend> fmt::Debug for KvCache<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self { sequences, capacity, .. }, past) = (self, self.past());
        write!(f, "KvCache {{ {sequences} sequences, {past} of {capacity} tokens }}")
    }
}

impl<B: SparseBackend> KvCache<B> {
    /// An empty cache for `sequences` sequences of up to `capacity` tokens.
    pub fn new(architecture: &Architecture, sequences: usize, capacity: usize) -> Self {
        let attention = architecture.attention;
        let numbers = sequences * attention.kv_heads * capacity * attention.head_dim;
        let block = || KvBlock {
            host: if B::ON_HOST { HostKv::new(numbers) } else { HostKv::default() },
            device: None,
            shared: None,
        };
        Self {
            sequences,
            capacity,
            seen: vec![Vec::new(); sequences],
            blocks: architecture.blocks.iter().map(|_| block()).collect(),
            known: Known::Nothing,
        }
    }

    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// The most tokens of a sequence.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens of each sequence that the decoder has seen.
    pub fn past(&self) -> usize {
        self.seen.first().map_or(0, Vec::len)
    }

    /// Those tokens, sequence by sequence.
    pub(super) fn seen(&self) -> &[Vec<u32>] {
        &self.seen
    }

    /// Whether the next token comes from a pass that was written down and compared: see [`Decoder::next`].
    ///
    /// [`Decoder::next`]: super::Decoder::next
    pub fn is_repeated(&self) -> bool {
        self.known.is_repeated()
    }

    /// Forgets every token, and keeps the memory.
    pub fn clear(&mut self) {
        self.seen.iter_mut().for_each(Vec::clear);
    }

    /// Notes the tokens that each sequence has more.
    pub(super) fn grow<'a>(&mut self, new: impl Iterator<Item = &'a [u32]>) {
        self.seen.iter_mut().zip(new).for_each(|(seen, new)| seen.extend_from_slice(new));
    }
}

/// Keys and values of one decoder block.
#[derive(Clone, Debug)]
pub(super) struct KvBlock<B: SparseBackend> {
    pub host: HostKv,
    /// Keys and values, made when the first come: see [`DecodeOps::attend`](crate::execute::DecodeOps::attend).
    pub device: Option<[Tensor<B, 1>; 2]>,
    /// Of a pass whose sequences share what they begin with: what attends instead, and which decoder block this is.
    pub shared: Option<(Arc<dyn Shared<B>>, usize)>,
}

/// How tokens attend whose sequences share what they begin with.
pub(super) trait Shared<B: SparseBackend>: fmt::Debug + Send + Sync {
    /// What every token of the pass sees, in the decoder block of an index: `[tokens, heads * head_dim]`.
    fn attend(
        &self,
        block: usize,
        shape: &Heads,
        projected: &Projected<B>,
        rotary: Option<&RotaryTable<B>>,
    ) -> Tensor<B, 2>;
}

impl<B: SparseBackend> KvBlock<B> {
    /// Memory for a pass that nothing follows: every decoder block in turn uses it.
    pub fn scratch() -> Self {
        Self { host: HostKv::default(), device: None, shared: None }
    }
}

/// Keys and values in host memory: the sequences one after the other, each `[kv_heads, capacity, head_dim]`.
#[derive(Clone, Debug, Default)]
pub(super) struct HostKv {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

impl HostKv {
    fn new(numbers: usize) -> Self {
        Self { keys: vec![0.0; numbers], values: vec![0.0; numbers] }
    }
}
