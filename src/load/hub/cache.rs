//! The local cache of one repository, shared with Python's `huggingface_hub`.
//!
//! ```text
//! models--ORG--NAME/
//!   refs/REVISION              text: the commit that a branch or tag was at when last asked
//!   snapshots/COMMIT/FILE      relative link to ../../blobs/ETAG (a copy where links cannot be made)
//!   blobs/ETAG                 the bytes
//!   blobs/ETAG.*.incomplete    the bytes so far
//! ```
//!
//! A blob appears under its name by one rename of a finished, checked file, so that whatever has a blob's name is whole.
//! There are no locks: they do nothing on some network file systems, and may outlive who took them. Each download
//! writes a file of its own instead; two at once cost bandwidth and no harm. A download that breaks off is parked as
//! `ETAG.resume.incomplete`, and the next one claims it by renaming it, which only one can.
//!
//! Must not know where the bytes come from.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::blob::BlobId;
use super::names::is_commit;
use super::{HubError, RepoId};

/// The folder of one repository in the cache.
#[derive(Clone, Debug)]
pub(super) struct RepoCache {
    root: PathBuf,
}

impl RepoCache {
    pub fn new(cache: &Path, repo: &RepoId) -> Self {
        let root = cache.join(repo.at("main").folder_name());
        Self { root }
    }

    /// `models--ORG--NAME` and what precedes it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn blob(&self, blob: &BlobId) -> PathBuf {
        self.blobs().join(blob.as_str())
    }

    /// The commit of `revision`, if at least the folder of its files is here.
    pub fn resolve(&self, revision: &str) -> Option<String> {
        let commit = match fs::read_to_string(self.reference(revision)) {
            Ok(text) => text.trim().to_owned(),
            Err(_) => revision.to_owned(),
        };
        (is_commit(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// Notes that `revision` is at `commit` now.
    pub fn note(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.reference(revision);
        let known = fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit);
        if revision == commit || known {
            return Ok(());
        }
        create_parent(&path)?;
        let (temporary, mut file) = create_unique(&path, "tmp")?;
        let written = file.write_all(commit.as_bytes()).and_then(|()| fs::rename(&temporary, &path));
        drop(file);
        written.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            HubError::write(&path, source)
        })
    }

    /// The path of `file` if it is here, links followed.
    pub fn find(&self, commit: &str, file: &str) -> Option<PathBuf> {
        let path = self.snapshot(commit).join(file);
        path.is_file().then_some(path)
    }

    /// All files of `commit` that are here, sorted, with `/` between folders.
    pub fn files(&self, commit: &str) -> Vec<String> {
        let mut files = Vec::new();
        list_files(&self.snapshot(commit), "", &mut files);
        files.sort();
        files
    }

    /// Makes `file` of `commit` lead to `blob`.
    pub fn link(&self, commit: &str, file: &str, blob: &BlobId) -> Result<PathBuf, HubError> {
        self.link_by(commit, file, blob, symlink)
    }

    /// A place for the bytes of `blob`, with those that an earlier download left.
    pub fn begin(&self, blob: &BlobId) -> Result<Partial, HubError> {
        let path = self.blob(blob);
        create_parent(&path)?;
        let parked = with_suffix(&path, "resume.incomplete");
        let (path, file) = create_unique(&path, "incomplete")?;
        let mut partial = Partial { resumed: false, path, file, parked };
        // Without a hash at the end, nothing would tell whether the two parts belong together.
        if blob.is_hash() && fs::rename(&partial.parked, &partial.path).is_ok() {
            partial.reopen()?;
        }
        Ok(partial)
    }

    /// The way links are made is a parameter, as tests need one that fails.
    fn link_by(
        &self,
        commit: &str,
        file: &str,
        blob: &BlobId,
        symlink: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> Result<PathBuf, HubError> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        let folders_up = 1 + file.split('/').count();
        let target: PathBuf = (0..folders_up).map(|_| "..").chain(["blobs", blob.as_str()]).collect();
        // Made in `blobs` and moved, so that an old, broken link is replaced in one step.
        let temporary = unique(&self.blob(blob), "link");
        let made = symlink(&target, &temporary)
            .or_else(|_| fs::copy(self.blob(blob), &temporary).map(drop))
            .and_then(|()| fs::rename(&temporary, &path));
        made.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            HubError::write(&path, source)
        })?;
        Ok(path)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }
}

