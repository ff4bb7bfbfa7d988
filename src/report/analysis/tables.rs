//! The tables of analyses: what cells have stored, behind the key columns.

use crate::record::{AnalysisResult, Entry, Key, TABLES};
use crate::report::table::{Table, Value};

/// The key columns of every table of analyses.
pub(super) const KEY: [&str; 12] = [
    "analysis",
    "source",
    "model",
    "method",
    "scope",
    "pattern",
    "sparsity_target",
    "seed",
    "layer",
    "role",
    "module",
    "feature_axis",
];

/// Every table that has rows.
pub(super) fn all(results: &[AnalysisResult]) -> Vec<Table> {
    TABLES.iter().filter_map(|(name, columns)| stored(results, name, columns)).collect()
}

/// The rows of all cells.
fn stored(results: &[AnalysisResult], name: &'static str, columns: &[&'static str]) -> Option<Table> {
    let mut table = Table::new(name, KEY.iter().chain(columns).copied());
    for result in results {
        for row in result.rows(name) {
            let mut values = key_values(&row.key());
            values.extend(columns.iter().map(|column| value(row.get(column))));
            table.rows.push(values);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// The values of the key columns.
pub(super) fn key_values(key: &Key) -> Vec<Value> {
    let count = |number: Option<usize>| Value::from(number.map(|number| number as u64));
    vec![
        key.analysis.as_str().into(),
        key.source.as_str().into(),
        key.model.as_deref().into(),
        key.method.map(|method| method.name()).into(),
        key.scope.map(|scope| scope.name()).into(),
        key.pattern.map(|pattern| pattern.to_string()).into(),
        key.sparsity.into(),
        key.seed.into(),
        count(key.layer),
        key.role.map(|role| role.name()).into(),
        Some(key.module.as_str()).filter(|module| !module.is_empty()).into(),
        key.axis.map(|axis| axis.name()).into(),
    ]
}

/// A stored value as tables show it.
fn value(entry: &Entry) -> Value {
    match entry {
        Entry::Missing => Value::Missing,
        Entry::Flag(flag) => Value::from(if *flag { "true" } else { "false" }),
        Entry::Int(number) => u64::try_from(*number).map_or(Value::Float(*number as f64), Value::Int),
        Entry::Float(number) => Value::from(*number),
        Entry::Text(text) => text.as_str().into(),
    }
}
