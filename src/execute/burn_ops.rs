//! What a decoder does between its linears, in Burn's operations: the reference, on any backend.

use super::convert::{Later, ReadError, host_numbers};
use super::decode::{Activation, Column, Likely, Norm, NormKind, Places, Projected, Span, Target, Turns};
use super::kernels::attention::Heads;
use super::kernels::softmax::{log_sum_exp_below, max};
use burn::tensor::backend::Backend;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Tensor, TensorData, activation};
use rayon::prelude::*;

pub(super) fn table_rows<B: Backend>(
    x: Option<Tensor<B, 2>>,
    table: &Tensor<B, 2>,
    places: &Places<B>,
    column: Column,
    offset: usize,
) -> Tensor<B, 2> {
    let numbers = places.numbers().clone().narrow(0, places.column(column), places.tokens());
    let rows = table.clone().select(0, numbers + offset as i32);
    match x {
        Some(x) => x + rows,
        None => rows,
    }
}

pub(super) fn norm<B: Backend>(
    x: Tensor<B, 2>,
    added: Vec<Tensor<B, 2>>,
    Norm { kind, gain, bias }: Norm<'_, B>,
) -> [Tensor<B, 2>; 2] {
    let sum = added.into_iter().fold(x, |sum, added| sum + added);
    let dtype = sum.dtype();
    let x = sum.clone();
    // Squares of 16-bit numbers overflow; the references compute norms in f32 too.
    let x = if dtype == DType::F32 { x } else { x.cast(DType::F32) };
    let normed = match kind {
        NormKind::Layer { eps } => {
            let centred = x.clone() - x.mean_dim(1);
            let variance = centred.clone().square().mean_dim(1);
            centred / (variance + eps).sqrt()
        }
        NormKind::Rms { eps } => x.clone() / (x.square().mean_dim(1) + eps).sqrt(),
    };
    let normed = if dtype == DType::F32 { normed } else { normed.cast(dtype) };
    let scaled = normed * gain.clone().unsqueeze();
    let normed = match bias {
        Some(bias) => scaled + bias.clone().unsqueeze(),
        None => scaled,
    };
    [sum, normed]
}

pub(super) fn activate<B: Backend>(function: Activation, x: Tensor<B, 2>) -> Tensor<B, 2> {
    match function {
        Activation::Relu => activation::relu(x),
        Activation::Gelu => activation::gelu(x),
        // Hendrycks and Gimpel, arXiv 1606.08415, section 2.
        Activation::GeluTanh => {
            let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
            x * 0.5 * (inner.tanh() + 1.0)
        }
        Activation::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
        Activation::Silu => activation::silu(x),
    }
}

pub(super) fn arg_max<B: Backend>(rows: Tensor<B, 2>) -> Result<Vec<Option<u32>>, String> {
    let width = rows.dims()[1];
    let numbers = host_numbers(rows).map_err(|ReadError(reason)| reason)?;
    Ok(numbers.chunks(width).map(first_largest).collect())
}

/// The first of the largest numbers; none where one is NaN or infinite.
fn first_largest(numbers: &[f32]) -> Option<u32> {
    // Without a way out of the loop, which would keep it from becoming vector code.
    if !numbers.iter().fold(true, |finite, number| finite & number.is_finite()) {
        return None;
    }
    let most = max(numbers);
    numbers.iter().position(|&number| number == most).map(|place| place as u32)
}

pub(super) fn likely<B: Backend>(logits: Tensor<B, 2>, targets: &[Target]) -> Later<Vec<Option<Likely>>> {
    let width = logits.dims()[1];
    let of_rows = |numbers: Vec<f32>| {
        let rows: Vec<&[Target]> = targets.chunk_by(|a, b| a.row == b.row).collect();
        let of_row = |targets: &&[Target]| {
            let row = &numbers[targets[0].row * width..][..width];
            let best = first_largest(row).map(|best| (best, log_sum_exp_below(row, row[best as usize])));
            let of_target = |target: &Target| {
                let (best, norm) = best?;
                Some(Likely { log: f64::from(row[target.id as usize]) - norm, first: best == target.id })
            };
            targets.iter().map(of_target).collect::<Vec<_>>()
        };
        rows.par_iter().flat_map_iter(of_row).collect()
    };
    let found = host_numbers(logits).map(of_rows);
    Box::new(|| found)
}

