//! A results folder is run again, and every number of it compared with what comes out.
//!
//! ```text
//!   the folder:  experiment.toml, manifest ──inputs.rs──> are files, seeds and texts those that were read then?
//!                                │
//!                                v        sample.rs: all cells, or some that are drawn
//!   a folder of its own:  run/prepare, run ──> cells ──numbers.rs──> cell by cell        where the folder has cells
//!                                               └report──tables.rs──> row by row         where it has tables alone
//!   tables.rs                                            and its tables with those that its own cells give
//!                                │
//!                                v
//!   Verification ──record.rs──> verify/STAMP-PID.json      bit-equal, within a tolerance that is told, different; timings
//! ```
//! compare.rs says of two entries which of these they are. Nothing of the folder is changed but `verify/`, where the record
//! goes. Prints nothing.

mod compare;
mod inputs;
mod numbers;
mod record;
mod sample;
mod tables;

pub use compare::{Counts, Difference, Likeness};
pub use record::{Finding, ItemVerdict, Stranger, Verification};
pub use sample::Draw;

use crate::config::Experiment;
use crate::config::experiment::BackendChoice;
use crate::load::Loader;
use crate::plan::{CellId, Planned, Task};
use crate::record::{Manifest, PlanEntry, Program, Record, Store, StoreError, now};
use crate::report::{self, ReportError};
use crate::run::{self, PrepareError, PrepareOptions, Prepared, RunError, RunOptions, Watch, prepare};
use compare::Arithmetic;
use record::Draft;
use sample::Drawing;
use std::collections::{HashMap, HashSet};
use thiserror::Error;

/// Why a folder can't be verified.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// There is nothing to run again from.
    #[error("`{folder}` has no `{file}`")]
    Missing {
        /// The folder.
        folder: String,
        /// The file.
        file: &'static str,
    },
    /// There are neither cells nor tables.
    #[error("`{0}` has neither cells nor tables")]
    Nothing(String),
    /// No room for a folder to run in.
    #[error("failed to make a folder to run in")]
    Room(#[source] std::io::Error),
    /// A file of the folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The experiment can't be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// It can't be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The tables can't be made.
    #[error(transparent)]
    Report(#[from] ReportError),
}

impl VerifyError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("give the folder of a finished experiment, `results/NAME`".into()),
            Self::Nothing(_) => Some("a folder with `cells/` or with `tables/*.csv` can be verified".into()),
            Self::Room(_) => Some("make room in the folder for temporary files, or set TMPDIR to another one".into()),
            Self::Store(error) => error.hint(),
            Self::Prepare(error) => error.hint(),
            Self::Run(error) => error.hint(),
            Self::Report(error) => error.hint(),
        }
    }
}

/// A cell of the plan with what its file says: nothing where there is none, or why it can't be believed.
type Kept = (PlanEntry, Result<Option<Record>, String>);

/// What is verified, and how it is watched.
pub struct Verifier<'a> {
    /// The folder.
    pub store: &'a Store,
    /// The way in for models and texts.
    pub loader: &'a Loader,
    /// How many cells.
    pub draw: Draw,
    /// Told how it goes, once it is known which cells may be run.
    pub watch: &'a dyn Fn(&[&Task]) -> Box<dyn Watch>,
}

