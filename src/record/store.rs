//! A results folder: every file is written beside its place, synced and renamed.

use super::atomic::{self, Stamp};
use super::cell::{Outline, Record};
use super::error::{Mismatch, StoreError};
use super::formats::{Manifest, PlanRecord};
use super::numbers::Numbers;
use super::seal::{opened, reseal, sealed};
use crate::input;
use crate::plan::{CellId, Existing};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The largest file of a results folder that is read: a plan of as many cells as an experiment may have takes a tenth.
const LARGEST: u64 = 1 << 30;

/// Where a link leads.
fn target(link: &Path) -> String {
    std::fs::read_link(link).map_or_else(|error| error.to_string(), |target| target.display().to_string())
}

/// The folder of an experiment below the results folder.
pub fn experiment_folder(results: &Path, name: &str) -> PathBuf {
    results.join(name)
}

/// The results folder of one experiment.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// A folder that may not exist yet; nothing is written.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folders, shows that files can be written there, and clears what killed processes left.
    ///
    /// # Errors
    /// When they can't.
    pub fn create(&self) -> Result<(), StoreError> {
        for folder in ["cells", "runs", "tables", "plots"] {
            let path = self.inside(Path::new(folder))?;
            std::fs::create_dir_all(&path).map_err(|source| StoreError::Write { path: path.clone(), source })?;
            // A folder that exists may still be read-only: better known before an hour of work.
            tempfile::tempfile_in(&path).map_err(|source| StoreError::Write { path: path.clone(), source })?;
            atomic::clear_leftovers(&path);
        }
        Ok(())
    }

    /// What a cell's file says.
    pub fn existing(&self, id: &CellId) -> Existing {
        match self.cell(id) {
            Ok(None) => Existing::Missing,
            // What has lost its items is measured again.
            Ok(Some(record)) => self.with_items(record).0.existing(),
            Err(error) => Existing::Unreadable { message: error.to_string() },
        }
    }

    /// A cell's record, if there is one.
    ///
    /// # Errors
    /// When the file is there and can't be read, or is not what was written for this cell.
    pub fn cell(&self, id: &CellId) -> Result<Option<Record>, StoreError> {
        let path = self.root.join(cell_path(id));
        let Some(bytes) = read_bytes(&path)? else { return Ok(None) };
        let record = opened(&bytes, &path)?;
        let foreign = |mismatch| StoreError::Foreign { path: path.clone(), mismatch };
        if record.id != *id {
            return Err(foreign(Mismatch::Id(record.id.clone())));
        }
        if record.own_id() != *id || !record.parts_are_own() {
            return Err(foreign(Mismatch::Cell));
        }
        Ok(Some(record))
    }

    /// A record with the items that lie in files of their own. Results whose file is missing or was changed are left out;
    /// a message for each says which.
    pub fn with_items(&self, mut record: Record) -> (Record, Vec<String>) {
        let (id, mut lost) = (record.id.clone(), Vec::new());
        record.results.retain_mut(|part| match &mut part.result {
            Numbers::Task(task) => {
                let path = task.path(&id);
                let whole = self.bytes(&path).is_some_and(|bytes| task.take_file(&bytes));
                if !whole {
                    let path = self.root.join(path);
                    lost.push(format!(
                        "`{}` is missing or was changed: its task counts as not measured",
                        path.display()
                    ));
                }
                whole
            }
            Numbers::Structure(_)
            | Numbers::Agreement(_)
            | Numbers::Perplexity(_)
            | Numbers::BitsPerByte(_)
            | Numbers::Latency(_)
            | Numbers::Gate(_)
            | Numbers::Times(_)
            | Numbers::Analysis(_) => true,
        });
        (record, lost)
    }

    /// What a cell's file says of itself at a glance, if there is one: neither its numbers nor its digest are looked at.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn outline(&self, id: &CellId) -> Result<Option<Outline>, StoreError> {
        self.read(&self.root.join(cell_path(id)))
    }

    /// The record that a cell's file holds, whatever its digest. For [`crate::fuzzing`].
    pub(crate) fn sealed_cell(bytes: &[u8]) -> Result<Record, StoreError> {
        let path = Path::new("cell.json");
        let format = |source| StoreError::Format { path: path.into(), source };
        let mut value: Value = serde_json::from_slice(bytes).map_err(format)?;
        reseal(&mut value);
        opened(value.to_string().as_bytes(), path)
    }

    /// The names of the folder's cells, in order.
    pub fn ids(&self) -> Vec<CellId> {
        let mut ids: Vec<CellId> = self.stems(Path::new("cells"), "json").into_iter().map(CellId::named).collect();
        ids.sort();
        ids
    }

    /// The folders of other experiments beside this one that have cells, with their names, in order.
    pub fn siblings(&self) -> Vec<(String, Self)> {
        let above = self.root.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let entries = std::fs::read_dir(above).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| Some(name.as_ref()) != self.root.file_name()).collect();
        names.sort();
        let stores = names.into_iter().map(|name| (name.clone(), Self::at(above.join(name))));
        stores.filter(|(_, store)| store.root.join("cells").is_dir()).collect()
    }

    /// Every cell record of the folder, in the order of their names, or why its file can't be believed.
    ///
    /// # Errors
    /// When the folder or a file can't be read.
    pub fn cells(&self) -> Result<Vec<Result<Record, StoreError>>, StoreError> {
        let mut records = Vec::new();
        for id in self.ids() {
            match self.cell(&id) {
                Ok(record) => records.extend(record.map(Ok)),
                Err(error) if error.is_of_a_file() => records.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// Writes a cell's record.
    ///
    /// # Errors
    /// When it can't be written; what was there before is still there then.
    pub fn write_cell(&self, record: &Record) -> Result<(), StoreError> {
        let path = cell_path(&record.id);
        let error = |source| StoreError::Write { path: self.root.join(&path), source };
        self.write_json(&path, &sealed(record).map_err(error)?)
    }

    /// The plan, if there is one.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn plan(&self) -> Result<Option<PlanRecord>, StoreError> {
        let path = self.root.join("plan.json");
        let Some(bytes) = read_bytes(&path)? else { return Ok(None) };
        match serde_json::from_slice::<PlanRecord>(&bytes) {
            Ok(plan) if plan.format == PlanRecord::FORMAT => Ok(Some(plan)),
            // What it is instead is told by its keys.
            Ok(_) | Err(_) => read_plan_by_keys(&bytes, path).map(Some),
        }
    }

    /// Writes the plan and the experiment file.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn write_plan(&self, plan: &PlanRecord, experiment: &str) -> Result<(), StoreError> {
        self.write_json(Path::new("plan.json"), plan)?;
        self.write(Path::new("experiment.toml"), experiment.as_bytes())
    }

    /// The manifest, if there is one.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn manifest(&self) -> Result<Option<Manifest>, StoreError> {
        self.read(&self.root.join("manifest.json"))
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), StoreError> {
        self.write_json(Path::new("manifest.json"), manifest)
    }

    /// Writes a file of the folder, whole or not at all; an equal one is left as it is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, relative: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        write_whole(self.inside(relative)?, bytes)
    }

    /// Writes a file of the folder piece by piece, whole or not at all; an equal one is left as it is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_by(
        &self,
        relative: &Path,
        content: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let path = self.inside(relative)?;
        atomic::write_by(&path, content).map_err(|source| StoreError::Write { path, source })
    }

    /// What tells a file of the folder from one that takes its place; none where there is no file.
    pub fn stamp(&self, relative: &Path) -> Option<Stamp> {
        Stamp::of(&self.root.join(relative))
    }

    /// A path of the folder that is to be written.
    ///
    /// # Errors
    /// When a part of it is a link that leads out of the folder.
    fn inside(&self, relative: &Path) -> Result<PathBuf, StoreError> {
        let leads_out = |link: &Path| match (std::fs::canonicalize(link), std::fs::canonicalize(&self.root)) {
            (Ok(target), Ok(root)) => !target.starts_with(root),
            // A link to nothing: what is made through it is made elsewhere.
            _ => true,
        };
        let mut path = self.root.clone();
        for part in relative.components() {
            path.push(part);
            let is_link = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.file_type().is_symlink());
            if is_link && leads_out(&path) {
                return Err(StoreError::Link { target: target(&path), path });
            }
        }
        Ok(path)
    }

    /// Whether the first 4 KiB of a file of the folder hold these bytes.
    pub fn mentions(&self, relative: &Path, bytes: &[u8]) -> bool {
        let mut head = Vec::new();
        let file = input::open(&self.root.join(relative));
        let read = file.and_then(|file| file.take(4096).read_to_end(&mut head));
        read.is_ok() && head.windows(bytes.len()).any(|window| window == bytes)
    }

    /// The bytes of a file of the folder, if it can be read.
    pub fn bytes(&self, relative: &Path) -> Option<Vec<u8>> {
        input::read(&self.root.join(relative), LARGEST).ok()
    }

    /// The files of one of its folders that have an extension, without it.
    pub fn stems(&self, folder: &Path, extension: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == extension));
        paths.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
    }

    /// Removes a file of the folder; another process may have done so.
    pub fn remove(&self, relative: &Path) {
        if let Ok(path) = self.inside(relative) {
            let _ = std::fs::remove_file(path);
        }
    }

    pub(super) fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StoreError> {
        let Some(bytes) = read_bytes(path)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|source| StoreError::Format { path: path.into(), source })
    }

    pub(super) fn write_json(&self, relative: &Path, value: &impl Serialize) -> Result<(), StoreError> {
        let path = &self.inside(relative)?;
        let error = |source: serde_json::Error| StoreError::Write { path: path.into(), source: source.into() };
        let mut bytes = serde_json::to_vec_pretty(value).map_err(error)?;
        bytes.push(b'\n');
        write_whole(path.clone(), &bytes)
    }
}

