//! A worker's side: it prepares the experiment itself, asks for cells, and says what it does.

use super::lines::{Due, Said, Told, line};
use crate::plan::{CellId, Decision, Planned, Task};
use crate::record::{Record, Store};
use crate::run::prepared::Prepared;
use crate::run::scheduler::{Outcome, RunError, RunOptions, Watch, WorkerError, run_some};
use crate::run::share::Share;
use std::collections::HashMap;

/// How a worker talks to the process that started it.
pub struct Talk<'a> {
    /// Says a line.
    pub say: &'a dyn Fn(&str),
    /// Waits for a line.
    pub hear: &'a dyn Fn() -> String,
    /// Which of the workers it is, and how many there are.
    pub place: (usize, usize),
}

impl Talk<'_> {
    fn say(&self, said: &Said) {
        (self.say)(&line(said));
    }

    /// What is told. A line that is none of ours is taken for the end of the work: nothing good can follow.
    fn hear(&self) -> Option<Told> {
        serde_json::from_str(&(self.hear)()).ok()
    }
}

/// The line that says what ends the run.
pub fn failed(code: u8, message: String, hint: Option<String>) -> String {
    line(&Said::Failed { code, message, hint })
}

/// Works until there is nothing left.
///
/// # Errors
/// When a model can't be loaded, a result can't be stored, or the plan is another than that of who asks.
pub fn work(mut prepared: Prepared, store: &Store, options: RunOptions, talk: &Talk<'_>) -> Result<(), RunError> {
    talk.say(&Said::Ready);
    let Some(Told::Run { cells }) = talk.hear() else { return Ok(()) };
    choose(&mut prepared.cells, &cells)?;
    let runs = prepared.cells.iter().filter(|planned| planned.runs());
    let ids: HashMap<String, CellId> = runs.map(|planned| (line(&planned.task), planned.id.clone())).collect();
    let member = Member { talk, ids };
    let mut outcome = Outcome::default();
    run_some(&prepared, store, options, &member, &member, &Planned::runs, &mut outcome)?;
    if outcome.late {
        talk.say(&Said::Late);
    }
    Ok(())
}

/// Marks the cells that are to be run, and what is due of each.
fn choose(cells: &mut [Planned], due: &[Due]) -> Result<(), WorkerError> {
    let mut due: HashMap<&CellId, &Due> = due.iter().map(|due| (&due.cell, due)).collect();
    for planned in cells.iter_mut() {
        planned.selected = false;
        let Some(wanted) = due.remove(&planned.id) else { continue };
        (planned.selected, planned.decision) = (true, Decision::Rerun);
        let groups = planned.parts.iter().map(|part| part.group);
        planned.due = groups.filter(|group| wanted.groups.iter().any(|wanted| wanted == group)).collect();
    }
    match due.keys().min() {
        None => Ok(()),
        Some(unknown) => Err(WorkerError::Failed {
            // What the command line calls an input that is missing or unusable.
            code: INPUT,
            message: format!("a worker does not find cell `{unknown}` in its plan: something changed meanwhile"),
            hint: Some("leave the experiment file and its inputs as they are while it runs, and run again".into()),
        }),
    }
}

/// The exit code of an unusable input.
const INPUT: u8 = 3;

/// Asks for cells and says what is done.
struct Member<'a> {
    talk: &'a Talk<'a>,
    /// The names of the cells by what is run.
    ids: HashMap<String, CellId>,
}

impl Share for Member<'_> {
    fn take(&self, cells: &[&CellId]) -> Vec<bool> {
        self.talk.say(&Said::Take { cells: cells.iter().map(|id| (*id).clone()).collect() });
        match self.talk.hear() {
            Some(Told::Yours { cells: mine }) => cells.iter().map(|id| mine.contains(id)).collect(),
            Some(Told::Run { .. } | Told::Again { .. }) | None => vec![false; cells.len()],
        }
    }

    fn first(&self, batches: usize) -> usize {
        let (worker, workers) = self.talk.place;
        worker * batches / workers.max(1)
    }

    fn again(&self) -> bool {
        self.talk.say(&Said::Again);
        matches!(self.talk.hear(), Some(Told::Again { again: true }))
    }

    fn sole(&self) -> bool {
        false
    }
}

impl Watch for Member<'_> {
    fn loading(&self, model: &str, backend: &str) {
        self.talk.say(&Said::Loading { model: model.into(), backend: backend.into() });
    }

    fn begins(&self, task: &Task) {
        if let Some(cell) = self.ids.get(&line(task)) {
            self.talk.say(&Said::Begins { cell: cell.clone() });
        }
    }

    fn stage(&self, stage: &str) {
        self.talk.say(&Said::Stage { stage: stage.into() });
    }

    fn done(&self, record: &Record) {
        self.talk.say(&Said::Done { cell: record.id.clone(), failed: record.failure.is_some() });
    }

    /// Who started it ends it.
    fn interrupted(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Loader;
    use crate::run::{PrepareOptions, prepare};
    use std::cell::RefCell;
    use std::ops::ControlFlow;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    /// What a worker says that is given the cells that it asks for, once this much time has passed; it may begin cells
    /// for 50 ms.
    fn said(text: &str, before_cells: Duration) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let experiment = crate::config::parse(Path::new("e.toml"), text, &[]).unwrap();
        let loader = Loader::new(true, Arc::new(|_: &str, _, _| ControlFlow::Continue(())));
        let prepared = prepare(experiment, &loader, &store, &PrepareOptions::default()).unwrap();
        let due = |planned: &Planned| Due {
            cell: planned.id.clone(),
            groups: planned.due.iter().map(|group| (*group).to_owned()).collect(),
        };
        let cells = prepared.cells.iter().map(due).collect();
        let said: RefCell<Vec<String>> = RefCell::default();
        let say = |line: &str| said.borrow_mut().push(line.to_owned());
        let all = RefCell::new(Some(Told::Run { cells }));
        let hear = || {
            if let Some(all) = all.take() {
                return line(&all);
            }
            let last = said.borrow().last().map(|said| serde_json::from_str(said).unwrap());
            let Some(Said::Take { cells }) = last else { return line(&Told::Again { again: false }) };
            std::thread::sleep(before_cells);
            line(&Told::Yours { cells })
        };
        let options = RunOptions { until: Some(Instant::now() + Duration::from_millis(50)), ..RunOptions::default() };
        work(prepared, &store, options, &Talk { say: &say, hear: &hear, place: (0, 1) }).unwrap();
        said.into_inner()
    }

    #[test]
    fn a_worker_whose_time_ends_within_its_last_point_says_so_and_asks_for_no_more() {
        let one_point = "name = 'e'\n[model]\nsource = 'builtin:tiny-opt'\n[device]\nbackend = 'flex'\n\
            [measure]\nmetrics = ['structure']\n";
        let points = format!("{one_point}[[prune]]\nmethod = 'magnitude'\nsparsity = 0.5\n");
        for text in [one_point, &points] {
            let said = said(text, Duration::from_millis(100));
            let late = line(&Said::Late);
            assert_eq!(said.last(), Some(&late), "{said:?}");
            assert!(
                !said.contains(&line(&Said::Again)) && !said.iter().any(|said| said.contains("\"done\"")),
                "{said:?}"
            );
        }
    }
}
