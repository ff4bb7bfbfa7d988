//! Runs the planned cells, batch by batch, and stores each as soon as it is done. Knows no kind of work.

use super::KINDS;
use super::panics;
use super::prepared::Prepared;
use super::share::{Share, Sole};
use super::shelf::Shelf;
use crate::load::LoadError;
use crate::plan::{CellId, Decision, Planned, Task};
use crate::record::{Failure, Numbers, PartRecord, Program, Record, Store, StoreError, Timings, now};
use std::time::Instant;
use thiserror::Error;

/// How cells are run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Stop at the first failed cell.
    pub fail_fast: bool,
    /// Begin no cell after this.
    pub until: Option<Instant>,
    /// Look where the time of what is timed goes.
    pub profile: bool,
}

impl RunOptions {
    /// Whether the time is over.
    pub(super) fn late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Told how the run goes, and asked whether to stop. Called from one thread.
pub trait Watch {
    /// What follows is of this one of several workers; none: of this process itself.
    fn worker(&self, _number: Option<usize>) {}
    /// A model is being loaded.
    fn loading(&self, model: &str, backend: &str);
    /// A cell begins.
    fn begins(&self, task: &Task);
    /// What is being done for it.
    fn stage(&self, stage: &str);
    /// A cell is finished or failed, and stored; the results are those that the experiment wants.
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
    /// Selected cells that were there already, or were copied.
    pub kept: usize,
    /// Of those, ones that failed then.
    pub kept_failed: usize,
    /// Of those, ones that were copied from another experiment.
    pub copied: usize,
    /// Whether the time was over before all cells had begun.
    pub late: bool,
}

impl Outcome {
    /// What became of the cells that stay as they are.
    pub(super) fn of_kept(prepared: &Prepared) -> Self {
        let mut outcome = Self::default();
        for (_, decision) in prepared.kept() {
            outcome.kept += 1;
            outcome.kept_failed += usize::from(matches!(decision, Decision::KeepFailed { .. }));
            outcome.copied += usize::from(matches!(decision, Decision::Copy { .. }));
        }
        outcome
    }
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
    /// A process that was to measure can't.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// Why a process that was to measure can't.
#[derive(Clone, Debug, Error)]
pub enum WorkerError {
    /// The system does not start it.
    #[error("a worker can't be started: {0}")]
    Start(String),
    /// It ended before it took a cell, again and again.
    #[error("a worker ended before it measured anything ({ended}){}", if .said.is_empty() { String::new() } else { format!(": {said}") })]
    Barren {
        /// How it ended.
        ended: String,
        /// What it said last.
        said: String,
    },
    /// It ran into what ends a run.
    #[error("{message}")]
    Failed {
        /// The exit code that this has.
        code: u8,
        /// What it is.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl WorkerError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Start(_) => Some("set a smaller `device.workers`".into()),
            Self::Barren { .. } => Some("run with `-s device.workers=1` to see where it ends".into()),
            Self::Failed { hint, .. } => hint.clone(),
        }
    }
}

impl RunError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Load(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Worker(error) => error.hint(),
        }
    }
}

/// Takes over what other experiments have measured of the selected cells.
///
/// # Errors
/// When it can't be stored.
pub fn take_over(prepared: &Prepared, store: &Store) -> Result<(), StoreError> {
    let siblings = store.siblings();
    for planned in prepared.cells.iter().filter(|planned| planned.selected) {
        let Some(from) = &planned.taken_from else { continue };
        let sibling = siblings.iter().find(|(name, _)| name == from);
        // It was there when the plan was made; if it is gone by now, the cell stays unfinished.
        let Some(Ok(Some(other))) = sibling.map(|(_, store)| store.cell(&planned.id)) else { continue };
        let mut record = known(store, planned);
        let wanted = |part: &&PartRecord| planned.parts.iter().any(|wanted| wanted.id == part.id);
        let unknown = |part: &&PartRecord| record.results.iter().all(|known| known.id != part.id);
        let parts = other.results.iter().filter(wanted).filter(unknown).cloned();
        let parts = parts.map(|part| PartRecord { origin: part.origin.or_else(|| Some(from.clone())), ..part });
        let parts: Vec<PartRecord> = parts.collect();
        for path in parts.iter().filter_map(|part| Some(part.result.with_file()?.path(&planned.id))) {
            // Without it, its part is measured after all.
            let file = siblings.iter().find(|(name, _)| name == from).and_then(|(_, store)| store.bytes(&path));
            store.write(&path, &file.unwrap_or_default())?;
        }
        if record.results.is_empty() {
            (record.timings, record.program, record.finished) = (other.timings, other.program, other.finished);
        }
        record.add(parts);
        store.write_cell(&record)?;
    }
    Ok(())
}

/// A cell's record as it is, or an empty one where there is none that can be believed.
fn known(store: &Store, planned: &Planned) -> Record {
    let before = store.cell(&planned.id).ok().flatten();
    before.unwrap_or_else(|| Record {
        format: Record::FORMAT,
        id: planned.id.clone(),
        cell: planned.task.clone(),
        inputs: planned.inputs.clone(),
        results: Vec::new(),
        failure: None,
        timings: Timings::default(),
        program: Program::current(),
        finished: now(),
        digest: String::new(),
    })
}

/// Runs every selected cell that is not there yet.
///
/// # Errors
/// When a model can't be loaded or a result can't be stored. A cell that fails is no error: it is
/// stored as failed and counted.
pub fn run(prepared: &Prepared, store: &Store, options: RunOptions, watch: &dyn Watch) -> Result<Outcome, RunError> {
    let mut outcome = Outcome::of_kept(prepared);
    run_some(prepared, store, options, watch, &Sole, &Planned::runs, &mut outcome)?;
    Ok(outcome)
}

