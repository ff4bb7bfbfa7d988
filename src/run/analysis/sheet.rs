//! Rows of tables as they are made.

use crate::analysis::Spy;
use crate::record::{AnalysisNumbers, Entry, Picture, StoredTable, columns_of};

/// A row of values of any kind.
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$(crate::record::Entry::from($value)),*] };
}
pub(super) use row;

/// The numbers of a cell on their way.
#[derive(Default)]
pub(super) struct Sheet(pub AnalysisNumbers);

impl Sheet {
    /// Adds a row of a table, of one source.
    ///
    /// # Panics
    /// When it has another number of values than the table has columns.
    pub fn push(&mut self, name: &'static str, source: usize, row: Vec<Entry>) {
        assert_eq!(row.len(), columns_of(name).count(), "the columns of `{name}`");
        let tables = &mut self.0.tables;
        let known = tables.iter().position(|table| table.name == name && table.source == source);
        let at = known.unwrap_or_else(|| {
            let columns = columns_of(name).map(str::to_owned).collect();
            tables.push(StoredTable { name: name.into(), source, columns, rows: Vec::new() });
            tables.len() - 1
        });
        tables[at].rows.push(row);
    }

    /// Adds a picture; `of` is the matrix's shape.
    pub fn picture(
        &mut self,
        source: usize,
        order: String,
        spy: &Spy,
        of: [usize; 2],
        transposed: bool,
        marginals: bool,
    ) {
        let marginal = |along: &[f64]| if marginals { along.to_vec() } else { Vec::new() };
        self.0.pictures.push(Picture {
            source,
            order,
            width: spy.width,
            height: spy.height,
            rows: of[0],
            cols: of[1],
            transposed,
            pixels: Picture::digits(&spy.density),
            row_marginal: marginal(&spy.row_marginal),
            col_marginal: marginal(&spy.col_marginal),
        });
    }

    /// Adds what a reader is to know, once.
    pub fn note(&mut self, note: String) {
        if !self.0.notes.contains(&note) {
            self.0.notes.push(note);
        }
    }
}
