//! A checkpoint's weights: files on disk → named tensors, row-major, in f32.
//!
//! ```text
//! safetensors ┐                                    ┌ info: dtype, shape
//! .bin (zip)  ├→ name → View of a mapped file → ───┤
//! .bin (old)  ┘                                    └ read_f32: &[f32] in place, or a widened copy
//! ```
//!
//! packed.rs: matrices without their zeros, read as the whole matrices that they stand for; masked.rs: weights and the
//! masks of PyTorch's pruning. names.rs: what training wraps around names. write.rs: safetensors out.
//!
//! Opening reads only the descriptions. Tensors are read one at a time, so that no more than one needs
//! memory besides the mapping. Untrusted files are refused with an error: lengths are checked against the
//! file before anything is allocated, and pickles execute nothing.
//!
//! Owns the file formats. Must not know what a model is, nor where checkpoints come from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;

use crate::input;

mod error;
mod files;
mod masked;
mod matrix;
mod names;
mod packed;
mod pickle;
mod safetensors_file;
#[cfg(test)]
mod tests;
mod torch_file;
mod view;
mod write;

pub use error::{DEQUANTISE, FileProblem, GGUF, MERGE, TensorProblem, WeightsError};
pub use files::{Files, Index, SPARSE_FILE, WEIGHT_FILES, find_files};
pub use matrix::BareTensor;
pub use packed::{SUFFIXES, bitmap, mask, values};
pub use pickle::PickleError;
pub use safetensors::Dtype;
pub use view::TensorInfo;
pub use write::write_safetensors;

use masked::Masked;
use packed::Packed;
use view::View;

/// The beginning of the file that Git writes in place of a large one.
pub const LFS_MAGIC: &[u8] = b"version https://git-lfs";
/// Bytes that are compared at a time.
const CHUNK: usize = 1 << 16;
/// Dimensions of a tensor: more than any weight has.
const MAX_DIMENSIONS: usize = 16;
const GGUF_MAGIC: &[u8] = b"GGUF";

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
    Masked(Masked),
}

impl Content {
    fn info(&self) -> &TensorInfo {
        match self {
            Self::Whole(view) => &view.info,
            Self::Packed(packed) => &packed.info,
            Self::Masked(masked) => &masked.weight.info,
        }
    }
}

impl Weights {
    /// Opens a checkpoint's files, such as [`find_files`] gives. The format is told by the extension
    /// `.safetensors`, otherwise by the first bytes. If a tensor is in two shards, the one that the index names
    /// counts. Names are those without what training wraps around them (names.rs).
    ///
    /// The files are mapped: they must not be shortened while the value lives, or reading them ends the process
    /// with SIGBUS. Replacing them (by renaming, as downloads do) is fine.
    ///
    /// # Errors
    /// If a file cannot be read, is damaged, of another format, or describes a tensor that doesn't fit its bytes; if
    /// two files have a tensor of the same name and no index decides; if there are tensors of an adapter.
    pub fn open_files(files: &Files) -> Result<Self, WeightsError> {
        let sources = files.paths.iter().map(|path| Ok(Source { path: path.clone(), bytes: map(path)? }));
        Self::new(sources.collect::<Result<_, _>>()?, files.index.as_ref())
    }

