//! Texts that are datasets of the hub.
//!
//! ```text
//!   hf:ORG/NAME/CONFIG/SPLIT ──hub──> names of files ──layout.rs──> the split's first ──hub──> Shard
//!   Shard ──documents.rs──> texts; lines.rs (JSON), table.rs (parquet)
//! ```
//!
//! The first file of a split in several files is read, as the field does with C4: the others would be hundreds of
//! gigabytes, and no measurement here needs more than the first.

mod delta;
mod documents;
mod error;
mod layout;
mod lines;
mod rows;
mod table;

use super::digest::sha256_of;
use super::hub::{Hub, RepoKind};
use super::{InputFile, LoadError};
use std::path::PathBuf;

pub use documents::{documents, sizes};
pub use error::DatasetError;
pub use layout::{Missing, files_of, is_shard};
pub use rows::rows;

/// What names a split of a dataset.
#[derive(Clone, Copy, Debug)]
pub struct SplitName<'a> {
    /// `ORG/NAME`.
    pub repo: &'a str,
    /// Branch, tag or commit; `main` if none.
    pub revision: Option<&'a str>,
    /// The configuration.
    pub config: &'a str,
    /// The split.
    pub split: &'a str,
}

/// The file of a split that is read.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Where it is.
    pub path: PathBuf,
    /// Its path in the repository, digest and size.
    pub input: InputFile,
    /// The commit of the repository.
    pub commit: String,
    /// How many files the split has, as far as is known.
    pub files: usize,
    /// What to tell the user.
    pub warnings: Vec<String>,
}

/// Finds, and where needed downloads, the file of a split.
///
/// # Errors
/// When there is no such dataset, configuration or split, or it can't be had.
pub fn find(hub: &Hub, name: SplitName<'_>) -> Result<Shard, LoadError> {
    let snapshot = hub.repo(RepoKind::Dataset, name.repo, name.revision)?;
    let files = snapshot.files();
    let of_split = layout::files_of(&files, name.config, name.split)
        .map_err(|missing| missing.error(name.repo, name.config, name.split, snapshot.cache_only().is_some()))?;
    // Another than the first would be other texts under the same name: what is not in the cache is an error.
    let file = layout::first_of(of_split[0]).unwrap_or_else(|| of_split[0].to_owned());
    let path = snapshot.get(&file)?;
    let read = |source| LoadError::Read { path: path.clone(), source };
    let bytes = std::fs::metadata(&path).map_err(read)?.len();
    let sha256 = match snapshot.sha256(&path) {
        Some(sha256) => sha256,
        None => sha256_of(&path).map_err(read)?,
    };
    Ok(Shard {
        input: InputFile { name: file, sha256, bytes },
        commit: snapshot.commit().to_owned(),
        files: of_split.len(),
        warnings: snapshot.warnings().iter().map(ToString::to_string).collect(),
        path,
    })
}
