//! Launches of `panels.cu`: up to 256 tokens by a bitmap in the tensor core's order.

use super::octets::OctetsArrays;
use super::source::{Kernel, Source};
use super::stream::{Gpu, Launch, Map, Passing};
use crate::execute::cuda::Tensor;
use crate::sparse::OCTET_COLUMNS;
use burn::tensor::{DType, TensorMetadata};
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;
use cubecl::server::Handle;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// The most tokens that are multiplied at once, and the fewest that a block has.
pub(in crate::execute::cuda) const MOST_TOKENS: usize = 256;
const FEWEST_TOKENS: usize = 32;
/// Numbers at whose multiples a line of inputs begins: 16 bytes.
pub(in crate::execute::cuda) const LINE: usize = 8;
/// Columns of a stage, and bytes that a token's take.
const STAGE_COLUMNS: usize = 64;
const STAGE_BYTES: usize = 128;
/// Chunks that a warp holds at once.
const SLOTS: usize = 2;
/// Bytes for barriers and alignment.
const RESERVED: usize = 2048;
/// The most tiles of rows: each has a count.
const MOST_TILES: usize = 4096;
/// The most parts that columns are cut into, and the fewest steps of 128 columns that a part has.
const MOST_PARTS: usize = 8;
const FEWEST_STEPS: usize = 2;

/// What a block multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    tokens: usize,
    /// Warpgroups of 64 rows.
    groups: usize,
    stages: usize,
}

impl Block {
    fn new(tokens: usize) -> Self {
        match tokens.next_power_of_two().max(FEWEST_TOKENS) {
            tokens @ ..=64 => Self { tokens, groups: 4, stages: 8 },
            tokens @ ..=128 => Self { tokens, groups: 3, stages: 6 },
            tokens => Self { tokens, groups: 2, stages: 4 },
        }
    }

    fn rows(self) -> usize {
        64 * self.groups
    }

    fn warps(self) -> usize {
        4 * self.groups
    }

    /// Bytes of shared memory: what it has while it reads, or the outputs at its end.
    fn shared(self, most_bytes: usize) -> usize {
        let reading = self.stages * STAGE_BYTES * self.tokens + self.warps() * SLOTS * slot(most_bytes);
        RESERVED + reading.max(2 * self.tokens * (self.rows() + 8))
    }

    /// Parts of the columns, so that every multiprocessor has a block.
    fn parts(self, rows: usize, across: usize, processors: usize) -> usize {
        let tiles = rows.div_ceil(self.rows()).max(1);
        (processors / tiles).min(across / FEWEST_STEPS).clamp(1, MOST_PARTS)
    }
}

/// Memory for the parts' sums and the tiles' counts, of a thread's stream: launches come one after the other.
struct Workspace {
    bytes: usize,
    sums: Handle,
    counts: Handle,
}

thread_local! {
    /// By device.
    static WORKSPACES: RefCell<HashMap<usize, Workspace>> = RefCell::new(HashMap::new());
}

/// Whether this many tokens can be multiplied by weights with such chunks, which compiles the kernel.
pub(in crate::execute::cuda) fn can(
    gpu: &Gpu,
    rows: usize,
    most_bytes: usize,
    grain: usize,
    dtype: DType,
    tokens: usize,
) -> bool {
    let block = Block::new(tokens);
    tokens <= MOST_TOKENS
        && rows.div_ceil(block.rows()) <= MOST_TILES
        && block.shared(most_bytes) <= gpu.shared
        && gpu.has(&kernel(block, grain, dtype))
}

