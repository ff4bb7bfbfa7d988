//! Pruning on CUDA: weights stay on the device, counts and bits come to the host.

use super::{Cuda, Tensor};
use crate::execute::convert::ReadError;
use crate::execute::kernels::cuda::prune::{
    CUBES, DigitBitsLaunch, LANES, MOST, PLANES, count_magnitudes, magnitudes_above, masked,
};
use crate::sparse::{Digit, Pattern};
use burn::tensor::ops::IntTensorOps;
use burn::tensor::{DType, IntDType, Shape, TensorData, TensorMetadata, read_sync};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;

/// A matrix as words of 32 bits, each row from a pair of them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Words {
    rows: usize,
    cols: usize,
}

impl Words {
    fn of(matrix: &Tensor) -> Self {
        let shape = matrix.shape();
        Self { rows: shape[0], cols: shape[1] }
    }

    fn per_row(self) -> usize {
        2 * self.cols.div_ceil(64)
    }

    fn total(self) -> usize {
        self.rows * self.per_row()
    }

    /// Whether the kernels can count its numbers, and there are any.
    fn fits(self) -> bool {
        let total = self.rows * self.cols;
        total > 0 && total <= MOST && self.total() <= MOST
    }
}

/// How many numbers have each value of the digit; none where the kernel can't count that many.
pub(super) fn count(tensor: &Tensor, digit: Digit) -> Option<Result<Vec<u32>, ReadError>> {
    let length = tensor.shape().num_elements();
    if length == 0 || length > MOST {
        return None;
    }
    let tensor = into_contiguous(tensor.clone());
    let bins = <Cuda as IntTensorOps<Cuda>>::int_zeros(Shape::new([digit.bins()]), &tensor.device, IntDType::U32);
    let bits = DigitBitsLaunch::new(digit.shift, digit.bins() as u32 - 1, digit.shift + digit.bits, digit.above);
    let dtype = tensor.dtype;
    // SAFETY: the stride ends at `length`, the numbers of `tensor`; a bin is below `bins` because of the mask.
    unsafe {
        count_magnitudes::launch_unchecked::<CudaRuntime>(
            &tensor.client.clone(),
            cubes(length.div_ceil((LANES * PLANES) as usize)),
            CubeDim::new_1d(LANES * PLANES),
            tensor.into_array_arg(),
            bins.clone().into_array_arg(),
            length as u32,
            bits,
            dtype.into(),
        );
    }
    Some(read(bins))
}

/// Which numbers of a matrix have magnitudes above the threshold; none where the kernel can't index that many.
pub(super) fn above(matrix: &Tensor, threshold: u32) -> Option<Result<Pattern, ReadError>> {
    let shape = Words::of(matrix);
    if !shape.fits() {
        return None;
    }
    let matrix = into_contiguous(matrix.clone());
    let (client, device, dtype) = (matrix.client.clone(), matrix.device.clone(), matrix.dtype);
    let words = empty_device_contiguous_dtype(client.clone(), device, Shape::new([shape.total()]), DType::U32);
    // SAFETY: words end at `total`, and those of a row at the row's last column, after which nothing is read.
    unsafe {
        magnitudes_above::launch_unchecked::<CudaRuntime>(
            &client,
            cubes(shape.total().div_ceil(PLANES as usize)),
            CubeDim::new_2d(LANES, PLANES),
            matrix.into_array_arg(),
            words.clone().into_array_arg(),
            shape.cols as u32,
            shape.per_row() as u32,
            shape.total() as u32,
            threshold,
            dtype.into(),
        );
    }
    Some(read(words).and_then(|words| {
        let count = words.len();
        let pattern = Pattern::from_words(shape.rows, shape.cols, joined(&words));
        pattern.ok_or_else(|| ReadError(format!("{count} words of a pattern of {shape:?}")))
    }))
}

