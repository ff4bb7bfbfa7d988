//! Launches of `octets.cu`: up to 32 tokens by a bitmap in the tensor core's order, and the dense matrix again.

use super::source::{Kernel, Source};
use super::stream::{Gpu, Launch, Passing};
use crate::execute::cuda::Tensor;
use crate::sparse::{LaneOrder, OCTET_COLUMNS, OctetsCut};
use burn::tensor::{DType, TensorMetadata};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The most tokens that are multiplied at once.
pub(in crate::execute::cuda) const MOST_TOKENS: usize = 32;
/// Tokens of a tile.
const TILE: usize = 16;
/// Warps of a block, and the chunks that each holds at once.
const WARPS: usize = 16;
const SLOTS: usize = 2;
/// Bytes in whose multiples chunks have room.
const ALIGN: usize = 128;
/// Bytes of shared memory that barriers take, and a warp's inputs for a tile.
const RESERVED: usize = 1024;
const INPUTS: usize = 4096;
/// Warps of a block that expands.
const EXPAND_WARPS: usize = 8;
/// Up to this many tokens weights are packed for this kernel.
pub(in crate::execute::cuda) const FEW: usize = 16;
/// Bytes that a chunk should have at most: larger ones leave less time to the copies after them.
const CHUNK_BYTES: usize = 4096;

/// A matrix on the device; see [`crate::sparse::Octets`].
#[derive(Clone, Debug)]
pub(in crate::execute::cuda) struct OctetsArrays {
    pub cut: OctetsCut,
    /// Bytes of the largest chunk.
    pub most_bytes: usize,
    pub chunks: Tensor,
    pub starts: Tensor,
    /// Whether a launch has come after the one that wrote the arrays: later ones may read them before they wait.
    pub settled: Arc<AtomicBool>,
}

/// Bytes that a chunk should have at most, so that those of every warp have room beside its inputs; none where no chunk has.
pub(in crate::execute::cuda) fn chunk_bytes(gpu: &Gpu) -> Option<usize> {
    chunk_bytes_of(gpu.shared)
}

fn chunk_bytes_of(shared: usize) -> Option<usize> {
    let room = (shared.saturating_sub(RESERVED) / WARPS).saturating_sub(INPUTS) / SLOTS;
    Some((room / ALIGN * ALIGN).min(CHUNK_BYTES)).filter(|&bytes| bytes > 0)
}

/// Whether matrices can be multiplied, which compiles the kernel for such a cut and up to 16 tokens.
pub(in crate::execute::cuda) fn can(gpu: &Gpu, cut: OctetsCut, most_bytes: usize, dtype: DType) -> bool {
    shared(cut, most_bytes, 1) <= gpu.shared && gpu.has(&kernel("octets_rows", cut, 1, dtype))
}

/// Whether this many tokens can be multiplied at once.
pub(in crate::execute::cuda) fn fits(gpu: &Gpu, weight: &OctetsArrays, tokens: usize) -> bool {
    weight.cut.order == LaneOrder::Eights
        && tokens <= MOST_TOKENS
        && shared(weight.cut, weight.most_bytes, tiles(tokens)) <= gpu.shared
}

/// `y [tokens, rows] = x . weight^T + bias`.
///
/// # Safety
/// The arrays are a [`crate::sparse::Octets`] of `[rows, cols]` in eights; `x` is `[tokens, cols]` without gaps, zeros after the
/// last column up to a multiple of [`OCTET_COLUMNS`], and begins at 16 bytes; `y` is `[tokens, rows]`, `bias` `[rows]`,
/// all of the same 16-bit type; this many tokens [`fits`].
pub(in crate::execute::cuda) unsafe fn rows(
    gpu: &Gpu,
    weight: &OctetsArrays,
    x: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
) {
    let ([tokens, width], rows) = (x.shape().dims(), y.shape()[1]);
    let (cut, tiles) = (weight.cut, tiles(tokens));
    let early = weight.settled.swap(true, Ordering::Relaxed);
    let launch = Launch {
        kernel: &kernel("octets_rows", cut, tiles, x.dtype),
        blocks: cut.blocks,
        threads: 32 * WARPS,
        shared: shared(cut, weight.most_bytes, tiles),
        early,
        map: None,
        passing: Passing::Apart,
        params: params(weight, [rows, width, tokens], bias.is_some()),
    };
    let buffers = [&weight.chunks, &weight.starts, x, bias.unwrap_or(x), y];
    // SAFETY: the caller's promise, of which the parameters say the same; there is shared memory for the inputs and
    // chunks of every warp, and for their sums.
    unsafe { gpu.launch(launch, buffers.map(|tensor| tensor.handle.clone()).into()) };
}

