//! The page of columns, `docs/columns.md`: what each column of a table says, from the lists that the tables are made of.

use crate::column::Column;
use std::borrow::Cow;
use std::fmt::Write;

/// A table's columns with what they say.
pub(super) struct Columns {
    /// The table's heading on the page.
    pub heading: Cow<'static, str>,
    /// Name and help of each.
    pub columns: Vec<(&'static str, &'static str)>,
}

impl Columns {
    /// Of a list of columns.
    pub(super) fn of<T>(heading: &'static str, columns: &[Column<T>]) -> Self {
        Self { heading: heading.into(), columns: columns.iter().map(|column| (column.name, column.help)).collect() }
    }
}

/// The page, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Columns\n\nMade by `sparsify-exp schema columns` from the lists that tables are made of; a test keeps it current. A \
         missing value is empty, never 0. How the numbers are defined: [`outputs.md`](outputs.md).\n",
    );
    for Columns { heading, columns } in super::COLUMNS.iter().flat_map(|columns| columns()) {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## {heading}\n\n| column | what it says |\n|---|---|\n");
        for (name, help) in columns {
            let _ = writeln!(page, "| `{name}` | {} |", help.replace('|', "\\|"));
        }
    }
    page
}
