//! A tidy table, and its four forms: CSV with every digit, Markdown, LaTeX and plain text for people.

pub use crate::column::Value;

use super::escape;
use std::borrow::Cow;
use std::fmt::Write;
use std::io;

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The file's name without extension.
    pub name: Cow<'static, str>,
    /// Column names.
    pub columns: Vec<String>,
    /// Rows, each as long as `columns`.
    pub rows: Vec<Vec<Value>>,
}

/// What takes the rows of a table, one after the other.
type Emit<'e> = &'e mut dyn FnMut(&[Value]);

/// A table that may be too long to be held: its rows are made one after the other, whenever they are wanted.
pub struct LongTable {
    /// The file's name without extension.
    pub name: Cow<'static, str>,
    columns: Vec<String>,
    count: usize,
    rows: Box<dyn Fn(Emit<'_>)>,
}

impl LongTable {
    /// A table of `count` rows that a function makes, each as long as `columns`; the same ones every time.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        columns: impl IntoIterator<Item = impl Into<String>>,
        count: usize,
        rows: impl Fn(Emit<'_>) + 'static,
    ) -> Self {
        Self { name: name.into(), columns: columns.into_iter().map(Into::into).collect(), count, rows: Box::new(rows) }
    }

    /// The table as one that is held.
    pub fn held(&self) -> Table {
        let mut table = Table::new(self.name.clone(), self.columns.iter().map(String::as_str));
        (self.rows)(&mut |row| table.rows.push(row.to_vec()));
        table
    }

    /// How many rows it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// As [`Table::csv`] has it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_csv(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let mut writer = csv::Writer::from_writer(to);
        let mut written = writer.write_record(&self.columns);
        (self.rows)(&mut |row| {
            if written.is_ok() {
                written = row.iter().try_for_each(|value| writer.write_field(value.csv().as_bytes()));
                written = std::mem::replace(&mut written, Ok(())).and_then(|()| writer.write_record(None::<&[u8]>));
            }
        });
        written.map_err(io::Error::from)?;
        writer.flush()
    }
}

impl Value {
    /// As a CSV file has it: numbers with every digit, words that no spreadsheet takes for a formula.
    fn csv(&self) -> String {
        match self {
            Self::Text(text) => escape::csv(text).into_owned(),
            Self::Missing | Self::Int(_) | Self::Float(_) => self.to_string(),
        }
    }

    /// As people read it, words in the way that a format writes them.
    fn shown(&self, words: impl Fn(&str) -> String) -> String {
        match self {
            Self::Text(text) => words(text),
            Self::Missing | Self::Int(_) | Self::Float(_) => self.rounded(),
        }
    }

    /// With the digits that a reader needs: five significant ones.
    pub fn rounded(&self) -> String {
        let Self::Float(number) = *self else { return self.to_string() };
        if number == 0.0 {
            return "0".into();
        }
        let magnitude = number.abs().log10().floor() as i32;
        if !(-4..7).contains(&magnitude) {
            return format!("{number:.2e}");
        }
        let digits = usize::try_from(4 - magnitude).unwrap_or(0).min(6);
        let text = format!("{number:.digits$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        }
    }

    fn is_number(&self) -> bool {
        self.number().is_some()
    }
}

impl Table {
    /// A table without rows.
    pub fn new(name: impl Into<Cow<'static, str>>, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { name: name.into(), columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// RFC 4180, with every digit.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let rows = self.rows.iter().map(|row| row.iter().map(Value::csv).collect::<Vec<_>>());
        for row in std::iter::once(self.columns.clone()).chain(rows) {
            writer.write_record(&row).expect("rows are as long as the header, and memory takes all");
        }
        String::from_utf8(writer.into_inner().expect("memory takes all")).expect("fields are UTF-8")
    }

    /// A Markdown table, rounded.
    pub fn markdown(&self) -> String {
        let mut out = format!("| {} |\n|", self.columns.join(" | "));
        for column in 0..self.columns.len() {
            out.push_str(if self.is_numeric(column) { "---:|" } else { "---|" });
        }
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(|value| value.shown(escape::markdown)).collect();
            let _ = write!(out, "\n| {} |", cells.join(" | "));
        }
        out.push('\n');
        out
    }

    /// A `tabular` with the rules of booktabs, rounded.
    pub fn latex(&self) -> String {
        let alignment: String = (0..self.columns.len()).map(|c| if self.is_numeric(c) { 'r' } else { 'l' }).collect();
        let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
        let mut out = format!("% \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{alignment}}}\n\\toprule\n");
        out.push_str(&line(self.columns.iter().map(|name| escape::latex(name)).collect()));
        out.push_str("\\midrule\n");
        for row in &self.rows {
            out.push_str(&line(row.iter().map(|value| value.shown(escape::latex)).collect()));
        }
        out.push_str("\\bottomrule\n\\end{tabular}\n");
        out
    }

