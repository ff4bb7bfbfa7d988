//! `cells/ID.json`: one envelope around the results of every kind of work.
//!
//! ```text
//!   Record   format, id, cell (the task), inputs      ── what was run; the id follows from it
//!     results [PartRecord]                            ── each measured, kept and told by itself
//!        id, inputs      what decides these numbers
//!        result          Numbers: a row for every group of results
//!        program, finished, origin                    ── the experiment that it was copied from
//!     failure            why the last measurement failed, and of which parts
//!     digest             of all of the above: what was changed by hand is not believed
//! ```
//! Several results of one group may stand side by side, of 4 and of 8 windows, say: going back measures nothing.
//! A change that old files don't fit raises [`Record::FORMAT`].

use super::numbers::Numbers;
use super::provenance::Program;
use crate::measure::Gate;
use crate::plan::{CellId, Existing, Failed, GATE, Inputs, Known, Task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `cells/ID.json`: what is known of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The format's version.
    pub format: u32,
    /// The cell's name.
    pub id: CellId,
    /// What was run.
    pub cell: Task,
    /// What it read, or what its results depend on beside the cell.
    pub inputs: Inputs,
    /// Groups of results, each with a name of its own; the last one of a group was measured last.
    pub results: Vec<PartRecord>,
    /// Why the last measurement failed, if it did.
    pub failure: Option<Failure>,
    /// How long the last measurement took, and the memory it took.
    pub timings: Timings,
    /// The program that ran it.
    pub program: Program,
    /// When it was finished.
    pub finished: String,
    /// SHA-256 of all of the above, white space aside.
    #[serde(default)]
    pub digest: String,
}

/// What a cell's file says of itself at a glance.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Outline {
    /// The format's version.
    pub format: u32,
    /// The names of its groups of results.
    pub results: Vec<PartOutline>,
    /// Why the last measurement failed, if it did.
    pub failure: Option<Failure>,
    /// How long the last measurement took.
    pub timings: Timings,
}

/// The name of a group of results.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PartOutline {
    /// Its name.
    pub id: CellId,
    /// The program that measured it.
    pub program: Program,
}

/// A group of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// Its name.
    pub id: CellId,
    /// What it depends on beside the cell.
    pub inputs: Inputs,
    /// The numbers.
    pub result: Numbers,
    /// The program that measured them.
    pub program: Program,
    /// When that was.
    pub finished: String,
    /// The experiment that they were copied from, where they were measured in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

impl Record {
    /// The version of the format. Cells of another are measured again.
    pub const FORMAT: u32 = 2;

    /// The name that follows from what was run and what it read.
    pub fn own_id(&self) -> CellId {
        CellId::new(&self.cell, &self.inputs)
    }

    /// Whether the names of all parts follow from what they depend on.
    pub fn parts_are_own(&self) -> bool {
        let own = |part: &PartRecord| CellId::of_part(&self.id, part.result.group(), &part.inputs);
        self.results.iter().all(|part| part.id == own(part))
    }

    /// What it says about itself when it is decided what to do.
    pub fn existing(&self) -> Existing {
        let known = |part: &PartRecord| Known {
            id: part.id.clone(),
            group: part.result.group().into(),
            inputs: part.inputs.clone(),
            program: part.program.to_string(),
            accepted: Vec::new(),
        };
        let failed = |failure: &Failure| Failed { parts: failure.parts.clone(), message: failure.message.clone() };
        Existing::There { known: self.results.iter().map(known).collect(), failed: self.failure.as_ref().map(failed) }
    }

    /// Puts results in the place of those of the same names, the last ones measured last.
    pub fn add(&mut self, parts: Vec<PartRecord>) {
        self.results.retain(|known| parts.iter().all(|part| part.id != known.id));
        self.results.extend(parts);
    }

    /// The results that are wanted: by their names, and of a group that is told with them its last one.
    #[must_use]
    pub fn only(mut self, wanted: &[CellId]) -> Self {
        let told = |part: &PartRecord| part.result.group() == GATE;
        let last = self.results.iter().rev().filter(|part| told(part)).map(|part| part.id.clone());
        let exact = self.results.iter().any(|part| told(part) && wanted.contains(&part.id));
        let last: Vec<CellId> = last.take(usize::from(!exact)).collect();
        self.results.retain(|part| wanted.contains(&part.id) || last.contains(&part.id));
        let of_wanted = |failure: &Failure| failure.parts.iter().any(|part| wanted.contains(part));
        self.failure = self.failure.filter(of_wanted);
        self
    }

    /// The last results of every group.
    #[must_use]
    pub fn latest(self) -> Self {
        let mut last: Vec<&PartRecord> = Vec::new();
        for part in self.results.iter().rev() {
            if last.iter().all(|known| known.result.group() != part.result.group()) {
                last.push(part);
            }
        }
        let mut wanted: Vec<CellId> = last.into_iter().map(|part| part.id.clone()).collect();
        wanted.extend(self.failure.iter().flat_map(|failure| failure.parts.clone()));
        self.only(&wanted)
    }
}

/// Why a measurement failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// In a word.
    pub kind: FailureKind,
    /// In a sentence.
    pub message: String,
    /// The gate's figures, where it was missed.
    pub gate: Option<Gate>,
    /// The parts that were to be measured.
    #[serde(default)]
    pub parts: Vec<CellId>,
}

impl Failure {
    /// Of a kind, with a message.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), gate: None, parts: Vec::new() }
    }
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

/// How long a measurement took, in seconds. Work shared by several cells is counted at each.
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
    /// The most memory that the process held while it was measured, where the system says so.
    pub peak_rss_bytes: Option<u64>,
}
