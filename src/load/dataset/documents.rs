//! The documents of a dataset's file: rows of parquet, or lines of JSON, gzip or not.
//!
//! A file is read from its beginning to its end as often as needed, and only what is wanted is kept: a shard of C4 is
//! 300 MB packed and 800 MB of text, of which calibration sees a thousandth.

use super::DatasetError;
use flate2::read::MultiGzDecoder;
use parquet::basic::{ConvertedType, LogicalType};
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The name of the column of texts, unless there is only one.
const TEXT: &str = "text";
/// Rows of parquet that are decoded at a time.
const ROWS: usize = 1024;

/// Whether to hand over the document at an index, which has at most so many bytes.
pub type Wants<'a> = dyn FnMut(usize, usize) -> bool + 'a;
/// Takes a document and its index.
pub type Takes<'a> = dyn FnMut(usize, String) + 'a;

/// Reads a file from beginning to end and hands over the documents that are wanted, in order.
///
/// # Errors
/// When the file is damaged or has no texts in it.
pub fn scan(path: &Path, wants: &mut Wants<'_>, takes: &mut Takes<'_>) -> Result<(), DatasetError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".parquet") {
        return scan_parquet(path, wants, takes);
    }
    let damaged = |error: io::Error| DatasetError::damaged(path, "JSON lines", &error);
    let file = File::open(path).map_err(damaged)?;
    if name.ends_with(".gz") {
        let reader = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(BufReader::with_capacity(1 << 18, file)));
        return scan_lines(path, "gzip", reader, wants, takes);
    }
    scan_lines(path, "JSON lines", BufReader::with_capacity(1 << 18, file), wants, takes)
}

impl DatasetError {
    fn damaged(path: &Path, format: &'static str, message: &impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), format, message: message.to_string() }
    }
}

fn scan_lines(
    path: &Path,
    format: &'static str,
    mut reader: impl BufRead,
    wants: &mut Wants<'_>,
    takes: &mut Takes<'_>,
) -> Result<(), DatasetError> {
    let mut column = None;
    let (mut line, mut number, mut index) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let length =
            reader.read_until(b'\n', &mut line).map_err(|error| DatasetError::damaged(path, format, &error))?;
        if length == 0 {
            return Ok(());
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        // A text is never longer than the line that quotes it. The first line says which texts are meant.
        let wanted = wants(index, length);
        if wanted || column.is_none() {
            let object = object(path, number, &line)?;
            let column = match &column {
                Some(column) => column,
                None => column.insert(text_column(path, &object)?),
            };
            let text = text_of(path, number, object, column)?;
            if wanted {
                takes(index, text);
            }
        }
        index += 1;
    }
}

fn object(path: &Path, line: usize, text: &[u8]) -> Result<Map<String, Value>, DatasetError> {
    let error = |error: serde_json::Error| DatasetError::Line {
        path: path.to_owned(),
        line,
        column: TEXT.into(),
        message: error.to_string(),
    };
    serde_json::from_slice(text).map_err(error)
}

fn text_column(path: &Path, object: &Map<String, Value>) -> Result<String, DatasetError> {
    let strings = object.iter().filter(|(_, value)| value.is_string()).map(|(key, _)| key.clone());
    only_or_text(path, strings.collect())
}

/// `text`, or the only name.
fn only_or_text(path: &Path, columns: Vec<String>) -> Result<String, DatasetError> {
    if columns.iter().any(|column| column == TEXT) {
        return Ok(TEXT.into());
    }
    match <[String; 1]>::try_from(columns) {
        Ok([column]) => Ok(column),
        Err(columns) => Err(DatasetError::NoText { path: path.to_owned(), columns }),
    }
}

/// A document without a text is an empty one.
fn text_of(path: &Path, line: usize, mut object: Map<String, Value>, column: &str) -> Result<String, DatasetError> {
    let message = match object.remove(column) {
        Some(Value::String(text)) => return Ok(text),
        Some(Value::Null) => return Ok(String::new()),
        Some(_) => "it is something else",
        None => "it is missing",
    };
    Err(DatasetError::Line { path: path.to_owned(), line, column: column.to_owned(), message: message.into() })
}

