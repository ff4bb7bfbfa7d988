//! The formats of the files beside the cells: the plan, the runs, the manifest.

use super::origin::OriginRecord;
use super::provenance::{Machine, Program, now};
use crate::config::pivot::PivotSpec;
use crate::config::plots::PlotWidth;
use crate::config::query::Query;
use crate::plan::{CellId, Part, Planned, Task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `plan.json`: the cells of the experiment, after defaults and overrides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    /// The format's version.
    pub format: u32,
    /// The experiment's name.
    pub name: String,
    /// Where the experiment file came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginRecord>,
    /// Its title.
    pub title: Option<String>,
    /// Every cell, in order.
    pub cells: Vec<PlanEntry>,
    /// Numbers that the run must reproduce.
    pub expectations: Vec<ExpectRecord>,
    /// How wide figures are.
    #[serde(default, skip_serializing_if = "PlotWidth::is_default")]
    pub plot_width: PlotWidth,
    /// Questions to the tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<Query>,
    /// Tables for a paper.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pivots: Vec<PivotSpec>,
}

impl PlanRecord {
    /// The version of the format.
    pub const FORMAT: u32 = 2;
}

/// A cell of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanEntry {
    /// Its name.
    pub id: CellId,
    /// What it is.
    pub cell: Task,
    /// The groups of its results that the experiment wants.
    pub parts: Vec<PlanPart>,
}

/// A group of results of a cell of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanPart {
    /// Its name.
    pub id: CellId,
    /// The group.
    pub group: String,
    /// Whether it only says how the others came to be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
}

impl PlanEntry {
    /// Of a planned cell.
    pub fn of(planned: &Planned) -> Self {
        let part = |part: &Part| PlanPart { id: part.id.clone(), group: part.group.into(), check: part.check };
        let parts = planned.parts.iter().map(part);
        Self { id: planned.id.clone(), cell: planned.task.clone(), parts: parts.collect() }
    }
}

/// An `[[expect]]` of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectRecord {
    /// The cells it is about, `method = magnitude, sparsity = 0.3`.
    pub r#where: String,
    /// The cells themselves.
    pub cells: Vec<CellId>,
    /// A column of `summary.csv`, or a metric of the task.
    pub metric: String,
    /// The task, or the mean of tasks, that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The value.
    pub value: f64,
    /// The largest accepted difference.
    pub tolerance: f64,
    /// Where the value comes from.
    pub source: Option<String>,
}

/// `runs/*.json`: one process, written when it begins, now and then while it runs, and when it ends.
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
    /// The host that it ran on.
    #[serde(default)]
    pub host: String,
    /// Its number there.
    #[serde(default)]
    pub pid: u32,
    /// When it last gave a sign of life, while it runs.
    #[serde(default)]
    pub seen: Option<String>,
    /// What it does, while it runs.
    #[serde(default)]
    pub doing: Option<String>,
    /// How many processes measure for it, while it runs, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<usize>,
    /// When it ended; none of one that runs, or was killed.
    pub ended: Option<String>,
    /// Its exit code, once it has ended.
    pub exit_code: Option<u8>,
    /// Cells that it ran.
    pub ran: usize,
    /// Of those, the ones that failed.
    pub failed: usize,
    /// Cells that were there already.
    pub kept: usize,
    /// The processes that measured for this one, where there were several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerRecord>,
}

impl RunRecord {
    /// Of a process that begins now, before anything is known of it but what it is.
    pub fn new(argv: Vec<String>, machine: Machine, host: String, pid: u32) -> Self {
        Self {
            argv,
            program: Program::current(),
            machine,
            started: now(),
            host,
            pid,
            seen: None,
            doing: None,
            at_once: None,
            ended: None,
            exit_code: None,
            ran: 0,
            failed: 0,
            kept: 0,
            workers: Vec::new(),
        }
    }
}

/// A process that measured for another one. Timed cells are measured after all have ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerRecord {
    /// Its number in the system.
    pub process: u32,
    /// Its GPU, if it had one.
    pub gpu: Option<usize>,
    /// Its CPU threads.
    pub threads: usize,
    /// When it began.
    pub started: String,
    /// When it ended.
    pub ended: String,
    /// Cells that it ran.
    pub cells: usize,
    /// How it ended, as the system says.
    pub end: String,
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
    /// Where that file came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginRecord>,
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
