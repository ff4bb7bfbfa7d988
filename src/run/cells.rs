//! Runs the planned cells in groups that share work, and stores each as soon as it is done.

use super::calibrate::{Stopped, calibrate};
use super::memory::Room;
use super::panics;
use super::point::{CellError, Point, dense};
use super::prepare::{PlannedCell, Prepared, PreparedModel};
use super::session::Session;
use crate::config::experiment::Variant;
use crate::execute::SparseBackend;
use crate::load::{Checkpoint, LoadError};
use crate::plan::{Backend, Cell, PrunePoint, Work};
use crate::record::{CellRecord, Failure, FailureKind, Measured, Program, Record, Store, StoreError, Timings};
use burn::backend::{Flex, NdArray};
use std::panic::{AssertUnwindSafe, catch_unwind};
use thiserror::Error;

/// How cells are run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Stop at the first failed cell.
    pub fail_fast: bool,
}

/// Told how the run goes, and asked whether to stop. Called from one thread.
pub trait Watch {
    /// A model is being loaded.
    fn loading(&self, model: &str, backend: &str);
    /// A cell begins.
    fn begins(&self, cell: Work<'_>);
    /// What is being done for it.
    fn stage(&self, stage: &str);
    /// A cell is finished or failed, and stored.
    fn done(&self, record: &Record);
    /// Whether the user wants to stop.
    fn interrupted(&self) -> bool;
}

/// What became of the cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cells run.
    pub ran: usize,
    /// Of those, failed ones.
    pub failed: usize,
    /// Selected cells that were there already.
    pub kept: usize,
    /// Of those, ones that failed then.
    pub kept_failed: usize,
}

/// Why a run ended early.
#[derive(Debug, Error)]
pub enum RunError {
    /// A model can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A result can't be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RunError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Load(error) => error.hint(),
            Self::Store(error) => error.hint(),
        }
    }
}

/// Runs every selected cell that is not there yet.
///
/// # Errors
/// When a model can't be loaded or a result can't be stored. A cell that fails is no error: it is
/// stored as failed and counted.
pub fn run(prepared: &Prepared, store: &Store, options: RunOptions, watch: &dyn Watch) -> Result<Outcome, RunError> {
    let mut runner = Runner { prepared, store, options, watch, outcome: Outcome::default(), stopped: false };
    for (_, decision) in prepared.kept() {
        runner.outcome.kept += 1;
        runner.outcome.kept_failed += usize::from(decision.word() == "failed");
    }
    let cells: Vec<&PlannedCell> = prepared.cells.iter().filter(|planned| planned.runs()).collect();
    for group in cells.chunk_by(|a, b| (&a.cell.model, a.cell.backend) == (&b.cell.model, b.cell.backend)) {
        let Some(model) = prepared.models.iter().find(|model| model.files.source == group[0].cell.model) else {
            continue;
        };
        match group[0].cell.backend {
            Backend::Flex => runner.group::<Flex>(model, group, &Default::default())?,
            Backend::NdArray => runner.group::<NdArray<f32>>(model, group, &Default::default())?,
            #[cfg(feature = "cuda")]
            Backend::Cuda => {
                panics::collect();
                let device = crate::execute::cuda_device(prepared.experiment.device_index);
                runner.group::<crate::execute::Cuda>(model, group, &device)?;
            }
            #[cfg(not(feature = "cuda"))]
            Backend::Cuda => unreachable!("no cell is planned on a backend that is not built in"),
        }
        if runner.stopped {
            break;
        }
    }
    runner.kernels()?;
    Ok(runner.outcome)
}

pub(super) struct Runner<'a> {
    pub(super) prepared: &'a Prepared,
    store: &'a Store,
    options: RunOptions,
    pub(super) watch: &'a dyn Watch,
    outcome: Outcome,
    pub(super) stopped: bool,
}

