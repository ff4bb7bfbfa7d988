//! One query: SQL in, a table out, or why not.
//!
//! Owns what a query may be: one `SELECT` whose result is the same every time. The SQL goes to DuckDB as a text, for
//! its function `query` to run, so that nothing in it can end the statement that it stands in.

use super::load::literal;
use super::picture::PictureError;
use super::program::{Ended, ProgramError};
use super::{Database, NAME};
use crate::config::query::Query;
use crate::report::table::{Table, Value};
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::time::Duration;
use thiserror::Error;

/// The most rows of a result.
const MOST_ROWS: usize = 1_000_000;

/// Why a query has no answer.
#[derive(Debug, Error)]
pub enum Reason {
    /// The program.
    #[error("can't be asked: {0}")]
    Program(#[from] ProgramError),
    /// DuckDB refuses it.
    #[error("failed: {0}")]
    Sql(String),
    /// It does not end.
    #[error("had not ended after {0} s")]
    Late(u32),
    /// It has too many rows.
    #[error("has more than {MOST_ROWS} rows")]
    TooLarge,
    /// Some rows of many, which ones is up to the database.
    #[error("has a `LIMIT` and no `ORDER BY`, so that any rows may be left out")]
    Unordered,
    /// It gives something else every time.
    #[error("gives another result every time it is asked")]
    Unsteady,
    /// Its name is a table's.
    #[error("has the name of a table of the report")]
    Taken,
    /// The program's output can't be read.
    #[error("was answered in a form that this program does not read: {0}")]
    Form(String),
    /// Its picture.
    #[error("can't be drawn: {0}")]
    Picture(#[from] PictureError),
}

impl Reason {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let mend = "mend it in the experiment file and `run` that again: finished cells are kept";
        Some(match self {
            Self::Program(error) => return error.hint(),
            Self::Sql(said) if said.starts_with("Catalog Error: Table") => {
                format!("the tables are those of the folder `tables`; {mend}")
            }
            Self::Sql(said) if said.starts_with("Permission Error") => {
                format!("SQL reads the tables of this folder and no files; {mend}")
            }
            Self::Sql(said) if said.contains("single SELECT statement") => {
                format!("a query is one `SELECT`; {mend}")
            }
            Self::Sql(_) | Self::TooLarge => mend.into(),
            Self::Late(_) => format!("set a longer `timeout`, in seconds, or {mend}"),
            Self::Unordered => format!("add an `ORDER BY` in front of the `LIMIT`: {mend}"),
            Self::Unsteady => format!("leave out `random()`, the time of day and samples: {mend}"),
            Self::Taken => format!("give it another `id`: {mend}"),
            Self::Form(_) => "install the newest `duckdb`: `pip install -U duckdb-cli`".into(),
            Self::Picture(error) => format!("{}; {mend}", error.hint()),
        })
    }
}

/// Asks a query.
pub(super) fn answer(database: &Database, query: &Query) -> Result<Table, Reason> {
    let limit = Duration::from_secs(query.timeout.into());
    let output = match database.program.ask(database.folder.path(), NAME, &script(&query.sql), limit)? {
        Ended::Well(output) => output,
        Ended::Badly(said) => return Err(Reason::Sql(message(&said))),
        Ended::Late => return Err(Reason::Late(query.timeout)),
        Ended::TooMuch => return Err(Reason::TooLarge),
    };
    let Parts { columns, ordered, limited, mut rows, mut again } = Parts::of(&output)?;
    if limited && !ordered {
        return Err(Reason::Unordered);
    }
    if rows.len() > MOST_ROWS {
        return Err(Reason::TooLarge);
    }
    if !ordered {
        rows.sort_by(|a, b| order(a, b));
        again.sort_by(|a, b| order(a, b));
    }
    if rows != again {
        return Err(Reason::Unsteady);
    }
    Ok(Table { name: query.id.clone().into(), columns: columns.into_iter().map(|(name, _)| name).collect(), rows })
}

/// Asks twice, and what there is to know of the result. Every value comes as text: DuckDB writes numbers as they are read
/// back, and JSON has no NaN and no large integers.
fn script(sql: &str) -> String {
    let sql = literal(sql);
    let rows = MOST_ROWS + 1;
    format!(
        "CREATE TEMP TABLE __first AS FROM query({sql});\nCREATE TEMP TABLE __second AS FROM query({sql});\n\
         SELECT column_name AS name, data_type AS type FROM duckdb_columns() WHERE database_name = 'temp' AND \
         table_name = '__first' ORDER BY column_index;\n\
         SELECT json_serialize_sql({sql})::VARCHAR AS tree;\n\
         SELECT COLUMNS(*)::VARCHAR FROM temp.__first LIMIT {rows};\n\
         SELECT COLUMNS(*)::VARCHAR FROM temp.__second LIMIT {rows};\n"
    )
}

/// The program's output.
struct Parts {
    columns: Vec<(String, Kind)>,
    ordered: bool,
    limited: bool,
    rows: Vec<Vec<Value>>,
    again: Vec<Vec<Value>>,
}

/// What a column's texts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Number,
    Words,
}

impl Kind {
    fn of(sql: &str) -> Self {
        match sql {
            "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "HUGEINT" | "UTINYINT" | "USMALLINT" | "UINTEGER"
            | "UBIGINT" | "UHUGEINT" => Self::Integer,
            "FLOAT" | "DOUBLE" => Self::Number,
            sql if sql.starts_with("DECIMAL(") && sql.ends_with(')') => Self::Number,
            _ => Self::Words,
        }
    }

