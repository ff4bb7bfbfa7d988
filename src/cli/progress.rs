//! How far a run is: a bar on a terminal, one line a finished cell elsewhere, and events.
//!
//! ```text
//!   Watch: loading, begins, stage, done ──> bar     12/40  3 min left  CELL  perplexity, window 3 of 9
//!                                       ├─> lines   [12/40] CELL  0.31 s  (3 min left)
//!                                       ├─> events  Event::Phase, Event::Cell
//!                                       └─> presence.rs, for others
//! ```
//! Where several workers measure, each has a desk: what it does, and since when.

use super::interrupt::Interrupt;
use super::output::{Event, FailedCell, Printer};
use super::presence::Presence;
use crate::load::Observer;
use crate::plan::{Class, Pace, Seconds, Task};
use crate::record::{KernelResult, Record};
use crate::report::escape;
use crate::report::table::Value;
use crate::run::Watch;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The least time between two events of one phase that counts something.
const BETWEEN_EVENTS: Duration = Duration::from_secs(1);

/// The least time between two estimates of the time left.
const BETWEEN_ESTIMATES: Duration = Duration::from_millis(500);

/// Shows how far a run is.
pub struct Progress {
    bar: ProgressBar,
    json: bool,
    interrupt: Interrupt,
    presence: Option<Presence>,
    state: RefCell<State>,
}

/// How far it is.
struct State {
    total: usize,
    done: usize,
    failures: Vec<FailedCell>,
    /// Cells that are still to run, so many of each class.
    rest: HashMap<Class, usize>,
    pace: Pace,
    /// What the rest takes by what was known then: with thousands of cells, that is not asked at each.
    left: Option<(Instant, f64)>,
    /// What each worker does.
    desks: Vec<Desk>,
    /// The worker that is being told of.
    at: usize,
}

/// What a worker does.
struct Desk {
    /// When its last cell was done.
    since: Instant,
    /// The cell, or the model, that is being worked on.
    what: String,
    class: Option<Class>,
    phase: String,
    told: Option<Instant>,
}

impl Progress {
    /// Progress over some cells; finished ones also go to stdout as JSON if `json`.
    pub(super) fn new<'t>(
        tasks: impl IntoIterator<Item = &'t Task>,
        json: bool,
        interrupt: Interrupt,
        presence: Option<Presence>,
    ) -> Self {
        let mut rest: HashMap<Class, usize> = HashMap::new();
        tasks.into_iter().for_each(|task| *rest.entry(Class::of(task)).or_default() += 1);
        let total = rest.values().sum();
        let mut progress = Self::counting(total, interrupt);
        (progress.json, progress.presence) = (json, presence);
        progress.state.get_mut().rest = rest;
        progress
    }

    /// Progress over so many cells of which nothing is known: without events, and without the time left.
    pub(super) fn counting(total: usize, interrupt: Interrupt) -> Self {
        let bar = bar(total as u64, "{bar:24} {pos}/{len}  {elapsed}  {prefix}  {msg}");
        bar.enable_steady_tick(Duration::from_secs(1));
        let state = State {
            total,
            done: 0,
            failures: Vec::new(),
            rest: HashMap::new(),
            pace: Pace::default(),
            left: None,
            desks: vec![Desk::new()],
            at: 0,
        };
        Self { bar, json: false, interrupt, presence: None, state: RefCell::new(state) }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// The cells that failed, in order.
    pub(super) fn failures(&self) -> Vec<FailedCell> {
        self.state.borrow().failures.clone()
    }

    /// What is worked on from now on.
    fn enter(&self, what: String, phase: &str) {
        {
            let mut state = self.state.borrow_mut();
            let left = state.left().map_or_else(String::new, |left| format!("{left}  "));
            let who = state.who().map_or_else(String::new, |worker| format!("worker {worker}: "));
            self.bar.set_prefix(escape::line(&format!("{left}{who}{what}")).into_owned());
            let desk = state.desk();
            (desk.what, desk.phase, desk.told) = (what, String::new(), None);
        }
        self.phase(phase);
    }

    /// What is being done of it.
    fn phase(&self, phase: &str) {
        self.bar.set_message(phase.to_owned());
        let mut state = self.state.borrow_mut();
        let worker = state.who();
        let desk = state.desk();
        let recent = desk.told.is_some_and(|told| told.elapsed() < BETWEEN_EVENTS);
        if self.json && !phase.is_empty() && !(recent && same_but_counts(phase, &desk.phase)) {
            Printer::json(&Event::Phase { what: desk.what.clone(), phase: phase.into(), worker });
            desk.told = Some(Instant::now());
        }
        desk.phase = phase.into();
        if let Some(presence) = &self.presence {
            presence.doing(&state.doing(), state.desks.len());
        }
    }
}

