//! `status`: how far folders are, also while others work on them.

use super::args::{OutputFormat, StatusArgs};
use super::output::Printer;
use super::progress::span;
use super::run::counted;
use crate::error::{CliError, exit};
use crate::record::{RunRecord, Store};
use crate::report::status::{Runner, Status, status as look};
use crate::report::table::Table;
use serde_json::json;
use std::path::Path;

/// As many failed cells as a terminal shows beside the rest.
const MOST_FAILURES: usize = 20;

pub(super) fn status(args: &StatusArgs) -> Result<u8, CliError> {
    for folder in &args.folders {
        let store = Store::at(folder);
        let found = look(&store)?;
        if found.name.is_none() && found.runners.is_empty() {
            return Err(CliError {
                code: exit::INPUT,
                message: format!("no experiment has begun in `{}`", folder.display()),
                hint: Some("give the folder of an experiment, `results/NAME`, after `sparsify-exp run`".into()),
            });
        }
        match args.output_format {
            OutputFormat::Human => show(&found, folder),
            OutputFormat::Json => Printer::json(&as_json(&found, folder)),
        }
    }
    Ok(exit::OK)
}

fn show(status: &Status, folder: &Path) {
    let mut tables = Vec::new();
    if !status.groups.is_empty() {
        let mut table = Table::new("status", ["kind", "model", "method", "done", "failed", "left"]);
        let row = |of: &crate::report::status::Group| {
            let words = [of.kind.into(), of.model.as_str().into(), of.method.as_str().into()];
            words.into_iter().chain([of.done, of.failed, of.left].map(Into::into)).collect()
        };
        table.rows.extend(status.groups.iter().map(row));
        tables.push(table.terminal());
    }
    if !status.runners.is_empty() {
        let mut table = Table::new("runners", ["host", "process", "state", "since", "measured", "failed", "doing"]);
        table.rows.extend(status.runners.iter().map(|Runner { run, runs }| {
            vec![
                run.host.as_str().into(),
                u64::from(run.pid).into(),
                state(run, *runs).into(),
                run.started.as_str().into(),
                run.ran.into(),
                run.failed.into(),
                run.doing.as_deref().filter(|_| *runs).into(),
            ]
        }));
        tables.push(table.terminal());
    }
    Printer::data(&tables.join("\n"));
    for failed in status.failures.iter().take(MOST_FAILURES) {
        Printer::note(&format!("failed: {} {}: {}", failed.id, failed.cell, failed.message));
    }
    if let more @ 1.. = status.failures.len().saturating_sub(MOST_FAILURES) {
        Printer::note(&format!("failed: {} more", counted(more, "cell")));
    }
    if let stale @ 1.. = status.stale {
        Printer::note(&format!(
            "{} by another version of the program: `run --rerun stale` measures them again, `accept` takes them",
            counted(stale, "cell")
        ));
    }
    for damaged in &status.damaged {
        Printer::warning(&format!("{damaged}; `run` measures it again"));
    }
    Printer::note(&format!("{}: {}", folder.display(), summary(status)));
}

/// Whether a process runs, in words.
fn state(run: &RunRecord, runs: bool) -> String {
    let seen = || run.seen.as_ref().unwrap_or(&run.started);
    if runs { "running".into() } else { format!("no sign of life since {}", seen()) }
}

/// How far it is, in a sentence.
fn summary(status: &Status) -> String {
    let [done, failed, left] = status.counts();
    if status.name.is_none() {
        return "no cell is done yet".into();
    }
    let total = done + failed + left;
    let cells = format!("{done} of {} done, {failed} failed, {left} left", counted(total, "cell"));
    let time = match (status.seconds_left, status.running()) {
        _ if left == 0 => String::new(),
        (None, _) => String::new(),
        (Some(seconds), 0) => format!("; nobody is at it, one process would take about {}", span(seconds)),
        (Some(seconds), 1) => format!("; about {} left", span(seconds)),
        (Some(seconds), running) => format!("; about {} left for {running} processes", span(seconds / running as f64)),
    };
    cells + &time
}

fn as_json(status: &Status, folder: &Path) -> serde_json::Value {
    let [done, failed, left] = status.counts();
    let groups: Vec<_> = status.groups.iter().map(|of| {
        json!({ "kind": of.kind, "model": of.model, "method": of.method, "done": of.done, "failed": of.failed, "left": of.left })
    }).collect();
    let runners = status.runners.iter().map(|Runner { run, runs }| {
        json!({
            "host": run.host, "pid": run.pid, "started": run.started, "seen": run.seen, "running": runs, "doing": run.doing,
            "processes": run.at_once.unwrap_or(1),
            "ran": run.ran, "failed": run.failed,
        })
    });
    let failures = status.failures.iter().map(|of| json!({ "id": of.id, "cell": of.cell, "message": of.message }));
    let running = status.running();
    json!({
        "name": status.name,
        "results": folder.display().to_string(),
        "done": done,
        "failed": failed,
        "left": left,
        "stale": status.stale,
        "groups": groups,
        "runners": runners.collect::<Vec<_>>(),
        "process_seconds_left": status.seconds_left,
        "seconds_left": status.seconds_left.filter(|_| running > 0).map(|seconds| seconds / running as f64),
        "failures": failures.collect::<Vec<_>>(),
        "damaged": status.damaged,
    })
}
