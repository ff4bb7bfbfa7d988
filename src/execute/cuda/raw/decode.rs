//! Launches of `decode.cu`: what a decoder does between its linears for one token of each sequence.
//!
//! Each is a function that makes its launch; tensors have no gaps and begin at 16 bytes, and rows are whole eights.

use super::reads::number;
use super::script;
use super::source::{Kernel, Source};
use super::stream::{Gpu, Launch, Passing};
use crate::execute::cuda::Tensor;
use crate::execute::decode::Activation;
use burn::tensor::{DType, TensorMetadata};
use cubecl::server::Handle;

/// Numbers that a thread loads at once.
pub(in crate::execute::cuda) const EIGHT: usize = 8;
/// The most threads of a block of rows.
const ROW_THREADS: usize = 512;
/// The most eights that a thread of a norm holds.
const MOST_STEPS: usize = 4;
const GATE_THREADS: usize = 256;
/// Warps of a multiprocessor, and of a token and head: all of them read its keys, a few of which each has on its way.
const ALL_WARPS: usize = 32;
const ATTEND_WARPS: [usize; 2] = [16, 8];
/// The widest head: a lane of a warp has eight numbers.
const MOST_HEAD: usize = 32 * EIGHT;
const LARGEST_THREADS: usize = 1024;

/// The widest row that a norm takes.
pub(in crate::execute::cuda) const MOST_WIDTH: usize = EIGHT * ROW_THREADS * MOST_STEPS;

fn launch(gpu: &Gpu, kernel: &Kernel, [blocks, threads, shared]: [usize; 3], buffers: &[&Handle], params: Vec<u32>) {
    let (early, map, passing) = (true, None, Passing::Apart);
    let launch = Launch { kernel, blocks, threads, shared, early, map, passing, params };
    // SAFETY: the callers' promises: every one of them waits for what came before, and stays inside its tensors.
    unsafe { gpu.launch(launch, buffers.iter().map(|&handle| handle.clone()).collect()) };
}

fn kernel(entry: &'static str, dtype: DType, more: impl IntoIterator<Item = (&'static str, u32)>) -> Kernel {
    let brain = ("BRAIN_NUMBERS", u32::from(dtype == DType::BF16));
    Kernel { source: Source::Decode, entry, macros: [brain].into_iter().chain(more).collect() }
}

/// Threads in whole warps.
fn threads(work: usize, most: usize) -> usize {
    work.next_multiple_of(32).clamp(32, most)
}

/// Whether the kernels of a source can be launched, which compiles them.
pub(in crate::execute::cuda) fn can(gpu: &Gpu, dtype: DType) -> bool {
    dtype.size() == 2 && gpu.has(&kernel("arg_max", dtype, []))
}

/// Rows of `table`, whose rows are `stride` numbers apart, by `numbers[from ..]`, added to `x` if given.
///
/// # Safety
/// The numbers with `offset` are rows of the table.
pub(in crate::execute::cuda) unsafe fn table_rows(
    gpu: &Gpu,
    x: Option<&Tensor>,
    [table, numbers, y]: [&Tensor; 3],
    [stride, from, offset]: [usize; 3],
) {
    let [tokens, width] = y.shape().dims();
    let eights = width / EIGHT;
    let params = [eights, stride / EIGHT, from, offset, usize::from(x.is_some())].map(|word| word as u32);
    let buffers = [x.unwrap_or(y), table, numbers, y].map(|tensor| &tensor.handle);
    let size = [tokens, threads(eights, ROW_THREADS), 0];
    launch(gpu, &kernel("table_rows", y.dtype, []), size, &buffers, params.into());
}

/// The sum of `x` and up to two more, and its norm. Without more, `sum` is not written.
///
/// # Safety
/// All are `[rows, width]` but gain and bias, which are `[width]`, at most [`MOST_WIDTH`].
pub(in crate::execute::cuda) unsafe fn norm_rows(
    gpu: &Gpu,
    [x, sum, normed]: [&Tensor; 3],
    added: &[Tensor],
    [gain, bias]: [Option<&Tensor>; 2],
    centred: bool,
    eps: f64,
) {
    let [rows, width] = x.shape().dims();
    let eights = width / EIGHT;
    let threads = threads(eights, ROW_THREADS);
    // Few forms, so that few kernels are compiled.
    let steps = eights.div_ceil(threads).next_power_of_two() as u32;
    let gain = gain.unwrap_or(x);
    let term = |at: usize| added.get(at).unwrap_or(x);
    let buffers = [x, term(0), term(1), gain, bias.unwrap_or(gain), sum, normed].map(|tensor| &tensor.handle);
    let flags = [eights, added.len(), usize::from(centred), usize::from(bias.is_some())];
    let params = flags.into_iter().map(|word| word as u32).chain([(eps as f32).to_bits()]).collect();
    launch(gpu, &kernel("norm_rows", x.dtype, [("STEPS", steps)]), [rows, threads, 0], &buffers, params);
}