    /// Aligned columns for a terminal, rounded.
    pub fn terminal(&self) -> String {
        let shown = |value: &Value| value.shown(|text| Cow::into_owned(escape::line(text)));
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(shown).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let numeric: Vec<bool> = (0..self.columns.len()).map(|column| self.is_numeric(column)).collect();
        let mut out = String::new();
        for row in std::iter::once(&self.columns).chain(&rows) {
            let cells = row.iter().enumerate().map(|(column, cell)| match numeric[column] {
                true => format!("{cell:>width$}", width = widths[column]),
                false => format!("{cell:<width$}", width = widths[column]),
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }

    /// The table without some columns.
    pub fn without(&self, hidden: &[&str]) -> Self {
        let kept: Vec<usize> =
            (0..self.columns.len()).filter(|&column| !hidden.contains(&self.columns[column].as_str())).collect();
        Self {
            name: self.name.clone(),
            columns: kept.iter().map(|&column| self.columns[column].clone()).collect(),
            rows: self.rows.iter().map(|row| kept.iter().map(|&column| row[column].clone()).collect()).collect(),
        }
    }

    /// The table without the columns that hold nothing, or one and the same word.
    pub fn without_constant_columns(mut self, keep: &[&str]) -> Self {
        let dull = |column: usize| {
            let first = self.rows.first().map(|row| &row[column]);
            let constant = self.rows.iter().all(|row| Some(&row[column]) == first);
            !keep.contains(&self.columns[column].as_str()) && constant && !first.is_some_and(Value::is_number)
        };
        let kept: Vec<usize> = (0..self.columns.len()).filter(|&column| !dull(column)).collect();
        self.rows = self.rows.iter().map(|row| kept.iter().map(|&c| row[c].clone()).collect()).collect();
        self.columns = kept.iter().map(|&c| self.columns[c].clone()).collect();
        self
    }

    fn is_numeric(&self, column: usize) -> bool {
        let mut values = self.rows.iter().map(|row| &row[column]).filter(|value| **value != Value::Missing).peekable();
        values.peek().is_some() && values.all(Value::is_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("t", ["setup", "model", "nonzero", "kl_nats"]);
        table.rows.push(vec!["Masked2:4".into(), "a_b".into(), 1_000_000_000u64.into(), Value::Missing]);
        table.rows.push(vec!["CSR, 30 %".into(), "a_b".into(), 7u64.into(), 0.123_456_789.into()]);
        table
    }

    #[test]
    fn csv_is_exact_and_leaves_missing_values_empty() {
        assert_eq!(
            table().csv(),
            "setup,model,nonzero,kl_nats\nMasked2:4,a_b,1000000000,\n\"CSR, 30 %\",a_b,7,0.123456789\n"
        );
    }

    #[test]
    fn people_get_rounded_numbers() {
        assert!(table().markdown().contains("|---|---|---:|---:|\n| Masked2:4 | a_b | 1000000000 |  |"));
        assert!(table().latex().contains("CSR, 30 \\% & a\\_b & 7 & 0.12346 \\\\"), "{}", table().latex());
        let shown = table().without_constant_columns(&[]).terminal();
        assert_eq!(shown.lines().next(), Some("setup         nonzero  kl_nats"));
    }

    #[test]
    fn names_of_others_are_words_in_every_form() {
        let mut table = Table::new("t", ["model", "difference"]);
        for name in ["=HYPERLINK(\"http://x\")", "<b>a</b>|c\n\u{1b}[31m", "[x]"] {
            table.rows.push(vec![name.into(), (-0.5).into()]);
        }
        let csv = table.csv();
        assert!(csv.contains("\"'=HYPERLINK(\"\"http://x\"\")\",-0.5\n"), "{csv}");
        let markdown = table.markdown();
        assert_eq!(markdown.lines().count(), 5, "{markdown}");
        assert!(markdown.contains("| &lt;b&gt;a&lt;/b&gt;\\|c\\\\n\\\\u{1b}\\[31m | -0.5 |"), "{markdown}");
        assert!(table.latex().contains("\n{[}x{]} & -0.5"), "{}", table.latex());
        let terminal = table.terminal();
        assert!(!terminal.contains('\u{1b}') && terminal.lines().count() == 4, "{terminal}");
    }

    #[test]
    fn rounding_keeps_what_matters() {
        let rounded = |number: f64| Value::from(number).rounded();
        assert_eq!([rounded(0.0), rounded(1.0), rounded(477.75), rounded(27.656_789)], ["0", "1", "477.75", "27.657"]);
        assert_eq!(
            [rounded(123_456.7), rounded(1e9), rounded(2e-6), rounded(0.661_354_6)],
            ["123457", "1.00e9", "2.00e-6", "0.66135"]
        );
        assert_eq!(Value::from(f64::NAN), Value::Missing);
    }
}
