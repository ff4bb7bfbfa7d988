//! What the CPU backends do on slices, where chains of tensor operations would cost more than the work.
//!
//! - **Attention.** Burn's runs one thread a head, holds all scores, and would need the cache as a
//!   tensor that is copied at every token. Here new keys and values are written, rotated, into memory that
//!   is already there, and [`attention`] reads them in place.

use super::architecture::Attention;
use super::cache::HostKv;
use super::rotary::Angles;
use crate::execute::SparseBackend;
use crate::execute::decode::{Order, Projected, Span};
use crate::execute::kernels::attention::{Heads, Sequence, attention};
use crate::execute::kernels::cpu::Simd;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use std::borrow::Cow;

/// Numbers that are moved on the calling thread: about ten microseconds.
const SERIAL_BELOW: usize = 1 << 15;

/// What every token sees: `[tokens, heads * head_dim]`. See [`super::attention::attend`].
pub(super) fn attend<B: SparseBackend>(
    shape: &Attention,
    projected: Projected<B>,
    spans: &[Span],
    angles: Option<&Angles>,
    kv: &mut HostKv,
) -> Tensor<B, 2> {
    let Attention { heads, kv_heads, head_dim, window } = *shape;
    let tensors = Tensors::new(projected);
    let (numbers, device) = (tensors.numbers(), tensors.device());
    let [q, k, v] = match tensors.order {
        Order::Separate => {
            let view = |tensor: usize, heads: usize| View {
                numbers: &numbers[tensor],
                first: 0,
                token: heads * head_dim,
                head: head_dim,
                dim: head_dim,
            };
            [view(0, heads), view(1, kv_heads), view(2, kv_heads)]
        }
        order => [0, 1, 2].map(|part| View {
            numbers: &numbers[0],
            first: part * head_dim * if order == Order::Stacked { heads } else { 1 },
            token: 3 * heads * head_dim,
            head: head_dim * if order == Order::PerHead { 3 } else { 1 },
            dim: head_dim,
        }),
    };
    kv.append(shape, spans, &k, &v, angles);
    let queries = queries(&q, heads, spans, angles);
    let (mut sequences, mut first, mut start) = (Vec::with_capacity(spans.len()), 0, 0);
    for span in spans {
        let (asked, held) = (span.new * heads * head_dim, span.capacity * kv_heads * head_dim);
        sequences.push(Sequence {
            queries: &queries[first..first + asked],
            keys: &kv.keys[start..start + held],
            values: &kv.values[start..start + held],
            past: span.past,
        });
        (first, start) = (first + asked, start + held);
    }
    let attended = attention(&Heads { heads, kv_heads, head_dim, window }, &sequences, Simd::detect());
    let tokens = attended.len() / (heads * head_dim);
    Tensor::from_data(TensorData::new(attended, [tokens, heads * head_dim]), &device)
}

/// One or three tensors, held while their numbers are borrowed.
struct Tensors<B: SparseBackend> {
    order: Order,
    tensors: Vec<FloatTensor<B>>,
}

impl<B: SparseBackend> Tensors<B> {
    fn new(projected: Projected<B>) -> Self {
        let (order, tensors) = match projected {
            Projected::Separate(tensors) => (Order::Separate, tensors.into()),
            Projected::PerHead(tensor) => (Order::PerHead, vec![tensor]),
            Projected::Stacked(tensor) => (Order::Stacked, vec![tensor]),
        };
        Self { order, tensors: tensors.into_iter().map(|t: Tensor<B, 2>| t.into_primitive().tensor()).collect() }
    }

    fn numbers(&self) -> Vec<Cow<'_, [f32]>> {
        let numbers = |tensor| B::host_f32(tensor).expect("only tensors in host memory are attended here");
        self.tensors.iter().map(numbers).collect()
    }

    fn device(&self) -> B::Device {
        B::float_device(&self.tensors[0])
    }
}

/// Rows `[dim]` by token and head within a larger array.
struct View<'a> {
    numbers: &'a [f32],
    first: usize,
    /// From one token to the next.
    token: usize,
    /// From one head to the next.
    head: usize,
    dim: usize,
}

impl View<'_> {
    fn row(&self, token: usize, head: usize) -> &[f32] {
        &self.numbers[self.first + token * self.token + head * self.head..][..self.dim]
    }
}

/// The queries, rotated: `[tokens, heads, head_dim]`.
fn queries<'a>(q: &View<'a>, heads: usize, spans: &[Span], angles: Option<&Angles>) -> Cow<'a, [f32]> {
    let width = heads * q.dim;
    if angles.is_none() && q.token == width && q.first == 0 {
        return Cow::Borrowed(q.numbers);
    }
    let positions: Vec<usize> = spans.iter().flat_map(|span| span.past..span.past + span.new).collect();
    let mut queries = vec![0.0; positions.len() * width];
    let fill = |(token, to): (usize, &mut [f32])| {
        for (head, to) in to.chunks_exact_mut(q.dim).enumerate() {
            place(q.row(token, head), positions[token], angles, to);
        }
    };
    match queries.len() < SERIAL_BELOW {
        true => queries.chunks_exact_mut(width).enumerate().for_each(fill),
        false => queries.par_chunks_exact_mut(width).enumerate().for_each(fill),
    }
    Cow::Owned(queries)
}

impl HostKv {
    /// Writes the keys, rotated, and the values of new tokens after those of each sequence.
    fn append(&mut self, shape: &Attention, spans: &[Span], k: &View<'_>, v: &View<'_>, angles: Option<&Angles>) {
        let Attention { kv_heads, head_dim, .. } = *shape;
        let needed = spans.iter().map(|span| span.capacity).sum::<usize>() * kv_heads * head_dim;
        if self.keys.len() < needed {
            self.keys.resize(needed, 0.0);
            self.values.resize(needed, 0.0);
        }
        let (mut keys, mut values) = (self.keys.as_mut_slice(), self.values.as_mut_slice());
        let mut first = 0;
        for span in spans {
            let head_size = span.capacity * head_dim;
            let (these_keys, other_keys) = keys.split_at_mut(kv_heads * head_size);
            let (these_values, other_values) = values.split_at_mut(kv_heads * head_size);
            (keys, values) = (other_keys, other_values);
            let fill = |(head, (keys, values)): (usize, (&mut [f32], &mut [f32]))| {
                for token in 0..span.new {
                    let to = (span.past + token) * head_dim..(span.past + token + 1) * head_dim;
                    place(k.row(first + token, head), span.past + token, angles, &mut keys[to.clone()]);
                    values[to].copy_from_slice(v.row(first + token, head));
                }
            };
            if span.new * kv_heads * head_dim < SERIAL_BELOW {
                let heads = these_keys.chunks_exact_mut(head_size).zip(these_values.chunks_exact_mut(head_size));
                heads.enumerate().for_each(fill);
            } else {
                let heads = these_keys.par_chunks_exact_mut(head_size);
                heads.zip(these_values.par_chunks_exact_mut(head_size)).enumerate().for_each(fill);
            }
            first += span.new;
        }
    }
}

fn place(from: &[f32], position: usize, angles: Option<&Angles>, to: &mut [f32]) {
    match angles {
        Some(angles) => angles.rotate(from, position, to),
        None => to.copy_from_slice(from),
    }
}
