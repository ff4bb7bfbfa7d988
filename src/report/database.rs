//! The tables as a database: the `[[query]]` blocks of a plan, and `report --duckdb`.
//!
//! ```text
//!   Table ──load──> one file ──query──> Table ──picture──> Figure
//!            views ──┘   └──────────────> tables.duckdb
//!   program.rs   the program `duckdb`: found, called, stopped
//! ```
//!
//! Owns what is asked of DuckDB, and how. SQL may come from anybody: it runs in a process of its own that has no
//! files, no network, no settings of the user and no environment, on a copy that is thrown away. Knows tables, and
//! neither cells nor what the columns mean.

mod load;
mod picture;
mod program;
mod query;
mod views;

use super::Section;
use super::figure::Figure;
use super::table::Table;
use crate::config::query::Query;
use program::{Program, ProgramError};
use query::Reason;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use thiserror::Error;

/// The file that `report --duckdb` writes.
pub const FILE: &str = "tables.duckdb";
/// The table that lists the queries.
pub(super) const LIST: &str = "queries";

/// Why there is no answer, or no database.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// The program itself.
    #[error("{}: {source}", what(*.queries))]
    Program {
        /// How many queries wait for it.
        queries: usize,
        /// Why.
        source: ProgramError,
    },
    /// A query.
    #[error("query `{id}` of `{file}` {reason}")]
    Query {
        /// Its name.
        id: String,
        /// The experiment file that has it.
        file: String,
        /// Why.
        reason: Reason,
    },
}

/// What the program is needed for.
fn what(queries: usize) -> String {
    match queries {
        0 => format!("`{FILE}` can't be written"),
        1 => "1 query can't be answered".into(),
        queries => format!("{queries} queries can't be answered"),
    }
}

impl DatabaseError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Program { source, .. } => source.hint(),
            Self::Query { reason, .. } => reason.hint(),
        }
    }

    /// Whether the program is missing or can't be used, and no query is at fault.
    pub fn is_of_the_program(&self) -> bool {
        matches!(self, Self::Program { .. })
    }
}

/// What came of the queries.
#[derive(Default)]
pub(super) struct Answers {
    /// Results and their pictures.
    pub section: Section,
    /// What failed.
    pub errors: Vec<DatabaseError>,
    /// The database's bytes, where they were asked for.
    pub file: Option<Vec<u8>>,
}

/// What keeps queries from being asked here, known before they are.
pub fn missing(queries: usize) -> Option<DatabaseError> {
    let source = Program::find().err().filter(|_| queries > 0)?;
    Some(DatabaseError::Program { queries, source })
}

/// The tables that an earlier report made of queries, by its list of them; the list itself is one.
pub(super) fn earlier(list: &[u8]) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(list);
    let ids = reader.records().flatten().filter_map(|row| row.get(0).map(str::to_owned));
    // The folder may be anybody's: what is no name of ours names no file of ours.
    let ours = |id: &String| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    ids.filter(ours).chain([LIST.into()]).collect()
}

/// Asks the queries of an experiment file; with `keep`, gives the database too.
pub(super) fn answers(tables: &[&Table], queries: &[Query], file: &Path, keep: bool) -> Answers {
    let mut answers = Answers::default();
    if queries.is_empty() && !keep {
        return answers;
    }
    let program_error = |source| DatabaseError::Program { queries: queries.len(), source };
    let database = match Program::find().and_then(|program| Database::of(program, tables)) {
        Ok(database) => database,
        Err(source) => return Answers { errors: vec![program_error(source)], ..answers },
    };
    for query in queries {
        let answer = if tables.iter().any(|table| table.name.eq_ignore_ascii_case(&query.id)) || query.id == LIST {
            Err(Reason::Taken)
        } else {
            query::answer(&database, query)
        };
        match answer.and_then(|table| Ok((picture::of(query, &table)?, table))) {
            Ok((figure, table)) => answers.section.add(table, figure),
            Err(reason) => answers.errors.push(DatabaseError::Query {
                id: query.id.clone(),
                file: file.display().to_string(),
                reason,
            }),
        }
    }
    if !queries.is_empty() {
        answers.section.tables.push(list(queries, &answers.section.tables));
    }
    if keep {
        let results: Vec<&Table> = answers.section.tables.iter().collect();
        match database.finish(&results) {
            Ok(bytes) => answers.file = Some(bytes),
            Err(source) => answers.errors.push(program_error(source)),
        }
    }
    answers
}

impl Section {
    fn add(&mut self, table: Table, figure: Option<Figure>) {
        self.figures.extend(figure.map(|figure| (table.name.to_string(), figure)));
        self.tables.push(table);
    }
}

/// What was asked, and how many rows came.
fn list(queries: &[Query], results: &[Table]) -> Table {
    let mut table = Table::new(LIST, ["id", "rows", "sql"]);
    for query in queries {
        let rows = results.iter().find(|table| *table.name == query.id).map(|table| table.rows.len() as u64);
        table.rows.push(vec![query.id.clone().into(), rows.into(), query.sql.clone().into()]);
    }
    table
}

/// A database of tables, in a folder of its own that goes with it.
struct Database {
    program: Program,
    folder: TempDir,
}

/// The database's name in its folder.
const NAME: &str = "tables.duckdb";
const COPY: &str = "copy.duckdb";

impl Database {
    /// Of these tables, and the original's names for them.
    fn of(program: Program, tables: &[&Table]) -> Result<Self, ProgramError> {
        let folder = tempfile::tempdir().map_err(ProgramError::Folder)?;
        let sql =
            load::script(tables, folder.path()).map_err(ProgramError::Folder)? + &views::of(tables) + "CHECKPOINT;\n";
        program.load(folder.path(), NAME, &sql)?;
        Ok(Self { program, folder })
    }

    /// The bytes of a copy that has the results of queries too. A program that was stopped may still hold the original.
    fn finish(&self, results: &[&Table]) -> Result<Vec<u8>, ProgramError> {
        let copy = self.folder.path().join(COPY);
        std::fs::copy(self.path(), &copy).map_err(ProgramError::Folder)?;
        let sql = load::script(results, self.folder.path()).map_err(ProgramError::Folder)? + "CHECKPOINT;\n";
        self.program.load(self.folder.path(), COPY, &sql)?;
        std::fs::read(copy).map_err(ProgramError::Folder)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }
}

#[cfg(test)]
mod tests;