/// The sha256 of a cached file's bytes, where its blob's name is one.
pub(super) fn sha256_of(path: &Path) -> Option<String> {
    let blob = fs::canonicalize(path).ok()?;
    if blob.parent()?.file_name()? != "blobs" {
        return None;
    }
    let name = BlobId::from_etag(blob.file_name()?.to_str()?)?;
    name.sha256().map(str::to_owned)
}

/// Checks a cached file against the name of its blob; where that says nothing of the bytes, there is nothing to check.
///
/// # Errors
/// [`HubError::Damaged`], [`HubError::CacheNotReadable`].
pub(super) fn check(path: &Path, file: &str) -> Result<(), HubError> {
    let unreadable = |source| HubError::CacheNotReadable { path: path.to_owned(), source };
    let blob = fs::canonicalize(path).map_err(unreadable)?;
    let named = blob.parent().and_then(Path::file_name).is_some_and(|folder| folder == "blobs");
    let id = blob.file_name().and_then(|name| name.to_str()).filter(|_| named).and_then(BlobId::from_etag);
    match id.map(|id| id.verify(&blob, file)) {
        Some(Err(HubError::WrongHash { algorithm, expected, found, .. })) => {
            Err(HubError::Damaged { path: blob, algorithm, expected, found })
        }
        Some(result) => result,
        None => Ok(()),
    }
}

/// The bytes of a blob so far, in a file that belongs to this download alone. Dropped, it is deleted.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    parked: PathBuf,
    resumed: bool,
}

