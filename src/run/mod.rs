//! The runner: an experiment file becomes finished cells.
//!
//! ```text
//!   Experiment ──prepare.rs──> Prepared: models found, texts tokenised, cells named and decided
//!                  select.rs      │  what is to be done about each      (`plan` stops here)
//!                  scheduler.rs   │  takes over what other experiments have; batch by batch
//!                                 v
//!   kinds.rs     what a kind of work brings: how it is planned, how a batch of it is run; the kinds are KINDS below
//!     model/     one model on one backend, prune point by prune point
//!     kernel/    one weight in its formats, timed without a model
//!     analysis/  masks and activations, one place in a model or a folder at a time
//!                                 │
//!                                 v
//!   record/      one Record a cell, written at once
//! ```
//!
//! backend.rs turns a backend's name into its type; estimate.rs says how long a plan may take; export.rs makes a checkpoint of a prune point, and place.rs says
//! whether it may lie where it is to.
//!
//! This module brings the others together; it computes nothing itself and prints nothing.

mod analysis;
mod backend;
mod crew;
mod estimate;
mod export;
mod export_error;
mod fetch;
mod kernel;
mod kinds;
mod memory;
mod model;
mod panics;
mod place;
mod prepare;
mod prepared;
mod reference;
mod scheduler;
mod select;
mod share;
mod shelf;

/// The kinds of work, in the order in which they are planned and run.
const KINDS: [kinds::Kind; 3] = [model::KIND, kernel::KIND, analysis::KIND];

pub use crew::{Start, Talk, failed, run_by_workers, work, workers};
pub use estimate::{Estimate, estimate};
pub use export::{ExportFormat, ExportOptions, Exported, export};
pub use export_error::ExportError;
pub use fetch::{Fetched, Fetches, fetch};
pub use memory::TooLarge;
pub use prepare::prepare;
pub use prepared::{PrepareError, PrepareOptions, Prepared, PreparedModel};
pub use scheduler::{Outcome, RunError, RunOptions, Watch, WorkerError, run, take_over};
