//! The numbers of model cells, as they are stored and as reports see them.

use super::cell::{Failure, Numbers, PartRecord, Record, Timings};
use crate::measure::{Agreement, Gate, Latency, Structure};
use crate::plan::{Cell, CellId, Of, Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}

impl Measured {
    /// As they are stored, group by group.
    pub fn into_numbers(self) -> Vec<Numbers> {
        let Self { structure, dense_nonzero, ties, agreement, perplexity, gate, kernels, latency } = self;
        [
            Some(Numbers::Structure(Box::new(Sizes { structure, dense_nonzero, ties }))),
            agreement.map(Numbers::Agreement),
            perplexity.map(Numbers::Perplexity),
            gate.map(|gate| Numbers::Gate(GateRun { gate, kernels })),
            latency.map(Numbers::Latency),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// From the groups; none without the structure.
    fn of(groups: &[PartRecord]) -> Option<Self> {
        /// What one of the groups holds.
        fn find<'a, T>(groups: &'a [PartRecord], get: impl Fn(&'a Numbers) -> Option<&'a T>) -> Option<&'a T> {
            groups.iter().find_map(|part| get(&part.result))
        }
        macro_rules! get {
            ($group:ident) => {
                find(groups, |numbers| if let Numbers::$group(of) = numbers { Some(of) } else { None })
            };
        }
        let Sizes { structure, dense_nonzero, ties } = (**get!(Structure)?).clone();
        let ran: Option<&GateRun> = get!(Gate);
        Some(Self {
            structure,
            dense_nonzero,
            ties,
            agreement: get!(Agreement).copied(),
            perplexity: get!(Perplexity).copied(),
            gate: ran.map(|ran| ran.gate),
            kernels: ran.map_or_else(Vec::new, |ran| ran.kernels.clone()),
            latency: get!(Latency).cloned(),
        })
    }
}

/// A model cell as reports see it: the groups of its results that are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct CellResult {
    /// The cell's name.
    pub id: CellId,
    /// What was run.
    pub cell: Cell,
    /// The numbers, unless there are none or the gate was missed.
    pub measured: Option<Measured>,
    /// Why its last measurement failed, if it did.
    pub failure: Option<Failure>,
    /// How long it took.
    pub timings: Timings,
    /// What its latency was measured with and on, where it was.
    pub timed_on: Option<Settings>,
}

impl CellResult {
    /// Of a record, if it is one of a model cell.
    pub fn of(record: &Record) -> Option<Self> {
        let cell = Cell::of(&record.cell)?;
        // A variant that was shown to be no faithful execution has no numbers, also none from before.
        let faithful = record.failure.as_ref().is_none_or(|failure| failure.gate.is_none());
        let timed = record.results.iter().find(|part| matches!(part.result, Numbers::Latency(_)));
        Some(Self {
            id: record.id.clone(),
            cell: cell.clone(),
            measured: Measured::of(&record.results).filter(|_| faithful),
            failure: record.failure.clone(),
            timings: record.timings,
            timed_on: timed.and_then(|part| part.inputs.0.values().next().cloned()),
        })
    }
}