    /// Opens a safetensors file that is part of the program; `label` stands for its path in messages.
    ///
    /// # Errors
    /// As [`Weights::open_files`].
    pub fn from_static(bytes: &'static [u8], label: &str) -> Result<Self, WeightsError> {
        Self::new(vec![Source { path: label.into(), bytes: Bytes::Static(bytes) }], None)
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
            Content::Packed(_) | Content::Masked(_) => self.expanded(file, content).and_then(|bytes| {
                let TensorInfo { dtype, shape } = content.info().clone();
                let whole = View::contiguous(dtype, shape, 0..bytes.len());
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
            Content::Packed(_) | Content::Masked(_) => self.expanded(file, content).map(Cow::Owned),
        };
        read.map_err(|problem| tensor_error(&file.path, name, problem))
    }

    /// Whether a tensor can be read, as far as its description tells.
    ///
    /// # Errors
    /// As [`Weights::read_f32`].
    pub fn check(&self, name: &str) -> Result<(), WeightsError> {
        let (file, content) = self.find(name)?;
        let checked = match content {
            Content::Whole(view) => view.check_readable(),
            // Of a bitmap that fits its shape.
            Content::Packed(packed) => packed.values.check_readable(),
            Content::Masked(masked) => masked.weight.check_readable(),
        };
        checked.map_err(|problem| tensor_error(&file.path, name, problem))
    }

    /// Whether two tensors have the same numbers in the same shape.
    ///
    /// # Errors
    /// If one can't be read.
    pub fn same(&self, one: &str, other: &str) -> Result<bool, WeightsError> {
        let ((file, first), (other_file, second)) = (self.find(one)?, self.find(other)?);
        if first.info().shape != second.info().shape {
            return Ok(false);
        }
        if let (Content::Whole(first), Content::Whole(second)) = (first, second)
            && file.path == other_file.path
            && first == second
        {
            return Ok(true);
        }
        let equal = if first.info().dtype == second.info().dtype {
            self.read_bytes(one)?.par_chunks(CHUNK).eq(self.read_bytes(other)?.par_chunks(CHUNK))
        } else {
            self.read_f32(one)?.par_iter().eq(self.read_f32(other)?.par_iter())
        };
        self.release(one);
        self.release(other);
        Ok(equal)
    }

    /// The bytes of what a file does not have in one piece.
    fn expanded(&self, file: &Source, content: &Content) -> Result<Vec<u8>, TensorProblem> {
        match content {
            Content::Whole(view) => view.bytes(&file.bytes).map(Cow::into_owned),
            Content::Packed(packed) => packed.bytes(&file.bytes),
            Content::Masked(masked) => masked.bytes(&file.bytes, &self.files[masked.mask_file].bytes),
        }
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
            Content::Masked(masked) => {
                let mask = &masked.mask.storage;
                self.files[masked.mask_file].bytes.release(mask.start, mask.len());
                vec![&masked.weight]
            }
        };
        for view in views {
            file.bytes.release(view.storage.start, view.storage.len());
        }
    }

    fn new(files: Vec<Source>, index: Option<&Index>) -> Result<Self, WeightsError> {
        let places = plain_names(&files, places(&files, index)?)?;
        let tensors = masked_weights(&files, places)?;
        Ok(Self { files, tensors })
    }
}

/// Where the tensors of all files are, under the names that the files give them.
fn places(files: &[Source], index: Option<&Index>) -> Result<BTreeMap<String, Place>, WeightsError> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let mut misplaced = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let file_name = file.path.file_name().unwrap_or_default();
        for (name, content) in contents(&file.path, &file.bytes)? {
            let shard = index.and_then(|index| Some((index, index.shard_of(&name)?)));
            if let Some((index, shard)) = shard.filter(|(_, shard)| file_name != *shard) {
                misplaced.push((index, name, shard, number));
                continue;
            }
            match places.get(&name) {
                Some(place) if place.file != number => {
                    let first = files[place.file].path.clone();
                    return Err(WeightsError::DuplicateTensor { name, first, second: file.path.clone() });
                }
                _ => places.insert(name, Place { file: number, content }),
            };
        }
    }
    match misplaced.into_iter().find(|(_, name, ..)| !places.contains_key(name)) {
        Some((index, name, shard, number)) => Err(WeightsError::Misplaced {
            index: index.path().into(),
            name,
            shard: shard.into(),
            found: files[number].path.clone(),
        }),
        None => Ok(places),
    }
}

/// The same tensors without what training has wrapped around their names.
fn plain_names(files: &[Source], places: BTreeMap<String, Place>) -> Result<BTreeMap<String, Place>, WeightsError> {
    if let Some((name, place)) = places.iter().find(|(name, _)| names::is_adapter(name)) {
        return Err(WeightsError::Adapter { path: files[place.file].path.clone(), name: name.clone() });
    }
    let plain = names::plain(places.keys().map(String::as_str));
    let mut named: BTreeMap<String, Place> = BTreeMap::new();
    for (name, place) in plain.into_iter().zip(places.into_values()) {
        if let Some(first) = named.get(&name) {
            let (first, second) = (files[first.file].path.clone(), files[place.file].path.clone());
            return Err(WeightsError::DuplicateTensor { name, first, second });
        }
        named.insert(name, place);
    }
    Ok(named)
}