impl Desk {
    fn new() -> Self {
        Self { since: Instant::now(), what: String::new(), class: None, phase: String::new(), told: None }
    }

    fn doing(&self) -> String {
        if self.phase.is_empty() { self.what.clone() } else { format!("{}: {}", self.what, self.phase) }
    }
}

impl State {
    /// The desk of the worker that is being told of.
    fn desk(&mut self) -> &mut Desk {
        &mut self.desks[self.at]
    }

    /// The number of the worker that is being told of, where there are several.
    fn who(&self) -> Option<usize> {
        (self.desks.len() > 1).then_some(self.at)
    }

    /// What is done, by all workers that have begun.
    fn doing(&self) -> String {
        let all: Vec<String> = self.desks.iter().map(Desk::doing).filter(|doing| !doing.is_empty()).collect();
        all.join("; ")
    }

    /// `3 min left`, as soon as that is known.
    fn left(&self) -> Option<String> {
        self.seconds_left().filter(|_| self.done < self.total).map(|seconds| format!("{} left", span(seconds)))
    }

    fn seconds_left(&self) -> Option<f64> {
        self.left.map(|(at, seconds)| (seconds - at.elapsed().as_secs_f64()).max(0.0))
    }

    /// Takes note of a finished cell.
    fn learn(&mut self, record: &Record) {
        self.done += 1;
        let desk = self.desk();
        let wall = desk.since.elapsed().as_secs_f64();
        desk.since = Instant::now();
        // A cell may have been taken over under another spelling of its model: what began is what is done.
        let class = desk.class.take().unwrap_or_else(|| Class::of(&record.cell));
        let timings = &record.timings;
        let own = (timings.measure_seconds + timings.convert_seconds.unwrap_or(0.0)).min(wall);
        let point = timings.prune_seconds.unwrap_or(0.0).min(wall - own);
        // Of a point that is pruned already, nothing of this time went to the pruning.
        let group = if self.pace.knows_point_of(&class) { wall - own } else { wall - own - point };
        self.pace.learn(&class, Seconds { own, point, group });
        if let Some(count) = self.rest.get_mut(&class) {
            *count = count.saturating_sub(1);
        }
        self.failures.extend(FailedCell::of(record));
        if !self.rest.is_empty() && self.left.is_none_or(|(at, _)| at.elapsed() > BETWEEN_ESTIMATES) {
            let seconds = self.pace.left(self.rest.iter().map(|(class, count)| (class, *count)));
            self.left = seconds.map(|seconds| (Instant::now(), seconds / self.desks.len() as f64));
        }
    }
}

impl Watch for Progress {
    fn worker(&self, number: Option<usize>) {
        let mut state = self.state.borrow_mut();
        match number {
            Some(number) if number >= state.desks.len() => state.desks.resize_with(number + 1, Desk::new),
            Some(_) => {}
            None => state.desks = vec![Desk::new()],
        }
        state.at = number.unwrap_or(0);
    }

    fn loading(&self, model: &str, backend: &str) {
        self.enter(format!("{model} on {backend}"), "loading");
    }

    fn begins(&self, task: &Task) {
        self.state.borrow_mut().desk().class = Some(Class::of(task));
        self.enter(task.to_string(), "");
    }

    fn stage(&self, stage: &str) {
        self.phase(stage);
    }

    fn done(&self, record: &Record) {
        let mut state = self.state.borrow_mut();
        state.learn(record);
        if let Some(presence) = &self.presence {
            presence.ran(state.done, state.failures.len());
        }
        self.bar.inc(1);
        let count = format!("[{}/{}]", state.done, state.total);
        // On a terminal the bar says so, and what scrolls by would soon be wrong.
        let left = state.left().filter(|_| self.bar.is_hidden()).map_or_else(String::new, |left| format!("  ({left})"));
        let cell = &record.cell;
        self.bar.suspend(|| match &record.failure {
            None => Printer::note(&format!("{count} {cell}  {}{left}", result(record))),
            Some(failure) => Printer::problem(&format!("{count} {cell}  failed: {}", failure.message)),
        });
        if self.json {
            let event = Event::measured(record, (state.done, state.total), state.seconds_left());
            self.bar.suspend(|| Printer::json(&event));
        }
    }

