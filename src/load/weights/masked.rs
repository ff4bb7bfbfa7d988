//! A weight that PyTorch's `torch.nn.utils.prune` has pruned: the weight before, and a mask.
//!
//! ```text
//!   NAME_orig  [a b; c d]     NAME_mask  [1 0; 0 1]     ->     NAME  [a 0; 0 d]
//! ```
//!
//! Where the mask is 0 the weight is 0. Owns this form; knows no file format.

use super::error::TensorProblem;
use super::view::View;
use safetensors::Dtype;
use std::fmt::Display;

/// What the two tensors are called after the weight's name: weight, mask.
pub(super) const SUFFIXES: [&str; 2] = ["_orig", "_mask"];

/// A weight and its mask, which may be in another file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Masked {
    pub weight: View,
    pub mask: View,
    /// Index of the mask's file.
    pub mask_file: usize,
}

impl Masked {
    /// Joins the two.
    ///
    /// # Errors
    /// When their shapes differ.
    pub fn new(weight: View, mask: View, mask_file: usize) -> Result<Self, TensorProblem> {
        let (shape, other) = (&weight.info.shape, &mask.info.shape);
        if shape != other {
            return Err(TensorProblem::Masked(format!("the shapes are {shape:?} and {other:?}")));
        }
        Ok(Self { weight, mask, mask_file })
    }

    /// The weight's bytes, row-major, with zeros where the mask has them.
    pub fn bytes(&self, file: &[u8], mask_file: &[u8]) -> Result<Vec<u8>, TensorProblem> {
        let mut bytes = self.weight.bytes(file)?.into_owned();
        let kept = self.kept(mask_file)?;
        let width = bytes.len() / kept.len().max(1);
        let elements = bytes.chunks_exact_mut(width.max(1)).zip(kept);
        elements.filter(|(_, kept)| !kept).for_each(|(element, _)| element.fill(0));
        Ok(bytes)
    }

    /// Which elements the mask keeps, row-major.
    pub fn kept(&self, file: &[u8]) -> Result<Vec<bool>, TensorProblem> {
        ones(&self.mask, file, &|value| TensorProblem::Masked(format!("the mask has {value}, not 0 or 1")))
    }
}

/// Which elements of a tensor of 0 and 1 are 1, row-major, whatever its type; `wrong` says what another value is.
///
/// # Errors
/// When it can't be read, or has another value.
pub(super) fn ones(
    view: &View,
    file: &[u8],
    wrong: &dyn Fn(&dyn Display) -> TensorProblem,
) -> Result<Vec<bool>, TensorProblem> {
    match view.info.dtype {
        Dtype::BOOL | Dtype::U8 | Dtype::I8 => {
            let one = |byte: &u8| if *byte < 2 { Ok(*byte == 1) } else { Err(wrong(byte)) };
            view.raw(file, 1)?.iter().map(one).collect()
        }
        _ => {
            let one = |number: &f32| match *number {
                0.0 => Ok(false),
                1.0 => Ok(true),
                _ => Err(wrong(number)),
            };
            view.read(file)?.iter().map(one).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(weight: &[f32], dtype: Dtype, mask: &[u8]) -> Result<Vec<f32>, String> {
        let file: Vec<u8> = weight.iter().flat_map(|number| number.to_le_bytes()).collect();
        let weight = View::contiguous(Dtype::F32, vec![2, 2], 0..file.len());
        let mask_view = View::contiguous(dtype, vec![2, 2], 0..mask.len());
        let masked = Masked::new(weight, mask_view, 0).map_err(|problem| problem.to_string())?;
        let bytes = masked.bytes(&file, mask).map_err(|problem| problem.to_string())?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    #[test]
    fn masks_of_every_type_that_people_save() {
        let weight = [1.5, 2.0, -3.0, 4.0];
        let floats: Vec<u8> = [1.0f32, 0.0, 0.0, 1.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        for (dtype, mask) in [
            (Dtype::F32, &floats[..]),
            (Dtype::BOOL, &[1, 0, 0, 1]),
            (Dtype::U8, &[1, 0, 0, 1]),
            (Dtype::F16, &[0, 0x3c, 0, 0, 0, 0, 0, 0x3c]),
        ] {
            assert_eq!(masked(&weight, dtype, mask).unwrap(), [1.5, 0.0, 0.0, 4.0], "{dtype}");
        }
        assert!(masked(&weight, Dtype::U8, &[1, 0, 2, 1]).unwrap_err().contains("the mask has 2"));
        let scaled: Vec<u8> = [1.0f32, 0.5, 0.0, 1.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert!(masked(&weight, Dtype::F32, &scaled).unwrap_err().contains("the mask has 0.5"));
    }
}
