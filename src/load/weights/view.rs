//! A tensor as a strided view of stored bytes, and its widening to f32.
//!
//! ```text
//! storage (a byte range of a file)      e0 e1 e2 e3 e4 e5
//! shape [2, 3], strides [3, 1]     →    [[e0 e1 e2] [e3 e4 e5]]
//! shape [3, 2], strides [1, 3]     →    [[e0 e3] [e1 e4] [e2 e5]]      its transpose
//! shape [2],    strides [1], offset 4 → [e4 e5]                         a slice of it
//! ```
//!
//! Strides and offset count elements. safetensors files have only views of the first kind; PyTorch's have all.
//! Knows no file format.

use std::borrow::Cow;
use std::ops::Range;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::MAX_DIMENSIONS;
use super::error::TensorProblem;

/// Elements that one task widens: 64 Ki elements are 256 KiB of f32, which stays in a core's L2 cache.
const TASK: usize = 64 * 1024;

/// What is known of a tensor without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The type in the file.
    pub dtype: Dtype,
    /// The extent of each dimension, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub info: TensorInfo,
    /// Steps between neighbours of each dimension, in elements.
    pub strides: Vec<usize>,
    /// The first element's place in the storage, in elements.
    pub offset: usize,
    /// The storage's place in the file, in bytes.
    pub storage: Range<usize>,
}

impl View {
    /// A row-major tensor that fills `storage`.
    pub fn contiguous(dtype: Dtype, shape: Vec<usize>, storage: Range<usize>) -> Self {
        Self { strides: row_major(&shape), info: TensorInfo { dtype, shape }, offset: 0, storage }
    }

    /// Checks that every element lies inside the storage, and that there are few enough dimensions.
    pub fn check_bounds(&self) -> Result<(), TensorProblem> {
        if self.info.shape.len() > MAX_DIMENSIONS {
            return Err(TensorProblem::Dimensions(self.info.shape.len()));
        }
        let has = self.storage.len();
        let needs = self.end().and_then(|end| end.checked_mul(self.info.dtype.bitsize())?.checked_div(8));
        match needs {
            Some(needs) if needs <= has => Ok(()),
            needs => Err(TensorProblem::StorageTooShort { needs: needs.map_or(u64::MAX, |needs| needs as u64), has }),
        }
    }

