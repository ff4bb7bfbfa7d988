//! What is kept of an analysis cell: numbers as tidy rows, and what pictures are drawn from.
//!
//! ```text
//!   AnalysisNumbers
//!     matrices  MatrixInfo    what was looked at, one for each source of the cell, in its order
//!     tables    StoredTable   rows of a table of one source:   name, source, columns, rows [ [..], .. ]
//!     pictures  Picture       densities of pixels in one order of features
//!     notes     what a reader is to know
//!
//!   AnalysisResult            a cell with its numbers, as reports see it
//!     rows("groups") ─> Row   key columns and values by name
//! ```
//! The columns of every table are listed once, in [`TABLES`]. Undefined numbers are `null`, never 0.

mod tables;

pub use tables::{Named, TABLES, columns_of};

use super::cell::Record;
use super::numbers::Numbers;
use crate::config::analysis::{AnalysisKind, FeatureAxis, Role};
use crate::config::experiment::{Method, NmPattern, Scope};
use crate::plan::{AnalysisCell, AnalysisSource, CellId, Of};
use schemars::JsonSchema;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The numbers of an analysis cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnalysisNumbers {
    /// What was looked at: one for each source of the cell, in its order; none where the whole model is.
    pub matrices: Vec<MatrixInfo>,
    /// The rows of tables.
    pub tables: Vec<StoredTable>,
    /// Pictures of masks.
    pub pictures: Vec<Picture>,
    /// What a reader is to know.
    pub notes: Vec<String>,
}

/// A matrix that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatrixInfo {
    /// Where it came from: a file, or a model source.
    pub path: String,
    /// SHA-256 of the file, or of the model's files.
    pub sha256: String,
    /// Rows.
    pub out_features: usize,
    /// Columns.
    pub in_features: usize,
    /// What its numbers are made of, as stored.
    pub dtype: String,
    /// `explicit` or `nonzero`: what says which weights are kept.
    pub mask_source: String,
    /// Positions kept.
    pub nnz: u64,
    /// Rows that keep nothing.
    pub dead_rows: usize,
    /// Columns that keep nothing.
    pub dead_cols: usize,
}

/// Rows of a table, of one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredTable {
    /// The table.
    pub name: String,
    /// Which of the cell's sources; of pairs, the first.
    pub source: usize,
    /// The columns, as this version of the program has them.
    pub columns: Vec<String>,
    /// A value for every column; in the file a row is a line, `"[3,0.5,null]"`.
    #[serde(with = "lines")]
    #[schemars(with = "Vec<String>")]
    pub rows: Vec<Vec<Entry>>,
}

/// Rows as texts: a file has a line for each, not one for every number.
mod lines {
    use super::Entry;
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(rows: &[Vec<Entry>], serializer: S) -> Result<S::Ok, S::Error> {
        let texts = rows.iter().map(|row| serde_json::to_string(row).map_err(S::Error::custom));
        serializer.collect_seq(texts.collect::<Result<Vec<String>, _>>()?)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<Entry>>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let row = |text: &String| {
            let mut row: Vec<Entry> = serde_json::from_str(text).map_err(D::Error::custom)?;
            // There may be a million rows, and lists grow by doubling.
            row.shrink_to_fit();
            Ok(row)
        };
        texts.iter().map(row).collect()
    }
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Entry {
    /// Undefined.
    Missing,
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A word.
    Text(String),
}

// What serde derives tries one variant after the other and makes an error of each that does not fit: of millions of
// values, that takes longer than all else.
impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyEntry)
    }
}

struct AnyEntry;