/// A matrix with zeros where the pattern keeps nothing; none where the kernel can't index that many numbers.
///
/// # Panics
/// When the pattern is of another shape.
pub(super) fn mask(matrix: &Tensor, pattern: &Pattern) -> Option<Tensor> {
    let shape = Words::of(matrix);
    assert_eq!((shape.rows, shape.cols), (pattern.rows(), pattern.cols()), "the pattern is of another shape");
    if !shape.fits() {
        return None;
    }
    let matrix = into_contiguous(matrix.clone());
    let (client, device, dtype) = (matrix.client.clone(), matrix.device.clone(), matrix.dtype);
    let words = TensorData::new(halves(pattern.words()), [shape.total()]);
    let words = <Cuda as IntTensorOps<Cuda>>::int_from_data(words, &device);
    let out = empty_device_contiguous_dtype(client.clone(), device, matrix.shape(), dtype);
    // SAFETY: as in `above`; `out` has the shape of `matrix`, and `words` was made from that many.
    unsafe {
        masked::launch_unchecked::<CudaRuntime>(
            &client,
            cubes(shape.total().div_ceil(PLANES as usize)),
            CubeDim::new_2d(LANES, PLANES),
            matrix.into_array_arg(),
            words.into_array_arg(),
            out.clone().into_array_arg(),
            shape.cols as u32,
            shape.per_row() as u32,
            shape.total() as u32,
            dtype.into(),
        );
    }
    Some(out)
}

/// Cubes for this much work, which the kernels stride over if it is more than one launch has.
fn cubes(wanted: usize) -> CubeCount {
    CubeCount::Static(wanted.clamp(1, CUBES as usize) as u32, 1, 1)
}

fn read(tensor: Tensor) -> Result<Vec<u32>, ReadError> {
    let data = read_sync(<Cuda as IntTensorOps<Cuda>>::int_into_data(tensor));
    let data = data.map_err(|error| ReadError(format!("{error:?}")))?;
    data.into_vec().map_err(|error| ReadError(format!("{error:?}")))
}

/// Pairs of words as one of 64 bits each, the lower first.
fn joined(words: &[u32]) -> Vec<u64> {
    words.as_chunks().0.iter().map(|&[low, high]| u64::from(low) | u64::from(high) << 32).collect()
}

/// Words of 64 bits as pairs, the lower first.
fn halves(words: &[u64]) -> Vec<u32> {
    words.iter().flat_map(|&word| [word as u32, (word >> 32) as u32]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_pattern_are_halved_and_joined() {
        let pattern = Pattern::from_rows(3, 70, |row, words| words.fill(0x0123_4567_89ab_cdef << row));
        let halves = halves(pattern.words());
        assert_eq!(halves.len(), Words { rows: 3, cols: 70 }.total());
        assert_eq!(halves[..2], [0x89ab_cdef, 0x0123_4567]);
        // Column c of a row is bit c % 32 of its word c / 32, as lanes have it.
        let per_row = Words { rows: 3, cols: 70 }.per_row();
        for (row, col) in [(0, 0), (1, 33), (2, 69), (2, 64)] {
            assert_eq!(halves[row * per_row + col / 32] >> (col % 32) & 1 == 1, pattern.get(row, col), "{row} {col}");
        }
        assert_eq!(Pattern::from_words(3, 70, joined(&halves)), Some(pattern));
    }

    #[test]
    fn matrices_that_32_bits_can_not_index_are_left_to_the_host() {
        assert!(Words { rows: 32000, cols: 4096 }.fits());
        assert!(!Words { rows: 1 << 16, cols: 1 << 16 }.fits());
        // Its numbers and its words have 32-bit indices; with one column, a row still has two words.
        assert!(Words { rows: 1 << 30, cols: 3 }.fits());
        assert!(!Words { rows: 1 << 31, cols: 1 }.fits());
        assert!(!Words { rows: 0, cols: 4 }.fits());
    }
}
