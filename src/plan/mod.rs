//! What will run and why: the pure step between the experiment and the runner.
//!
//! ```text
//!   Experiment + resolved backends ──expand──> Task, a kind of work each ──select──> those wanted
//!   task + digests of its inputs ──identify──> CellId, of the cell and of each group of its results ─┐
//!   what cells/ID.json says ─────────────────────────────────────────────────────────────────────────┴─resume──>
//!                                                     new | add | copy | cached | stale | retry | rerun
//! ```
//!
//! task.rs is the envelope around every kind; model.rs, kernel.rs and analysis.rs are a kind each.
//!
//! Everything here is a function of its arguments: no files, no clock, no device.

mod analysis;
mod expand;
mod given;
mod identify;
mod kernel;
mod model;
mod pace;
mod point;
mod resume;
mod select;
mod task;
mod timed;

pub use analysis::{ANALYSIS, AnalysisCell, AnalysisSource, MatrixFrom, told_apart};
pub use expand::{expand, points};
pub use given::{BlockFiles, Given, GivenFile, GivenMatrix, OwnKernel};
pub use identify::{CellId, NUMERICS_VERSION};
pub use kernel::{KernelCell, TIMES, accompany, expand_kernels, kernel_inputs};
pub use model::{Backend, Cell, GATE, PartInputs, PrunePoint, parts};
pub use pace::{Class, Pace, Seconds};
pub use resume::{Accepted, Decision, Existing, Failed, Known, Rerun, decide};
pub use select::{Only, Partition, SelectError};
pub use task::{Inputs, Kind, Of, Part, Planned, Settings, Task};
pub use timed::{LatencyPoint, TimedOn};