fn scan_parquet(path: &Path, wants: &mut Wants<'_>, takes: &mut Takes<'_>) -> Result<(), DatasetError> {
    let mut scan = || {
        let damaged = |error: ParquetError| DatasetError::damaged(path, "parquet", &error);
        let file = File::open(path).map_err(|error| damaged(error.into()))?;
        let reader = SerializedFileReader::new(file).map_err(damaged)?;
        let column = parquet_column(path, &reader)?;
        let mut index = 0;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(damaged)?;
            let texts = group.get_column_reader(column).map_err(damaged)?;
            index = scan_group(texts, index, wants, takes).map_err(damaged)?;
        }
        Ok(())
    };
    // The decoders of a damaged page may panic.
    let panicked = |_| Err(DatasetError::damaged(path, "parquet", &"its pages are damaged"));
    catch_unwind(AssertUnwindSafe(&mut scan)).unwrap_or_else(panicked)
}

/// The place of the column of texts: top-level strings only.
fn parquet_column(path: &Path, reader: &SerializedFileReader<File>) -> Result<usize, DatasetError> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let is_text = |index: &usize| {
        let column = schema.column(*index);
        let utf8 = matches!(column.logical_type_ref(), Some(LogicalType::String))
            || column.converted_type() == ConvertedType::UTF8;
        utf8 && column.max_rep_level() == 0 && column.path().parts().len() == 1
    };
    let texts: Vec<usize> = (0..schema.num_columns()).filter(is_text).collect();
    let names: Vec<String> = texts.iter().map(|&index| schema.column(index).name().to_owned()).collect();
    let wanted = only_or_text(path, names)?;
    let found = texts.into_iter().find(|&index| schema.column(index).name() == wanted);
    found.ok_or_else(|| DatasetError::NoText { path: path.to_owned(), columns: Vec::new() })
}

/// Reads a row group whose first row has the index `index`; gives the index behind its last.
fn scan_group(
    texts: ColumnReader,
    mut index: usize,
    wants: &mut Wants<'_>,
    takes: &mut Takes<'_>,
) -> Result<usize, ParquetError> {
    let ColumnReader::ByteArrayColumnReader(mut texts) = texts else {
        return Err(ParquetError::General("its texts are no byte arrays".into()));
    };
    let (mut values, mut levels) = (Vec::<ByteArray>::with_capacity(ROWS), Vec::with_capacity(ROWS));
    loop {
        values.clear();
        levels.clear();
        let (rows, present, _) = texts.read_records(ROWS, Some(&mut levels), None, &mut values)?;
        if rows == 0 {
            return Ok(index);
        }
        let mut values = values.iter().take(present);
        for row in 0..rows {
            // Of a required column there are no levels; a row without a text is an empty document.
            let text = if present == rows || levels.get(row) == Some(&1) { values.next() } else { None };
            let bytes = text.map_or(&[][..], ByteArray::data);
            if wants(index, bytes.len()) {
                let text = std::str::from_utf8(bytes).map_err(|error| ParquetError::General(error.to_string()))?;
                takes(index, text.to_owned());
            }
            index += 1;
        }
    }
}

/// The documents that are wanted, with their indices.
///
/// # Errors
/// As [`scan`].
pub fn documents(path: &Path, mut wanted: impl FnMut(usize) -> bool) -> Result<Vec<(usize, String)>, DatasetError> {
    let mut documents = Vec::new();
    scan(path, &mut |index, _| wanted(index), &mut |index, text| documents.push((index, text)))?;
    Ok(documents)
}

/// For each document a number of bytes that it has at most.
///
/// # Errors
/// As [`scan`].
pub fn sizes(path: &Path) -> Result<Vec<usize>, DatasetError> {
    let mut sizes = Vec::new();
    let mut note = |_, bytes| {
        sizes.push(bytes);
        false
    };
    scan(path, &mut note, &mut |_, _| ())?;
    Ok(sizes)
}

#[cfg(test)]
mod tests;
