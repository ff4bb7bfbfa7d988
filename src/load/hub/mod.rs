//! The Hugging Face hub through its standard local cache.
//!
//! ```text
//! Hub ── repo(kind, "ORG/NAME", revision) ──► Snapshot (one commit) ── get("config.json") ──► path in the cache
//! ```
//!
//! Owns the cache's layout, offline mode, and the download and check of single files. Files that Python's
//! `huggingface_hub` downloaded are found here, and those downloaded here are found there. Must not know what is in the
//! files, and prints nothing.
//!
//! `names` what may be asked for · `settings` the environment · `transfer` requests (the only sockets) ·
//! `address` what they go to · `cache` folders · `blob` hashes.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod address;
mod blob;
mod cache;
mod error;
mod names;
mod settings;
mod transfer;

use cache::RepoCache;
use transfer::{Announced, FileAt, Transport};

pub use error::{CacheOnly, HubError, HubWarning, NetworkFault};
pub use names::{RepoId, RepoKind};
pub use settings::HubSettings;

/// Where a download stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's path inside the repository.
    pub file: &'a str,
    /// Bytes that have arrived, those of an earlier, broken download included.
    pub received: u64,
    /// Length in bytes, if the hub said it.
    pub total: Option<u64>,
}

/// Told of each piece that arrives. [`ControlFlow::Break`] stops the download; its bytes are kept for the next one.
pub type Observer = dyn Fn(Progress<'_>) -> ControlFlow<()> + Send + Sync;

/// The hub, or in offline mode its cache alone. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
    checks: bool,
}

struct Inner {
    settings: HubSettings,
    transport: Transport,
    observer: Box<Observer>,
}

impl Hub {
    /// Opens no connection and no file.
    ///
    /// # Errors
    /// [`HubError::InvalidEndpoint`], [`HubError::InvalidToken`].
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        Self::with_observer(settings, |_| ControlFlow::Continue(()))
    }

    /// A hub whose downloads tell `observer` how far they are.
    ///
    /// # Errors
    /// As [`Hub::new`].
    pub fn with_observer(
        settings: HubSettings,
        observer: impl Fn(Progress<'_>) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Result<Self, HubError> {
        let inner = Inner { transport: Transport::new(settings.clone())?, settings, observer: Box::new(observer) };
        let inner = Arc::new(inner);
        Ok(Self { inner, checks: false })
    }

    /// The same, but files that are in the cache already are read and checked, and downloaded anew where they are damaged.
    #[must_use]
    pub fn checking(self) -> Self {
        Self { checks: true, ..self }
    }

    /// What it was made with.
    pub fn settings(&self) -> &HubSettings {
        &self.inner.settings
    }

    /// The repository `name` (`ORG/NAME`) at `revision` (a branch, tag or commit; `main` if `None`).
    ///
    /// Asks the hub where the revision is now, and which files it has. If the hub cannot be asked and the cache knows
    /// the revision, the cache is used and the snapshot carries a warning.
    ///
    /// # Errors
    /// [`HubError::InvalidName`]; online [`HubError::RepoNotFound`], [`HubError::RevisionNotFound`],
    /// [`HubError::AccessDenied`], [`HubError::Unreachable`], [`HubError::Unavailable`], [`HubError::BadAnswer`],
    /// [`HubError::TooManyRedirects`]; offline [`HubError::NotCached`].
    pub fn repo(&self, kind: RepoKind, name: &str, revision: Option<&str>) -> Result<Snapshot, HubError> {
        let repo = RepoId::new(kind, name)?;
        let revision = revision.unwrap_or("main");
        names::check_revision(revision)?;
        let cache = RepoCache::new(&self.inner.settings.cache, &repo);
        let cached = || cache.resolve(revision);
        let (commit, listing) = if self.inner.settings.offline {
            let Some(commit) = cached() else {
                return Err(HubError::NotCached {
                    folder: self.inner.settings.cache.clone(),
                    revision: revision.to_owned(),
                    repo,
                });
            };
            (commit, Listing::Cache(CacheOnly::Offline))
        } else {
            match self.inner.transport.revision(&repo, revision) {
                Ok(found) => (found.commit, Listing::Hub(found.files)),
                Err(error) if error.is_outage() => match cached() {
                    Some(commit) => (commit, Listing::Cache(CacheOnly::HubFailed(error.to_string()))),
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        };
        let mut snapshot = Snapshot {
            hub: self.clone(),
            cache,
            repo,
            revision: revision.to_owned(),
            commit,
            listing,
            warnings: Vec::new(),
        };
        snapshot.warn();
        Ok(snapshot)
    }
}

/// Shows the settings, without the token.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hub").field(self.settings()).finish()
    }
}

