//! Where an export goes: whether a folder may be made there, or the one that is there replaced.
//!
//! Only what `export` wrote is ever replaced: a folder with its origin file, in which nothing lies but files that the
//! origin lists. What people put beside them is theirs. Knows names of files and nothing of what is in a checkpoint.

use super::export_error::{DENSE_FILE, ExportError, ORIGIN_FILE};
use crate::input;
use crate::load::weights::SPARSE_FILE;
use crate::load::{COMPANIONS, Companion, ModelFiles};
use serde_json::Value;
use std::path::Path;

/// The key of the origin file that lists the files of the export.
pub(super) const FILES: &str = "files";

/// Whether the folder may be made or replaced.
///
/// # Errors
/// When it may not.
pub(super) fn free(to: &Path, overwrite: bool, model: &ModelFiles) -> Result<(), ExportError> {
    if to.file_name().is_none() {
        return Err(ExportError::NoName(to.into()));
    }
    let entries = match std::fs::read_dir(to) {
        Ok(entries) => entries,
        Err(_) if !to.exists() => return Ok(()),
        Err(_) => return Err(ExportError::Occupied(to.into())),
    };
    let here = |path: &Path| std::fs::canonicalize(path).ok();
    if model.folder().is_some_and(|folder| here(folder) == here(to)) {
        return Err(ExportError::Source(to.into()));
    }
    let unknown = |_| ExportError::Occupied(to.into());
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unknown)?;
        // A link or a folder of the right name is not what was written either.
        let plain = entry.file_type().map_err(unknown)?.is_file();
        files.push((entry.file_name().to_string_lossy().into_owned(), plain));
    }
    if files.is_empty() {
        return Ok(());
    }
    let written = written(to).ok_or_else(|| ExportError::Occupied(to.into()))?;
    let mut foreign: Vec<String> =
        files.into_iter().filter(|(name, plain)| !plain || !written.contains(name)).map(|(name, _)| name).collect();
    foreign.sort_unstable();
    match (foreign.is_empty(), overwrite) {
        (_, false) => Err(ExportError::Exists(to.into())),
        (false, true) => Err(ExportError::Foreign { folder: to.into(), files: foreign }),
        (true, true) => Ok(()),
    }
}

/// The files that an export wrote into a folder; none where the folder is no export.
fn written(folder: &Path) -> Option<Vec<String>> {
    let origin: Value = serde_json::from_slice(&input::read(&folder.join(ORIGIN_FILE), input::SMALL).ok()?).ok()?;
    let ours = ["model", "prune", "format", "program"].iter().all(|key| origin.get(key).is_some_and(|v| !v.is_null()));
    // A file that anybody may have edited: it can name no file but those that exports have.
    let possible = COMPANIONS.iter().chain([&DENSE_FILE, &SPARSE_FILE, &ORIGIN_FILE]).map(|name| (*name).to_owned());
    let listed = origin.get(FILES).and_then(Value::as_array);
    let is_listed = |name: &String| {
        // Exports from before there was a list.
        let Some(listed) = listed else { return true };
        name == ORIGIN_FILE || listed.iter().any(|file| file.as_str() == Some(name))
    };
    ours.then(|| possible.filter(is_listed).collect())
}

/// The names of the files of an export, sorted.
pub(super) fn names(companions: &[Companion], weights: &str) -> Vec<String> {
    let names = companions.iter().map(|companion| companion.name.as_str()).chain([weights, ORIGIN_FILE]);
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}