pub(super) fn attend<B: Backend>(
    shape: &Heads,
    projected: Projected<B>,
    places: &Places<B>,
    turns: Option<&Turns<B>>,
    kv: &mut [Tensor<B, 1>; 2],
) -> Tensor<B, 2> {
    let qkv = split(shape, projected);
    let spans = places.spans();
    let attended = if places.is_even() {
        // Sequences of one length are turned alike.
        attend_even(shape, qkv, spans[0], spans.len(), turns.map(|turns| (turns, turns.start(0))), Some(kv))
    } else {
        // Sequences that go on each by itself are for devices with kernels of their own.
        assert!(spans.iter().all(|span| span.past == 0 && span.new == span.capacity), "a pass that nothing follows");
        let mut parts = Vec::with_capacity(spans.len());
        let mut start = 0;
        for (sequence, &span) in spans.iter().enumerate() {
            let rows = qkv.each_ref().map(|t| t.clone().narrow(0, start, span.new));
            let turns = turns.map(|turns| (turns, turns.start(sequence)));
            parts.push(attend_even(shape, rows, span, 1, turns, None));
            start += span.new;
        }
        Tensor::cat(parts, 0)
    };
    attended.reshape([places.tokens(), shape.heads * shape.head_dim])
}

/// Queries, keys and values, each `[tokens, heads, head_dim]`.
fn split<B: Backend>(shape: &Heads, projected: Projected<B>) -> [Tensor<B, 3>; 3] {
    let Heads { heads, kv_heads, head_dim, .. } = *shape;
    match projected {
        Projected::Separate([q, k, v]) => {
            let tokens = q.dims()[0];
            let by_head = |t: Tensor<B, 2>, heads: usize| t.reshape([tokens, heads, head_dim]);
            [by_head(q, heads), by_head(k, kv_heads), by_head(v, kv_heads)]
        }
        Projected::PerHead(all) => {
            let (tokens, group) = (all.dims()[0], heads / kv_heads);
            let all = all.reshape([tokens, kv_heads, group + 2, head_dim]);
            [(0, group), (group, 1), (group + 1, 1)].map(|(first, count)| {
                let part = all.clone().narrow(2, first, count);
                part.reshape([tokens, kv_heads * count, head_dim])
            })
        }
        Projected::Stacked(all) => {
            let tokens = all.dims()[0];
            let all = all.reshape([tokens, heads + 2 * kv_heads, head_dim]);
            let parts = [(0, heads), (heads, kv_heads), (heads + kv_heads, kv_heads)];
            parts.map(|(first, count)| all.clone().narrow(1, first, count))
        }
    }
}

/// Attention within `sequences` sequences of one span; all are `[tokens, heads, head_dim]`.
fn attend_even<B: Backend>(
    shape: &Heads,
    [q, k, v]: [Tensor<B, 3>; 3],
    span: Span,
    sequences: usize,
    turns: Option<(&Turns<B>, usize)>,
    kv: Option<&mut [Tensor<B, 1>; 2]>,
) -> Tensor<B, 3> {
    let Heads { heads, kv_heads, head_dim, window, .. } = *shape;
    let by_head = |t: Tensor<B, 3>, heads: usize| t.reshape([sequences, span.new, heads, head_dim]).swap_dims(1, 2);
    let (mut q, mut k, mut v) = (by_head(q, heads), by_head(k, kv_heads), by_head(v, kv_heads));
    if let Some((turns, start)) = turns {
        (q, k) = (rotate(q, turns, start + span.past), rotate(k, turns, start + span.past));
    }
    let keys = span.past + span.new;
    if let Some([kept_keys, kept_values]) = kv {
        let keep = |kept: &mut Tensor<B, 1>, new: Tensor<B, 4>| {
            let all = kept.clone().reshape([sequences, kv_heads, span.capacity, head_dim]);
            let all = all.slice_assign([0..sequences, 0..kv_heads, span.past..keys, 0..head_dim], new);
            *kept = all.clone().reshape([sequences * kv_heads * span.capacity * head_dim]);
            all.narrow(2, 0, keys)
        };
        (k, v) = (keep(kept_keys, k), keep(kept_values, v));
    }
    // Without a past, Burn's own causal mask does.
    let causal = span.past == 0;
    let masked = window.is_some_and(|window| keys > window) || (!causal && span.new > 1);
    let device = q.device();
    let mask = masked.then(|| mask::<B>(span.new, span.past, window, &device));
    attention_by_head(shape, [q, k, v], mask, causal).swap_dims(1, 2).reshape([sequences * span.new, heads, head_dim])
}

/// Rotates `x` `[sequences, heads, length, head_dim]`, whose first token is turned by row `start` of the table.
fn rotate<B: Backend>(x: Tensor<B, 4>, turns: &Turns<B>, start: usize) -> Tensor<B, 4> {
    let [_, _, length, head_dim] = x.dims();
    let pairs = turns.pairs;
    let dim = 2 * pairs;
    if turns.neighbours {
        return rotate_neighbours(x, turns, start);
    }
    let part = |from: usize, length: usize| x.clone().narrow(3, from, length);
    let turned = Tensor::cat(vec![part(pairs, pairs).neg(), part(0, pairs)], 3);
    let turns = turns.table.clone().narrow(0, start * dim, length * dim).cast(x.dtype());
    let turns: Tensor<B, 5> = turns.reshape([1, 1, length, pairs, 2]);
    let twice = |which: usize| {
        let half: Tensor<B, 4> = turns.clone().narrow(4, which, 1).reshape([1, 1, length, pairs]);
        Tensor::cat(vec![half.clone(), half], 3)
    };
    let rotated = part(0, dim) * twice(0) + turned * twice(1);
    if dim == head_dim { rotated } else { Tensor::cat(vec![rotated, part(dim, head_dim - dim)], 3) }
}

