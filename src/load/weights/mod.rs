//! A checkpoint's weights: files on disk → named tensors, row-major, in f32.
//!
//! ```text
//! safetensors ┐                                    ┌ info: dtype, shape
//! .bin (zip)  ├→ name → View of a mapped file → ───┤
//! .bin (old)  ┘                                    └ read_f32: &[f32] in place, or a widened copy
//! ```
//!
//! packed.rs: matrices without their zeros, read as the whole matrices that they stand for. write.rs: safetensors out.
//!
//! Opening reads only the descriptions. Tensors are read one at a time, so that no more than one needs
//! memory besides the mapping. Untrusted files are refused with an error: lengths are checked against the
//! file before anything is allocated, and pickles execute nothing.
//!
//! Owns the file formats. Must not know what a model is, nor where checkpoints come from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

mod error;
mod files;
mod packed;
mod pickle;
mod safetensors_file;
#[cfg(test)]
mod tests;
mod torch_file;
mod view;
mod write;

pub use error::{FileProblem, TensorProblem, WeightsError};
pub use files::{SPARSE_FILE, WEIGHT_FILES, find_files, index_shards};
pub use packed::{SUFFIXES, bitmap, mask, values};
pub use pickle::PickleError;
pub use safetensors::Dtype;
pub use view::TensorInfo;
pub use write::write_safetensors;

use packed::Packed;
use view::View;

const LFS_MAGIC: &[u8] = b"version https://git-lfs";

/// The named tensors of one or more open files.
#[derive(Debug)]
pub struct Weights {
    files: Vec<Source>,
    tensors: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

#[derive(Debug)]
struct Place {
    /// Index into [`Weights::files`].
    file: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Whole(View),
    Packed(Packed),
}

impl Content {
    fn info(&self) -> &TensorInfo {
        match self {
            Self::Whole(view) => &view.info,
            Self::Packed(packed) => &packed.info,
        }
    }
}

impl Weights {
    /// Opens a checkpoint's files, such as [`find_files`] gives. The format is told by the extension
    /// `.safetensors`, otherwise by the first bytes.
    ///
    /// The files are mapped: they must not be shortened while the value lives, or reading them ends the process
    /// with SIGBUS. Replacing them (by renaming, as downloads do) is fine.
    ///
    /// # Errors
    /// If a file cannot be read, is damaged, of another format, or describes a tensor that doesn't fit its bytes; if
    /// two files have a tensor of the same name.
    pub fn open_files(files: &[PathBuf]) -> Result<Self, WeightsError> {
        let sources = files.iter().map(|path| Ok(Source { path: path.clone(), bytes: map(path)? }));
        Self::new(sources.collect::<Result<_, _>>()?)
    }

    /// Opens a safetensors file that is part of the program; `label` stands for its path in messages.
    ///
    /// # Errors
    /// As [`Weights::open_files`].
    pub fn from_static(bytes: &'static [u8], label: &str) -> Result<Self, WeightsError> {
        Self::new(vec![Source { path: label.into(), bytes: Bytes::Static(bytes) }])
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Type and shape of a tensor, if there is one of this name.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|place| place.content.info())
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The files, in the order in which they were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// A tensor's elements in row-major order. Borrowed from the file if they are f32 and in that order
    /// already; otherwise a copy, widened on all of rayon's threads. F64 is rounded to the nearest f32.
    ///
    /// # Errors
    /// If there is no such tensor, it isn't of a floating-point type of 16 to 64 bits, it is an expanded
    /// tensor, or a finite F64 value is beyond the range of f32.
    pub fn read_f32(&self, name: &str) -> Result<Cow<'_, [f32]>, WeightsError> {
        let (file, content) = self.find(name)?;
        let read = match content {
            Content::Whole(view) => view.read(&file.bytes),
            Content::Packed(packed) => packed.bytes(&file.bytes).and_then(|bytes| {
                let whole = View::contiguous(packed.info.dtype, packed.info.shape.clone(), 0..bytes.len());
                whole.read(&bytes).map(|numbers| Cow::Owned(numbers.into_owned()))
            }),
        };
        read.map_err(|problem| tensor_error(&file.path, name, problem))
    }

    /// A tensor's elements in row-major order as the file has them: little-endian, of its own dtype. Borrowed from
    /// the file if they are in that order already.
    ///
    /// # Errors
    /// If there is no such tensor, it isn't of a floating-point type of 16 to 64 bits, or it is an expanded tensor.
    pub fn read_bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightsError> {
        let (file, content) = self.find(name)?;
        let read = match content {
            Content::Whole(view) => view.bytes(&file.bytes),
            Content::Packed(packed) => packed.bytes(&file.bytes).map(Cow::Owned),
        };
        read.map_err(|problem| tensor_error(&file.path, name, problem))
    }

