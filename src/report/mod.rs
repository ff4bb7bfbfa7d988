//! What others see: tables and plots, from the cells' files alone.
//!
//! ```text
//!   Store ──> Read (records in the plan's order) ──section──> Table ──> .csv  .md  .tex  terminal
//!                                   a kind of work each  └──> Figure ─> .svg  .png  .pdf  .csv
//!
//!                                                    Tables ──pivot/──> Pivot ──> .tex .md .csv  terminal
//!
//!   model/  kernel/       what is shown of a kind of work          above
//!   table/  figure  draw  stats                                    below, for all kinds
//! ```
//!   page                  report.html: all of it on one page    of what the others have made
//!   compare/              two sides side by side
//!   database              what SQL makes of the tables           below too, but for its way into the folder
//!   status.rs             how far a folder is, at a glance
//!   escape.rs             text of others, made harmless in each format
//!
//! This module reads `record/`. It does not know models, pruning or devices, and it runs nothing, so
//! that a report can be made on any machine. Equal cells give equal bytes.

mod analysis;
mod columns;
pub mod compare;
pub mod database;
pub mod draw;
pub mod escape;
pub mod figure;
mod kernel;
mod model;
mod overview;
mod page;
mod paired;
pub mod pivot;
mod plot_files;
mod stats;
pub mod status;
pub mod table;

pub use columns::reference;

use crate::config::experiment::PivotSpec;
use crate::config::plots::PlotWidth;
use crate::config::query::Query;
use crate::plan::CellId;
use crate::record::{ExpectRecord, PlanEntry, PlanRecord, Record, Stamp, Store, StoreError, cell_path};
use columns::Columns;
use database::DatabaseError;
use draw::DrawError;
use figure::Figure;
use pivot::{Pivot, PivotError, PointNames};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use table::{LongTable, Table};
use thiserror::Error;

/// Longer tables are written as CSV alone: nobody sets them in a text.
const MOST_ROWS_IN_A_TEXT: usize = 200;
/// Longer tables are written row by row, and not held.
const MOST_ROWS_HELD: usize = 10_000;

/// Why a report can't be made.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The results folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing to report on.
    #[error("no cells in `{folder}`{}", left_out(.damaged))]
    NoCells {
        /// The folder.
        folder: String,
        /// Cells whose files can't be believed, one message each.
        damaged: Vec<String>,
    },
    /// A plot can't be drawn.
    #[error("failed to draw `{name}`: {source}")]
    Draw {
        /// The plot.
        name: String,
        /// Why.
        source: DrawError,
    },
}

impl ReportError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::NoCells { .. } => {
                Some("give the folder of an experiment, `results/NAME`, after `sparsify-exp run`".into())
            }
            Self::Draw { source, .. } => source.hint(),
        }
    }
}

/// `, left out: ...`
fn left_out(damaged: &[String]) -> String {
    if damaged.is_empty() { String::new() } else { format!(", left out: {}", damaged.join("; ")) }
}

/// A report that is written.
pub struct Report {
    /// What a person wants to see first: the tables of the kinds of work, as text for a terminal.
    pub shown: Vec<String>,
    /// The tables of kinds of work that are set as papers have them.
    pub first: Vec<Pivot>,
    /// The tables of `[[table]]` blocks.
    pub pivots: Vec<Pivot>,
    /// Those that can't be made.
    pub not_pivoted: Vec<PivotError>,
    /// Cells that should have had other numbers, among those that should have some.
    pub verdicts: Vec<Table>,
    /// What the tables say that a reader should not miss.
    pub findings: Vec<String>,
    /// Expectations that were measured and missed.
    pub missed: usize,
    /// What a reader is warned of.
    pub warnings: Vec<String>,
    /// Cells of the plan that are not there yet, or lack results.
    pub unfinished: usize,
    /// Cells whose files can't be read or believed, one message each.
    pub damaged: Vec<String>,
    /// Queries that have no answer, and a database that could not be written.
    pub unanswered: Vec<DatabaseError>,
}

/// What a report has besides tables and plots.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// A DuckDB file of all tables. One that is there already is kept current anyway.
    pub database: bool,
}

/// What a kind of work gives.
#[derive(Default)]
struct Section {
    tables: Vec<Table>,
    /// Tables with rows for parts of cells, of which there may be millions.
    long: Vec<LongTable>,
    /// Every figure with its file name.
    figures: Vec<(String, Figure)>,
    shown: Vec<String>,
    /// Tables that are set as papers have them.
    first: Vec<Pivot>,
    /// What points of one method are called where their settings differ, by their cells.
    names: PointNames,
    verdicts: Option<Table>,
    findings: Vec<String>,
    warnings: Vec<String>,
    missed: usize,
}

