//! What keeps a results folder from being used, and what to do about it.

use super::cell::Record;
use crate::plan::CellId;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why the results folder can't be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file or folder can't be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A part of the folder is a link that leads out of it: writing there would change what is not ours.
    #[error("`{}` is a link to `{target}`, which is not in the results folder: nothing is written through it", path.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: String,
    },
    /// A file or folder can't be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("`{}` is damaged or of another version of the program", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A cell's file is whole, but not what this program wrote for that cell.
    #[error("`{}` {mismatch}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What does not match.
        mismatch: Mismatch,
    },
}

/// What shows that a cell's file is not what was written for that cell.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Mismatch {
    /// Written by a program with other files.
    #[error("has the format {found}, and this program reads {}", Record::FORMAT)]
    Format {
        /// The format that it has.
        found: String,
    },
    /// The content is not the one that was written.
    #[error("was changed after it was written")]
    Digest,
    /// The file of one cell under the name of another.
    #[error("is the file of cell `{0}`")]
    Id(CellId),
    /// The name does not follow from what the file says was run.
    #[error("says that another cell was run")]
    Cell,
}

impl StoreError {
    /// Whether a cell's file can't be believed, so that the cell counts as not measured.
    pub fn is_of_a_file(&self) -> bool {
        match self {
            Self::Format { .. } | Self::Foreign { .. } => true,
            Self::Write { .. } | Self::Link { .. } | Self::Read { .. } => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space and run again: finished cells are kept".into()
            }
            Self::Write { .. } => "make the folder writable, or give another one with `--results DIR`".into(),
            Self::Link { path, .. } => {
                format!("remove the link `{}`, or put what it leads to in its place", path.display())
            }
            Self::Read { .. } => "check the path and its permissions".into(),
            Self::Format { path, .. } | Self::Foreign { path, .. } => {
                format!("move `{}` away and run again", path.display())
            }
        })
    }
}
