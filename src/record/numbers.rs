//! The numbers of a cell.
//!
//! ```text
//!   Numbers   a group of results as it is stored, `{"perplexity": 12.5}`; the kinds of work share one list
//!   Measured  the groups of a model cell put together, as reports see them      column() ──> summary.csv
//! ```

use super::analysis::AnalysisNumbers;
use super::cell::PartRecord;
use super::kernel::KernelMeasured;
use super::tasks::TaskNumbers;
use crate::choice::Choice;
use crate::column::Value;
use crate::config::experiment::{Metric, MetricColumn};
use crate::measure::{Agreement, Gate, Latency, Likelihood, Structure};
use crate::plan::{ANALYSIS, CellId, GATE, TIMES};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const MIB: f64 = (1 << 20) as f64;

/// The numbers of a group of results; the kinds of work share one list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Numbers {
    /// How large a model is.
    Structure(Box<Sizes>),
    /// How closely it follows the dense model.
    Agreement(Agreement),
    /// exp of the mean negative log-likelihood.
    Perplexity(f64),
    /// Bits of negative log-likelihood for each byte of a text.
    BitsPerByte(f64),
    /// A zero-shot task.
    Task(Box<TaskNumbers>),
    /// How long it takes, for every batch size and prompt length.
    Latency(Vec<Latency>),
    /// How a sparse variant ran.
    Gate(GateRun),
    /// The times of a bare kernel.
    Times(Box<KernelMeasured>),
    /// What an analysis gives.
    Analysis(Box<AnalysisNumbers>),
}

impl Numbers {
    /// The group, as plans call it.
    pub fn group(&self) -> &'static str {
        match self {
            Self::Structure(_) => Metric::Structure.name(),
            Self::Agreement(_) => Metric::Agreement.name(),
            Self::Perplexity(_) => Metric::Perplexity.name(),
            Self::BitsPerByte(_) => Metric::BitsPerByte.name(),
            Self::Task(of) => of.task.name(),
            Self::Latency(_) => Metric::Latency.name(),
            Self::Gate(_) => GATE,
            Self::Times(_) => TIMES,
            Self::Analysis(_) => ANALYSIS,
        }
    }
}

impl Numbers {
    /// Of numbers that have a file of their own: where it is, from the folder of results, and what is written to it.
    pub fn file(&self, cell: &CellId) -> Option<(PathBuf, String)> {
        self.with_file().map(|of| (of.path(cell), of.file()))
    }

    /// The numbers that have a file of their own.
    pub fn with_file(&self) -> Option<&TaskNumbers> {
        match self {
            Self::Task(of) => Some(of),
            Self::Structure(_)
            | Self::Agreement(_)
            | Self::Perplexity(_)
            | Self::BitsPerByte(_)
            | Self::Latency(_)
            | Self::Gate(_)
            | Self::Times(_)
            | Self::Analysis(_) => None,
        }
    }
}

/// How large a cell's model is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Module by module, and in total.
    pub structure: Structure,
    /// Non-zero parameters of the dense model.
    pub dense_nonzero: u64,
    /// Weights about which the order of equal scores decided, of methods that score every weight once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ties: Option<Ties>,
    /// The linears that were pruned, where any were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<PrunedLinears>,
}

/// The weights that were to be pruned: those of the linears, without biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrunedLinears {
    /// Weights other than zero.
    pub nonzero: u64,
    /// Weights.
    pub total: u64,
    /// Linears of experts that few tokens of the calibration reach, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scarce: Option<Scarce>,
}

/// Linears of experts that few tokens of the calibration reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scarce {
    /// Linears with fewer than 64 tokens.
    pub linears: u64,
    /// Those of them that no token reached: all of their inputs count alike.
    pub unreached: u64,
    /// Of how many of experts that were pruned.
    pub of: u64,
}

impl Scarce {
    /// Fewer tokens than this are few.
    pub const FEW: usize = 64;

    /// Counts some linears that read the same input.
    pub fn add(&mut self, linears: usize, tokens: usize) {
        let linears = linears as u64;
        self.of += linears;
        self.linears += if tokens < Self::FEW { linears } else { 0 };
        self.unreached += if tokens == 0 { linears } else { 0 };
    }

    /// None where every linear saw enough.
    pub fn found(self) -> Option<Self> {
        (self.linears > 0).then_some(self)
    }
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

/// How a sparse variant ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateRun {
    /// How far it is from the masked variant.
    pub gate: Gate,
    /// The kernels that the pruned linears ran.
    pub kernels: Vec<KernelUse>,
    /// What `auto` measured to choose their forms, where it did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
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

/// The numbers of a model cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// How large the variant is.
    pub structure: Structure,
    /// Non-zero parameters of the dense model.
    pub dense_nonzero: u64,
    /// Weights about which the order of equal scores decided, of methods that score every weight once.
    pub ties: Option<Ties>,
    /// The linears that were pruned, where any were.
    pub pruned: Option<PrunedLinears>,
    /// How closely it follows the dense model.
    pub agreement: Option<Agreement>,
    /// exp of the mean negative log-likelihood.
    pub perplexity: Option<f64>,
    /// Bits of negative log-likelihood for each byte of a text.
    pub bits_per_byte: Option<f64>,
    /// How far a sparse variant is from the masked one.
    pub gate: Option<Gate>,
    /// The kernels that the pruned linears of a sparse variant ran.
    pub kernels: Vec<KernelUse>,
    /// What was measured to choose them, each once.
    pub choices: Vec<Choice>,
    /// How long it takes, for every batch size and prompt length.
    pub latency: Option<Vec<Latency>>,
    /// Zero-shot tasks.
    pub tasks: Vec<TaskNumbers>,
}

