//! What processes and people say that they did with a results folder: a file each, which nobody changes again.
//!
//! ```text
//!   runs/      RunRecord     a process has run
//!   accepted/  Acceptance    somebody has taken stale results as current
//!   verify/                  the folder was run again and compared; written here, read by people
//! ```

use super::accepted::Acceptances;
use super::error::StoreError;
use super::formats::RunRecord;
use super::origin::OriginRecord;
use super::store::Store;
use crate::config::Origin;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

impl Store {
    /// Writes what a process did or does, under a name of its own: again and again, while it lives.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_run(&self, run: &RunRecord) -> Result<(), StoreError> {
        let name = format!("{}-{}-{}.json", plain(&run.started), plain(&run.host), run.pid);
        self.write_json(&Path::new("runs").join(name), run)
    }

    /// Writes what this process did at a time into a folder of such files, and says where.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_event(&self, folder: &str, at: &str, event: &impl Serialize) -> Result<PathBuf, StoreError> {
        let path = Path::new(folder).join(format!("{}-{}.json", plain(at), std::process::id()));
        self.write_json(&path, event)?;
        Ok(path)
    }

    /// What each process did or does, and when it said so last by the clock of the file system.
    pub fn runs(&self) -> Vec<(RunRecord, Option<SystemTime>)> {
        self.events("runs")
    }

    /// What has been accepted. A file that can't be read accepts nothing.
    pub fn acceptances(&self) -> Acceptances {
        Acceptances::of(self.events("accepted").into_iter().map(|(acceptance, _)| acceptance).collect())
    }

    /// The files of a folder in the order of their names, and when each was written. What can't be read is passed over:
    /// no result depends on it.
    fn events<T: DeserializeOwned>(&self, folder: &str) -> Vec<(T, Option<SystemTime>)> {
        let folder = Path::new(folder);
        let mut names = self.stems(folder, "json");
        names.sort();
        let paths = names.into_iter().map(|name| self.root().join(folder).join(format!("{name}.json")));
        let event = |path: PathBuf| {
            let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
            Some((self.read(&path).ok()??, written))
        };
        paths.filter_map(event).collect()
    }

    /// Where the experiment file that the folder keeps came from, as far as its plan or its manifest says so.
    pub fn origin(&self) -> Option<Origin> {
        #[derive(Deserialize)]
        struct Origins {
            origin: Option<OriginRecord>,
        }
        // The file is written together with the plan, and handed on together with the manifest.
        let of = |name: &str| self.read::<Origins>(&self.root().join(name)).ok()??.origin;
        let record = of("plan.json").or_else(|| of("manifest.json"))?;
        Some(record.seen_from(self.root()))
    }
}

/// The letters and digits of a text: what a file can be called anywhere.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect()
}
