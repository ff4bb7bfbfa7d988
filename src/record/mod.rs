//! What is kept on disk, so that nothing is measured twice and every number can be traced.
//!
//! ```text
//!   results/NAME/
//!     experiment.toml   the file, byte for byte          ┐
//!     plan.json         PlanRecord: the frozen cells     │ store.rs, atomic.rs: written beside and renamed,
//!     cells/ID.json     Record: what is known of a cell  │ so that a file is whole or missing
//!     items/*.csv       what came out of single items    │
//!     runs/*.json       RunRecord: one process           │
//!     accepted/*.json   Acceptance: stale, but current   │
//!     manifest.json     Manifest: where it comes from    ┘
//! ```
//!
//! cell.rs is the envelope of a cell's file, numbers.rs what can be in it; model.rs and kernel.rs are what reports see of a
//! kind each. seal.rs tells whether a cell's file is as it was written, alive.rs whether a process still runs.
//!
//! The only sign of an unfinished cell is that its file is missing, or lacks a group of results. This module knows files and
//! their formats; it does not know models or devices.

mod accepted;
mod alive;
mod analysis;
mod atomic;
mod cell;
mod error;
mod events;
mod folder;
mod formats;
mod kernel;
mod model;
mod numbers;
mod origin;
mod provenance;
mod seal;
mod store;
mod tasks;

pub use crate::measure::{
    Latency as LatencyRecord, LayerRow, Phase as PhaseRecord, Profile, ProfileClock, ProfiledStep, Structure,
};
pub use accepted::{Acceptance, Acceptances, AcceptedResult};
pub use alive::{Life, SILENCE, host, life};
pub use analysis::{
    AnalysisNumbers, AnalysisResult, Entry, Key, MatrixInfo, Named, Picture, Row, StoredTable, TABLES, columns_of,
};
pub use atomic::Stamp;
pub use cell::{Failure, FailureKind, Outline, PartOutline, PartRecord, Record, Timings};
pub use error::{Mismatch, StoreError};
pub use folder::{NewFolder, WriteError};
pub use formats::{ExpectRecord, InputRecord, Manifest, PlanEntry, PlanPart, PlanRecord, RunRecord, WorkerRecord};
pub use kernel::{KernelMeasured, KernelResult, Timed};
pub use model::CellResult;
pub use numbers::{GateRun, KernelUse, Measured, Numbers, PrunedLinears, Scarce, Sizes, Ties};
pub use origin::OriginRecord;
pub use provenance::{Machine, Program, last_cache_bytes, now, sha256};
pub use store::{Store, cell_path, experiment_folder};
pub use tasks::{ItemRow, TaskNumbers, TaskValue};
