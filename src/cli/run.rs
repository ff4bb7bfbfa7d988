//! `run`: prepare, measure what is missing, store, report.

use super::args::{OutputFormat, RunArgs, SelectionArgs};
use super::interrupt::Interrupt;
use super::output::{Event, FailedCell, Printer};
use super::presence::Presence;
use super::progress::{Progress, download_observer};
use super::until::Until;
use crate::config;
use crate::config::experiment::{Metric, Workers};
use crate::config::{Experiment, Origin};
use crate::diagnostic::RenderStyle;
use crate::error::{CliError, exit};
use crate::execute::kernels::cpu::Simd;
use crate::load::{Loader, Observer};
use crate::plan::{CellId, Decision, Planned};
use crate::record::{Machine, Manifest, RunRecord, Store, WorkerRecord, experiment_folder, host, now, sha256};
use crate::report;
use crate::run::{
    Outcome, PrepareError, PrepareOptions, Prepared, RunOptions, Start, prepare, run_by_workers, take_over, workers,
};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What a results folder calls the experiment file that it keeps.
const KEPT: &str = "experiment.toml";

pub(super) fn run(args: &RunArgs) -> Result<u8, CliError> {
    if args.quiet {
        Printer::be_quiet();
    }
    let experiment = load_experiment(&args.selection)?;
    if args.profile && !experiment.metrics.contains(&Metric::Latency) {
        let message = "`--profile` looks into what is timed, and `metrics` under `[measure]` has no `latency`";
        return Err(CliError::usage(message, Some("add `latency` to `metrics`".into())));
    }
    limit_threads(&experiment)?;
    let store = store_of(&args.selection, &experiment);
    if let Some(missing) = report::database::missing(experiment.queries.len()) {
        Printer::warning(&missing.to_string());
    }
    warn_of_another_file(&store, &experiment, &args.selection.file);
    let presence = Presence::new(store.clone(), beginning());
    let interrupt = {
        let presence = presence.clone();
        Interrupt::listen(move |code| {
            let _ = presence.end(code, None);
            Printer::note("interrupted: run again to continue");
        })
    };
    let result = measure_and_report(experiment, args, &store, &presence, &interrupt);
    let (code, ended) = match &result {
        Ok((code, outcome, workers)) => (*code, Some((*outcome, workers.clone()))),
        Err(error) => (error.code, None),
    };
    let written = presence.end(code, ended);
    // The first error is the one to tell.
    if result.is_ok() {
        written?;
    }
    result.map(|(code, ..)| code)
}

/// What is known of this process's run before it does anything.
fn beginning() -> RunRecord {
    let machine = Machine::current(Simd::detect().name());
    RunRecord::new(std::env::args().collect(), machine, host(), std::process::id())
}

/// The run itself; the exit code, what became of the cells, and the processes that measured them.
fn measure_and_report(
    experiment: Experiment,
    args: &RunArgs,
    store: &Store,
    presence: &Presence,
    interrupt: &Interrupt,
) -> Result<(u8, Outcome, Vec<WorkerRecord>), CliError> {
    let json = args.output_format == OutputFormat::Json;
    let downloads = download_observer(interrupt.clone(), json);
    let prepared = prepare_with(experiment, &args.selection, store, downloads, false)?;
    if let Some(too_large) = prepared.too_large.first().filter(|_| !args.ignore_memory) {
        return Err(PrepareError::TooLarge(too_large.clone()).into());
    }
    warn_of_memory(&prepared, "cells may fail for lack of it");
    store.create()?;
    presence.begin()?;
    take_over(&prepared, store)?;
    if json {
        let (cells, kept, results) = (prepared.running(), prepared.kept().count(), store.root().display().to_string());
        Printer::json(&Event::Start { cells, kept, results });
        kept_events(&prepared, store)?;
    }
    if args.profile {
        note_unprofiled(&prepared);
    }
    let running = prepared.cells.iter().filter(|planned| planned.runs()).map(|planned| &planned.task);
    let progress = Progress::new(running, json, interrupt.clone(), Some(presence.clone()));
    let outcome = run_cells(&prepared, args, store, &progress);
    progress.finish();
    let (outcome, workers) = outcome?;
    let code = match interrupt.code() {
        Some(code) => {
            tell_failures(&progress.failures());
            if json {
                let Outcome { ran, failed, kept, .. } = outcome;
                Printer::json(&Event::Interrupted { ran, failed, kept });
            }
            Printer::note("interrupted: run again to continue");
            code
        }
        None => {
            let mut failures = progress.failures();
            failures.extend(kept_failures(&prepared));
            finish(&prepared, store, &presence.run(), outcome, failures, json)?
        }
    };
    Ok((code, outcome, workers))
}

