//! Analyses of masks and activations: planned, and run place by place.

use super::PrepareError;
use super::kinds::{Ground, Kind, Runner};
use super::scheduler::{Desk, RunError};
use crate::plan::Planned;

/// The row of analyses.
pub(super) const KIND: Kind = Kind { name: "analysis", plan, accompany: |_| {}, runner: || Box::new(Analyses) };

/// Every analysis cell of an experiment, named, and nothing decided yet.
fn plan(_ground: &Ground<'_>) -> Result<Vec<Planned>, PrepareError> {
    Ok(Vec::new())
}

/// Runs batches of analysis cells.
struct Analyses;

impl Runner for Analyses {
    fn run(&mut self, _desk: &mut Desk<'_>, _batch: &[&Planned]) -> Result<(), RunError> {
        Ok(())
    }
}
