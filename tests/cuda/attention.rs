//! Attention on a GPU, of one token of each sequence and of many, against Burn's operations on the CPU.

use crate::decode::{DTYPES, Findings, numbers, read, tensor, tolerance};
use burn::backend::Flex;
use burn::tensor::{DType, Tensor};
use sparsify_exp::execute::decode::{Places, Projected, Span, Turns};
use sparsify_exp::execute::kernels::attention::{Alibi, Heads};
use sparsify_exp::execute::{Cuda, SparseBackend};

/// What attentions are run with.
struct Case {
    order: usize,
    shape: Heads,
    pairs: usize,
    neighbours: bool,
    positions: usize,
    /// Whether each sequence has angles of its own.
    apart: bool,
}

impl Case {
    /// What the tokens see, piece after piece of the same sequences.
    fn run<B: SparseBackend>(&self, pieces: &[Vec<Span>], dtype: DType, rounded: DType) -> Vec<f32> {
        let Heads { heads, kv_heads, head_dim, .. } = self.shape;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let sequences = pieces[0].len();
        let tables = if self.apart { sequences + 1 } else { 1 };
        let angles = numbers(7, tables * self.positions * self.pairs, DType::F32);
        // Sequences of one length are turned alike.
        let even = pieces[0].windows(2).all(|pair| pair[0] == pair[1]);
        let starts = (0..sequences).map(|sequence| if even { 1 } else { sequences - sequence } * self.positions);
        let table: Vec<f32> = angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]).collect();
        let count = table.len();
        let turns = (self.pairs > 0).then(|| Turns::<B> {
            pairs: self.pairs,
            neighbours: self.neighbours,
            table: tensor(&table, [count], DType::F32),
            starts: self.apart.then(|| starts.collect()),
        });
        let mut kept: Option<[Tensor<B, 1>; 2]> = None;
        let mut seen = Vec::new();
        for (piece, spans) in pieces.iter().enumerate() {
            let tokens: usize = spans.iter().map(|span| span.new).sum();
            let places = Places::<B>::new(&vec![0; tokens], spans.clone(), kv_heads, &Default::default());
            let part = |part: usize, width: usize| {
                tensor::<B, 2>(&numbers(10 * piece + part, tokens * width, rounded), [tokens, width], dtype)
            };
            let projected = match self.order {
                0 => Projected::Separate([part(0, q), part(1, kv), part(2, kv)]),
                1 => Projected::PerHead(part(0, q + 2 * kv)),
                _ => Projected::Stacked(part(0, q + 2 * kv)),
            };
            let room = places.capacity() * kv;
            let poison = || tensor::<B, 1>(&vec![f32::NAN; room], [room], dtype);
            let kept = kept.get_or_insert_with(|| [poison(), poison()]);
            seen.extend(read(B::attend(&self.shape, projected, &places, turns.as_ref(), kept)));
        }
        seen
    }

    fn check(&self, findings: &mut Findings, pieces: &[Vec<Span>], dtype: DType) {
        let found = self.run::<Cuda>(pieces, dtype, dtype);
        let expected = self.run::<Flex>(pieces, DType::F32, dtype);
        let what = format!("{dtype:?} order {} {:?} pairs {} {:?}", self.order, self.shape, self.pairs, pieces[0]);
        findings.compare(&what, &found, &expected, tolerance(dtype));
    }
}

/// Order, heads, key-value heads, features of a head, rotated pairs.
const SHAPES: [(usize, usize, usize, usize, usize); 13] = [
    (0, 8, 8, 128, 64),
    (0, 8, 2, 128, 64),
    (0, 4, 4, 64, 0),
    (1, 4, 4, 64, 8),
    (1, 4, 4, 80, 10),
    (0, 4, 2, 96, 48),
    (2, 3, 3, 64, 0),
    (2, 2, 2, 6, 3),
    (0, 3, 1, 7, 2),
    (1, 2, 2, 256, 32),
    (1, 6, 2, 64, 32),
    (2, 5, 1, 64, 16),
    (1, 4, 2, 6, 3),
];

