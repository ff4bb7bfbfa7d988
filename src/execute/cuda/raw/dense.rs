//! Launches of `dense.cu`: one token by up to three dense matrices that share their input.

use super::script;
use super::source::{Kernel, Source};
use super::stream::{Gpu, Launch, Passing};
use crate::execute::cuda::Tensor;
use burn::tensor::{DType, TensorMetadata};
use cubecl::server::Handle;

/// The name of the kernel.
pub(in crate::execute::cuda) const NAME: &str = "dense-cuda-rows";
/// The most matrices of a launch.
pub(in crate::execute::cuda) const MOST_PARTS: usize = 3;
/// Columns of a line.
const LINE: usize = 256;
/// Bytes of a slot: four lines.
const SLOT: usize = 2048;
const WARPS: usize = 16;
/// The most slots of a warp.
const MOST_SLOTS: usize = 4;
/// Shared memory of a block, such that two have room on a multiprocessor, which takes a kilobyte for itself of each.
const ROOM: usize = (228 << 10) / 2 - 1024;

/// A matrix, its bias and where its outputs go.
#[derive(Clone, Copy)]
pub(in crate::execute::cuda) struct Part<'a> {
    pub weight: &'a Tensor,
    pub bias: Option<&'a Tensor>,
    pub y: &'a Tensor,
}

/// Whether a matrix can be multiplied, which compiles the kernel.
pub(in crate::execute::cuda) fn can(gpu: &Gpu, weight: &Tensor) -> bool {
    let [rows, cols] = weight.shape().dims();
    let begins = weight.handle.offset_start.unwrap_or(0).is_multiple_of(16);
    let fits = cols > 0 && rows > 0 && cols.is_multiple_of(LINE) && weight.is_contiguous() && begins;
    let room = || Cut::new(gpu, &[rows], cols).is_some_and(|cut| cut.shared() <= gpu.shared);
    fits && weight.dtype.size() == 2 && room() && gpu.has(&kernel(weight.dtype))
}

/// `y [1, rows] = x [1, cols] . weight^T + bias`, of each part.
///
/// # Safety
/// There are one to [`MOST_PARTS`], of matrices that [`can`] be multiplied, of as many columns and the same type as `x`,
/// whose memory begins at 16 bytes; a bias and `y` have as many numbers as a matrix has rows, and all parts have a bias or
/// none.
pub(in crate::execute::cuda) unsafe fn rows(gpu: &Gpu, x: &Tensor, parts: &[Part<'_>]) {
    let cols = x.shape()[1];
    let of_parts: Vec<usize> = parts.iter().map(|part| part.weight.shape()[0]).collect();
    let Some(cut) = Cut::new(gpu, &of_parts, cols) else { return };
    let part = |at: usize| parts[at.min(parts.len() - 1)];
    let of_part = |at: usize| [part(at).weight, part(at).bias.unwrap_or(x), part(at).y];
    let buffers: Vec<Handle> =
        [x].into_iter().chain((0..MOST_PARTS).flat_map(of_part)).map(|tensor| tensor.handle.clone()).collect();
    let launch = Launch {
        kernel: &kernel(x.dtype),
        blocks: cut.blocks.iter().sum(),
        threads: 32 * WARPS,
        shared: cut.shared(),
        // It waits itself; weights may be read before only where everything that could have written them has ended.
        early: true,
        map: None,
        passing: Passing::Together,
        params: cut.params(script::is_open(), parts[0].bias.is_some()),
    };
    // SAFETY: the caller's promise, of which the parameters say the same; there is shared memory for the inputs, the
    // rings and the sums.
    unsafe { gpu.launch(launch, buffers) };
}

fn kernel(dtype: DType) -> Kernel {
    let macros = vec![("BRAIN_NUMBERS", u32::from(dtype == DType::BF16))];
    Kernel { source: Source::Dense, entry: "dense_rows", macros }
}

/// How the rows of all parts are shared out among blocks, one for each multiprocessor.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    lines: usize,
    rows: Vec<usize>,
    blocks: Vec<usize>,
    /// Rows that a warp has parts of.
    kept: usize,
    slots: usize,
}

impl Cut {
    /// None of more rows than there are numbers for.
    fn new(gpu: &Gpu, rows: &[usize], cols: usize) -> Option<Self> {
        Self::of(gpu.processors, rows, cols)
    }

    fn of(processors: usize, rows: &[usize], cols: usize) -> Option<Self> {
        let all: usize = rows.iter().sum();
        let mut blocks: Vec<usize> = rows.iter().map(|&rows| (processors * rows / all).clamp(1, rows)).collect();
        // What is left over goes to whose blocks have the most rows.
        while blocks.iter().sum::<usize>() < processors {
            let most = (0..rows.len()).max_by_key(|&part| rows[part].div_ceil(blocks[part]))?;
            if blocks[most] >= rows[most] {
                break;
            }
            blocks[most] += 1;
        }
        let of_block = rows.iter().zip(&blocks).map(|(rows, blocks)| rows.div_ceil(*blocks)).max()?;
        u32::try_from(all.max(of_block * cols)).ok()?;
        let (lines, kept) = (cols / LINE, of_block.div_ceil(WARPS) + 2);
        let slots = (ROOM.saturating_sub(2 * cols + 4 * WARPS * kept) / (WARPS * (SLOT + 8))).clamp(1, MOST_SLOTS);
        Some(Self { lines, rows: rows.to_vec(), blocks, kept, slots })
    }

    fn shared(&self) -> usize {
        self.lines * LINE * 2 + WARPS * (self.slots * (SLOT + 8) + 4 * self.kept)
    }

    /// The struct `DenseParams`.
    fn params(&self, early: bool, bias: bool) -> Vec<u32> {
        let all: usize = self.blocks.iter().sum();
        let or = |of: &[usize], at: usize, other| of.get(at).copied().unwrap_or(other);
        let begin = |at: usize| if at < self.blocks.len() { self.blocks[..at].iter().sum() } else { all };
        let mut words = vec![self.lines, usize::from(early), self.slots, usize::from(bias)];
        words.extend((0..MOST_PARTS).map(|at| or(&self.rows, at, 0)));
        words.extend((0..MOST_PARTS).map(begin));
        words.extend((0..MOST_PARTS).map(|at| or(&self.blocks, at, 1)));
        words.push(self.kept);
        words.into_iter().map(|word| word as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_multiprocessor_has_as_many_rows_as_another() {
        for (rows, blocks) in [
            (&[4096, 4096, 4096][..], &[44, 44, 44][..]),
            (&[11008, 11008], &[66, 66]),
            (&[4096, 1024, 1024], &[88, 22, 22]),
            (&[32000], &[132]),
            (&[3, 1], &[3, 1]),
        ] {
            assert_eq!(Cut::of(132, rows, 4096).unwrap().blocks, blocks, "{rows:?}");
        }
    }

    #[test]
    fn two_blocks_of_the_usual_layers_fit_a_multiprocessor() {
        for (rows, cols) in
            [(&[4096, 4096, 4096][..], 4096), (&[4096], 11008), (&[32000], 4096), (&[11008, 11008], 4096)]
        {
            let cut = Cut::of(132, rows, cols).unwrap();
            assert!(cut.shared() <= ROOM && cut.slots >= 2, "{rows:?} {cols} {}", cut.shared());
        }
        let params = Cut::of(132, &[4096, 1024], 4096).unwrap().params(true, false);
        assert_eq!(params[..4], [16, 1, 3, 0]);
        assert_eq!(params[4..13], [4096, 1024, 0, 0, 106, 132, 106, 26, 1]);
    }
}
