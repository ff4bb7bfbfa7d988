//! Several processes of one machine measure the cells of a run: one a GPU, or several that share the CPU's threads.
//!
//! ```text
//!   this process        plans, hands out points (ledger.rs), shows one progress, starts a worker again that has died
//!     │  lines.rs       lines of JSON over pipes
//!     ├── worker 0      prepares the same experiment (member.rs); loads a model once and keeps it from point to point
//!     ├── worker 1      process.rs: ends when its input ends, so that none is left behind
//!     ┆
//!   then, alone         the cells that are timed, in this process, with all threads and the first GPU
//! ```
//! A cell and its name are the same for any number of workers: names hash the threads that timed cells get, and those
//! get all.

mod ledger;
mod lines;
mod member;
mod process;

pub use member::{Talk, failed, work};
pub use process::Start;

use super::PrepareError;
use super::prepared::Prepared;
use super::scheduler::{Outcome, RunError, RunOptions, Watch, WorkerError, fail, run, run_some};
use super::share::Sole;
use crate::config::Experiment;
use crate::config::experiment::{Metric, Workers};
use crate::config::metric::Reads;
use crate::execute::device::{self, DeviceError};
use crate::plan::{CellId, Planned, TIMES};
use crate::record::{Failure, FailureKind, Store, WorkerRecord};
use ledger::{Death, Ledger};
use lines::{Due, Said, Told};
use process::{Event, Place, Process};
use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// How often it is asked whether the user wants to stop.
const POLL: Duration = Duration::from_millis(50);
/// How many workers may end before they take a cell, until the run ends.
const BARREN: usize = 2;

/// How many processes are to measure.
///
/// # Errors
/// When there are fewer GPUs.
pub fn workers(prepared: &Prepared) -> Result<usize, PrepareError> {
    let experiment = &prepared.experiment;
    if !uses_gpus(prepared) {
        return Ok(match experiment.workers {
            Workers::Count(count) => count,
            Workers::All => all_threads(experiment),
        });
    }
    let gpus = device::gpus()?;
    match experiment.workers {
        Workers::Count(count) if experiment.device_index.saturating_add(count) > gpus => {
            let index = experiment.device_index.saturating_add(count) - 1;
            Err(DeviceError::NoSuchGpu { index, count: gpus }.into())
        }
        Workers::Count(count) => Ok(count),
        Workers::All => Ok(gpus.saturating_sub(experiment.device_index).max(1)),
    }
}

fn uses_gpus(prepared: &Prepared) -> bool {
    prepared.cells.iter().any(|planned| planned.runs() && !planned.task.kind().backend().is_cpu())
}

/// The CPU threads of all workers together.
fn all_threads(experiment: &Experiment) -> usize {
    if experiment.threads == 0 { rayon::current_num_threads() } else { experiment.threads }
}

/// Whether a cell's numbers are times, which nothing else may disturb.
fn is_timed(planned: &Planned) -> bool {
    let clock = |group: &str| Metric::ALL.iter().any(|m| m.value.reads() == Reads::Clock && m.name == group);
    planned.due.iter().any(|group| *group == TIMES || clock(group))
}

/// Runs every selected cell that is not there yet, by this many processes.
///
/// # Errors
/// As [`run`]; when a worker can't be started, or ends before it measures anything.
pub fn run_by_workers(
    prepared: &Prepared,
    store: &Store,
    options: RunOptions,
    watch: &dyn Watch,
    (start, workers): (&Start, usize),
) -> Result<(Outcome, Vec<WorkerRecord>), RunError> {
    let shared: Vec<&Planned> = prepared.cells.iter().filter(|planned| planned.runs() && !is_timed(planned)).collect();
    let units: Vec<&[&Planned]> = shared.chunk_by(|a, b| b.task.kind().belongs_with(&a.task)).collect();
    let workers = workers.min(units.len());
    if workers < 2 {
        return Ok((run(prepared, store, options, watch)?, Vec::new()));
    }
    let ids = |unit: &&[&Planned]| unit.iter().map(|planned| planned.id.clone()).collect();
    let ledger = Ledger::new(units.iter().map(ids).collect());
    let mut crew = Crew::new(prepared, store, options, watch, start, workers, ledger);
    crew.run(&shared)?;
    let Crew { mut outcome, records, stopping, .. } = crew;
    let timed = |planned: &Planned| planned.runs() && is_timed(planned);
    watch.worker(None);
    if !stopping && !watch.interrupted() {
        run_some(prepared, store, options, watch, &Sole, &timed, &mut outcome)?;
    }
    Ok((outcome, records))
}

