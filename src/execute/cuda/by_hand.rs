//! What a decoder does between its linears, in CUDA C++: 16-bit numbers in whole eights, on devices that those kernels are
//! right on. None where that is not so: the kernels in CubeCL (decode.rs, attention.rs) do the same. Likelihoods are made of
//! f32 and of rows of any width too; the host makes them otherwise.

use super::raw::decode::{self as raw, Attend, EIGHT};
use super::raw::flash::{self, Flash};
use super::raw::reads::{self, Making, Reads};
use super::raw::{Gpu, likely, script};
use super::{Cuda, Tensor, outputs};
use crate::execute::convert::{Later, ReadError};
use crate::execute::decode::{Activation, Likely, NormKind, Order, Target};
use crate::execute::kernels::attention::Heads;
use burn::tensor::{DType, Int, Shape, Tensor as BurnTensor, TensorData, TensorMetadata};
use cubecl::server::Handle;

/// The device, if the kernels take these tensors: without gaps, in whole eights, where loads of 16 bytes can begin.
fn gpu<'a>(dtype: DType, tensors: impl IntoIterator<Item = &'a Tensor>) -> Option<Gpu> {
    if dtype.size() != 2 {
        return None;
    }
    let mut device = None;
    for tensor in tensors {
        let offset = tensor.handle.offset_start.unwrap_or(0);
        if !tensor.is_contiguous() || !offset.is_multiple_of(16) {
            return None;
        }
        device = Some(&tensor.device);
    }
    Gpu::of(device?).filter(|gpu| raw::can(gpu, dtype))
}

fn whole(width: usize) -> bool {
    width > 0 && width.is_multiple_of(EIGHT)
}

/// Rows of a table whose rows are `stride` numbers apart; it may have gaps between them.
///
/// # Safety
/// As of [`raw::table_rows`].
pub(super) unsafe fn table_rows(
    x: Option<&Tensor>,
    table: &Tensor,
    numbers: &Tensor,
    tokens: usize,
    [stride, from, offset]: [usize; 3],
) -> Option<Tensor> {
    let width = table.meta.shape()[1];
    let begins = table.handle.offset_start.unwrap_or(0).is_multiple_of(16);
    if !whole(width) || !whole(stride) || !begins {
        return None;
    }
    let gpu = gpu(table.dtype, x.into_iter().chain([numbers]))?;
    let y = outputs::output(table, Shape::new([tokens, width]), table.dtype);
    // SAFETY: the caller's promise.
    unsafe { raw::table_rows(&gpu, x, [table, numbers, &y], [stride, from, offset]) };
    Some(y)
}

/// The sum, which is `x` where nothing is added, and its norm.
pub(super) fn norm(
    x: &Tensor,
    added: &[Tensor],
    kind: NormKind,
    gain: &Tensor,
    bias: Option<&Tensor>,
) -> Option<[Tensor; 2]> {
    let [rows, width] = x.shape().dims();
    if rows == 0 || !whole(width) || width > raw::MOST_WIDTH {
        return None;
    }
    let gpu = gpu(x.dtype, added.iter().chain([x, gain]).chain(bias))?;
    let like = || outputs::output(x, Shape::new([rows, width]), x.dtype);
    let sum = if added.is_empty() { x.clone() } else { like() };
    let normed = like();
    let (centred, eps) = match kind {
        NormKind::Layer { eps } => (true, eps),
        NormKind::Rms { eps } => (false, eps),
    };
    let (added, gain, bias) = (added.to_vec(), gain.clone(), bias.cloned());
    let making = Making::Norm { added, gain, bias, sum: sum.clone(), centred, eps };
    make(gpu, Reads { x: x.clone(), making, out: normed.clone() });
    Some([sum, normed])
}

/// `f(x)` or `f(x) · up`.
pub(super) fn gate(function: Activation, x: &Tensor, up: Option<&Tensor>) -> Option<Tensor> {
    if !whole(x.shape().num_elements()) {
        return None;
    }
    let gpu = gpu(x.dtype, up.into_iter().chain([x]))?;
    let y = outputs::output(x, x.shape(), x.dtype);
    make(gpu, Reads { x: x.clone(), making: Making::Gate { function, up: up.cloned() }, out: y.clone() });
    Some(y)
}

/// Launches it, now or with the linear that reads it.
fn make(gpu: Gpu, reads: Reads) {
    reads::later(reads, move |Reads { x, making, out }| match making {
        Making::Norm { added, gain, bias, sum, centred, eps } => {
            // SAFETY: all have the norm's width, as the decoder says.
            unsafe { raw::norm_rows(&gpu, [x, sum, out], added, [Some(gain), bias.as_ref()], *centred, *eps) };
        }
        // SAFETY: `up` has the shape of `x`.
        Making::Gate { function, up } => unsafe { raw::gate(&gpu, *function, x, up.as_ref(), out) },
    });
}