/// `y [tokens, rows] = x . weight^T + bias`.
///
/// # Safety
/// The arrays are a [`crate::sparse::Octets`] of panels of `[rows, cols]`; `x` is `[tokens, width]` without gaps, begins
/// at 16 bytes, and its width is a multiple of [`LINE`], zeros after the last column; `y` is `[tokens, rows]`, `bias`
/// `[rows]`, all of the same 16-bit type; this many tokens [`can`] be multiplied.
pub(in crate::execute::cuda) unsafe fn rows(
    gpu: &Gpu,
    weight: &OctetsArrays,
    x: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
) {
    let ([tokens, width], rows) = (x.shape().dims(), y.shape()[1]);
    let (block, across) = (Block::new(tokens), width.div_ceil(OCTET_COLUMNS));
    let parts = block.parts(rows, across, gpu.processors);
    let blocks = rows.div_ceil(block.rows()) * parts;
    let sums = if parts > 1 { blocks * block.tokens * block.rows() * size_of::<f32>() } else { 16 };
    let [sums, counts] = workspace(gpu, &x.client, sums);
    let early = weight.settled.swap(true, Ordering::Relaxed);
    let words =
        [rows, across, tokens, weight.cut.blocks, slot(weight.most_bytes), parts, usize::from(bias.is_some()), 0];
    let launch = Launch {
        kernel: &kernel(block, weight.cut.grain, x.dtype),
        blocks,
        threads: 32 * block.warps() + 128,
        shared: block.shared(weight.most_bytes),
        early,
        map: Some(Map {
            dtype: x.dtype,
            lines: tokens,
            length: width,
            box_lines: block.tokens,
            box_length: STAGE_COLUMNS,
        }),
        passing: Passing::Apart,
        params: words.map(|word| word as u32).into(),
    };
    let tensors = [x, &weight.chunks, &weight.starts, bias.unwrap_or(x), y];
    let buffers = tensors.into_iter().map(|tensor| tensor.handle.clone()).chain([sums, counts]).collect();
    // SAFETY: the caller's promise, of which the parameters say the same; sums and counts have room for every block and
    // tile, and counts are zero before and after a launch.
    unsafe { gpu.launch(launch, buffers) };
}

fn workspace(gpu: &Gpu, client: &ComputeClient<CudaRuntime>, bytes: usize) -> [Handle; 2] {
    WORKSPACES.with_borrow_mut(|workspaces| {
        let kept = workspaces.entry(gpu.device).or_insert_with(|| Workspace {
            bytes,
            sums: client.empty(bytes),
            counts: client.create_from_slice(&[0; MOST_TILES * size_of::<u32>()]),
        });
        if kept.bytes < bytes {
            (kept.bytes, kept.sums) = (bytes, client.empty(bytes));
        }
        [kept.sums.clone(), kept.counts.clone()]
    })
}

fn kernel(block: Block, grain: usize, dtype: DType) -> Kernel {
    let macros = vec![
        ("TOKENS", block.tokens as u32),
        ("GROUPS", block.groups as u32),
        ("STAGES", block.stages as u32),
        ("GRAIN", grain as u32),
        ("BRAIN_NUMBERS", u32::from(dtype == DType::BF16)),
    ];
    Kernel { source: Source::Panels, entry: "panels_rows", macros }
}

/// Bytes of shared memory that a chunk has.
fn slot(most_bytes: usize) -> usize {
    most_bytes.next_multiple_of(128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_multiprocessor_has_a_block_and_a_part_has_work() {
        let parts = |tokens, rows, cols: usize| Block::new(tokens).parts(rows, cols.div_ceil(OCTET_COLUMNS), 132);
        assert_eq!([parts(64, 11008, 4096), parts(64, 4096, 4096), parts(256, 11008, 4096)], [3, 8, 1]);
        assert_eq!([parts(64, 16, 128), parts(32, 100_000, 4096)], [1, 1]);
    }

    #[test]
    fn inputs_and_full_chunks_fit_the_shared_memory() {
        // Two octets of which nothing is pruned.
        let full = 2 * 32 * 4 + 2 * 8 * 128 * 2;
        for tokens in [1, 64, 128] {
            assert!(Block::new(tokens).shared(full) <= 227 << 10, "{tokens}");
        }
        assert!(Block::new(256).shared(2500) <= 227 << 10);
        assert_eq!([1, 33, 256].map(|tokens| Block::new(tokens).tokens), [32, 64, 256]);
    }
}