    fn value(self, text: &str) -> Value {
        let words = || Value::Text(text.into());
        match self {
            Self::Words => words(),
            Self::Number => text.parse::<f64>().map_or_else(|_| words(), Value::from),
            // Beyond these a number would lose digits.
            Self::Integer => match (text.parse::<u64>(), text.parse::<i64>()) {
                (Ok(count), _) => count.into(),
                (_, Ok(number)) if number.unsigned_abs() <= 1 << 53 => (number as f64).into(),
                _ => words(),
            },
        }
    }
}

impl Parts {
    fn of(output: &str) -> Result<Self, Reason> {
        let form = |what: &str| Reason::Form(what.into());
        let mut parts = serde_json::Deserializer::from_str(output).into_iter::<Vec<serde_json::Map<String, Json>>>();
        let mut next = || parts.next().transpose().map_err(|error| Reason::Form(error.to_string()));
        let described = next()?.ok_or_else(|| form("no columns"))?;
        let text =
            |row: &serde_json::Map<String, Json>, key: &str| row.get(key).and_then(Json::as_str).map(str::to_owned);
        let column = |row| Some((text(row, "name")?, Kind::of(&text(row, "type")?)));
        let columns: Vec<(String, Kind)> =
            described.iter().map(column).collect::<Option<_>>().ok_or_else(|| form("columns without names"))?;
        let tree = next()?.as_deref().and_then(|rows| text(rows.first()?, "tree"));
        let tree =
            tree.and_then(|tree| serde_json::from_str::<Json>(&tree).ok()).ok_or_else(|| form("no syntax tree"))?;
        let modifiers = &tree["statements"][0]["node"]["modifiers"];
        let modifiers: Vec<&str> = modifiers
            .as_array()
            .ok_or_else(|| form("no modifiers"))?
            .iter()
            .filter_map(|m| m["type"].as_str())
            .collect();
        let row = |row: serde_json::Map<String, Json>| -> Option<Vec<Value>> {
            let value = |(name, kind): &(String, Kind)| match row.get(name)? {
                Json::Null => Some(Value::Missing),
                Json::String(text) => Some(kind.value(text)),
                Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
            };
            columns.iter().map(value).collect()
        };
        // A result without rows may print nothing.
        let mut rows = || {
            let rows = next()?.unwrap_or_default();
            rows.into_iter().map(row).collect::<Option<Vec<_>>>().ok_or_else(|| form("a row without a column"))
        };
        let (rows, again) = (rows()?, rows()?);
        let has = |name: &str| modifiers.contains(&name);
        let limited = has("LIMIT_MODIFIER") || has("LIMIT_PERCENT_MODIFIER");
        Ok(Self { columns, ordered: has("ORDER_MODIFIER"), limited, rows, again })
    }
}

/// Rows by all columns, from left to right: numbers, then words, then what is missing.
fn order(a: &[Value], b: &[Value]) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Int(_) | Value::Float(_) => 0,
        Value::Text(_) => 1,
        Value::Missing => 2,
    };
    let one = |(a, b): (&Value, &Value)| match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (a, b) => match (a.number(), b.number()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => rank(a).cmp(&rank(b)),
        },
    };
    a.iter().zip(b).map(one).find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
}

/// DuckDB's message without the line of our own SQL that it quotes.
fn message(said: &str) -> String {
    let own = said.split("\nLINE ").next().unwrap_or(said);
    let lines: Vec<&str> =
        own.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--")).collect();
    match lines.is_empty() {
        true => "`duckdb` does not say why".into(),
        false => lines.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_survive() {
        let value = |sql: &str, text: &str| Kind::of(sql).value(text);
        assert_eq!(value("BIGINT", "7"), Value::Int(7));
        assert_eq!(value("UBIGINT", "18446744073709551615"), Value::Int(u64::MAX));
        assert_eq!(value("BIGINT", "-3"), Value::Float(-3.0));
        assert_eq!(value("BIGINT", "-9007199254740993"), Value::Text("-9007199254740993".into()));
        assert_eq!(
            value("HUGEINT", "170141183460469231731687303715884105727"),
            Value::Text("170141183460469231731687303715884105727".into())
        );
        assert_eq!(value("DOUBLE", "0.1"), Value::Float(0.1));
        assert_eq!(value("DOUBLE", "1e-300"), Value::Float(1e-300));
        assert_eq!([value("DOUBLE", "nan"), value("DOUBLE", "-inf")], [Value::Missing, Value::Missing]);
        assert_eq!(value("DECIMAL(18,3)", "12.345"), Value::Float(12.345));
        assert_eq!(value("VARCHAR", "12"), Value::Text("12".into()));
        assert_eq!(value("DECIMAL(4,1)[]", "[1.5]"), Value::Text("[1.5]".into()));
    }

    #[test]
    fn rows_are_sorted_as_numbers_and_what_is_missing_comes_last() {
        let mut rows: Vec<Vec<Value>> = vec![
            vec![Value::Missing],
            vec![10u64.into()],
            vec!["b".into()],
            vec![9.5.into()],
            vec!["a".into()],
            vec![2u64.into()],
        ];
        rows.sort_by(|a, b| order(a, b));
        let sorted: Vec<Value> = rows.into_iter().map(|mut row| row.remove(0)).collect();
        assert_eq!(sorted, [2u64.into(), 9.5.into(), 10u64.into(), "a".into(), "b".into(), Value::Missing]);
    }

    #[test]
    fn a_message_leaves_our_own_sql_out() {
        let said = "Catalog Error: Table with name x does not exist!\nDid you mean \"y\"?\n\nLINE 1: CREATE TEMP TABLE __first";
        assert_eq!(message(said), "Catalog Error: Table with name x does not exist! Did you mean \"y\"?");
        assert_eq!(message("\n"), "`duckdb` does not say why");
    }
}