impl Measured {
    /// The sizes alone.
    pub fn new(structure: Structure, dense_nonzero: u64) -> Self {
        let (ties, pruned, agreement, perplexity, bits_per_byte) = (None, None, None, None, None);
        let (gate, kernels, choices, latency, tasks) = (None, Vec::new(), Vec::new(), None, Vec::new());
        Self {
            structure,
            dense_nonzero,
            ties,
            pruned,
            agreement,
            perplexity,
            bits_per_byte,
            gate,
            kernels,
            choices,
            latency,
            tasks,
        }
    }

    /// As they are stored, group by group.
    pub fn into_numbers(self) -> Vec<Numbers> {
        let Self {
            structure,
            dense_nonzero,
            ties,
            pruned,
            agreement,
            perplexity,
            bits_per_byte,
            gate,
            kernels,
            choices,
            latency,
            tasks,
        } = self;
        [
            Some(Numbers::Structure(Box::new(Sizes { structure, dense_nonzero, ties, pruned }))),
            agreement.map(Numbers::Agreement),
            perplexity.map(Numbers::Perplexity),
            bits_per_byte.map(Numbers::BitsPerByte),
            gate.map(|gate| Numbers::Gate(GateRun { gate, kernels, choices })),
            latency.map(Numbers::Latency),
        ]
        .into_iter()
        .flatten()
        .chain(tasks.into_iter().map(|task| Numbers::Task(Box::new(task))))
        .collect()
    }

    /// From the groups; none without the structure. Of several of a group, the first counts.
    pub(super) fn of(groups: Vec<PartRecord>) -> Option<Self> {
        let mut sizes = None;
        let mut of = Self::new(Structure { nonzero: 0, total: 0, bytes: 0, layers: Vec::new() }, 0);
        for part in groups.into_iter().rev() {
            match part.result {
                Numbers::Structure(found) => sizes = Some(*found),
                Numbers::Agreement(found) => of.agreement = Some(found),
                Numbers::Perplexity(found) => of.perplexity = Some(found),
                Numbers::BitsPerByte(found) => of.bits_per_byte = Some(found),
                Numbers::Latency(found) => of.latency = Some(found),
                Numbers::Gate(found) => {
                    (of.gate, of.kernels, of.choices) = (Some(found.gate), found.kernels, found.choices)
                }
                Numbers::Task(found) => of.tasks.push(*found),
                Numbers::Times(_) | Numbers::Analysis(_) => {}
            }
        }
        of.tasks.reverse();
        let Sizes { structure, dense_nonzero, ties, pruned } = sizes?;
        Some(Self { structure, dense_nonzero, ties, pruned, ..of })
    }

    /// Takes what is wanted of what the likelihood of a text says.
    pub fn set_text(&mut self, of: &Likelihood, wanted: impl Fn(Metric) -> bool) {
        self.perplexity = wanted(Metric::Perplexity).then(|| of.perplexity());
        self.bits_per_byte = wanted(Metric::BitsPerByte).then(|| of.bits_per_byte());
    }

    /// A column of `summary.csv`.
    pub fn column(&self, column: MetricColumn) -> Value {
        let Self {
            structure,
            dense_nonzero,
            ties,
            pruned,
            agreement,
            perplexity,
            bits_per_byte,
            gate,
            kernels: _,
            choices: _,
            latency: _,
            tasks: _,
        } = self;
        let share = |part: u64, of: u64| part as f64 / of as f64;
        match column {
            MetricColumn::Nonzero => structure.nonzero.into(),
            MetricColumn::Total => structure.total.into(),
            MetricColumn::Sparsity => structure.sparsity().into(),
            MetricColumn::LinearSparsity => pruned.map(|of| 1.0 - share(of.nonzero, of.total)).into(),
            MetricColumn::SizeMb => (structure.bytes as f64 / MIB).into(),
            MetricColumn::ComputeRatio => share(structure.nonzero, *dense_nonzero).into(),
            MetricColumn::Top1Match => agreement.map(|of| of.top1_match).into(),
            MetricColumn::Top5Overlap => agreement.map(|of| of.top5_overlap).into(),
            MetricColumn::KlNats => agreement.map(|of| of.kl_nats).into(),
            MetricColumn::Perplexity => (*perplexity).into(),
            MetricColumn::BitsPerByte => (*bits_per_byte).into(),
            MetricColumn::GateMaxAbs => gate.map(|gate| gate.max_abs).into(),
            MetricColumn::GateMaxLogit => gate.map(|gate| gate.max_logit).into(),
            MetricColumn::Ties => ties.map(|ties| ties.weights).into(),
        }
    }
}