impl Partial {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether an earlier download's bytes are in it.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Bytes so far.
    pub fn len(&self) -> Result<u64, HubError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|source| self.failed(source))?.len())
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| self.failed(source))
    }

    /// Throws away the bytes so far.
    pub fn restart(&mut self) -> Result<(), HubError> {
        self.resumed = false;
        if self.len()? == 0 {
            return Ok(());
        }
        self.file.set_len(0).map_err(|source| self.failed(source))
    }

    /// Gives the finished and checked file the blob's name.
    pub fn finish(self, blob: &Path) -> Result<(), HubError> {
        // Without this, a power failure can leave the name and not the bytes.
        let synced = self.file.sync_all();
        synced.and_then(|()| fs::rename(&self.path, blob)).map_err(|source| HubError::write(blob, source))
    }

    /// Leaves the bytes for the next download. Where that fails, they are deleted.
    pub fn park(self) {
        if self.len().is_ok_and(|len| len > 0) {
            let _ = fs::rename(&self.path, &self.parked);
        }
    }

    fn reopen(&mut self) -> Result<(), HubError> {
        let opened = OpenOptions::new().append(true).open(&self.path);
        self.file = opened.map_err(|source| self.failed(source))?;
        self.resumed = self.len()? > 0;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> HubError {
        HubError::write(&self.path, source)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Creates `PATH.RANDOM.suffix`, with the mode that the process's umask gives: caches are shared between users.
fn create_unique(path: &Path, suffix: &str) -> Result<(PathBuf, File), HubError> {
    let path = unique(path, suffix);
    let file = OpenOptions::new().append(true).create_new(true).open(&path);
    match file {
        Ok(file) => Ok((path, file)),
        Err(source) => Err(HubError::write(&path, source)),
    }
}

/// `PATH.RANDOM.suffix`: new even on a file system that several machines share, where process numbers repeat.
fn unique(path: &Path, suffix: &str) -> PathBuf {
    let random = RandomState::new().build_hasher().finish();
    with_suffix(path, &format!("{random:016x}.{suffix}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn create_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(|source| HubError::write(folder, source)),
        None => Ok(()),
    }
}

/// Folders that cannot be read hold no known files.
fn list_files(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = entry.path();
        let name = format!("{prefix}{name}");
        if path.is_file() {
            files.push(name);
        } else if path.is_dir() {
            list_files(&path, &format!("{name}/"), files);
        }
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::hub::RepoKind;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache() -> (tempfile::TempDir, RepoCache, BlobId) {
        let folder = tempfile::tempdir().unwrap();
        let repo = RepoId::new(RepoKind::Model, "org/name").unwrap();
        let cache = RepoCache::new(folder.path(), &repo);
        let blob = BlobId::from_etag(&"ab".repeat(32)).unwrap();
        (folder, cache, blob)
    }

    fn names_in(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn store(cache: &RepoCache, blob: &BlobId, bytes: &[u8]) {
        let mut partial = cache.begin(blob).unwrap();
        partial.append(bytes).unwrap();
        partial.finish(&cache.blob(blob)).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn links_are_relative_at_any_depth() {
        let (_folder, cache, blob) = cache();
        store(&cache, &blob, b"bytes");
        for (file, up) in [("a.json", "../.."), ("x/y/a.json", "../../../..")] {
            let path = cache.link(COMMIT, file, &blob).unwrap();
            let target = format!("{up}/blobs/{}", blob.as_str());
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(&target));
            assert_eq!(fs::read(&path).unwrap(), b"bytes");
            assert_eq!(sha256_of(&path).as_deref(), Some(blob.as_str()));
        }
        assert_eq!(cache.files(COMMIT), ["a.json", "x/y/a.json"]);
        assert_eq!(names_in(&cache.blobs()), [blob.as_str()]);
    }

    #[test]
    fn where_links_cannot_be_made_the_file_is_copied() {
        let (_folder, cache, blob) = cache();
        store(&cache, &blob, b"bytes");
        let refuse = |_: &Path, _: &Path| Err(io::ErrorKind::Unsupported.into());
        let path = cache.link_by(COMMIT, "a.json", &blob, refuse).unwrap();
        assert!(!path.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"bytes");
        assert_eq!(sha256_of(&path), None);
        assert_eq!(names_in(&cache.blobs()), [blob.as_str()]);
    }

    #[cfg(unix)]
    #[test]
    fn a_broken_link_is_not_a_file_and_is_replaced() {
        let (_folder, cache, blob) = cache();
        let path = cache.snapshot(COMMIT).join("a.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(Path::new("../../blobs/gone"), &path).unwrap();
        assert_eq!(cache.find(COMMIT, "a.json"), None);
        assert!(cache.files(COMMIT).is_empty());
        store(&cache, &blob, b"bytes");
        cache.link(COMMIT, "a.json", &blob).unwrap();
        assert!(cache.find(COMMIT, "a.json").is_some());
    }

    #[test]
    fn a_parked_part_is_claimed_by_one_download_only() {
        let (_folder, cache, blob) = cache();
        let mut first = cache.begin(&blob).unwrap();
        first.append(b"half").unwrap();
        first.park();
        let (mut second, third) = (cache.begin(&blob).unwrap(), cache.begin(&blob).unwrap());
        assert_eq!((second.len().unwrap(), second.resumed()), (4, true));
        assert_eq!((third.len().unwrap(), third.resumed()), (0, false));
        second.append(b" more").unwrap();
        second.finish(&cache.blob(&blob)).unwrap();
        drop(third);
        assert_eq!(fs::read(cache.blob(&blob)).unwrap(), b"half more");
        assert_eq!(names_in(&cache.blobs()), [blob.as_str()]);
    }

    #[test]
    fn without_a_hash_nothing_is_resumed() {
        let (_folder, cache, _) = cache();
        let blob = BlobId::from_etag("a-name").unwrap();
        let mut first = cache.begin(&blob).unwrap();
        first.append(b"half").unwrap();
        first.park();
        assert_eq!(cache.begin(&blob).unwrap().len().unwrap(), 0);
    }

    #[test]
    fn a_revision_resolves_only_to_a_commit_whose_folder_is_here() {
        let (_folder, cache, _) = cache();
        assert_eq!(cache.resolve("main"), None);
        cache.note("main", COMMIT).unwrap();
        cache.note("refs/pr/1", COMMIT).unwrap();
        assert_eq!(cache.resolve("main"), None);
        fs::create_dir_all(cache.snapshot(COMMIT)).unwrap();
        for revision in ["main", "refs/pr/1", COMMIT] {
            assert_eq!(cache.resolve(revision).as_deref(), Some(COMMIT));
        }
        fs::write(cache.reference("main"), "../../../etc\n").unwrap();
        assert_eq!(cache.resolve("main"), None);
        assert_eq!(names_in(&cache.root().join("refs")), ["main", "refs"]);
    }
}
