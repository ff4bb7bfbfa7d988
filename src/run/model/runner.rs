//! Runs the cells of one model on one backend, prune point by prune point.
//!
//! ```text
//!   batch        model, backend                    session.rs: the dense model on the device, its logits
//!     point      dtype, prune, seed                patterns.rs, calibrate.rs: which weights go
//!       cell     variant                           point.rs: masked ─> logits ──gate──> sparse ─> logits ─> metrics
//! ```

use super::calibrate::{Stopped, calibrate};
use super::error::CellError;
use super::memory::Room;
use super::point::{Job, Point, dense};
use super::session::{Keep, Session};
use crate::config::experiment::{LatencySettings, Metric, Variant};
use crate::execute::SparseBackend;
use crate::load::{Checkpoint, TaskTokens};
use crate::plan::{Cell, Of, Planned, PrunePoint};
use crate::record::{Failure, FailureKind, Measured, Timings};
use crate::run::PreparedModel;
use crate::run::backend::{OnBackend, on_backend};
use crate::run::kinds::Runner;
use crate::run::panics::{self, caught, panicked};
use crate::run::scheduler::{Desk, RunError};

/// Runs batches of model cells; nothing stays from one to the next.
pub(super) struct Models;

impl Runner for Models {
    fn run(&mut self, desk: &mut Desk<'_>, batch: &[&Planned]) -> Result<(), RunError> {
        let cells: Vec<Planning<'_>> = batch.iter().filter_map(|planned| Planning::of(planned)).collect();
        let Some(first) = cells.first() else { return Ok(()) };
        let model = desk.prepared.models.iter().find(|model| model.files.source == first.cell.model);
        let Some(model) = model else { return Ok(()) };
        let (backend, index) = (first.cell.backend, desk.prepared.experiment.device_index);
        on_backend(backend, index, Batch { desk, model, cells: &cells })
    }
}

/// A planned cell that is a model's.
#[derive(Clone, Copy)]
struct Planning<'a> {
    planned: &'a Planned,
    cell: &'a Cell,
}

impl<'a> Planning<'a> {
    fn of(planned: &'a Planned) -> Option<Self> {
        Some(Self { planned, cell: Cell::of(&planned.task)? })
    }
}

/// The cells of one model on one backend.
struct Batch<'b, 'd> {
    desk: &'b mut Desk<'d>,
    model: &'b PreparedModel,
    cells: &'b [Planning<'b>],
}

impl OnBackend for Batch<'_, '_> {
    type Output = Result<(), RunError>;

    fn on<B: SparseBackend>(mut self, device: B::Device) -> Self::Output {
        self.group::<B>(&device)
    }
}

impl Batch<'_, '_> {
    /// Runs the cells of one model on one backend. The model is loaded where the first of them is this process's.
    fn group<B: SparseBackend>(&mut self, device: &B::Device) -> Result<(), RunError> {
        let mut session: Option<Result<Session<B>, String>> = None;
        let mut rest = self.cells;
        for point in self.cells.chunk_by(|a, b| a.cell.same_point(b.cell)) {
            let taken = self.desk.take(point, |planned| planned.planned);
            if !taken.is_empty() {
                if session.is_none() {
                    session = Some(self.load::<B>(device)?);
                }
                match session.as_mut() {
                    // Points to come are calibrated with this one, unless another process may take them.
                    Some(Ok(session)) if self.desk.is_sole() => self.point(session, &taken, rest)?,
                    Some(Ok(session)) => self.point(session, &taken, &taken)?,
                    Some(Err(message)) => self.all_fail(&taken, &message.clone())?,
                    None => unreachable!("it was loaded above"),
                }
            }
            if self.desk.stop() {
                break;
            }
            rest = &rest[point.len()..];
        }
        Ok(())
    }

    /// The model on the device, or what the device says.
    fn load<B: SparseBackend>(&self, device: &B::Device) -> Result<Result<Session<B>, String>, RunError> {
        let (model, first) = (self.model, self.cells[0].cell);
        self.desk.watch.loading(&model.files.source, first.backend.name());
        let timed = self.cells.iter().any(|planned| self.job(planned).timed.is_some());
        let keep = if timed { Keep::Widened } else { Keep::AsStored };
        let load = || {
            let checkpoint = Checkpoint::open(model.files.clone())?;
            let mut session = Session::<B>::load(checkpoint, model.tokens.clone(), first.dtype, keep, device)?;
            session.compare_with(&self.desk.prepared.references);
            // A device may still be at it, or have failed.
            Ok(B::sync(device).map(|()| session).map_err(|error| error.to_string()))
        };
        match (caught(load), panics::take()) {
            (Ok(Err(error)), None) => Err(RunError::Load(error)),
            (Ok(Ok(Ok(session))), None) => Ok(Ok(session)),
            (_, Some(message)) | (Err(message), _) | (Ok(Ok(Err(message))), _) => {
                recover::<B>(device);
                Ok(Err(format!("loading `{}` failed: {message}", model.files.source)))
            }
        }
    }