/// Runs the cells in this process, or has several run them.
fn run_cells(
    prepared: &Prepared,
    args: &RunArgs,
    store: &Store,
    progress: &Progress,
) -> Result<(Outcome, Vec<WorkerRecord>), CliError> {
    let options =
        RunOptions { fail_fast: args.fail_fast, until: args.until.map(Until::instant), profile: args.profile };
    let workers = match prepared.experiment.workers {
        Workers::Count(0 | 1) => 1,
        Workers::Count(_) | Workers::All => workers(prepared)?,
    };
    let start = Start { program: this_program()?, args: worker_args(args, store), file: args.selection.file.clone() };
    Ok(run_by_workers(prepared, store, options, progress, (&start, workers))?)
}

/// Says which cells keep their times, and so have no new profile.
fn note_unprofiled(prepared: &Prepared) {
    let latency = Metric::Latency.name();
    let timed = |planned: &&Planned| planned.selected && planned.parts.iter().any(|part| part.group == latency);
    let kept = |planned: &&Planned| !planned.runs() || !planned.due.contains(&latency);
    let count = prepared.cells.iter().filter(timed).filter(kept).count();
    if count > 0 {
        Printer::note(&format!("{} timed before: `--rerun all` profiles them too", counted(count, "cell")));
    }
}

fn this_program() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|error| CliError {
        code: exit::UNEXPECTED,
        message: format!("the program's own file can't be found: {error}"),
        hint: None,
    })
}

/// What a worker of a run is started with.
fn worker_args(args: &RunArgs, store: &Store) -> Vec<OsString> {
    let selection = &args.selection;
    let mut all: Vec<OsString> = vec!["worker".into(), "--folder".into(), store.root().into()];
    for set in &selection.set {
        all.extend(["--set".into(), set.into()]);
    }
    all.extend(args.fail_fast.then(|| "--fail-fast".into()));
    all.extend(args.until.map(|until| format!("--until={until}").into()));
    all
}

/// Reads the file, shows its warnings.
pub(super) fn load_experiment(selection: &SelectionArgs) -> Result<Experiment, CliError> {
    let experiment = read_experiment(&selection.file, &selection.set)?;
    if !experiment.warnings.is_empty() {
        Printer::note(&experiment.warnings.render(style()));
    }
    Ok(experiment)
}

/// Says so where the results folder is another experiment file's, which has the same name. A file that was changed
/// since is still the same file.
pub(super) fn warn_of_another_file(store: &Store, experiment: &Experiment, file: &Path) {
    let stored = store.bytes(Path::new(KEPT));
    if file == store.root().join(KEPT) {
        return;
    }
    let Ok(Some(manifest)) = store.manifest() else { return };
    if stored.is_none_or(|stored| stored == experiment.text.as_bytes()) {
        return;
    }
    // Whoever ran it said so on the command line, maybe from another folder.
    let is_file = |arg: &&String| !arg.contains('=') && Path::new(arg).extension().is_some_and(|e| e == "toml");
    let Some(earlier) = manifest.argv.iter().skip(1).find(is_file).map(Path::new) else { return };
    if !earlier.ends_with(file) && !file.ends_with(earlier) {
        Printer::warning(&format!(
            "`{}` has the results of `{}`, and `{}` has the same name, `{}`: they share the folder, whose tables will show \
             the cells of the latter; give one of them another `name`, or another folder with `--results DIR`",
            store.root().display(),
            earlier.display(),
            file.display(),
            experiment.name
        ));
    }
}

/// Reads the file; its mistakes are shown here, since they have a form of their own.
pub(super) fn read_experiment(file: &Path, set: &[String]) -> Result<Experiment, CliError> {
    config::load_from(file, origin_of(file), set).map_err(told)
}

/// What is wrong with an experiment file, shown.
pub(super) fn told(error: config::ConfigError) -> CliError {
    let (diagnostics, code) = match error {
        config::ConfigError::Invalid(diagnostics) => (diagnostics, exit::USAGE),
        config::ConfigError::Base(diagnostics) => (diagnostics, exit::INPUT),
        error @ config::ConfigError::Read { .. } => return error.into(),
    };
    Printer::problem(&diagnostics.render(style()));
    CliError { code, message: String::new(), hint: None }
}

/// Where a file comes from, which may be the copy that a results folder keeps.
pub(super) fn origin_of(file: &Path) -> Origin {
    kept_origin(file).unwrap_or_else(|| Origin::of(file))
}

/// What an experiment file that a results folder keeps says of where it came from.
fn kept_origin(file: &Path) -> Option<Origin> {
    if file.file_name()? != KEPT {
        return None;
    }
    Store::at(folder_of(file)?).origin()
}

