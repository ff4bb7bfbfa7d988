//! Rows of JSON: an object a line, or one array of objects; packed by gzip or not.
//!
//! Which column has the texts can't be known from the first row, which may lack it: `text` counts if any row has it,
//! and another one only if none does. So the rows are looked at until one has `text`, which is nearly always the
//! first one. Only the texts of a row are kept, whatever else is in it.

use super::DatasetError;
use super::documents::{Limits, Reader, Seen, TEXT, only_or_text};
use crate::input;
use flate2::read::MultiGzDecoder;
use serde::Deserializer;
use serde::de::{self, Deserialize, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The mark that some programs for Windows put in front of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// Names of columns that are kept for a message.
const COLUMNS: usize = 64;

/// Reads a file of rows.
pub(super) fn scan_json(
    path: &Path,
    most: usize,
    reader: &mut dyn Reader,
    limits: Limits,
) -> Result<Seen, DatasetError> {
    let column = column(path, limits)?;
    let mut seen = Seen::default();
    let mut index = 0;
    rows(path, limits, &mut |number, length, row| {
        if index == most {
            return Ok(false);
        }
        // A text is never longer than the line that quotes it.
        if reader.wants(index, length) {
            match row(&column)?.text {
                Cell::Text(text) => reader.takes(index, text)?,
                Cell::Absent | Cell::Null => seen.missing += 1,
                Cell::Other => {
                    let message = "it is something else".into();
                    return Err(DatasetError::Line {
                        path: path.into(),
                        line: number,
                        column: column.clone(),
                        message,
                    });
                }
            }
        }
        index += 1;
        Ok(true)
    })?;
    Ok(seen)
}

/// The column of the texts.
fn column(path: &Path, limits: Limits) -> Result<String, DatasetError> {
    let mut columns: Vec<String> = Vec::new();
    let mut found = false;
    rows(path, limits, &mut |_, _, row| {
        let row = row(TEXT)?;
        found = !matches!(row.text, Cell::Absent);
        for name in row.others {
            if columns.len() < COLUMNS && !columns.contains(&name) {
                columns.push(name);
            }
        }
        Ok(!found)
    })?;
    // A file without rows has whatever column.
    if found || columns.is_empty() && is_blank(path, limits)? {
        return Ok(TEXT.into());
    }
    only_or_text(path, columns)
}

fn is_blank(path: &Path, limits: Limits) -> Result<bool, DatasetError> {
    let mut blank = true;
    rows(path, limits, &mut |_, _, _| {
        blank = false;
        Ok(false)
    })?;
    Ok(blank)
}

/// Parses the row that is in hand, of which the text is in the named column.
type Parse<'a> = dyn Fn(&str) -> Result<Row, DatasetError> + 'a;
/// Takes the number of a row's line, from 1, or of the row in an array; its length in bytes; and its parser. Says
/// whether to go on.
type Take<'a> = dyn FnMut(usize, usize, &Parse<'_>) -> Result<bool, DatasetError> + 'a;

/// Hands over all rows of a file, one by one.
fn rows(path: &Path, limits: Limits, take: &mut Take<'_>) -> Result<(), DatasetError> {
    let packed = path.as_os_str().as_encoded_bytes().ends_with(b".gz");
    let format = if packed { "gzip" } else { "JSON lines" };
    let damaged = |error: io::Error| DatasetError::damaged(path, format, &error);
    let file = BufReader::with_capacity(1 << 18, input::open(path).map_err(damaged)?);
    let mut file: Box<dyn BufRead> = match packed {
        true => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
        false => Box::new(file),
    };
    if begins_array(&mut file).map_err(damaged)? {
        return array(path, file, limits, take);
    }
    let (mut line, mut number) = (Vec::new(), 0);
    let limit = limits.row as u64 + 1;
    loop {
        line.clear();
        let length = file.by_ref().take(limit).read_until(b'\n', &mut line).map_err(damaged)?;
        if length == 0 {
            return Ok(());
        }
        number += 1;
        if number > limits.rows {
            return Err(DatasetError::too_large(path, "rows", limits.rows));
        }
        if line.len() > limits.row {
            return Err(DatasetError::too_large(path, "line", limits.row));
        }
        let text = if number == 1 { line.strip_prefix(MARK).unwrap_or(&line) } else { &line };
        if text.trim_ascii().is_empty() {
            continue;
        }
        let parse = |column: &str| {
            let error = |error: serde_json::Error| DatasetError::Line {
                path: path.to_owned(),
                line: number,
                column: column.to_owned(),
                message: error.to_string(),
            };
            parsed(text, column).map_err(error)
        };
        if !take(number, text.len(), &parse)? {
            return Ok(());
        }
    }
}