    /// The tensor in row-major order; borrowed from `file` if it is already that, in f32 and aligned.
    /// The view must have passed [`View::check_bounds`] for a file of this length.
    pub fn read<'a>(&self, file: &'a [u8]) -> Result<Cow<'a, [f32]>, TensorProblem> {
        let width = width(self.info.dtype).ok_or(TensorProblem::UnsupportedDtype(self.info.dtype))?;
        let (storage, elements) = self.extent(file, width)?;
        if elements == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if !self.is_row_major() {
            return self.gather(storage, width, elements).map(Cow::Owned);
        }
        let bytes = &storage[self.offset * width..][..elements * width];
        if self.info.dtype == Dtype::F32
            && cfg!(target_endian = "little")
            && let Ok(values) = bytemuck::try_cast_slice(bytes)
        {
            return Ok(Cow::Borrowed(values));
        }
        let mut values = vec![0.0; elements];
        (values.par_chunks_mut(TASK), bytes.par_chunks(TASK * width))
            .into_par_iter()
            .try_for_each(|(values, bytes)| widen(self.info.dtype, bytes, values))?;
        Ok(Cow::Owned(values))
    }

    /// The elements' bytes in row-major order, as the file has them: little-endian, of [`TensorInfo::dtype`].
    /// Borrowed if they are in that order already. The view must have passed [`View::check_bounds`] for a file of
    /// this length.
    pub fn bytes<'a>(&self, file: &'a [u8]) -> Result<Cow<'a, [u8]>, TensorProblem> {
        let width = width(self.info.dtype).ok_or(TensorProblem::UnsupportedDtype(self.info.dtype))?;
        self.raw(file, width)
    }

    /// As [`View::bytes`], of a type whose elements have `width` bytes, weights or not.
    pub fn raw<'a>(&self, file: &'a [u8], width: usize) -> Result<Cow<'a, [u8]>, TensorProblem> {
        let (storage, elements) = self.extent(file, width)?;
        if elements == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if self.is_row_major() {
            return Ok(Cow::Borrowed(&storage[self.offset * width..][..elements * width]));
        }
        let mut bytes = Vec::with_capacity(elements * width);
        let mut index = self.unravel(0);
        for _ in 0..elements {
            bytes.extend_from_slice(&storage[self.place(&index) * width..][..width]);
            increment(&mut index, &self.info.shape);
        }
        Ok(Cow::Owned(bytes))
    }

    /// Whether it can be read at all: of a type that weights have, and no larger than its storage, so that a short
    /// file can't stand for a large tensor.
    pub fn check_readable(&self) -> Result<(), TensorProblem> {
        let width = width(self.info.dtype).ok_or(TensorProblem::UnsupportedDtype(self.info.dtype))?;
        self.count(self.storage.len(), width).map(|_| ())
    }

    /// The storage, and how many elements of `width` bytes there are.
    fn extent<'a>(&self, file: &'a [u8], width: usize) -> Result<(&'a [u8], usize), TensorProblem> {
        let storage = &file[self.storage.clone()];
        // Also bounds the allocation by the file's length.
        Ok((storage, self.count(storage.len(), width)?))
    }

    fn count(&self, storage: usize, width: usize) -> Result<usize, TensorProblem> {
        self.elements().filter(|elements| *elements <= storage / width).ok_or(TensorProblem::Expanded)
    }

    fn is_row_major(&self) -> bool {
        self.strides_of_long_dimensions() == long_dimensions(&self.info.shape, &row_major(&self.info.shape))
    }

    /// The place of an element in the storage, in elements.
    fn place(&self, index: &[usize]) -> usize {
        self.offset + index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>()
    }

    /// Reads element by element, for strides that are not row-major.
    fn gather(&self, storage: &[u8], width: usize, elements: usize) -> Result<Vec<f32>, TensorProblem> {
        let mut values = vec![0.0; elements];
        values.par_chunks_mut(TASK).enumerate().try_for_each(|(task, values)| {
            let mut index = self.unravel(task * TASK);
            for value in values {
                widen(self.info.dtype, &storage[self.place(&index) * width..][..width], std::slice::from_mut(value))?;
                increment(&mut index, &self.info.shape);
            }
            Ok(())
        })?;
        Ok(values)
    }

    /// The multi-index of the `linear`th element in row-major order.
    fn unravel(&self, mut linear: usize) -> Vec<usize> {
        let mut index = vec![0; self.info.shape.len()];
        for (i, &extent) in index.iter_mut().zip(&self.info.shape).rev() {
            *i = linear % extent;
            linear /= extent;
        }
        index
    }

    fn elements(&self) -> Option<usize> {
        self.info.shape.iter().try_fold(1, |product: usize, &extent| product.checked_mul(extent))
    }

    /// One past the place of the last element in the storage, in elements; 0 if there is no element.
    fn end(&self) -> Option<usize> {
        if self.info.shape.contains(&0) {
            return Some(0);
        }
        let mut last = self.offset;
        for (&extent, &stride) in self.info.shape.iter().zip(&self.strides) {
            last = (extent - 1).checked_mul(stride)?.checked_add(last)?;
        }
        last.checked_add(1)
    }

    fn strides_of_long_dimensions(&self) -> Vec<usize> {
        long_dimensions(&self.info.shape, &self.strides)
    }
}

/// Bytes of an element of a type that weights have.
pub(super) fn width(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::F64 => Some(8),
        Dtype::F32 => Some(4),
        Dtype::F16 | Dtype::BF16 => Some(2),
        _ => None,
    }
}

