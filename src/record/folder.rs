//! A folder that is written whole or not at all: beside its place, synced and renamed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use thiserror::Error;

/// A file or folder can't be written.
#[derive(Debug, Error)]
#[error("failed to write `{}`", path.display())]
pub struct WriteError {
    /// Which.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// A folder in the making. Dropped unfinished, it leaves nothing behind.
#[derive(Debug)]
pub struct NewFolder {
    writing: TempDir,
    place: PathBuf,
}

impl NewFolder {
    /// An empty folder beside `place`, made with the folders above it.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn beside(place: &Path) -> Result<Self, WriteError> {
        let error = |source| WriteError { path: place.into(), source };
        let above = above(place);
        std::fs::create_dir_all(&above).map_err(error)?;
        Ok(Self { writing: temporary(&above).map_err(error)?, place: place.into() })
    }

    /// Writes a file, and says how long it is.
    ///
    /// # Errors
    /// Those of `fill`, and when it can't be written.
    pub fn write<E: From<WriteError>>(
        &self,
        name: &str,
        fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let path = self.writing.path().join(name);
        let error = |source| E::from(WriteError { path: self.place.join(name), source });
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(error)?);
        fill(&mut file)?;
        file.flush().map_err(error)?;
        file.get_ref().sync_all().map_err(error)?;
        Ok(file.get_ref().metadata().map_err(error)?.len())
    }

    /// Puts the folder in its place. What is there already goes once the new one is there.
    ///
    /// # Errors
    /// When it can't be; what was there is still there then.
    pub fn finish(self) -> Result<(), WriteError> {
        let Self { writing, place } = self;
        let error = |source| WriteError { path: place.clone(), source };
        let old = if place.exists() {
            let old = temporary(&above(&place)).map_err(error)?;
            std::fs::rename(&place, old.path().join("old")).map_err(error)?;
            Some(old)
        } else {
            None
        };
        if let Err(source) = std::fs::rename(writing.path(), &place) {
            if let Some(old) = &old {
                // If this fails too, there is no more to be done than to say so.
                let _ = std::fs::rename(old.path().join("old"), &place);
            }
            return Err(error(source));
        }
        // It is no longer where it was made, so that there is nothing to remove.
        let _ = writing.keep();
        Ok(())
    }
}

fn above(place: &Path) -> PathBuf {
    let above = place.parent().filter(|above| !above.as_os_str().is_empty());
    above.unwrap_or(Path::new(".")).into()
}

fn temporary(folder: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // A temporary folder is private by default; this one is to be shared, as far as the umask allows.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o777));
    }
    builder.prefix(super::atomic::WRITING).tempdir_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn folder(place: &Path, content: &'static [u8]) -> NewFolder {
        let folder = NewFolder::beside(place).unwrap();
        let fill = |file: &mut BufWriter<File>| {
            file.write_all(content).map_err(|source| WriteError { path: "a".into(), source })
        };
        assert_eq!(folder.write("a", fill).unwrap(), content.len() as u64);
        folder
    }

    #[test]
    fn a_folder_appears_when_it_is_finished() {
        let lab = tempfile::tempdir().unwrap();
        let place = lab.path().join("deep/new");
        let unfinished = folder(&place, b"one");
        assert!(!place.exists());
        drop(unfinished);
        assert!(names(&lab.path().join("deep")).is_empty());
        folder(&place, b"two").finish().unwrap();
        assert_eq!(names(&lab.path().join("deep")), ["new"]);
        assert_eq!(names(&place), ["a"]);
    }

    #[test]
    fn a_finished_folder_takes_the_place_of_another() {
        let lab = tempfile::tempdir().unwrap();
        let place = lab.path().join("new");
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("b"), "old").unwrap();
        folder(&place, b"new").finish().unwrap();
        assert_eq!((names(lab.path()), names(&place)), (vec!["new".to_owned()], vec!["a".to_owned()]));
    }
}
