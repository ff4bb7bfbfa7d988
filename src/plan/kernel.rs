//! Kernel cells: one bare linear in one format each, timed without a model.
//!
//! ```text
//!   matrix   backend, dtype, shape, seed, warmup, repeats     stays in one partition
//!     group  and tokens                                       compared in one process
//!       cell and format, sparsity
//! ```
//! A speed-up is over the dense kernel of the same group, timed by the same process: when any cell of
//! a group runs, its dense cell runs too ([`accompany`]).

use super::cell::{Backend, Cell};
use super::resume::Decision;
use crate::config::Experiment;
use crate::config::experiment::{Dtype, KernelBlock, KernelFormat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One kernel cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelCell {
    /// Where it runs.
    pub backend: Backend,
    /// What weight, input and output are made of.
    #[serde(with = "crate::plan::cell::word")]
    #[schemars(with = "String")]
    pub dtype: Dtype,
    /// `[out_features, in_features]` of the weight.
    pub shape: [usize; 2],
    /// Rows of the input.
    pub tokens: usize,
    /// How the weight is stored.
    #[serde(with = "crate::plan::cell::word")]
    #[schemars(with = "String")]
    pub format: KernelFormat,
    /// The share of weights that is zero, of `threshold` the share of the input; none for `dense`.
    pub sparsity: Option<f64>,
    /// Of the weight, its pattern and the input.
    pub seed: u64,
    /// Calls before the first that counts.
    pub warmup: usize,
    /// Calls that are timed.
    pub repeats: usize,
}

impl KernelCell {
    /// Whether two cells differ in no more than tokens, format and sparsity: they share a weight.
    pub fn same_matrix(&self, other: &Self) -> bool {
        let key = |cell: &Self| (cell.backend, cell.dtype, cell.shape, cell.seed, cell.warmup, cell.repeats);
        key(self) == key(other)
    }

    /// Whether two cells differ in no more than format and sparsity: they are compared.
    pub fn same_group(&self, other: &Self) -> bool {
        self.same_matrix(other) && self.tokens == other.tokens
    }

    /// Whether two cells differ in no more than tokens: they multiply the same stored weight, but for `auto`,
    /// whose form depends on them, and formats on a GPU, which are stored otherwise for a few tokens than for many.
    pub fn same_weight(&self, other: &Self) -> bool {
        self.same_matrix(other)
            && (self.format, self.sparsity) == (other.format, other.sparsity)
            && match self.format {
                KernelFormat::Auto => self.tokens == other.tokens,
                KernelFormat::Csr | KernelFormat::Bitmap if self.backend == Backend::Cuda => {
                    self.tokens == other.tokens
                }
                _ => true,
            }
    }
}

impl fmt::Display for KernelCell {
    /// `csr 4096x4096 50 % 16 tokens flex f32`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [out, inp] = self.shape;
        write!(f, "{} {out}x{inp}", self.format)?;
        if let Some(sparsity) = self.sparsity {
            write!(f, " {} %", (sparsity * 1000.0).round() / 10.0)?;
        }
        write!(f, " {} token{}", self.tokens, if self.tokens == 1 { "" } else { "s" })?;
        write!(f, " {} {}", self.backend, self.dtype.name())
    }
}

/// What a kernel's time depends on beside its cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelInputs {
    /// The name of the processor or GPU.
    pub device: String,
    /// Threads, on the CPU.
    pub threads: Option<usize>,
    /// The version of how kernels are chosen and timed.
    pub kernel_policy: u32,
}

/// A cell of either kind.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// A model's.
    Model(&'a Cell),
    /// A bare kernel's.
    Kernel(&'a KernelCell),
}

impl Work<'_> {
    /// Whether two cells must be run by one process.
    pub fn belongs_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Model(a), Self::Model(b)) => a.same_point(b),
            (Self::Kernel(a), Self::Kernel(b)) => a.same_matrix(b),
            _ => false,
        }
    }
}

impl fmt::Display for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(cell) => cell.fmt(f),
            Self::Kernel(cell) => cell.fmt(f),
        }
    }
}

/// Every kernel cell of an experiment, each once.
///
/// The cells of a matrix follow each other, the dense ones first: also where the file does not list
/// `dense`, since speed-ups are over it. Cells that share a stored weight follow each other too.
pub fn expand_kernels(experiment: &Experiment, backends: &[Backend]) -> Vec<KernelCell> {
    let mut cells: Vec<KernelCell> = Vec::new();
    for &backend in backends {
        for block in &experiment.kernels {
            for cell in block_cells(block, backend, &experiment.seeds) {
                if !cells.contains(&cell) {
                    cells.push(cell);
                }
            }
        }
    }
    // Blocks may share a matrix: its cells go where the first of them is.
    let place = |cell: &KernelCell| cells.iter().position(|first| first.same_matrix(cell));
    let mut placed: Vec<_> = cells.iter().map(|cell| (place(cell), cell.format != KernelFormat::Dense, cell)).collect();
    placed.sort_by_key(|(place, sparse, _)| (*place, *sparse));
    placed.into_iter().map(|(.., cell)| cell.clone()).collect()
}

fn block_cells(block: &KernelBlock, backend: Backend, seeds: &[u64]) -> Vec<KernelCell> {
    let sparse = block.formats.iter().filter(|&&format| format != KernelFormat::Dense);
    let sparse = sparse.flat_map(|&format| block.sparsities.iter().map(move |&sparsity| (format, Some(sparsity))));
    let weights: Vec<_> = std::iter::once((KernelFormat::Dense, None)).chain(sparse).collect();
    let mut cells = Vec::new();
    for &dtype in &block.dtypes {
        for shape in &block.shapes {
            for &seed in seeds {
                for &(format, sparsity) in &weights {
                    cells.extend(block.tokens.iter().map(|&tokens| KernelCell {
                        backend,
                        dtype,
                        shape: shape.0,
                        tokens,
                        format,
                        sparsity,
                        seed,
                        warmup: block.warmup,
                        repeats: block.repeats,
                    }));
                }
            }
        }
    }
    cells
}