    fn interrupted(&self) -> bool {
        self.interrupt.code().is_some()
    }
}

/// Whether two phases are one that counts: `window 3 of 9`, `window 4 of 9`.
fn same_but_counts(a: &str, b: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(a) == words(b)
}

/// A length of time as people say it.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, whole / 3600, whole / 60) {
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, 1..10) => format!("{minutes} min {} s", whole % 60),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// What a finished cell gave, in short: `5.83 ms  1.31x` of a kernel, else how long it took.
fn result(record: &Record) -> String {
    let kernel = KernelResult::of(record);
    let Some(timed) = kernel.as_ref().and_then(KernelResult::timed) else {
        let timings = &record.timings;
        return format!("{:.2} s", timings.measure_seconds + timings.convert_seconds.unwrap_or(0.0));
    };
    let median = Value::from(timed.median() * 1e3).rounded();
    match timed.speedup().filter(|_| timed.cell.sparsity.is_some()) {
        Some(speedup) => format!("{median} ms  {speedup:.2}x"),
        None => format!("{median} ms"),
    }
}

/// Shows downloads: a bar on a terminal, a line a file elsewhere; events if `json`.
pub fn download_observer(interrupt: Interrupt, json: bool) -> Observer {
    let shown: Mutex<Option<(String, ProgressBar)>> = Mutex::new(None);
    Arc::new(move |file, received, total| {
        let Ok(mut shown) = shown.lock() else { return ControlFlow::Continue(()) };
        let event = || {
            if json {
                Printer::json(&Event::Download { file: file.into(), bytes: received, of: total });
            }
        };
        if shown.as_ref().is_none_or(|(name, _)| name != file) {
            let size = total.map_or_else(String::new, |total| format!(", {}", HumanBytes(total)));
            Printer::note(&format!("downloading {file}{size}"));
            event();
            *shown = Some((file.to_owned(), bar(total.unwrap_or(0), "{bar:24} {bytes}/{total_bytes}  {eta}")));
        }
        if let Some((_, bar)) = shown.as_ref() {
            bar.set_position(received);
            if Some(received) == total && !bar.is_finished() {
                bar.finish_and_clear();
                event();
            }
        }
        if interrupt.code().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

fn bar(length: u64, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() || Printer::is_quiet() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let told = [0.2, 59.4, 59.6, 61.0, 599.0, 600.0, 3599.0, 3600.0, 7500.0, 86_400.0, 1e6].map(span);
        let expected = [
            "0 s",
            "59 s",
            "1 min 0 s",
            "1 min 1 s",
            "9 min 59 s",
            "10 min",
            "59 min",
            "1 h 0 min",
            "2 h 5 min",
            "1 d 0 h",
            "11 d 13 h",
        ];
        assert_eq!(told, expected);
        assert_eq!([span(-1.0), span(f64::NAN)], ["0 s", "0 s"]);
    }

    #[test]
    fn each_worker_has_a_desk() {
        let progress = Progress::counting(4, Interrupt::default());
        let seen = || {
            let state = progress.state.borrow();
            (state.who(), state.doing())
        };
        progress.loading("m", "flex");
        assert_eq!(seen(), (None, "m on flex: loading".into()));
        for worker in [2, 0] {
            progress.worker(Some(worker));
            progress.loading(&format!("m{worker}"), "flex");
        }
        assert_eq!(seen(), (Some(0), "m0 on flex: loading; m2 on flex: loading".into()));
        progress.worker(Some(2));
        progress.stage("gate");
        assert_eq!(seen(), (Some(2), "m0 on flex: loading; m2 on flex: gate".into()));
        progress.worker(None);
        assert_eq!(seen(), (None, String::new()));
    }

    #[test]
    fn a_phase_that_counts_stays_one() {
        assert!(same_but_counts("window 9 of 12", "window 10 of 12") && !same_but_counts("gate", "agreement"));
        assert!(!same_but_counts("perplexity", "perplexity, window 1 of 3"));
    }
}
