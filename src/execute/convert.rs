//! Numbers of one type as numbers of another, on all of rayon's threads: a device holds weights in 16 bits,
//! the host works on them in 32.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Shape, Tensor, TensorData};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::borrow::Cow;
use thiserror::Error;

/// A device did not give numbers back.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("reading from the device failed: {0}")]
pub struct ReadError(pub String);

/// What a device was asked for, and gives when it is called.
pub type Later<T> = Box<dyn FnOnce() -> Result<T, ReadError>>;

/// Numbers that one task converts: they stay in a core's L2 cache.
const TASK: usize = 1 << 16;

/// f32 numbers as a tensor's data of a dtype: each the nearest there is.
pub fn narrow(numbers: Cow<'_, [f32]>, shape: impl Into<Shape>, dtype: DType) -> TensorData {
    let shape = shape.into();
    match dtype {
        DType::F16 => {
            TensorData::new(converted(&numbers, f16::ZERO, |to, from| to.convert_from_f32_slice(from)), shape)
        }
        DType::BF16 => {
            TensorData::new(converted(&numbers, bf16::ZERO, |to, from| to.convert_from_f32_slice(from)), shape)
        }
        _ => TensorData::new(numbers.into_owned(), shape).convert_dtype(dtype),
    }
}

/// A tensor's data as f32 numbers; none where the data are of no type of floating-point numbers.
pub fn widen(data: TensorData) -> Option<Vec<f32>> {
    match data.dtype {
        DType::F16 => Some(wide_f16(data.as_slice().ok()?)),
        DType::BF16 => Some(wide_bf16(data.as_slice().ok()?)),
        // Of 32-bit numbers this is no copy.
        _ => data.convert_dtype(DType::F32).into_vec().ok(),
    }
}

/// The numbers of a tensor, which waits for the device.
///
/// # Errors
/// When the device does not give them back, or they are of no type of floating-point numbers.
pub fn host_numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, ReadError> {
    let data = tensor.try_into_data().map_err(|error| ReadError(error.to_string()))?;
    let dtype = data.dtype;
    widen(data).ok_or_else(|| ReadError(format!("{dtype:?} are no floating-point numbers")))
}

/// f16 numbers as f32.
pub fn wide_f16(numbers: &[f16]) -> Vec<f32> {
    converted(numbers, 0.0, |to, from| from.convert_to_f32_slice(to))
}

/// bf16 numbers as f32.
pub fn wide_bf16(numbers: &[bf16]) -> Vec<f32> {
    converted(numbers, 0.0, |to, from| from.convert_to_f32_slice(to))
}

fn converted<A: Sync, B: Copy + Send>(from: &[A], zero: B, convert: impl Fn(&mut [B], &[A]) + Sync) -> Vec<B> {
    let mut to = vec![zero; from.len()];
    to.par_chunks_mut(TASK).zip(from.par_chunks(TASK)).for_each(|(to, from)| convert(to, from));
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_equal_those_of_one_number_at_a_time() {
        let numbers: Vec<f32> = (0..3 * TASK + 7).map(|i| (i as f32 - 1e5).powi(3) * 1e-14).collect();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let round = |number: &f32| match dtype {
                DType::F16 => f16::from_f32(*number).to_f32(),
                DType::BF16 => bf16::from_f32(*number).to_f32(),
                _ => *number,
            };
            let data = narrow(numbers[..].into(), [numbers.len()], dtype);
            assert_eq!(data.dtype, dtype);
            let expected: Vec<f32> = numbers.iter().map(round).collect();
            assert!(widen(data).unwrap() == expected, "{dtype:?}");
        }
    }
}
