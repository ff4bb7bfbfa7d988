//! The text of an experiment that needs no command line: what its results folder keeps.
//!
//! ```text
//!   the file, nothing laid over it     ──> byte for byte
//!   the file and `-s key=value`, ...   ──> the table that both give, written anew below a line that says so
//! ```
//! Knows nothing of where it is kept.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use crate::diagnostic::Span;

/// The text of a table that a file and overrides have given together, without the file's comments; nothing where it is
/// no TOML, which is said elsewhere.
pub(super) fn written_anew(table: &DeTable<'_>, span: Span, file: &str, overrides: &[String]) -> Option<String> {
    let table = toml::Table::deserialize(Deserializer::from(Spanned::new(span, table.clone()))).ok()?;
    let body = toml::to_string(&table).ok()?;
    let arguments: Vec<String> = overrides.iter().map(|argument| format!("-s '{argument}'")).collect();
    let header = format!("{file} with {}, written by sparsify-exp", arguments.join(" "));
    // A line break in an argument would end the comment.
    let header: String = header.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some(format!("# {header}\n{body}"))
}
