//! A block: where its norms stand, its attention and its feed-forward layer, as the architecture says.
//!
//! ```text
//!   before   x ─┬─ norm ── attention ── (norm) ── + ─┬─ norm ── mlp ── (norm) ── + ──>
//!               └─────────────────────────────────┘  └────────────────────────┘
//!   after    x ─┬─ attention ── + ── norm ─┬─ mlp ── + ── norm ──>
//!   beside   x ─┬─ norm ── attention ── + ──>      one norm for both, or two
//!               └─ norm ── mlp ───────┘
//! ```
//!
//! The last linear of a block is run apart from the rest: calibration wants to see what it reads, and not its product.

use super::super::architecture::*;
use super::super::attention::attend;
use super::super::cache::KvBlock;
use super::super::clock::{Section, Step};
use super::experts::Routed;
use super::{At, Decoder, Loaded, Residuals, See, scaled};
use crate::execute::SparseBackend;
use crate::execute::decode::{Norm, NormKind, Projected};
use crate::execute::kernels::attention::Heads;
use burn::tensor::Tensor;

/// A block but for its last linear.
pub(super) struct Unfinished<B: SparseBackend> {
    residuals: Residuals<B>,
    input: Inner<B>,
}

/// What the last linears of a feed-forward layer read.
pub(super) enum Inner<B: SparseBackend> {
    /// One linear, all tokens.
    One(usize, Tensor<B, 2>),
    /// Those of experts, each its tokens.
    Experts(Vec<Routed<B>>),
}

impl<B: SparseBackend> Decoder<B> {
    pub(super) fn block(
        &self,
        block: &Block,
        x: Residuals<B>,
        at: &At<'_, B>,
        kv: &mut KvBlock<B>,
        see: See<'_, B>,
    ) -> Unfinished<B> {
        let Norms { attention, mlp, attention_added, .. } = block.norms;
        match self.architecture.residual {
            Residual::PreNorm => {
                let [x, normed] = self.perhaps_norm(attention, x);
                let added = vec![self.added(attention_added, self.attend(block, normed, at, kv, see))];
                let [x, normed] = self.perhaps_norm(mlp, Residuals { x, added });
                let input = self.feed_forward(&block.mlp, normed, see);
                Unfinished { residuals: Residuals { x, added: Vec::new() }, input }
            }
            Residual::PostNorm => {
                let x = x.sum();
                let added = vec![self.added(attention_added, self.attend(block, x.clone(), at, kv, see))];
                let [_, x] = self.perhaps_norm(attention, Residuals { x, added });
                let input = self.feed_forward(&block.mlp, x.clone(), see);
                Unfinished { residuals: Residuals { x, added: Vec::new() }, input }
            }
            Residual::Parallel => {
                let [mut x, normed] = self.perhaps_norm(attention, x);
                let mut read = normed.clone();
                let attended = self.added(attention_added, self.attend(block, normed, at, kv, see));
                if let Some(mlp) = mlp {
                    [x, read] = self.norm(mlp, Residuals { x, added: Vec::new() });
                }
                let input = self.feed_forward(&block.mlp, read, see);
                Unfinished { residuals: Residuals { x, added: vec![attended] }, input }
            }
        }
    }

    pub(super) fn end_block(&self, block: &Block, Unfinished { mut residuals, input }: Unfinished<B>) -> Residuals<B> {
        let given = match input {
            Inner::One(down, input) => self.product(down, input),
            Inner::Experts(routed) => self.mix(&residuals.x, routed),
        };
        residuals.added.push(self.added(block.norms.mlp_added, given));
        match self.architecture.residual {
            Residual::PreNorm | Residual::Parallel => residuals,
            Residual::PostNorm => {
                let [_, x] = self.perhaps_norm(block.norms.mlp, residuals);
                Residuals { x, added: Vec::new() }
            }
        }
    }

    /// What a sublayer adds.
    fn added(&self, norm: Option<usize>, given: Tensor<B, 2>) -> Tensor<B, 2> {
        let given = match norm {
            Some(norm) => self.normed(norm, given),
            None => given,
        };
        scaled(given, self.architecture.constants.residual)
    }

    /// The sum of the residuals, and its norm where there is one.
    fn perhaps_norm(&self, module: Option<usize>, residuals: Residuals<B>) -> [Tensor<B, 2>; 2] {
        match module {
            Some(module) => self.norm(module, residuals),
            None => {
                let x = residuals.sum();
                [x.clone(), x]
            }
        }
    }

    /// The sum of the residuals, and its norm.
    pub(super) fn norm(&self, module: usize, Residuals { x, added }: Residuals<B>) -> [Tensor<B, 2>; 2] {
        let Loaded::Norm { gain, bias } = &self.modules[module] else { unreachable!("norms are norms") };
        let norm = || B::norm(x, added, Norm { kind: self.architecture.norm, gain, bias: bias.as_ref() });
        self.timed(Section::Norms, || self.step(module), norm)
    }

    /// The norm of some rows.
    pub(super) fn normed(&self, module: usize, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let [_, normed] = self.norm(module, Residuals { x, added: Vec::new() });
        normed
    }