/// The dense matrix `[rows, width]`, zeros after the last column.
///
/// # Safety
/// The arrays are a [`crate::sparse::Octets`] of as many rows as `dense` has, without gaps, of the same 16-bit type, and
/// its columns up to a multiple of [`OCTET_COLUMNS`] are as many.
pub(in crate::execute::cuda) unsafe fn expand(gpu: &Gpu, weight: &OctetsArrays, dense: &Tensor) {
    let [rows, width] = dense.shape().dims();
    let chunks = weight.cut.blocks * (width / OCTET_COLUMNS) * weight.cut.chunks;
    let launch = Launch {
        kernel: &expansion(weight.cut, dense.dtype),
        blocks: chunks.div_ceil(EXPAND_WARPS),
        threads: 32 * EXPAND_WARPS,
        shared: EXPAND_WARPS * slot(weight.most_bytes),
        early: false,
        map: None,
        passing: Passing::Apart,
        params: params(weight, [rows, width, 0], false),
    };
    let buffers = [&weight.chunks, &weight.starts, dense];
    // SAFETY: the caller's promise; a warp writes the rows and columns of its chunk, of those that there are.
    unsafe { gpu.launch(launch, buffers.map(|tensor| tensor.handle.clone()).into()) };
}

/// The struct `OctetsParams`.
fn params(weight: &OctetsArrays, [rows, width, tokens]: [usize; 3], bias: bool) -> Vec<u32> {
    let words = [rows, width, tokens, weight.cut.blocks, slot(weight.most_bytes), usize::from(bias)];
    words.map(|word| word as u32).into()
}

fn kernel(entry: &'static str, cut: OctetsCut, tiles: usize, dtype: DType) -> Kernel {
    let macros = vec![
        ("OCTETS", cut.octets as u32),
        ("CHUNKS", cut.chunks as u32),
        ("TILES", tiles as u32),
        ("GRAIN", cut.grain as u32),
        ("BRAIN_NUMBERS", u32::from(dtype == DType::BF16)),
    ];
    Kernel { source: Source::Octets, entry, macros }
}

fn expansion(cut: OctetsCut, dtype: DType) -> Kernel {
    let mut kernel = kernel("octets_expand", cut, 1, dtype);
    kernel.macros.push(("IN_PAIRS", u32::from(cut.order == LaneOrder::Pairs)));
    kernel
}

fn tiles(tokens: usize) -> usize {
    tokens.div_ceil(TILE).max(1)
}

/// Bytes of shared memory that a chunk has.
fn slot(most_bytes: usize) -> usize {
    most_bytes.next_multiple_of(ALIGN)
}

/// Bytes of a block of `octets_rows`: what it has while it reads, or the sums at its end.
fn shared(cut: OctetsCut, most_bytes: usize, tiles: usize) -> usize {
    let reading = WARPS * (INPUTS * tiles + SLOTS * slot(most_bytes));
    RESERVED + reading.max(WARPS * cut.octets * tiles * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_any_kind_fit_beside_the_inputs() {
        let cut = OctetsCut { blocks: 126, octets: 12, chunks: 4, grain: 1, order: LaneOrder::Eights };
        assert!(shared(cut, CHUNK_BYTES, tiles(16)) <= 227 << 10);
        // Two tiles have room beside smaller chunks.
        assert!(shared(cut, 3072, tiles(32)) <= 227 << 10);
        assert_eq!([1, 16, 17, 32].map(tiles), [1, 1, 2, 2]);
        // Hopper, Ampere 8.0, Ada and Ampere 8.6; on Turing the inputs alone have no room.
        assert_eq!([227, 163, 99].map(|kilobytes| chunk_bytes_of(kilobytes << 10)), [4096, 3072, 1024].map(Some));
        assert_eq!(chunk_bytes_of(64 << 10), None);
    }
}
