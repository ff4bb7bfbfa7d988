//! What is shown of kernel cells: the tables `kernels` and `break_even`, speed-ups and rooflines.

mod plots;
mod tables;

use super::columns::Columns;
use super::{Read, Section};
use crate::record::{KernelResult, Record};
use crate::report::table::Table;

/// The columns of their tables.
pub(super) fn columns() -> Vec<Columns> {
    tables::columns()
}

/// What kernel cells give.
pub(super) fn section(read: &Read, records: Vec<Record>) -> Section {
    let records: Vec<KernelResult> = records.iter().filter_map(KernelResult::of).collect();
    Section {
        shown: [tables::terminal(&records), tables::terminal_break_even(&records)]
            .iter()
            .flatten()
            .map(Table::terminal)
            .collect(),
        figures: plots::all(&records, read.title.as_deref()),
        tables: tables::all(&records),
        ..Section::default()
    }
}
