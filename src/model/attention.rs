//! Attention between the projections: queries, keys and values of a batch, and those that a cache holds.
//!
//! ```text
//!   projected ─┬─ on the host ──> host.rs: rotated into the block's memory, kernels/attention.rs
//!              └─ on a device ──> Burn's operations: rotary, concatenation, products, softmax
//! ```

use super::architecture::Attention;
use super::cache::{KvBlock, Span};
use super::host;
use super::rotary::RotaryTable;
use crate::execute::SparseBackend;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor, TensorData};

/// Queries, keys and values as the linears leave them, `[tokens, ..]`.
pub(super) enum Projected<B: SparseBackend> {
    /// Of three linears, each `[heads, head_dim]` a token.
    Separate([Tensor<B, 2>; 3]),
    /// Of one, `[heads, 3, head_dim]` a token.
    PerHead(Tensor<B, 2>),
    /// Of one, `[3, heads, head_dim]` a token.
    Stacked(Tensor<B, 2>),
}

/// What every token sees: `[tokens, heads * head_dim]`.
///
/// The tokens lie sequence by sequence, as `spans` says; `kv` takes their keys and values.
pub(super) fn attend<B: SparseBackend>(
    shape: &Attention,
    projected: Projected<B>,
    spans: &[Span],
    rotary: Option<&RotaryTable<B>>,
    kv: &mut KvBlock<B>,
) -> Tensor<B, 2> {
    match B::ON_HOST {
        true => host::attend(shape, projected, spans, rotary.map(RotaryTable::angles), &mut kv.host),
        false => attend_on_device(shape, projected, spans, rotary, kv),
    }
}

fn attend_on_device<B: SparseBackend>(
    shape: &Attention,
    projected: Projected<B>,
    spans: &[Span],
    rotary: Option<&RotaryTable<B>>,
    kv: &mut KvBlock<B>,
) -> Tensor<B, 2> {
    let qkv = split(shape, projected);
    let tokens = qkv[0].dims()[0];
    let even = spans.windows(2).all(|pair| pair[0] == pair[1]);
    let attended = if even {
        attend_even(shape, qkv, spans[0], spans.len(), rotary, kv)
    } else {
        // Only passes without a cache have sequences of different lengths.
        let mut parts = Vec::with_capacity(spans.len());
        let mut start = 0;
        for &span in spans {
            let rows = qkv.each_ref().map(|t| t.clone().narrow(0, start, span.new));
            parts.push(attend_even(shape, rows, span, 1, rotary, kv));
            start += span.new;
        }
        Tensor::cat(parts, 0)
    };
    attended.reshape([tokens, shape.heads * shape.head_dim])
}

/// Queries, keys and values, each `[tokens, heads, head_dim]`.
fn split<B: SparseBackend>(shape: &Attention, projected: Projected<B>) -> [Tensor<B, 3>; 3] {
    let Attention { heads, kv_heads, head_dim, .. } = *shape;
    match projected {
        Projected::Separate([q, k, v]) => {
            let tokens = q.dims()[0];
            let by_head = |t: Tensor<B, 2>, heads: usize| t.reshape([tokens, heads, head_dim]);
            [by_head(q, heads), by_head(k, kv_heads), by_head(v, kv_heads)]
        }
        Projected::PerHead(all) => {
            let tokens = all.dims()[0];
            let all = all.reshape([tokens, heads, 3, head_dim]);
            [0, 1, 2].map(|part| all.clone().narrow(2, part, 1).reshape([tokens, heads, head_dim]))
        }
        Projected::Stacked(all) => {
            let tokens = all.dims()[0];
            let all = all.reshape([tokens, 3, heads, head_dim]);
            [0, 1, 2].map(|part| all.clone().narrow(1, part, 1).reshape([tokens, heads, head_dim]))
        }
    }
}

/// Attention within `sequences` sequences of one span; all are `[tokens, heads, head_dim]`.
fn attend_even<B: SparseBackend>(
    shape: &Attention,
    [q, k, v]: [Tensor<B, 3>; 3],
    span: Span,
    sequences: usize,
    rotary: Option<&RotaryTable<B>>,
    kv: &mut KvBlock<B>,
) -> Tensor<B, 3> {
    let Attention { heads, kv_heads, head_dim, window } = *shape;
    let by_head = |t: Tensor<B, 3>, heads: usize| t.reshape([sequences, span.new, heads, head_dim]).swap_dims(1, 2);
    let (mut q, mut k, mut v) = (by_head(q, heads), by_head(k, kv_heads), by_head(v, kv_heads));
    if let Some(rotary) = rotary {
        (q, k) = (rotary.apply(q, span.past), rotary.apply(k, span.past));
    }
    if kv.keeps {
        if let Some([keys, values]) = kv.device.take() {
            (k, v) = (Tensor::cat(vec![keys, k], 2), Tensor::cat(vec![values, v], 2));
        }
        kv.device = Some([k.clone(), v.clone()]);
    }
    let keys = span.past + span.new;
    // Without a past, Burn's own causal mask does.
    let causal = span.past == 0;
    let masked = window.is_some_and(|window| keys > window) || (!causal && span.new > 1);
    let device = q.device();
    let mask = masked.then(|| mask::<B>(span.new, span.past, window, &device));
    attention_by_head(q, k, v, mask, causal).swap_dims(1, 2).reshape([sequences * span.new, heads, head_dim])
}