/// Adds the dense cell of every group of which a cell runs: `(cell, decision, selected)` each.
pub fn accompany(cells: &mut [(&KernelCell, &mut Decision, &mut bool)]) {
    let runs = |(_, decision, selected): &(&KernelCell, &mut Decision, &mut bool)| **selected && decision.runs();
    let running: Vec<KernelCell> = cells.iter().filter(|cell| runs(cell)).map(|(cell, ..)| (*cell).clone()).collect();
    for (cell, decision, selected) in cells.iter_mut().filter(|(cell, ..)| cell.format == KernelFormat::Dense) {
        if running.iter().any(|other| other.same_group(cell)) {
            **selected = true;
            if !decision.runs() {
                **decision = Decision::Beside;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::Partition;
    use super::*;
    use crate::config;
    use std::path::Path;

    /// A cell for the tests of this folder.
    pub(crate) fn kernel(format: KernelFormat, sparsity: Option<f64>) -> KernelCell {
        let (backend, dtype, shape) = (Backend::Flex, Dtype::F32, [8, 4]);
        KernelCell { backend, dtype, shape, tokens: 2, format, sparsity, seed: 0, warmup: 0, repeats: 3 }
    }

    /// What they run on.
    pub(crate) fn inputs() -> KernelInputs {
        KernelInputs { device: "a processor".into(), threads: Some(2), kernel_policy: 1 }
    }

    fn cells(text: &str) -> Vec<KernelCell> {
        let experiment = config::parse(Path::new("x.toml"), &format!("name = 'x'\n{text}"), &[]).unwrap();
        expand_kernels(&experiment, &[Backend::Flex])
    }

    fn shown(cells: &[KernelCell]) -> Vec<String> {
        cells.iter().map(|cell| cell.to_string().trim_end_matches(" flex f32").to_owned()).collect()
    }

    #[test]
    fn dense_is_there_once_whatever_is_listed() {
        let expected = ["dense 8x4 1 token", "dense 8x4 2 tokens", "csr 8x4 50 % 1 token", "csr 8x4 50 % 2 tokens"];
        let block = |formats: &str| {
            format!("[[kernel]]\nshape = [8, 4]\ntokens = [1, 2]\nsparsity = 0.5\nformat = {formats}\n")
        };
        assert_eq!(shown(&cells(&block("'csr'"))), expected);
        assert_eq!(shown(&cells(&block("['csr', 'dense']"))), expected);
        let dense_only = "[[kernel]]\nshape = [8, 4]\ntokens = [1, 2]\nformat = 'dense'\n";
        assert_eq!(shown(&cells(dense_only)), expected[..2]);
    }

    #[test]
    fn blocks_that_share_a_matrix_are_put_together() {
        let block = |shape: &str, tokens: usize, sparsity: f64| {
            format!("[[kernel]]\nshape = {shape}\ntokens = {tokens}\nsparsity = [{sparsity}]\nformat = 'csr'\n")
        };
        let text = [block("[8, 4]", 1, 0.333), block("[4, 4]", 1, 0.5), block("[8, 4]", 2, 0.5)].concat();
        let expected = [
            "dense 8x4 1 token",
            "dense 8x4 2 tokens",
            "csr 8x4 33.3 % 1 token",
            "csr 8x4 50 % 2 tokens",
            "dense 4x4 1 token",
            "csr 4x4 50 % 1 token",
        ];
        let cells = cells(&text);
        assert_eq!(shown(&cells), expected);
        let work: Vec<Work<'_>> = cells.iter().map(Work::Kernel).collect();
        let part: Partition = "slice:2/2".parse().unwrap();
        assert_eq!(part.mine(&work), [false, false, false, false, true, true]);
    }

    #[test]
    fn the_dense_cell_runs_beside_those_of_its_group() {
        let mut other = kernel(KernelFormat::Dense, None);
        other.tokens = 7;
        let cells = [kernel(KernelFormat::Dense, None), other, kernel(KernelFormat::Csr, Some(0.5))];
        let run = |decisions: [Decision; 3], selected: [bool; 3]| {
            let (mut decisions, mut selected) = (decisions, selected);
            let mut all: Vec<_> =
                cells.iter().zip(&mut decisions).zip(&mut selected).map(|((cell, d), s)| (cell, d, s)).collect();
            accompany(&mut all);
            let words = decisions.map(|decision| decision.word());
            (words, selected)
        };
        let (cached, new) = (Decision::Cached, Decision::New);
        let kept = run([cached.clone(), cached.clone(), cached.clone()], [true; 3]);
        assert_eq!(kept, (["cached"; 3], [true; 3]));
        let beside = run([cached.clone(), cached.clone(), new.clone()], [false, false, true]);
        assert_eq!(beside, (["rerun", "cached", "new"], [true, false, true]));
        // A sparse cell that is left out needs no company.
        assert_eq!(run([cached.clone(), cached, new], [true, true, false]).0, ["cached", "cached", "new"]);
    }

    #[test]
    fn a_cell_survives_its_file() {
        for cell in [kernel(KernelFormat::Dense, None), kernel(KernelFormat::Auto, Some(0.3))] {
            let json = serde_json::to_string(&cell).unwrap();
            assert_eq!(serde_json::from_str::<KernelCell>(&json).unwrap(), cell);
        }
    }
}
