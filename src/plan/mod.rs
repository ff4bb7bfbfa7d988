//! What will run and why: the pure step between the experiment and the runner.
//!
//! ```text
//!   Experiment + resolved backends ──expand──> [Cell], [KernelCell] ──select──> those wanted
//!   cell + digests of its inputs ──identify──> CellId ─┐
//!   what cells/ID.json says ───────────────────────────┴─resume──> new | cached | stale | retry
//! ```
//!
//! Everything here is a function of its arguments: no files, no clock, no device.

mod cell;
mod expand;
mod identify;
mod kernel;
mod resume;
mod select;

pub use cell::{Backend, Cell, LatencyPoint, PrunePoint, TimedOn};
pub use expand::expand;
pub use identify::{CellId, InputDigests, NUMERICS_VERSION};
pub use kernel::{KernelCell, KernelInputs, Work, accompany, expand_kernels};
pub use resume::{Decision, Existing, Rerun, decide};
pub use select::{Only, Partition, SelectError};
