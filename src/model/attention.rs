//! Attention between the projections: queries, keys and values of a batch, and those that a cache holds.
//!
//! ```text
//!   projected ─┬─ on the host ──> host.rs: rotated into the block's memory, kernels/attention.rs
//!              └─ on a device ──> DecodeOps::attend, on the block's tensors
//! ```

use super::architecture::Attention;
use super::cache::KvBlock;
use super::host;
use super::rotary::RotaryTable;
use crate::execute::SparseBackend;
use crate::execute::decode::{Places, Projected};
use crate::execute::kernels::attention::Heads;
use burn::tensor::Tensor;

/// What every token sees: `[tokens, heads * head_dim]`.
///
/// The tokens lie sequence by sequence, as `places` says; `kv` takes their keys and values.
pub(super) fn attend<B: SparseBackend>(
    shape: &Attention,
    projected: Projected<B>,
    places: &Places<B>,
    rotary: Option<&RotaryTable<B>>,
    kv: &mut KvBlock<B>,
) -> Tensor<B, 2> {
    if let Some((shared, block)) = &kv.shared {
        return shared.attend(*block, shape, &projected, rotary);
    }
    match B::ON_HOST {
        true => host::attend(shape, projected, places.spans(), rotary.map(RotaryTable::angles), &mut kv.host),
        false => attend_on_device(shape, projected, places, rotary, kv),
    }
}

fn attend_on_device<B: SparseBackend>(
    shape: &Attention,
    projected: Projected<B>,
    places: &Places<B>,
    rotary: Option<&RotaryTable<B>>,
    kv: &mut KvBlock<B>,
) -> Tensor<B, 2> {
    let Attention { heads, kv_heads, head_dim, window } = *shape;
    let kv = kv.device.get_or_insert_with(|| {
        let (Projected::Separate([like, ..]) | Projected::PerHead(like) | Projected::Stacked(like)) = &projected;
        let numbers = places.capacity() * kv_heads * head_dim;
        [0, 1].map(|_| Tensor::zeros([numbers], (&like.device(), like.dtype())))
    });
    let shape = Heads { heads, kv_heads, head_dim, window };
    B::attend(&shape, projected, places, rotary.map(RotaryTable::turns), kv)
}

#[cfg(test)]
mod tests {
    use super::super::architecture::{RopeScaling, Rotary};
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

    fn places(spans: Vec<Span>, shape: &Attention) -> Places<Flex> {
        let tokens = spans.iter().map(|span| span.new).sum();
        Places::new(&vec![0; tokens], spans, shape.kv_heads, &Default::default())
    }

    /// Burn's operations on a backend that has both.
    fn blocks(sequences: usize, capacity: usize, shape: &Attention) -> [KvBlock<Flex>; 2] {
        let host = HostRoom { sequences, capacity }.block(shape);
        [host, KvBlock::scratch()]
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
        let table = RotaryTable::<Flex>::new(&rotary, 16, &Default::default()).unwrap();
        for (kind, heads, kv_heads) in [(0, 4, 2), (1, 3, 3), (2, 2, 2)] {
            for window in [None, Some(3)] {
                let shape = Attention { heads, kv_heads, head_dim: 6, window };
                for rotary in [None, Some(&table)] {
                    let [mut host, mut device] = blocks(2, 16, &shape);
                    for (past, new) in [(0, 5), (5, 1), (6, 3), (9, 1)] {
                        let places = places(vec![Span { past, new, capacity: 16 }; 2], &shape);
                        let input = || projected(kind, past, 2 * new, &shape);
                        let a = attend(&shape, input(), &places, rotary, &mut host);
                        let b = attend_on_device(&shape, input(), &places, rotary, &mut device);
                        assert!(close(a, b), "{kind} {shape:?} {past} {}", rotary.is_some());
                    }
                    let spans = [3, 1, 7].map(|new| Span { past: 0, new, capacity: new });
                    let places = places(spans.to_vec(), &shape);
                    let input = || projected(kind, 77, 11, &shape);
                    let [mut host, mut device] = [KvBlock::scratch(), KvBlock::scratch()];
                    let a = attend(&shape, input(), &places, rotary, &mut host);
                    let b = attend_on_device(&shape, input(), &places, rotary, &mut device);
                    assert!(close(a, b), "ragged {kind} {shape:?} {}", rotary.is_some());
                }
            }
        }
    }
}
