//! `extends = "base.toml"`: the file that lies beneath an experiment file.
//!
//! ```text
//!   the file             the base                    together
//!   extends = "b.toml"
//!   name = "x"           name = "b"                  name = "x"           names and titles stay where they are
//!   [data]               [data]                      [data]
//!   context = 256        context = 512               context = 256        sections: key by key, the file first
//!                        perplexity = "file:p.txt"   perplexity = "file:p.txt"
//!   [[prune]] …          [[prune]] … [[prune]] …     [[prune]] …          all else: one file's, whole
//! ```
//! A base stands beside the file, so that paths in both are seen from one folder, and extends nothing itself. Positions
//! stay those of the file in which something is written. Knows nothing of what the keys mean.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::grammar::{Grammar, experiment};
use super::overrides::shifted_table;
use super::{ConfigError, Origin, syntax};
use crate::diagnostic::{Diagnostic, Diagnostics, Found, Sources, Span};
use crate::input;

/// The key.
const KEY: &str = "extends";
/// Keys of a base that are its own.
const ITS_OWN: [&str; 2] = ["name", "title"];

/// The file beneath a file.
pub(super) struct Base {
    /// As the file spells it.
    written: String,
    /// Where the file says so.
    said: Span,
    /// Where its text lies in the sources.
    span: Span,
}

/// Why there is no base.
pub(super) struct Refused {
    diagnostic: Diagnostic,
    /// Whether the file can't be read: not a mistake of the one that names it.
    unreadable: bool,
}

impl Refused {
    /// As the error that it is.
    pub(super) fn told(self, sources: Arc<Sources>) -> ConfigError {
        let mut found = Found::default();
        found.push(self.diagnostic);
        let found = Diagnostics::new(sources, found);
        if self.unreadable { ConfigError::Base(found) } else { ConfigError::Invalid(found) }
    }
}

/// Reads the file that a file extends, and adds it to the sources.
pub(super) fn base(root: &DeTable<'_>, origin: &Origin, sources: &mut Sources) -> Result<Option<Base>, Refused> {
    let Some(value) = root.get(KEY) else { return Ok(None) };
    // What is no text is said by the check of types.
    let DeValue::String(written) = value.get_ref() else { return Ok(None) };
    let (written, said) = (written.to_string(), value.span());
    let of_the_file = |diagnostic| Refused { diagnostic, unreadable: false };
    if Path::new(&written).file_name().is_none_or(|name| name != written.as_str()) {
        let error = Diagnostic::error(format!("`{KEY}` is not the name of a file: `{}`", written.escape_debug()));
        let help = "put the base beside this file: paths in both are seen from one folder";
        return Err(of_the_file(error.at(said, "expected a name without a folder, as in `base.toml`").help(help)));
    }
    if origin.file.file_name().is_some_and(|name| name == written.as_str()) {
        let error = Diagnostic::error(format!("`{KEY}` names this file itself")).at(said, "expected another file");
        return Err(of_the_file(error));
    }
    let path = origin.file.with_file_name(&written);
    let text = input::read_to_string(&path, input::SMALL).map_err(|error| {
        let title = format!("failed to read `{}`, which `{KEY}` names", path.display());
        let diagnostic = Diagnostic::error(title).at(said.clone(), error.to_string()).help(next(&error, &path));
        Refused { diagnostic, unreadable: true }
    })?;
    let span = sources.add_file(path.display().to_string(), &text);
    Ok(Some(Base { written, said, span }))
}

/// What to do where a base can't be read.
fn next(error: &std::io::Error, path: &Path) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "put the file there, or name another one beside this file",
        ErrorKind::InvalidData => "save the file as UTF-8",
        ErrorKind::InvalidInput if path.is_dir() => "name a file, not a folder",
        _ => "name an experiment file: a TOML file of some lines",
    }
}

/// `-s extends=…`, whose other keys would lie beneath a file that nobody wrote.
pub(super) fn on_the_command_line(span: Span) -> Diagnostic {
    Diagnostic::error(format!("`{KEY}` can't be set on the command line"))
        .at(span, "it belongs to the file")
        .help(format!("write `{KEY} = \"…\"` at the top of the experiment file"))
}

impl Base {
    /// As the file spells it.
    pub(super) fn written(&self) -> &str {
        &self.written
    }

    /// Puts what the table does not say itself into it; what is wrong with the base.
    pub(super) fn lay_under<'i>(&self, table: &mut DeTable<'i>, sources: &'i Sources) -> Vec<Diagnostic> {
        let text = sources.text(self.span.clone());
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return syntax(text, &errors, self.span.start);
        }
        let mut base = shifted_table(root.into_inner(), self.span.start);
        if let Some(value) = base.get(KEY) {
            let error = Diagnostic::error(format!("`{}` extends a file itself", self.written))
                .at(value.span(), "a base can't have a base")
                .context(self.said.clone(), "it is the base of this file")
                .help("write what both say into one of them");
            return vec![error];
        }
        for key in ITS_OWN {
            base.remove(key);
        }
        table.remove(KEY);
        merge(experiment(), table, base);
        Vec::new()
    }
}

/// Entries of the base that the table lacks; of sections that both have, likewise.
fn merge<'i>(shape: &Grammar, table: &mut DeTable<'i>, base: DeTable<'i>) {
    for (key, value) in base {
        let name = key.get_ref().to_string();
        let Some(own) = table.get_mut(name.as_str()) else {
            table.insert(key, value);
            continue;
        };
        // A range is a table too, and belongs to one file.
        let Some(section @ Grammar::Table(_)) = shape.key(&name) else { continue };
        if let (DeValue::Table(own), DeValue::Table(beneath)) = (Spanned::get_mut(own), value.into_inner()) {
            merge(section, own, beneath);
        }
    }
}
