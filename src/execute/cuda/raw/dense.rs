//! Launches of `dense.cu`: one token by up to three dense matrices that share their input.

use super::reads::{self, Reads};
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
/// Numbers of a load.
const EIGHT: usize = 8;
/// Warps of a multiprocessor.
const ALL_WARPS: usize = 16;
/// The most eights of a row that a thread has.
const MOST_CHUNKS: usize = 8;

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
    let whole = cols > 0 && rows > 0 && cols.is_multiple_of(EIGHT) && weight.is_contiguous() && begins;
    let form = Form::of(cols).filter(|_| whole && weight.dtype.size() == 2);
    let fits = |form: &Form| Cut::of(gpu.processors, *form, &[rows]).is_some_and(|cut| cut.shared() <= gpu.shared);
    form.filter(fits).is_some_and(|form| gpu.has(&form.kernel(weight.dtype, None)))
}

/// `y [1, rows] = x [1, cols] . weight^T + bias`, of each part.
///
/// # Safety
/// There are one to [`MOST_PARTS`], of matrices that [`can`] be multiplied, of as many columns and the same type as `x`,
/// whose memory begins at 16 bytes; a bias and `y` have as many numbers as a matrix has rows, and all parts have a bias or
/// none.
///
/// # Panics
/// Where the rows can't be shared out, which [`can`] denies.
pub(in crate::execute::cuda) unsafe fn rows(gpu: &Gpu, x: &Tensor, parts: &[Part<'_>]) {
    let cols = x.shape()[1];
    let of_parts: Vec<usize> = parts.iter().map(|part| part.weight.shape()[0]).collect();
    let cut = Form::of(cols).and_then(|form| Cut::of(gpu.processors, form, &of_parts));
    // Without a launch the outputs would be whatever stood there.
    let cut = cut.expect("only matrices that can be multiplied come here");
    let fits = cut.shared_of_norm(cols) <= gpu.shared;
    let made = reads::taken(gpu, x, |gpu, reads| fits && gpu.has(&cut.form.kernel(x.dtype, Some(reads))));
    let part = |at: usize| parts[at.min(parts.len() - 1)];
    let of_part = |at: usize| [part(at).weight, part(at).bias.unwrap_or(x), part(at).y];
    let read = made.as_ref().map_or(x, |reads| &reads.x);
    let making = made.as_ref().map_or([x; reads::BUFFERS], |reads| reads.buffers());
    let buffers = [read].into_iter().chain((0..MOST_PARTS).flat_map(of_part)).chain(making);
    let buffers: Vec<Handle> = buffers.map(|tensor| tensor.handle.clone()).collect();
    let mut params = cut.params(cols, script::is_open(), parts[0].bias.is_some());
    params.extend(made.as_ref().map_or(reads::AS_THEY_ARE, |reads| reads.params()));
    let launch = Launch {
        kernel: &cut.form.kernel(x.dtype, made.as_deref()),
        blocks: cut.blocks.iter().sum(),
        threads: 32 * cut.form.warps,
        shared: if made.is_some() { cut.shared_of_norm(cols) } else { cut.shared() },
        // It waits itself; weights may be read before only where everything that could have written them has ended.
        early: true,
        map: None,
        passing: Passing::Together,
        params,
    };
    // SAFETY: the caller's promise, of which the parameters say the same; there is shared memory for the sums.
    unsafe { gpu.launch(launch, buffers) };
}

/// How a row is shared out among the threads of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    warps: usize,
    /// Eights of a row that a thread has.
    chunks: usize,
    /// Rows at once.
    rows: usize,
}

impl Form {
    /// None of rows that are too long.
    fn of(cols: usize) -> Option<Self> {
        let of = |warps: usize| (warps, cols.div_ceil(32 * warps * EIGHT));
        let (warps, chunks) =
            [of(ALL_WARPS / 2), of(ALL_WARPS)].into_iter().find(|&(_, chunks)| chunks <= MOST_CHUNKS)?;
        // Inputs take as many registers as a row's weights; few forms, so that few kernels are compiled.
        let rows = match chunks {
            0..=2 => 8,
            3..=4 => 4,
            5..=6 => 2,
            _ => 1,
        };
        Some(Self { warps, chunks: chunks.max(1), rows })
    }

    fn kernel(self, dtype: DType, reads: Option<&Reads>) -> Kernel {
        let Self { warps, chunks, rows } = self;
        let brain = u32::from(dtype == DType::BF16);
        let macros = [("CHUNKS", chunks), ("ROWS", rows), ("WARPS", warps)].map(|(name, value)| (name, value as u32));
        let macros = macros.into_iter().chain([("BRAIN_NUMBERS", brain)]);
        let macros = macros.chain(reads.map(Reads::macros).unwrap_or_default()).collect();
        Kernel { source: Source::Dense, entry: "dense_rows", macros }
    }
}

