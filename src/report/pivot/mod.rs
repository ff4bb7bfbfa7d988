//! Pivots: tables for a paper, and for the terminal.
//!
//! ```text
//!   Table + PivotSpec ──Tidy──> rows that are wanted ──sort into──> Pivot   rows × columns of Entry
//!                                                                    │      Entry: mean, sd, seeds, standing
//!                                                                    └──forms.rs──> .tex  .md  .csv  terminal
//! ```
//! The dense model is a reference: it has no method and no sparsity, so it stands in every place that agrees with it in
//! all else, first and outside the competition. Two numbers that fall into one place differ in nothing but the seed, or
//! in the variant where variants of a point share the number; anything else is refused, since a mean of different things
//! says nothing. Knows tables and no kind of work.

mod forms;
mod standing;
#[cfg(test)]
mod tests;
mod tidy;

pub use forms::{MADE, Mark, Marked};
pub use standing::{Rank, Standing};

use super::stats::LEAST_SEEDS;
use super::table::Table;
use crate::config::experiment::PivotSpec;
use std::collections::HashMap;
use thiserror::Error;
use tidy::{Place, Tidy};

/// Why a pivot can't be made.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum PivotError {
    /// There is no such tidy table.
    #[error("`table` `{id}`: there is no table `{from}` in this report")]
    NoTable {
        /// The pivot.
        id: String,
        /// The tidy table.
        from: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The tidy table lacks a column.
    #[error("`table` `{id}`: `{from}` has no column `{column}`")]
    NoColumn {
        /// The pivot.
        id: String,
        /// The tidy table.
        from: String,
        /// The column.
        column: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// The column that is shown has words.
    #[error("`table` `{id}`: `{column}` of `{from}` is no number: `{found}`")]
    NoNumber {
        /// The pivot.
        id: String,
        /// The tidy table.
        from: String,
        /// The column.
        column: String,
        /// What is there.
        found: String,
    },
    /// A condition holds nowhere.
    #[error("`table` `{id}`: no row of `{from}` has `{column} = {value}`")]
    NoRow {
        /// The pivot.
        id: String,
        /// The tidy table.
        from: String,
        /// The column.
        column: String,
        /// The value.
        value: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No row meets all conditions, or none has a number.
    #[error("`table` `{id}`: no row of `{from}` that is wanted has a number in `{column}`")]
    Empty {
        /// The pivot.
        id: String,
        /// The tidy table.
        from: String,
        /// The column.
        column: String,
    },
    /// Numbers of different things in one place.
    #[error("`table` `{id}`: at `{place}` there are numbers that differ in {}", list(.differ))]
    Ambiguous {
        /// The pivot.
        id: String,
        /// Where.
        place: String,
        /// The columns in which they differ, each with its values.
        differ: Vec<(String, Vec<String>)>,
    },
    /// More places than anybody reads.
    #[error("`table` `{id}` would have {rows} rows and {columns} columns, more than {MOST_PLACES} places")]
    TooLarge {
        /// The pivot.
        id: String,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
}

/// The most places of a pivot.
const MOST_PLACES: usize = 10_000;

/// What a value that is missing is called.
const NOTHING: &str = "nothing";

/// The first column that has a value everywhere; if there is none, the first.
fn told_apart(differ: &[(String, Vec<String>)]) -> Option<&(String, Vec<String>)> {
    differ.iter().find(|(_, values)| values.iter().all(|value| value != NOTHING)).or(differ.first())
}

fn list(differ: &[(String, Vec<String>)]) -> String {
    let one = |(column, values): &(String, Vec<String>)| format!("`{column}` ({})", values.join(", "));
    match differ {
        [] => "something that the tidy table has no column for".into(),
        differ => differ.iter().map(one).collect::<Vec<_>>().join(" and "),
    }
}

impl PivotError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let shown = |known: &[String]| known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match self {
            Self::NoTable { known, .. } => Some(format!("it has {}", shown(known))),
            Self::NoColumn { known, .. } => Some(format!("it has {}", shown(known))),
            Self::NoNumber { .. } => Some("name a column of numbers in `value`".into()),
            Self::NoRow { column, known, .. } => Some(format!("`{column}` has {}", shown(known))),
            Self::Empty { .. } => Some("look at the tidy table, and at `where`".into()),
            // A column that is empty somewhere can't be told by `where`, so another one is better.
            Self::Ambiguous { differ, .. } => Some(match told_apart(differ) {
                Some((column, values)) => {
                    let value = values.first().map_or("VALUE", String::as_str);
                    format!("add `{column}` to `rows` or `columns`, or write `where = {{ {column} = \"{value}\" }}`")
                }
                None => "make one experiment file of each, or take one of them out".into(),
            }),
            Self::TooLarge { .. } => Some("head it by fewer columns, or narrow it by `where`".into()),
        }
    }
}

/// What stands in a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The mean over seeds.
    pub mean: f64,
    /// The standard deviation over seeds, of two at least.
    pub sd: Option<f64>,
    /// Numbers that it is the mean of.
    pub seeds: usize,
    /// How it stands among those that it competes with.
    pub standing: Standing,
}