/// The folder that a file lies in; `.` of a bare name.
fn folder_of(file: &Path) -> Option<&Path> {
    file.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

/// The results folder: of an experiment file that a folder keeps it is that folder, unless it is told otherwise.
pub(super) fn store_of(selection: &SelectionArgs, experiment: &Experiment) -> Store {
    let home = folder_of(&experiment.path).filter(|_| experiment.path != experiment.origin.file);
    let renamed = selection.set.iter().any(|set| set.split('=').next().is_some_and(|key| key.trim() == "name"));
    match (&selection.results, home) {
        (Some(results), _) => Store::at(experiment_folder(results, &experiment.name)),
        (None, Some(home)) if renamed => match home.file_name() {
            Some(_) => Store::at(home.with_file_name(&experiment.name)),
            None => Store::at(home.join("..").join(&experiment.name)),
        },
        (None, Some(home)) => Store::at(home),
        (None, None) => Store::at(experiment_folder(Path::new("results"), &experiment.name)),
    }
}

fn style() -> RenderStyle {
    if Printer::coloured() { RenderStyle::Coloured } else { RenderStyle::Plain }
}

/// What `plan` and `run` share; `plan` wants to know more of new cells.
pub(super) fn prepare_selection(
    experiment: Experiment,
    selection: &SelectionArgs,
    store: &Store,
    interrupt: &Interrupt,
    explain: bool,
) -> Result<Prepared, CliError> {
    prepare_with(experiment, selection, store, download_observer(interrupt.clone(), false), explain)
}

/// Likewise, with somebody who is told of downloads.
fn prepare_with(
    experiment: Experiment,
    selection: &SelectionArgs,
    store: &Store,
    downloads: Observer,
    explain: bool,
) -> Result<Prepared, CliError> {
    let loader = Loader::new(selection.offline, downloads);
    let options = PrepareOptions {
        only: selection.only.clone(),
        partition: selection.partition,
        rerun: selection.rerun,
        limit: selection.limit,
        explain,
    };
    let prepared = prepare(experiment, &loader, store, &options);
    let prepared = prepared.map_err(|error| CliError::from(error).about(&selection.file, &selection.set))?;
    for model in &prepared.models {
        for warning in &model.files.warnings {
            Printer::warning(warning);
        }
    }
    for warning in &prepared.warnings {
        Printer::warning(warning);
    }
    Ok(prepared)
}

/// What a worker prepares: all cells, whatever is to be run of them, and nothing is said.
pub(super) fn prepare_quietly(experiment: Experiment, loader: &Loader, store: &Store) -> Result<Prepared, CliError> {
    Ok(prepare(experiment, loader, store, &PrepareOptions::default())?)
}

/// Says which cells may take more memory than there is, and what follows.
pub(super) fn warn_of_memory(prepared: &Prepared, consequence: &str) {
    for too_large in &prepared.too_large {
        Printer::warning(&format!("{too_large}: {consequence}"));
    }
}

pub(super) fn limit_threads(experiment: &Experiment) -> Result<(), CliError> {
    /// More threads than any machine has; a typing mistake should not start them.
    const MOST: usize = 1024;
    if experiment.threads > MOST {
        let message = format!("`device.threads` is {}, more than {MOST}", experiment.threads);
        return Err(CliError::usage(message, Some("0 takes all that the machine has".into())));
    }
    if let Workers::Count(count) = experiment.workers
        && count > MOST
    {
        let message = format!("`device.workers` is {count}, more than {MOST}");
        return Err(CliError::usage(message, Some("\"all\" takes a worker for each GPU or processor".into())));
    }
    build_threads(experiment.threads)
}

/// Starts the threads of the CPU.
pub(super) fn build_threads(threads: usize) -> Result<(), CliError> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    threads.map_err(|error| CliError {
        code: exit::UNEXPECTED,
        message: format!("starting threads failed: {error}"),
        hint: Some("set a smaller `device.threads`".into()),
    })
}

fn kept_events(prepared: &Prepared, store: &Store) -> Result<(), CliError> {
    for planned in prepared.cells.iter().filter(|planned| planned.selected && !planned.runs()) {
        if let Some(record) = store.cell(&planned.id)? {
            Printer::json(&Event::cached(&record.only(&wanted(planned))));
        }
    }
    Ok(())
}

/// The names of a cell's groups of results.
fn wanted(planned: &Planned) -> Vec<CellId> {
    planned.parts.iter().map(|part| part.id.clone()).collect()
}