/// What the newest token of each sequence sees.
///
/// # Safety
/// As of [`raw::attend`].
pub(super) unsafe fn attend(
    shape: &Heads,
    order: Order,
    tokens: usize,
    [room, pairs]: [usize; 2],
    qkv: [&Tensor; 3],
    places: [&Tensor; 2],
    kv: [&Tensor; 2],
) -> Option<Tensor> {
    let form = form(shape, order, tokens, [room, pairs]);
    let gpu = gpu(qkv[0].dtype, qkv.into_iter().chain(places).chain(kv)).filter(|_| form.can() && tokens > 0)?;
    let out = outputs::output(qkv[0], Shape::new([tokens, form.heads * form.dim]), qkv[0].dtype);
    // SAFETY: the caller's promise; the steps are those of the order.
    unsafe { raw::attend(&gpu, form, qkv, places, kv, &out) };
    Some(out)
}

/// What many tokens see; `beside` has the places, the angles and the biases.
///
/// # Safety
/// As of [`flash::rows`].
pub(super) unsafe fn flash(form: Flash, q: &Tensor, beside: [&Tensor; 3], kv: [&Tensor; 2]) -> Option<Tensor> {
    let Attend { tokens, heads, dim, .. } = form.attend;
    let tensors = [q].into_iter().chain(beside).chain(kv);
    let gpu = gpu(q.dtype, tensors).filter(|gpu| tokens > 0 && form.can(gpu, q.dtype))?;
    let out = outputs::output(q, Shape::new([tokens, heads * dim]), q.dtype);
    // SAFETY: the caller's promise.
    unsafe { flash::rows(&gpu, form, q, beside, kv, &out) };
    Some(out)
}

/// Where queries, keys and values of an order lie, and the rest of an attention's shape.
pub(super) fn form(shape: &Heads, order: Order, tokens: usize, [room, pairs]: [usize; 2]) -> Attend {
    let Heads { heads, kv_heads, head_dim: dim, window, scale, .. } = *shape;
    let (sharing, all) = (heads / kv_heads, (heads + 2 * kv_heads) * dim);
    let steps = match order {
        Order::Separate => [[0, heads * dim, dim], [0, kv_heads * dim, dim], [0, kv_heads * dim, dim]],
        Order::PerHead => {
            let of_kv_head = (sharing + 2) * dim;
            [[0, all, dim], [sharing * dim, all, of_kv_head], [(sharing + 1) * dim, all, of_kv_head]]
        }
        Order::Stacked => [[0, all, dim], [heads * dim, all, dim], [(heads + kv_heads) * dim, all, dim]],
    };
    // Between the queries of two key-value heads lie a key and a value.
    let between = if order == Order::PerHead { 2 * dim } else { 0 };
    Attend { tokens, heads, kv_heads, dim, pairs, room, window, scale, steps, between }
}

/// The largest number of each row, as [`raw::arg_max`] finds it; false where it can't.
///
/// # Safety
/// As of [`raw::arg_max`].
pub(super) unsafe fn arg_max(rows: &Tensor, found: &Handle, places: Option<&Tensor>) -> bool {
    let [count, width] = rows.shape().dims();
    let gpu = gpu(rows.dtype, [rows]).filter(|_| count > 0 && width > 0);
    match gpu {
        Some(gpu) => {
            // SAFETY: the caller's promise.
            unsafe { raw::arg_max(&gpu, rows, found, places) };
            true
        }
        None => false,
    }
}

/// What rows of logits `[rows, width]`, without gaps, say of targets, which are in the order of their rows.
///
/// # Panics
/// When a target is outside.
pub(super) fn likely(logits: &Tensor, targets: &[Target]) -> Option<Later<Vec<Option<Likely>>>> {
    let [rows, width] = logits.shape().dims();
    let gpu = Gpu::of(&logits.device).filter(|gpu| likely::can(gpu, logits.dtype))?;
    let inside = targets.iter().all(|target| target.row < rows && (target.id as usize) < width);
    assert!(inside && targets.is_sorted_by_key(|target| target.row), "targets are inside, by row");
    if targets.is_empty() {
        return Some(Box::new(|| Ok(Vec::new())));
    }
    let numbers = TensorData::new(likely::numbers_of(targets, rows), [rows + 1 + targets.len()]);
    let numbers = BurnTensor::<Cuda, 1, Int>::from_data(numbers, (&logits.device, DType::I32)).into_primitive();
    let (client, found) = (logits.client.clone(), logits.client.empty(targets.len() * likely::FOUND));
    // SAFETY: `logits` has no gaps; the targets were just looked at, and have room.
    unsafe { likely::rows(&gpu, logits, &numbers, &found) };
    Some(Box::new(move || {
        let bytes = client.read_one(found).map_err(|error| ReadError(format!("{error:?}")))?;
        Ok(likely::read(&bytes))
    }))
}

/// Says that something was done otherwise, which a script can't have.
pub(super) fn otherwise() {
    script::leave();
}
