//! A file of `torch.save` that is one matrix and nothing else, and masks in safetensors files.
//!
//! ```text
//!   torch.save(linear.weight, FILE)    a tensor of two dimensions, of any strides, also as a Parameter
//! ```
//! The pickle executes nothing, as in every other file.

use super::error::{FileProblem, TensorProblem};
use super::torch_file::{self, BARE, Content as Holds};
use super::view::View;
use super::{Bytes, Content, LFS_MAGIC, TensorInfo, Weights, WeightsError, map, tensor_error};
use safetensors::Dtype;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// An open file with one matrix.
#[derive(Debug)]
pub struct MatrixFile {
    path: PathBuf,
    bytes: Bytes,
    view: View,
}

impl MatrixFile {
    /// Opens a file and reads its description.
    ///
    /// # Errors
    /// If it can't be read, is damaged, holds something else than one tensor, or one that is no matrix of weights.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let bytes = map(path)?;
        let tensors = match &*bytes {
            [] => Err(FileProblem::Empty),
            all if all.starts_with(LFS_MAGIC) => Err(FileProblem::LfsPointer),
            all if all.starts_with(torch_file::ZIP_MAGIC) => torch_file::zip_tensors(all, Holds::Tensor),
            all if all.starts_with(torch_file::LEGACY_MAGIC) => torch_file::legacy_tensors(all, Holds::Tensor),
            _ => Err(FileProblem::UnknownFormat),
        };
        let file_error = |problem| WeightsError::File { path: path.into(), problem };
        let (_, view) = tensors.map_err(file_error)?.pop().ok_or_else(|| file_error(FileProblem::NoTensors))?;
        let check = || {
            let shape = &view.info.shape;
            if shape.len() != 2 || shape.contains(&0) {
                return Err(TensorProblem::NotAMatrix(shape.clone()));
            }
            view.check_bounds()?;
            view.check_readable()
        };
        check().map_err(|problem| tensor_error(path, BARE, problem))?;
        Ok(Self { path: path.into(), bytes, view })
    }

    /// `[out_features, in_features]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.view.info.shape[0], self.view.info.shape[1]]
    }

    /// The type that the file has.
    pub fn dtype(&self) -> Dtype {
        self.view.info.dtype
    }

    /// The numbers, row-major.
    ///
    /// # Errors
    /// If a number has no place in f32.
    pub fn read(&self) -> Result<Cow<'_, [f32]>, WeightsError> {
        self.view.read(&self.bytes).map_err(|problem| tensor_error(&self.path, BARE, problem))
    }
}

impl Weights {
    /// Which elements of a tensor of 0 and 1 are 1, row-major.
    ///
    /// # Errors
    /// If there is no such tensor, or it has other numbers.
    pub fn read_mask(&self, name: &str) -> Result<Vec<bool>, WeightsError> {
        let (file, content) = self.find(name)?;
        let bytes = match (content, &content.info().dtype) {
            (Content::Whole(view), Dtype::BOOL | Dtype::U8 | Dtype::I8) => view.raw(&file.bytes, 1),
            _ => {
                let one = |number: &f32| match *number {
                    0.0 => Ok(false),
                    1.0 => Ok(true),
                    _ => Err(tensor_error(&file.path, name, TensorProblem::NotAMask)),
                };
                return self.read_f32(name)?.iter().map(one).collect();
            }
        };
        let bytes = bytes.map_err(|problem| tensor_error(&file.path, name, problem))?;
        match bytes.iter().all(|&byte| byte < 2) {
            true => Ok(bytes.iter().map(|&byte| byte == 1).collect()),
            false => Err(tensor_error(&file.path, name, TensorProblem::NotAMask)),
        }
    }

    /// Which weights a tensor keeps, row-major, where the files say so themselves: by a mask, or by a bitmap.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn explicit_mask(&self, name: &str) -> Result<Option<Vec<bool>>, WeightsError> {
        let (file, content) = self.find(name)?;
        let kept = match content {
            Content::Whole(_) => return Ok(None),
            Content::Masked(masked) => masked.kept(&self.files[masked.mask_file].bytes),
            Content::Packed(packed) => packed.kept(&file.bytes),
        };
        kept.map(Some).map_err(|problem| tensor_error(&file.path, name, problem))
    }

    /// Type and shape of a tensor.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn described(&self, name: &str) -> Result<&TensorInfo, WeightsError> {
        Ok(self.find(name)?.1.info())
    }
}