impl Visitor<'_> for AnyEntry {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, true, false, a number or a text")
    }

    fn visit_unit<E>(self) -> Result<Entry, E> {
        Ok(Entry::Missing)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Entry, E> {
        Ok(Entry::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Entry, E> {
        Ok(Entry::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Entry, E> {
        Ok(i64::try_from(number).map_or(Entry::Float(number as f64), Entry::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Entry, E> {
        Ok(Entry::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
        Ok(Entry::Text(text.to_owned()))
    }
}

impl From<f64> for Entry {
    fn from(number: f64) -> Self {
        if number.is_finite() { Self::Float(number) } else { Self::Missing }
    }
}

impl From<usize> for Entry {
    fn from(number: usize) -> Self {
        i64::try_from(number).map_or(Self::Missing, Self::Int)
    }
}

impl From<u64> for Entry {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::Missing, Self::Int)
    }
}

impl From<bool> for Entry {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Entry {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Entry>> From<Option<T>> for Entry {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

impl Entry {
    /// As a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Missing | Self::Flag(_) | Self::Text(_) => None,
        }
    }

    /// As a word.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Missing | Self::Flag(_) | Self::Int(_) | Self::Float(_) => None,
        }
    }
}

/// A picture of a mask: the density of every pixel in 256 steps, and along both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// Which of the cell's sources.
    pub source: usize,
    /// The order of features: `identity`, `density`, `cluster:ID`, `groups:ID`, or `reference:FEATURE` of a gradient.
    pub order: String,
    /// Pixels in a row: columns of the matrix, unless `transposed`.
    pub width: usize,
    /// Pixels in a column.
    pub height: usize,
    /// Columns (features) of the matrix that the width stands for.
    pub cols: usize,
    /// Rows of the matrix that the height stands for.
    pub rows: usize,
    /// Whether a row of pixels is of features, as gradients are drawn; else as the matrix is, `[out, in]`.
    pub transposed: bool,
    /// `[height, width]`, row by row, two hexadecimal digits a pixel: the share kept, times 255.
    pub pixels: String,
    /// `[height]`: the share that each row of pixels keeps; empty where it is not wanted.
    pub row_marginal: Vec<f64>,
    /// `[width]`: of each column of pixels.
    pub col_marginal: Vec<f64>,
}

impl Picture {
    /// `[height, width]`: the share of its positions that each pixel keeps, row by row, in steps of 1/255.
    pub fn densities(&self) -> Vec<f64> {
        let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0);
        let pixel = |pair: &[u8]| f64::from(pair.iter().fold(0, |sum, &byte| sum * 16 + digit(byte))) / 255.0;
        self.pixels.as_bytes().chunks(2).map(pixel).collect()
    }

    /// The digits of densities.
    pub fn digits(densities: &[f64]) -> String {
        densities.iter().map(|density| format!("{:02x}", (density * 255.0).round() as u8)).collect()
    }
}

/// An analysis cell as reports see it.
#[derive(Clone, Debug, PartialEq)]
pub struct AnalysisResult {
    /// The cell's name.
    pub id: CellId,
    /// What was done.
    pub cell: AnalysisCell,
    /// The numbers, of a finished cell.
    pub numbers: Option<AnalysisNumbers>,
}

/// The key columns of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The analysis.
    pub analysis: String,
    /// What it is of.
    pub kind: AnalysisKind,
    /// The source.
    pub source: String,
    /// The model, where there is one.
    pub model: Option<String>,
    /// How the source was pruned.
    pub method: Option<Method>,
    /// What weights competed within.
    pub scope: Option<Scope>,
    /// The pattern.
    pub pattern: Option<NmPattern>,
    /// The share of weights that should have gone.
    pub sparsity: Option<f64>,
    /// The seed.
    pub seed: Option<u64>,
    /// The layer.
    pub layer: Option<usize>,
    /// The role in it.
    pub role: Option<Role>,
    /// The module.
    pub module: String,
    /// `in` or `out`; nothing where the whole model is looked at.
    pub axis: Option<FeatureAxis>,
}

/// A row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The cell that it is of.
    pub result: &'a AnalysisResult,
    /// Which of its sources.
    pub source: usize,
    columns: &'a [String],
    values: &'a [Entry],
}

impl<'a> Row<'a> {
    /// The value of a column.
    pub fn get(&self, column: &str) -> &'a Entry {
        const MISSING: &Entry = &Entry::Missing;
        self.columns.iter().position(|name| name == column).and_then(|at| self.values.get(at)).unwrap_or(MISSING)
    }

    /// The number of a column.
    pub fn number(&self, column: &str) -> Option<f64> {
        self.get(column).number()
    }

    /// The word of a column.
    pub fn text(&self, column: &str) -> Option<&'a str> {
        self.get(column).text()
    }

    /// Its key.
    pub fn key(&self) -> Key {
        self.result.key(self.source)
    }
}

