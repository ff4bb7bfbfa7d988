//! Launches of `likely.cu`: how likely single numbers of rows of logits are.

use super::source::{Kernel, Source};
use super::stream::{Gpu, Launch, Passing};
use crate::execute::cuda::Tensor;
use crate::execute::decode::{Likely, Target};
use burn::tensor::{DType, TensorMetadata};
use cubecl::server::Handle;

const THREADS: usize = 512;
/// Bytes of the struct `LikelyFound`.
pub(in crate::execute::cuda) const FOUND: usize = 16;

/// Whether rows of such numbers can be looked at, which compiles the kernel.
pub(in crate::execute::cuda) fn can(gpu: &Gpu, dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16) && gpu.has(&kernel(dtype))
}

/// What the kernel reads of targets that are in the order of their rows: where those of each row begin, the end, and ids.
pub(in crate::execute::cuda) fn numbers_of(targets: &[Target], rows: usize) -> Vec<i32> {
    let begins = (0..=rows).map(|row| targets.partition_point(|target| target.row < row) as i32);
    begins.chain(targets.iter().map(|target| target.id as i32)).collect()
}

/// Each target's [`FOUND`] bytes into `found`, which [`read`] reads.
///
/// # Safety
/// `rows` is `[count, width]` without gaps; `targets` are [`numbers_of`] as many rows, with ids below `width`, at least one;
/// `found` has room for all of them.
pub(in crate::execute::cuda) unsafe fn rows(gpu: &Gpu, rows: &Tensor, targets: &Tensor, found: &Handle) {
    let [count, width] = rows.shape().dims();
    let launch = Launch {
        kernel: &kernel(rows.dtype),
        blocks: count,
        threads: THREADS,
        shared: 0,
        early: true,
        map: None,
        passing: Passing::Apart,
        params: vec![count as u32, width as u32],
    };
    // SAFETY: the caller's promise; the kernel waits for what came before.
    unsafe { gpu.launch(launch, vec![rows.handle.clone(), targets.handle.clone(), found.clone()]) };
}

/// What the kernel found.
pub(in crate::execute::cuda) fn read(found: &[u8]) -> Vec<Option<Likely>> {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let one = |bytes: &[u8]| {
        let log = f64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        (word(bytes, 12) == 0).then_some(Likely { log, first: word(bytes, 8) == 1 })
    };
    found.chunks_exact(FOUND).map(one).collect()
}

fn kernel(dtype: DType) -> Kernel {
    let macros = [("BRAIN_NUMBERS", dtype == DType::BF16), ("WIDE_NUMBERS", dtype == DType::F32)];
    let macros = macros.map(|(name, set)| (name, u32::from(set))).into();
    Kernel { source: Source::Likely, entry: "likely_rows", macros }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_know_where_their_targets_are() {
        let targets = [(1, 7), (1, 9), (3, 2)].map(|(row, id)| Target { row, id });
        assert_eq!(numbers_of(&targets, 5), [0, 0, 2, 2, 3, 3, 7, 9, 2]);
        let mut bytes = Vec::new();
        for (log, first, bad) in [(-1.5f64, 1u32, 0u32), (f64::NAN, 0, 1)] {
            bytes.extend(log.to_le_bytes());
            bytes.extend([first.to_le_bytes(), bad.to_le_bytes()].concat());
        }
        assert_eq!(read(&bytes), [Some(Likely { log: -1.5, first: true }), None]);
    }
}