impl Runner<'_> {
    /// Runs the cells of one model on one backend.
    fn group<B: SparseBackend>(
        &mut self,
        model: &PreparedModel,
        cells: &[&PlannedCell],
        device: &B::Device,
    ) -> Result<(), RunError> {
        if self.stop() {
            return Ok(());
        }
        self.watch.loading(&model.files.source, cells[0].cell.backend.name());
        let load = || {
            let checkpoint = Checkpoint::open(model.files.clone())?;
            let session = Session::<B>::load(checkpoint, model.tokens.clone(), cells[0].cell.dtype, device)?;
            // A device may still be at it, or have failed.
            Ok(B::sync(device).map(|()| session).map_err(|error| error.to_string()))
        };
        let mut session = match (caught(load), panics::take()) {
            (Ok(Err(error)), None) => return Err(RunError::Load(error)),
            (Ok(Ok(Ok(session))), None) => session,
            (_, Some(message)) | (Err(message), _) | (Ok(Ok(Err(message))), _) => {
                recover::<B>(device);
                return self.all_fail(cells, &format!("loading `{}` failed: {message}", model.files.source));
            }
        };
        let mut rest = cells;
        for point in cells.chunk_by(|a, b| a.cell.same_point(&b.cell)) {
            self.point(&mut session, point, rest)?;
            if self.stopped {
                break;
            }
            rest = &rest[point.len()..];
        }
        Ok(())
    }

    /// Records the same failure for all of some cells.
    fn all_fail(&mut self, cells: &[&PlannedCell], message: &str) -> Result<(), RunError> {
        for planned in cells {
            if self.stop() {
                break;
            }
            self.watch.begins(Work::Model(&planned.cell));
            let failure = Failure { kind: FailureKind::Other, message: message.to_owned(), gate: None };
            self.record(planned, Timings::default(), Err(failure))?;
        }
        Ok(())
    }

    /// Runs the cells of one prune point, with which `rest` begins.
    fn point<B: SparseBackend>(
        &mut self,
        session: &mut Session<B>,
        cells: &[&PlannedCell],
        rest: &[&PlannedCell],
    ) -> Result<(), RunError> {
        let mut point: Option<Point> = None;
        for planned in cells {
            if self.stop() {
                return Ok(());
            }
            let cell = &planned.cell;
            self.watch.begins(Work::Model(cell));
            let (timings, mut result) = match caught(|| self.measure(session, &mut point, cell, rest)) {
                Ok(Some(result)) => result,
                // Interrupted: the cell is as if it had not begun.
                Ok(None) => return Ok(()),
                Err(message) => {
                    // A panic may have left the point half made.
                    point = None;
                    let failure = Failure { kind: FailureKind::Other, message, gate: None };
                    (Timings::default(), Err(failure))
                }
            };
            if panicked(&mut result) {
                point = None;
                session.forget_reference();
            }
            if result.is_err() {
                recover::<B>(session.decoder.device());
            }
            self.record(planned, timings, result)?;
        }
        if let Some(Cell { prune: Some(point), seed, .. }) = cells.first().map(|planned| &planned.cell) {
            session.forget(point, *seed);
        }
        Ok(())
    }

    /// Runs a cell; none where the user wants to stop.
    fn measure<B: SparseBackend>(
        &self,
        session: &mut Session<B>,
        point: &mut Option<Point>,
        cell: &Cell,
        rest: &[&PlannedCell],
    ) -> Option<(Timings, Result<Measured, Failure>)> {
        let stage = |stage: &str| self.watch.stage(stage);
        let failure = |error: CellError| error.failure();
        if let Err(error) = session.restore() {
            return Some((Timings::default(), Err(failure(error.into()))));
        }
        let Some(prune) = cell.prune.as_ref().filter(|_| cell.variant != Variant::Dense) else {
            let (timings, result) = dense(session, cell, &stage);
            return Some((timings, result.map_err(failure)));
        };
        if point.is_none() {
            let new = match prune.method.calibrates() {
                true => self.calibrated(session, prune, cell, rest)?,
                false => {
                    stage("pruning");
                    Point::new(session, prune, cell.seed, cell.dtype).map_err(failure)
                }
            };
            match new {
                Ok(new) => *point = Some(new),
                Err(failure) => return Some((Timings::default(), Err(failure))),
            }
        }
        let Some(point) = point else { unreachable!("the point was made above") };
        let (timings, result) = point.variant(session, cell, &stage);
        Some((timings, result.map_err(failure)))
    }

    /// A calibrated point: what waits for it, or the result of a calibration of this point and of those that are
    /// still to run and see the same windows. None where the user wants to stop.
    fn calibrated<B: SparseBackend>(
        &self,
        session: &mut Session<B>,
        prune: &PrunePoint,
        cell: &Cell,
        rest: &[&PlannedCell],
    ) -> Option<Result<Point, Failure>> {
        if !session.has(prune, cell.seed) {
            let windows = cell.seed.and_then(|seed| session.tokens.calibration_of(seed)).unwrap_or_default().to_vec();
            let points = self.companions(session, prune, cell, rest, &windows);
            match calibrate(session, &windows, &points, cell.dtype, self.watch) {
                Err(Stopped::Interrupted) => return None,
                Err(Stopped::Failed(error)) => return Some(Err(error.failure())),
                Ok(results) => {
                    for (point, result) in points.into_iter().zip(results) {
                        session.keep(point, cell.seed, result.map_err(|error| error.failure()));
                    }
                }
            }
        }
        Some(session.take(prune, cell.seed)?.map(Point::calibrated))
    }

    /// A point, and those that may be calibrated with it; as many as memory has room for.
    fn companions<'c, B: SparseBackend>(
        &self,
        session: &Session<B>,
        prune: &'c PrunePoint,
        cell: &Cell,
        rest: &[&'c PlannedCell],
        windows: &[Vec<u32>],
    ) -> Vec<&'c PrunePoint> {
        let mut points = vec![prune];
        let others = rest.iter().map(|planned| &planned.cell).filter(|other| other.seed == cell.seed);
        for point in others.filter_map(|other| other.prune.as_ref()) {
            if point.method.calibrates() && !points.contains(&point) && !session.has(point, cell.seed) {
                points.push(point);
            }
        }
        let tokens = windows.iter().map(Vec::len).sum();
        let room = Room::current(self.prepared.experiment.device_index, cell.backend);
        points.truncate(room.fitting(&points, session.decoder.architecture(), tokens, cell.dtype));
        points
    }

    fn record(
        &mut self,
        planned: &PlannedCell,
        timings: Timings,
        result: Result<Measured, Failure>,
    ) -> Result<(), RunError> {
        let (measured, failure) = parts(result);
        let record = CellRecord {
            format: CellRecord::FORMAT,
            id: planned.id.clone(),
            cell: planned.cell.clone(),
            inputs: planned.inputs.clone(),
            program: Program::current(),
            measured,
            failure,
            timings,
            finished: crate::record::now(),
            digest: String::new(),
        };
        self.store(Record::Model(Box::new(record)))
    }

    /// Stores a finished or failed cell and says so.
    pub(super) fn store(&mut self, record: Record) -> Result<(), RunError> {
        let failed = record.failure().is_some();
        if self.outcome.ran == 0 {
            // Not before there is something new: a run that can't load its model leaves the old plan.
            self.store.write_plan(&self.prepared.plan, &self.prepared.experiment.text)?;
        }
        self.store.write_cell(&record)?;
        self.outcome.ran += 1;
        self.outcome.failed += usize::from(failed);
        self.stopped |= failed && self.options.fail_fast;
        self.watch.done(&record);
        Ok(())
    }

    pub(super) fn stop(&mut self) -> bool {
        self.stopped |= self.watch.interrupted();
        self.stopped
    }
}

/// Frees what a failed cell left behind on a device, and takes note of what it has still to say, so that neither
/// is the next cell's.
fn recover<B: SparseBackend>(device: &B::Device) {
    if B::ON_HOST {
        return;
    }
    let _ = caught(|| drop(B::sync(device)));
    let _ = caught(|| B::memory_cleanup(device));
    panics::take();
}

/// The numbers or why there are none, in a few lines, as records have them.
pub(super) fn parts<T>(result: Result<T, Failure>) -> (Option<T>, Option<Failure>) {
    match result {
        Ok(measured) => (Some(measured), None),
        Err(failure) => (None, Some(Failure { message: panics::brief(&failure.message), ..failure })),
    }
}

/// Whether a thread of the device has panicked meanwhile: then the result is that failure, and nothing that was
/// made on the device since can be relied upon.
pub(super) fn panicked<T>(result: &mut Result<T, Failure>) -> bool {
    let Some(message) = panics::take() else { return false };
    *result = Err(Failure { kind: FailureKind::Other, message, gate: None });
    true
}

/// Runs `work`, and turns a panic of a backend into its message: out of memory, say.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "the backend stopped without a message".into())
    })
}
