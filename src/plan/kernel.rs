//! Kernel cells: one bare linear in one format each, timed without a model.
//!
//! ```text
//!   matrix   backend, dtype, shape, seed, warmup, repeats     stays in one partition
//!     group  and tokens                                       compared in one process
//!       cell and format, sparsity
//! ```
//! A speed-up is over the dense kernel of the same group, timed by the same process: when any cell of
//! a group runs, its dense cell runs too ([`accompany`]).

use super::given::{BlockFiles, Given, OwnKernel};
use super::model::{Backend, bits};
use super::resume::Decision;
use super::task::{Inputs, Kind, Of, Planned, Task};
use crate::column::{self, Column};
use crate::config::Experiment;
use crate::config::arena::LaunchProblem;
use crate::config::experiment::{Dtype, KernelBlock, KernelFormat, percent};
use crate::config::expression::Sizes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

/// One kernel cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelCell {
    /// Where it runs.
    pub backend: Backend,
    /// What weight, input and output are made of.
    pub dtype: Dtype,
    /// `[out_features, in_features]` of the weight.
    pub shape: [usize; 2],
    /// Rows of the input.
    pub tokens: usize,
    /// How the weight is stored.
    pub format: KernelFormat,
    /// The share of weights that is zero, of `threshold` the share of the input; none for `dense`.
    pub sparsity: Option<f64>,
    /// Of the weight, its pattern and the input.
    pub seed: u64,
    /// Calls before the first that counts.
    pub warmup: usize,
    /// Calls that are timed.
    pub repeats: usize,
    /// What takes the place of our kernels and of random numbers.
    #[serde(default, skip_serializing_if = "Given::is_empty")]
    pub given: Given,
}

impl KernelCell {
    /// Whether two cells differ in no more than tokens, format and sparsity: they share a weight.
    pub fn same_matrix(&self, other: &Self) -> bool {
        self.matrix() == other.matrix()
    }

    /// What cells of one weight have in common.
    fn matrix(&self) -> impl Eq + Hash + use<> {
        let Given { weight, input, .. } = &self.given;
        (self.backend, self.dtype, self.shape, self.seed, self.warmup, self.repeats, weight.clone(), input.clone())
    }

    /// What its format is called: a user's kernel by its function.
    pub fn label(&self) -> &str {
        self.given.kernel.as_ref().map_or(self.format.name(), |kernel| &kernel.entry)
    }

    /// What cells have in common that are compared.
    fn group(&self) -> impl Eq + Hash + use<> {
        (self.matrix(), self.tokens)
    }

    /// All that it is.
    fn key(&self) -> impl Eq + Hash + use<> {
        (self.group(), self.format, self.sparsity.map(f64::to_bits), self.given.kernel.clone())
    }

    /// Whether two cells differ in no more than tokens: they multiply the same stored weight, but for `auto`,
    /// whose form depends on them, and formats on a GPU, which are stored otherwise for a few tokens than for many.
    pub fn same_weight(&self, other: &Self) -> bool {
        self.same_matrix(other)
            && (self.format, self.sparsity) == (other.format, other.sparsity)
            && self.given == other.given
            && match self.format {
                KernelFormat::Auto | KernelFormat::Source => self.tokens == other.tokens,
                KernelFormat::Sparse(_) if self.backend == Backend::Cuda => self.tokens == other.tokens,
                KernelFormat::Dense | KernelFormat::Sparse(_) | KernelFormat::Threshold => true,
            }
    }
}

impl fmt::Display for KernelCell {
    /// `csr 4096x4096 50 % 16 tokens flex f32`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [out, inp] = self.shape;
        write!(f, "{} {out}x{inp}", self.label())?;
        if let Some(sparsity) = self.sparsity {
            write!(f, " {} %", percent(sparsity))?;
        }
        write!(f, " {} token{}", self.tokens, if self.tokens == 1 { "" } else { "s" })?;
        write!(f, " {} {}", self.backend, self.dtype.name())
    }
}

/// The part that has the times of a kernel.
pub const TIMES: &str = "times";

/// What a kernel's time depends on beside its cell: the name of the processor or GPU, threads on the CPU, and the
/// version of how kernels are chosen and timed.
pub fn kernel_inputs(device: &str, threads: Option<usize>, kernels: u32) -> Inputs {
    let machine = [("device", json!(device)), ("threads", json!(threads)), ("kernels", json!(kernels))];
    Inputs::default().with("machine", machine)
}

impl Kind for KernelCell {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn canonical(&self) -> Value {
        let Self { backend, dtype, shape, tokens, format, sparsity, seed, warmup, repeats, given } = self;
        let mut canonical = json!({
            "backend": backend.name(),
            "dtype": dtype.name(),
            "shape": shape,
            "tokens": tokens,
            "format": format.name(),
            "sparsity": sparsity.map(bits),
            "seed": seed,
            "warmup": warmup,
            "repeats": repeats,
        });
        // Cells without it keep the names that they had before it was there.
        if let (false, Some(object)) = (given.is_empty(), canonical.as_object_mut()) {
            object.insert("given".into(), given.canonical());
        }
        canonical
    }