/// The same tensors, weights and their masks joined.
fn masked_weights(
    files: &[Source],
    mut places: BTreeMap<String, Place>,
) -> Result<BTreeMap<String, Place>, WeightsError> {
    let [weight, mask] = masked::SUFFIXES;
    let pruned: Vec<String> =
        places.keys().filter_map(|name| name.strip_suffix(weight)).map(ToOwned::to_owned).collect();
    for name in pruned {
        if !places.contains_key(&format!("{name}{mask}")) {
            continue;
        }
        let mut take = |suffix| places.remove(&format!("{name}{suffix}"));
        let (Some(whole), Some(mask)) = (take(weight), take(mask)) else { continue };
        let problem = |problem| tensor_error(&files[whole.file].path, &name, problem);
        let (Content::Whole(view), Content::Whole(mask_view)) = (whole.content, mask.content) else {
            return Err(problem(TensorProblem::Masked("one of them has no zeros".into())));
        };
        if places.contains_key(&name) {
            return Err(problem(TensorProblem::Masked("the weight is there a third time, without a mask".into())));
        }
        let masked = Masked::new(view, mask_view, mask.file).map_err(problem)?;
        places.insert(name, Place { file: whole.file, content: Content::Masked(masked) });
    }
    Ok(places)
}

/// The tensors of the file `bytes`, by name, all inside it; `path` is for its extension and for messages.
fn tensors(path: &Path, bytes: &[u8]) -> Result<Vec<(String, View)>, WeightsError> {
    let is_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
    let tensors = match bytes {
        [] => Err(FileProblem::Empty),
        _ if bytes.starts_with(LFS_MAGIC) => Err(FileProblem::LfsPointer),
        _ if bytes.starts_with(GGUF_MAGIC) => Err(FileProblem::Gguf),
        _ if is_safetensors && is_pickle(bytes) => Err(FileProblem::PickleNamedSafetensors),
        _ if is_safetensors => safetensors_file::tensors(bytes),
        _ if bytes.starts_with(torch_file::ZIP_MAGIC) => torch_file::zip_tensors(bytes, torch_file::Content::StateDict),
        _ if bytes.starts_with(torch_file::LEGACY_MAGIC) => {
            torch_file::legacy_tensors(bytes, torch_file::Content::StateDict)
        }
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

/// Whether a file is of `torch.save`, or a pickle of another program. What looks like the magic of one may be the
/// length of a safetensors header, which begins after it.
fn is_pickle(bytes: &[u8]) -> bool {
    bytes.get(8) != Some(&b'{')
        && [torch_file::ZIP_MAGIC, b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"]
            .iter()
            .any(|magic| bytes.starts_with(magic))
}

/// The tensors of a file as they are seen from outside.
fn contents(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Content)>, WeightsError> {
    let mut views: BTreeMap<String, View> = tensors(path, bytes)?.into_iter().collect();
    let packed = Packed::take_from(&mut views, bytes);
    let packed = packed.map_err(|(name, problem)| tensor_error(path, &name, problem))?;
    let whole = views.into_iter().map(|(name, view)| (name, Content::Whole(view)));
    Ok(whole.chain(packed.into_iter().map(|(name, packed)| (name, Content::Packed(packed)))).collect())
}

/// Opens the bytes of a file and reads its small tensors; `path` tells the format. For [`crate::fuzzing`].
pub(crate) fn describe(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    for (name, content) in contents(path, bytes)? {
        let elements = content.info().shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        if elements.is_none_or(|elements| elements > CHUNK) {
            continue;
        }
        let read = match &content {
            Content::Whole(view) => view.bytes(bytes).map(|_| ()),
            Content::Packed(packed) => packed.bytes(bytes).map(|_| ()),
            Content::Masked(_) => Ok(()),
        };
        read.map_err(|problem| tensor_error(path, &name, problem))?;
    }
    Ok(())
}

/// Reads a pickle without its container. For [`crate::fuzzing`].
pub(crate) fn describe_pickle(bytes: &[u8]) -> Result<(), PickleError> {
    let pickle = pickle::unpickle(bytes, 0)?;
    let _ = (pickle.strings(), pickle.bool("little_endian"), pickle.storages());
    pickle.state_dict().map(|_| ())
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
    let file = input::open(path).map_err(io_error)?;
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
