//! The identity of a file's content, which is also its name in the cache.
//!
//! ```text
//! etag, 64 hex digits   sha256 of the bytes                          large files (git LFS, Xet)
//! etag, 40 hex digits   sha1 of "blob LENGTH\0" and the bytes        files in git itself
//! etag, anything else   a name, which says nothing of the bytes      some mirrors
//! ```

use crate::hex::hex;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::HubError;
use super::names::is_hex;

/// A file's etag, cleaned of quotes and safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlobId(String);

impl BlobId {
    /// Reads an `etag` header, such as `"abc"` or `W/"abc"`. `None` if it cannot name a file.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let etag = etag.trim();
        let name = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good = (1..=128).contains(&name.len()) && name.chars().all(plain);
        (good && !name.starts_with('.')).then(|| Self(name.to_owned()))
    }

    /// The name in `blobs/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The sha256 of the content, where the name is one.
    pub fn sha256(&self) -> Option<&str> {
        is_hex(&self.0, 64).then_some(self.0.as_str())
    }

    /// Whether the name says which bytes are the right ones.
    pub fn is_hash(&self) -> bool {
        is_hex(&self.0, 64) || is_hex(&self.0, 40)
    }

    /// Reads the file at `path` and checks it against this name; `file` is what messages call it.
    ///
    /// The file is read back rather than hashed on its way in, so that what is checked is what lies on the disk,
    /// resumed parts included.
    ///
    /// # Errors
    /// [`HubError::WrongHash`], [`HubError::CacheNotReadable`].
    pub fn verify(&self, path: &Path, file: &str) -> Result<(), HubError> {
        let found = match self.0.len() {
            _ if !self.is_hash() => return Ok(()),
            64 => hash_file::<Sha256>(path, false),
            _ => hash_file::<Sha1>(path, true),
        };
        let found = found.map_err(|source| HubError::CacheNotReadable { path: path.to_owned(), source })?;
        if found == self.0 {
            return Ok(());
        }
        Err(HubError::WrongHash {
            file: file.to_owned(),
            algorithm: if self.0.len() == 64 { "sha256" } else { "git sha1" },
            expected: self.0.clone(),
            found,
        })
    }
}

fn hash_file<D: Digest>(path: &Path, git_header: bool) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = D::new();
    if git_header {
        hasher.update(format!("blob {}\0", file.metadata()?.len()));
    }
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_cleaned_and_unsafe_ones_refused() {
        for (etag, name) in [("\"ab\"", "ab"), ("W/\"ab-1\"", "ab-1"), ("ab", "ab")] {
            assert_eq!(BlobId::from_etag(etag).unwrap().as_str(), name);
        }
        for bad in ["", "\"\"", "../x", "a/b", "\"..\"", ".hidden", "a\\b"] {
            assert_eq!(BlobId::from_etag(bad), None, "{bad}");
        }
    }

    /// The expected values are those of `git hash-object` and `sha256sum` for the bytes `hello\n`.
    #[test]
    fn both_hashes_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "hello\n").unwrap();
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for name in [git, sha256, "not-a-hash"] {
            BlobId::from_etag(name).unwrap().verify(&path, "x").unwrap();
        }
        std::fs::write(&path, "jello\n").unwrap();
        for name in [git, sha256] {
            let error = BlobId::from_etag(name).unwrap().verify(&path, "x").unwrap_err();
            assert!(matches!(error, HubError::WrongHash { expected, .. } if expected == name));
        }
    }
}
