//! What processes and people say that they did with a results folder: a file each, which nobody changes again.
//!
//! ```text
//!   runs/      RunRecord     a process has run
//!   accepted/  Acceptance    somebody has taken stale results as current
//!   verify/                  the folder was run again and compared; written here, read by people
//! ```

use super::accepted::Acceptances;
use super::formats::RunRecord;
use super::origin::OriginRecord;
use super::store::{Store, StoreError};
use crate::config::Origin;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

impl Store {
    /// Writes what a process did, under a name of its own.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_run(&self, run: &RunRecord) -> Result<(), StoreError> {
        self.write_event("runs", &run.started, run).map(drop)
    }

    /// Writes what this process did at a time into a folder of such files, and says where.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_event(&self, folder: &str, at: &str, event: &impl Serialize) -> Result<PathBuf, StoreError> {
        let stamp: String = at.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let path = Path::new(folder).join(format!("{stamp}-{}.json", std::process::id()));
        self.write_json(&path, event)?;
        Ok(path)
    }

    /// What the processes say that have run here, as far as their records can be read.
    pub fn runs(&self) -> Vec<RunRecord> {
        self.events("runs")
    }

    /// What has been accepted. A file that can't be read accepts nothing.
    pub fn acceptances(&self) -> Acceptances {
        Acceptances::of(self.events("accepted"))
    }

    /// The files of a folder that can be read, in the order of their names.
    fn events<T: DeserializeOwned>(&self, folder: &str) -> Vec<T> {
        let folder = Path::new(folder);
        let mut names = self.stems(folder, "json");
        names.sort();
        let path = |name: String| self.root().join(folder).join(format!("{name}.json"));
        names.into_iter().filter_map(|name| self.read(&path(name)).ok().flatten()).collect()
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
