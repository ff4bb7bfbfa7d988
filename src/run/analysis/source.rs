//! The matrices of checkpoints and folders, and how a finished cell is handed in.

use super::matrix::{Matrix, Opened};
use crate::config::Experiment;
use crate::config::analysis::{SourceFrom, Work};
use crate::load::{LoadError, MatrixName, MatrixSource};
use crate::plan::{AnalysisCell, AnalysisSource, MatrixFrom, Planned};
use crate::record::{AnalysisNumbers, Failure, Numbers, Timings};
use crate::run::scheduler::{Desk, RunError};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Stores the numbers of a cell, or why there are none.
pub(super) fn record(
    desk: &mut Desk<'_>,
    planned: &Planned,
    start: Instant,
    load_seconds: f64,
    result: Result<AnalysisNumbers, Failure>,
) -> Result<(), RunError> {
    let timings = Timings { load_seconds, measure_seconds: start.elapsed().as_secs_f64(), ..Timings::default() };
    desk.record(planned, timings, result.map(|numbers| vec![Numbers::Analysis(Box::new(numbers))]))
}

/// The matrix of a source that is a checkpoint or a folder; nothing of the others.
pub(super) fn of_folder(
    experiment: &Experiment,
    cell: &AnalysisCell,
    source: &AnalysisSource,
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
fn beside(experiment: &Experiment, cell: &AnalysisCell, path: &Path) -> [Option<PathBuf>; 2] {
    let block = experiment.analyses.iter().find(|block| block.id == cell.analysis);
    let folder = block.iter().flat_map(|block| &block.sources).find_map(|source| match &source.from {
        SourceFrom::Folder { path: folder, inputs, masks } if path.starts_with(folder) => {
            Some([inputs.clone(), masks.clone()])
        }
        SourceFrom::Folder { .. } | SourceFrom::Points | SourceFrom::Dense | SourceFrom::Checkpoint(_) => None,
    });
    folder.unwrap_or_default()
}
