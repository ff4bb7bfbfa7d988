//! `run`: prepare, measure what is missing, store, report.

use super::args::{OutputFormat, RunArgs, SelectionArgs};
use super::interrupt::Interrupt;
use super::output::{Event, Printer};
use super::progress::{Progress, download_observer};
use crate::config;
use crate::config::{Experiment, Origin};
use crate::diagnostic::RenderStyle;
use crate::error::{CliError, exit};
use crate::execute::kernels::cpu::Simd;
use crate::load::Loader;
use crate::plan::{CellId, Planned};
use crate::record::{Machine, Manifest, Program, RunRecord, Store, experiment_folder, now, sha256};
use crate::report;
use crate::run::{Outcome, PrepareError, PrepareOptions, Prepared, RunOptions, prepare, take_over};
use std::path::Path;

/// What a results folder calls the experiment file that it keeps.
const KEPT: &str = "experiment.toml";

pub(super) fn run(args: &RunArgs) -> Result<u8, CliError> {
    let experiment = load_experiment(&args.selection)?;
    limit_threads(&experiment)?;
    let store = store_of(&args.selection, &experiment);
    if let Some(missing) = report::database::missing(experiment.queries.len()) {
        Printer::warning(&missing.to_string());
    }
    warn_of_another_file(&store, &experiment, &args.selection.file);
    let started = RunRecord {
        argv: std::env::args().collect(),
        program: Program::current(),
        machine: Machine::current(Simd::detect().name()),
        started: now(),
        ended: String::new(),
        exit_code: 0,
        ran: 0,
        failed: 0,
        kept: 0,
    };
    let interrupt = {
        let (store, started) = (store.clone(), started.clone());
        Interrupt::listen(move |code| {
            let _ = store.write_run(&RunRecord { ended: now(), exit_code: code, ..started.clone() });
            Printer::note("interrupted: run again to continue");
        })
    };
    let result = measure_and_report(experiment, args, &store, &started, &interrupt);
    let (code, outcome) = match &result {
        Ok((code, outcome)) => (*code, *outcome),
        Err(error) => (error.code, Outcome::default()),
    };
    // Before the folder is there, there is nothing to record; and the first error is the one to tell.
    if store.root().join("runs").is_dir() {
        let Outcome { ran, failed, kept, .. } = outcome;
        let written = store.write_run(&RunRecord { ended: now(), exit_code: code, ran, failed, kept, ..started });
        if result.is_ok() {
            written?;
        }
    }
    result.map(|(code, _)| code)
}

/// The run itself; the exit code and what became of the cells.
fn measure_and_report(
    experiment: Experiment,
    args: &RunArgs,
    store: &Store,
    started: &RunRecord,
    interrupt: &Interrupt,
) -> Result<(u8, Outcome), CliError> {
    let prepared = prepare_selection(experiment, &args.selection, store, interrupt, false)?;
    if let Some(too_large) = prepared.too_large.first().filter(|_| !args.ignore_memory) {
        return Err(PrepareError::TooLarge(too_large.clone()).into());
    }
    warn_of_memory(&prepared, "cells may fail for lack of it");
    store.create()?;
    take_over(&prepared, store)?;
    let json = args.output_format == OutputFormat::Json;
    if json {
        kept_events(&prepared, store)?;
    }
    let progress = Progress::new(prepared.running(), json, interrupt.clone());
    let outcome = crate::run::run(&prepared, store, RunOptions { fail_fast: args.fail_fast }, &progress);
    progress.finish();
    let outcome = outcome?;
    match interrupt.code() {
        Some(code) => {
            Printer::note("interrupted: run again to continue");
            Ok((code, outcome))
        }
        None => Ok((finish(&prepared, store, started, outcome, json)?, outcome)),
    }
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
    let origin = kept_origin(file).unwrap_or_else(|| Origin::of(file));
    config::load_from(file, origin, set).map_err(|error| match error {
        config::ConfigError::Invalid(diagnostics) => {
            Printer::note(&diagnostics.render(style()));
            CliError { code: exit::USAGE, message: String::new(), hint: None }
        }
        error => error.into(),
    })
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
    let loader = Loader::new(selection.offline, download_observer(interrupt.clone()));
    let options = PrepareOptions {
        only: selection.only.clone(),
        partition: selection.partition,
        rerun: selection.rerun,
        limit: selection.limit,
        explain,
    };
    let prepared = prepare(experiment, &loader, store, &options)?;
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
    let threads = rayon::ThreadPoolBuilder::new().num_threads(experiment.threads).build_global();
    threads.map_err(|error| CliError {
        code: exit::UNEXPECTED,
        message: format!("starting threads failed: {error}"),
        hint: Some("set a smaller `device.threads`".into()),
    })
}

fn kept_events(prepared: &Prepared, store: &Store) -> Result<(), CliError> {
    for planned in prepared.cells.iter().filter(|planned| planned.selected && !planned.runs()) {
        if let Some(record) = store.cell(&planned.id)? {
            Printer::json(&Event::cell(&record.only(&wanted(planned)), true));
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
    json: bool,
) -> Result<u8, CliError> {
    store.write_plan(&prepared.plan, &prepared.experiment.text)?;
    store.write_manifest(&manifest(prepared, started))?;
    let report = match report::report(store, report::Extras::default()) {
        // The one selected cell may have been `--limit 0` away.
        Err(report::ReportError::NoCells { .. }) => return Ok(exit::OK),
        report => report?,
    };
    if json {
        Printer::json(&Event::Done {
            ran: outcome.ran,
            failed: outcome.failed,
            kept: outcome.kept,
            expectations_missed: report.missed,
            results: store.root().display().to_string(),
        });
    } else {
        Printer::report(&report);
    }
    let Outcome { ran, failed, kept, kept_failed, .. } = outcome;
    let stand_ins: Vec<&str> =
        prepared.models.iter().filter(|m| m.files.is_stand_in()).map(|m| m.files.source.as_str()).collect();
    if !stand_ins.is_empty() {
        Printer::note(&format!("\n{}: a stand-in, not a published model", stand_ins.join(", ")));
    }
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
    let failed = failed + kept_failed + report.missed > 0;
    Ok(unanswered.unwrap_or(if failed { exit::FAILED } else { exit::OK }))
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
