//! Numbers as a checkpoint's files have them: of 16 bits they stay so in host memory, which takes half of it. Every
//! one is an f32 too, so that nothing is another number than if all had been widened.
//!
//! ```text
//!   files ──> Numbers ─┬─ Wide      f32
//!                      └─ Halves    bf16 or f16 ──┬─ products    kernels widen what they read, in registers
//!                                                 ├─ a table     the rows that tokens ask for are widened
//!                                                 └─ the whole   one matrix at a time, where weights are looked at
//! ```
//!
//! Knows no files and no devices.

use super::transpose::transpose;
use crate::execute::kernels::cpu::{Simd, dense_linear};
use crate::execute::{wide_bf16, wide_f16};
use crate::sparse::{Pattern, Value};
use half::{bf16, f16};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::Arc;

/// Numbers that a task looks at.
const TASK: usize = 1 << 16;

/// A tensor's numbers on the host, row-major.
#[derive(Clone, Debug)]
pub enum Numbers<'a> {
    /// Of 32 bits.
    Wide(Cow<'a, [f32]>),
    /// Of 16 bits.
    Halves(Halves),
}

impl<'a> From<Cow<'a, [f32]>> for Numbers<'a> {
    fn from(numbers: Cow<'a, [f32]>) -> Self {
        Self::Wide(numbers)
    }
}

impl From<Vec<f32>> for Numbers<'_> {
    fn from(numbers: Vec<f32>) -> Self {
        Self::Wide(numbers.into())
    }
}

impl<'a> Numbers<'a> {
    /// All of them as f32.
    pub fn wide(self) -> Cow<'a, [f32]> {
        match self {
            Self::Wide(numbers) => numbers,
            Self::Halves(halves) => halves.wide().into(),
        }
    }
}

/// Numbers of 16 bits; clones share their memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Halves {
    /// IEEE's.
    F16(Arc<Vec<f16>>),
    /// The upper half of an f32.
    Bf16(Arc<Vec<bf16>>),
}

impl Halves {
    /// Of little-endian bytes, two a number.
    pub fn f16(bytes: &[u8]) -> Self {
        Self::F16(Arc::new(read(bytes, f16::from_le_bytes)))
    }

    /// Of little-endian bytes, two a number.
    pub fn bf16(bytes: &[u8]) -> Self {
        Self::Bf16(Arc::new(read(bytes, bf16::from_le_bytes)))
    }

    /// The place of the first number that is NaN or infinite, and how many there are.
    pub fn not_finite(&self) -> Option<(usize, usize)> {
        match self {
            Self::F16(numbers) => not_finite(numbers),
            Self::Bf16(numbers) => not_finite(numbers),
        }
    }

    /// Numbers other than zero.
    pub fn nonzero(&self) -> u64 {
        match self {
            Self::F16(numbers) => count(numbers, |number| number.to_bits() << 1 != 0) as u64,
            Self::Bf16(numbers) => count(numbers, |number| number.to_bits() << 1 != 0) as u64,
        }
    }

    /// `[rows, cols]` → `[cols, rows]`
    pub fn transposed(&self, rows: usize, cols: usize) -> Self {
        match self {
            Self::F16(numbers) => Self::F16(Arc::new(transpose(numbers, rows, cols))),
            Self::Bf16(numbers) => Self::Bf16(Arc::new(transpose(numbers, rows, cols))),
        }
    }

    /// The same in memory of its own.
    pub fn copied(&self) -> Self {
        match self {
            Self::F16(numbers) => Self::F16(Arc::new(numbers.to_vec())),
            Self::Bf16(numbers) => Self::Bf16(Arc::new(numbers.to_vec())),
        }
    }

    /// All of them as f32.
    pub fn wide(&self) -> Vec<f32> {
        match self {
            Self::F16(numbers) => wide_f16(numbers),
            Self::Bf16(numbers) => wide_bf16(numbers),
        }
    }

    /// Row `row` of `[.., to.len()]`, widened into `to`.
    pub fn widen_row(&self, row: usize, to: &mut [f32]) {
        match self {
            Self::F16(numbers) => widen_row(numbers, row, to),
            Self::Bf16(numbers) => widen_row(numbers, row, to),
        }
    }

    /// With +0 where the pattern keeps nothing.
    pub fn masked(&self, pattern: &Pattern) -> Self {
        match self {
            Self::F16(numbers) => Self::F16(Arc::new(pattern.apply(numbers))),
            Self::Bf16(numbers) => Self::Bf16(Arc::new(pattern.apply(numbers))),
        }
    }