/// The processes, and whose cells are whose.
struct Crew<'a> {
    prepared: &'a Prepared,
    store: &'a Store,
    options: RunOptions,
    watch: &'a dyn Watch,
    start: &'a Start,
    ledger: Ledger,
    places: Vec<Place>,
    members: Vec<Option<Process>>,
    /// Those that have gone through all cells, and wait to hear whether there are more.
    waiting: Vec<bool>,
    /// Those that were told that there are none.
    released: Vec<bool>,
    /// Workers that have ended without a cell since the last one took one.
    barren: usize,
    planned: HashMap<&'a CellId, &'a Planned>,
    events: (Sender<Event>, Receiver<Event>),
    outcome: Outcome,
    records: Vec<WorkerRecord>,
    /// No further cell is to begin.
    stopping: bool,
}

impl<'a> Crew<'a> {
    fn new(
        prepared: &'a Prepared,
        store: &'a Store,
        options: RunOptions,
        watch: &'a dyn Watch,
        start: &'a Start,
        workers: usize,
        ledger: Ledger,
    ) -> Self {
        Self {
            prepared,
            store,
            options,
            watch,
            start,
            ledger,
            places: places(&prepared.experiment, workers, uses_gpus(prepared)),
            members: (0..workers).map(|_| None).collect(),
            waiting: vec![false; workers],
            released: vec![false; workers],
            barren: 0,
            planned: prepared.cells.iter().map(|planned| (&planned.id, planned)).collect(),
            events: mpsc::channel(),
            outcome: Outcome::of_kept(prepared),
            records: Vec::new(),
            stopping: false,
        }
    }

