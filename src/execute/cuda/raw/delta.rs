//! Launches of `delta.cu`: one to four tokens by delta-4 CSR, and the dense matrix again.

use super::reads::{self, Reads};
use super::script;
use super::source::{Kernel, Source};
use super::stream::{Gpu, Launch, Passing};
use crate::execute::cuda::Tensor;
use crate::sparse::DeltaCut;
use burn::tensor::{DType, TensorMetadata};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The most tokens that are multiplied at once.
pub(in crate::execute::cuda) const MOST_TOKENS: usize = 4;

/// A matrix on the device; see [`crate::sparse::Delta`].
#[derive(Clone, Debug)]
pub(in crate::execute::cuda) struct DeltaArrays {
    pub cut: DeltaCut,
    pub values: Tensor,
    pub gaps: Tensor,
    pub heads: Tensor,
    pub bounds: Tensor,
    /// Whether a launch has come after the one that wrote the arrays: later ones may read them before they wait.
    pub settled: Arc<AtomicBool>,
}

/// Blocks that a multiprocessor runs at once.
const AT_ONCE: usize = 2;

/// Whether matrices of this many columns can be multiplied, which compiles the kernel for one token.
pub(in crate::execute::cuda) fn can(gpu: &Gpu, cols: usize, dtype: DType) -> bool {
    let most = DeltaCut { blocks: 1, block_rows: 1024, groups: 62, threads: 512 };
    shared(cols, MOST_TOKENS, most) <= gpu.shared && gpu.has(&kernel("delta_rows", 1, dtype, None))
}

/// The most matrices of a launch.
pub(in crate::execute::cuda) const MOST_PARTS: usize = 3;

/// A matrix, its bias and where its outputs go.
#[derive(Clone, Copy)]
pub(in crate::execute::cuda) struct Part<'a> {
    pub weight: &'a DeltaArrays,
    pub bias: Option<&'a Tensor>,
    pub y: &'a Tensor,
}

/// Whether matrices of so many columns can be multiplied at once.
pub(in crate::execute::cuda) fn fit(gpu: &Gpu, cuts: &[DeltaCut], cols: usize, tokens: usize) -> bool {
    (1..=MOST_PARTS).contains(&cuts.len()) && shared(cols, tokens.next_power_of_two(), together(cuts)) <= gpu.shared
}

