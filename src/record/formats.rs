//! The files' formats. A change that old files don't fit raises [`CellRecord::FORMAT`].

use super::provenance::{Machine, Program};
use crate::measure::{Agreement, Gate, Latency, Structure};
use crate::plan::{Cell, CellId, InputDigests, KernelCell};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `cells/ID.json` of a model: finished or failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CellRecord {
    /// The format's version.
    pub format: u32,
    /// The cell's name.
    pub id: CellId,
    /// What was run.
    pub cell: Cell,
    /// What it read.
    pub inputs: InputDigests,
    /// The program that ran it.
    pub program: Program,
    /// The numbers, of a finished cell.
    pub measured: Option<Measured>,
    /// Why it failed, of a failed one.
    pub failure: Option<Failure>,
    /// How long it took, and the memory it took.
    pub timings: Timings,
    /// When it was finished.
    pub finished: String,
}

impl CellRecord {
    /// The version of the format.
    pub const FORMAT: u32 = 1;
}

/// The numbers of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// How large the variant is.
    pub structure: Structure,
    /// Non-zero parameters of the dense model.
    pub dense_nonzero: u64,
    /// How closely it follows the dense model.
    pub agreement: Option<Agreement>,
    /// exp of the mean negative log-likelihood.
    pub perplexity: Option<f64>,
    /// How far a sparse variant is from the masked one.
    pub gate: Option<Gate>,
    /// The kernels that the pruned linears of a sparse variant ran.
    pub kernels: Vec<KernelUse>,
    /// How long it takes, for every batch size and prompt length.
    pub latency: Option<Vec<Latency>>,
    /// Weights about which the order of equal scores decided, of methods that score every weight once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ties: Option<Ties>,
}

/// Weights about which the order of equal scores decided: beyond those that were to go, but of the score of the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ties {
    /// How many.
    pub weights: u64,
    /// Of how many weights that competed.
    pub of: u64,
}

/// A kernel that linears of a model ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelUse {
    /// The code path, `csr-avx512-tiles`, say.
    pub kernel: String,
    /// Tokens of the forward pass.
    pub tokens: usize,
    /// Linears that ran it.
    pub linears: usize,
}

/// Why a cell failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// In a word.
    pub kind: FailureKind,
    /// In a sentence.
    pub message: String,
    /// The gate's figures, where it was missed.
    pub gate: Option<Gate>,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Sparse and masked execution disagree, or a kernel and its reference.
    Gate,
    /// A logit is NaN or infinite.
    NotFinite,
    /// The prune point does not fit the model.
    Pruning,
    /// Anything else.
    Other,
}

/// How long a cell took, in seconds. Work shared by several cells is counted at each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timings {
    /// Reading the model and moving it to the device.
    pub load_seconds: f64,
    /// Gathering statistics for the pruning, where the method needs any.
    pub calibrate_seconds: Option<f64>,
    /// Deciding which weights go.
    pub prune_seconds: Option<f64>,
    /// Changing the format.
    pub convert_seconds: Option<f64>,
    /// The first call on a device: kernels are compiled and tuned in it, unless the cache has them.
    pub compile_seconds: Option<f64>,
    /// Everything that `metrics` lists, and the gate.
    pub measure_seconds: f64,
    /// The most memory that the process had held by then, where the system says so.
    pub peak_rss_bytes: Option<u64>,
}

/// `plan.json`: the cells of the experiment, after defaults and overrides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    /// The format's version.
    pub format: u32,
    /// The experiment's name.
    pub name: String,
    /// Its title.
    pub title: Option<String>,
    /// Every cell, in order.
    pub cells: Vec<PlanEntry>,
    /// Every kernel cell, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelEntry>,
    /// Numbers that the run must reproduce.
    pub expectations: Vec<ExpectRecord>,
}

impl PlanRecord {
    /// The version of the format.
    pub const FORMAT: u32 = 1;
}

/// A cell of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanEntry {
    /// Its name.
    pub id: CellId,
    /// What it is.
    pub cell: Cell,
}

/// A kernel cell of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelEntry {
    /// Its name.
    pub id: CellId,
    /// What it is.
    pub kernel: KernelCell,
}

/// An `[[expect]]` of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectRecord {
    /// The cells it is about, `method = magnitude, sparsity = 0.3`.
    pub r#where: String,
    /// The cells themselves.
    pub cells: Vec<CellId>,
    /// A column of `summary.csv`.
    pub metric: String,
    /// The value.
    pub value: f64,
    /// The largest accepted difference.
    pub tolerance: f64,
    /// Where the value comes from.
    pub source: Option<String>,
}

/// `runs/*.json`: one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// The command line.
    pub argv: Vec<String>,
    /// The program.
    pub program: Program,
    /// Where it ran.
    pub machine: Machine,
    /// When it began.
    pub started: String,
    /// When it ended.
    pub ended: String,
    /// Its exit code.
    pub exit_code: u8,
    /// Cells that it ran.
    pub ran: usize,
    /// Of those, the ones that failed.
    pub failed: usize,
    /// Cells that were there already.
    pub kept: usize,
}

/// A file or text that results depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputRecord {
    /// The model or text source.
    pub source: String,
    /// The file within it, of a model.
    pub file: Option<String>,
    /// Its SHA-256.
    pub sha256: String,
    /// Its size.
    pub bytes: Option<u64>,
    /// The commit, for a model of the hub.
    pub commit: Option<String>,
}

/// `manifest.json`: where the numbers come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format's version.
    pub format: u32,
    /// The experiment's name.
    pub name: String,
    /// SHA-256 of `experiment.toml`.
    pub experiment_sha256: String,
    /// Models and texts.
    pub inputs: Vec<InputRecord>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The program that ran last.
    pub program: Program,
    /// Where it ran.
    pub machine: Machine,
    /// The command line.
    pub argv: Vec<String>,
    /// When it was written.
    pub written: String,
}