    /// Up to what the last linear reads.
    fn feed_forward(&self, mlp: &Mlp, x: Tensor<B, 2>, see: See<'_, B>) -> Inner<B> {
        let function = self.architecture.activation;
        let (down, input) = match mlp {
            Mlp::Plain { up, down } => {
                see(&[*up], &x);
                let x = self.product(*up, x);
                (*down, self.activation(|| B::activate(function, x)))
            }
            Mlp::Gated(gated) => return Inner::One(gated.down, self.gated(gated, x, see)),
            Mlp::Fused { gate_up, down } => {
                see(&[*gate_up], &x);
                let both = self.product(*gate_up, x);
                let width = both.dims()[1] / 2;
                let [gates, up] = [0, width].map(|first| both.clone().narrow(1, first, width));
                (*down, self.activation(|| B::gate(function, gates, up)))
            }
            Mlp::Experts(experts) => return Inner::Experts(self.route(experts, &x, see)),
        };
        see(&[down], &input);
        Inner::One(down, input)
    }

    fn activation(&self, work: impl FnOnce() -> Tensor<B, 2>) -> Tensor<B, 2> {
        self.timed(Section::Activations, || Step::named("activation"), work)
    }

    /// A gated feed-forward layer up to what its last linear reads.
    pub(super) fn gated(&self, &Gated { gate, up, down }: &Gated, x: Tensor<B, 2>, see: See<'_, B>) -> Tensor<B, 2> {
        see(&[gate, up], &x);
        let gates = self.product(gate, x.clone());
        let ups = self.product(up, x);
        let input = self.activation(|| B::gate(self.architecture.activation, gates, ups));
        see(&[down], &input);
        input
    }

    fn attend(
        &self,
        block: &Block,
        x: Tensor<B, 2>,
        at: &At<'_, B>,
        kv: &mut KvBlock<B>,
        see: See<'_, B>,
    ) -> Tensor<B, 2> {
        let projected = match block.projections {
            Projections::Separate { q, k, v } => {
                see(&[q, k, v], &x);
                let [q, k] =
                    self.head_norms(&block.head_norms, [self.product(q, x.clone()), self.product(k, x.clone())]);
                Projected::Separate([q, k, self.product(v, x)])
            }
            Projections::PerHead(fused) => {
                see(&[fused], &x);
                Projected::PerHead(self.product(fused, x))
            }
            Projections::Stacked(fused) => {
                see(&[fused], &x);
                Projected::Stacked(self.product(fused, x))
            }
        };
        let projected = self.clipped(projected);
        let rotary = block.rotary.and_then(|rotary| at.rotaries[rotary].as_ref());
        let shape = self.heads(block);
        let attended = self.timed(
            Section::Attention,
            || Step::named("attention"),
            || attend(&shape, projected, at.places, rotary, kv),
        );
        see(&[block.output], &attended);
        self.product(block.output, attended)
    }

    fn heads(&self, block: &Block) -> Heads {
        let Attention { heads, kv_heads, head_dim, scale, cap, .. } = self.architecture.attention;
        let alibi = match self.architecture.positions {
            Positions::Alibi(alibi) => Some(alibi),
            Positions::Learned { .. } | Positions::Rotary(_) => None,
        };
        let cap = cap.map(|cap| cap as f32);
        Heads { heads, kv_heads, head_dim, window: block.window, scale: scale as f32, cap, alibi }
    }

    fn clipped(&self, projected: Projected<B>) -> Projected<B> {
        let Some(clip) = self.architecture.attention.clip else { return projected };
        match projected {
            Projected::Separate(each) => Projected::Separate(each.map(|x| x.clamp(-clip, clip))),
            Projected::PerHead(all) => Projected::PerHead(all.clamp(-clip, clip)),
            Projected::Stacked(all) => Projected::Stacked(all.clamp(-clip, clip)),
        }
    }

    /// Norms of queries and keys, `[tokens, heads * head_dim]` each.
    fn head_norms(&self, norms: &HeadNorms, [queries, keys]: [Tensor<B, 2>; 2]) -> [Tensor<B, 2>; 2] {
        let dim = self.architecture.attention.head_dim;
        match norms {
            HeadNorms::None => [queries, keys],
            HeadNorms::Whole { q, k } => [self.normed(*q, queries), self.normed(*k, keys)],
            HeadNorms::Shared { q, k } => [(*q, queries), (*k, keys)].map(|(norm, x)| {
                let [tokens, width] = x.dims();
                self.normed(norm, x.reshape([tokens * width / dim, dim])).reshape([tokens, width])
            }),
            HeadNorms::Own { q, k } => [(q, queries), (k, keys)].map(|(norms, x)| self.own_norms(norms, x)),
        }
    }

    /// The norm of each head, with gains of its own: that of all with gains of 1, times the gains.
    fn own_norms(&self, norms: &[usize], x: Tensor<B, 2>) -> Tensor<B, 2> {
        let ([tokens, width], dim) = (x.dims(), self.architecture.attention.head_dim);
        let gain = |norm: &usize| match &self.modules[*norm] {
            Loaded::Norm { gain, .. } => gain.clone(),
            Loaded::Embedding(_) | Loaded::Linear(_) => unreachable!("norms are norms"),
        };
        let gains = Tensor::cat(norms.iter().map(gain).collect(), 0);
        let ones = Tensor::ones([dim], (&self.device, self.dtype));
        let kind: NormKind = self.architecture.norm;
        let rows = x.reshape([tokens * width / dim, dim]);
        let norm = || B::norm(rows, Vec::new(), Norm { kind, gain: &ones, bias: None });
        let [_, normed] = self.timed(Section::Norms, || Step::named("head_norms"), norm);
        normed.reshape([tokens, width]) * gains.unsqueeze()
    }
}
