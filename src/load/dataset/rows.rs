//! Whole rows of a dataset's file, for datasets whose rows are more than a text.
//!
//! ```text
//!   NAME.parquet, NAME.json[l][.gz] ──> [{"question": "..", "choices": ["..", ".."], "answer": 2}, ..]
//! ```
//! Such files are small, so that all of one is kept. What they can unpack to is limited as for texts.

use super::DatasetError;
use super::documents::{LIMITS, Limits};
use super::table::Checked;
use crate::{input, panics};
use flate2::read::MultiGzDecoder;
use parquet::bloom_filter::Sbbf;
use parquet::column::page::PageReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::Path;

/// Rows of a file: ten times what the largest task has.
const ROWS: usize = 1 << 20;
/// Bytes of a file, once it is unpacked.
const BYTES: usize = 512 << 20;

/// The first `most` rows of a file, each an object.
///
/// # Errors
/// When the file is damaged, or larger than can be.
pub fn rows(path: &Path, most: usize) -> Result<Vec<Value>, DatasetError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let most = most.min(ROWS + 1);
    let rows = if name.ends_with(".parquet") { parquet_rows(path, most)? } else { json_rows(path, most)? };
    if rows.len() > ROWS { Err(DatasetError::too_large(path, "rows", ROWS)) } else { Ok(rows) }
}

fn parquet_rows(path: &Path, most: usize) -> Result<Vec<Value>, DatasetError> {
    let damaged = |message: &dyn std::fmt::Display| DatasetError::damaged(path, "parquet", &message.to_string());
    let read = || -> Result<Vec<Value>, ParquetError> {
        let file = SerializedFileReader::new(input::open(path)?)?;
        let mut rows = Vec::new();
        let mut bytes = 0;
        for group in 0..file.num_row_groups() {
            let group = Group { inner: file.get_row_group(group)? };
            for row in RowIter::from_row_group(None, &group)?.take(most - rows.len()) {
                let row = object(&row?);
                bytes += size(&row);
                if bytes > BYTES {
                    return Err(ParquetError::General(format!("its rows take more than {BYTES} bytes")));
                }
                rows.push(row);
            }
        }
        Ok(rows)
    };
    match panics::caught(read) {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(damaged(&error)),
        Err(panic) => Err(damaged(&format!("its pages are damaged: {panic}"))),
    }
}

/// A row group whose pages are looked at before they are decoded.
struct Group<'a> {
    inner: Box<dyn RowGroupReader + 'a>,
}

impl RowGroupReader for Group<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.inner.metadata()
    }

    fn num_columns(&self) -> usize {
        self.inner.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>, ParquetError> {
        let optional = self.metadata().schema_descr().column(column).max_def_level() > 0;
        let limits = Limits { rows: ROWS * 16, ..LIMITS };
        Ok(Box::new(Checked { pages: self.inner.get_column_page_reader(column)?, optional, limits }))
    }

    fn get_column_bloom_filter(&self, column: usize) -> Option<&Sbbf> {
        self.inner.get_column_bloom_filter(column)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>, ParquetError> {
        RowIter::from_row_group(projection, self)
    }
}

fn object(row: &Row) -> Value {
    Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect())
}

/// What tasks have; of other kinds of numbers nothing is left.
fn value(field: &Field) -> Value {
    match field {
        Field::Bool(flag) => (*flag).into(),
        Field::Byte(number) => (*number).into(),
        Field::Short(number) => (*number).into(),
        Field::Int(number) => (*number).into(),
        Field::Long(number) => (*number).into(),
        Field::UByte(number) => (*number).into(),
        Field::UShort(number) => (*number).into(),
        Field::UInt(number) => (*number).into(),
        Field::ULong(number) => (*number).into(),
        Field::Float(number) => (*number).into(),
        Field::Double(number) => (*number).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        _ => Value::Null,
    }
}

/// Bytes that a value takes, about.
fn size(value: &Value) -> usize {
    const OWN: usize = 32;
    OWN + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(values) => values.iter().map(|(name, value)| name.len() + size(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn json_rows(path: &Path, most: usize) -> Result<Vec<Value>, DatasetError> {
    let damaged = |message: &dyn std::fmt::Display| DatasetError::damaged(path, "JSON lines", &message.to_string());
    let file = input::open(path).map_err(|error| damaged(&error))?;
    let mut text = String::new();
    let limited: &mut dyn Read = match path.as_os_str().as_encoded_bytes().ends_with(b".gz") {
        true => &mut MultiGzDecoder::new(file).take(BYTES as u64 + 1),
        false => &mut file.take(BYTES as u64 + 1),
    };
    limited.read_to_string(&mut text).map_err(|error| damaged(&error))?;
    if text.len() > BYTES {
        return Err(damaged(&format!("it has more than {BYTES} bytes")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let is_object = |row: usize, value: Value| match value {
        value @ Value::Object(_) => Ok(value),
        _ => Err(damaged(&format!("row {row} is no object"))),
    };
    if text.trim_start().starts_with('[') {
        let values: Vec<Value> = serde_json::from_str::<Vec<Map<String, Value>>>(text)
            .map_err(|error| damaged(&error))?
            .into_iter()
            .map(Value::Object)
            .take(most)
            .collect();
        return Ok(values);
    }
    let lines = text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .take(most)
        .map(|(index, line)| {
            let number = index + 1;
            let parsed: Value =
                serde_json::from_str(line).map_err(|error| damaged(&format!("line {number}: {error}")))?;
            is_object(number, parsed)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_lines_or_an_array() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        for text in ["{\"a\": 1}\n\n{\"a\": [\"b\"]}\n", "\u{feff}[{\"a\": 1}, {\"a\": [\"b\"]}]"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(rows(&path, 9).unwrap(), [json!({"a": 1}), json!({"a": ["b"]})]);
            assert_eq!(rows(&path, 1).unwrap().len(), 1);
        }
        for (text, message) in
            [("{\"a\": 1}\n7\n", "row 2 is no object"), ("{}\n{\"a\"\n", "line 2"), ("[1]", "invalid")]
        {
            std::fs::write(&path, text).unwrap();
            let error = rows(&path, 9).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("a.jsonl"), "{error}");
        }
    }

    #[test]
    fn damaged_parquet_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        for bytes in [&b""[..], b"PAR1PAR1", b"PAR1\0\0\0\0\xff\xff\xff\x7fPAR1"] {
            std::fs::write(&path, bytes).unwrap();
            assert!(rows(&path, 9).unwrap_err().to_string().contains("no readable parquet"));
        }
    }
}
