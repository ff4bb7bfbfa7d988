//! The AVX-512 and AVX2 bodies of the CSR kernels.
//!
//! Every function reads `values`, `columns` and `x` without bounds checks: the contract of
//! [`CsrView::new_unchecked`] puts them inside their arrays.

use super::{Column, CsrView, Line, PARTIAL};
use std::arch::x86_64::*;

/// Dot products of rows `first..first + y.len()` with one token.
///
/// # Safety
/// Needs AVX-512F; `x.len() >= weight.cols`.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn gather_avx512<C: Column>(weight: &CsrView<'_, C>, x: &[f32], first: usize, y: &mut [f32]) {
    for (i, y) in y.iter_mut().enumerate() {
        let entries = weight.entries(first + i);
        let (values, columns) = (&weight.values[entries.clone()], &weight.columns[entries]);
        let (mut sum0, mut sum1) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let whole = values.len() / 16 * 16;
        let mut k = 0;
        while k < whole {
            // SAFETY: k + 16 <= values.len(), and columns are inside x.
            let product = |k: usize, sum| unsafe {
                let x = _mm512_i32gather_ps::<4>(indices16(columns.as_ptr().add(k)), x.as_ptr());
                _mm512_fmadd_ps(_mm512_loadu_ps(values.as_ptr().add(k)), x, sum)
            };
            sum0 = product(k, sum0);
            k += 16;
            if k < whole {
                sum1 = product(k, sum1);
                k += 16;
            }
        }
        let rest: f32 = (whole..values.len()).map(|k| values[k] * x[columns[k].index()]).sum();
        *y = weight.bias(first + i) + (_mm512_reduce_add_ps(_mm512_add_ps(sum0, sum1)) + rest);
    }
}

/// Dot products of rows `first..first + y.len()` with one token.
///
/// # Safety
/// Needs AVX2 and FMA; `x.len() >= weight.cols`.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn gather_avx2<C: Column>(weight: &CsrView<'_, C>, x: &[f32], first: usize, y: &mut [f32]) {
    for (i, y) in y.iter_mut().enumerate() {
        let entries = weight.entries(first + i);
        let (values, columns) = (&weight.values[entries.clone()], &weight.columns[entries]);
        let mut sum = _mm256_setzero_ps();
        let whole = values.len() / 8 * 8;
        for k in (0..whole).step_by(8) {
            // SAFETY: k + 8 <= values.len(), and columns are inside x.
            sum = unsafe {
                let x = _mm256_i32gather_ps::<4>(x.as_ptr(), indices8(columns.as_ptr().add(k)));
                _mm256_fmadd_ps(_mm256_loadu_ps(values.as_ptr().add(k)), x, sum)
            };
        }
        let mut lanes = [0.0f32; 8];
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
        let rest: f32 = (whole..values.len()).map(|k| values[k] * x[columns[k].index()]).sum();
        *y = weight.bias(first + i) + (lanes.iter().sum::<f32>() + rest);
    }
}

/// 16 columns as 32-bit indices.
///
/// # Safety
/// Needs AVX-512F; 16 columns are readable at `columns`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn indices16<C: Column>(columns: *const C) -> __m512i {
    // SAFETY: 32 or 64 readable bytes, by the caller's contract.
    unsafe {
        match size_of::<C>() {
            2 => _mm512_cvtepu16_epi32(_mm256_loadu_si256(columns.cast())),
            _ => _mm512_loadu_si512(columns.cast()),
        }
    }
}

/// 8 columns as 32-bit indices.
///
/// # Safety
/// Needs AVX2; 8 columns are readable at `columns`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn indices8<C: Column>(columns: *const C) -> __m256i {
    // SAFETY: 16 or 32 readable bytes, by the caller's contract.
    unsafe {
        match size_of::<C>() {
            2 => _mm256_cvtepu16_epi32(_mm_loadu_si128(columns.cast())),
            _ => _mm256_loadu_si256(columns.cast()),
        }
    }
}

