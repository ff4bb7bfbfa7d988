//! What the user wrote: the experiment file and what the command line lays over it.
//!
//! ```text
//! text ──toml──▶ table ──overrides──▶ table ──grammar──▶ table ──serde──▶ raw ──validate──▶ Experiment
//!  syntax errors      unknown paths       keys, types                      rules between keys
//! ```
//! Every step reports all that it finds, with the place where it was written, and passes on what
//! is right, so that one run shows every mistake. Reads the file and nothing else; knows no
//! device, no tensor and no network.

pub mod analysis;
pub mod arena;
pub mod axis;
pub mod experiment;
pub mod expression;
pub mod format;
pub mod grammar;
pub mod joining;
mod kept;
pub mod kernel;
pub mod metric;
pub mod overrides;
pub mod pivot;
pub mod plots;
pub mod query;
pub mod range;
pub mod raw;
pub mod reference;
pub mod schema;
mod settings;
pub mod source;
pub mod tasks;
pub mod validate;
pub mod workers;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::de::DeTable;

pub use experiment::{Experiment, Origin};
pub use reference::reference;
pub use schema::json_schema;

use crate::diagnostic::{Diagnostic, Diagnostics, Found, Sources, Span};
use crate::input;
use overrides::Override;
use raw::RawExperiment;

/// Why there is no experiment.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read, or is not UTF-8.
    #[error("failed to read the experiment file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file or the overrides have mistakes.
    #[error("{0}")]
    Invalid(Diagnostics),
}

impl ConfigError {
    /// What to do next. Invalid files say it with each message.
    pub fn hint(&self) -> Option<String> {
        let Self::Read { path, source } = self else {
            return None;
        };
        match source.kind() {
            std::io::ErrorKind::NotFound => Some("give the path of an experiment file".to_owned()),
            std::io::ErrorKind::InvalidData => Some("save the file as UTF-8".to_owned()),
            std::io::ErrorKind::InvalidInput if path.is_dir() => {
                Some(format!("give a file in `{}`, not the folder", path.display()))
            }
            std::io::ErrorKind::InvalidInput | std::io::ErrorKind::FileTooLarge => {
                Some("give an experiment file: a TOML file of some lines".to_owned())
            }
            _ => None,
        }
    }
}

/// Reads, overrides and checks an experiment file.
///
/// # Errors
/// [`ConfigError::Read`] if there is no text, [`ConfigError::Invalid`] with every mistake of the
/// file and of the overrides.
pub fn load(path: &Path, overrides: &[String]) -> Result<Experiment, ConfigError> {
    load_from(path, Origin::of(path), overrides)
}

/// The same of a file that may be a copy: its paths are seen from the folder of the file that it comes from.
///
/// # Errors
/// As [`load`].
pub fn load_from(path: &Path, origin: Origin, overrides: &[String]) -> Result<Experiment, ConfigError> {
    let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
    let text = input::read_to_string(path, input::SMALL).map_err(read_error)?;
    parse_from(path, origin, &text, overrides).map_err(ConfigError::Invalid)
}

/// Checks the text of an experiment file; `path` is what messages call it, and its folder is what
/// paths in it are relative to.
///
/// # Errors
/// Every mistake of the text and of the overrides.
pub fn parse(path: &Path, text: &str, overrides: &[String]) -> Result<Experiment, Diagnostics> {
    parse_from(path, Origin::of(path), text, overrides)
}

fn parse_from(path: &Path, mut origin: Origin, text: &str, overrides: &[String]) -> Result<Experiment, Diagnostics> {
    let mut sources = Sources::file(path.display().to_string(), text);
    let arguments: Vec<Span> = overrides.iter().map(|argument| sources.add_argument("-s ", argument)).collect();
    let sources = Arc::new(sources);
    let (experiment, found) = check(&sources, &origin, text, overrides, &arguments);
    let found = Diagnostics::new(Arc::clone(&sources), found);
    match experiment {
        Some(mut experiment) if found.errors() == 0 => {
            origin.set.extend_from_slice(overrides);
            (experiment.path, experiment.origin, experiment.warnings) = (path.to_owned(), origin, found);
            Ok(experiment)
        }
        _ => Err(found),
    }
}