/// Leaves out the strides of dimensions of extent 1, which address nothing and may be anything.
fn long_dimensions(shape: &[usize], strides: &[usize]) -> Vec<usize> {
    shape.iter().zip(strides).filter(|(extent, _)| **extent != 1).map(|(_, &stride)| stride).collect()
}

/// Saturates where no file could hold the tensor.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = shape[i].saturating_mul(strides[i]);
    }
    strides
}

/// Steps to the next multi-index in row-major order.
fn increment(index: &mut [usize], shape: &[usize]) {
    for (i, &extent) in index.iter_mut().zip(shape).rev() {
        *i += 1;
        if *i < extent {
            return;
        }
        *i = 0;
    }
}

/// Widens little-endian elements: `bytes` holds as many as `values`.
fn widen(dtype: Dtype, bytes: &[u8], values: &mut [f32]) -> Result<(), TensorProblem> {
    match dtype {
        Dtype::F32 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        Dtype::F16 => {
            widen_half(bytes, values, |bits, values| bits.reinterpret_cast::<f16>().convert_to_f32_slice(values))
        }
        Dtype::BF16 => {
            widen_half(bytes, values, |bits, values| bits.reinterpret_cast::<bf16>().convert_to_f32_slice(values))
        }
        Dtype::F64 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                let wide = f64::from_le_bytes(*bytes);
                *value = wide as f32;
                if wide.is_finite() && value.is_infinite() {
                    return Err(TensorProblem::OutOfRange(wide));
                }
            }
        }
        other => return Err(TensorProblem::UnsupportedDtype(other)),
    }
    Ok(())
}