/// A test of each dtype, which may run in a process of its own: most of the time is the compiler's.
fn attention_with_a_cache(dtype: DType) {
    let mut findings = Findings::new();
    for (order, heads, kv_heads, head_dim, pairs) in SHAPES {
        for window in [None, Some(5), Some(140)] {
            let shape = Heads { window, ..Heads::new(heads, kv_heads, head_dim) };
            let case = Case { order, shape, pairs, neighbours: false, positions: 200, apart: false };
            for sequences in [1, 3] {
                let pieces = [(0, 1), (1, 5), (6, 1), (7, 1), (8, 120), (128, 1), (129, 1), (130, 7), (137, 1)];
                let pieces = pieces.map(|(past, new)| vec![Span { past, new, capacity: 150 }; sequences]);
                case.check(&mut findings, &pieces, dtype);
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn attention_with_a_cache_f32() {
    attention_with_a_cache(DType::F32);
}

#[test]
#[ignore = "needs a GPU"]
fn attention_with_a_cache_f16() {
    attention_with_a_cache(DType::F16);
}

#[test]
#[ignore = "needs a GPU"]
fn attention_with_a_cache_bf16() {
    attention_with_a_cache(DType::BF16);
}

#[test]
#[ignore = "needs a GPU"]
fn attention_on_many_keys() {
    let mut findings = Findings::new();
    for dtype in DTYPES {
        for window in [None, Some(2100)] {
            let shape = Heads { window, ..Heads::new(4, 2, 64) };
            let case = Case { order: 0, shape, pairs: 32, neighbours: false, positions: 2600, apart: false };
            let pieces = [(0, 2500), (2500, 1), (2501, 1)];
            let pieces = pieces.map(|(past, new)| vec![Span { past, new, capacity: 2600 }]);
            case.check(&mut findings, &pieces, dtype);
        }
    }
}

/// Caps, linear biases and pairs of neighbours; one of each alone, since no network has two.
#[test]
#[ignore = "needs a GPU"]
fn attention_with_bent_scores() {
    let mut findings = Findings::new();
    for dtype in DTYPES {
        for (order, heads, kv_heads, head_dim, pairs) in [(0, 8, 2, 64, 32), (1, 6, 6, 64, 0), (0, 3, 1, 6, 3)] {
            let plain = Heads::new(heads, kv_heads, head_dim);
            let alibi = |alibi| Heads { alibi: Some(alibi), ..plain };
            let capped = Heads { cap: Some(2.5), ..plain };
            let all =
                [(capped, false), (alibi(Alibi::Plain), false), (alibi(Alibi::RoundedAndScaled), false), (plain, true)];
            for (shape, neighbours) in all {
                let case = Case { order, shape, pairs, neighbours, positions: 200, apart: false };
                for sequences in [1, 3] {
                    let pieces = [(0, 1), (1, 5), (6, 1), (7, 120), (127, 1), (128, 7), (135, 1)];
                    let pieces = pieces.map(|(past, new)| vec![Span { past, new, capacity: 150 }; sequences]);
                    case.check(&mut findings, &pieces, dtype);
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn attention_on_ragged_sequences() {
    let mut findings = Findings::new();
    for dtype in DTYPES {
        for (order, heads, kv_heads, head_dim, pairs) in SHAPES {
            for lengths in [vec![3, 1, 70, 20], vec![1, 1, 1], vec![33]] {
                let shape = Heads { window: Some(30), ..Heads::new(heads, kv_heads, head_dim) };
                let spans: Vec<Span> = lengths.iter().map(|&new| Span { past: 0, new, capacity: new }).collect();
                for apart in [false, true] {
                    let case = Case { order, shape, pairs, neighbours: false, positions: 80, apart };
                    case.check(&mut findings, std::slice::from_ref(&spans), dtype);
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn attention_by_angles_of_their_own() {
    let mut findings = Findings::new();
    for dtype in DTYPES {
        let shape = Heads::new(8, 2, 64);
        let case = Case { order: 0, shape, pairs: 32, neighbours: false, positions: 200, apart: true };
        let pieces = [(0, 1), (1, 5), (6, 1), (7, 120), (127, 1)];
        case.check(&mut findings, &pieces.map(|(past, new)| vec![Span { past, new, capacity: 150 }; 2]), dtype);
    }
}
