//! The two containers of `torch.save`.
//!
//! ```text
//! zip, since 1.6                          legacy
//!   NAME/data.pkl   the state dict          pickle: magic number
//!   NAME/data/KEY   a storage, stored       pickle: 1001, the version of the format
//!   NAME/byteorder  "little"                pickle: { little_endian, … }
//!   …                                       pickle: the state dict
//!                                           pickle: list of storage keys
//!                                           for each key: number of elements: i64, elements
//! ```
//!
//! Zip entries are not compressed, so that storages are read in place, where the file is mapped. The archive's
//! directory is the `zip` crate's matter; its checksums are not verified, as PyTorch doesn't verify them either
//! (and can be told not to compute them).
//!
//! `burn-store` 0.21 has a reader for the same files. It isn't used because it ignores strides, fills storages that
//! are missing or too short with zeros, and copies each storage out of the archive, which it opens anew
//! for each tensor.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::Range;

use safetensors::Dtype;
use zip::{CompressionMethod, ZipArchive};

use super::error::FileProblem;
use super::pickle::{PickleError, Tensor, Unpickled, unpickle};
use super::view::{TensorInfo, View};

/// A local file header, with which every archive of `torch.save` begins.
pub(super) const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// The pickle of 0x1950a86a20f9469cfc6c.
pub(super) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// What a file of `torch.save` is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A state dict: tensors by name.
    StateDict,
    /// One tensor, whose name is [`BARE`].
    Tensor,
}

/// The name of a tensor that is saved without one.
pub(super) const BARE: &str = "the matrix";

/// The tensors of the zip archive `bytes`, by name. Their bounds are yet to be checked.
pub(super) fn zip_tensors(bytes: &[u8], content: Content) -> Result<Vec<(String, View)>, FileProblem> {
    let entries = zip_entries(bytes)?;
    let (pickle_name, prefix) = entries
        .keys()
        .filter_map(|name| Some((name, name.strip_suffix("data.pkl")?)))
        .find(|(_, prefix)| prefix.is_empty() || prefix.ends_with('/') && prefix.matches('/').count() == 1)
        .ok_or_else(|| FileProblem::MissingEntry("data.pkl".into()))?;
    let find = |name: &str| match entries.get(name) {
        Some(Some(range)) => Ok(range.clone()),
        Some(None) => Err(FileProblem::NotStored(name.into())),
        None => Err(FileProblem::MissingEntry(name.into())),
    };
    if find(&format!("{prefix}byteorder")).is_ok_and(|order| &bytes[order] == b"big") {
        return Err(FileProblem::BigEndian);
    }
    let unpickled = unpickle(&bytes[find(pickle_name)?], 0).map_err(FileProblem::Pickle)?;
    views(&unpickled, content, |key| find(&format!("{prefix}data/{key}")))
}

/// The tensors of the legacy file `bytes`, by name. Their bounds are yet to be checked.
pub(super) fn legacy_tensors(bytes: &[u8], content: Content) -> Result<Vec<(String, View)>, FileProblem> {
    let next = |start| unpickle(bytes, start).map_err(FileProblem::Pickle);
    let version = next(LEGACY_MAGIC.len())?;
    let system = next(version.end)?;
    if system.bool("little_endian") == Some(false) {
        return Err(FileProblem::BigEndian);
    }
    let state = next(system.end)?;
    let keys = next(state.end)?;
    let names = keys.strings().ok_or(FileProblem::Pickle(PickleError::Unexpected {
        expected: "the list of storage keys",
        offset: state.end,
    }))?;
    let dtypes: HashMap<&str, Dtype> = state.storages().iter().map(|storage| (storage.key, storage.dtype)).collect();
    let mut ranges = HashMap::new();
    let mut at = keys.end;
    for key in names {
        let range = dtypes
            .get(key)
            .and_then(|dtype| legacy_storage(bytes, at, *dtype))
            .ok_or_else(|| FileProblem::TruncatedStorage(key.into()))?;
        at = range.end;
        ranges.insert(key, range);
    }
    views(&state, content, |key| ranges.get(key).cloned().ok_or_else(|| FileProblem::MissingEntry(key.into())))
}

/// The place of each entry's bytes; none if they are compressed or encrypted.
fn zip_entries(bytes: &[u8]) -> Result<BTreeMap<String, Option<Range<usize>>>, FileProblem> {
    let bad_zip = |error: zip::result::ZipError| FileProblem::BadZip(error.to_string());
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(bad_zip)?;
    let mut entries = BTreeMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(bad_zip)?;
        let name = entry.name().map_err(bad_zip)?.into_owned();
        let place = if entry.compression() == CompressionMethod::Stored && !entry.encrypted() {
            let range = range(entry.data_start(), entry.size())
                .filter(|range| range.end <= bytes.len())
                .ok_or_else(|| FileProblem::BadZip(format!("entry `{name}` reaches past the end of the file")))?;
            Some(range)
        } else {
            None
        };
        entries.insert(name, place);
    }
    Ok(entries)
}

fn range(start: Option<u64>, length: u64) -> Option<Range<usize>> {
    let start = usize::try_from(start?).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    Some(start..end)
}

/// The place of the storage whose number of elements is at `at`, if it lies inside the file.
fn legacy_storage(bytes: &[u8], at: usize, dtype: Dtype) -> Option<Range<usize>> {
    let elements = usize::try_from(i64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()?;
    let start = at + size_of::<i64>();
    let end = elements.checked_mul(dtype.bitsize() / 8)?.checked_add(start)?;
    (end <= bytes.len()).then_some(start..end)
}

/// Joins each tensor of the state dict with the place of its storage.
fn views(
    state: &Unpickled,
    content: Content,
    place: impl Fn(&str) -> Result<Range<usize>, FileProblem>,
) -> Result<Vec<(String, View)>, FileProblem> {
    let tensors = match content {
        Content::StateDict => state.state_dict().map_err(FileProblem::Pickle)?,
        Content::Tensor => vec![(BARE, state.tensor().ok_or(FileProblem::NotOneTensor)?)],
    };
    let view = |(name, tensor): (&str, &Tensor)| {
        let Tensor { storage, offset, shape, strides } = tensor.clone();
        let info = TensorInfo { dtype: storage.dtype, shape };
        Ok((name.to_owned(), View { info, strides, offset, storage: place(storage.key)? }))
    };
    tensors.into_iter().map(view).collect()
}