impl Verifier<'_> {
    /// Runs an experiment, which the folder keeps, again.
    ///
    /// # Errors
    /// When there is nothing to run, or it can't be run here. That numbers differ is no error.
    pub fn verify(&self, mut experiment: Experiment) -> Result<Verification, VerifyError> {
        let started = now();
        let folder = self.store.root().display().to_string();
        let missing = |file| VerifyError::Missing { folder: folder.clone(), file };
        let manifest = self.store.manifest()?.ok_or_else(|| missing("manifest.json"))?;
        let cells = self.cells()?;
        pin_backends(&mut experiment, &cells, self.store);
        let room = tempfile::tempdir().map_err(VerifyError::Room)?;
        let fresh = Store::at(room.path().join(&experiment.name));
        let prepared = prepare(experiment, self.loader, &fresh, &PrepareOptions::default())?;
        let arithmetic = Arithmetic::of(&manifest, self.store, &prepared);
        let mut draft = Draft::begin(&started, &self.draw, &prepared.inputs());
        draft.findings = inputs::findings(self.store, &manifest, &prepared);
        if !draft.findings.is_empty() {
            // Other inputs give other numbers: to compare them says nothing more.
            return Ok(draft.end(&manifest, arithmetic));
        }
        match cells.is_empty() {
            false => self.cells_again(prepared, &fresh, &cells, &manifest, &arithmetic, &mut draft)?,
            true if tables::names(self.store).is_empty() => return Err(VerifyError::Nothing(folder)),
            true => self.tables_again(prepared, &fresh, &arithmetic, &mut draft)?,
        }
        Ok(draft.end(&manifest, arithmetic))
    }

    /// The cells that the folder has, by the plan; with what their files say, or why these can't be believed.
    fn cells(&self) -> Result<Vec<Kept>, VerifyError> {
        let Some(plan) = self.store.plan()? else { return Ok(Vec::new()) };
        let read = |entry: PlanEntry| {
            let record = match self.store.cell(&entry.id) {
                Ok(None) => Ok(None),
                Ok(Some(record)) => match self.store.with_items(record.only(&wanted(&entry))) {
                    (record, lost) if lost.is_empty() => Ok(Some(record)),
                    (_, lost) => Err(lost.join("; ")),
                },
                Err(error) => Err(error.to_string()),
            };
            (entry, record)
        };
        let cells: Vec<_> = plan.cells.into_iter().map(read).collect();
        let there = cells.iter().any(|(_, record)| !matches!(record, Ok(None)));
        Ok(if there { cells } else { Vec::new() })
    }

    fn cells_again(
        &self,
        mut prepared: Prepared,
        fresh: &Store,
        cells: &[Kept],
        manifest: &Manifest,
        arithmetic: &Arithmetic,
        draft: &mut Draft,
    ) -> Result<(), VerifyError> {
        let planned: HashMap<&CellId, &Planned> = prepared.cells.iter().map(|cell| (&cell.id, cell)).collect();
        let mut eligible: Vec<(CellId, &Record)> = Vec::new();
        for (entry, record) in cells {
            match (planned.get(&entry.id), record) {
                (None, record) => draft.strangers.extend(inputs::stranger(entry, record, &prepared.cells)),
                (Some(_), Err(message)) => draft.findings.push(Finding::file(entry.id.as_str(), message)),
                (Some(_), Ok(None)) => draft.unfinished += 1,
                (Some(_), Ok(Some(record))) => eligible.push((entry.id.clone(), record)),
            }
        }
        let known: HashSet<&CellId> = cells.iter().map(|(entry, _)| &entry.id).collect();
        draft.unfinished += prepared.cells.iter().filter(|cell| !known.contains(&cell.id)).count();
        let ids: Vec<CellId> = eligible.iter().map(|(id, _)| id.clone()).collect();
        let ran = self.run_drawn(&mut prepared, fresh, &ids, draft)?;
        for (id, record) in eligible.iter().filter(|(id, _)| ran.contains(id)) {
            let parts: Vec<CellId> = record.results.iter().map(|part| part.id.clone()).collect();
            let again = fresh.cell(id)?.map(|again| fresh.with_items(again.only(&parts)).0);
            draft.cells.push(numbers::compare(record, again.as_ref(), arithmetic));
        }
        if manifest.program == Program::current() {
            self.own_tables(draft)?;
        }
        Ok(())
    }

    /// The folder's tables are to be those that its own cells give: nothing is measured for this.
    fn own_tables(&self, draft: &mut Draft) -> Result<(), VerifyError> {
        let room = tempfile::tempdir().map_err(VerifyError::Room)?;
        let copy = Store::at(room.path().join("copy"));
        tables::copy_cells(self.store, &copy)?;
        tables::copy_pixels(self.store, &copy)?;
        match report::report(&copy, report::Extras::default()) {
            Ok(_) => draft.tables.extend(tables::own_files(self.store, &copy)),
            Err(ReportError::NoCells { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn tables_again(
        &self,
        mut prepared: Prepared,
        fresh: &Store,
        arithmetic: &Arithmetic,
        draft: &mut Draft,
    ) -> Result<(), VerifyError> {
        let ids: Vec<CellId> = prepared.cells.iter().map(|planned| planned.id.clone()).collect();
        let ran = self.run_drawn(&mut prepared, fresh, &ids, draft)?;
        fresh.write_plan(&prepared.plan, &prepared.experiment.text)?;
        tables::copy_pixels(self.store, fresh)?;
        report::report(fresh, report::Extras::default())?;
        draft.tables = tables::compare(self.store, fresh, arithmetic, ran.len() < ids.len());
        Ok(())
    }

    /// Runs the cells that are drawn of these; the ones that ran.
    fn run_drawn(
        &self,
        prepared: &mut Prepared,
        fresh: &Store,
        of: &[CellId],
        draft: &mut Draft,
    ) -> Result<HashSet<CellId>, VerifyError> {
        fresh.create()?;
        let mut drawing = Drawing::of(&self.draw, of);
        let left = drawing.left();
        let drawn = prepared.cells.iter().filter(|planned| left.contains(&planned.id));
        let drawn: Vec<&Task> = drawn.map(|planned| &planned.task).collect();
        let watch = (self.watch)(&drawn);
        let mut ran = HashSet::new();
        while let Some(chunk) = drawing.next_chunk() {
            let chunk: HashSet<CellId> = chunk.into_iter().collect();
            prepared.cells.iter_mut().for_each(|planned| planned.selected = chunk.contains(&planned.id));
            run::run(prepared, fresh, RunOptions::default(), &*watch)?;
            if watch.interrupted() {
                break;
            }
            ran.extend(chunk);
        }
        (draft.drawn, draft.of) = (ran.len(), of.len());
        Ok(ran)
    }
}

/// The names of the results that a plan wants of a cell.
fn wanted(entry: &PlanEntry) -> Vec<CellId> {
    entry.parts.iter().map(|part| part.id.clone()).collect()
}

/// What `auto` became then is what it is now: the same cells are to be run, or refused.
fn pin_backends(experiment: &mut Experiment, cells: &[Kept], store: &Store) {
    if !experiment.backends.contains(&BackendChoice::Auto) {
        return;
    }
    let mut then: Vec<BackendChoice> = Vec::new();
    let of_cells = cells.iter().map(|(entry, _)| entry.cell.kind().backend().choice());
    let of_tables = tables::words(store, "backend").into_iter().filter_map(|word| word.parse().ok());
    for backend in of_cells.chain(of_tables) {
        if !then.contains(&backend) {
            then.push(backend);
        }
    }
    if !then.is_empty() {
        experiment.backends = then;
    }
}
