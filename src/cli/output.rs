//! Where words go: data to stdout, the rest to stderr.

use crate::error::CliError;
use crate::plan::{CellId, Task};
use crate::record::{Failure, Numbers, Record, Timings};
use crate::report::{Report, escape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static LOST: OnceLock<String> = OnceLock::new();
static QUIET: AtomicBool = AtomicBool::new(false);

/// Writes data and messages. A reader that has gone away is no error.
pub struct Printer;

impl Printer {
    /// Data, as it is. What keeps it from being written is told by [`Printer::data_lost`].
    pub fn data(text: &str) {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = written.map_err(|error| (error.kind(), error.to_string()))
            && error.0 != io::ErrorKind::BrokenPipe
        {
            let _ = LOST.set(error.1);
        }
    }

    /// Why data was lost, if any was.
    pub fn data_lost() -> Option<&'static str> {
        LOST.get().map(String::as_str)
    }

    /// One JSON object on a line.
    pub fn json(value: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(value) {
            Self::data(&format!("{line}\n"));
        }
    }

    /// The tables of a report.
    pub fn report(report: &Report) {
        let pivots = report.pivots.iter().map(|pivot| format!("{}: {}", pivot.id, pivot.terminal()));
        let verdicts = report.verdicts.iter().map(|table| table.terminal());
        let texts: Vec<String> = report.shown.iter().cloned().chain(pivots).chain(verdicts).collect();
        Self::data(&texts.join("\n"));
    }

    /// What the tables say that a reader should not miss.
    pub fn findings(report: &Report) {
        report.findings.iter().for_each(|finding| Self::note(finding));
        report.warnings.iter().for_each(|warning| Self::warning(warning));
    }

    /// Queries without an answer and tables that can't be made, as errors; the exit code, if there are any.
    pub fn unanswered(report: &Report) -> Option<u8> {
        let unanswered = report.unanswered.iter().map(CliError::from);
        let not_pivoted = report.not_pivoted.iter().map(CliError::from);
        let errors = unanswered.chain(not_pivoted);
        errors.inspect(Self::error).map(|error| error.code).min()
    }

    /// From now on errors alone are told.
    pub fn be_quiet() {
        QUIET.store(true, Ordering::Relaxed);
    }

    /// Whether errors alone are told.
    pub fn is_quiet() -> bool {
        QUIET.load(Ordering::Relaxed)
    }

    /// A message on a line of its own.
    pub fn note(text: &str) {
        if !Self::is_quiet() {
            Self::problem(text);
        }
    }

    /// A message that is told in any case. What it quotes is shown and does nothing to the terminal.
    pub fn problem(text: &str) {
        let text = if Self::coloured() { escape::coloured(text).into() } else { escape::lines(text) };
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A warning.
    pub fn warning(text: &str) {
        Self::note(&format!("{} {text}", styled("33;1", "warning:")));
    }

    /// An error with its hint.
    pub fn error(error: &CliError) {
        if !error.message.is_empty() {
            Self::problem(&format!("{} {}", styled("31;1", "error:"), error.message));
        }
        if let Some(hint) = &error.hint {
            Self::problem(&format!("\n{} {hint}", styled("36;1", "hint:")));
        }
    }

    /// Whether stderr shows colours.
    pub fn coloured() -> bool {
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }
}

fn styled(code: &str, text: &str) -> String {
    if Printer::coloured() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
}

/// A line of `run --output-format json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Cells are about to be measured; those that were there already follow first.
    Start {
        /// Cells to measure.
        cells: usize,
        /// Selected cells that were there already.
        kept: usize,
        /// The results folder.
        results: String,
    },
    /// A file is being downloaded: its beginning, and its end.
    Download {
        /// Its name.
        file: String,
        /// Bytes that are here.
        bytes: u64,
        /// Bytes of the whole, where that is known.
        of: Option<u64>,
    },
    /// What is being done now. Of a phase that counts, at most one a second is told.
    Phase {
        /// The cell, or the model, in words.
        what: String,
        /// What is done: `loading`, `calibrating 3 of 6 blocks`.
        phase: String,
        /// The worker that does it, where there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<usize>,
    },
    /// A cell was measured, or was there already.
    Cell {
        /// Its name.
        id: CellId,
        /// A short label, the notebooks' of a model's.
        setup: String,
        /// What was run; `kind` says what kind of work it is.
        cell: Box<Task>,
        /// Whether it was there already.
        cached: bool,
        /// The numbers by group, of a finished cell, as its file has them: `perplexity`, say.
        measured: Option<BTreeMap<String, Value>>,
        /// Why it failed, of a failed one.
        failure: Option<Failure>,
        /// How long it took.
        timings: Box<Timings>,
        /// How many cells are measured by now, of one that was measured.
        done: Option<usize>,
        /// Of how many.
        of: Option<usize>,
        /// Seconds that the others will take, by those that are done.
        seconds_left: Option<f64>,
    },
    /// The user stopped the run: run again to continue.
    Interrupted {
        /// Cells measured now.
        ran: usize,
        /// Of those, failed ones.
        failed: usize,
        /// Selected cells that were there already.
        kept: usize,
    },
    /// The run is over.
    Done {
        /// Cells measured now.
        ran: usize,
        /// Of those, failed ones.
        failed: usize,
        /// Selected cells that were there already.
        kept: usize,
        /// Expectations missed.
        expectations_missed: usize,
        /// The results folder.
        results: String,
        /// The cells that failed, now or before.
        failures: Vec<FailedCell>,
    },
}

/// A cell that failed, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FailedCell {
    /// Its name.
    pub id: CellId,
    /// What it is, in words.
    pub cell: String,
    /// Why it failed.
    pub message: String,
}

impl FailedCell {
    /// Of a record, if its last measurement failed.
    pub fn of(record: &Record) -> Option<Self> {
        let failure = record.failure.as_ref()?;
        Some(Self { id: record.id.clone(), cell: record.cell.to_string(), message: failure.message.clone() })
    }
}

impl Event {
    /// The event of a cell that was there already, of which the record has what is wanted.
    pub fn cached(record: &Record) -> Self {
        Self::cell(record, true, None, None)
    }

    /// The event of a cell that was measured, how many are by now, and what the others will take.
    pub fn measured(record: &Record, done: (usize, usize), seconds_left: Option<f64>) -> Self {
        Self::cell(record, false, Some(done), seconds_left)
    }

    fn cell(record: &Record, cached: bool, done: Option<(usize, usize)>, seconds_left: Option<f64>) -> Self {
        let groups: BTreeMap<String, Value> = record.results.iter().flat_map(|part| group(&part.result)).collect();
        Self::Cell {
            id: record.id.clone(),
            setup: record.cell.kind().setup(),
            cell: Box::new(record.cell.clone()),
            cached,
            measured: Some(groups).filter(|groups| !groups.is_empty() && record.failure.is_none()),
            failure: record.failure.clone(),
            timings: Box::new(record.timings),
            done: done.map(|(done, _)| done),
            of: done.map(|(_, of)| of),
            seconds_left,
        }
    }
}

/// A group's name and numbers.
fn group(numbers: &Numbers) -> serde_json::Map<String, Value> {
    match serde_json::to_value(numbers) {
        Ok(Value::Object(group)) => group,
        Ok(_) | Err(_) => serde_json::Map::new(),
    }
}