/// `y = f(x)`, or `f(x) . up`.
///
/// # Safety
/// All have as many numbers, in whole eights.
pub(in crate::execute::cuda) unsafe fn gate(
    gpu: &Gpu,
    function: Activation,
    x: &Tensor,
    up: Option<&Tensor>,
    y: &Tensor,
) {
    let eights = y.shape().num_elements() / EIGHT;
    let buffers = [x, up.unwrap_or(x), y].map(|tensor| &tensor.handle);
    let size = [eights.div_ceil(GATE_THREADS), GATE_THREADS, 0];
    let params = vec![eights as u32, u32::from(up.is_some())];
    launch(gpu, &kernel("gate", y.dtype, [("FUNCTION", number(function))]), size, &buffers, params);
}

/// The shape of an attention, in numbers; a query, key or value lies at `from + token * token_step + head * head_step`.
#[derive(Clone, Copy, Debug)]
pub(in crate::execute::cuda) struct Attend {
    pub tokens: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    pub pairs: usize,
    /// Rows of the cache from one head to the next.
    pub room: usize,
    pub window: Option<usize>,
    /// Multiplies scores.
    pub scale: f32,
    /// Of queries, keys and values: where the first is, the step from a token's to the next one's, from head to head.
    pub steps: [[usize; 3]; 3],
    /// From the queries of a key-value head to those of the next, beside their own.
    pub between: usize,
}

impl Attend {
    pub fn can(&self) -> bool {
        self.dim.is_multiple_of(EIGHT) && (EIGHT..=MOST_HEAD).contains(&self.dim)
    }
}

/// What the newest token of each sequence sees; its key and value are kept.
///
/// # Safety
/// The shape [`Attend::can`] be taken; `q`, `k`, `v` hold what the steps say; `places` is `[3, tokens]`, positions and rows
/// inside the cache and the table of angles; `out` is `[tokens, heads * dim]`.
pub(in crate::execute::cuda) unsafe fn attend(
    gpu: &Gpu,
    shape: Attend,
    [q, k, v]: [&Tensor; 3],
    [places, angles]: [&Tensor; 2],
    [keys, values]: [&Tensor; 2],
    out: &Tensor,
) {
    let Attend { tokens, heads, kv_heads, dim, pairs, room, window, scale, steps, between } = shape;
    let group = (dim / EIGHT).next_power_of_two() as u32;
    let warps = attend_warps(tokens * heads, gpu.processors);
    let shared = 4 * (warps * (dim + 2) + 2 * dim + 2 * pairs);
    let buffers = [q, k, v, places, angles, keys, values, out].map(|tensor| &tensor.handle);
    let window = window.map_or(u32::MAX, |window| window as u32);
    let mut params: Vec<u32> = [tokens, heads, kv_heads, dim, pairs, room].map(|word| word as u32).into();
    params.extend([window, scale.to_bits()]);
    params.extend(steps.as_flattened().iter().map(|&word| word as u32));
    // What earlier tokens have left may be read before the launch waits only where their launches have ended.
    params.extend([u32::from(script::is_open()), between as u32]);
    let size = [tokens * heads, 32 * warps, shared];
    let macros = [("GROUP", group), ("ATTEND_WARPS", warps as u32)];
    launch(gpu, &kernel("attend", out.dtype, macros), size, &buffers, params);
}

/// Fewer where the blocks are more than the device runs at once.
fn attend_warps(blocks: usize, processors: usize) -> usize {
    let [many, few] = ATTEND_WARPS;
    if blocks <= processors * (ALL_WARPS / many) { many } else { few }
}

/// The place of the largest number of each row, and 1 where one is not finite, into `found` `[rows, 2]`. With `places`,
/// `[3, rows]`, these become what the tokens' are that come after.
///
/// # Safety
/// The tensors have these shapes; rows have a number at least.
pub(in crate::execute::cuda) unsafe fn arg_max(gpu: &Gpu, rows: &Tensor, found: &Handle, places: Option<&Tensor>) {
    let [count, width] = rows.shape().dims();
    let params = vec![width as u32, count as u32, u32::from(places.is_some())];
    let buffers = [&rows.handle, found, places.map_or(found, |places| &places.handle)];
    launch(gpu, &kernel("arg_max", rows.dtype, []), [count, LARGEST_THREADS, 0], &buffers, params);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_whole_eights_that_fit_a_warp() {
        let shape = |dim| Attend {
            tokens: 1,
            heads: 1,
            kv_heads: 1,
            dim,
            pairs: 0,
            room: 1,
            window: None,
            scale: 1.0,
            steps: [[0; 3]; 3],
            between: 0,
        };
        assert_eq!([8, 80, 256].map(|dim| shape(dim).can()), [true; 3]);
        assert_eq!([0, 4, 100, 264].map(|dim| shape(dim).can()), [false; 4]);
        assert_eq!([1, 32, 33, 9999].map(|work| threads(work, 512)), [32, 32, 64, 512]);
        assert_eq!([1, 264, 265, 512].map(|blocks| attend_warps(blocks, 132)), [16, 16, 8, 8]);
    }
}