/// A heading: the words of every key, from the outermost to the innermost.
pub type Heading = Vec<String>;

/// A pivot.
#[derive(Clone, Debug, PartialEq)]
pub struct Pivot {
    /// The name of its files.
    pub id: String,
    /// What its numbers are.
    pub value: String,
    /// The names of the keys whose values head the rows.
    pub row_keys: Vec<String>,
    /// The headings of the rows, those of one outer value together.
    pub rows: Vec<Heading>,
    /// Which of the rows are the dense model.
    pub references: Vec<bool>,
    /// The headings of the columns; one without words where nothing heads them.
    pub columns: Vec<Heading>,
    /// A row of entries for each of `rows`; what was not measured is missing.
    pub entries: Vec<Vec<Option<Entry>>>,
    /// Digits behind the point.
    pub digits: usize,
    /// Whether any spread over seeds is seen at so many digits.
    pub shows_sd: bool,
    /// What its marks mean, and what to keep in mind.
    pub notes: Vec<String>,
}

/// Points of one method that differ in their settings, by their cells: what a reader calls them.
pub type PointNames = HashMap<String, String>;

/// Makes the pivot.
///
/// # Errors
/// When the tables lack something that it names, or numbers of different things fall into one place.
pub fn pivot(spec: &PivotSpec, tables: &[&Table], names: &PointNames) -> Result<Pivot, PivotError> {
    let table = tables.iter().find(|table| table.name == spec.from).ok_or_else(|| PivotError::NoTable {
        id: spec.id.clone(),
        from: spec.from.clone(),
        known: tables.iter().map(|table| table.name.to_string()).collect(),
    })?;
    let tidy = Tidy::new(spec, table, names)?;
    let [rows, columns] = tidy.headings();
    if rows.len().saturating_mul(columns.len()) > MOST_PLACES {
        return Err(PivotError::TooLarge { id: spec.id.clone(), rows: rows.len(), columns: columns.len() });
    }
    let places = tidy.places(&rows, &columns)?;
    let standings = standing::standings(spec, &rows, &columns, &places);
    let entry = |(place, standing): (&Option<Place>, &Standing)| {
        let sample = &place.as_ref()?.sample;
        let sd = sample.sd().filter(|_| sample.seeds() > 1);
        Some(Entry { mean: sample.mean()?, sd, seeds: sample.seeds(), standing: *standing })
    };
    let entries: Vec<Vec<Option<Entry>>> = places
        .iter()
        .zip(&standings)
        .map(|(places, standings)| places.iter().zip(standings).map(entry).collect())
        .collect();
    let is_reference = |places: &Vec<Option<Place>>| {
        let mut there = places.iter().flatten().peekable();
        there.peek().is_some() && there.all(|place| place.reference)
    };
    let of_others = places.iter().flatten().zip(entries.iter().flatten());
    let of_others = of_others.filter(|(place, _)| place.as_ref().is_some_and(|place| !place.reference));
    let digits =
        spec.digits.unwrap_or_else(|| forms::digits(&of_others.filter_map(|(_, e)| e.as_ref()).collect::<Vec<_>>()));
    let sds = || entries.iter().flatten().flatten().filter_map(|entry| entry.sd);
    let shows_sd = sds().any(|sd| forms::is_seen(sd, digits));
    let mut notes = notes(&entries, &places);
    if sds().next().is_some() && !shows_sd {
        notes[0] = "means over seeds, whose spread is too small to be seen".into();
    }
    Ok(Pivot {
        id: spec.id.clone(),
        value: spec.value.clone(),
        row_keys: spec.rows.clone(),
        references: places.iter().map(is_reference).collect(),
        rows: tidy.labels(0, &rows),
        columns: tidy.labels(1, &columns),
        digits,
        shows_sd,
        notes,
        entries,
    })
}

/// What the marks of a pivot mean, and how many seeds there are.
fn notes(entries: &[Vec<Option<Entry>>], places: &[Vec<Option<Place>>]) -> Vec<String> {
    let mut notes = Vec::new();
    let seeds: Vec<usize> =
        entries.iter().flatten().flatten().filter(|entry| entry.sd.is_some()).map(|e| e.seeds).collect();
    if let (Some(least), Some(most)) = (seeds.iter().min(), seeds.iter().max()) {
        let count = if least == most { least.to_string() } else { format!("{least} to {most}") };
        notes.push(format!("mean ± standard deviation over {count} seeds"));
    }
    if entries.iter().flatten().flatten().any(|entry| entry.standing.near) {
        notes
            .push("† not told apart from the best: the difference is within the spread over seeds, or p ≥ 0.05".into());
    }
    let ranked = entries.iter().flatten().flatten().any(|entry| entry.standing.place.is_some());
    let few = places.iter().flatten().flatten().any(|place| !place.reference && place.sample.too_few());
    if ranked && few {
        notes.push(format!("fewer than {LEAST_SEEDS} seeds: whether a difference is chance is not said"));
    }
    notes
}