/// `y [tokens, rows] = x . weight^T + bias`, of each part.
///
/// # Safety
/// The parts [`fit`]; the arrays are each a [`crate::sparse::Delta`] of `[rows, cols]`; `x` is `[tokens, cols]` without
/// gaps, `y` `[tokens, rows]`, `bias` `[rows]`, all of the same 16-bit type; all parts have a bias or none; there are 1 to
/// [`MOST_TOKENS`] tokens.
pub(in crate::execute::cuda) unsafe fn rows(gpu: &Gpu, x: &Tensor, parts: &[Part<'_>]) {
    let [tokens, cols] = x.shape().dims();
    let cuts: Vec<DeltaCut> = parts.iter().map(|part| part.weight.cut).collect();
    let (all, width) = (together(&cuts), tokens.next_power_of_two());
    // Written by what came before: only a launch that waited for that may be followed by one that reads at once.
    let settled = parts.iter().filter(|part| part.weight.settled.swap(true, Ordering::Relaxed)).count();
    let early = settled == parts.len() || script::is_open();
    let aligned = cols.is_multiple_of(8) && x.handle.offset_start.unwrap_or(0).is_multiple_of(16);
    let made = reads::taken(gpu, x, |gpu, reads| aligned && gpu.has(&kernel("delta_rows", 1, x.dtype, Some(reads))));
    let [bias, aligned] = [parts[0].bias.is_some(), aligned].map(usize::from);
    let mut params = vec![cols, tokens, slack(all), bias, aligned, all.blocks];
    let of = |number: &dyn Fn(usize) -> usize| {
        (0..MOST_PARTS).map(|at| if at < parts.len() { number(at) } else { 0 }).collect::<Vec<_>>()
    };
    params.extend((0..MOST_PARTS).map(|at| cuts.iter().take(at).map(|cut| cut.blocks).sum::<usize>()));
    params.extend(of(&|at| parts[at].y.shape()[1]));
    params.extend(of(&|at| cuts[at].block_rows));
    params.extend(of(&|at| cuts[at].groups));
    params.extend(of(&|at| cuts[at].threads));
    let mut params: Vec<u32> = params.into_iter().map(|word| word as u32).collect();
    params.extend(made.as_ref().map_or(reads::AS_THEY_ARE, |reads| reads.params()));
    let read = made.as_ref().map_or(x, |reads| &reads.x);
    let making = made.as_ref().map_or([x; reads::BUFFERS], |reads| reads.buffers());
    let buffer = |at: usize| {
        let Part { weight, bias, y } = parts[at.min(parts.len() - 1)];
        [&weight.values, &weight.gaps, &weight.heads, &weight.bounds, bias.unwrap_or(x), y]
    };
    let buffers = [read].into_iter().chain((0..MOST_PARTS).flat_map(buffer)).chain(making);
    let launch = Launch {
        kernel: &kernel("delta_rows", width, x.dtype, made.as_deref()),
        blocks: all.blocks.min(AT_ONCE * gpu.processors),
        threads: all.threads,
        shared: shared(cols, width, all),
        early,
        map: None,
        passing: Passing::Together,
        params,
    };
    // SAFETY: the caller's promise, of which the parameters say the same; there is shared memory for the inputs, the
    // zeros after them that chunks are filled up with, the chunks' sums and the rows' bounds.
    unsafe { gpu.launch(launch, buffers.map(|tensor| tensor.handle.clone()).collect()) };
}

/// What a block of any of the matrices needs.
fn together(cuts: &[DeltaCut]) -> DeltaCut {
    let most = |number: fn(&DeltaCut) -> usize| cuts.iter().map(number).max().unwrap_or(0);
    DeltaCut {
        blocks: cuts.iter().map(|cut| cut.blocks).sum(),
        block_rows: most(|cut| cut.block_rows),
        groups: most(|cut| cut.groups),
        threads: most(|cut| cut.threads),
    }
}

/// The dense matrix `[rows, width]`, zeros after the last column.
///
/// # Safety
/// The arrays are a [`crate::sparse::Delta`] of as many rows and at most as many columns as `dense` has without gaps, of
/// the same 16-bit type; the width is a multiple of 8.
pub(in crate::execute::cuda) unsafe fn expand(gpu: &Gpu, weight: &DeltaArrays, dense: &Tensor) {
    let ([rows, width], cut) = (dense.shape().dims(), weight.cut);
    let panel = panel(cut, width, gpu.shared);
    let params = [rows, width, cut.block_rows, cut.groups, panel].map(|word| word as u32);
    let launch = Launch {
        kernel: &kernel("delta_expand", 1, dense.dtype, None),
        blocks: cut.blocks,
        threads: cut.threads,
        shared: 2 * (cut.block_rows * panel + cut.block_rows + 1),
        early: false,
        map: None,
        passing: Passing::Apart,
        params: params.into(),
    };
    // SAFETY: the caller's promise; a block writes its own rows, as many as there are, and there is shared memory for
    // `panel` columns of them.
    unsafe { gpu.launch(launch, buffers(weight, [dense])) };
}

/// Columns that a block expands at a time: as many as its shared memory has room for, in whole eights.
fn panel(cut: DeltaCut, width: usize, shared: usize) -> usize {
    let room = shared.saturating_sub(2 * (cut.block_rows + 1)) / (2 * cut.block_rows) / 8 * 8;
    // As many each time.
    width.div_ceil(width.div_ceil(room.max(8)).max(1)).next_multiple_of(8)
}

fn buffers<const N: usize>(weight: &DeltaArrays, others: [&Tensor; N]) -> Vec<cubecl::server::Handle> {
    let arrays = [&weight.values, &weight.gaps, &weight.heads, &weight.bounds];
    arrays.into_iter().chain(others).map(|tensor| tensor.handle.clone()).collect()
}

fn kernel(entry: &'static str, tokens: usize, dtype: DType, reads: Option<&Reads>) -> Kernel {
    let mut macros = vec![("TOKENS", tokens as u32), ("BRAIN_NUMBERS", u32::from(dtype == DType::BF16))];
    macros.extend(reads.map(Reads::macros).unwrap_or_default());
    Kernel { source: Source::Delta, entry, macros }
}

/// Columns of zeros after the last.
fn slack(cut: DeltaCut) -> usize {
    8 * cut.groups + 16
}

/// Bytes of a block of `delta_rows`: inputs, of one token widened, sums, bounds.
fn shared(cols: usize, tokens: usize, cut: DeltaCut) -> usize {
    let unit = if tokens == 1 { 4 } else { 2 * tokens };
    let inputs = (unit * (cols + slack(cut))).next_multiple_of(16);
    inputs + 8 * tokens * cut.threads + 4 * cut.block_rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_expanded_in_even_parts() {
        let cut = |block_rows| DeltaCut { blocks: 1, block_rows, groups: 1, threads: 32 };
        let shared = 227 << 10;
        for (rows, width, expected) in [(42, 4096, 2048), (16, 11008, 5504), (1, 64, 64), (486, 4096, 232)] {
            let panel = panel(cut(rows), width, shared);
            assert_eq!(panel, expected);
            assert!(2 * (rows * panel + rows + 1) <= shared);
        }
    }

    #[test]
    fn two_blocks_of_the_usual_layers_fit_a_multiprocessor() {
        let cut = DeltaCut { blocks: 263, block_rows: 42, groups: 22, threads: 512 };
        assert!(2 * shared(4096, 4, cut) < 227 << 10 && 2 * shared(14336, 1, cut) < 227 << 10);
        assert!(shared(11008, 4, cut) < 227 << 10);
    }
}