/// A repository at one commit. All files that it hands out are of that commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    hub: Hub,
    cache: RepoCache,
    repo: RepoId,
    revision: String,
    commit: String,
    listing: Listing,
    warnings: Vec<HubWarning>,
}

/// Who says which files there are.
#[derive(Clone, Debug)]
enum Listing {
    Hub(Vec<String>),
    Cache(CacheOnly),
}

impl Snapshot {
    /// The repository.
    pub fn repo(&self) -> &RepoId {
        &self.repo
    }

    /// The full commit, 40 hexadecimal digits.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Why only the cache was asked for the list of files, if so: then it may not be whole.
    pub fn cache_only(&self) -> Option<&CacheOnly> {
        match &self.listing {
            Listing::Hub(_) => None,
            Listing::Cache(why) => Some(why),
        }
    }

    /// What the user should know although the snapshot was found.
    pub fn warnings(&self) -> &[HubWarning] {
        &self.warnings
    }

    /// The known files, sorted: all of the repository's, or those in the cache if the hub was not asked.
    pub fn files(&self) -> Vec<String> {
        match &self.listing {
            Listing::Hub(files) => files.clone(),
            Listing::Cache(_) => self.cache.files(&self.commit),
        }
    }

    /// The local path of `file`, downloaded if need be. `None` if the repository does not have it, or, where only the
    /// cache is used, if the cache does not.
    ///
    /// # Errors
    /// Those of [`Snapshot::get`], a missing file excepted.
    pub fn find(&self, file: &str) -> Result<Option<PathBuf>, HubError> {
        names::check_file(file)?;
        if let Some(path) = self.cache.find(&self.commit, file)
            && self.is_whole(&path, file)?
        {
            // A cache that others share may be read-only, and is of use all the same.
            let _ = self.note_revision();
            return Ok(Some(path));
        }
        match &self.listing {
            Listing::Hub(files) if files.iter().any(|name| name == file) => {
                let path = self.fetch(file)?;
                self.note_revision()?;
                Ok(Some(path))
            }
            Listing::Hub(_) | Listing::Cache(_) => Ok(None),
        }
    }

    /// The local path of `file`, downloaded if need be.
    ///
    /// # Errors
    /// [`HubError::FileNotFound`]; [`HubError::FileNotCached`]; [`HubError::InvalidName`];
    /// [`HubError::AccessDenied`]; of the transfer [`HubError::Unreachable`], [`HubError::Unavailable`],
    /// [`HubError::Dropped`], [`HubError::WrongHash`], [`HubError::WrongLength`], [`HubError::TooManyRedirects`],
    /// [`HubError::BadAnswer`], [`HubError::Interrupted`]; of the cache [`HubError::DiskFull`],
    /// [`HubError::CacheNotWritable`], [`HubError::CacheNotReadable`].
    pub fn get(&self, file: &str) -> Result<PathBuf, HubError> {
        if let Some(path) = self.find(file)? {
            return Ok(path);
        }
        let (repo, file) = (self.repo.clone(), file.to_owned());
        Err(match &self.listing {
            Listing::Hub(files) => HubError::FileNotFound { near: near_matches(&file, files), repo, file },
            Listing::Cache(why) => {
                HubError::FileNotCached { folder: self.cache.root().to_owned(), why: why.clone(), repo, file }
            }
        })
    }

