//! What the user wrote: the experiment file and what the command line lays over it.
//!
//! ```text
//! text ──toml──▶ table ──extends──▶ table ──overrides──▶ table ──grammar──▶ table ──serde──▶ raw ──validate──▶ Experiment
//!  syntax errors       no base            unknown paths       keys, types                     rules between keys
//! ```
//! Every step reports all that it finds, with the place where it was written, and passes on what
//! is right, so that one run shows every mistake. Reads the file and the one that it extends, and nothing
//! else; knows no device, no tensor and no network.

pub mod analysis;
pub mod arena;
pub mod axis;
pub mod experiment;
pub mod expression;
mod extends;
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
mod resolved;
pub mod schema;
mod settings;
pub mod source;
pub mod tasks;
pub mod validate;
pub mod workers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::de::DeTable;

pub use experiment::{Experiment, Origin};
pub use reference::reference;
pub use resolved::resolved;
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
    /// The file, the one that it extends or the overrides have mistakes.
    #[error("{0}")]
    Invalid(Diagnostics),
    /// The file that it extends can't be read.
    #[error("{0}")]
    Base(Diagnostics),
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
    parse_from(path, origin, &text, overrides)
}

/// Checks the text of an experiment file; `path` is what messages call it, and its folder is what
/// paths in it are relative to.
///
/// # Errors
/// Every mistake of the text and of the overrides.
pub fn parse(path: &Path, text: &str, overrides: &[String]) -> Result<Experiment, Diagnostics> {
    parse_from(path, Origin::of(path), text, overrides).map_err(|error| match error {
        ConfigError::Invalid(found) | ConfigError::Base(found) => found,
        // The text is there.
        ConfigError::Read { .. } => Diagnostics::default(),
    })
}

fn parse_from(path: &Path, mut origin: Origin, text: &str, overrides: &[String]) -> Result<Experiment, ConfigError> {
    let written = Written::read(path, &origin, text, overrides)?;
    let (experiment, found) = written.check(&origin);
    let found = Diagnostics::new(Arc::clone(&written.sources), found);
    match experiment {
        Some(mut experiment) if found.errors() == 0 => {
            origin.set.extend_from_slice(overrides);
            (experiment.path, experiment.origin, experiment.warnings) = (path.to_owned(), origin, found);
            Ok(experiment)
        }
        _ => Err(ConfigError::Invalid(found)),
    }
}

/// Every text that makes an experiment.
struct Written<'a> {
    /// The file, the one that it extends, the overrides.
    sources: Arc<Sources>,
    /// The file's text.
    text: &'a str,
    /// The file's table and what is no TOML in it.
    root: (toml::Spanned<DeTable<'a>>, Vec<toml::de::Error>),
    /// The file that it extends.
    base: Option<extends::Base>,
    overrides: &'a [String],
    /// Where the overrides stand.
    arguments: Vec<Span>,
}

impl<'a> Written<'a> {
    fn read(path: &Path, origin: &Origin, text: &'a str, overrides: &'a [String]) -> Result<Self, ConfigError> {
        let mut sources = Sources::file(path.display().to_string(), text);
        let root = DeTable::parse_recoverable(text);
        let base = if root.1.is_empty() { extends::base(root.0.get_ref(), origin, &mut sources) } else { Ok(None) };
        let arguments = overrides.iter().map(|argument| sources.add_argument("-s ", argument)).collect();
        let sources = Arc::new(sources);
        match base {
            Ok(base) => Ok(Self { sources, text, root, base, overrides, arguments }),
            Err(refused) => Err(refused.told(sources)),
        }
    }

    /// What the file, the one that it extends and the overrides say together, and whether it is all TOML.
    fn table(&self, origin: &Origin) -> Result<(Whole<'_>, Found), Found> {
        let (parsed, mut found) = parse_overrides(&self.sources, &self.arguments);
        let (root, syntax_errors) = &self.root;
        // What the parser makes of the rest is a guess; complaints about it would mislead.
        found.extend(syntax(self.text, syntax_errors, 0));
        let mut table: DeTable<'_> = root.get_ref().clone();
        if let Some(base) = &self.base {
            found.extend(base.lay_under(&mut table, &self.sources));
        }
        if !syntax_errors.is_empty() || self.base.is_some() && found.errors() > 0 {
            return Err(found);
        }
        found.extend(parsed.iter().filter_map(|given| given.apply(&mut table).err()));
        let kept = match (&self.base, self.overrides) {
            (None, []) => Some(self.text.to_owned()),
            (base, overrides) => {
                let from = kept::From { file: &origin.file, base: base.as_ref().map(|base| base.written()), overrides };
                kept::written_anew(&table, root.span(), &from)
            }
        };
        let grammar::Findings { diagnostics, removed } = grammar::check(&mut table);
        found.append(diagnostics);
        Ok((Whole { table, kept: kept.unwrap_or_default(), removed }, found))
    }

    /// Everything that is wrong, and the experiment if it can be built.
    fn check(&self, origin: &Origin) -> (Option<Experiment>, Found) {
        let (whole, mut found) = match self.table(origin) {
            Ok(read) => read,
            Err(found) => return (None, found),
        };
        let Whole { mut table, kept, removed } = whole;
        let settings = settings::take(&mut table);
        let deserializer = toml::de::Deserializer::from(toml::Spanned::new(self.root.0.span(), table));
        match RawExperiment::deserialize(deserializer) {
            Ok(mut raw) => {
                settings::give(settings, &mut raw);
                let (experiment, more) = validate::experiment(raw, origin, &kept, removed);
                found.append(more);
                (experiment, found)
            }
            Err(error) => {
                found.push(beyond_grammar(&error));
                (None, found)
            }
        }
    }
}

/// The table that all texts give together, after the check of keys and types.
struct Whole<'a> {
    table: DeTable<'a>,
    /// The text that a results folder keeps.
    kept: String,
    /// Paths at which something wrong was taken out.
    removed: BTreeSet<String>,
}

fn parse_overrides<'i>(sources: &'i Sources, arguments: &[Span]) -> (Vec<Override<'i>>, Found) {
    let mut overrides = Vec::new();
    let mut found = Found::default();
    for span in arguments {
        match Override::parse(sources, span.clone()) {
            Ok(given) if given.path().eq(["extends"]) => found.push(extends::on_the_command_line(span.clone())),
            Ok(given) => overrides.push(given),
            Err(diagnostic) => found.push(diagnostic),
        }
    }
    (overrides, found)
}

/// How many syntax errors are shown: an array that is never closed makes every line below it wrong.
const MAX_SYNTAX_ERRORS: usize = 5;

/// Syntax errors of a text that starts at `start` of the sources, the first of each line: the others follow from it.
fn syntax(text: &str, errors: &[toml::de::Error], start: usize) -> Vec<Diagnostic> {
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
        let span = start + span.start..start + span.end;
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