/// Runs those of the chosen cells that are this process's, and adds to the outcome what becomes of them.
pub(super) fn run_some(
    prepared: &Prepared,
    store: &Store,
    options: RunOptions,
    watch: &dyn Watch,
    share: &dyn Share,
    chosen: &dyn Fn(&Planned) -> bool,
    outcome: &mut Outcome,
) -> Result<(), RunError> {
    let shelf = Shelf::default();
    let mut desk = Desk { prepared, shelf, store, options, watch, share, outcome, stopped: false };
    loop {
        for kind in &KINDS {
            let of_kind = |planned: &&Planned| chosen(planned) && planned.task.kind().name() == kind.name;
            let cells: Vec<&Planned> = prepared.cells.iter().filter(of_kind).collect();
            let mut batches: Vec<&[&Planned]> = cells.chunk_by(|a, b| a.task.kind().same_batch(&b.task)).collect();
            let first = share.first(batches.len());
            batches.rotate_left(first);
            let mut runner = (kind.runner)();
            for batch in batches {
                if desk.stop() {
                    return Ok(());
                }
                runner.run(&mut desk, batch)?;
            }
        }
        // Who stopped within its last point is not asked for more: it did not go through all cells.
        if desk.stop() || !share.again() {
            return Ok(());
        }
    }
}

/// Records that a cell has failed without having been run to its end.
pub(super) fn fail(
    prepared: &Prepared,
    store: &Store,
    options: RunOptions,
    watch: &dyn Watch,
    outcome: &mut Outcome,
    (planned, failure): (&Planned, Failure),
) -> Result<(), RunError> {
    let shelf = Shelf::default();
    let mut desk = Desk { prepared, shelf, store, options, watch, share: &Sole, outcome, stopped: false };
    desk.record(planned, Timings::default(), Err(failure))
}

/// Where runners hand in what they have measured.
pub(super) struct Desk<'a> {
    pub prepared: &'a Prepared,
    pub watch: &'a dyn Watch,
    /// Pruned models that cells of another kind will ask for.
    pub shelf: Shelf,
    share: &'a dyn Share,
    store: &'a Store,
    options: RunOptions,
    outcome: &'a mut Outcome,
    stopped: bool,
}

impl Desk<'_> {
    /// Whether no further cell is to begin.
    pub fn stop(&mut self) -> bool {
        self.outcome.late |= self.options.late();
        self.stopped |= self.watch.interrupted() || self.outcome.late;
        self.stopped
    }

    /// Those of some cells that belong together that this process is to run; none where another has them.
    pub fn take<T: Copy>(&self, cells: &[T], planned: impl Fn(&T) -> &Planned) -> Vec<T> {
        let ids: Vec<&CellId> = cells.iter().map(|cell| &planned(cell).id).collect();
        let taken = self.share.take(&ids);
        cells.iter().zip(taken).filter(|(_, taken)| *taken).map(|(cell, _)| *cell).collect()
    }

    /// Whether to look where the time of what is timed goes.
    pub fn profiles(&self) -> bool {
        self.options.profile
    }

    /// Whether there is no other process, so that what is still to come is this one's too.
    pub fn is_sole(&self) -> bool {
        self.share.sole()
    }

    /// Stores a finished or failed cell and says so.
    pub fn record(
        &mut self,
        planned: &Planned,
        timings: Timings,
        result: Result<Vec<Numbers>, Failure>,
    ) -> Result<(), RunError> {
        if self.outcome.ran == 0 {
            // Not before there is something new: a run that can't load its model leaves the old plan.
            self.store.write_plan(&self.prepared.plan, &self.prepared.experiment.text)?;
        }
        let mut record = known(self.store, planned);
        (record.timings, record.program, record.finished) = (timings, Program::current(), now());
        let due = |group: &str| planned.due.contains(&group);
        let failed = result.is_err();
        match result {
            Ok(numbers) => {
                // Before the cell that has their digests.
                for (path, file) in numbers.iter().filter_map(|numbers| numbers.file(&planned.id)) {
                    self.store.write(&path, file.as_bytes())?;
                }
                record.add(parts(planned, numbers, &record));
                record.failure = None;
            }
            Err(failure) => {
                let due = planned.parts.iter().filter(|part| due(part.group));
                let parts: Vec<CellId> = due.map(|part| part.id.clone()).collect();
                // What was to be measured again counts no longer.
                record.results.retain(|part| !parts.contains(&part.id));
                record.failure = Some(Failure { message: panics::brief(&failure.message), parts, ..failure });
            }
        }
        self.store.write_cell(&record)?;
        self.outcome.ran += 1;
        self.outcome.failed += usize::from(failed);
        self.stopped |= failed && self.options.fail_fast;
        let wanted: Vec<CellId> = planned.parts.iter().map(|part| part.id.clone()).collect();
        self.watch.done(&record.only(&wanted));
        Ok(())
    }
}

/// The numbers that were asked for, each with what decides it, and those that are told with them.
fn parts(planned: &Planned, numbers: Vec<Numbers>, record: &Record) -> Vec<PartRecord> {
    let of = |numbers: Numbers| {
        let part = planned.parts.iter().find(|part| part.group == numbers.group())?;
        let asked = part.check || planned.due.contains(&part.group);
        asked.then(|| PartRecord {
            id: part.id.clone(),
            inputs: part.inputs.clone(),
            result: numbers,
            program: record.program.clone(),
            finished: record.finished.clone(),
            origin: None,
        })
    };
    numbers.into_iter().filter_map(of).collect()
}
