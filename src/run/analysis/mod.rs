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

use super::backend::on_backend;
use super::kinds::{Kind, Runner};
use super::panics::caught;
use super::scheduler::{Desk, RunError};
use crate::config::Experiment;
use crate::config::analysis::{SourceFrom, Work};
use crate::load::{LoadError, MatrixName, MatrixSource};
use crate::measure::peak_rss_bytes;
use crate::plan::{AnalysisCell, MatrixFrom, Of, Planned};
use crate::record::{AnalysisNumbers, Failure, FailureKind, Numbers, Timings};
use matrix::{Matrix, Opened};
use model::Batch;
use std::path::Path;
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
    for (planned, cell) in cells {
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
    Ok(())
}

/// The result of a piece of work that may have panicked.
fn flat<T>(result: Result<Result<T, LoadError>, String>) -> Result<T, Failure> {
    match result {
        Ok(result) => result.map_err(|error| Failure::new(FailureKind::Other, error.to_string())),
        Err(message) => Err(Failure::new(FailureKind::Other, message)),
    }
}

/// Stores the numbers of a cell, or why there are none.
fn record(
    desk: &mut Desk<'_>,
    planned: &Planned,
    start: Instant,
    load_seconds: f64,
    result: Result<AnalysisNumbers, Failure>,
) -> Result<(), RunError> {
    let timings = Timings {
        load_seconds,
        measure_seconds: start.elapsed().as_secs_f64(),
        peak_rss_bytes: peak_rss_bytes(),
        ..Timings::default()
    };
    desk.record(planned, timings, result.map(|numbers| vec![Numbers::Analysis(Box::new(numbers))]))
}

/// The matrix of a source that is a checkpoint or a folder; nothing of the others.
fn of_folder(
    experiment: &Experiment,
    cell: &AnalysisCell,
    source: &crate::plan::AnalysisSource,
    opened: &mut Opened,
) -> Result<Option<Matrix>, LoadError> {
    match (&source.from, &source.file) {
        (MatrixFrom::Checkpoint(folder), _) => opened.matrix(cell, folder),
        (MatrixFrom::Matrix, Some(path)) => {
            let [inputs, masks] = beside(experiment, cell, Path::new(path));
            let name = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let stem = MatrixName::parse(&name).map(|name| name.stem()).unwrap_or_default();
            let stems = [format!("{}/{stem}", source.name), stem];
            let file = MatrixSource::open(Path::new(path), &stems, masks.as_deref(), inputs.as_deref())?;
            let seen = matches!(cell.work, Work::ActivationSparsity { .. });
            let scored = matches!(cell.work, Work::Structure { .. });
            Matrix::of_file(&file, seen, scored).map(Some)
        }
        (MatrixFrom::Matrix | MatrixFrom::Point(_) | MatrixFrom::Dense, _) => Ok(None),
    }
}

/// The files beside the folder of a matrix, as the experiment says: inputs, masks.
fn beside(experiment: &Experiment, cell: &AnalysisCell, path: &Path) -> [Option<std::path::PathBuf>; 2] {
    let block = experiment.analyses.iter().find(|block| block.id == cell.analysis);
    let folder = block.iter().flat_map(|block| &block.sources).find_map(|source| match &source.from {
        SourceFrom::Folder { path: folder, inputs, masks } if path.starts_with(folder) => {
            Some([inputs.clone(), masks.clone()])
        }
        SourceFrom::Folder { .. } | SourceFrom::Points | SourceFrom::Dense | SourceFrom::Checkpoint(_) => None,
    });
    folder.unwrap_or_default()
}
