//! What a kind of work brings to a run. Knows no kind: they are listed in `run/mod.rs`.

use super::scheduler::{Desk, RunError};
use super::{PrepareError, PreparedModel};
use crate::config::Experiment;
use crate::plan::{Backend, Planned};
use crate::record::Machine;
use std::cell::LazyCell;

/// What a kind brings to a run.
pub(super) struct Kind {
    /// Its name, that of its tasks.
    pub name: &'static str,
    /// Every cell of an experiment, in order.
    pub plan: fn(&Ground<'_>) -> Result<Vec<Planned>, PrepareError>,
    /// Selects the cells that must run beside those that do.
    pub accompany: fn(&mut [Planned]),
    /// Runs them.
    pub runner: fn() -> Box<dyn Runner>,
}

/// What cells are planned from.
pub(super) struct Ground<'a> {
    pub experiment: &'a Experiment,
    /// The experiment's backends, with `auto` decided.
    pub backends: &'a [Backend],
    pub models: &'a [PreparedModel],
    /// Looked at only where something depends on it.
    pub machine: &'a LazyCell<Machine>,
}

/// Runs the cells of a kind, batch by batch.
pub(super) trait Runner {
    /// Runs cells that share what is loaded, and records each.
    fn run(&mut self, desk: &mut Desk<'_>, batch: &[&Planned]) -> Result<(), RunError>;
}