    /// Records the same failure for all of some cells.
    fn all_fail(&mut self, cells: &[Planning<'_>], message: &str) -> Result<(), RunError> {
        for planned in cells {
            if self.desk.stop() {
                break;
            }
            self.desk.watch.begins(&planned.planned.task);
            let failure = Failure::new(FailureKind::Other, message);
            self.desk.record(planned.planned, Timings::default(), Err(failure))?;
        }
        Ok(())
    }

    /// Runs the cells of one prune point, with which `rest` begins.
    fn point<B: SparseBackend>(
        &mut self,
        session: &mut Session<B>,
        cells: &[Planning<'_>],
        rest: &[Planning<'_>],
    ) -> Result<(), RunError> {
        let mut point: Option<Point> = None;
        for planned in cells {
            if self.desk.stop() {
                return Ok(());
            }
            self.desk.watch.begins(&planned.planned.task);
            let (timings, mut result) = match caught(|| self.measure(session, &mut point, planned, rest)) {
                Ok(Some(result)) => result,
                // Interrupted: the cell is as if it had not begun.
                Ok(None) => return Ok(()),
                Err(message) => {
                    // A panic may have left the point half made.
                    point = None;
                    (Timings::default(), Err(Failure::new(FailureKind::Other, message)))
                }
            };
            if panicked(&mut result) {
                point = None;
                session.forget_reference();
            }
            if result.is_err() {
                recover::<B>(session.decoder.device());
            }
            self.desk.record(planned.planned, timings, result.map(Measured::into_numbers))?;
        }
        if let Some(Cell { prune: Some(point), seed, .. }) = cells.first().map(|planned| planned.cell) {
            session.forget(point, *seed);
        }
        Ok(())
    }

    /// Runs a cell; none where the user wants to stop.
    fn measure<B: SparseBackend>(
        &self,
        session: &mut Session<B>,
        point: &mut Option<Point>,
        planned: &Planning<'_>,
        rest: &[Planning<'_>],
    ) -> Option<(Timings, Result<Measured, Failure>)> {
        let stage = |stage: &str| self.desk.watch.stage(stage);
        let failure = |error: CellError| error.failure();
        let (cell, job) = (planned.cell, self.job(planned));
        if let Err(error) = session.restore() {
            return Some((Timings::default(), Err(failure(error.into()))));
        }
        let Some(prune) = cell.prune.as_ref().filter(|_| cell.variant != Variant::Dense) else {
            let (timings, result) = dense(session, &job, &stage);
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
                Ok(new) => {
                    let Desk { prepared, shelf, .. } = &*self.desk;
                    shelf.put(&prepared.cells, (&cell.model, cell.backend), prune, cell.seed, new.layers());
                    *point = Some(new);
                }
                Err(failure) => return Some((Timings::default(), Err(failure))),
            }
        }
        let Some(point) = point else { unreachable!("the point was made above") };
        let (timings, result) = point.variant(session, &job, &stage);
        Some((timings, result.map_err(failure)))
    }

    /// A calibrated point: what waits for it, or the result of a calibration of this point and of those that are
    /// still to run and see the same windows. None where the user wants to stop.
    fn calibrated<B: SparseBackend>(
        &self,
        session: &mut Session<B>,
        prune: &PrunePoint,
        cell: &Cell,
        rest: &[Planning<'_>],
    ) -> Option<Result<Point, Failure>> {
        if !session.has(prune, cell.seed) {
            let windows = cell
                .seed
                .and_then(|seed| session.tokens.calibration_of(cell.calibration(), seed))
                .unwrap_or_default()
                .to_vec();
            let points = self.companions(session, prune, cell, rest, &windows);
            match calibrate(session, &windows, &points, cell.dtype, self.desk.watch) {
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
        rest: &[Planning<'c>],
        windows: &[Vec<u32>],
    ) -> Vec<&'c PrunePoint> {
        let mut points = vec![prune];
        let others = rest.iter().map(|planned| planned.cell).filter(|other| other.seed == cell.seed);
        for point in others.filter_map(|other| other.prune.as_ref()) {
            let same_windows = point.calibration == prune.calibration;
            if point.method.calibrates() && same_windows && !points.contains(&point) && !session.has(point, cell.seed) {
                points.push(point);
            }
        }
        let tokens = windows.iter().map(Vec::len).sum();
        let room = Room::current(self.desk.prepared.experiment.device_index, cell.backend);
        points.truncate(room.fitting(&points, session.decoder.architecture(), tokens, cell.dtype));
        points
    }

    /// What is to be measured of a cell.
    fn job<'c>(&'c self, planned: &Planning<'c>) -> Job<'c> {
        let experiment = &self.desk.prepared.experiment;
        let due = |metric: &Metric| planned.planned.due.contains(&metric.name());
        let timed: Option<&LatencySettings> =
            experiment.metrics.contains(&Metric::Latency).then_some(&experiment.latency);
        let is_due = |task: &&TaskTokens| planned.planned.due.contains(&task.task.name());
        Job {
            cell: planned.cell,
            due: experiment.metrics.iter().copied().filter(due).collect(),
            timed: timed.cloned(),
            profiled: self.desk.profiles(),
            tasks: self.model.tasks.iter().filter(is_due).collect(),
            tokenizer: &self.model.tokenizer,
        }
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