    fn find(&self, name: &str) -> Result<(&Source, &Content), WeightsError> {
        match self.tensors.get(name) {
            Some(Place { file, content }) => Ok((&self.files[*file], content)),
            None => {
                let files = self.files.iter().map(|file| file.path.clone()).collect();
                Err(WeightsError::NoSuchTensor { name: name.into(), files })
            }
        }
    }

    /// Gives the memory pages of a tensor that is no longer needed back to the system. The tensor can be
    /// read again. Without this, a file's pages count as the process's memory from their first use on.
    pub fn release(&self, name: &str) {
        let Ok((file, content)) = self.find(name) else { return };
        let views = match content {
            Content::Whole(view) => vec![view],
            Content::Packed(packed) => vec![&packed.bitmap, &packed.values],
        };
        for view in views {
            file.bytes.release(view.storage.start, view.storage.len());
        }
    }

    fn new(files: Vec<Source>) -> Result<Self, WeightsError> {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for (name, content) in contents(file)? {
                match places.get(&name) {
                    Some(place) if place.file != index => {
                        let first = files[place.file].path.clone();
                        return Err(WeightsError::DuplicateTensor { name, first, second: file.path.clone() });
                    }
                    _ => places.insert(name, Place { file: index, content }),
                };
            }
        }
        Ok(Self { files, tensors: places })
    }
}

/// The tensors of the file `bytes`, by name, all inside it; `path` is for its extension and for messages.
fn tensors(path: &Path, bytes: &[u8]) -> Result<Vec<(String, View)>, WeightsError> {
    let is_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
    let tensors = match bytes {
        [] => Err(FileProblem::Empty),
        _ if bytes.starts_with(LFS_MAGIC) => Err(FileProblem::LfsPointer),
        _ if is_safetensors => safetensors_file::tensors(bytes),
        _ if bytes.starts_with(torch_file::ZIP_MAGIC) => torch_file::zip_tensors(bytes),
        _ if bytes.starts_with(torch_file::LEGACY_MAGIC) => torch_file::legacy_tensors(bytes),
        // A safetensors header is JSON after its length.
        [_, _, _, _, _, _, _, _, b'{', ..] => safetensors_file::tensors(bytes),
        _ => Err(FileProblem::UnknownFormat),
    };
    let tensors = tensors.map_err(|problem| WeightsError::File { path: path.into(), problem })?;
    if tensors.is_empty() {
        return Err(WeightsError::File { path: path.into(), problem: FileProblem::NoTensors });
    }
    for (name, view) in &tensors {
        view.check_bounds().map_err(|problem| tensor_error(path, name, problem))?;
    }
    Ok(tensors)
}

/// The tensors of a file as they are seen from outside.
fn contents(file: &Source) -> Result<Vec<(String, Content)>, WeightsError> {
    let mut views: BTreeMap<String, View> = tensors(&file.path, &file.bytes)?.into_iter().collect();
    let packed = Packed::take_from(&mut views, &file.bytes);
    let packed = packed.map_err(|(name, problem)| tensor_error(&file.path, &name, problem))?;
    let whole = views.into_iter().map(|(name, view)| (name, Content::Whole(view)));
    Ok(whole.chain(packed.into_iter().map(|(name, packed)| (name, Content::Packed(packed)))).collect())
}

impl Bytes {
    #[cfg(unix)]
    fn release(&self, offset: usize, length: usize) {
        if let Self::Mapped(map) = self {
            // Advice only: memory stays in use if the system refuses it.
            // SAFETY: the mapping is of a file, shared and never written, so that pages which are dropped
            // are read from the file again with the same contents.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, length) };
        }
    }

    #[cfg(not(unix))]
    fn release(&self, _offset: usize, _length: usize) {}
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}

fn map(path: &Path) -> Result<Bytes, WeightsError> {
    let io_error = |error| WeightsError::Io { path: path.into(), error };
    let file = File::open(path).map_err(io_error)?;
    if file.metadata().map_err(io_error)?.len() == 0 {
        return Ok(Bytes::Static(&[]));
    }
    // SAFETY: the mapping is only read. That nobody shortens or rewrites the file meanwhile cannot be ensured
    // here; `Weights::open_files` says so.
    let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
    Ok(Bytes::Mapped(map))
}

fn tensor_error(path: &Path, name: &str, problem: TensorProblem) -> WeightsError {
    WeightsError::Tensor { path: path.into(), name: name.into(), problem }
}
