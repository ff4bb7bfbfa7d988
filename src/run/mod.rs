//! The runner: an experiment file becomes finished cells.
//!
//! ```text
//!   Experiment ──prepare.rs──> Prepared: models found, texts tokenised, cells named and decided
//!                                 │                             (`plan` stops here)
//!              group by model and backend
//!                                 v
//!   session.rs   Session<B>: the dense model on a device, its logits on the agreement texts
//!                                 │  group by prune point
//!                                 v
//!   patterns.rs  which weights go               calibrate.rs  the same, for all points that look at inputs at once
//!   point.rs     patterns ─> masked ─> logits ──gate──> sparse ─> logits ─> metrics
//!                                 │
//!   kernels.rs   bare kernels: copies of a weight, times, error      format.rs: a weight in its format
//!                                 │
//!                                 v
//!   record/      one Record a cell, written at once
//! ```
//!
//! export.rs makes a checkpoint of a point.
//!
//! This module brings the others together; it computes nothing itself and prints nothing.

mod calibrate;
mod cells;
mod export;
mod format;
mod kernels;
mod memory;
mod panics;
mod patterns;
mod point;
mod prepare;
mod session;

pub use cells::{Outcome, RunError, RunOptions, Watch, run};
pub use export::{ExportError, ExportFormat, ExportOptions, Exported, export};
pub use memory::TooLarge;
pub use prepare::{
    Planned, PlannedCell, PlannedKernel, PrepareError, PrepareOptions, Prepared, PreparedModel, prepare,
};
