//! How far a run is: a bar on a terminal, one line a finished cell elsewhere.

use super::interrupt::Interrupt;
use super::output::{Event, Printer};
use crate::load::Observer;
use crate::plan::Task;
use crate::record::{KernelResult, Record};
use crate::report::escape;
use crate::report::table::Value;
use crate::run::Watch;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell as Counter;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

/// Shows how far a run is.
pub struct Progress {
    bar: ProgressBar,
    json: bool,
    total: usize,
    done: Counter<usize>,
    interrupt: Interrupt,
}

impl Progress {
    /// Progress over `total` cells; finished ones also go to stdout as JSON if `json`.
    pub fn new(total: usize, json: bool, interrupt: Interrupt) -> Self {
        let bar = bar(total as u64, "{bar:24} {pos}/{len}  {elapsed}  {prefix}  {msg}");
        Self { bar, json, total, done: Counter::new(0), interrupt }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| Printer::note(text));
    }
}

impl Watch for Progress {
    fn loading(&self, model: &str, backend: &str) {
        self.bar.set_prefix(escape::line(&format!("{model} on {backend}")).into_owned());
        self.bar.set_message("loading");
    }

    fn begins(&self, task: &Task) {
        self.bar.set_prefix(escape::line(&task.to_string()).into_owned());
        self.bar.set_message("");
    }

    fn stage(&self, stage: &str) {
        self.bar.set_message(stage.to_owned());
    }

    fn done(&self, record: &Record) {
        self.done.set(self.done.get() + 1);
        self.bar.inc(1);
        let count = format!("[{}/{}]", self.done.get(), self.total);
        let cell = &record.cell;
        match &record.failure {
            None => self.line(&format!("{count} {cell}  {}", result(record))),
            Some(failure) => self.line(&format!("{count} {cell}  failed: {}", failure.message)),
        }
        if self.json {
            self.bar.suspend(|| Printer::json(&Event::cell(record, false)));
        }
    }

    fn interrupted(&self) -> bool {
        self.interrupt.code().is_some()
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

/// Shows downloads: a bar on a terminal, a line a file elsewhere.
pub fn download_observer(interrupt: Interrupt) -> Observer {
    let shown: Mutex<Option<(String, ProgressBar)>> = Mutex::new(None);
    Arc::new(move |file, received, total| {
        let Ok(mut shown) = shown.lock() else { return ControlFlow::Continue(()) };
        if shown.as_ref().is_none_or(|(name, _)| name != file) {
            let size = total.map_or_else(String::new, |total| format!(", {}", HumanBytes(total)));
            Printer::note(&format!("downloading {file}{size}"));
            *shown = Some((file.to_owned(), bar(total.unwrap_or(0), "{bar:24} {bytes}/{total_bytes}  {eta}")));
        }
        if let Some((_, bar)) = shown.as_ref() {
            bar.set_position(received);
            if Some(received) == total {
                bar.finish_and_clear();
            }
        }
        if interrupt.code().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

fn bar(length: u64, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
