//! From tables to SQL that makes them: a type for every column, and a file of values for each table.
//!
//! Owns the types. The CSV here is not the one for people: text is quoted and stands as it is, and what is missing is
//! an empty field without quotes, so that an empty text is none.

use crate::report::table::{Table, Value};
use std::fmt::Write;
use std::io;
use std::path::Path;

/// Columns of words, which a table without any value in them can't tell.
const WORDS: &[&str] = &[
    "a",
    "algorithm",
    "analysis",
    "axis",
    "b",
    "backend",
    "candidates",
    "cell",
    "clock",
    "dtype",
    "failure",
    "feature_axis",
    "format",
    "group",
    "grouping",
    "id",
    "input",
    "kept_histogram",
    "kernel",
    "linkage",
    "mask_source",
    "method",
    "metric",
    "mode",
    "model",
    "module",
    "module_name",
    "note",
    "order",
    "path",
    "pattern",
    "phase",
    "role",
    "scope",
    "settings",
    "setup",
    "sha256",
    "shape",
    "source",
    "source_b",
    "sql",
    "stability",
    "stage",
    "variant",
    "verdict",
    "where",
];
/// Columns of counts, likewise.
const COUNTS: &[&str] = &[
    "batch",
    "block",
    "bytes",
    "feature",
    "flops_per_token",
    "k",
    "layer",
    "linears",
    "nnz",
    "nonzero",
    "peak_bytes",
    "prompt",
    "reference",
    "repeats",
    "rows",
    "seed",
    "seed_b",
    "seed_feature",
    "seeds",
    "ties",
    "tokens",
    "total",
];

/// Columns of `true` and `false`.
const FLAGS: &[&str] = &["complete", "is_dead", "is_full", "marginals", "reference_constant"];

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Words,
    Flag,
    Count,
    /// A count beyond what has a sign.
    LargeCount,
    Number,
}

impl Type {
    fn sql(self) -> &'static str {
        match self {
            Self::Words => "VARCHAR",
            Self::Flag => "BOOLEAN",
            Self::Count => "BIGINT",
            Self::LargeCount => "UBIGINT",
            Self::Number => "DOUBLE",
        }
    }

    /// What holds all values of a column.
    fn of(name: &str, values: &mut dyn Iterator<Item = &Value>) -> Self {
        let flag = FLAGS.contains(&name);
        let of = |value: &Value| match value {
            Value::Missing => None,
            Value::Text(word) if flag && (word == "true" || word == "false") => Some(Self::Flag),
            Value::Text(_) => Some(Self::Words),
            Value::Int(count) if i64::try_from(*count).is_ok() => Some(Self::Count),
            Value::Int(_) => Some(Self::LargeCount),
            Value::Float(_) => Some(Self::Number),
        };
        let wider = |a: Self, b: Self| match (a, b) {
            (Self::Flag, Self::Flag) => Self::Flag,
            (Self::Words | Self::Flag, _) | (_, Self::Words | Self::Flag) => Self::Words,
            (Self::Number, _) | (_, Self::Number) => Self::Number,
            (Self::LargeCount, _) | (_, Self::LargeCount) => Self::LargeCount,
            (Self::Count, Self::Count) => Self::Count,
        };
        values.filter_map(of).reduce(wider).unwrap_or(match name {
            _ if flag => Self::Flag,
            name if WORDS.contains(&name) => Self::Words,
            name if COUNTS.contains(&name) => Self::Count,
            _ => Self::Number,
        })
    }
}

/// Writes the values beside the database; the SQL that reads them in.
///
/// # Errors
/// When a file can't be written.
pub(super) fn script(tables: &[&Table], folder: &Path) -> io::Result<String> {
    let mut sql = String::new();
    for (index, table) in tables.iter().enumerate() {
        let file = format!("{index}.csv");
        std::fs::write(folder.join(&file), values(table))?;
        let columns: Vec<String> = table
            .columns
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let kind = Type::of(name, &mut table.rows.iter().map(|row| &row[at]));
                format!("{} {}", identifier(name), kind.sql())
            })
            .collect();
        let name = identifier(&table.name);
        let _ = writeln!(sql, "CREATE TABLE {name} ({});", columns.join(", "));
        let _ = writeln!(
            sql,
            "COPY {name} FROM '{file}' (FORMAT csv, AUTO_DETECT false, HEADER false, DELIMITER ',', QUOTE '\"', \
             ESCAPE '\"', NULLSTR '', ALLOW_QUOTED_NULLS false, PARALLEL false, NEW_LINE '\\n');"
        );
    }
    Ok(sql)
}

/// A name in SQL, whatever it is.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL.
pub(super) fn literal(text: &str) -> String {
    // A NUL would end the text for the program.
    format!("'{}'", text.replace('\'', "''").replace('\0', ""))
}

/// Rows of values.
fn values(table: &Table) -> String {
    let mut out = String::new();
    for row in &table.rows {
        for (at, value) in row.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            let _ = match value {
                Value::Missing => Ok(()),
                Value::Text(text) => write!(out, "\"{}\"", text.replace('"', "\"\"").replace('\0', "")),
                Value::Int(count) => write!(out, "{count}"),
                Value::Float(number) => write!(out, "{number:?}"),
            };
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, values: &[Value]) -> &'static str {
        Type::of(name, &mut values.iter()).sql()
    }

    #[test]
    fn a_column_has_the_type_of_its_values() {
        assert_eq!(kind("x", &[1u64.into(), Value::Missing]), "BIGINT");
        assert_eq!(kind("x", &[1u64.into(), u64::MAX.into()]), "UBIGINT");
        assert_eq!(kind("x", &[1u64.into(), 0.5.into()]), "DOUBLE");
        assert_eq!(kind("x", &[u64::MAX.into(), "a".into()]), "VARCHAR");
        assert_eq!(kind("is_dead", &["true".into(), Value::Missing, "false".into()]), "BOOLEAN");
        assert_eq!([kind("is_dead", &["true".into(), "maybe".into()]), kind("x", &["true".into()])], ["VARCHAR"; 2]);
    }

    #[test]
    fn a_column_without_values_has_the_type_that_its_name_says() {
        let none = [Value::Missing, Value::Missing];
        assert_eq!(
            [kind("seed", &none), kind("method", &[]), kind("perplexity", &none)],
            ["BIGINT", "VARCHAR", "DOUBLE"]
        );
    }

    #[test]
    fn names_and_texts_stay_within_their_quotes() {
        assert_eq!(identifier("a\"b; DROP"), "\"a\"\"b; DROP\"");
        assert_eq!(literal("it's\0"), "'it''s'");
    }
}
