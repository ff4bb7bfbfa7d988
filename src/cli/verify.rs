//! `verify`: a results folder is run again, and every number compared.

use super::args::{OutputFormat, VerifyArgs};
use super::interrupt::Interrupt;
use super::output::Printer;
use super::progress::{Progress, download_observer};
use super::run::{counted, limit_threads, read_experiment};
use crate::error::{CliError, exit};
use crate::load::Loader;
use crate::plan::Task;
use crate::record::Store;
use crate::report::table::{Table, Value};
use crate::run::Watch;
use crate::verify::{Counts, Draw, ItemVerdict, Likeness, Verification, Verifier};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn verify(args: &VerifyArgs) -> Result<u8, CliError> {
    let store = Store::at(&args.folder);
    let experiment = read_experiment(&args.folder.join("experiment.toml"), &args.set)?;
    limit_threads(&experiment)?;
    let interrupt = Interrupt::listen(|_| Printer::note("interrupted: nothing was compared"));
    let loader = Loader::new(args.offline, download_observer(interrupt.clone(), false));
    let sample = args.sample.map(|sample| usize::try_from(sample).unwrap_or(usize::MAX));
    let draw = Draw { sample, minutes: args.minutes, seed: args.seed.unwrap_or_else(any_seed) };
    let watch = |tasks: &[&Task]| {
        Box::new(Progress::new(tasks.iter().copied(), false, interrupt.clone(), None)) as Box<dyn Watch>
    };
    let verified = Verifier { store: &store, loader: &loader, draw, watch: &watch }.verify(experiment);
    if let Some(code) = interrupt.code() {
        Printer::note("interrupted: nothing was compared");
        return Ok(code);
    }
    let verification = verified?;
    match args.output_format {
        OutputFormat::Json => json_lines(&verification),
        OutputFormat::Human => Printer::data(&shown(&verification)),
    }
    say(&verification);
    match store.write_event("verify", &verification.started, &verification) {
        Ok(path) => Printer::note(&format!("record: {}", store.root().join(path).display())),
        Err(error) => Printer::warning(&format!("no record of it was kept: {}", CliError::from(error).message)),
    }
    Ok(match () {
        () if verification.differs() => exit::FAILED,
        () if verification.counts.compared() == 0 => exit::NOTHING,
        () => exit::OK,
    })
}

/// A seed that nobody could know before.
fn any_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Nanoseconds; a seed is easier to type if it is no longer than it need be.
    (since.as_nanos() as u64) % 1_000_000_007
}

fn json_lines(verification: &Verification) {
    for (kind, items) in [("cell", &verification.cells), ("table", &verification.tables)] {
        for item in items {
            Printer::json(&json!({ "event": kind, "verdict": item }));
        }
    }
    let mut whole = serde_json::to_value(verification).unwrap_or_default();
    if let Some(keys) = whole.as_object_mut() {
        // They have lines of their own.
        keys.retain(|key, _| key != "cells" && key != "tables");
    }
    Printer::json(&json!({ "event": "done", "verification": whole }));
}

/// What a person wants to see: totals, and every number that is not equal.
fn shown(verification: &Verification) -> String {
    let columns = ["what", "count", "bit_equal", "within_tolerance", "different", "timings", "timing_ratio"];
    let mut totals = Table::new("verify", columns);
    let mut differences =
        Table::new("different", ["what", "number", "recorded", "now", "relative", "tolerance", "verdict"]);
    let items = verification.tables.iter().filter(|item| item.label == "table");
    let (tables, files): (Vec<_>, Vec<_>) =
        (items.collect(), verification.tables.iter().filter(|item| item.label == "file").collect());
    for (what, items) in
        [("cells", verification.cells.iter().collect::<Vec<_>>()), ("tables", tables), ("files of these cells", files)]
    {
        if items.is_empty() {
            continue;
        }
        let Counts { equal, within, different, timings } =
            items.iter().fold(Counts::default(), |sum, item| sum.plus(item.counts));
        let counts = [items.len(), equal, within, different, timings].map(Value::from);
        totals.rows.push(std::iter::once(what.into()).chain(counts).chain([median(&items).into()]).collect());
        for item in &items {
            let name = if item.label == "table" || item.label == "file" { &item.name } else { &item.label };
            differences.rows.extend(item.differences.iter().map(|of| {
                let verdict = if of.likeness == Likeness::Within { "within" } else { "DIFFERENT" };
                let words = [name, &of.number, &of.recorded, &of.now].map(|word| Value::from(word.as_str()));
                words.into_iter().chain([of.relative.into(), of.tolerance.as_str().into(), verdict.into()]).collect()
            }));
        }
    }
    let tables = [totals, differences].into_iter().filter(|table| !table.rows.is_empty());
    tables.map(|table| table.terminal()).collect::<Vec<_>>().join("\n")
}

/// The median of the items' ratios of timings.
fn median(items: &[&ItemVerdict]) -> Option<f64> {
    let mut ratios: Vec<f64> = items.iter().filter_map(|item| item.timing_ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

fn say(verification: &Verification) {
    for finding in &verification.findings {
        let digests = match (&finding.recorded, &finding.found) {
            (Some(recorded), Some(found)) => format!(": SHA-256 {recorded} in the manifest, {found} here"),
            (Some(recorded), None) => format!(": SHA-256 {recorded} in the manifest"),
            (None, _) => String::new(),
        };
        Printer::warning(&format!("`{}` {}{digests}", finding.what, finding.problem));
    }
    for stranger in &verification.strangers {
        Printer::warning(&format!("{} {}: {}", stranger.cell, stranger.label, stranger.why));
    }
    if verification.unfinished > 0 {
        Printer::note(&format!("{} of the experiment not in the folder", counted(verification.unfinished, "cell")));
    }
    let Counts { equal, within, different, timings } = verification.counts;
    if within > 0 {
        Printer::note(&format!(
            "{}: {}",
            if within == 1 {
                "1 number differs in its last bits".into()
            } else {
                format!("{within} numbers differ in their last bits")
            },
            verification.last_bits.join("; ")
        ));
    }
    if verification.findings.is_empty() {
        Printer::note(&drawn(verification));
    }
    Printer::note(&format!(
        "{}: {} bit-equal, {within} within the stated tolerance, {different} different; {} not compared",
        verification.verdict,
        counted(equal, "number"),
        counted(timings, "timing")
    ));
}

/// How many cells were run, and what that is worth.
fn drawn(verification: &Verification) -> String {
    let Verification { drawn, of, caught, draw, .. } = verification;
    let beyond = if verification.last_bits.is_empty() { "" } else { " beyond its tolerance" };
    if drawn == of {
        let all = counted(*of, "cell");
        return format!("all of {all}: a number that was changed{beyond} in any of them would have been found");
    }
    let tenth = (*of).div_ceil(10);
    format!(
        "{drawn} of {of} cells, drawn with `--seed {}`: a number that was changed{beyond} in one of them would have been \
         found with probability {}, in {} with {}",
        draw.seed,
        Value::from(*caught).rounded(),
        counted(tenth, "cell"),
        Value::from(verification.caught_of(tenth)).rounded()
    )
}