    /// `y = x · Wᵀ + bias`, bit for bit what the widened weight gives.
    ///
    /// # Shapes
    /// - `self`: `[rows, cols]`, `x`: `[tokens, cols]`, `bias`: `[rows]`
    /// - returns `[tokens, rows]`
    pub fn linear(&self, shape: [usize; 2], bias: Option<&[f32]>, x: &[f32], tokens: usize) -> Vec<f32> {
        match self {
            Self::F16(numbers) => dense_linear(numbers, shape, bias, x, tokens, Simd::detect()),
            Self::Bf16(numbers) => dense_linear(numbers, shape, bias, x, tokens, Simd::detect()),
        }
    }
}

fn read<V: Send>(bytes: &[u8], number: impl Fn([u8; 2]) -> V + Sync) -> Vec<V> {
    bytes.par_chunks_exact(2).with_min_len(TASK).map(|bytes| number([bytes[0], bytes[1]])).collect()
}

fn count<V: Sync>(numbers: &[V], wanted: impl Fn(&V) -> bool + Sync) -> usize {
    numbers.par_chunks(TASK).map(|chunk| chunk.iter().filter(|number| wanted(number)).count()).sum()
}

fn not_finite<V: Value>(numbers: &[V]) -> Option<(usize, usize)> {
    let bad = |number: &V| !number.to_f32().is_finite();
    match count(numbers, bad) {
        0 => None,
        bad_ones => Some((numbers.iter().position(bad).unwrap_or_default(), bad_ones)),
    }
}

fn widen_row<V: Value>(numbers: &[V], row: usize, to: &mut [f32]) {
    let from = &numbers[row * to.len()..][..to.len()];
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(numbers: &[f32]) -> [Halves; 2] {
        let bytes = |of: fn(f32) -> [u8; 2]| numbers.iter().flat_map(|&number| of(number)).collect::<Vec<u8>>();
        [
            Halves::f16(&bytes(|number| f16::from_f32(number).to_le_bytes())),
            Halves::bf16(&bytes(|number| bf16::from_f32(number).to_le_bytes())),
        ]
    }

    #[test]
    fn they_are_the_numbers_they_were_made_of() {
        let numbers = [1.5, -0.0, 0.0, -2.0, 0.25, 3.0];
        for halves in both(&numbers) {
            assert_eq!(halves.wide(), numbers);
            assert_eq!((halves.nonzero(), halves.not_finite()), (4, None));
            assert_eq!(halves.transposed(2, 3).wide(), [1.5, -2.0, -0.0, 0.25, 0.0, 3.0]);
            let mut row = [1.0, 1.0];
            halves.widen_row(2, &mut row);
            assert_eq!(row, [0.25, 3.0]);
            let kept = Pattern::keep_where(2, 3, &numbers, |place, _| place % 2 == 0);
            assert_eq!(halves.masked(&kept).wide(), [1.5, 0.0, 0.0, 0.0, 0.25, 0.0]);
            assert_eq!(halves.copied(), halves);
        }
    }

    #[test]
    fn what_is_not_finite_is_found() {
        for halves in both(&[1.0, f32::INFINITY, 0.0, f32::NAN]) {
            assert_eq!(halves.not_finite(), Some((1, 2)));
        }
        // The smallest numbers that there are count as numbers.
        assert_eq!(Halves::f16(&[1, 0, 0, 0x80]).nonzero(), 1);
        assert_eq!(Halves::bf16(&[1, 0x80, 0, 0]).nonzero(), 1);
    }

    /// As the f32 path to the last bit, for few tokens, for many, and at widths that are no multiple of a register.
    #[test]
    fn products_are_those_of_the_widened_weight() {
        let number = |place: usize| ((place * 7919 % 1009) as f32 - 500.0) / 64.0;
        for (rows, cols) in [(5, 19), (40, 160), (3, 1)] {
            let weights: Vec<f32> = (0..rows * cols).map(number).collect();
            let bias: Vec<f32> = (0..rows).map(number).collect();
            for tokens in [1, 3, 8, 17, 70] {
                let x: Vec<f32> = (0..tokens * cols).map(|place| number(place + 5) / 3.0).collect();
                for halves in both(&weights) {
                    let wide = dense_linear(&halves.wide(), [rows, cols], Some(&bias), &x, tokens, Simd::detect());
                    assert!(halves.linear([rows, cols], Some(&bias), &x, tokens) == wide, "{rows} {cols} {tokens}");
                }
            }
        }
    }
}
