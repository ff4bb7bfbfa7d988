//! Why nothing was exported, and the files of an export that messages name.

use crate::load::LoadError;
use crate::record::WriteError;
use std::path::PathBuf;
use thiserror::Error;

/// The file of a checkpoint with its zeros.
pub(super) const DENSE_FILE: &str = "model.safetensors";
/// The file that says what was pruned, how, and by what.
pub(super) const ORIGIN_FILE: &str = "sparsify_exp.json";
/// Points that a message names.
const NAMED: usize = 8;

/// Why nothing was exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// Only dense cells are selected.
    #[error("no prune point is selected")]
    NoPoint,
    /// More than one prune point is selected.
    #[error("{} prune points are selected, and a checkpoint is of one:\n{}", .0.len(), listed(.0))]
    SeveralPoints(Vec<String>),
    /// The model has no files.
    #[error("`{0}` has random weights that are in no file")]
    Synthetic(String),
    /// There is an export already.
    #[error("`{}` is there already", .0.display())]
    Exists(PathBuf),
    /// There is something else already.
    #[error("`{}` is there already and is no checkpoint that `export` wrote", .0.display())]
    Occupied(PathBuf),
    /// There is an export already, and something else beside it.
    #[error("`{}` holds what `export` did not write: {}", folder.display(), quoted(files))]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What lies in it beside the export, sorted.
        files: Vec<String>,
    },
    /// The place is that of the model itself.
    #[error("`{}` is the checkpoint that is to be pruned", .0.display())]
    Source(PathBuf),
    /// The place has no name, as `.` and `..`.
    #[error("`{}` names no folder that can be made", .0.display())]
    NoName(PathBuf),
    /// The model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The point does not fit the model, or the device failed.
    #[error("pruning failed for {point}: {message}")]
    Prune {
        /// The point.
        point: String,
        /// Why.
        message: String,
    },
    /// A file.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The user wants to stop.
    #[error("interrupted: nothing was written")]
    Interrupted,
}

impl ExportError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoPoint => "select one that prunes, as in `--only 'method=magnitude, sparsity=0.5'`".into(),
            Self::SeveralPoints(_) => {
                "narrow them down with `--only 'method=..., sparsity=...'`, or with `-s prune.KEY=VALUE`".into()
            }
            Self::Synthetic(_) => "take a model from the hub, a folder or inside the program".into(),
            Self::Exists(_) => "give another folder, or `--overwrite` to replace the checkpoint".into(),
            Self::Occupied(_) => {
                format!("give another folder: only one with the {ORIGIN_FILE} of an export is replaced")
            }
            Self::Foreign { .. } => "move it away, or give another folder with `--to DIR`: nothing was changed".into(),
            Self::Source(_) | Self::NoName(_) => "give another folder with `--to DIR`".into(),
            Self::Load(error) => return error.hint(),
            Self::Write(error) if error.source.kind() == std::io::ErrorKind::StorageFull => {
                "free some space and export again".into()
            }
            Self::Write(_) => "give a folder that can be written with `--to DIR`".into(),
            Self::Prune { .. } | Self::Interrupted => return None,
        })
    }
}

/// Some of the files of a folder.
fn quoted(files: &[String]) -> String {
    let named: Vec<String> = files.iter().take(NAMED).map(|name| format!("`{}`", name.escape_debug())).collect();
    let more = if files.len() > NAMED { format!(" and {} more", files.len() - NAMED) } else { String::new() };
    named.join(", ") + &more
}

/// Some of the points, a line each.
fn listed(points: &[String]) -> String {
    let mut lines: Vec<String> = points.iter().take(NAMED).map(|point| format!("  {point}")).collect();
    if points.len() > NAMED {
        lines.push(format!("  and {} more", points.len() - NAMED));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let points: Vec<String> = (0..10).map(|i| format!("point {i}")).collect();
        assert_eq!(listed(&points[..2]), "  point 0\n  point 1");
        assert!(listed(&points).ends_with("point 7\n  and 2 more"));
    }
}