/// Goes through a small array because files don't align halves; it stays in the L1 cache.
fn widen_half(bytes: &[u8], values: &mut [f32], convert: impl Fn(&[u16], &mut [f32])) {
    let mut bits = [0u16; 512];
    for (values, bytes) in values.chunks_mut(bits.len()).zip(bytes.chunks(2 * bits.len())) {
        for (bits, bytes) in bits.iter_mut().zip(bytes.as_chunks().0) {
            *bits = u16::from_le_bytes(*bytes);
        }
        convert(&bits[..values.len()], values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aligned to four bytes, so that views may be borrowed.
    fn f32_bytes(values: &[f32]) -> &[u8] {
        bytemuck::cast_slice(values)
    }

    fn strided(dtype: Dtype, shape: &[usize], strides: &[usize], offset: usize, storage: usize) -> View {
        let info = TensorInfo { dtype, shape: shape.to_vec() };
        View { info, strides: strides.to_vec(), offset, storage: 0..storage }
    }

    #[test]
    fn reads_the_views_of_the_module_doc() {
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let file = f32_bytes(&values);
        let read = |shape: &[usize], strides: &[usize], offset| {
            let view = strided(Dtype::F32, shape, strides, offset, file.len());
            view.check_bounds().unwrap();
            view.read(file).unwrap()
        };
        assert!(matches!(read(&[2, 3], &[3, 1], 0), Cow::Borrowed(v) if v == values));
        assert!(matches!(read(&[3, 2], &[1, 3], 0), Cow::Owned(v) if v == [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        let bytes = |shape: &[usize], strides: &[usize], offset| {
            strided(Dtype::F32, shape, strides, offset, file.len()).bytes(file).unwrap()
        };
        assert!(matches!(bytes(&[2, 3], &[3, 1], 0), Cow::Borrowed(b) if b == file));
        assert!(matches!(bytes(&[3, 2], &[1, 3], 0), Cow::Owned(b) if b == f32_bytes(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0])));
        assert_eq!(*bytes(&[2], &[1], 4), *f32_bytes(&[4.0, 5.0]));
        assert!(matches!(read(&[2], &[1], 4), Cow::Borrowed([4.0, 5.0])));
        assert!(matches!(read(&[2, 1, 3], &[3, 77, 1], 0), Cow::Borrowed(v) if v == values));
        assert_eq!(*read(&[], &[], 5), [5.0]);
        assert_eq!(*read(&[0, 9], &[9, 1], 6), [0.0; 0]);
    }

    #[test]
    fn copies_what_is_not_aligned() {
        let values = [0.0f32, 1.5, -2.5];
        let mut shifted = vec![0u8; 16];
        for start in 0..4 {
            shifted[start..start + 12].copy_from_slice(f32_bytes(&values));
            let view = View::contiguous(Dtype::F32, vec![3], start..start + 12);
            assert_eq!(*view.read(&shifted).unwrap(), values);
        }
    }

    #[test]
    fn gathers_across_task_boundaries() {
        let (rows, columns) = (3, TASK);
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let file = f32_bytes(&values);
        let view = strided(Dtype::F32, &[columns, rows], &[1, columns], 0, file.len());
        let transposed = view.read(file).unwrap();
        for (i, &value) in transposed.iter().enumerate() {
            assert_eq!(value, values[(i % rows) * columns + i / rows]);
        }
    }

    #[test]
    fn widens_every_half_as_the_scalar_conversion_does() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let read = |dtype| View::contiguous(dtype, vec![1 << 16], 0..1 << 17).read(&bytes).unwrap().into_owned();
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        let (f16s, bf16s) = (read(Dtype::F16), read(Dtype::BF16));
        for bits in 0..=u16::MAX {
            assert!(same(f16s[usize::from(bits)], f16::from_bits(bits).to_f32_const()), "f16 {bits:#x}");
            assert!(same(bf16s[usize::from(bits)], f32::from_bits(u32::from(bits) << 16)), "bf16 {bits:#x}");
        }
    }

    #[test]
    fn narrows_f64_and_refuses_what_f32_cannot_hold() {
        let read = |value: f64| View::contiguous(Dtype::F64, vec![1], 0..8).read(&value.to_le_bytes()).map(|v| v[0]);
        assert_eq!(read(0.1).unwrap(), 0.1f32);
        assert_eq!(read(f64::NEG_INFINITY).unwrap(), f32::NEG_INFINITY);
        assert_eq!(read(-1e39).unwrap_err(), TensorProblem::OutOfRange(-1e39));
    }

    #[test]
    fn refuses_integers_by_name() {
        let error = View::contiguous(Dtype::I64, vec![1], 0..8).read(&[0; 8]).unwrap_err();
        assert!(error.to_string().contains("I64"), "{error}");
    }

    #[test]
    fn bounds_are_exact_and_do_not_overflow() {
        let check = |shape: &[usize], strides: &[usize], offset, storage| {
            strided(Dtype::F16, shape, strides, offset, storage).check_bounds()
        };
        assert_eq!(check(&[3, 2], &[1, 3], 1, 14), Ok(()));
        assert_eq!(check(&[3, 2], &[1, 3], 1, 13), Err(TensorProblem::StorageTooShort { needs: 14, has: 13 }));
        assert_eq!(check(&[0], &[usize::MAX], usize::MAX, 0), Ok(()));
        for (extent, stride, offset) in [(usize::MAX, 2, 0), (2, usize::MAX, 1), (1, 1, usize::MAX), (usize::MAX, 1, 0)]
        {
            let error = check(&[extent], &[stride], offset, 14).unwrap_err();
            assert_eq!(error, TensorProblem::StorageTooShort { needs: u64::MAX, has: 14 });
        }
    }

    #[test]
    fn refuses_to_expand_a_storage() {
        let view = strided(Dtype::F32, &[1 << 40], &[0], 0, 4);
        view.check_bounds().unwrap();
        assert_eq!(view.read(&[0; 4]).unwrap_err(), TensorProblem::Expanded);
    }
}
