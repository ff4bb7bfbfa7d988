//! Sequences that begin alike, in one pass that computes what they share once.
//!
//! ```text
//!   root        tokens in front of all of them, in a cache        examples
//!     wave 0      nodes, each behind the root                       question 1        question 2
//!     wave 1      nodes, each behind one of wave 0                    choice  choice     choice  choice
//!
//!   rows of the pass: all nodes of wave 0, then all of wave 1, each node's tokens in order
//! ```
//! Linears see the tokens of all nodes as one matrix. Attention goes wave by wave: a node's memory begins with a copy
//! of what is above it, which costs a thousandth of computing it again. For backends in host memory.

use super::{Batch, Decoder, DecoderError};
use crate::execute::SparseBackend;
use crate::execute::decode::{Places, Projected, Span};
use crate::execute::kernels::attention::Heads;
use crate::model::architecture::Positions;
use crate::model::attention::attend;
use crate::model::cache::{HostKv, KvBlock, KvCache, Shared};
use crate::model::rotary::RotaryTable;
use burn::tensor::Tensor;
use std::sync::Arc;

/// Tokens that follow those of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node of the wave before that they follow; none behind the root.
    pub above: Option<usize>,
    /// The tokens, at least one.
    pub ids: Vec<u32>,
}

/// The nodes of a pass, wave by wave; in the first wave nothing is above a node but the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The waves.
    pub waves: Vec<Vec<Node>>,
}

/// How the nodes of a pass lie, and what they follow: what a decoder block attends by.
#[derive(Debug)]
struct Grown<B: SparseBackend> {
    waves: Vec<Wave<B>>,
    root: Option<Arc<KvCache<B>>>,
}

#[derive(Debug)]
struct Wave<B: SparseBackend> {
    places: Places<B>,
    above: Vec<Option<usize>>,
}

impl<B: SparseBackend> Decoder<B> {
    /// Whether sequences of up to `longest` tokens may share what they begin with: in host memory, and turned alike.
    pub fn shares_beginnings(&self, longest: usize) -> bool {
        B::ON_HOST && self.turns_alike(longest)
    }

    /// Whether sequences of up to `longest` tokens are turned in the same way whatever their length.
    pub fn turns_alike(&self, longest: usize) -> bool {
        match &self.architecture.positions {
            Positions::Rotary(all) => all.iter().all(|of| of.scaling.turned_as(longest) == of.scaling.turned_as(1)),
            Positions::Learned { .. } | Positions::Alibi(_) => true,
        }
    }

    /// As [`Decoder::hidden`], for the nodes of a tree behind the one sequence of `root`: `[tokens, width]`, wave by
    /// wave.
    ///
    /// # Errors
    /// When a sequence is too long or a token unknown.
    ///
    /// # Panics
    /// When the backend is not in host memory, the root has several sequences, or a node follows none of the wave before.
    pub fn hidden_of_tree(
        &mut self,
        tree: &Tree,
        root: Option<&Arc<KvCache<B>>>,
    ) -> Result<Tensor<B, 2>, DecoderError> {
        assert!(B::ON_HOST, "trees are for host memory");
        assert!(root.is_none_or(|root| root.sequences() == 1), "a root is one sequence");
        let kv_heads = self.architecture.attention.kv_heads;
        let mut waves: Vec<Wave<B>> = Vec::with_capacity(tree.waves.len());
        for nodes in &tree.waves {
            let past = |node: &Node| match (node.above, waves.last()) {
                (Some(above), Some(wave)) => wave.places.spans()[above].capacity,
                (None, None) => root.map_or(0, |root| root.past()),
                (Some(_), None) | (None, Some(_)) => unreachable!("nodes follow the wave before, or the root"),
            };
            let span = |node: &Node| {
                let (past, new) = (past(node), node.ids.len());
                Span { past, new, capacity: past + new }
            };
            let spans: Vec<Span> = nodes.iter().map(span).collect();
            let ids: Vec<u32> = nodes.iter().flat_map(|node| node.ids.iter().copied()).collect();
            let above = nodes.iter().map(|node| node.above).collect();
            waves.push(Wave { places: Places::new(&ids, spans, kv_heads, &self.device), above });
        }
        let batch = Batch::new(tree.waves.iter().flatten().map(|node| node.ids.as_slice()));
        let spans = waves.iter().flat_map(|wave| wave.places.spans().to_vec()).collect();
        let grown: Arc<dyn Shared<B>> = Arc::new(Grown { waves, root: root.cloned() });
        let block = |index| KvBlock { shared: Some((grown.clone(), index)), ..KvBlock::scratch() };
        let mut blocks: Vec<KvBlock<B>> = (0..self.architecture.blocks.len()).map(block).collect();
        self.pass(&batch, spans, &mut blocks)
    }
}

impl<B: SparseBackend> Shared<B> for Grown<B> {
    fn attend(
        &self,
        block: usize,
        shape: &Heads,
        projected: &Projected<B>,
        rotary: Option<&RotaryTable<B>>,
    ) -> Tensor<B, 2> {
        let root = self.root.as_ref().map(|root| {
            let span = Span { past: 0, new: root.past(), capacity: root.capacity() };
            (root.blocks[block].host.clone(), vec![span])
        });
        let (mut above, mut start, mut attended) = (root, 0, Vec::with_capacity(self.waves.len()));
        for wave in &self.waves {
            let tokens = wave.places.tokens();
            let spans = wave.places.spans();
            let mut kv = KvBlock::scratch();
            if let Some((memory, lie)) = &above {
                let behind = wave.above.iter().map(|above| above.unwrap_or(0));
                kv.host = memory.continued(lie, behind.zip(spans), shape.kv_heads, shape.head_dim);
            }
            attended.push(attend(shape, rows(projected, start, tokens), &wave.places, rotary, &mut kv));
            above = Some((kv.host, spans.to_vec()));
            start += tokens;
        }
        Tensor::cat(attended, 0)
    }
}

/// Some tokens of what the projections gave.
fn rows<B: SparseBackend>(projected: &Projected<B>, start: usize, tokens: usize) -> Projected<B> {
    let part = |tensor: &Tensor<B, 2>| tensor.clone().narrow(0, start, tokens);
    match projected {
        Projected::Separate(tensors) => Projected::Separate(tensors.each_ref().map(part)),
        Projected::PerHead(tensor) => Projected::PerHead(part(tensor)),
        Projected::Stacked(tensor) => Projected::Stacked(part(tensor)),
    }
}

impl HostKv {
    /// Memory for sequences that follow those of this one, which lie as `spans` says: each begins with a copy of the one
    /// that it follows.
    fn continued<'a>(
        &self,
        spans: &[Span],
        behind: impl Iterator<Item = (usize, &'a Span)>,
        kv_heads: usize,
        head_dim: usize,
    ) -> Self {
        let starts: Vec<usize> = spans
            .iter()
            .scan(0, |sum, span| {
                let start = *sum;
                *sum += span.capacity;
                Some(start)
            })
            .collect();
        let mut new = Self::default();
        for (above, span) in behind {
            for head in 0..kv_heads {
                let from = (starts[above] * kv_heads + head * spans[above].capacity) * head_dim;
                for (from_numbers, to) in [(&self.keys, &mut new.keys), (&self.values, &mut new.values)] {
                    to.extend_from_slice(&from_numbers[from..from + span.past * head_dim]);
                    to.resize(to.len() + (span.capacity - span.past) * head_dim, 0.0);
                }
            }
        }
        new
    }
}
