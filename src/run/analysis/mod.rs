//! Analyses of masks and activations: planned, and run place by place.
//!
//! ```text
//!   batch          model on a backend, or folders            model.rs: loaded and pruned once
//!     place        a matrix of every source                  matrix.rs, slots.rs
//!       cell       one analysis                              numbers.rs, clusters.rs, activations.rs ─> sheet.rs: rows
//! ```
//! plan.rs finds the matrices; features.rs draws what is drawn.

mod activations;
mod clusters;
mod features;
mod matrix;
mod model;
mod numbers;
mod plan;
mod sheet;
mod slots;
mod source;

use super::backend::on_backend;
use super::kinds::{Kind, Runner};
use super::panics::caught;
use super::scheduler::{Desk, RunError};
use crate::load::LoadError;
use crate::plan::{AnalysisCell, Of, Planned};
use crate::record::{Failure, FailureKind};
use matrix::{Matrix, Opened};
use model::Batch;
use source::{of_folder, record};
use std::time::Instant;

/// The row of analyses.
pub(super) const KIND: Kind =
    Kind { name: "analysis", plan: plan::plan, accompany: |_| {}, runner: || Box::new(Analyses) };

/// Runs batches of analysis cells; nothing stays from one to the next.
struct Analyses;

impl Runner for Analyses {
    fn run(&mut self, desk: &mut Desk<'_>, batch: &[&Planned]) -> Result<(), RunError> {
        let cells = batch.iter().filter_map(|planned| Some((*planned, AnalysisCell::of(&planned.task)?)));
        let cells: Vec<(&Planned, &AnalysisCell)> = cells.collect();
        let Some((_, first)) = cells.first() else { return Ok(()) };
        let Some(model) = &first.model else { return of_folders(desk, &cells) };
        let model = desk.prepared.models.iter().find(|known| known.files.source == *model);
        let Some(model) = model else { return Ok(()) };
        let (backend, index) = (first.backend, desk.prepared.experiment.device_index);
        on_backend(backend, index, Batch { desk, model, cells: &cells })
    }
}

/// Runs cells that need no model.
fn of_folders(desk: &mut Desk<'_>, cells: &[(&Planned, &AnalysisCell)]) -> Result<(), RunError> {
    let mut opened = Opened::default();
    for place in places(cells) {
        for (planned, cell) in desk.take(place, |(planned, _)| planned) {
            if desk.stop() {
                return Ok(());
            }
            desk.watch.begins(&planned.task);
            let start = Instant::now();
            let result = caught(|| {
                let experiment = &desk.prepared.experiment;
                let matrices = cell.sources.iter().map(|source| {
                    let folder = of_folder(experiment, cell, source, &mut opened);
                    folder.and_then(|matrix| matrix.ok_or_else(|| LoadError::NoMatrices(source.name.clone().into())))
                });
                Ok(numbers::numbers(cell, &matrices.collect::<Result<Vec<Matrix>, LoadError>>()?))
            });
            record(desk, planned, start, 0.0, flat(result))?;
        }
    }
    Ok(())
}

/// The cells of each place, which one process runs.
fn places<'c, 'p>(
    cells: &'c [(&'p Planned, &'p AnalysisCell)],
) -> impl Iterator<Item = &'c [(&'p Planned, &'p AnalysisCell)]> {
    cells.chunk_by(|(a, _), (b, _)| b.task.kind().belongs_with(&a.task))
}

/// The result of a piece of work that may have panicked.
fn flat<T>(result: Result<Result<T, LoadError>, String>) -> Result<T, Failure> {
    match result {
        Ok(result) => result.map_err(|error| Failure::new(FailureKind::Other, error.to_string())),
        Err(message) => Err(Failure::new(FailureKind::Other, message)),
    }
}
