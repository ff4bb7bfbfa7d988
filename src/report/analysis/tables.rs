//! The tables of analyses: what cells have stored, behind the key columns.

use crate::record::{AnalysisResult, Entry, Key, Named, TABLES};
use crate::report::table::{LongTable, Value};
use std::sync::Arc;

/// The key columns of every table of analyses.
pub(super) const KEY: [Named; 12] = [
    ("analysis", "the analysis's `id`"),
    ("source", "the source's name"),
    ("model", "the model that was pruned, or whose checkpoint it is"),
    ("method", "how weights were chosen"),
    ("scope", "what a weight competed with"),
    ("pattern", "which weights may stay together: `unstructured` or `N:M`"),
    ("sparsity_target", "the sparsity asked for"),
    ("seed", "the seed of everything random"),
    ("layer", "the block, from 0 on"),
    ("role", "what the matrix is for: `q`, `k`, `v`, `o`, `gate`, `up` or `down`"),
    ("module", "the module's name, or the file's"),
    ("feature_axis", "what a feature is: a row, `out`, or a column, `in`"),
];

/// Every table that has rows.
pub(super) fn all(results: &Arc<Vec<AnalysisResult>>) -> Vec<LongTable> {
    TABLES.iter().filter_map(|(name, columns)| stored(results, name, columns)).collect()
}

/// The names of columns.
pub(super) fn names<'a>(columns: impl IntoIterator<Item = &'a Named>) -> impl Iterator<Item = &'static str> {
    columns.into_iter().map(|(name, _)| *name)
}

/// The rows of all cells.
fn stored(results: &Arc<Vec<AnalysisResult>>, name: &'static str, columns: &'static [Named]) -> Option<LongTable> {
    let results = results.clone();
    let count: usize = results.iter().flat_map(|result| result.stored(name)).map(|table| table.rows.len()).sum();
    let table = LongTable::new(name, names(KEY.iter().chain(columns)), count, move |emit| {
        for result in results.iter() {
            for table in result.stored(name) {
                let mut values = key_values(&result.key(table.source));
                let places: Vec<Option<usize>> =
                    columns.iter().map(|(column, _)| table.columns.iter().position(|name| name == column)).collect();
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
