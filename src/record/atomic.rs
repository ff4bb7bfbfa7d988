//! Files that are whole or missing: written beside their place, synced and renamed.
//!
//! ```text
//!   bytes, or a function that writes them ──> .writing-XXXX ──sync──> rename ──> PATH
//!                                               └ equal to what is there: goes, and PATH stays as it is
//! ```
//! Owns how a file takes its place, and by what it is told from another. Knows no folder and no format.

use crate::input;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

/// What a file is called while it is written.
pub(super) const WRITING: &str = ".writing-";

/// Removes files that a killed process was writing: whole days old, so that no living one misses them.
pub(super) fn clear_leftovers(folder: &Path) {
    const OLD: Duration = Duration::from_secs(24 * 60 * 60);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|modified| modified.elapsed().ok());
        if entry.file_name().to_string_lossy().starts_with(WRITING) && age.is_some_and(|age| age > OLD) {
            // It may be gone already, or not ours to remove: it does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Writes a file.
///
/// # Errors
/// When it can't be written; what was there before is still there then.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if input::read(path, bytes.len() as u64).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let mut file = beside(path)?;
    file.write_all(bytes)?;
    finished(file, path)
}

/// Writes a file piece by piece.
///
/// # Errors
/// As [`write`].
pub(super) fn write_by(path: &Path, content: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut file = beside(path)?;
    let mut buffered = BufWriter::new(&mut file);
    content(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    if same_content(file.path(), path).unwrap_or(false) { Ok(()) } else { finished(file, path) }
}

/// A new file in the folder of another.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // A temporary file is private by default; results are to be shared, as far as the umask allows.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.prefix(WRITING).tempfile_in(folder)
}

/// Gives a file its name, once all of it is on the disk.
fn finished(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Whether two files hold the same bytes.
fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (input::open(a)?, input::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if left[..length] != right[..length] || left.is_empty() != right.is_empty() {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
        a.consume(length);
        b.consume(length);
    }
}

/// What tells a file from one that takes its place: files are never changed, only renamed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// Of a file; none where there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { bytes: metadata.len(), modified: metadata.modified().ok(), inode: inode(&metadata) })
    }
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// Elsewhere size and time have to do.
#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_file_stays_and_another_takes_its_place() {
        let lab = tempfile::tempdir().unwrap();
        let path = lab.path().join("a/b.csv");
        let long = "x".repeat(100_000);
        for (text, changes) in [("", true), ("1\n", true), ("1\n", false), ("2\n", true), (&long, true), (&long, false)]
        {
            let before = Stamp::of(&path);
            write_by(&path, &mut |to| to.write_all(text.as_bytes())).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(Stamp::of(&path) != before, changes, "{text:.9}");
            // The whole at once writes the same, and so leaves it.
            let before = Stamp::of(&path);
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(Stamp::of(&path), before);
        }
        assert_eq!(std::fs::read_dir(lab.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn what_breaks_off_leaves_what_was_there() {
        let lab = tempfile::tempdir().unwrap();
        let path = lab.path().join("b.csv");
        write(&path, b"old").unwrap();
        let broken = |to: &mut dyn Write| to.write_all(b"new").and(Err(io::Error::other("full")));
        assert!(write_by(&path, &mut { broken }).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(lab.path()).unwrap().count(), 1);
    }
}
