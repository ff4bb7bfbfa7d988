//! The documents of a dataset's file: rows of parquet, or JSON, gzip or not.
//!
//! ```text
//!   scan ──┬─ NAME.parquet             table.rs   row groups, pages, texts
//!          └─ NAME.json[l][.gz]        lines.rs   a row a line, or an array of rows
//! ```
//!
//! A file is read from its beginning to its end as often as needed, and only what is wanted is kept: a shard of C4 is
//! 300 MB packed and 800 MB of text, of which calibration sees a thousandth. What a few bytes of a file can unpack to
//! is held against [`Limits`] while it is read.

use super::DatasetError;
use super::lines::scan_json;
use super::table::scan_parquet;
use std::path::Path;

/// The name of the column of texts, unless there is only one.
pub(super) const TEXT: &str = "text";

/// How much a file may hold, once it is unpacked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of a row of JSON.
    pub row: usize,
    /// Bytes of an array of rows, which is read as a whole.
    pub array: usize,
    /// Rows. The largest files of the hub's datasets of texts have a few millions.
    pub rows: usize,
    /// Bytes of all texts that are kept at a time.
    pub kept: usize,
}

/// What fits into the memory of a small machine.
pub(super) const LIMITS: Limits = Limits { row: 256 << 20, array: 512 << 20, rows: 1 << 24, kept: 2 << 30 };
/// Bytes that a text takes beside its own.
const OVERHEAD: usize = 64;

/// Which rows are wanted, and what is done with their texts.
pub trait Reader {
    /// Whether to hand over the text of the row at an index, which has at most this many bytes.
    fn wants(&mut self, index: usize, bytes: usize) -> bool;

    /// Takes a text and the index of its row.
    ///
    /// # Errors
    /// When it is one too many.
    fn takes(&mut self, index: usize, text: String) -> Result<(), DatasetError>;
}

/// What a scan has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Rows that were wanted and have no text: `null`, or not there.
    pub missing: usize,
}

/// Reads the first `most` rows of a file and hands over the texts that are wanted, in order.
///
/// # Errors
/// When the file is damaged, has no texts in it, or is larger than can be.
pub fn scan(path: &Path, most: usize, reader: &mut dyn Reader) -> Result<Seen, DatasetError> {
    scan_within(path, most, reader, LIMITS)
}

fn scan_within(path: &Path, most: usize, reader: &mut dyn Reader, limits: Limits) -> Result<Seen, DatasetError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".parquet") {
        scan_parquet(path, most, reader, limits)
    } else {
        scan_json(path, most, reader, limits)
    }
}

/// `text`, or the only name.
pub(super) fn only_or_text(path: &Path, columns: Vec<String>) -> Result<String, DatasetError> {
    if columns.iter().any(|column| column == TEXT) {
        return Ok(TEXT.into());
    }
    match <[String; 1]>::try_from(columns) {
        Ok([column]) => Ok(column),
        Err(columns) => Err(DatasetError::NoText { path: path.to_owned(), columns }),
    }
}

/// Documents with the indices of their rows, and how many of the wanted rows have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// Index of the row, and text.
    pub texts: Vec<(usize, String)>,
    /// Rows without a text.
    pub missing: usize,
}

/// The documents of the first `most` rows that are wanted.
///
/// # Errors
/// As [`scan`]; when they are too large to be kept.
pub fn documents(path: &Path, most: usize, wanted: impl FnMut(usize) -> bool) -> Result<Documents, DatasetError> {
    documents_within(path, most, wanted, LIMITS)
}

fn documents_within(
    path: &Path,
    most: usize,
    wanted: impl FnMut(usize) -> bool,
    limits: Limits,
) -> Result<Documents, DatasetError> {
    let mut keep = Keep { path, wanted, texts: Vec::new(), bytes: 0, limit: limits.kept };
    let seen = scan_within(path, most, &mut keep, limits)?;
    Ok(Documents { texts: keep.texts, missing: seen.missing })
}

struct Keep<'a, W> {
    path: &'a Path,
    wanted: W,
    texts: Vec<(usize, String)>,
    bytes: usize,
    limit: usize,
}

impl<W: FnMut(usize) -> bool> Reader for Keep<'_, W> {
    fn wants(&mut self, index: usize, _: usize) -> bool {
        (self.wanted)(index)
    }

    fn takes(&mut self, index: usize, text: String) -> Result<(), DatasetError> {
        self.bytes = self.bytes.saturating_add(text.len()).saturating_add(OVERHEAD);
        if self.bytes > self.limit {
            return Err(DatasetError::too_large(self.path, "texts", self.limit));
        }
        self.texts.push((index, text));
        Ok(())
    }
}

/// For each of the first `most` rows a number of bytes that its text has at most.
///
/// # Errors
/// As [`scan`].
pub fn sizes(path: &Path, most: usize) -> Result<Vec<usize>, DatasetError> {
    struct Sizes(Vec<usize>);
    impl Reader for Sizes {
        fn wants(&mut self, _: usize, bytes: usize) -> bool {
            self.0.push(bytes);
            false
        }

        fn takes(&mut self, _: usize, _: String) -> Result<(), DatasetError> {
            Ok(())
        }
    }
    let mut sizes = Sizes(Vec::new());
    scan(path, most, &mut sizes)?;
    Ok(sizes.0)
}

#[cfg(test)]
mod tests;
