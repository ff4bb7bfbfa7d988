//! Tells others that a run goes on: its file in `runs/` is written when it begins, every half minute, and when it ends.
//!
//! ```text
//!   begin ──> { started, seen, doing, ended: null } ──half a minute──> seen, doing anew ── .. ──end──> ended, exit code
//! ```
//! `status` reads it. A process that is killed leaves a file without an end, which disturbs nobody.

use crate::record::{RunRecord, Store, StoreError, WorkerRecord, now};
use crate::run::Outcome;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a sign of life is given.
const BEAT: Duration = Duration::from_secs(30);

/// A run, as others see it.
#[derive(Clone)]
pub(super) struct Presence(Arc<Shared>);

struct Shared {
    store: Store,
    state: Mutex<State>,
    over: Condvar,
}

struct State {
    run: RunRecord,
    over: bool,
}

impl Presence {
    /// Nothing is written before it begins.
    pub fn new(store: Store, run: RunRecord) -> Self {
        Self(Arc::new(Shared { store, state: Mutex::new(State { run, over: false }), over: Condvar::new() }))
    }

    /// What is known from the beginning.
    pub fn run(&self) -> RunRecord {
        self.state().run.clone()
    }

    /// Says so for the first time, in a folder that exists, and from then on.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn begin(&self) -> Result<(), StoreError> {
        self.0.sign(&mut self.state())?;
        let shared = self.0.clone();
        std::thread::spawn(move || shared.beat());
        Ok(())
    }

    /// What it does now, by so many processes.
    pub fn doing(&self, what: &str, processes: usize) {
        let run = &mut self.state().run;
        (run.doing, run.at_once) = (Some(what.to_owned()), (processes > 1).then_some(processes));
    }

    /// How many cells it has run.
    pub fn ran(&self, ran: usize, failed: usize) {
        let run = &mut self.state().run;
        (run.ran, run.failed) = (ran, failed);
    }

    /// The run is over. Before its folder is there, there is nothing to record.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn end(&self, code: u8, ended: Option<(Outcome, Vec<WorkerRecord>)>) -> Result<(), StoreError> {
        let mut state = self.state();
        state.over = true;
        let run = &mut state.run;
        (run.seen, run.doing, run.at_once) = (None, None, None);
        (run.ended, run.exit_code) = (Some(now()), Some(code));
        if let Some((Outcome { ran, failed, kept, .. }, workers)) = ended {
            (run.ran, run.failed, run.kept, run.workers) = (ran, failed, kept, workers);
        }
        self.0.over.notify_all();
        if self.0.store.root().join("runs").is_dir() { self.0.store.write_run(run) } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn sign(&self, state: &mut State) -> Result<(), StoreError> {
        state.run.seen = Some(now());
        self.store.write_run(&state.run)
    }

    fn beat(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.over {
            state = self.over.wait_timeout(state, BEAT).unwrap_or_else(PoisonError::into_inner).0;
            if !state.over {
                // A full disk is told by the cell that can't be written.
                let _ = self.sign(&mut state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Machine;

    #[test]
    fn a_run_is_seen_from_its_beginning_to_its_end() {
        let lab = tempfile::tempdir().unwrap();
        let store = Store::at(lab.path().join("e"));
        let run = RunRecord::new(Vec::new(), Machine::current("scalar"), "a host/..".into(), 7);
        let presence = Presence::new(store.clone(), run);
        presence.end(3, None).unwrap();
        assert!(!store.root().exists(), "what never began leaves nothing");
        store.create().unwrap();
        let presence =
            Presence::new(store.clone(), RunRecord { started: "2026-01-01T00:00:00Z".into(), ..presence.run() });
        presence.0.state.lock().unwrap().run.ended = None;
        presence.begin().unwrap();
        let only = || store.runs().pop().unwrap().0;
        assert!(only().ended.is_none() && only().seen.is_some());
        presence.doing("loading", 1);
        presence.ran(2, 1);
        presence.0.sign(&mut presence.state()).unwrap();
        assert_eq!((only().doing.as_deref(), only().ran, only().failed), (Some("loading"), 2, 1));
        presence.end(130, Some((Outcome { ran: 3, ..Outcome::default() }, Vec::new()))).unwrap();
        assert_eq!((only().exit_code, only().ran, only().doing), (Some(130), 3, None));
        assert!(only().ended.is_some());
        assert_eq!(std::fs::read_dir(store.root().join("runs")).unwrap().count(), 1);
    }
}
