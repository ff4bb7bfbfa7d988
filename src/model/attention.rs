//! Attention between the projections: queries, keys and values of a batch, and those that a cache holds.
//!
//! ```text
//!   projected ─┬─ on the host ──> host.rs: rotated into the block's memory, kernels/attention.rs
//!              └─ on a device ──> DecodeOps::attend, on the block's tensors
//! ```

use super::cache::KvBlock;
use super::host::{self, Turning};
use super::rotary::RotaryTable;
use crate::execute::SparseBackend;
use crate::execute::decode::{Places, Projected};
use crate::execute::kernels::attention::Heads;
use burn::tensor::Tensor;

/// What every token sees: `[tokens, heads * head_dim]`.
///
/// The tokens lie sequence by sequence, as `places` says; `kv` takes their keys and values.
pub(super) fn attend<B: SparseBackend>(
    shape: &Heads,
    projected: Projected<B>,
    places: &Places<B>,
    rotary: Option<&RotaryTable<B>>,
    kv: &mut KvBlock<B>,
) -> Tensor<B, 2> {
    if let Some((shared, block)) = &kv.shared {
        return shared.attend(*block, shape, &projected, rotary);
    }
    if !B::ON_HOST {
        return attend_on_device(shape, projected, places, rotary, kv);
    }
    let turning = rotary.map(|table| Turning { angles: table.angles(), starts: table.turns().starts.as_deref() });
    host::attend(shape, projected, places.spans(), turning, &mut kv.host)
}

fn attend_on_device<B: SparseBackend>(
    shape: &Heads,
    projected: Projected<B>,
    places: &Places<B>,
    rotary: Option<&RotaryTable<B>>,
    kv: &mut KvBlock<B>,
) -> Tensor<B, 2> {
    let kv = kv.device.get_or_insert_with(|| {
        let (Projected::Separate([like, ..]) | Projected::PerHead(like) | Projected::Stacked(like)) = &projected;
        let numbers = places.capacity() * shape.kv_heads * shape.head_dim;
        [0, 1].map(|_| Tensor::zeros([numbers], (&like.device(), like.dtype())))
    });
    B::attend(shape, projected, places, rotary.map(RotaryTable::turns), kv)
}

#[cfg(test)]
mod tests {
    use super::super::architecture::{Alibi, Attention, RopeScaling, Rotary};
    use super::super::cache::KvCache;
    use super::*;
    use crate::execute::decode::Span;
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    fn numbers(seed: usize, rows: usize, cols: usize) -> Tensor<Flex, 2> {
        let number = |i: usize| ((i * 37 + seed * 101) % 113) as f32 / 40.0 - 1.4;
        let data = TensorData::new((0..rows * cols).map(number).collect::<Vec<f32>>(), [rows, cols]);
        Tensor::from_data(data, &Default::default())
    }

    fn projected(kind: usize, seed: usize, tokens: usize, shape: &Heads) -> Projected<Flex> {
        let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        match kind {
            0 => Projected::Separate([
                numbers(seed, tokens, q),
                numbers(seed + 1, tokens, kv),
                numbers(seed + 2, tokens, kv),
            ]),
            1 => Projected::PerHead(numbers(seed, tokens, q + 2 * kv)),
            _ => Projected::Stacked(numbers(seed, tokens, q + 2 * kv)),
        }
    }

    fn places(spans: Vec<Span>, shape: &Heads) -> Places<Flex> {
        let tokens = spans.iter().map(|span| span.new).sum();
        Places::new(&vec![0; tokens], spans, shape.kv_heads, &Default::default())
    }

    /// Burn's operations on a backend that has both.
    fn blocks(sequences: usize, capacity: usize, shape: &Heads) -> [KvBlock<Flex>; 2] {
        let host = HostRoom { sequences, capacity }.block(shape);
        [host, KvBlock::scratch()]
    }

    struct HostRoom {
        sequences: usize,
        capacity: usize,
    }

    impl HostRoom {
        fn block(&self, shape: &Heads) -> KvBlock<Flex> {
            let mut architecture = super::super::architecture(&super::super::published("opt-125m").unwrap()).unwrap();
            architecture.attention = Attention::new(shape.heads, shape.kv_heads, shape.head_dim);
            KvCache::new(&architecture, self.sequences, self.capacity).blocks.remove(0)
        }
    }

    fn close(a: Tensor<Flex, 2>, b: Tensor<Flex, 2>) -> bool {
        let difference = (a - b).abs().max().into_scalar();
        difference < 1e-5
    }

    /// Shapes with everything that a family may have.
    fn shapes() -> Vec<(usize, Heads)> {
        let mut shapes = Vec::new();
        for (kind, heads, kv_heads) in [(0, 4, 2), (1, 3, 3), (2, 2, 2), (1, 6, 2), (1, 3, 1), (2, 4, 2)] {
            let plain = Heads::new(heads, kv_heads, 6);
            let capped = Heads { scale: 0.7, cap: Some(1.5), window: Some(3), ..plain };
            let alibi = |alibi| Heads { alibi: Some(alibi), ..plain };
            let all = [plain, Heads { window: Some(3), ..plain }, capped, alibi(Alibi::Plain)];
            shapes.extend(all.into_iter().chain([alibi(Alibi::RoundedAndScaled)]).map(|shape| (kind, shape)));
        }
        shapes
    }

    #[test]
    fn the_host_and_burns_operations_agree() {
        for scaling in [RopeScaling::None, RopeScaling::Dynamic { factor: 3.0, original: 4 }] {
            for neighbours in [false, true] {
                let rotary = Rotary { dim: 4, theta: 100.0, scaling: scaling.clone(), neighbours };
                shapes().iter().for_each(|(kind, shape)| both_agree(*kind, shape, Some(&rotary)));
            }
        }
        shapes().iter().for_each(|(kind, shape)| both_agree(*kind, shape, None));
    }

    fn both_agree(kind: usize, shape: &Heads, rotary: Option<&Rotary>) {
        let table = |lengths: &[usize]| {
            rotary.map(|rotary| RotaryTable::<Flex>::new(rotary, lengths, 16, &Default::default()).unwrap())
        };
        let [mut host, mut device] = blocks(2, 16, shape);
        for (past, new) in [(0, 5), (5, 1), (6, 3), (9, 1)] {
            let places = places(vec![Span { past, new, capacity: 16 }; 2], shape);
            let input = || projected(kind, past, 2 * new, shape);
            let table = table(&[past + new; 2]);
            let a = attend(shape, input(), &places, table.as_ref(), &mut host);
            let b = attend_on_device(shape, input(), &places, table.as_ref(), &mut device);
            assert!(close(a, b), "{kind} {shape:?} {past} {rotary:?}");
        }
        let lengths = [3, 1, 7];
        let places = places(lengths.map(|new| Span { past: 0, new, capacity: new }).to_vec(), shape);
        let input = || projected(kind, 77, 11, shape);
        let [mut host, mut device] = [KvBlock::scratch(), KvBlock::scratch()];
        let table = table(&lengths);
        let a = attend(shape, input(), &places, table.as_ref(), &mut host);
        let b = attend_on_device(shape, input(), &places, table.as_ref(), &mut device);
        assert!(close(a, b), "ragged {kind} {shape:?} {rotary:?}");
    }
}
