//! What is kept on disk, so that nothing is measured twice and every number can be traced.
//!
//! ```text
//!   results/NAME/
//!     experiment.toml   the file, byte for byte          ┐
//!     plan.json         PlanRecord: the frozen cells     │ store.rs: written beside and renamed,
//!     cells/ID.json     Record: one finished cell        │ so that a file is whole or missing
//!     runs/*.json       RunRecord: one process           │
//!     manifest.json     Manifest: where it comes from    ┘
//! ```
//!
//! The only sign of an unfinished cell is that its file is missing. This module knows files and
//! their formats; it does not know models or devices.

mod folder;
mod formats;
mod kernel;
mod provenance;
mod store;

pub use crate::measure::{Latency as LatencyRecord, LayerRow, Phase as PhaseRecord, Structure};
pub use folder::{NewFolder, WriteError};
pub use formats::{
    CellRecord, ExpectRecord, Failure, FailureKind, InputRecord, KernelEntry, KernelUse, Manifest, Measured, PlanEntry,
    PlanRecord, RunRecord, Ties, Timings,
};
pub use kernel::{KernelMeasured, KernelRecord, Record, Timed};
pub use provenance::{Machine, Program, last_cache_bytes, now, sha256};
pub use store::{Store, StoreError, experiment_folder};
