//! The forms of a pivot: LaTeX, Markdown, CSV and the terminal.

use super::{Entry, Pivot, Rank};
use crate::report::escape;
use crate::report::stats::median;
use crate::report::table::{Table, Value};
use std::fmt::Write;

/// What the `.tex` of a pivot begins with.
pub const MADE: &str = "% made by sparsify-exp from `[[table]]`";

/// What an entry is marked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Best.
    pub bold: bool,
    /// Second.
    pub underlined: bool,
    /// Not told apart from the best.
    pub dagger: bool,
}

/// A pivot as a page has it: words, daggers among them, and how each entry is set.
pub struct Marked {
    /// Its columns are those of the headings, then those of the entries.
    pub table: Table,
    /// How many columns head a row.
    pub headings: usize,
    /// Of every row a mark for each entry.
    pub marks: Vec<Vec<Mark>>,
}

impl Entry {
    /// What it is marked by.
    pub fn mark(&self) -> Mark {
        let is = |rank| self.standing.place == Some(rank);
        Mark { bold: is(Rank::Best), underlined: is(Rank::Second), dagger: self.standing.near }
    }

    /// Mean and spread in words, without marks: `63.46 ± 0.04`.
    fn words(&self, pivot: &Pivot) -> String {
        let digits = pivot.digits;
        match self.sd.filter(|_| pivot.shows_sd) {
            Some(sd) => format!("{} ± {}", number(self.mean, digits), number(sd, digits)),
            None => number(self.mean, digits),
        }
    }
}

/// With so many digits behind the point; what has too many in front of it as a power of ten.
fn number(value: f64, digits: usize) -> String {
    if value.abs() < 1e9 { format!("{value:.digits$}") } else { format!("{value:.2e}") }
}

/// Digits behind the point that tell the numbers apart, of the number in the middle: none of counts, two up to 1000, and
/// of numbers below 1 three that are not zero.
pub(super) fn digits(entries: &[&Entry]) -> usize {
    let all = || entries.iter();
    if all().all(|entry| entry.mean.fract() == 0.0 && entry.sd.is_none_or(|sd| sd == 0.0)) {
        return 0;
    }
    let sizes: Vec<f64> = all().map(|entry| entry.mean.abs()).filter(|size| *size > 0.0).collect();
    let middle = median(&sizes);
    match middle {
        _ if middle >= 1e5 => 0,
        _ if middle >= 1e3 => 1,
        _ if middle >= 1.0 => 2,
        _ if middle > 0.0 => ((2.0 - middle.log10().floor()) as usize).min(9),
        _ => 2,
    }
}

/// Whether a spread is seen at so many digits.
pub(super) fn is_seen(sd: f64, digits: usize) -> bool {
    number(sd, digits).chars().any(|c| c.is_ascii_digit() && c != '0')
}

impl Pivot {
    /// Headings of columns, one line a key, runs of equal words together: the word and how many columns it spans.
    pub fn header(&self) -> Vec<Vec<(String, usize)>> {
        let keys = self.columns.first().map_or(0, Vec::len);
        let same = |a: usize, b: usize, key: usize| self.columns[a][..=key] == self.columns[b][..=key];
        (0..keys)
            .map(|key| {
                let mut line: Vec<(String, usize)> = Vec::new();
                for column in 0..self.columns.len() {
                    match line.last_mut().filter(|_| column > 0 && same(column - 1, column, key)) {
                        Some((_, span)) => *span += 1,
                        None => line.push((self.columns[column][key].clone(), 1)),
                    }
                }
                line
            })
            .collect()
    }

    /// The words that head a row: what the row above says already is left out, but for the last.
    pub fn row_words(&self, row: usize) -> Vec<&str> {
        let words = &self.rows[row];
        let said = |key: usize| row > 0 && key + 1 < words.len() && self.rows[row - 1][..=key] == words[..=key];
        words.iter().enumerate().map(|(key, word)| if said(key) { "" } else { word }).collect()
    }

    /// Whether a rule goes above a row: behind the dense model, and where an outer key changes.
    fn rule_above(&self, row: usize) -> bool {
        let Some(above) = row.checked_sub(1) else { return false };
        let outer = self.rows[row].len().saturating_sub(1);
        self.rows[above][..outer.min(1)] != self.rows[row][..outer.min(1)]
            || (self.references[above] && !self.references[row])
    }

    /// The names of the columns, for forms with one line of them.
    fn flat_columns(&self) -> Vec<String> {
        let name = |heading: &Vec<String>| if heading.is_empty() { self.value.clone() } else { heading.join(", ") };
        self.columns.iter().map(name).collect()
    }

