//! What is shown of analyses: a table for each sort of rows, statistics over repeats, and figures.
//!
//! ```text
//!   AnalysisResult [cells] ──tables.rs──> one table a sort of rows, cell by cell, behind the key columns
//!                            summary.rs─> over references and seeds; paired across sources; verdicts
//!                            plots.rs ──> figures, from the same results and tables
//! ```

mod plots;
mod summary;
mod tables;

use super::columns::Columns;
use super::{Read, Section};
use crate::record::{self, AnalysisResult, Named, Record};
use std::sync::Arc;

/// The columns of the tables of analyses.
pub(super) fn columns() -> Vec<Columns> {
    let key = Columns { heading: "The key of analyses".into(), columns: tables::KEY.into() };
    let tables = record::TABLES.iter().chain(summary::TABLES);
    let of = |(name, columns): &(&str, &'static [Named])| Columns {
        heading: format!("`{name}` of analyses").into(),
        columns: columns.to_vec(),
    };
    std::iter::once(key).chain(tables.map(of)).collect()
}

/// What analyses give.
pub(super) fn section(read: &Read, records: Vec<Record>) -> Section {
    let results: Vec<AnalysisResult> = records.into_iter().filter_map(AnalysisResult::of).collect();
    if results.is_empty() {
        return Section::default();
    }
    let results = Arc::new(results);
    let tables = summary::all(&results);
    let hidden = ["within_mean", "between_mean", "separation_sd", "above_null_fraction", "largest_fraction_mean"];
    let shown = tables.iter().find(|table| table.name == "analysis_report").map(|table| table.without(&hidden));
    let mut warnings: Vec<String> = Vec::new();
    for result in results.iter() {
        let notes = result.numbers.iter().flat_map(|numbers| &numbers.notes);
        let notes = notes.map(|note| format!("analysis `{}`: {note}", result.cell.analysis));
        warnings.extend(notes.filter(|note| !warnings.contains(note)).collect::<Vec<_>>());
    }
    Section {
        figures: plots::plots(&results, read.title.as_deref()),
        shown: shown
            .map(|table| table.without_constant_columns(&["analysis", "source", "verdict"]).terminal())
            .into_iter()
            .collect(),
        long: tables::all(&results),
        tables,
        warnings,
        ..Section::default()
    }
}
