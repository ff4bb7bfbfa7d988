//! Which files of a folder hold the weights.
//!
//! Knows Hugging Face's file names and its index of shards; opens no weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::{FileProblem, LFS_MAGIC, WeightsError};
use crate::input;

/// The files that may hold a checkpoint's weights, best first. The names with `.index.json` list shards.
pub const WEIGHT_FILES: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    SPARSE_FILE,
];

/// A file of matrices without their zeros. Other programs, which cannot read these, must not take it for a whole
/// model whose other weights they may make up.
pub const SPARSE_FILE: &str = "model.sparse.safetensors";

/// A checkpoint's files of weights.
#[derive(Debug, Clone)]
pub struct Files {
    /// One file, or shards sorted by name.
    pub paths: Vec<PathBuf>,
    /// Which shard has which tensor.
    pub index: Option<Index>,
}

/// What an index of shards says.
#[derive(Debug, Clone)]
pub struct Index {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads the index at `path`.
    ///
    /// # Errors
    /// If it can't be read, is not an index, names no shard, or names one with a path separator or `..`: the names
    /// are joined to folders and addresses, and must not lead out of them.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let json = input::read(path, input::SMALL).map_err(|error| WeightsError::Io { path: path.into(), error })?;
        Self::parse(&json, path)
    }

    fn parse(json: &[u8], path: &Path) -> Result<Self, WeightsError> {
        #[derive(Deserialize)]
        struct Content {
            weight_map: BTreeMap<String, String>,
        }
        let bad_index = |reason: String| WeightsError::BadIndex { index: path.into(), reason };
        if json.starts_with(LFS_MAGIC) {
            return Err(WeightsError::File { path: path.into(), problem: FileProblem::LfsPointer });
        }
        let content: Content = serde_json::from_slice(json).map_err(|error| bad_index(error.to_string()))?;
        if content.weight_map.is_empty() {
            return Err(bad_index("`weight_map` is empty".into()));
        }
        if let Some(shard) = content.weight_map.values().find(|shard| !is_plain_file_name(shard)) {
            return Err(WeightsError::BadShardName { index: path.into(), shard: shard.clone() });
        }
        Ok(Self { path: path.into(), weight_map: content.weight_map })
    }

    /// The index file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The shards' file names, sorted and each once.
    pub fn shards(&self) -> Vec<String> {
        let shards: BTreeSet<&String> = self.weight_map.values().collect();
        shards.into_iter().cloned().collect()
    }

    /// The shard that a tensor is said to be in.
    pub(super) fn shard_of(&self, tensor: &str) -> Option<&str> {
        self.weight_map.get(tensor).map(String::as_str)
    }
}

/// The files of a local checkpoint folder that hold its weights, in the order of [`WEIGHT_FILES`]: one
/// file, or all the shards that an index names.
///
/// # Errors
/// If `dir` is not a folder, has none of the files, or lacks a shard; if the index is damaged.
pub fn find_files(dir: &Path) -> Result<Files, WeightsError> {
    if !dir.is_dir() {
        return Err(WeightsError::NotAFolder { dir: dir.into() });
    }
    let Some(found) = WEIGHT_FILES.iter().map(|name| dir.join(name)).find(|path| path.exists()) else {
        return Err(WeightsError::NoWeights { dir: dir.into(), looked_for: WEIGHT_FILES });
    };
    if found.extension().is_none_or(|extension| extension != "json") {
        return Ok(Files { paths: vec![found], index: None });
    }
    let index = Index::read(&found)?;
    let shards = index.shards();
    if let Some(shard) = shards.iter().find(|shard| !dir.join(shard).exists()) {
        return Err(WeightsError::MissingShard { index: found, shard: shard.clone() });
    }
    Ok(Files { paths: shards.iter().map(|shard| dir.join(shard)).collect(), index: Some(index) })
}

/// Refuses what is a separator or a drive on any system, not only on this one.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let files = find_files(dir.path()).unwrap().paths;
        files.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn prefers_safetensors_to_pickles_and_whole_files_to_shards() {
        let index = r#"{"metadata": {}, "weight_map": {"a": "2.bin", "b": "1.bin", "c": "2.bin"}}"#;
        let dir = folder(&[("pytorch_model.bin.index.json", index), ("1.bin", ""), ("2.bin", "")]);
        assert_eq!(names(&dir), ["1.bin", "2.bin"]);
        fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
        assert_eq!(names(&dir), ["pytorch_model.bin"]);
        fs::write(dir.path().join("model.safetensors"), "").unwrap();
        assert_eq!(names(&dir), ["model.safetensors"]);
    }

    #[test]
    fn lists_what_it_looked_for() {
        let dir = folder(&[("config.json", "{}")]);
        let error = find_files(dir.path()).unwrap_err();
        assert!(matches!(error, WeightsError::NoWeights { .. }));
        let hint = error.hint().unwrap();
        assert!(WEIGHT_FILES.iter().all(|name| hint.contains(name)), "{hint}");
        let error = find_files(&dir.path().join("absent")).unwrap_err();
        assert!(matches!(error, WeightsError::NotAFolder { .. }));
    }

    #[test]
    fn names_the_missing_shard_and_its_index() {
        let index = r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
        let dir = folder(&[("model.safetensors.index.json", index), ("1.safetensors", "")]);
        let error = find_files(dir.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors.index.json") && error.contains("`2.safetensors`"), "{error}");
    }

    #[test]
    fn refuses_shards_outside_the_folder() {
        for shard in ["../x", "..", ".", "", "a/b", "/etc/passwd", r"a\\b", "C:x", r"a\u0000"] {
            let index = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
            let error = Index::parse(index.as_bytes(), Path::new("i.json")).unwrap_err();
            assert!(matches!(error, WeightsError::BadShardName { .. }), "{shard}: {error}");
        }
        let plain = br#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#;
        assert_eq!(Index::parse(plain, Path::new("i.json")).unwrap().shards(), ["model-00001-of-00002.safetensors"]);
    }

    #[test]
    fn refuses_what_is_no_index() {
        for json in ["", "{}", "[]", r#"{"weight_map": {}}"#, r#"{"weight_map": {"a": 1}}"#] {
            let error = Index::parse(json.as_bytes(), Path::new("i.json")).unwrap_err();
            assert!(matches!(error, WeightsError::BadIndex { .. }), "{json}: {error}");
        }
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        let error = Index::parse(pointer, Path::new("i.json")).unwrap_err();
        assert!(error.hint().unwrap().contains("git lfs pull"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn devices_in_place_of_files_are_refused_at_once() {
        let dir = folder(&[]);
        let path = dir.path().join("model.safetensors.index.json");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let error = find_files(dir.path()).unwrap_err().to_string();
        assert!(error.contains("index.json") && error.contains("not a regular file"), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(find_files(dir.path()).unwrap_err().to_string().contains("not a regular file"));
    }
}
