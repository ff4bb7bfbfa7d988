//! Where the experiment file of a results folder came from.
//!
//! ```text
//!   exp/s1.toml ── `-s seed=1` ──> results/s1/experiment.toml     plan.json, manifest.json:
//!     "path:../model"                "path:../model"                origin  file "../../exp/s1.toml", set ["seed=1"]
//! ```
//! The way from the folder to the file is kept, not its place on this machine: it holds where both are moved together, and
//! tells nobody's name. Knows paths; reads no experiment.

use crate::config::Origin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// The file that `experiment.toml` came from, and what the command line laid over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OriginRecord {
    /// The file, as seen from the results folder: its folder is what relative paths are relative to.
    pub file: String,
    /// The overrides, `KEY=VALUE`, which `experiment.toml` has in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
}

impl OriginRecord {
    /// Of an experiment whose results are in the folder `root`, which need not be there yet.
    pub fn of(origin: &Origin, root: &Path) -> Self {
        Self { file: way(&whole(root), &whole(&origin.file)), set: origin.set.clone() }
    }

    /// As seen from here, for the results folder `root`.
    pub fn seen_from(&self, root: &Path) -> Origin {
        Origin { file: root.join(&self.file), set: self.set.clone() }
    }
}

/// The path from the file system's root, without links as far as it exists.
fn whole(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find_map(|above| Some((above, std::fs::canonicalize(above).ok()?)));
    match there {
        // Part by part: joined with nothing, a file would end with a slash.
        Some((above, mut whole)) => {
            whole.extend(path.strip_prefix(above).unwrap_or(Path::new("")).components());
            whole
        }
        None => path,
    }
}

/// `../../exp/s1.toml` from one path to the other; the other itself where no way leads there, as between drives.
fn way(from: &Path, to: &Path) -> String {
    let (from, parts): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&parts).take_while(|(a, b)| a == b).count();
    if common == 0 {
        return to.display().to_string();
    }
    let up = from[common..].iter().map(|_| "..".to_owned());
    let down = parts[common..].iter().map(|part| part.as_os_str().to_string_lossy().into_owned());
    up.chain(down).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_leads_up_and_down() {
        let way = |from: &str, to: &str| way(Path::new(from), Path::new(to));
        assert_eq!(way("/a/results/s1", "/a/exp/s1.toml"), "../../exp/s1.toml");
        assert_eq!(way("/r/s1", "/a/s1.toml"), "../../a/s1.toml");
        assert_eq!(way("/a/s1", "/a/s1/mine.toml"), "mine.toml");
    }

    #[test]
    fn a_folder_that_is_moved_with_its_file_still_finds_it() {
        let lab = tempfile::tempdir().unwrap();
        let [before, after] = ["before", "after"].map(|name| lab.path().join(name));
        std::fs::create_dir_all(before.join("exp")).unwrap();
        std::fs::write(before.join("exp/s1.toml"), "").unwrap();
        let origin = Origin { file: before.join("exp/../exp/s1.toml"), set: vec!["seed=1".into()] };
        let record = OriginRecord::of(&origin, &before.join("results/s1"));
        assert_eq!(record.file, "../../exp/s1.toml");
        std::fs::create_dir_all(before.join("results/s1")).unwrap();
        std::fs::rename(&before, &after).unwrap();
        let seen = record.seen_from(&after.join("results/s1"));
        assert!(seen.file.is_file() && seen.set == ["seed=1"]);
    }
}
