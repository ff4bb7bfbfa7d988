//! A row of a task's dataset, and what may be wrong with it.

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The file.
    pub path: &'a Path,
    /// The row's number, from 1.
    pub number: usize,
    /// An object of columns.
    pub value: &'a Value,
}

/// What is wrong with a row.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RowProblem {
    /// A column is not there.
    #[error("row {row} of `{}` has no column `{column}`: it has {known}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// What was looked for.
        column: String,
        /// What there is.
        known: String,
    },
    /// A column holds something else than it should.
    #[error("`{column}` of row {row} of `{}`: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// The column.
        column: String,
        /// What is wrong.
        message: String,
    },
}

impl<'a> Row<'a> {
    /// A column that holds what it should not.
    pub fn wrong(&self, column: &str, message: &str) -> RowProblem {
        let (path, message) = (self.path.to_owned(), message.to_owned());
        RowProblem::Wrong { path, row: self.number, column: column.into(), message }
    }

    fn get(&self, object: &'a Value, column: &str) -> Result<&'a Value, RowProblem> {
        object.get(column).ok_or_else(|| {
            let names: Vec<&String> = object.as_object().into_iter().flat_map(Map::keys).collect();
            let known = if names.is_empty() { "none".into() } else { crate::keyword::backticked(&names) };
            RowProblem::NoColumn { path: self.path.to_owned(), row: self.number, column: column.into(), known }
        })
    }

    /// A text, which may be empty.
    pub fn text(&self, column: &str) -> Result<&'a str, RowProblem> {
        let value = self.get(self.value, column)?;
        value.as_str().ok_or_else(|| self.wrong(column, &format!("expected a text, not {}", kind(value))))
    }

    /// A text with something in it.
    pub fn filled(&self, column: &str) -> Result<&'a str, RowProblem> {
        let text = self.text(column)?;
        if text.is_empty() { Err(self.wrong(column, "it is empty")) } else { Ok(text) }
    }

    /// A number below `count`, as a number or as digits.
    pub fn index(&self, column: &str, count: usize) -> Result<usize, RowProblem> {
        let value = self.get(self.value, column)?;
        let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let index = number.and_then(|number| usize::try_from(number).ok()).filter(|index| *index < count);
        index.ok_or_else(|| {
            let last = count.saturating_sub(1);
            self.wrong(column, &format!("expected an integer from 0 to {last}, not {}", shown(value)))
        })
    }

    /// Choices, at least two, each with something in it.
    pub fn choices(&self, column: &str) -> Result<Vec<String>, RowProblem> {
        self.list(column, self.get(self.value, column)?)
    }

    /// Choices in a column of a column.
    pub fn inner_choices(&self, column: &str, inner: &str) -> Result<Vec<String>, RowProblem> {
        let outer = self.get(self.value, column)?;
        if !outer.is_object() {
            return Err(self.wrong(column, &format!("expected columns `text` and `label`, not {}", kind(outer))));
        }
        self.list(&format!("{column}.{inner}"), self.get(outer, inner)?)
    }

    fn list(&self, column: &str, value: &'a Value) -> Result<Vec<String>, RowProblem> {
        let list = value.as_array();
        let list = list.ok_or_else(|| self.wrong(column, &format!("expected a list of texts, not {}", kind(value))))?;
        // With one there is nothing to choose.
        if list.len() < 2 {
            return Err(self.wrong(column, &format!("expected two choices at least, not {}", list.len())));
        }
        let text = |(index, value): (usize, &Value)| match value.as_str() {
            None => Err(self.wrong(column, &format!("choice {} is {}, not a text", index + 1, kind(value)))),
            Some("") => Err(self.wrong(column, &format!("choice {} is empty", index + 1))),
            Some(text) => Ok(text.to_owned()),
        };
        list.iter().enumerate().map(text).collect()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value in a message.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("`{}`", text.chars().take(40).collect::<String>().escape_debug()),
        other => kind(other).to_owned(),
    }
}