/// `sums[i][lane] = Σ value · tile[column][lane]` for rows from `first`, `Z` registers of 16 lanes.
///
/// `A` partial sums side by side: the `Z` chains of additions of one alone would wait for each other's
/// latency, four cycles at two additions a cycle.
///
/// # Safety
/// Needs AVX-512F; `tile` holds `weight.cols * Z` lines; `sums` holds whole rows of `16 * Z` floats.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile_avx512<C: Column, const Z: usize, const A: usize>(
    weight: &CsrView<'_, C>,
    tile: &[Line],
    first: usize,
    sums: &mut [f32],
) {
    let x = tile.as_ptr().cast::<f32>();
    for (i, sums) in sums.chunks_exact_mut(16 * Z).enumerate() {
        let entries = weight.entries(first + i);
        let (values, columns) = (&weight.values[entries.clone()], &weight.columns[entries]);
        let mut total = [_mm512_setzero_ps(); Z];
        for (values, columns) in values.chunks(PARTIAL * A).zip(columns.chunks(PARTIAL * A)) {
            let mut parts = [[_mm512_setzero_ps(); Z]; A];
            let ((values, last_values), (columns, last_columns)) = (values.as_chunks::<A>(), columns.as_chunks::<A>());
            for (values, columns) in values.iter().zip(columns) {
                for a in 0..A {
                    // SAFETY: a column's Z lines lie inside the tile.
                    unsafe { accumulate_avx512(values[a], x.add(columns[a].index() * 16 * Z), &mut parts[a]) };
                }
            }
            for ((part, &value), &column) in parts.iter_mut().zip(last_values).zip(last_columns) {
                // SAFETY: as above.
                unsafe { accumulate_avx512(value, x.add(column.index() * 16 * Z), part) };
            }
            for part in parts {
                for (total, part) in total.iter_mut().zip(part) {
                    *total = _mm512_add_ps(*total, part);
                }
            }
        }
        for (sums, total) in sums.as_chunks_mut::<16>().0.iter_mut().zip(total) {
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), total) };
        }
    }
}

/// Adds one entry's products to `16 * Z` sums.
///
/// # Safety
/// Needs AVX-512F; `16 * Z` floats are readable at `x`, 64-byte aligned.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn accumulate_avx512<const Z: usize>(value: f32, x: *const f32, sums: &mut [__m512; Z]) {
    let value = _mm512_set1_ps(value);
    for (z, sum) in sums.iter_mut().enumerate() {
        // SAFETY: by the caller's contract.
        *sum = unsafe { _mm512_fmadd_ps(value, _mm512_load_ps(x.add(16 * z)), *sum) };
    }
}

/// As [`tile_avx512`], with `Y` registers of 8 lanes.
///
/// # Safety
/// Needs AVX2 and FMA; `tile` holds `weight.cols * Y / 2` lines; `sums` holds whole rows of `8 * Y` floats.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_avx2<C: Column, const Y: usize>(
    weight: &CsrView<'_, C>,
    tile: &[Line],
    first: usize,
    sums: &mut [f32],
) {
    let x = tile.as_ptr().cast::<f32>();
    for (i, sums) in sums.chunks_exact_mut(8 * Y).enumerate() {
        let entries = weight.entries(first + i);
        let mut lanes = [_mm256_setzero_ps(); Y];
        let (values, columns) = (&weight.values[entries.clone()], &weight.columns[entries]);
        for (values, columns) in values.chunks(PARTIAL).zip(columns.chunks(PARTIAL)) {
            let mut part = [_mm256_setzero_ps(); Y];
            for (&value, &column) in values.iter().zip(columns) {
                let value = _mm256_set1_ps(value);
                for (y, sum) in part.iter_mut().enumerate() {
                    // SAFETY: a column's Y / 2 lines lie inside the tile.
                    *sum =
                        unsafe { _mm256_fmadd_ps(value, _mm256_load_ps(x.add(column.index() * 8 * Y + 8 * y)), *sum) };
                }
            }
            for (lane, part) in lanes.iter_mut().zip(part) {
                *lane = _mm256_add_ps(*lane, part);
            }
        }
        for (y, lane) in lanes.iter().enumerate() {
            // SAFETY: sums holds 8 * Y floats.
            unsafe { _mm256_storeu_ps(sums.as_mut_ptr().add(8 * y), *lane) };
        }
    }
}
