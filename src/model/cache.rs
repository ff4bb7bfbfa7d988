//! Keys and values of the tokens that a decoder has seen.
//!
//! ```text
//!   KvCache ── one KvBlock a decoder block
//!                ├─ host memory   [sequences][kv_heads][capacity][head_dim], filled in place
//!                └─ on a device   the same, as tensors
//! ```
//!
//! The sequences of a cache are equally long, unless they go on each by itself: see `decoder/ragged.rs`.

use super::architecture::Architecture;
use super::decoder::Known;
use super::rotary::RotaryTable;
use crate::execute::SparseBackend;
use crate::execute::decode::Projected;
use crate::execute::kernels::attention::Heads;
use burn::tensor::Tensor;
use std::fmt;
use std::sync::Arc;

/// The memory of a decoder that generates: sequences with room for more.
pub struct KvCache<B: SparseBackend> {
    sequences: usize,
    capacity: usize,
    /// Features of a key or value head.
    head_dim: usize,
    /// The tokens of each sequence.
    seen: Vec<Vec<u32>>,
    pub(super) blocks: Vec<KvBlock<B>>,
    /// How its next tokens are computed.
    pub(super) known: Known<B>,
}

/// A copy knows no pass that was written down: that one reads and writes the memory of the other.
impl<B: SparseBackend> Clone for KvCache<B> {
    fn clone(&self) -> Self {
        let Self { sequences, capacity, head_dim, seen, blocks, known: _ } = self;
        let (sequences, capacity, head_dim) = (*sequences, *capacity, *head_dim);
        let (seen, blocks) = (seen.clone(), blocks.clone());
        Self { sequences, capacity, head_dim, seen, blocks, known: Known::Nothing }
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
        let seen = vec![Vec::new(); sequences];
        let blocks = architecture.blocks.iter().map(|_| block()).collect();
        Self { sequences, capacity, head_dim: attention.head_dim, seen, blocks, known: Known::Nothing }
    }

    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// The most tokens of a sequence.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens of each sequence that the decoder has seen, where the sequences are equally long.
    pub fn past(&self) -> usize {
        self.seen.first().map_or(0, Vec::len)
    }

    /// Whether the sequences are equally long.
    pub(super) fn is_even(&self) -> bool {
        self.seen.windows(2).all(|pair| pair[0].len() == pair[1].len())
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

    /// Begins a sequence anew as the one of `front` is, which on a device is empty.
    ///
    /// # Panics
    /// When `front` has more tokens than there is room for, or any on a device, or is another model's.
    pub fn restart(&mut self, sequence: usize, front: &Self) {
        assert!(B::ON_HOST || front.past() == 0, "what a device holds is not copied");
        self.seen[sequence].clone_from(&front.seen[0]);
        let filled = front.past() * front.head_dim;
        let (room, of_front) = (self.capacity * self.head_dim, front.capacity * front.head_dim);
        for (block, front) in self.blocks.iter_mut().zip(&front.blocks) {
            let [keys, values] =
                [(&mut block.host.keys, &front.host.keys), (&mut block.host.values, &front.host.values)];
            for (to, from) in [keys, values] {
                let heads = to.len() / (self.sequences * room).max(1);
                let to = to[sequence * heads * room..].chunks_exact_mut(room.max(1)).take(heads);
                for (to, from) in to.zip(from.chunks_exact(of_front.max(1))) {
                    to[..filled].copy_from_slice(&from[..filled]);
                }
            }
        }
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