/// True where a key is behind its query or too far back to be seen: `[1, 1, new, past + new]`.
fn mask<B: SparseBackend>(new: usize, past: usize, window: Option<usize>, device: &B::Device) -> Tensor<B, 4, Bool> {
    let keys = past + new;
    let hidden = |query: usize, key: usize| key > query || window.is_some_and(|window| key + window <= query);
    let all = (past..keys).flat_map(|query| (0..keys).map(move |key| hidden(query, key)));
    Tensor::from_data(TensorData::new(all.collect::<Vec<bool>>(), [1, 1, new, keys]), device)
}

/// Attention of every query on every key, less those that `mask` and `causal` hide.
///
/// # Shapes
/// - `q`: `[sequences, heads, new, head_dim]`
/// - `k`, `v`: `[sequences, kv_heads, keys, head_dim]`
/// - `mask`: `[1, 1, new, keys]`
/// - returns the shape of `q`
fn attention_by_head<B: SparseBackend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Option<Tensor<B, 4, Bool>>,
    causal: bool,
) -> Tensor<B, 4> {
    let [sequences, heads, new, _] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let mask = mask.map(|mask| mask.expand([sequences, heads, new, keys]));
    let group = heads / kv_heads;
    let options = AttentionModuleOptions { is_causal: causal, ..Default::default() };
    attention(q, spread(k, group), spread(v, group), mask, None, options)
}

/// Repeats each key or value head `[sequences, kv_heads, length, head_dim]` for its group of query heads.
fn spread<B: SparseBackend>(t: Tensor<B, 4>, group: usize) -> Tensor<B, 4> {
    let [sequences, kv_heads, length, head_dim] = t.dims();
    if group == 1 {
        return t;
    }
    let t: Tensor<B, 5> = t.reshape([sequences, kv_heads, 1, length, head_dim]);
    t.expand([sequences, kv_heads, group, length, head_dim]).reshape([sequences, kv_heads * group, length, head_dim])
}

#[cfg(test)]
mod tests {
    use super::super::architecture::{RopeScaling, Rotary};
    use super::super::cache::KvCache;
    use super::*;
    use burn::backend::Flex;
    use burn::tensor::DType;

    fn numbers(seed: usize, rows: usize, cols: usize) -> Tensor<Flex, 2> {
        let number = |i: usize| ((i * 37 + seed * 101) % 113) as f32 / 40.0 - 1.4;
        let data = TensorData::new((0..rows * cols).map(number).collect::<Vec<f32>>(), [rows, cols]);
        Tensor::from_data(data, &Default::default())
    }

    fn projected(kind: usize, seed: usize, tokens: usize, shape: &Attention) -> Projected<Flex> {
        let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        match kind {
            0 => Projected::Separate([
                numbers(seed, tokens, q),
                numbers(seed + 1, tokens, kv),
                numbers(seed + 2, tokens, kv),
            ]),
            1 => Projected::PerHead(numbers(seed, tokens, 3 * q)),
            _ => Projected::Stacked(numbers(seed, tokens, 3 * q)),
        }
    }

    /// Burn's operations on a backend that has both.
    fn blocks(sequences: usize, capacity: usize, shape: &Attention) -> [KvBlock<Flex>; 2] {
        let host = HostRoom { sequences, capacity }.block(shape);
        [host, KvBlock { keeps: true, ..KvBlock::scratch() }]
    }

    struct HostRoom {
        sequences: usize,
        capacity: usize,
    }

    impl HostRoom {
        fn block(&self, shape: &Attention) -> KvBlock<Flex> {
            let mut architecture = super::super::architecture(&super::super::published("opt-125m").unwrap()).unwrap();
            architecture.attention = *shape;
            KvCache::new(&architecture, self.sequences, self.capacity).blocks.remove(0)
        }
    }

    fn close(a: Tensor<Flex, 2>, b: Tensor<Flex, 2>) -> bool {
        let difference = (a - b).abs().max().into_scalar();
        difference < 1e-5
    }

    #[test]
    fn the_host_and_burns_operations_agree() {
        let rotary = Rotary { dim: 4, theta: 100.0, scaling: RopeScaling::None };
        let table = RotaryTable::<Flex>::new(&rotary, 16, DType::F32, &Default::default());
        for (kind, heads, kv_heads) in [(0, 4, 2), (1, 3, 3), (2, 2, 2)] {
            for window in [None, Some(3)] {
                let shape = Attention { heads, kv_heads, head_dim: 6, window };
                for rotary in [None, Some(&table)] {
                    let [mut host, mut device] = blocks(2, 16, &shape);
                    for (past, new) in [(0, 5), (5, 1), (6, 3), (9, 1)] {
                        let spans = [Span { past, new, capacity: 16 }; 2];
                        let input = || projected(kind, past, 2 * new, &shape);
                        let a = attend(&shape, input(), &spans, rotary, &mut host);
                        let b = attend_on_device(&shape, input(), &spans, rotary, &mut device);
                        assert!(close(a, b), "{kind} {shape:?} {past} {}", rotary.is_some());
                    }
                    let spans = [3, 1, 7].map(|new| Span { past: 0, new, capacity: new });
                    let input = || projected(kind, 77, 11, &shape);
                    let [mut host, mut device] = [KvBlock::scratch(), KvBlock::scratch()];
                    let a = attend(&shape, input(), &spans, rotary, &mut host);
                    let b = attend_on_device(&shape, input(), &spans, rotary, &mut device);
                    assert!(close(a, b), "ragged {kind} {shape:?} {}", rotary.is_some());
                }
            }
        }
    }
}