/// [`rotate`] of features `2 i` and `2 i + 1`: put in the order of halves, rotated, and put back.
fn rotate_neighbours<B: Backend>(x: Tensor<B, 4>, turns: &Turns<B>, start: usize) -> Tensor<B, 4> {
    let [sequences, heads, length, head_dim] = x.dims();
    let (pairs, dim) = (turns.pairs, 2 * turns.pairs);
    let order = |x: Tensor<B, 4>, inner: [usize; 2]| {
        let x: Tensor<B, 5> = x.reshape([sequences, heads, length, inner[0], inner[1]]);
        x.swap_dims(3, 4).reshape([sequences, heads, length, dim])
    };
    let halves = Turns { neighbours: false, ..turns.clone() };
    let rotated = rotate(order(x.clone().narrow(3, 0, dim), [pairs, 2]), &halves, start);
    let rotated = order(rotated, [2, pairs]);
    if dim == head_dim { rotated } else { Tensor::cat(vec![rotated, x.narrow(3, dim, head_dim - dim)], 3) }
}

/// True where a key comes after its query or is too far back to be seen: `[1, 1, new, past + new]`.
fn mask<B: Backend>(new: usize, past: usize, window: Option<usize>, device: &B::Device) -> Tensor<B, 4, Bool> {
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
fn attention_by_head<B: Backend>(
    shape: &Heads,
    [q, k, v]: [Tensor<B, 4>; 3],
    mask: Option<Tensor<B, 4, Bool>>,
    causal: bool,
) -> Tensor<B, 4> {
    let [sequences, heads, new, _] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let mask = mask.map(|mask| mask.expand([sequences, heads, new, keys]));
    let group = heads / kv_heads;
    let scale = (*shape != Heads { window: shape.window, ..Heads::new(shape.heads, shape.kv_heads, shape.head_dim) })
        .then_some(f64::from(shape.scale));
    let options = AttentionModuleOptions { scale, softcap: shape.cap.map(f64::from), is_causal: causal };
    let bias = shape.alibi.map(|_| {
        let data = TensorData::new(shape.key_bias(keys), [1, heads, 1, keys]);
        let bias: Tensor<B, 4> = Tensor::from_data(data, (&q.device(), DType::F32));
        bias.cast(q.dtype()).expand([sequences, heads, new, keys])
    });
    attention(q, spread(k, group), spread(v, group), mask, bias, options)
}

/// Repeats each key or value head `[sequences, kv_heads, length, head_dim]` for its group of query heads.
fn spread<B: Backend>(t: Tensor<B, 4>, group: usize) -> Tensor<B, 4> {
    let [sequences, kv_heads, length, head_dim] = t.dims();
    if group == 1 {
        return t;
    }
    let t: Tensor<B, 5> = t.reshape([sequences, kv_heads, 1, length, head_dim]);
    t.expand([sequences, kv_heads, group, length, head_dim]).reshape([sequences, kv_heads * group, length, head_dim])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    #[test]
    fn of_equal_numbers_the_first_is_the_largest() {
        assert_eq!(first_largest(&[1.0, 3.0, 3.0, 2.0]), Some(1));
        assert_eq!((first_largest(&[1.0, f32::NAN]), first_largest(&[f32::INFINITY])), (None, None));
    }

    #[test]
    fn targets_are_answered_in_their_order_and_rows_without_any_are_not_looked_at() {
        let third = 3.0f32.ln();
        let rows = [[0.0, third], [f32::NAN, 0.0], [0.0, f32::NEG_INFINITY], [5.0, 5.0]];
        let data = TensorData::new(rows.concat(), [4, 2]);
        let targets = [(0, 1), (0, 0), (2, 0), (3, 1), (3, 0)].map(|(row, id)| Target { row, id });
        let found = likely(Tensor::<Flex, 2>::from_data(data, &Default::default()), &targets)().unwrap();
        let expected = [Some((0.75f64, true)), Some((0.25, false)), None, Some((0.5, false)), Some((0.5, true))];
        for (found, expected) in found.iter().zip(expected) {
            let found = found.map(|found| (found.log.exp(), found.first));
            match (found, expected) {
                (Some(a), Some(b)) => assert!((a.0 - b.0).abs() < 1e-6 && a.1 == b.1, "{a:?} {b:?}"),
                (found, expected) => assert_eq!(found, expected),
            }
        }
        assert_eq!(found.len(), expected.len());
    }
}
