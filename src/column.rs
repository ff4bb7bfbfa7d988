//! A column: its name, what it says, and where a row has it.
//!
//! Owns what tables, conditions (`--only`, `where`, `skip`) and docs have in common, so that a column is declared
//! once. Knows no row and no table: lists of columns stand beside what they are columns of.

use std::fmt;

/// A table's entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing; never written as 0.
    Missing,
    /// Words.
    Text(String),
    /// A count.
    Int(u64),
    /// A number.
    Float(f64),
}

/// A column of rows `T`.
pub struct Column<T: 'static> {
    /// Its name, as tables and conditions have it.
    pub name: &'static str,
    /// What it says, in a line.
    pub help: &'static str,
    /// A row's entry.
    pub get: fn(&T) -> Value,
}

/// A row's entries, by the names of their columns.
pub fn entries<T>(columns: &[Column<T>], row: &T) -> Vec<(&'static str, Value)> {
    columns.iter().map(|column| (column.name, (column.get)(row))).collect()
}

/// The keys of the experiment file whose values stand under another name in tables, where the key's own name is that of
/// what came out.
const FILE_KEYS: [(&str, &str); 1] = [("sparsity", "sparsity_target")];

/// The key column that a condition means: `sparsity` in a condition is the key of `[[prune]]`.
pub fn key_column(name: &str) -> &str {
    FILE_KEYS.iter().find(|(key, _)| *key == name).map_or(name, |(_, column)| column)
}

impl fmt::Display for Value {
    /// With every digit that it needs to be read back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Int(count) => count.fmt(f),
            Self::Float(number) => number.fmt(f),
        }
    }
}

impl Value {
    /// As a float, if it is a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(count) => Some(*count as f64),
            Self::Float(number) => Some(*number),
            Self::Missing | Self::Text(_) => None,
        }
    }

    /// Whether both mean the same: numbers do where they differ by rounding alone, since `1 - N/M` need not be the very
    /// float that a user types.
    pub fn same(&self, other: &Self) -> bool {
        match (self.number(), other.number()) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-9,
            (None, None) => self == other,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Int(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Int(count as u64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        if number.is_finite() { Self::Float(number) } else { Self::Missing }
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_up_to_rounding_and_words_to_the_letter() {
        assert!(Value::from(0.1 + 0.2).same(&0.3.into()) && Value::from(2u64).same(&2.0.into()));
        assert!(!Value::from(0.3).same(&0.31.into()) && !Value::from("0.3").same(&0.3.into()));
        assert!(Value::Missing.same(&Value::Missing) && !Value::Missing.same(&0.0.into()));
        assert_eq!((key_column("sparsity"), key_column("method")), ("sparsity_target", "method"));
    }
}
