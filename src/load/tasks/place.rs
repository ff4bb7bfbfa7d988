//! The files of a task's dataset, on the hub or in a folder in the hub's layout.

use super::TaskError;
use super::table::Spec;
use crate::config::tasks::TaskName;
use crate::load::LoadError;
use crate::load::dataset::{Missing, files_of, is_shard};
use crate::load::digest::sha256_of;
use crate::load::hub::{Hub, RepoKind, Snapshot};
use crate::load::text::TextInput;
use std::fs;
use std::path::{Path, PathBuf};

/// A dataset's files.
pub(super) enum Place {
    /// Of a commit on the hub.
    Hub(Snapshot),
    /// Of a folder.
    Folder(PathBuf),
}

/// A file of a split.
pub(super) struct SplitFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is, for the manifest.
    pub input: TextInput,
}

impl Place {
    /// Of a task, in `folder` or on the hub.
    pub fn find(
        spec: &Spec,
        folder: Option<&Path>,
        hub: impl FnOnce() -> Result<Hub, LoadError>,
    ) -> Result<Self, LoadError> {
        let Some(root) = folder else { return Ok(Self::Hub(hub()?.repo(RepoKind::Dataset, spec.repo, None)?)) };
        let path = root.join(spec.repo);
        if path.is_dir() { Ok(Self::Folder(path)) } else { Err(TaskError::NoDataset { path }.into()) }
    }

    /// What to tell the user of it.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Hub(snapshot) => snapshot.warnings().iter().map(ToString::to_string).collect(),
            Self::Folder(_) => Vec::new(),
        }
    }

    /// Whether a folder has any file of a task; of the hub nobody asks.
    pub fn has(&self, spec: &Spec, task: TaskName) -> bool {
        match self {
            Self::Hub(_) => true,
            Self::Folder(_) => files_of(&self.files(), spec.config(task), spec.split).is_ok(),
        }
    }

    /// The files of a split, in order.
    pub fn split(&self, spec: &Spec, task: TaskName, split: &str) -> Result<Vec<SplitFile>, LoadError> {
        let (config, files) = (spec.config(task), self.files());
        // The hub's library takes `dev` for another name of `validation`, and these datasets have both.
        let dev = [".parquet", ".jsonl"].map(|ending| format!("{config}/{split}{ending}"));
        let known = [spec.file(config, split)].into_iter().chain(dev.into_iter().filter(|_| split == "dev"));
        let names: Vec<String> = if let Some(known) = known.into_iter().find(|file| files.contains(file)) {
            vec![known]
        } else {
            let found = files_of(&files, config, split);
            let found = found.map_err(|missing| self.missing(missing, spec, config, split))?;
            if found.len() > 1 && !found.iter().all(|file| is_shard(file)) {
                let (first, second) = (found[0].to_owned(), found[1].to_owned());
                return Err(
                    TaskError::SeveralFiles { place: self.name(spec), split: split.into(), first, second }.into()
                );
            }
            found.into_iter().map(str::to_owned).collect()
        };
        names.into_iter().map(|name| self.file(spec, name)).collect()
    }

    fn file(&self, spec: &Spec, name: String) -> Result<SplitFile, LoadError> {
        let (path, commit, known) = match self {
            Self::Hub(snapshot) => {
                let path = snapshot.get(&name)?;
                let sha256 = snapshot.sha256(&path);
                (path, Some(snapshot.commit().to_owned()), sha256)
            }
            Self::Folder(folder) => (folder.join(&name), None, None),
        };
        let read = |source| LoadError::Read { path: path.clone(), source };
        let bytes = fs::metadata(&path).map_err(read)?.len();
        let sha256 = known.map_or_else(|| sha256_of(&path).map_err(read), Ok)?;
        let source = match self {
            Self::Hub(_) => format!("hf:{}", spec.repo),
            Self::Folder(folder) => folder.display().to_string(),
        };
        let input = TextInput { source, file: Some(name), sha256, bytes: Some(bytes), commit };
        Ok(SplitFile { path, input })
    }

    fn files(&self) -> Vec<String> {
        match self {
            Self::Hub(snapshot) => snapshot.files(),
            Self::Folder(folder) => {
                let mut files = Vec::new();
                list(folder, "", &mut files);
                files.sort();
                files
            }
        }
    }

    fn name(&self, spec: &Spec) -> String {
        match self {
            Self::Hub(_) => spec.repo.to_owned(),
            Self::Folder(folder) => folder.display().to_string(),
        }
    }

    fn missing(&self, missing: Missing, spec: &Spec, config: &str, split: &str) -> LoadError {
        let error = |cached| missing.error(&self.name(spec), config, split, cached);
        match self {
            Self::Hub(snapshot) => error(snapshot.cache_only().is_some()).into(),
            Self::Folder(folder) => {
                let (message, path) = (error(false).to_string(), folder.join(spec.file(config, split)));
                TaskError::NoFile { message, path }.into()
            }
        }
    }
}

/// All files below a folder, with `/` between folders. Links to folders are not followed, which may lead in circles.
fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), &format!("{prefix}{name}/"), files),
            Ok(_) => files.push(format!("{prefix}{name}")),
            Err(_) => {}
        }
    }
}
