//! Launches of `delta.cu`: one to four tokens by delta-4 CSR, and the dense matrix again.

use super::source::{Kernel, Source};
use super::stream::{Gpu, Launch};
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

/// Numbers of the struct `DeltaParams`.
struct Params {
    rows: usize,
    cols: usize,
    tokens: usize,
    slack: usize,
    bias: bool,
    early: bool,
    aligned: bool,
}

impl Params {
    fn words(self, cut: DeltaCut) -> Vec<u32> {
        let counts = [self.rows, self.cols, self.tokens, cut.block_rows, cut.groups, self.slack];
        let flags = [self.bias, self.early, self.aligned, false];
        counts.into_iter().map(|count| count as u32).chain(flags.map(u32::from)).collect()
    }
}

/// Whether matrices of this many columns can be multiplied, which compiles the kernel for one token.
pub(in crate::execute::cuda) fn can(gpu: &Gpu, cols: usize, dtype: DType) -> bool {
    let most = DeltaCut { blocks: 1, block_rows: 1024, groups: 62, threads: 768 };
    shared(cols, MOST_TOKENS, most) <= gpu.shared && gpu.has(&kernel("delta_rows", 1, dtype))
}

/// `y [tokens, rows] = x . weight^T + bias`.
///
/// # Safety
/// The arrays are a [`crate::sparse::Delta`] of `[rows, cols]`; `x` is `[tokens, cols]` without gaps, `y`
/// `[tokens, rows]`, `bias` `[rows]`, all of the same 16-bit type; there are 1 to [`MOST_TOKENS`] tokens.
pub(in crate::execute::cuda) unsafe fn rows(
    gpu: &Gpu,
    weight: &DeltaArrays,
    x: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
) {
    let ([tokens, cols], rows) = (x.shape().dims(), y.shape()[1]);
    let (cut, width) = (weight.cut, tokens.next_power_of_two());
    // Written by what came before: only a launch that waited for that may be followed by one that reads at once.
    let early = weight.settled.swap(true, Ordering::Relaxed);
    let aligned = cols.is_multiple_of(8) && x.handle.offset_start.unwrap_or(0).is_multiple_of(16);
    let params = Params { rows, cols, tokens, slack: slack(cut), bias: bias.is_some(), early, aligned };
    let launch = Launch {
        kernel: &kernel("delta_rows", width, x.dtype),
        blocks: cut.blocks,
        threads: cut.threads,
        shared: shared(cols, width, cut),
        early,
        map: None,
        params: params.words(cut),
    };
    // SAFETY: the caller's promise, of which the parameters say the same; there is shared memory for the inputs, the
    // zeros after them that chunks are filled up with, the chunks' sums and the rows' bounds.
    unsafe { gpu.launch(launch, buffers(weight, [x, bias.unwrap_or(x), y])) };
}

/// The dense matrix `[rows, width]`, zeros after the last column.
///
/// # Safety
/// The arrays are a [`crate::sparse::Delta`] of as many rows and at most as many columns as `dense` has without gaps, of
/// the same 16-bit type; the width is a multiple of 8.
pub(in crate::execute::cuda) unsafe fn expand(gpu: &Gpu, weight: &DeltaArrays, dense: &Tensor) {
    let ([rows, width], cut) = (dense.shape().dims(), weight.cut);
    let panel = panel(cut, width, gpu.shared);
    let params = Params { rows, cols: width, tokens: 0, slack: panel, bias: false, early: false, aligned: true };
    let launch = Launch {
        kernel: &kernel("delta_expand", 1, dense.dtype),
        blocks: cut.blocks,
        threads: cut.threads,
        shared: 2 * (cut.block_rows * panel + cut.block_rows + 1),
        early: false,
        map: None,
        params: params.words(cut),
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

fn kernel(entry: &'static str, tokens: usize, dtype: DType) -> Kernel {
    let macros = vec![("TOKENS", tokens as u32), ("BRAIN_NUMBERS", u32::from(dtype == DType::BF16))];
    Kernel { source: Source::Delta, entry, macros }
}

/// Columns of zeros after the last.
fn slack(cut: DeltaCut) -> usize {
    8 * cut.groups + 16
}

/// Bytes of a block of `delta_rows`: inputs, sums, a barrier, bounds.
fn shared(cols: usize, tokens: usize, cut: DeltaCut) -> usize {
    let inputs = (2 * tokens * (cols + slack(cut))).next_multiple_of(16);
    inputs + 8 * tokens * cut.threads + 16 + 2 * (cut.block_rows + 2)
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
        let cut = DeltaCut { blocks: 263, block_rows: 42, groups: 15, threads: 736 };
        assert!(2 * shared(4096, 4, cut) < 227 << 10 && 2 * shared(11008, 1, cut) < 227 << 10);
        assert!(shared(11008, 4, cut) < 227 << 10);
    }
}
