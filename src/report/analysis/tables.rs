//! The tables of analyses: what cells have stored, behind the key columns.

use crate::record::{AnalysisResult, Entry, Key, TABLES};
use crate::report::table::{LongTable, Value};
use std::sync::Arc;

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
pub(super) fn all(results: &Arc<Vec<AnalysisResult>>) -> Vec<LongTable> {
    TABLES.iter().filter_map(|(name, columns)| stored(results, name, columns)).collect()
}

/// The rows of all cells.
fn stored(
    results: &Arc<Vec<AnalysisResult>>,
    name: &'static str,
    columns: &'static [&'static str],
) -> Option<LongTable> {
    let results = results.clone();
    let count: usize = results.iter().flat_map(|result| result.stored(name)).map(|table| table.rows.len()).sum();
    let table = LongTable::new(name, KEY.iter().chain(columns).copied(), count, move |emit| {
        for result in results.iter() {
            for table in result.stored(name) {
                let mut values = key_values(&result.key(table.source));
                let places: Vec<Option<usize>> =
                    columns.iter().map(|column| table.columns.iter().position(|name| name == column)).collect();
                for row in &table.rows {
                    values.truncate(KEY.len());
                    let entry =
                        |place: &Option<usize>| place.and_then(|place| row.get(place)).map_or(Value::Missing, value);
                    values.extend(places.iter().map(entry));
                    emit(&values);
                }
            }
        }
    });
    (count > 0).then_some(table)
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