/// Manifest, tables and plots, and what to say at the end.
fn finish(
    prepared: &Prepared,
    store: &Store,
    started: &RunRecord,
    outcome: Outcome,
    failures: Vec<FailedCell>,
    json: bool,
) -> Result<u8, CliError> {
    store.write_plan(&prepared.plan, &prepared.experiment.text)?;
    store.write_manifest(&manifest(prepared, started))?;
    let report = match report::report(store, report::Extras::default()) {
        // The one selected cell may have been `--limit 0` away.
        Err(report::ReportError::NoCells { .. }) => return Ok(said_late(prepared, outcome).unwrap_or(exit::OK)),
        report => report?,
    };
    if json {
        Printer::json(&Event::Done {
            ran: outcome.ran,
            failed: outcome.failed,
            kept: outcome.kept,
            expectations_missed: report.missed,
            results: store.root().display().to_string(),
            failures: failures.clone(),
        });
    } else if !Printer::is_quiet() {
        Printer::report(&report);
    }
    let Outcome { ran, failed, kept, kept_failed, .. } = outcome;
    let stand_ins: Vec<&str> =
        prepared.models.iter().filter(|m| m.files.is_stand_in()).map(|m| m.files.source.as_str()).collect();
    if !stand_ins.is_empty() {
        Printer::note(&format!("\n{}: a stand-in, not a published model", stand_ins.join(", ")));
    }
    tell_failures(&failures);
    let unfinished = match report.unfinished {
        0 => String::new(),
        count => format!(", {count} still to do"),
    };
    for damaged in &report.damaged {
        Printer::warning(&format!("{damaged}; `run` measures it again"));
    }
    let copied = match outcome.copied {
        0 => String::new(),
        count => format!(" ({count} of them copied from other experiments)"),
    };
    Printer::note(&format!(
        "{} measured, {kept} cached{copied}, {} failed{unfinished}: {}",
        counted(ran, "cell"),
        failed + kept_failed,
        store.root().display()
    ));
    Printer::findings(&report);
    let unanswered = Printer::unanswered(&report);
    if let Some(code) = said_late(prepared, outcome) {
        return Ok(code);
    }
    let failed = failed + kept_failed + report.missed > 0;
    Ok(unanswered.unwrap_or(if failed { exit::FAILED } else { exit::OK }))
}

/// The cells that stay as they are although they failed before.
fn kept_failures(prepared: &Prepared) -> impl Iterator<Item = FailedCell> {
    prepared.cells.iter().filter(|planned| planned.selected).filter_map(|planned| match &planned.decision {
        Decision::KeepFailed { message } => {
            Some(FailedCell { id: planned.id.clone(), cell: planned.task.to_string(), message: message.clone() })
        }
        Decision::New { .. }
        | Decision::Add { .. }
        | Decision::Copy { .. }
        | Decision::Cached
        | Decision::Accepted { .. }
        | Decision::Stale { .. }
        | Decision::Retry { .. }
        | Decision::Rerun
        | Decision::Beside => None,
    })
}

/// Says once more at the end which cells failed, and why; the same reason once.
fn tell_failures(failures: &[FailedCell]) {
    /// As many as a terminal shows beside the rest.
    const MOST: usize = 20;
    let mut reasons: Vec<(&FailedCell, usize)> = Vec::new();
    for failed in failures {
        match reasons.iter_mut().find(|(first, _)| first.message == failed.message) {
            Some((_, count)) => *count += 1,
            None => reasons.push((failed, 1)),
        }
    }
    for (first, count) in reasons.iter().take(MOST) {
        let more = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        Printer::problem(&format!("failed: {} {}{more}: {}", first.id, first.cell, first.message));
    }
    if reasons.len() > MOST {
        let others = reasons[MOST..].iter().map(|(_, count)| count).sum();
        Printer::problem(&format!("failed: {}, for other reasons; `plan` tells all", counted(others, "cell")));
    }
}

/// Says that cells are left because the time was over; then with the exit code.
fn said_late(prepared: &Prepared, outcome: Outcome) -> Option<u8> {
    let left = prepared.running().saturating_sub(outcome.ran);
    (outcome.late && left > 0).then(|| {
        Printer::note(&format!("the time is over and {} did not begin: run again to continue", counted(left, "cell")));
        exit::INTERRUPTED
    })
}

/// `1 cell`, `2 cells`
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn manifest(prepared: &Prepared, started: &RunRecord) -> Manifest {
    Manifest {
        format: 1,
        name: prepared.experiment.name.clone(),
        experiment_sha256: sha256(prepared.experiment.text.as_bytes()),
        origin: prepared.plan.origin.clone(),
        inputs: prepared.inputs(),
        seeds: prepared.experiment.seeds.clone(),
        program: started.program.clone(),
        machine: started.machine.clone(),
        argv: started.argv.clone(),
        written: now(),
    }
}