    /// The sha256 of a file that [`Snapshot::get`] gave, without reading it: of large files, the cache's name for the
    /// content is its sha256, and it was checked if the file was downloaded here. `None` for all others.
    pub fn sha256(&self, path: &Path) -> Option<String> {
        cache::sha256_of(path)
    }

    /// Whether a cached file is what its name says, where that is to be known. A damaged one is taken away if the hub can
    /// send another.
    fn is_whole(&self, path: &Path, file: &str) -> Result<bool, HubError> {
        if !self.hub.checks {
            return Ok(true);
        }
        match (cache::check(path, file), &self.listing) {
            (Ok(()), _) => Ok(true),
            (Err(HubError::Damaged { path: blob, .. }), Listing::Hub(_)) => {
                std::fs::remove_file(&blob).map_err(|source| HubError::write(&blob, source))?;
                Ok(false)
            }
            (Err(error), Listing::Hub(_) | Listing::Cache(_)) => Err(error),
        }
    }

    fn warn(&mut self) {
        // A commit cannot move, so that one asked for by its full name is the right one anyway.
        if let Listing::Cache(CacheOnly::HubFailed(reason)) = &self.listing
            && self.revision != self.commit
        {
            self.warnings.push(HubWarning::HubFailed {
                repo: self.repo.clone(),
                revision: self.revision.clone(),
                commit: self.commit.clone(),
                reason: reason.clone(),
            });
        }
    }

    /// Done only once a file of the commit is in the cache: a branch that moved must not hide the older files from an
    /// offline run before there are newer ones.
    fn note_revision(&self) -> Result<(), HubError> {
        match self.listing {
            Listing::Hub(_) => self.cache.note(&self.revision, &self.commit),
            Listing::Cache(_) => Ok(()),
        }
    }

    fn fetch(&self, file: &str) -> Result<PathBuf, HubError> {
        let at = FileAt { repo: &self.repo, commit: &self.commit, file };
        let announced = self.hub.inner.transport.announced(at)?;
        let path = self.cache.blob(&announced.blob);
        let whole = |len: u64| announced.size.is_none_or(|size| size == len);
        // Another commit may have had the same content.
        if !path.metadata().is_ok_and(|found| found.is_file() && whole(found.len())) {
            self.fill(at, &announced)?;
        }
        self.cache.link(&self.commit, file, &announced.blob)
    }

    /// Downloads and checks the blob.
    fn fill(&self, at: FileAt, announced: &Announced) -> Result<(), HubError> {
        loop {
            let mut partial = self.cache.begin(&announced.blob)?;
            let (transport, observer) = (&self.hub.inner.transport, &self.hub.inner.observer);
            if let Err(error) = transport.download(at, announced.size, &mut partial, observer) {
                if error.keeps_part() {
                    partial.park();
                }
                return Err(error);
            }
            match announced.blob.verify(partial.path(), at.file) {
                Ok(()) => return partial.finish(&self.cache.blob(&announced.blob)),
                // The older part may be what is wrong. It is gone now, and the next round starts from nothing.
                Err(HubError::WrongHash { .. }) if partial.resumed() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Up to three names of `files` that are like `file`: the same name in another folder, or a slip of the keys.
fn near_matches(file: &str, files: &[String]) -> Vec<String> {
    let base = |name: &str| name.rsplit('/').next().unwrap_or_default().to_lowercase();
    let wanted = base(file);
    let mut scored: Vec<(f64, &String)> = files
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&wanted, &base(name)), name))
        .filter(|(score, _)| *score >= 0.6)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_matches_are_slips_and_other_folders() {
        let files: Vec<String> =
            ["config.json", "onnx/model.onnx", "model.safetensors", "vocab.json"].map(str::to_owned).to_vec();
        assert_eq!(near_matches("model.safetensor", &files), ["model.safetensors"]);
        assert_eq!(near_matches("model.onnx", &files), ["onnx/model.onnx"]);
        assert!(near_matches("README", &files).is_empty());
    }

    #[test]
    fn a_hub_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Hub>();
        shared::<Snapshot>();
    }
}