    /// RFC 4180: of every column mean, standard deviation, seeds and mark, with every digit.
    pub fn csv(&self) -> String {
        let names = self.flat_columns();
        let parts = names.iter().flat_map(|name| ["", " sd", " seeds", " mark"].map(|part| format!("{name}{part}")));
        let mut table = Table::new(self.id.clone(), self.row_keys.iter().cloned().chain(parts));
        for (heading, entries) in self.rows.iter().zip(&self.entries) {
            let mut row: Vec<Value> = heading.iter().map(|word| word.as_str().into()).collect();
            for entry in entries {
                row.extend(match entry {
                    Some(entry) => {
                        [entry.mean.into(), entry.sd.into(), entry.seeds.into(), mark_word(entry.mark()).into()]
                    }
                    None => [const { Value::Missing }; 4],
                });
            }
            table.rows.push(row);
        }
        table.csv()
    }

    /// As a table for a page, whose name is what it shows.
    pub fn marked(&self) -> Marked {
        let name = format!("{}: {}", self.id, self.caption());
        let mut table = Table::new(name, self.row_keys.iter().cloned().chain(self.flat_columns()));
        for (heading, entries) in self.rows.iter().zip(&self.entries) {
            let entries = entries.iter().map(|entry| {
                let Some(entry) = entry else { return Value::Missing };
                let dagger = if entry.mark().dagger { "†" } else { "" };
                format!("{}{dagger}", entry.words(self)).into()
            });
            table.rows.push(heading.iter().map(|word| word.as_str().into()).chain(entries).collect());
        }
        let mark = |entry: &Option<Entry>| entry.as_ref().map(Entry::mark).unwrap_or_default();
        let marks = self.entries.iter().map(|entries| entries.iter().map(mark).collect()).collect();
        Marked { table, headings: self.row_keys.len(), marks }
    }

    /// Markdown: bold, `<u>` and a dagger.
    pub fn markdown(&self) -> String {
        let keys: Vec<String> = self.row_keys.iter().map(|key| escape::markdown(key)).collect();
        let names: Vec<String> = self.flat_columns().iter().map(|name| escape::markdown(name)).collect();
        let mut out = format!("| {} |\n|", [keys, names].concat().join(" | "));
        out.push_str(&"---|".repeat(self.row_keys.len()));
        out.push_str(&"---:|".repeat(self.columns.len()));
        for (row, entries) in self.entries.iter().enumerate() {
            let words = self.row_words(row).into_iter().map(escape::markdown);
            let entries = entries.iter().map(|entry| entry.as_ref().map_or("–".into(), |e| self.markdown_entry(e)));
            let _ = write!(out, "\n| {} |", words.chain(entries).collect::<Vec<_>>().join(" | "));
        }
        let _ = writeln!(out, "\n\n{}", escape::markdown(&self.caption()));
        out
    }

    fn markdown_entry(&self, entry: &Entry) -> String {
        let (words, mark) = (entry.words(self), entry.mark());
        let words = match (mark.bold, mark.underlined) {
            (true, _) => format!("**{words}**"),
            (false, true) => format!("<u>{words}</u>"),
            (false, false) => words,
        };
        if mark.dagger { words + "†" } else { words }
    }

    /// What it shows, in a sentence or two.
    pub fn caption(&self) -> String {
        let mut parts = vec![self.value.clone()];
        parts.extend(self.notes.iter().cloned());
        let marked = |is: fn(Mark) -> bool| self.entries.iter().flatten().flatten().any(|entry| is(entry.mark()));
        if marked(|mark| mark.bold) {
            parts.insert(1.min(parts.len()), "best in bold, second underlined".into());
        }
        parts.join("; ")
    }

    /// A `tabular` with the rules of booktabs.
    pub fn latex(&self) -> String {
        let keys = self.row_keys.len();
        let mut out = format!("{MADE}\n% \\usepackage{{booktabs}}\n% {}\n", symbols(&escape::latex(&self.caption())));
        let _ =
            writeln!(out, "\\begin{{tabular}}{{{}{}}}\n\\toprule", "l".repeat(keys), "r".repeat(self.columns.len()));
        let header = self.header();
        if header.is_empty() {
            let _ = writeln!(out, "{} \\\\", self.latex_keys(true) + " & " + &latex_name(&self.value));
        }
        for (level, line) in header.iter().enumerate() {
            let last = level + 1 == header.len();
            let words: Vec<String> = line.iter().map(|(word, span)| head(word, *span, last)).collect();
            let _ = writeln!(out, "{} & {} \\\\", self.latex_keys(last), words.join(" & "));
            if !last {
                out.push_str(&rules(keys, line));
            }
        }
        out.push_str("\\midrule\n");
        for (row, entries) in self.entries.iter().enumerate() {
            if self.rule_above(row) {
                out.push_str("\\midrule\n");
            }
            let words = self.row_words(row).into_iter().map(latex_name);
            let entries = entries.iter().map(|entry| entry.as_ref().map_or("--".into(), |e| self.latex_entry(e)));
            let _ = writeln!(out, "{} \\\\", words.chain(entries).collect::<Vec<_>>().join(" & "));
        }
        out.push_str("\\bottomrule\n\\end{tabular}\n");
        out
    }