    /// Works until all cells are done, or no further one is to begin.
    fn run(&mut self, shared: &[&Planned]) -> Result<(), RunError> {
        let due = |planned: &&Planned| Due {
            cell: planned.id.clone(),
            groups: planned.due.iter().map(|group| (*group).to_owned()).collect(),
        };
        let orders = Told::Run { cells: shared.iter().map(due).collect() };
        while !self.ledger.is_done() && (self.ledger.is_busy() || !self.stopping) {
            self.start_missing()?;
            match self.events.1.recv_timeout(POLL) {
                Ok(Event::Said(worker, line)) => self.hear(worker, &line, &orders)?,
                Ok(Event::Ended(worker)) => self.ended(worker)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if self.watch.interrupted() {
                // Dropped, the workers are killed.
                self.members.clear();
                return Ok(());
            }
            self.answer_waiting();
        }
        self.dismiss();
        Ok(())
    }

    /// Starts the workers that are not there and have something to do.
    fn start_missing(&mut self) -> Result<(), RunError> {
        for worker in 0..self.members.len() {
            if self.members[worker].is_none() && !self.stopping && self.ledger.has_for(worker) {
                let started = Process::start(self.start, self.places[worker], self.events.0.clone());
                self.members[worker] = Some(started.map_err(|error| WorkerError::Start(error.to_string()))?);
                (self.waiting[worker], self.released[worker]) = (false, false);
            }
        }
        Ok(())
    }

    fn hear(&mut self, worker: usize, line: &str, orders: &Told) -> Result<(), RunError> {
        self.watch.worker(Some(worker));
        match serde_json::from_str(line) {
            Ok(Said::Ready) => self.tell(worker, orders),
            Ok(Said::Take { cells }) => {
                let cells = self.taken(worker, &cells);
                self.tell(worker, &Told::Yours { cells });
            }
            Ok(Said::Again) => {
                self.ledger.settle(worker);
                self.waiting[worker] = true;
            }
            Ok(Said::Loading { model, backend }) => self.watch.loading(&model, &backend),
            Ok(Said::Begins { cell }) => {
                self.ledger.begins(worker, &cell);
                if let Some(planned) = self.planned.get(&cell) {
                    self.watch.begins(&planned.task);
                }
            }
            Ok(Said::Stage { stage }) => self.watch.stage(&stage),
            Ok(Said::Late) => (self.outcome.late, self.stopping) = (true, true),
            Ok(Said::Done { cell, failed }) => self.done(worker, &cell, failed)?,
            Ok(Said::Failed { code, message, hint }) => {
                return Err(WorkerError::Failed { code, message, hint }.into());
            }
            // A library may print something.
            Err(_) => self.members[worker].iter_mut().for_each(|process| process.keep(line)),
        }
        Ok(())
    }

    fn tell(&mut self, worker: usize, told: &Told) {
        if let Some(process) = &mut self.members[worker] {
            process.tell(told);
        }
    }

    fn look_at_the_clock(&mut self) {
        self.outcome.late |= self.options.late();
        self.stopping |= self.outcome.late;
    }

    /// The cells that a worker gets of those that it asks for.
    fn taken(&mut self, worker: usize, cells: &[CellId]) -> Vec<CellId> {
        self.look_at_the_clock();
        let (Some(first), false) = (cells.first(), self.stopping) else {
            self.ledger.settle(worker);
            return Vec::new();
        };
        let taken = self.ledger.take(worker, first);
        if !taken.is_empty() {
            self.barren = 0;
        }
        taken
    }

    fn done(&mut self, worker: usize, cell: &CellId, failed: bool) -> Result<(), RunError> {
        if !self.ledger.done(worker, cell) {
            return Ok(());
        }
        self.outcome.ran += 1;
        self.outcome.failed += usize::from(failed);
        self.stopping |= failed && self.options.fail_fast;
        self.members[worker].iter_mut().for_each(|process| process.cells += 1);
        let wanted = self.planned.get(cell).map(|planned| planned.parts.iter().map(|part| part.id.clone()).collect());
        if let (Some(record), Some(wanted)) = (self.store.cell(cell)?, wanted) {
            let wanted: Vec<CellId> = wanted;
            self.watch.done(&record.only(&wanted));
        }
        Ok(())
    }

    /// A worker has ended, by itself or not.
    fn ended(&mut self, worker: usize) -> Result<(), RunError> {
        let Some(mut process) = self.members[worker].take() else { return Ok(()) };
        let (status, said, record) = process.end();
        let ended = record.end.clone();
        self.records.push(record);
        self.waiting[worker] = false;
        if status.is_some_and(|status| status.success()) {
            // It was not needed any more, has failed fast, or its time was over: then it begins none of what it has.
            self.look_at_the_clock();
            self.ledger.settle(worker);
            return if self.stopping || self.released[worker] { Ok(()) } else { self.barren(ended, said) };
        }
        match self.ledger.died(worker) {
            Death::WithCells => Ok(()),
            Death::OfCell(cell) => {
                let said = if said.is_empty() { String::new() } else { format!("; it said: {said}") };
                let message = format!("two workers that measured it died, the last with {ended}{said}");
                let Some(planned) = self.planned.get(&cell) else { return Ok(()) };
                let failure = Failure::new(FailureKind::Other, message);
                let Self { prepared, store, options, watch, outcome, .. } = self;
                self.stopping |= options.fail_fast;
                fail(prepared, store, *options, *watch, outcome, (planned, failure))
            }
            Death::WithoutCells => self.barren(ended, said),
        }
    }

    /// A worker has ended that had no cells: once may be bad luck.
    fn barren(&mut self, ended: String, said: String) -> Result<(), RunError> {
        self.barren += 1;
        if self.barren < BARREN { Ok(()) } else { Err(WorkerError::Barren { ended, said }.into()) }
    }

    /// Tells those that wait whether there is more for them, once that is certain.
    fn answer_waiting(&mut self) {
        for worker in 0..self.members.len() {
            if !self.waiting[worker] {
                continue;
            }
            let again = !self.stopping && self.ledger.has_for(worker);
            if again || self.stopping || !self.ledger.is_busy() {
                self.tell(worker, &Told::Again { again });
                (self.waiting[worker], self.released[worker]) = (false, !again);
            }
        }
    }

    /// Ends all workers, and waits for them.
    fn dismiss(&mut self) {
        self.members.iter_mut().flatten().for_each(Process::dismiss);
        let ended = std::mem::take(&mut self.members).into_iter().flatten().map(|mut process| process.end().2);
        self.records.extend(ended);
    }
}

/// Where each worker runs: on GPUs from the first upwards, and on its part of the CPU's threads.
fn places(experiment: &Experiment, workers: usize, on_gpus: bool) -> Vec<Place> {
    let all_threads = all_threads(experiment);
    let threads = |number: usize| (all_threads / workers + usize::from(number < all_threads % workers)).max(1);
    let place = |number| Place {
        number,
        of: workers,
        gpu: on_gpus.then_some(experiment.device_index + number),
        threads: threads(number),
        all_threads,
    };
    (0..workers).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn experiment(device: &str) -> Experiment {
        let text = format!("name = \"t\"\n[model]\nsource = \"builtin:tiny-opt\"\n[device]\n{device}\n");
        crate::config::parse(Path::new("e.toml"), &text, &[]).unwrap()
    }

    #[test]
    fn threads_are_divided_and_gpus_are_counted_from_the_first() {
        let of = |device: &str, workers, on_gpus| -> Vec<(Option<usize>, usize)> {
            let places = places(&experiment(device), workers, on_gpus);
            assert!(places.iter().all(|place| place.all_threads == places[0].all_threads && place.of == workers));
            places.iter().map(|place| (place.gpu, place.threads)).collect()
        };
        assert_eq!(of("threads = 8", 3, false), [(None, 3), (None, 3), (None, 2)]);
        assert_eq!(of("threads = 2", 3, false), [(None, 1), (None, 1), (None, 1)]);
        assert_eq!(of("threads = 16\nindex = 2", 2, true), [(Some(2), 8), (Some(3), 8)]);
    }
}
