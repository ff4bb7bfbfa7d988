//! The tables of two folders, row by row.
//!
//! A row is known by its key columns, of rows with equal keys the first is the first. What is derived from times alone is
//! left out of it where both were measured, and is equal like all else where both come from the same cells.

use super::compare::{Arithmetic, Compared, Entry};
use super::record::ItemVerdict;
use crate::plan::Task;
use crate::record::{Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Columns that tell rows apart beside the key columns of cells.
const MORE_KEYS: [&str; 14] = [
    "phase",
    "batch",
    "tokens",
    "module_name",
    "group",
    "analysis",
    "source",
    "layer",
    "role",
    "module",
    "feature_axis",
    "metric",
    "a",
    "b",
];

/// A cell's name follows from the digests of its inputs, which are compared before.
const NAME: &str = "cell";

/// Tables that say nothing but what follows from times.
const OF_TIMES: [&str; 1] = ["break_even"];

/// The names of a folder's tables, in order.
pub(super) fn names(store: &Store) -> Vec<String> {
    let mut names = store.stems(Path::new("tables"), "csv");
    // Made of times, and only where somebody asks for it.
    names.retain(|name| name != "profile");
    names.sort();
    names
}

/// The words of a column, wherever a table has it, each once.
pub(super) fn words(store: &Store, column: &str) -> Vec<String> {
    let mut words = Vec::new();
    for table in names(store).iter().filter_map(|name| Sheet::read(store, name)) {
        let Some(at) = table.columns.iter().position(|name| name == column) else { continue };
        for row in table.rows {
            if !row[at].is_empty() && !words.contains(&row[at]) {
                words.push(row[at].clone());
            }
        }
    }
    words
}

/// Copies a folder's plan and cells, as they are.
pub(super) fn copy_cells(from: &Store, to: &Store) -> Result<(), StoreError> {
    let cells = from.ids().into_iter().map(|id| Path::new("cells").join(format!("{id}.json")));
    copy(from, to, std::iter::once("plan.json".into()).chain(cells))
}

/// Copies a folder's pixels: a report draws those again that do not show what it draws, which takes a while.
pub(super) fn copy_pixels(from: &Store, to: &Store) -> Result<(), StoreError> {
    let folder = Path::new("plots");
    copy(from, to, from.stems(folder, "png").into_iter().map(|name| folder.join(format!("{name}.png"))))
}

fn copy(from: &Store, to: &Store, files: impl Iterator<Item = PathBuf>) -> Result<(), StoreError> {
    for path in files {
        if let Some(bytes) = from.bytes(&path) {
            to.write(&path, &bytes)?;
        }
    }
    Ok(())
}

/// A table as its CSV file has it.
struct Sheet {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Sheet {
    fn read(store: &Store, name: &str) -> Option<Self> {
        let bytes = store.bytes(&file(name))?;
        let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(&bytes[..]);
        let columns = reader.headers().ok()?.iter().map(str::to_owned).collect();
        let fields = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
        let rows = reader.records().map(|row| row.map(fields)).collect::<Result<_, _>>().ok()?;
        Some(Self { columns, rows })
    }

    fn at(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|name| name == column)
    }

    /// The rows with their keys; the number of a row among those of its key is a part of it.
    fn keyed(&self, keys: &[&str]) -> Vec<(String, &Vec<String>)> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let places: Vec<usize> = keys.iter().filter_map(|key| self.at(key)).collect();
        let key = |row: &Vec<String>| {
            let words: Vec<&str> = places.iter().map(|at| row[*at].as_str()).filter(|word| !word.is_empty()).collect();
            words.join(" ")
        };
        let mut keyed = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let key = key(row);
            let count = counts.entry(key.clone()).or_insert(0);
            *count += 1;
            keyed.push((if *count == 1 { key } else { format!("{key} #{count}") }, row));
        }
        keyed
    }
}

/// Compares all tables of a folder with those of another, which has `part` of the cells only, or all.
pub(super) fn compare(recorded: &Store, now: &Store, arithmetic: &Arithmetic, part: bool) -> Vec<ItemVerdict> {
    let mut verdicts = Vec::new();
    for name in names(recorded).iter().filter(|name| !OF_TIMES.contains(&name.as_str())) {
        let path = file(name).display().to_string();
        let mut compared = Compared::default();
        match (Sheet::read(recorded, name), Sheet::read(now, name)) {
            // What is put together from several cells is another thing of fewer of them.
            (Some(then), _) if part && then.at(NAME).is_none() => {}
            (Some(_), None) if part => {}
            (Some(then), Some(now)) => rows(&mut compared, &then, &now, arithmetic, part),
            (Some(_), None) => compared.one_sided(path.clone(), "a table", "no such table"),
            (None, _) => compared.one_sided(path.clone(), "no table that can be read", "a table"),
        }
        if compared.counts.compared() + compared.counts.timings > 0 {
            verdicts.push(ItemVerdict::of(&path, "table", compared));
        }
    }
    verdicts
}

fn rows(compared: &mut Compared, then: &Sheet, now: &Sheet, arithmetic: &Arithmetic, part: bool) {
    let mut keys: Vec<&str> = Task::key_columns().into_iter().map(|(name, _)| name).chain(MORE_KEYS).collect();
    keys.retain(|key| *key != NAME && then.at(key).is_some() && now.at(key).is_some());
    let (recorded, again) = (then.keyed(&keys), now.keyed(&keys));
    let found: HashMap<&str, &Vec<String>> = again.iter().map(|(key, row)| (key.as_str(), *row)).collect();
    let known: HashSet<&str> = recorded.iter().map(|(key, _)| key.as_str()).collect();
    for (key, _) in again.iter().filter(|(key, _)| !known.contains(key.as_str())) {
        compared.one_sided(format!("row {key}"), "nothing", "there");
    }
    for (key, row) in &recorded {
        let Some(again) = found.get(key.as_str()) else {
            if !part {
                compared.one_sided(format!("row {key}"), "there", "nothing");
            }
            continue;
        };
        for (column, field) in then.columns.iter().zip(*row).filter(|(column, _)| *column != NAME) {
            let place = || format!("{column} of {key}");
            match now.at(column) {
                Some(at) => {
                    compared.entry(column, place, &Entry::of_field(field), &Entry::of_field(&again[at]), arithmetic);
                }
                None => compared.one_sided(place(), field, "no such column"),
            }
        }
    }
}

/// Compares the files that follow from the cells alone with those that the cells give, byte by byte.
pub(super) fn own_files(recorded: &Store, now: &Store) -> Vec<ItemVerdict> {
    let mut verdicts = Vec::new();
    for (folder, extension) in
        [("tables", "csv"), ("tables", "md"), ("tables", "tex"), ("plots", "csv"), ("plots", "svg")]
    {
        let mut stems = recorded.stems(Path::new(folder), extension);
        stems.sort();
        for stem in stems {
            let path = Path::new(folder).join(format!("{stem}.{extension}"));
            let Some(bytes) = now.bytes(&path) else { continue };
            let mut compared = Compared::default();
            match recorded.bytes(&path) == Some(bytes) {
                true => compared.counts.equal += 1,
                false => compared.one_sided(path.display().to_string(), "the file", "not what the folder's cells give"),
            }
            verdicts.push(ItemVerdict::of(&path.display().to_string(), "file", compared));
        }
    }
    verdicts
}

fn file(name: &str) -> PathBuf {
    Path::new("tables").join(format!("{name}.csv"))
}