    /// The keys of the rows, in the header's last line; room for them in the others.
    fn latex_keys(&self, last: bool) -> String {
        let name = |key: &String| if last { latex_name(key) } else { String::new() };
        self.row_keys.iter().map(name).collect::<Vec<_>>().join(" & ")
    }

    fn latex_entry(&self, entry: &Entry) -> String {
        let (words, mark) = (symbols(&entry.words(self)), entry.mark());
        let words = match (mark.bold, mark.underlined) {
            (true, _) => format!("\\textbf{{{words}}}"),
            (false, true) => format!("\\underline{{{words}}}"),
            (false, false) => words,
        };
        if mark.dagger { words + "\\rlap{$^{\\dagger}$}" } else { words }
    }

    /// Aligned columns for a terminal: `*` behind the best, `+` behind the second.
    pub fn terminal(&self) -> String {
        let keys = self.row_keys.len();
        let mut lines: Vec<Vec<String>> = Vec::new();
        let header = self.header();
        for (level, line) in header.iter().enumerate() {
            let last = level + 1 == header.len();
            let mut words: Vec<String> =
                self.row_keys.iter().map(|key| if last { key.clone() } else { String::new() }).collect();
            for (word, span) in line {
                words.push(escape::line(word).into_owned());
                words.extend(vec![String::new(); span - 1]);
            }
            lines.push(words);
        }
        if header.is_empty() {
            lines.push(self.row_keys.iter().cloned().chain([self.value.clone()]).collect());
        }
        for (row, entries) in self.entries.iter().enumerate() {
            let words = self.row_words(row).into_iter().map(|word| escape::line(word).into_owned());
            let entries = entries.iter().map(|entry| entry.as_ref().map_or("–".into(), |e| self.terminal_entry(e)));
            lines.push(words.chain(entries).collect());
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..keys + self.columns.len()).map(width).collect();
        let mut out = format!("{}\n", escape::line(&self.terminal_caption()));
        for line in &lines {
            let cells = line.iter().enumerate().map(|(column, cell)| match column >= keys {
                true => format!("{cell:>width$}", width = widths[column]),
                false => format!("{cell:<width$}", width = widths[column]),
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }

    fn terminal_caption(&self) -> String {
        self.caption().replace("best in bold, second underlined", "* best, + second")
    }

    fn terminal_entry(&self, entry: &Entry) -> String {
        let mark = entry.mark();
        // A place for each mark, so that the points stand below each other.
        let rank = match (mark.bold, mark.underlined) {
            (true, _) => "*",
            (false, true) => "+",
            (false, false) => "",
        };
        let dagger = if mark.dagger { "†" } else { "" };
        let ranked = self.entries.iter().flatten().flatten().any(|entry| entry.standing.place.is_some());
        let words = entry.words(self);
        if ranked { format!("{words} {:<2}", format!("{rank}{dagger}")) } else { words }
    }
}

/// A mark in words.
fn mark_word(mark: Mark) -> Option<&'static str> {
    match (mark.bold, mark.underlined, mark.dagger) {
        (true, ..) => Some("best"),
        (false, true, true) => Some("second, not told apart"),
        (false, true, false) => Some("second"),
        (false, false, true) => Some("not told apart"),
        (false, false, false) => None,
    }
}

/// A name of ours or of others in LaTeX, with a thin space before a percent sign.
fn latex_name(name: &str) -> String {
    escape::latex(name).replace(" \\%", "\\,\\%")
}

/// Our signs as LaTeX has them without a package.
fn symbols(text: &str) -> String {
    text.replace('±', "$\\pm$").replace('†', "$\\dagger$").replace('≥', "$\\geq$").replace('–', "--")
}

/// A heading over some columns.
fn head(word: &str, span: usize, last: bool) -> String {
    match (span, last) {
        (1, true) => latex_name(word),
        _ => format!("\\multicolumn{{{span}}}{{c}}{{{}}}", latex_name(word)),
    }
}

/// The rules below headings over several columns.
fn rules(keys: usize, line: &[(String, usize)]) -> String {
    let mut out = String::new();
    let mut first = keys + 1;
    for (_, span) in line {
        let _ = write!(out, "\\cmidrule(lr){{{first}-{}}}", first + span - 1);
        first += span;
    }
    out.push('\n');
    out
}