/// Whether the first byte that is neither blank nor of a mark opens an array.
fn begins_array(file: &mut impl BufRead) -> io::Result<bool> {
    let buffer = file.fill_buf()?;
    let text = buffer.strip_prefix(MARK).unwrap_or(buffer);
    Ok(text.trim_ascii_start().starts_with(b"["))
}

/// Hands over the rows of an array, which is read as a whole.
fn array(path: &Path, file: impl Read, limits: Limits, take: &mut Take<'_>) -> Result<(), DatasetError> {
    let damaged = |message: &dyn fmt::Display| DatasetError::damaged(path, "JSON", &message.to_string());
    let mut bytes = Vec::new();
    file.take(limits.array as u64 + 1).read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
    if bytes.len() > limits.array {
        return Err(DatasetError::too_large(path, "array", limits.array));
    }
    let text = bytes.strip_prefix(MARK).unwrap_or(&bytes).trim_ascii();
    let Some(mut rest) = text.strip_prefix(b"[").map(<[u8]>::trim_ascii_start) else { return Ok(()) };
    if rest == b"]" {
        return Ok(());
    }
    let mut number = 0;
    loop {
        let end = element(rest).ok_or_else(|| damaged(&"its array does not end"))?;
        let (row, behind) = rest.split_at(end);
        number += 1;
        if number > limits.rows {
            return Err(DatasetError::too_large(path, "rows", limits.rows));
        }
        let parse = |column: &str| {
            let error = |error: serde_json::Error| DatasetError::Row {
                path: path.to_owned(),
                row: number,
                column: column.to_owned(),
                message: error.to_string(),
            };
            parsed(row, column).map_err(error)
        };
        if !take(number, row.len(), &parse)? {
            return Ok(());
        }
        rest = match behind {
            [b',', behind @ ..] => behind.trim_ascii_start(),
            [b']'] => return Ok(()),
            _ => return Err(damaged(&"something stands after its array")),
        };
    }
}

/// Where the first element of what is left of an array ends: at a comma or bracket that is not inside of it.
fn element(text: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (true, _) => {}
            (false, b',' | b']' | b'}') if depth == 0 => return Some(at),
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth -= 1,
            (false, _) => {}
        }
    }
    None
}

/// What a row has in the column of texts.
#[derive(Debug, PartialEq, Eq)]
enum Cell {
    Text(String),
    Null,
    /// A number, say.
    Other,
    /// No such column.
    Absent,
}

/// A row, as far as it counts.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    text: Cell,
    /// Names of other columns of texts.
    others: Vec<String>,
}

/// Parses a row. Python writes `NaN` and `Infinity`, which are no JSON, for numbers and for what is missing: they
/// are as good as `null`.
fn parsed(text: &[u8], column: &str) -> serde_json::Result<Row> {
    let parse = |text: &[u8]| {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let row = RowOf(column).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(row)
    };
    parse(text).or_else(|error| match without_odd_numbers(text) {
        Some(text) => parse(&text),
        None => Err(error),
    })
}

/// The text with `null` for `NaN`, `Infinity` and `-Infinity` outside of quotes; none if it has none.
fn without_odd_numbers(text: &[u8]) -> Option<Vec<u8>> {
    const ODD: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut replaced = Vec::new();
    let (mut copied, mut at, mut quoted) = (0, 0, false);
    while at < text.len() {
        match text[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'N' | b'-' | b'I' if !quoted => {
                if let Some(odd) = ODD.iter().find(|odd| text[at..].starts_with(odd)) {
                    replaced.extend_from_slice(&text[copied..at]);
                    replaced.extend_from_slice(b"null");
                    at += odd.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return None;
    }
    replaced.extend_from_slice(&text[copied..]);
    Some(replaced)
}

/// Reads a row whose texts are in the named column, and passes over what else is in it.
struct RowOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for RowOf<'_> {
    type Value = Row;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Row, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowOf<'_> {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Row { text: Cell::Absent, others: Vec::new() };
        while let Some(name) = map.next_key::<String>()? {
            let cell: Cell = map.next_value()?;
            if name == self.0 {
                row.text = cell;
            } else if matches!(cell, Cell::Text(_)) && row.others.len() < COLUMNS {
                row.others.push(name);
            }
        }
        Ok(row)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Cell, E> {
        Ok(Cell::Text(text))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Cell, E> {
        Ok(Cell::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Other)
    }
}