    fn backend(&self) -> Backend {
        self.backend
    }

    fn belongs_with(&self, other: &Task) -> bool {
        Self::of(other).is_some_and(|other| self.same_matrix(other))
    }

    fn same_batch(&self, other: &Task) -> bool {
        self.belongs_with(other)
    }

    fn setup(&self) -> String {
        match self.sparsity {
            Some(sparsity) => format!("{}{}", self.label(), (sparsity * 1000.0).round() / 10.0),
            None => self.label().to_owned(),
        }
    }

    fn key(&self) -> Vec<(&'static str, column::Value)> {
        column::entries(Self::KEY, self)
    }
}

impl KernelCell {
    /// What tells kernel cells apart.
    pub const KEY: &[Column<Self>] = &[
        Column { name: "format", help: "the form in which the weight is stored", get: |cell| cell.label().into() },
        Column { name: "backend", help: "what it runs on", get: |cell| cell.backend.name().into() },
        Column { name: "dtype", help: "the number format", get: |cell| cell.dtype.into() },
        Column { name: "out_features", help: "rows of the weight", get: |cell| cell.shape[0].into() },
        Column { name: "in_features", help: "columns of the weight", get: |cell| cell.shape[1].into() },
        Column { name: "tokens", help: "rows of the input", get: |cell| cell.tokens.into() },
        Column { name: "sparsity_target", help: "the sparsity asked for", get: |cell| cell.sparsity.into() },
        Column { name: "seed", help: "the seed of everything random", get: |cell| cell.seed.into() },
    ];
}

/// Every kernel cell of an experiment, each once; `files` has those of each block.
///
/// The cells of a matrix follow each other, the dense ones first: also where the file does not list
/// `dense`, since speed-ups are over it. Cells that share a stored weight follow each other too.
///
/// # Errors
/// When a user's kernel can't be launched for a shape.
pub fn expand_kernels(
    experiment: &Experiment,
    backends: &[Backend],
    files: &[BlockFiles],
) -> Result<Vec<KernelCell>, LaunchProblem> {
    let mut seen = HashSet::new();
    // Blocks may share a matrix: its cells go where the first of them is.
    let mut places = HashMap::new();
    let mut placed: Vec<(usize, bool, KernelCell)> = Vec::new();
    let none = BlockFiles::default();
    for &backend in backends {
        for (index, block) in experiment.kernels.iter().enumerate() {
            for cell in block_cells(block, files.get(index).unwrap_or(&none), backend, &experiment.seeds)? {
                if seen.insert(cell.key()) {
                    let next = places.len();
                    let place = *places.entry(cell.matrix()).or_insert(next);
                    placed.push((place, cell.format != KernelFormat::Dense, cell));
                }
            }
        }
    }
    placed.sort_by_key(|(place, sparse, _)| (*place, *sparse));
    Ok(placed.into_iter().map(|(.., cell)| cell).collect())
}

fn block_cells(
    block: &KernelBlock,
    files: &BlockFiles,
    backend: Backend,
    seeds: &[u64],
) -> Result<Vec<KernelCell>, LaunchProblem> {
    let shapes: Vec<[usize; 2]> = match &files.weight {
        Some(weight) => vec![weight.shape],
        None => block.shapes.iter().map(|shape| shape.0).collect(),
    };
    let tokens: Vec<usize> = match &files.input {
        Some(input) if block.tokens.is_empty() => vec![input.shape[0]],
        _ => block.tokens.clone(),
    };
    let mut cells = Vec::new();
    for &dtype in &block.dtypes {
        for &shape in &shapes {
            for &seed in seeds {
                for &(format, sparsity) in &weights(block, files) {
                    for &tokens in &tokens {
                        let given = given(block, files, format, shape, tokens, sparsity)?;
                        let (warmup, repeats) = (block.warmup, block.repeats);
                        cells.push(KernelCell {
                            backend,
                            dtype,
                            shape,
                            tokens,
                            format,
                            sparsity,
                            seed,
                            warmup,
                            repeats,
                            given,
                        });
                    }
                }
            }
        }
    }
    Ok(cells)
}

/// Every format with its sparsities: a weight of a file has its own, but for `threshold`, of which the input's is meant.
fn weights(block: &KernelBlock, files: &BlockFiles) -> Vec<(KernelFormat, Option<f64>)> {
    let own = files.weight.as_ref().map(|weight| {
        let numbers = weight.shape[0] * weight.shape[1];
        vec![1.0 - weight.nonzero as f64 / numbers.max(1) as f64]
    });
    let sparse = block.formats.iter().filter(|&&format| format != KernelFormat::Dense);
    let sparse = sparse.flat_map(|&format| {
        let of_file = own.as_ref().filter(|_| format != KernelFormat::Threshold);
        of_file.unwrap_or(&block.sparsities).iter().map(move |&sparsity| (format, Some(sparsity)))
    });
    std::iter::once((KernelFormat::Dense, None)).chain(sparse).collect()
}

