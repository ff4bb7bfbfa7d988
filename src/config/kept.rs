//! The text of an experiment that needs no command line: what its results folder keeps.
//!
//! ```text
//!   the file, nothing laid over it     ──> byte for byte
//!   the file and `-s key=value`, ...   ──> the table that both give, written anew below a line that says so
//!   the file and the one it extends    ──> likewise, so that the results folder stands alone
//! ```
//! Knows nothing of where it is kept.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use crate::diagnostic::Span;

/// What a table was made of.
pub(super) struct From<'a> {
    pub(super) file: &'a Path,
    /// The file that it extends, as written there.
    pub(super) base: Option<&'a str>,
    pub(super) overrides: &'a [String],
}

/// The text of a table that a file, the one that it extends and overrides have given together, without the files'
/// comments; nothing where it is no TOML, which is said elsewhere.
pub(super) fn written_anew(table: &DeTable<'_>, span: Span, from: &From<'_>) -> Option<String> {
    let table = toml::Table::deserialize(Deserializer::from(Spanned::new(span, table.clone()))).ok()?;
    let body = toml::to_string(&table).ok()?;
    let base = from.base.map(|base| format!("all that it takes from {base}"));
    let arguments = from.overrides.iter().map(|argument| format!("-s '{argument}'"));
    let others: Vec<String> = base.into_iter().chain(arguments).collect();
    let header = format!("{} with {}, written by sparsify-exp", from.file.display(), others.join(" "));
    // A line break in an argument would end the comment.
    let header: String = header.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some(format!("# {header}\n{body}"))
}