/// A kind's name, and what it gives.
type Kind = (&'static str, fn(&Read, Vec<Record>) -> Section);

/// The kinds of work, a row each: what its tables are called after where a name is taken, and what it gives.
const KINDS: [Kind; 3] = [("model", model::section), ("kernel", kernel::section), ("analysis", analysis::section)];

/// Their tables' columns.
const COLUMNS: [fn() -> Vec<Columns>; 3] = [model::columns, kernel::columns, analysis::columns];

/// What there is of an experiment, in the plan's order.
#[derive(Default)]
struct Read {
    title: Option<String>,
    expectations: Vec<ExpectRecord>,
    queries: Vec<Query>,
    pivots: Vec<PivotSpec>,
    plot_width: PlotWidth,
    unfinished: usize,
    damaged: Vec<String>,
}

/// Writes `tables/` and `plots/` of a results folder again.
///
/// Several processes may do so at once. Each looks again after writing, and writes again if cells have
/// come in the meantime, so that the last files written are of the most cells.
///
/// # Errors
/// When a file can't be read or written, or there are no cells.
pub fn report(store: &Store, extras: Extras) -> Result<Report, ReportError> {
    loop {
        let before = Seen::of(store);
        let (read, records) = read(store, &before)?;
        if records.is_empty() {
            let (folder, damaged) = (store.root().display().to_string(), read.damaged);
            return Err(ReportError::NoCells { folder, damaged });
        }
        let report = write(store, &read, records, extras)?;
        if Seen::of(store) == before {
            return Ok(report);
        }
    }
}

/// Which files there were, by what tells a file from the one that takes its place.
#[derive(PartialEq)]
struct Seen {
    plan: Option<Stamp>,
    cells: Vec<(CellId, Option<Stamp>)>,
}

impl Seen {
    fn of(store: &Store) -> Self {
        let plan = store.stamp(Path::new("plan.json"));
        let stamped = |id: CellId| (store.stamp(&cell_path(&id)), id);
        let cells = store.ids().into_par_iter().map(stamped).map(|(stamp, id)| (id, stamp)).collect();
        Self { plan, cells }
    }
}

fn write(store: &Store, read: &Read, records: Vec<Record>, extras: Extras) -> Result<Report, ReportError> {
    let cells = overview::Cells::of(&records);
    let mut sections = sections(read, records);
    tell_tables_apart(&mut sections);
    let unanswered = ask(store, read, extras, &mut sections)?;
    for table in sections.iter().flat_map(|section| &section.tables) {
        write_table(store, table)?;
    }
    for table in sections.iter().flat_map(|section| &section.long) {
        write_long(store, table)?;
    }
    let (pivots, not_pivoted) = make_pivots(store, read, &sections)?;
    let figures = sections.iter().flat_map(|section| &section.figures);
    let drawn = plot_files::write_all(store, figures, read.plot_width)?;
    let mut report = Report {
        shown: Vec::new(),
        first: Vec::new(),
        pivots,
        not_pivoted,
        verdicts: Vec::new(),
        findings: Vec::new(),
        warnings: drawn.warnings.clone(),
        missed: 0,
        unfinished: read.unfinished,
        damaged: read.damaged.clone(),
        unanswered,
    };
    for section in &sections {
        report.shown.extend(section.shown.clone());
        report.first.extend(section.first.clone());
        report.verdicts.extend(section.verdicts.clone());
        report.findings.extend(section.findings.clone());
        report.warnings.extend(section.warnings.clone());
        report.missed += section.missed;
    }
    let page = overview::page(store, read, &sections, &drawn.figures, &report, cells);
    store.write(Path::new(page::FILE), page.as_bytes())?;
    Ok(report)
}

/// Makes and writes the tables of `[[table]]` blocks, and removes those that an earlier report wrote and this one does not.
fn make_pivots(store: &Store, read: &Read, sections: &[Section]) -> Result<(Vec<Pivot>, Vec<PivotError>), StoreError> {
    let asked = |table: &&LongTable| read.pivots.iter().any(|spec| spec.from == table.name);
    let long: Vec<Table> =
        sections.iter().flat_map(|section| &section.long).filter(asked).map(LongTable::held).collect();
    let tables: Vec<&Table> = sections.iter().flat_map(|section| &section.tables).chain(&long).collect();
    let names: PointNames = sections.iter().flat_map(|section| section.names.clone()).collect();
    let (mut made, mut errors) = (Vec::new(), Vec::new());
    for spec in &read.pivots {
        match pivot::pivot(spec, &tables, &names) {
            Ok(pivot) => made.push(pivot),
            Err(error) => errors.push(error),
        }
    }
    for pivot in &made {
        let forms = [("tex", pivot.latex()), ("md", pivot.markdown()), ("csv", pivot.csv())];
        for (extension, text) in forms {
            store.write(&table_path(&pivot.id, extension), text.as_bytes())?;
        }
    }
    for name in store.stems(Path::new("tables"), "tex") {
        let is_made = made.iter().any(|pivot| pivot.id == name) || tables.iter().any(|table| table.name == name);
        if !is_made && store.mentions(&table_path(&name, "tex"), pivot::MADE.as_bytes()) {
            ["tex", "md", "csv"].iter().for_each(|extension| store.remove(&table_path(&name, extension)));
        }
    }
    Ok((made, errors))
}

/// What the kinds of work give, each of its own cells. Tables that are no longer than others are held like them.
fn sections(read: &Read, records: Vec<Record>) -> Vec<Section> {
    let mut of_kind = KINDS.map(|_| Vec::new());
    for record in records {
        let name = record.cell.kind().name();
        if let Some(place) = KINDS.iter().position(|(kind, _)| *kind == name) {
            of_kind[place].push(record);
        }
    }
    let mut sections: Vec<Section> =
        KINDS.iter().zip(of_kind).map(|((_, section), records)| section(read, records)).collect();
    for section in &mut sections {
        let (short, long) =
            std::mem::take(&mut section.long).into_iter().partition(|table| table.count() <= MOST_ROWS_HELD);
        let short: Vec<LongTable> = short;
        section.tables.extend(short.iter().map(LongTable::held));
        section.long = long;
    }
    sections
}

/// Gives tables of one name others: `groups` of modules stays, `groups` of features becomes `analysis_groups`.
fn tell_tables_apart(sections: &mut [Section]) {
    let mut taken = HashSet::new();
    for ((kind, _), section) in KINDS.iter().zip(sections) {
        let names = section.tables.iter_mut().map(|table| &mut table.name);
        for name in names.chain(section.long.iter_mut().map(|table| &mut table.name)) {
            if !taken.insert(name.to_string()) {
                *name = format!("{kind}_{name}").into();
                taken.insert(name.to_string());
            }
        }
    }
}

/// Adds what SQL makes of the tables, and writes the database where it is wanted; the queries that have no answer.
fn ask(
    store: &Store,
    read: &Read,
    extras: Extras,
    sections: &mut Vec<Section>,
) -> Result<Vec<DatabaseError>, ReportError> {
    let (list, file) = (table_path(database::LIST, "csv"), Path::new(database::FILE));
    let earlier = store.bytes(&list).map(|list| database::earlier(&list)).unwrap_or_default();
    let keep = extras.database || store.root().join(file).exists();
    // SQL may ask for any of them.
    let asked = keep || !read.queries.is_empty();
    let long = sections.iter().flat_map(|section| &section.long).filter(|_| asked);
    let long: Vec<Table> = long.map(LongTable::held).collect();
    let tables: Vec<&Table> = sections.iter().flat_map(|section| &section.tables).chain(&long).collect();
    let answers = database::answers(&tables, &read.queries, &store.root().join("experiment.toml"), keep);
    // What an earlier report answered and this one does not: it may show other cells.
    let answered = |name: &str| answers.section.tables.iter().any(|table| table.name == name);
    for name in earlier.iter().filter(|name| !answered(name)) {
        ["csv", "md", "tex"].iter().for_each(|extension| store.remove(&table_path(name, extension)));
    }
    match answers.file {
        Some(bytes) => store.write(file, &bytes)?,
        None if keep => store.remove(file),
        None => {}
    }
    sections.push(answers.section);
    Ok(answers.errors)
}

/// Writes a table as CSV, and as Markdown and LaTeX if a text has room for it.
fn write_table(store: &Store, table: &Table) -> Result<(), StoreError> {
    let path = |extension: &str| table_path(&table.name, extension);
    store.write(&path("csv"), table.csv().as_bytes())?;
    if table.rows.len() > MOST_ROWS_IN_A_TEXT {
        remove_texts(store, &table.name);
        return Ok(());
    }
    store.write(&path("md"), table.markdown().as_bytes())?;
    store.write(&path("tex"), table.latex().as_bytes())
}

/// Writes a table that is too long to be held, as CSV.
fn write_long(store: &Store, table: &LongTable) -> Result<(), StoreError> {
    store.write_by(&table_path(&table.name, "csv"), &mut |to| table.write_csv(to))?;
    remove_texts(store, &table.name);
    Ok(())
}

/// Removes what an earlier report of fewer cells may have written: it would not show what the CSV has.
fn remove_texts(store: &Store, name: &str) {
    ["md", "tex"].iter().for_each(|extension| store.remove(&table_path(name, extension)));
}

fn table_path(name: &str, extension: &str) -> PathBuf {
    Path::new("tables").join(format!("{name}.{extension}"))
}

/// The cells of the plan, of each the results that are wanted; all cells of the folder, by name, where there is no plan.
fn read(store: &Store, seen: &Seen) -> Result<(Read, Vec<Record>), StoreError> {
    let mut read = Read::default();
    let found: Vec<(Found, Vec<String>)> = match store.plan()? {
        Some(PlanRecord { title, cells, expectations, queries, pivots, plot_width, .. }) => {
            (read.title, read.expectations) = (title, expectations);
            (read.queries, read.pivots, read.plot_width) = (queries, pivots, plot_width);
            cells.into_par_iter().map(|entry| planned(store, entry)).collect::<Result<_, _>>()?
        }
        None => seen.cells.par_iter().map(|(id, _)| unplanned(store, id)).collect::<Result<_, _>>()?,
    };
    let mut records = Vec::new();
    for (found, lost) in found {
        read.damaged.extend(lost);
        match found {
            Found::Complete(record) => records.push(*record),
            Found::Lacking(record) => {
                read.unfinished += 1;
                records.push(*record);
            }
            Found::Missing => read.unfinished += 1,
            // `run` measures it again; until then it is missing like any other.
            Found::Damaged(message) => {
                read.unfinished += 1;
                read.damaged.push(message);
            }
        }
    }
    Ok((read, records))
}

/// What there is of a cell.
enum Found {
    Complete(Box<Record>),
    /// Without all results that are wanted.
    Lacking(Box<Record>),
    Missing,
    Damaged(String),
}

/// A cell of a folder without a plan, and what was lost of it.
fn unplanned(store: &Store, id: &CellId) -> Result<(Found, Vec<String>), StoreError> {
    match store.cell(id) {
        Ok(Some(record)) => {
            let (record, lost) = store.with_items(record.latest());
            Ok((Found::Complete(Box::new(record)), lost))
        }
        Ok(None) => Ok((Found::Missing, Vec::new())),
        Err(error) if error.is_of_a_file() => Ok((Found::Damaged(error.to_string()), Vec::new())),
        Err(error) => Err(error),
    }
}

/// A cell of the plan, and what was lost of it.
fn planned(store: &Store, entry: PlanEntry) -> Result<(Found, Vec<String>), StoreError> {
    let alone = |found| Ok((found, Vec::new()));
    let record = match store.cell(&entry.id) {
        Ok(Some(record)) => record,
        Ok(None) => return alone(Found::Missing),
        Err(error) if error.is_of_a_file() => return alone(Found::Damaged(error.to_string())),
        Err(error) => return Err(error),
    };
    // The plan's spelling of a model is the one that this experiment's file has; all else is as it was run.
    if CellId::new(&entry.cell, &record.inputs) != entry.id {
        let (plan, id) = (store.root().join("plan.json"), &entry.id);
        let message = format!("`{}` says something else of `{id}` than that cell's file", plan.display());
        return alone(Found::Damaged(message));
    }
    let wanted: Vec<CellId> = entry.parts.iter().map(|part| part.id.clone()).collect();
    let (record, lost) = store.with_items(Record { cell: entry.cell, ..record.only(&wanted) });
    let record = Box::new(record);
    let has = |id: &CellId| record.results.iter().any(|part| part.id == *id);
    let complete = entry.parts.iter().all(|part| part.check || has(&part.id));
    let found = if complete || record.failure.is_some() { Found::Complete(record) } else { Found::Lacking(record) };
    Ok((found, lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_overwrites_another() {
        let section = |names: &[&'static str]| Section {
            tables: names.iter().map(|name| Table::new(*name, ["n"])).collect(),
            ..Section::default()
        };
        let mut sections = [section(&["groups", "summary"]), section(&[]), section(&["structure", "groups"])];
        tell_tables_apart(&mut sections);
        let names: Vec<&str> = sections.iter().flat_map(|section| &section.tables).map(|table| &*table.name).collect();
        assert_eq!(names, ["groups", "summary", "structure", "analysis_groups"]);
        let mut alone = [section(&[]), section(&[]), section(&["groups"])];
        tell_tables_apart(&mut alone);
        assert_eq!(alone[2].tables[0].name, "groups");
    }

    #[test]
    fn long_tables_are_csv_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let mut table = Table::new("t", ["n"]);
        let there =
            || ["csv", "md", "tex"].map(|extension| folder.path().join("tables/t").with_extension(extension).is_file());
        table.rows = (0..200u64).map(|n| vec![n.into()]).collect();
        write_table(&store, &table).unwrap();
        assert_eq!(there(), [true; 3]);
        table.rows.push(vec![200u64.into()]);
        write_table(&store, &table).unwrap();
        assert_eq!(there(), [true, false, false], "what a shorter table left goes");
        let lines = std::fs::read_to_string(folder.path().join("tables/t.csv")).unwrap().lines().count();
        assert_eq!(lines, 202);
        table.rows.truncate(1);
        write_table(&store, &table).unwrap();
        assert_eq!(there(), [true; 3]);
    }
}
