//! What of a report goes on its page, and under which heading.
//!
//! Owns the choice; [`page`](super::page) owns how it looks.

use super::page::{Content, FailedCell, Tone, render};
use super::pivot::Pivot;
use super::plot_files::DrawnFigure;
use super::{Read, Report, Section};
use crate::record::{Record, Store};
use std::path::Path;

/// What the tables of each kind stand under; those of queries come after the kinds.
const HEADINGS: [&str; 4] = ["Models", "Kernels", "Analyses", "Queries"];

/// What is told of the cells themselves.
pub(super) struct Cells {
    measured: usize,
    failed: Vec<FailedCell>,
}

impl Cells {
    /// Of all records.
    pub fn of(records: &[Record]) -> Self {
        let failed: Vec<FailedCell> = records.iter().filter_map(failed).collect();
        Self { measured: records.len() - failed.len(), failed }
    }
}

fn failed(record: &Record) -> Option<FailedCell> {
    let failure = record.failure.as_ref()?;
    let kind = serde_json::to_value(failure.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    let (id, reason) = (record.id.as_str().to_owned(), failure.message.clone());
    Some(FailedCell { id, what: record.cell.to_string(), kind: kind.unwrap_or_default(), reason })
}

/// `report.html`
pub(super) fn page(
    store: &Store,
    read: &Read,
    sections: &[Section],
    figures: &[DrawnFigure],
    report: &Report,
    cells: Cells,
) -> String {
    let manifest = store.manifest().ok().flatten();
    let name = manifest.as_ref().map(|manifest| manifest.name.clone());
    let file = store.bytes(Path::new("experiment.toml"));
    let groups = HEADINGS.iter().zip(sections).map(|(heading, section)| (*heading, section.tables.iter().collect()));
    let mut messages = messages(report);
    for table in sections.iter().flat_map(|section| &section.long) {
        let text = format!("tables/{}.csv has {} rows, too many for this page", table.name, table.count());
        messages.push((Tone::Plain, text));
    }
    render(&Content {
        title: read.title.clone().or(name).unwrap_or_else(|| "Results".into()),
        state: state(&cells, report),
        messages,
        failures: cells.failed,
        verdicts: report.verdicts.iter().collect(),
        pivots: report.first.iter().chain(&report.pivots).map(Pivot::marked).collect(),
        figures,
        groups: groups.collect(),
        file: file.map(|file| String::from_utf8_lossy(&file).into_owned()),
        manifest,
    })
}

/// How far a folder is.
fn state(cells: &Cells, report: &Report) -> Vec<(Tone, String)> {
    let counts = [
        (Tone::Good, cells.measured, "measured"),
        (Tone::Bad, cells.failed.len(), "failed"),
        (Tone::Warning, report.unfinished, "still to do"),
        (Tone::Bad, report.missed, "expectations missed"),
        (Tone::Bad, report.damaged.len(), "damaged files"),
    ];
    let told = counts.into_iter().filter(|(tone, count, _)| *count > 0 || *tone == Tone::Good);
    told.map(|(tone, count, what)| (tone, format!("{count} {what}"))).collect()
}

fn messages(report: &Report) -> Vec<(Tone, String)> {
    let unanswered: Vec<String> = report.unanswered.iter().map(ToString::to_string).collect();
    let all = [
        (Tone::Bad, &report.damaged),
        (Tone::Bad, &unanswered),
        (Tone::Warning, &report.warnings),
        (Tone::Plain, &report.findings),
    ];
    all.into_iter().flat_map(|(tone, messages)| messages.iter().map(move |text| (tone, text.clone()))).collect()
}
