//! SHA-256 of files, remembered between runs: hashing a large checkpoint takes longer than planning with it.
//!
//! ```text
//!   ~/.cache/sparsify-exp/digests/SHA256-OF-THE-PATH      "SIZE SECONDS NANOSECONDS SHA256-OF-THE-FILE"
//! ```
//!
//! What is remembered counts while size and time of change are the same. Small files are hashed anew, and one that
//! has changed just now is not remembered: it may change again within the clock's resolution.

use crate::hex::hex;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Smaller files take no time worth remembering.
const LARGE: u64 = 64 << 20;
/// Longer than the resolution of any file system's clock.
const SETTLED: Duration = Duration::from_secs(3);

/// The SHA-256 of a file, in hexadecimal digits.
pub(super) fn sha256_of(path: &Path) -> io::Result<String> {
    match folder() {
        Some(folder) => remembered(path, &folder, LARGE),
        None => computed(path),
    }
}

fn folder() -> Option<PathBuf> {
    Some(crate::cache::folder()?.join("digests"))
}

fn remembered(path: &Path, folder: &Path, large: u64) -> io::Result<String> {
    let Some(state) = State::of(path)?.filter(|state| state.size >= large) else { return computed(path) };
    let memo = folder.join(hex(&Sha256::digest(fs::canonicalize(path)?.as_os_str().as_encoded_bytes())));
    if let Some(sha256) = fs::read_to_string(&memo).ok().and_then(|text| state.of_memo(&text)) {
        return Ok(sha256);
    }
    let sha256 = computed(path)?;
    if State::of(path)?.as_ref() == Some(&state) && state.settled() {
        // A folder that can't be written costs time at the next run, and nothing else.
        let _ = write(folder, &memo, &state.memo(&sha256));
    }
    Ok(sha256)
}

/// At once, so that a process beside this one reads the whole of it or nothing.
fn write(folder: &Path, memo: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(memo)?;
    Ok(())
}

fn computed(path: &Path) -> io::Result<String> {
    let mut file = crate::input::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// What tells whether a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    size: u64,
    changed: Duration,
}

impl State {
    /// None where the system does not say when it was changed.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let metadata = fs::metadata(path)?;
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(changed.map(|changed| Self { size: metadata.len(), changed }))
    }

    fn settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.checked_sub(self.changed).is_some_and(|age| age >= SETTLED)
    }

    fn memo(&self, sha256: &str) -> String {
        format!("{} {} {} {sha256}\n", self.size, self.changed.as_secs(), self.changed.subsec_nanos())
    }

    /// The digest of a memo that was written in this state.
    fn of_memo(&self, text: &str) -> Option<String> {
        let sha256 = text.trim_end().rsplit(' ').next()?;
        let whole = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        (whole && self.memo(sha256) == text).then(|| sha256.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_changed(path: &Path, seconds: u64) {
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_digest_is_remembered_until_size_or_time_change() {
        let dir = tempfile::tempdir().unwrap();
        let (path, folder) = (dir.path().join("model"), dir.path().join("cache/digests"));
        let digest = || remembered(&path, &folder, 1).unwrap();
        fs::write(&path, "one").unwrap();
        set_changed(&path, 1000);
        let one = digest();
        assert_eq!(one, computed(&path).unwrap());
        // The file was changed unseen: only what is remembered says `one` now.
        fs::write(&path, "two").unwrap();
        set_changed(&path, 1000);
        assert_eq!(digest(), one);
        set_changed(&path, 1001);
        assert_eq!(digest(), computed(&path).unwrap());
        fs::write(&path, "three").unwrap();
        set_changed(&path, 1001);
        assert_eq!(digest(), computed(&path).unwrap());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn new_and_small_files_are_not_remembered_and_damaged_memos_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, folder) = (dir.path().join("model"), dir.path().join("digests"));
        fs::write(&path, "one").unwrap();
        assert_eq!(remembered(&path, &folder, 1).unwrap(), computed(&path).unwrap());
        set_changed(&path, 1000);
        assert_eq!(remembered(&path, &folder, 4).unwrap(), computed(&path).unwrap());
        assert!(!folder.exists());
        remembered(&path, &folder, 1).unwrap();
        let memo = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        for text in ["", "3 1000 0 ", "3 1000 0 abc\n", "\0"] {
            fs::write(&memo, text).unwrap();
            assert_eq!(remembered(&path, &folder, 1).unwrap(), computed(&path).unwrap());
        }
        assert!(remembered(&dir.path().join("absent"), &folder, 1).is_err());
    }
}
