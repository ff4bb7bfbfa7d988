//! What is shown of analyses: a table for each sort of rows, statistics over repeats, and figures.
//!
//! ```text
//!   AnalysisResult [cells] ──tables.rs──> one table a sort of rows, cell by cell, behind the key columns
//!                            summary.rs─> over references and seeds; paired across sources; verdicts
//!                            plots.rs ──> figures, from the same results and tables
//! ```

mod plots;
mod tables;

use super::table::Table;
use super::{Read, Section};
use crate::record::AnalysisResult;

/// What analyses give.
pub(super) fn section(read: &Read) -> Section {
    let results: Vec<AnalysisResult> = read.records.iter().filter_map(AnalysisResult::of).collect();
    if results.is_empty() {
        return Section::default();
    }
    let tables = tables::all(&results);
    Section { figures: plots::plots(&results, &tables, read.title.as_deref()), tables, ..Section::default() }
}

/// A table by its name.
#[allow(dead_code)]
fn named<'a>(tables: &'a [Table], name: &str) -> Option<&'a Table> {
    tables.iter().find(|table| table.name == name)
}
