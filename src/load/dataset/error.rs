//! Why a dataset can't be used.

use crate::diagnostic::nearest;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a dataset can't be used.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// No folder or file of such a name.
    #[error("dataset `{dataset}` has no configuration `{config}`{}", listed(known, *cached))]
    NoConfig {
        /// `ORG/NAME`.
        dataset: String,
        /// The configuration asked for.
        config: String,
        /// Those that there are, as far as they can be told by the files' names.
        known: Vec<String>,
        /// Whether only the cache was looked at.
        cached: bool,
    },
    /// The configuration has no such split.
    #[error("configuration `{config}` of dataset `{dataset}` has no split `{split}`{}", listed(known, *cached))]
    NoSplit {
        /// `ORG/NAME`.
        dataset: String,
        /// The configuration.
        config: String,
        /// The split asked for.
        split: String,
        /// Those that there are.
        known: Vec<String>,
        /// Whether only the cache was looked at.
        cached: bool,
    },
    /// There are files of data, but of no format that is read.
    #[error("dataset `{dataset}` has no file that can be read: it has {}", backticked(formats))]
    NoFormat {
        /// `ORG/NAME`.
        dataset: String,
        /// The endings that its files have.
        formats: Vec<String>,
    },
    /// Neither a text column called `text` nor exactly one of another name.
    #[error("`{}` has no column `text`, and {}", path.display(), strings(columns))]
    NoText {
        /// The file.
        path: PathBuf,
        /// Its columns of texts.
        columns: Vec<String>,
    },
    /// A line is no JSON object with a text.
    #[error("line {line} of `{}` is no JSON object with a text `{column}`: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was looked for.
        column: String,
        /// What there is instead.
        message: String,
    },
    /// A row of an array is no object with a text.
    #[error("row {row} of `{}` is no JSON object with a text `{column}`: {message}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// What was looked for.
        column: String,
        /// What there is instead.
        message: String,
    },
    /// The file unpacks to more than can be.
    #[error("`{}` is too large: {}", path.display(), more_than(what, *limit))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// `line`, `array`, `rows` or `texts`.
        what: &'static str,
        /// The limit: bytes, or rows.
        limit: usize,
    },
    /// The file is not what its name says, or broken.
    #[error("`{}` is no readable {format} file: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// `parquet`, `gzip` or `JSON lines`.
        format: &'static str,
        /// What its reader says.
        message: String,
    },
}

impl DatasetError {
    pub(super) fn damaged(path: &Path, format: &'static str, message: &impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), format, message: message.to_string() }
    }

    pub(super) fn too_large(path: &Path, what: &'static str, limit: usize) -> Self {
        Self::TooLarge { path: path.to_owned(), what, limit }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoConfig { cached: true, .. } | Self::NoSplit { cached: true, .. } => {
                Some("only the cache was looked at: run once with network, `sparsify-exp fetch FILE`".into())
            }
            Self::NoConfig { config: given, known, .. } | Self::NoSplit { split: given, known, .. } => {
                match nearest(given, known.iter().map(String::as_str)) {
                    Some(meant) => Some(format!("did you mean `{meant}`?")),
                    None if known.is_empty() => Some(format!("this one has no file of data; {CONVERTED}")),
                    None => Some("write `hf:ORG/NAME/CONFIG/SPLIT` with names of the dataset's files".into()),
                }
            }
            Self::NoFormat { dataset, .. } => Some(format!(
                "parquet and JSON, plain or gzip, are read; {CONVERTED}, as \
                 `hf:{dataset}@refs/convert/parquet/CONFIG/SPLIT`, or write the texts to a plain file: `file:PATH`"
            )),
            Self::TooLarge { what: "texts" | "rows", .. } => Some(
                "read fewer documents: set `data.perplexity_documents` or `data.calibration_documents`, or take a \
                 smaller dataset"
                    .into(),
            ),
            Self::TooLarge { .. } => Some("take another dataset, or write it again with a document a line".into()),
            Self::NoText { .. } => Some("take a dataset with one column of texts, or one that is called `text`".into()),
            Self::Line { .. } | Self::Row { .. } => {
                Some("take another dataset, or write its texts to a plain file: `file:PATH`".into())
            }
            Self::Damaged { message, .. } if message.contains("Disabled feature") => {
                Some("its compression is not built in: snappy, gzip and none are".into())
            }
            Self::Damaged { path, .. } => Some(format!("delete `{}`, and run again to download it", path.display())),
        }
    }
}

/// What to try where a dataset's own files can't be read.
const CONVERTED: &str = "of most datasets the hub keeps a copy in parquet";

/// `a line of more than 8 bytes`
fn more_than(what: &str, limit: usize) -> String {
    match what {
        "rows" => format!("it has more than the {limit} rows that are read of a file"),
        "texts" => format!("its texts take more than the {} MiB that are kept of a file", limit >> 20),
        "array" => format!("it has an array of more than the {} MiB that are read of one", limit >> 20),
        what => format!("it has a {what} of more than the {} MiB that are read of one", limit >> 20),
    }
}

/// `: it has `a`, `b``
fn listed(known: &[String], cached: bool) -> String {
    let place = if cached { "the cache" } else { "it" };
    if known.is_empty() { String::new() } else { format!(": {place} has {}", backticked(known)) }
}

fn strings(columns: &[String]) -> String {
    if columns.is_empty() { "no other of texts".into() } else { format!("several of texts: {}", backticked(columns)) }
}

/// The first twenty: there may be thousands.
fn backticked(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}
