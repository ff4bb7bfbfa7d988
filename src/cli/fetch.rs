//! `fetch`: downloads what an experiment needs, and says what a machine without network needs to know.

use super::args::{FetchArgs, OutputFormat};
use super::interrupt::Interrupt;
use super::output::Printer;
use super::progress::download_observer;
use super::run::{counted, read_experiment};
use crate::error::{CliError, exit};
use crate::load::Loader;
use crate::load::hub::HubSettings;
use crate::report::table::Table;
use crate::run::{Fetched, Fetches, fetch as fetch_sources};
use crate::shell;
use indicatif::HumanBytes;
use serde_json::json;
use std::collections::HashSet;

/// Digits of a digest that people see; JSON has all.
const SHOWN: usize = 12;

pub(super) fn fetch(args: &FetchArgs) -> Result<u8, CliError> {
    let experiment = read_experiment(&args.file, &args.set)?;
    let interrupt = Interrupt::listen(|_| Printer::note("interrupted: run again to go on from where it stopped"));
    let loader = Loader::checking(download_observer(interrupt.clone(), false));
    let fetches = fetch_sources(&experiment, &loader)
        .map_err(|error| CliError::from(crate::run::PrepareError::from(error)).about(&args.file, &args.set))?;
    fetches.warnings.iter().for_each(|warning| Printer::warning(warning));
    match args.output_format {
        OutputFormat::Json => fetches.sources.iter().for_each(json_lines),
        OutputFormat::Human if fetches.sources.is_empty() => {}
        OutputFormat::Human => Printer::data(&table(&fetches).terminal()),
    }
    say(&fetches, args)?;
    Ok(exit::OK)
}

fn json_lines(fetched: &Fetched) {
    for file in &fetched.files {
        Printer::json(&json!({
            "source": fetched.source,
            "commit": fetched.commit,
            "file": file.name,
            "bytes": file.bytes,
            "sha256": file.sha256,
        }));
    }
}

fn table(fetches: &Fetches) -> Table {
    let mut table = Table::new("fetch", ["source", "commit", "file", "size", "sha256"]);
    let shown = |digest: &str| digest.get(..SHOWN).unwrap_or(digest).to_owned();
    for Fetched { source, commit, files } in &fetches.sources {
        table.rows.extend(files.iter().map(|file| {
            let size = HumanBytes(file.bytes).to_string();
            vec![
                source.as_str().into(),
                shown(commit).into(),
                file.name.as_str().into(),
                size.into(),
                shown(&file.sha256).into(),
            ]
        }));
    }
    table
}

/// What a machine without network needs.
fn say(fetches: &Fetches, args: &FetchArgs) -> Result<(), CliError> {
    for local in &fetches.local {
        Printer::note(&format!("`{local}` is of this machine: others need it at the same place"));
    }
    if fetches.sources.is_empty() {
        Printer::note("nothing to download: the file names nothing of the hub");
        return Ok(());
    }
    let cache = HubSettings::from_env(true).map_err(crate::load::LoadError::from);
    let cache = cache.map_err(|error| CliError::from(crate::run::PrepareError::from(error)))?.cache;
    // Two sources may share files.
    let mut seen = HashSet::new();
    let files = fetches.sources.iter().flat_map(|fetched| fetched.files.iter().map(|file| (&fetched.commit, file)));
    let files: Vec<u64> =
        files.filter(|(commit, file)| seen.insert((*commit, &file.name))).map(|(_, f)| f.bytes).collect();
    let size = HumanBytes(files.iter().sum());
    Printer::note(&format!("{}, {size}, in `{}`", counted(files.len(), "file"), cache.display()));
    let place = match (cache.file_name(), cache.parent()) {
        (Some(name), Some(home)) if name == "hub" => format!("HF_HOME={}", shell::word(&home.display().to_string())),
        (Some(_) | None, _) => format!("HF_HUB_CACHE={}", shell::word(&cache.display().to_string())),
    };
    let typed = shell::experiment(&args.file, &args.set);
    Printer::note(&format!("without network: {place} sparsify-exp run {typed} --offline"));
    Ok(())
}