impl AnalysisResult {
    /// Of a record, if it is one of an analysis cell.
    pub fn of(record: Record) -> Option<Self> {
        let cell = AnalysisCell::of(&record.cell)?.clone();
        let numbers = record.results.into_iter().find_map(|part| match part.result {
            Numbers::Analysis(numbers) => Some(*numbers),
            _ => None,
        });
        Some(Self { id: record.id, cell, numbers: numbers.filter(|_| record.failure.is_none()) })
    }

    /// The key of the rows of a source.
    ///
    /// # Panics
    /// When there is no such source.
    pub fn key(&self, source: usize) -> Key {
        let cell = &self.cell;
        let of: &AnalysisSource = &cell.sources[source];
        Key {
            analysis: cell.analysis.clone(),
            kind: cell.work.kind(),
            source: of.name.clone(),
            model: cell.model.clone(),
            method: of.method,
            scope: of.scope,
            pattern: of.pattern,
            sparsity: of.sparsity,
            seed: cell.seed_of(of),
            layer: cell.layer,
            role: cell.role,
            module: of.module.clone(),
            axis: (!of.module.is_empty()).then(|| cell.axis_of(of)),
        }
    }

    /// What is stored of a table, source by source.
    pub fn stored<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a StoredTable> + 'a {
        let tables = self.numbers.iter().flat_map(|numbers| &numbers.tables);
        tables.filter(move |stored| stored.name == table && stored.source < self.cell.sources.len())
    }

    /// The rows of a table, source by source.
    pub fn rows<'a>(&'a self, table: &'a str) -> impl Iterator<Item = Row<'a>> + 'a {
        self.stored(table).flat_map(move |stored| {
            let row = move |values| Row { result: self, source: stored.source, columns: &stored.columns, values };
            stored.rows.iter().map(move |values| row(values.as_slice()))
        })
    }

    /// The pictures, each with the key of its source.
    pub fn pictures(&self) -> impl Iterator<Item = (Key, &Picture)> {
        let pictures = self.numbers.iter().flat_map(|numbers| &numbers.pictures);
        let known = pictures.filter(|picture| picture.source < self.cell.sources.len());
        known.map(|picture| (self.key(picture.source), picture))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_survive_their_digits() {
        let picture = |densities: &[f64]| Picture {
            source: 0,
            order: "identity".into(),
            width: densities.len(),
            height: 1,
            cols: 8,
            rows: 8,
            transposed: false,
            pixels: Picture::digits(densities),
            row_marginal: Vec::new(),
            col_marginal: Vec::new(),
        };
        assert_eq!(picture(&[0.0, 1.0, 0.2]).densities(), [0.0, 1.0, 0.2]);
        assert!((picture(&[0.123]).densities()[0] - 0.123).abs() <= 0.5 / 255.0);
    }

    #[test]
    fn undefined_numbers_are_missing_and_whole_ones_stay_whole() {
        let row: Vec<Entry> =
            vec![f64::NAN.into(), 1.0.into(), 7usize.into(), true.into(), "x".into(), None::<f64>.into()];
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(text, "[null,1.0,7,true,\"x\",null]");
        assert_eq!(serde_json::from_str::<Vec<Entry>>(&text).unwrap(), row);
        let edges = "[-1, 9223372036854775807, 18446744073709551615, 1e300, -0.0, \"\\n\"]";
        let read: Vec<Entry> = serde_json::from_str(edges).unwrap();
        let large = Entry::Float(u64::MAX as f64);
        let expected =
            [Entry::Int(-1), Entry::Int(i64::MAX), large, Entry::Float(1e300), Entry::Float(-0.0), "\n".into()];
        assert_eq!(read, expected);
        assert!(serde_json::from_str::<Vec<Entry>>("[[1]]").unwrap_err().to_string().contains("a number or a text"));
    }
}