/// How the rows of all parts are shared out among blocks, as many as run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    form: Form,
    rows: Vec<usize>,
    blocks: Vec<usize>,
    /// The most rows of a block.
    most: usize,
}

impl Cut {
    /// None of more rows than there are numbers for.
    fn of(processors: usize, form: Form, rows: &[usize]) -> Option<Self> {
        let (all, at_once) = (rows.iter().sum::<usize>(), processors * (ALL_WARPS / form.warps));
        let mut blocks: Vec<usize> = rows.iter().map(|&rows| (at_once * rows / all).clamp(1, rows)).collect();
        // What is left over goes to whose blocks have the most rows.
        while blocks.iter().sum::<usize>() < at_once {
            let most = (0..rows.len()).max_by_key(|&part| rows[part].div_ceil(blocks[part]))?;
            if blocks[most] >= rows[most] {
                break;
            }
            blocks[most] += 1;
        }
        let most = rows.iter().zip(&blocks).map(|(rows, blocks)| rows.div_ceil(*blocks)).max()?;
        u32::try_from(all).ok()?;
        Some(Self { form, rows: rows.to_vec(), blocks, most })
    }

    fn shared(&self) -> usize {
        4 * (self.most + 2) * self.form.warps
    }

    /// Where the inputs are a norm, whose gains lie there too.
    fn shared_of_norm(&self, cols: usize) -> usize {
        self.shared() + 2 * cols
    }

    /// The struct `DenseParams`, but for what is read.
    fn params(&self, cols: usize, early: bool, bias: bool) -> Vec<u32> {
        let all: usize = self.blocks.iter().sum();
        let or = |of: &[usize], at: usize, other| of.get(at).copied().unwrap_or(other);
        let begin = |at: usize| if at < self.blocks.len() { self.blocks[..at].iter().sum() } else { all };
        let mut words = vec![cols / EIGHT, usize::from(early), usize::from(bias), self.most];
        words.extend((0..MOST_PARTS).map(|at| or(&self.rows, at, 0)));
        words.extend((0..MOST_PARTS).map(begin));
        words.extend((0..MOST_PARTS).map(|at| or(&self.blocks, at, 1)));
        words.into_iter().map(|word| word as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_multiprocessor_has_as_many_rows_as_another() {
        for (rows, blocks) in [
            (&[4096, 4096, 4096][..], &[88, 88, 88][..]),
            (&[11008, 11008], &[132, 132]),
            (&[4096, 1024, 1024], &[176, 44, 44]),
            (&[32000], &[264]),
            (&[3, 1], &[3, 1]),
        ] {
            let cut = Cut::of(132, Form::of(4096).unwrap(), rows).unwrap();
            assert_eq!(cut.blocks, blocks, "{rows:?}");
            assert!(rows.iter().zip(blocks).all(|(rows, blocks)| rows.div_ceil(*blocks) <= cut.most));
        }
    }

    proptest! {
        /// By the arithmetic of the source: a block has rows `[block * rows / blocks, (block + 1) * rows / blocks)`.
        #[test]
        fn every_row_has_a_block_and_its_sums_have_room(
            rows in prop::collection::vec(1usize..40_000, 1..=MOST_PARTS),
            cols in 1usize..2048,
            processors in 1usize..200,
        ) {
            let cut = Cut::of(processors, Form::of(EIGHT * cols).unwrap(), &rows).unwrap();
            let words = cut.params(EIGHT * cols, true, false);
            let all: u32 = cut.blocks.iter().sum::<usize>() as u32;
            let (begins, of_rows, most) = (&words[7..10], &words[4..7], words[3]);
            for block in 0..all {
                let part = if block >= begins[2] { 2 } else { usize::from(block >= begins[1]) };
                let (within, blocks) = (u64::from(block - begins[part]), u64::from(words[10 + part]));
                let row = |block: u64| (block * u64::from(of_rows[part]) / blocks) as u32;
                prop_assert!(row(within + 1) - row(within) <= most);
                prop_assert!(within != 0 || row(0) == 0);
                prop_assert!(within + 1 < blocks || row(blocks) == of_rows[part]);
            }
        }
    }

    #[test]
    fn a_rows_eights_are_all_of_some_thread() {
        for cols in [8, 512, 4096, 4104, 11008, 14336, 16384, 28672, 32768] {
            let Form { warps, chunks, rows } = Form::of(cols).unwrap();
            assert!(32 * warps * chunks * EIGHT >= cols && chunks <= MOST_CHUNKS && chunks * rows <= 16, "{cols}");
        }
        assert_eq!(Form::of(32776), None);
        let cut = Cut::of(132, Form::of(4096).unwrap(), &[4096, 1024]).unwrap();
        assert_eq!(cut.params(4096, true, false), [512, 1, 0, 20, 4096, 1024, 0, 0, 211, 264, 211, 53, 1]);
    }
}
