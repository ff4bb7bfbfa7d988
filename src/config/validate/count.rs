//! How large an experiment may be. Products are counted before anything is made of them: a slip of an axis would
//! otherwise take minutes and all memory before it is noticed.

use super::Validator;
use crate::config::axis::At;
use crate::config::experiment::PruneBlock;
use crate::config::kernel::KernelBlock;
use crate::diagnostic::{Diagnostic, Span, grouped};

/// The most cells of an experiment. At a second each they take more than a day, and most take longer.
pub(super) const MAX_CELLS: u64 = 100_000;
/// The most entries of a block's `skip`, each of which is held against each point.
pub(super) const MAX_SKIPS: usize = 1000;
/// The most globs of a block's `exclude`, which every point carries.
pub(super) const MAX_GLOBS: usize = 256;
/// The most `[[expect]]` blocks, each of which is held against each cell.
pub(super) const MAX_EXPECTATIONS: usize = 10_000;
/// The most pairs of `measure.batch` and `measure.prompt`, each of which is timed in each cell.
const MAX_WORKLOADS: u64 = 1000;

/// The blocks of a kind, and how many cells each has; none beyond what can be counted.
pub(super) struct Blocks<'a> {
    list: &'static str,
    headers: &'a [Span],
    cells: Vec<Option<u64>>,
}

impl<'a> Blocks<'a> {
    /// Those of `[[prune]]`; `each` is how many cells a point of one seed and calibration has.
    pub fn pruned(
        blocks: &[PruneBlock],
        headers: &'a [Span],
        (seeds, calibrations): (usize, usize),
        each: u64,
    ) -> Self {
        let cells = |block: &PruneBlock| {
            block.sized().try_fold(0u64, |sum, (method, points)| {
                let seeds = if method.uses_seed() { seeds as u64 } else { 1 };
                let calibrations = if method.calibrates() { calibrations as u64 } else { 1 };
                sum.checked_add(points?.checked_mul(seeds)?.checked_mul(calibrations)?.checked_mul(each)?)
            })
        };
        Self { list: "prune", headers, cells: blocks.iter().map(cells).collect() }
    }

    /// Those of `[[kernel]]`.
    pub fn kernels(blocks: &[KernelBlock], headers: &'a [Span], seeds: usize, backends: usize) -> Self {
        let cells = |block: &KernelBlock| block.size()?.checked_mul(seeds as u64)?.checked_mul(backends as u64);
        Self { list: "kernel", headers, cells: blocks.iter().map(cells).collect() }
    }
}

impl Validator<'_> {
    /// Reports the block with which the experiment becomes too large.
    pub(super) fn count_cells(&mut self, kinds: &[Blocks<'_>]) {
        let mut before = 0u64;
        for Blocks { list, headers, cells } in kinds {
            for (index, (&cells, header)) in cells.iter().zip(*headers).enumerate() {
                let sum = cells.and_then(|cells| before.checked_add(cells));
                match sum.filter(|sum| *sum <= MAX_CELLS) {
                    Some(sum) => before = sum,
                    None => return self.too_many_cells(list, index, header, cells, before),
                }
            }
        }
    }

    fn too_many_cells(&mut self, list: &str, index: usize, header: &Span, cells: Option<u64>, before: u64) {
        let cells = cells.map_or("more cells than can be counted".into(), |n| format!("{} cells", grouped(n)));
        let others = if before == 0 { String::new() } else { format!(" beside the {} before it", grouped(before)) };
        let most = grouped(MAX_CELLS);
        self.report(
            Diagnostic::error(format!("`[[{list}]]` block {} has {cells}{others}", index + 1))
                .at(header.clone(), format!("an experiment has at most {most}"))
                .help("shorten its axes, or share them out among several experiment files"),
        );
    }

    /// Reports workloads beyond what a cell can be expected to time.
    pub(super) fn count_workloads(&mut self, batch: &[At<usize>], prompt: &[At<usize>]) {
        let pairs = (batch.len() as u64).saturating_mul(prompt.len() as u64);
        let Some(first) = prompt.first().filter(|_| pairs > MAX_WORKLOADS) else { return };
        let title = format!("`measure.batch` and `measure.prompt` have {} pairs", grouped(pairs));
        self.report(
            Diagnostic::error(title)
                .at(first.span.clone(), format!("every cell times each of at most {}", grouped(MAX_WORKLOADS)))
                .help("shorten one of them"),
        );
    }

    /// Reports an axis that alone is longer than an experiment may have cells; its first value tells where it is.
    pub(super) fn short_enough<T>(&mut self, path: &str, values: &[At<T>]) -> bool {
        self.few_enough(path, "values", MAX_CELLS as usize, values)
    }

    /// Whether a list is no longer than it may be; reports one that is.
    pub(super) fn few_enough<T>(&mut self, path: &str, what: &str, most: usize, items: &[At<T>]) -> bool {
        let Some(beyond) = items.get(most) else { return true };
        let title = format!("`{path}` has {} {what}", grouped(items.len() as u64));
        self.report(
            Diagnostic::error(title)
                .at(beyond.span.clone(), format!("expected at most {}", grouped(most as u64)))
                .help("shorten it, or share it out among several experiment files"),
        );
        false
    }
}
