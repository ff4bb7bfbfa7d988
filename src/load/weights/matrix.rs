//! A file of `torch.save` that is one tensor and nothing else, and masks in safetensors files.
//!
//! ```text
//!   torch.save(linear.weight, FILE)    a tensor of any strides, also as a Parameter: no state dict, so no checkpoint
//! ```
//! The pickle executes nothing, as in every other file.

use super::error::{FileProblem, TensorProblem};
use super::masked::ones;
use super::torch_file::{self, BARE, Content as Holds};
use super::view::View;
use super::{Bytes, Content, LFS_MAGIC, TensorInfo, Weights, WeightsError, map, tensor_error};
use safetensors::Dtype;
use std::borrow::Cow;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// An open file with one tensor.
#[derive(Debug)]
pub struct BareTensor {
    path: PathBuf,
    bytes: Bytes,
    view: View,
}

impl BareTensor {
    /// Opens a file and reads its description.
    ///
    /// # Errors
    /// If it can't be read, is damaged, or holds something else than one tensor of numbers.
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
        let checked = view.check_bounds().and_then(|()| view.check_readable());
        checked.map_err(|problem| tensor_error(path, BARE, problem))?;
        Ok(Self { path: path.into(), bytes, view })
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.view.info.shape
    }

    /// `[out_features, in_features]`.
    ///
    /// # Errors
    /// If it is no matrix of weights.
    pub fn matrix_shape(&self) -> Result<[usize; 2], WeightsError> {
        match *self.shape() {
            [rows, cols] if rows * cols > 0 => Ok([rows, cols]),
            _ => Err(tensor_error(&self.path, BARE, TensorProblem::NotAMatrix(self.shape().to_vec()))),
        }
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
        let wrong = |_: &dyn Display| TensorProblem::NotAMask;
        let ones = match content {
            Content::Whole(view) => ones(view, &file.bytes, &wrong),
            Content::Packed(_) | Content::Masked(_) => self.expanded(file, content).and_then(|bytes| {
                let TensorInfo { dtype, shape } = content.info().clone();
                ones(&View::contiguous(dtype, shape, 0..bytes.len()), &bytes, &wrong)
            }),
        };
        ones.map_err(|problem| tensor_error(&file.path, name, problem))
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
