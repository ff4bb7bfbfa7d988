//! What workers and the process that started them say to each other: a line of JSON each.
//!
//! ```text
//!   worker                                    who started it
//!     ready                      ──>
//!                                <──          run: the cells that are to be run, with the groups that are due
//!     take: cells of a point     ──>
//!                                <──          yours: those of them that are this worker's, maybe none
//!     loading, begins, stage, done ──>
//!     again                      ──>          waits while a worker that may die has cells
//!                                <──          again: true, false
//!     late                       ──>          its time is over: the clocks of two processes may differ a little
//!     failed                     ──>          what ends the run
//! ```
//! A worker whose input ends is not wanted any more, and ends.

use crate::plan::CellId;
use serde::{Deserialize, Serialize};

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "kebab-case")]
pub(super) enum Said {
    /// It has the plan.
    Ready,
    /// It asks for cells that belong together.
    Take { cells: Vec<CellId> },
    /// It has gone through all cells.
    Again,
    /// It loads a model.
    Loading { model: String, backend: String },
    /// It begins a cell.
    Begins { cell: CellId },
    /// What it does for it.
    Stage { stage: String },
    /// A cell is stored.
    Done { cell: CellId, failed: bool },
    /// The time is over, and cells that it had did not begin.
    Late,
    /// What ends the run.
    Failed { code: u8, message: String, hint: Option<String> },
}

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "kebab-case")]
pub(super) enum Told {
    /// All cells that are to be run, by any worker.
    Run { cells: Vec<Due> },
    /// Those of the cells that it asked for that are its own.
    Yours { cells: Vec<CellId> },
    /// Whether to go through all cells once more.
    Again { again: bool },
}

/// A cell that is to be run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Due {
    pub cell: CellId,
    /// The groups that are measured.
    pub groups: Vec<String>,
}

/// As a line, without its end.
pub(super) fn line(message: &impl Serialize) -> String {
    // Names and numbers can always be written.
    serde_json::to_string(message).unwrap_or_default()
}