fn given(
    block: &KernelBlock,
    files: &BlockFiles,
    format: KernelFormat,
    [rows, cols]: [usize; 2],
    tokens: usize,
    sparsity: Option<f64>,
) -> Result<Given, LaunchProblem> {
    let weight = files.weight.as_ref().map(|weight| weight.file.clone());
    let input = files.input.as_ref().map(|input| input.file.clone());
    let (KernelFormat::Source, Some(kernel), Some(source)) = (format, &block.source, &files.source) else {
        return Ok(Given { kernel: None, weight, input });
    };
    let all = (rows * cols) as u64;
    // As many as a random pattern leaves.
    let random = || all - ((sparsity.unwrap_or(0.0) * all as f64) as u64).min(all);
    let nnz = files.weight.as_ref().map_or_else(random, |weight| weight.nonzero);
    let sizes = Sizes { rows: rows as u64, cols: cols as u64, tokens: tokens as u64, nnz };
    let launch = kernel.launch(sizes)?;
    let kernel = OwnKernel {
        source: source.clone(),
        entry: kernel.entry.clone(),
        layout: kernel.layout,
        grid: launch.grid,
        block: launch.block,
        shared: launch.shared,
    };
    Ok(Given { kernel: Some(kernel), weight, input })
}

/// Adds the dense cell of every group of which a cell runs.
pub fn accompany(cells: &mut [Planned]) {
    let running = cells.iter().filter(|planned| planned.runs()).filter_map(|planned| KernelCell::of(&planned.task));
    let running: HashSet<_> = running.map(KernelCell::group).collect();
    for planned in cells {
        let dense = KernelCell::of(&planned.task).filter(|cell| cell.format == KernelFormat::Dense);
        if dense.is_some_and(|cell| running.contains(&cell.group())) {
            planned.selected = true;
            if !planned.decision.runs() {
                planned.taken_from = None;
                planned.again(Decision::Beside);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::task::Part;
    use super::super::{CellId, Partition};
    use super::*;
    use crate::config;
    use crate::config::format::Format;
    use std::path::Path;

    /// A cell for the tests of this folder.
    pub(crate) fn kernel(format: KernelFormat, sparsity: Option<f64>) -> KernelCell {
        let (backend, dtype, shape) = (Backend::Flex, Dtype::F32, [8, 4]);
        KernelCell {
            backend,
            dtype,
            shape,
            tokens: 2,
            format,
            sparsity,
            seed: 0,
            warmup: 0,
            repeats: 3,
            given: Given::default(),
        }
    }

    /// What they run on.
    pub(crate) fn inputs() -> Inputs {
        kernel_inputs("a processor", Some(2), 1)
    }

    fn cells(text: &str) -> Vec<KernelCell> {
        let experiment = config::parse(Path::new("x.toml"), &format!("name = 'x'\n{text}"), &[]).unwrap();
        expand_kernels(&experiment, &[Backend::Flex], &[]).unwrap()
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
        let tasks: Vec<Task> = cells.into_iter().map(Task::from).collect();
        let part: Partition = "slice:2/2".parse().unwrap();
        assert_eq!(part.mine(&tasks.iter().collect::<Vec<_>>()), [false, false, false, false, true, true]);
    }

    #[test]
    fn the_dense_cell_runs_beside_those_of_its_group() {
        let mut other = kernel(KernelFormat::Dense, None);
        other.tokens = 7;
        let cells = [kernel(KernelFormat::Dense, None), other, kernel(KernelFormat::Sparse(Format::Csr), Some(0.5))];
        let run = |decisions: [Decision; 3], selected: [bool; 3]| {
            let part = |id: &CellId| vec![Part::new(id, TIMES, Inputs::default())];
            let planned = |cell: &KernelCell| Planned::new(cell.clone(), inputs(), part, 0);
            let mut all: Vec<Planned> = cells.iter().map(planned).collect();
            for ((planned, decision), selected) in all.iter_mut().zip(decisions).zip(selected) {
                (planned.decision, planned.selected) = (decision, selected);
            }
            accompany(&mut all);
            let of = |index: usize| &all[index];
            let words = [0, 1, 2].map(|index| of(index).decision.word());
            (words, [0, 1, 2].map(|index| of(index).selected))
        };
        let (cached, new) = (Decision::Cached, Decision::New { why: Vec::new() });
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
            let task = Task::from(cell);
            let json = serde_json::to_string(&task).unwrap();
            assert_eq!(serde_json::from_str::<Task>(&json).unwrap(), task);
        }
    }
}
