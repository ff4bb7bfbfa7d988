//! What the tables and figures of models share: their key columns, and cells that finished, by seed and by group. Knows no table.

use super::Cells;
use crate::column::Column;
use crate::plan::Cell;
use crate::record::{CellResult, Measured};
use crate::report::table::{Table, Value};
use std::collections::BTreeMap;

/// The names of the columns that every table begins with: the cell's name and its key.
pub(super) fn key_names() -> impl Iterator<Item = &'static str> {
    ["cell"].into_iter().chain(Cell::KEY.iter().map(|column| column.name))
}

/// A table of model cells, a row of each item.
pub(super) fn keyed_table<'a, T: 'static>(
    name: &'static str,
    columns: &[Column<T>],
    rows: impl IntoIterator<Item = (&'a CellResult, T)>,
) -> Table {
    let mut table = Table::new(name, key_names().chain(columns.iter().map(|column| column.name)));
    let entries = |(record, item): (&CellResult, T)| row(record, columns.iter().map(|column| (column.get)(&item)));
    table.rows.extend(rows.into_iter().map(entries));
    table
}

/// A table without rows whose columns begin with the key's.
pub(super) fn keyed(name: &'static str, columns: &[&'static str]) -> Table {
    Table::new(name, key_names().chain(columns.iter().copied()))
}

/// The key's values, and others after them.
pub(super) fn row(record: &CellResult, values: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut row = vec![Value::from(record.id.as_str())];
    row.extend(Cell::KEY.iter().map(|column| (column.get)(&record.cell)));
    row.extend(values);
    row
}

/// Finished cells that differ only in the seed, in order of first appearance.
pub(super) fn by_seed<'a>(records: impl IntoIterator<Item = &'a CellResult>) -> Vec<Vec<&'a CellResult>> {
    let mut groups: Vec<Vec<&CellResult>> = Vec::new();
    for record in records.into_iter().filter(|record| record.measured.is_some()) {
        match groups.iter_mut().find(|group| same_but_seed(&group[0].cell, &record.cell)) {
            Some(group) => group.push(record),
            None => groups.push(vec![record]),
        }
    }
    groups
}

fn same_but_seed(a: &Cell, b: &Cell) -> bool {
    // What tells most cells apart comes first. A new field does not compile here until it is compared.
    let Cell { prune, variant, model, backend, dtype, tokens, seed: _ } = a;
    (variant, prune, model, backend) == (&b.variant, &b.prune, &b.model, &b.backend)
        && (dtype, tokens) == (&b.dtype, &b.tokens)
}

/// What a group adds up to.
#[derive(Clone, Copy, Default)]
pub(super) struct GroupSum {
    pub nonzero: u64,
    pub total: u64,
    pub flops_per_token: u64,
    pub bytes: u64,
}

/// Sums by group, in alphabetical order. A tied head shows its own numbers.
pub(super) fn group_sums(measured: &Measured) -> BTreeMap<&str, GroupSum> {
    let mut groups: BTreeMap<&str, GroupSum> = BTreeMap::new();
    for layer in &measured.structure.layers {
        let sum = groups.entry(&layer.group).or_default();
        // A file of others may say anything, and must not stop the report.
        sum.nonzero = sum.nonzero.saturating_add(layer.nonzero);
        sum.total = sum.total.saturating_add(layer.total);
        sum.flops_per_token = sum.flops_per_token.saturating_add(layer.flops_per_token);
        sum.bytes = sum.bytes.saturating_add(layer.bytes);
    }
    groups
}

/// The finished cells with their numbers.
pub(super) fn finished(cells: &Cells) -> impl Iterator<Item = (&CellResult, &Measured)> {
    cells.records.iter().filter_map(|record| record.measured.as_ref().map(|measured| (record, measured)))
}

/// 1 − nonzero / total
pub(super) fn sparsity(nonzero: u64, total: u64) -> f64 {
    1.0 - nonzero as f64 / total as f64
}
