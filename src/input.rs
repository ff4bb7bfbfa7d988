//! Opens the files that a user or a download names: regular files only, and no larger than their kind can be.
//!
//! A FIFO would block for ever, `/dev/zero` would never end, and a text of many gigabytes would take all memory. This
//! module knows paths and sizes; what is in a file is for its callers.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// The largest experiment file, configuration, index or plan that is read: a thousand times what people write.
pub const SMALL: u64 = 64 << 20;
/// The largest text or tokenizer that is read.
pub const LARGE: u64 = 8 << 30;

/// Opens a regular file.
///
/// # Errors
/// What the system says; `InvalidInput` where the path names something else than a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Before opening, which would block on a FIFO; and again after it, since a name can change its file.
    regular(&std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`]; `FileTooLarge` beyond `limit`.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    if size > limit {
        return Err(too_large(size, limit));
    }
    let mut bytes = Vec::new();
    // The file may grow meanwhile, and those of /proc have no size.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64, limit)) } else { Ok(bytes) }
}

/// Reads a regular UTF-8 file of at most `limit` bytes.
///
/// # Errors
/// As [`read`]; `InvalidData` where the file is not UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, format!("no UTF-8 text, {}", error.utf8_error())))
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() { "a folder" } else { "a device, pipe or socket" };
    Err(io::Error::new(ErrorKind::InvalidInput, format!("{what}, not a regular file")))
}

fn too_large(size: u64, limit: u64) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("{size} bytes, more than the {limit} that are read of such a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "name = 1").unwrap();
        assert_eq!(read_to_string(&path, 8).unwrap(), "name = 1");
        assert_eq!(read(&path, 7).unwrap_err().kind(), ErrorKind::FileTooLarge);
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_to_string(&path, 8).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(read(&folder.path().join("b"), 8).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn folders_are_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path(), 8).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::InvalidInput, "a folder, not a regular file")
        );
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_pipes_are_refused_at_once() {
        let error = read(Path::new("/dev/zero"), SMALL).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(open(&fifo).unwrap_err().to_string(), "a device, pipe or socket, not a regular file");
    }
}