/// The plan of a file whose keys are others, or what is wrong with it.
fn read_plan_by_keys(bytes: &[u8], path: PathBuf) -> Result<PlanRecord, StoreError> {
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(source) => return Err(StoreError::Format { path, source }),
    };
    if let Some(found) = value.get("format").filter(|found| **found != PlanRecord::FORMAT) {
        let mismatch = Mismatch::Format { found: found.to_string() };
        return Err(StoreError::Foreign { path, mismatch });
    }
    serde_json::from_value(value).map_err(|source| StoreError::Format { path, source })
}

fn write_whole(path: PathBuf, bytes: &[u8]) -> Result<(), StoreError> {
    atomic::write(&path, bytes).map_err(|source| StoreError::Write { path, source })
}

/// The bytes of a file, if there is one.
fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match input::read(path, LARGEST) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Read { path: path.into(), source }),
    }
}

/// The path of a cell in its folder.
pub fn cell_path(id: &CellId) -> PathBuf {
    Path::new("cells").join(format!("{id}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_cell_is_unreadable_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        store.create().unwrap();
        let id: CellId = serde_json::from_str("\"00ff\"").unwrap();
        assert_eq!(store.existing(&id), Existing::Missing);
        let path = folder.path().join("cells/00ff.json");
        std::fs::write(&path, "{\"format\": 1").unwrap();
        assert!(matches!(store.existing(&id), Existing::Unreadable { .. }));
        assert!(matches!(store.cells().unwrap()[..], [Err(StoreError::Format { .. })]));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "{\"format\": 1");
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_or_device_in_place_of_a_record_is_unreadable_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        store.create().unwrap();
        let id: CellId = serde_json::from_str("\"00ff\"").unwrap();
        let cell = folder.path().join("cells/00ff.json");
        assert!(std::process::Command::new("mkfifo").arg(&cell).status().unwrap().success());
        assert!(matches!(store.existing(&id), Existing::Unreadable { .. }));
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("plan.json")).unwrap();
        let error = store.plan().unwrap_err();
        assert!(matches!(&error, StoreError::Read { path, .. } if path.ends_with("plan.json")), "{error}");
        assert!(store.bytes(Path::new("cells/00ff.json")).is_none());
        assert!(!store.mentions(Path::new("plan.json"), b"x"));
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link_that_leads_out() {
        use std::os::unix::fs::symlink;
        let lab = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (lab.path().join("results"), lab.path().join("elsewhere"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&elsewhere).unwrap();
        let store = Store::at(&root);
        let refused = |result: Result<(), StoreError>, link: &str| {
            let error = result.unwrap_err();
            assert!(matches!(&error, StoreError::Link { path, .. } if *path == root.join(link)), "{error}");
            assert!(error.to_string().contains(link) && error.hint().is_some());
        };
        // A folder, a folder that is not there yet, and a file.
        symlink(&elsewhere, root.join("tables")).unwrap();
        symlink(lab.path().join("nowhere"), root.join("plots")).unwrap();
        std::fs::write(elsewhere.join("thesis"), "mine").unwrap();
        symlink(elsewhere.join("thesis"), root.join("experiment.toml")).unwrap();
        refused(store.write(Path::new("tables/a.csv"), b"1"), "tables");
        refused(store.write(Path::new("plots/a.svg"), b"1"), "plots");
        refused(store.write(Path::new("experiment.toml"), b"1"), "experiment.toml");
        refused(store.create(), "tables");
        store.remove(Path::new("tables/thesis"));
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
        assert_eq!(std::fs::read(elsewhere.join("thesis")).unwrap(), b"mine");
        // Reading is fine, and so is a link that stays inside.
        assert_eq!(store.bytes(Path::new("tables/thesis")).unwrap(), b"mine");
        std::fs::create_dir(root.join("figures")).unwrap();
        std::fs::remove_file(root.join("plots")).unwrap();
        symlink(root.join("figures"), root.join("plots")).unwrap();
        store.write(Path::new("plots/a.svg"), b"1").unwrap();
        assert!(root.join("figures/a.svg").exists());
        // The folder itself may be a link: its owner made it.
        symlink(&root, lab.path().join("link")).unwrap();
        Store::at(lab.path().join("link")).write(Path::new("plots/b.svg"), b"1").unwrap();
    }

    #[test]
    fn nothing_is_left_beside_a_written_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("new"));
        store.write(Path::new("tables/a.csv"), b"1").unwrap();
        store.write(Path::new("tables/a.csv"), b"2").unwrap();
        let names: Vec<_> =
            std::fs::read_dir(folder.path().join("new/tables")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["a.csv"]);
        assert_eq!(std::fs::read(folder.path().join("new/tables/a.csv")).unwrap(), b"2");
    }

    #[test]
    fn a_file_in_the_way_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("results"), "").unwrap();
        let error = Store::at(folder.path().join("results/s1")).create().unwrap_err();
        assert!(error.to_string().contains("results"), "{error}");
        assert!(error.hint().unwrap().contains("--results"));
    }
}
