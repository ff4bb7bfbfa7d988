//! Which files of a folder hold the weights.
//!
//! Knows Hugging Face's file names and its index of shards; opens no weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::WeightsError;

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

/// The files of a local checkpoint folder that hold its weights, in the order of [`WEIGHT_FILES`]: one
/// file, or all the shards that an index names, sorted by name.
///
/// # Errors
/// If `dir` is not a folder, has none of the files, or lacks a shard; if the index is damaged.
pub fn find_files(dir: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    if !dir.is_dir() {
        return Err(WeightsError::NotAFolder { dir: dir.into() });
    }
    let Some(found) = WEIGHT_FILES.iter().map(|name| dir.join(name)).find(|path| path.is_file()) else {
        return Err(WeightsError::NoWeights { dir: dir.into(), looked_for: WEIGHT_FILES });
    };
    if found.extension().is_some_and(|extension| extension == "json") {
        find_shards(dir, &found)
    } else {
        Ok(vec![found])
    }
}

/// The shards' file names, sorted and each once, that the index `json` read from `path` names.
///
/// # Errors
/// If `json` is not an index, names no shard, or names one with a path separator or `..`: the names are
/// joined to folders and addresses, and must not lead out of them.
pub fn index_shards(json: &[u8], path: &Path) -> Result<Vec<String>, WeightsError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bad_index = |reason: String| WeightsError::BadIndex { index: path.into(), reason };

    let index: Index = serde_json::from_slice(json).map_err(|error| bad_index(error.to_string()))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    if shards.is_empty() {
        return Err(bad_index("`weight_map` is empty".into()));
    }
    if let Some(shard) = shards.iter().find(|shard| !is_plain_file_name(shard)) {
        return Err(WeightsError::BadShardName { index: path.into(), shard: shard.clone() });
    }
    Ok(shards.into_iter().collect())
}

fn find_shards(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let json = std::fs::read(index).map_err(|error| WeightsError::Io { path: index.into(), error })?;
    let shards = index_shards(&json, index)?;
    if let Some(shard) = shards.iter().find(|shard| !dir.join(shard).is_file()) {
        return Err(WeightsError::MissingShard { index: index.into(), shard: shard.clone() });
    }
    Ok(shards.iter().map(|shard| dir.join(shard)).collect())
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
        let files = find_files(dir.path()).unwrap();
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
            let error = index_shards(index.as_bytes(), Path::new("i.json")).unwrap_err();
            assert!(matches!(error, WeightsError::BadShardName { .. }), "{shard}: {error}");
        }
        let plain = br#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#;
        assert_eq!(index_shards(plain, Path::new("i.json")).unwrap(), ["model-00001-of-00002.safetensors"]);
    }

    #[test]
    fn refuses_what_is_no_index() {
        for json in ["", "{}", "[]", r#"{"weight_map": {}}"#, r#"{"weight_map": {"a": 1}}"#] {
            let error = index_shards(json.as_bytes(), Path::new("i.json")).unwrap_err();
            assert!(matches!(error, WeightsError::BadIndex { .. }), "{json}: {error}");
        }
    }
}