/// Everything that is wrong, and the experiment if it can be built.
fn check(
    sources: &Sources,
    origin: &Origin,
    text: &str,
    overrides: &[String],
    arguments: &[Span],
) -> (Option<Experiment>, Found) {
    let (parsed, mut found) = parse_overrides(sources, arguments);
    let (root, syntax_errors) = DeTable::parse_recoverable(sources.text(0..text.len()));
    if !syntax_errors.is_empty() {
        // What the parser makes of the rest is a guess; complaints about it would mislead.
        found.extend(syntax(text, &syntax_errors));
        return (None, found);
    }
    let span = root.span();
    let mut table = root.into_inner();
    found.extend(parsed.iter().filter_map(|given| given.apply(&mut table).err()));
    let kept = match overrides {
        [] => Some(text.to_owned()),
        overrides => kept::written_anew(&table, span.clone(), &origin.file.display().to_string(), overrides),
    };
    let grammar::Findings { diagnostics, removed } = grammar::check(&mut table);
    found.append(diagnostics);
    let settings = settings::take(&mut table);
    let deserializer = toml::de::Deserializer::from(toml::Spanned::new(span, table));
    match RawExperiment::deserialize(deserializer) {
        Ok(mut raw) => {
            settings::give(settings, &mut raw);
            let (experiment, more) = validate::experiment(raw, origin, &kept.unwrap_or_default(), removed);
            found.append(more);
            (experiment, found)
        }
        Err(error) => {
            found.push(beyond_grammar(&error));
            (None, found)
        }
    }
}

fn parse_overrides<'i>(sources: &'i Sources, arguments: &[Span]) -> (Vec<Override<'i>>, Found) {
    let mut overrides = Vec::new();
    let mut found = Found::default();
    for span in arguments {
        match Override::parse(sources, span.clone()) {
            Ok(given) => overrides.push(given),
            Err(diagnostic) => found.push(diagnostic),
        }
    }
    (overrides, found)
}

/// How many syntax errors are shown: an array that is never closed makes every line below it wrong.
const MAX_SYNTAX_ERRORS: usize = 5;

/// Syntax errors, the first of each line: the others follow from it.
fn syntax(text: &str, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    let mut spans: Vec<(Span, &str)> =
        errors.iter().map(|error| (error.span().unwrap_or(text.len()..text.len()), error.message())).collect();
    spans.sort_by_key(|(span, _)| span.start);
    let mut found = Vec::new();
    let mut last: Option<usize> = None;
    for (span, message) in spans {
        let between = last.map(|last| &text.as_bytes()[last.min(text.len())..span.start.min(text.len())]);
        if between.is_some_and(|between| !between.contains(&b'\n')) {
            continue;
        }
        if found.len() == MAX_SYNTAX_ERRORS {
            break;
        }
        last = Some(span.start);
        let help = percentage(text, span.start);
        found.push(Diagnostic::error("the file is not TOML").at(span, message).maybe_help(help));
    }
    found
}

/// What to write in place of a percentage, if one stands in the line from a place on.
fn percentage(text: &str, start: usize) -> Option<String> {
    let before = text.get(..start)?;
    let line = &text[before.rfind('\n').map_or(0, |at| at + 1)..];
    let line = line.lines().next()?;
    let line = &line[..line.find('#').unwrap_or(line.len())];
    let number = |(at, _): (usize, &str)| {
        let digits = line[..at].trim_end().rsplit(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        digits.parse::<f64>().ok()
    };
    let percent = line.match_indices('%').find_map(number)?;
    let fraction = validate::percent(percent);
    Some(format!("a share is written as a fraction: `{fraction}` for {percent} %"))
}

/// A value that the schema lets pass and the raw structs don't. There should be none.
fn beyond_grammar(error: &toml::de::Error) -> Diagnostic {
    let diagnostic = Diagnostic::error("invalid value");
    match error.span() {
        Some(span) => diagnostic.at(span, error.message()),
        None => diagnostic.help(error.message()),
    }
}

#[cfg(test)]
mod tests;
