//! What the CPU backends do on slices, where chains of tensor operations would cost more than the work.
//!
//! - **Attention.** Burn's runs one thread a head, holds all scores, and would need the cache as a
//!   tensor that is copied at every token. Here new keys and values are written, rotated, into memory that
//!   is already there, and [`attention`] reads them in place.

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
    shape: &Heads,
    projected: Projected<B>,
    spans: &[Span],
    turning: Option<Turning<'_>>,
    kv: &mut HostKv,
) -> Tensor<B, 2> {
    let Heads { heads, kv_heads, head_dim, .. } = *shape;
    let tensors = Tensors::new(projected);
    let (numbers, device) = (tensors.numbers(), tensors.device());
    let [q, k, v] = match tensors.order {
        Order::Separate => {
            let view = |tensor: usize, heads: usize| View {
                numbers: &numbers[tensor],
                first: 0,
                token: heads * head_dim,
                group: 1,
                stride: head_dim,
                dim: head_dim,
            };
            [view(0, heads), view(1, kv_heads), view(2, kv_heads)]
        }
        Order::PerHead => {
            let group = heads / kv_heads;
            let stride = (group + 2) * head_dim;
            let view = |first: usize, group: usize| View {
                numbers: &numbers[0],
                first: first * head_dim,
                token: kv_heads * stride,
                group,
                stride,
                dim: head_dim,
            };
            [view(0, group), view(group, 1), view(group + 1, 1)]
        }
        Order::Stacked => [0, heads, heads + kv_heads].map(|first| View {
            numbers: &numbers[0],
            first: first * head_dim,
            token: (heads + 2 * kv_heads) * head_dim,
            group: 1,
            stride: head_dim,
            dim: head_dim,
        }),
    };
    kv.append(shape, spans, &k, &v, turning);
    let queries = queries(&q, heads, spans, turning);
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
    let attended = attention(shape, &sequences, Simd::detect());
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

/// How queries and keys are rotated: the row of a table that turns position 0 of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Turning<'a> {
    pub angles: &'a Angles,
    pub starts: Option<&'a [usize]>,
}

impl Turning<'_> {
    fn start(&self, sequence: usize) -> usize {
        self.starts.map_or(0, |starts| starts[sequence])
    }
}

/// Rows `[dim]` by token and head within a larger array.
struct View<'a> {
    numbers: &'a [f32],
    first: usize,
    /// From one token to the next.
    token: usize,
    /// Heads that lie one after the other.
    group: usize,
    /// From one such group to the next.
    stride: usize,
    dim: usize,
}

impl View<'_> {
    fn row(&self, token: usize, head: usize) -> &[f32] {
        let within = head / self.group * self.stride + head % self.group * self.dim;
        &self.numbers[self.first + token * self.token + within..][..self.dim]
    }
}

/// The queries, rotated: `[tokens, heads, head_dim]`.
fn queries<'a>(q: &View<'a>, heads: usize, spans: &[Span], turning: Option<Turning<'_>>) -> Cow<'a, [f32]> {
    let width = heads * q.dim;
    if turning.is_none() && q.token == width && q.first == 0 {
        return Cow::Borrowed(q.numbers);
    }
    let rows = spans.iter().enumerate().flat_map(|(sequence, span)| {
        let start = span.past + turning.map_or(0, |turning| turning.start(sequence));
        start..start + span.new
    });
    let rows: Vec<usize> = rows.collect();
    let mut queries = vec![0.0; rows.len() * width];
    let fill = |(token, to): (usize, &mut [f32])| {
        for (head, to) in to.chunks_exact_mut(q.dim).enumerate() {
            place(q.row(token, head), rows[token], turning, to);
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
    fn append(&mut self, shape: &Heads, spans: &[Span], k: &View<'_>, v: &View<'_>, turning: Option<Turning<'_>>) {
        let Heads { kv_heads, head_dim, .. } = *shape;
        let needed = spans.iter().map(|span| span.capacity).sum::<usize>() * kv_heads * head_dim;
        if self.keys.len() < needed {
            self.keys.resize(needed, 0.0);
            self.values.resize(needed, 0.0);
        }
        let (mut keys, mut values) = (self.keys.as_mut_slice(), self.values.as_mut_slice());
        let mut first = 0;
        for (sequence, span) in spans.iter().enumerate() {
            let start = span.past + turning.map_or(0, |turning| turning.start(sequence));
            let head_size = span.capacity * head_dim;
            let (these_keys, other_keys) = keys.split_at_mut(kv_heads * head_size);
            let (these_values, other_values) = values.split_at_mut(kv_heads * head_size);
            (keys, values) = (other_keys, other_values);
            let fill = |(head, (keys, values)): (usize, (&mut [f32], &mut [f32]))| {
                for token in 0..span.new {
                    let to = (span.past + token) * head_dim..(span.past + token + 1) * head_dim;
                    place(k.row(first + token, head), start + token, turning, &mut keys[to.clone()]);
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

fn place(from: &[f32], row: usize, turning: Option<Turning<'_>>, to: &mut [f32]) {
    match turning {
        Some(turning) => turning.angles.rotate(from, row, to),
        None => to.copy_from_slice(from),
    }
}
