//! Sixteen `f32` lanes on each instruction set, so that every kernel is written once.

use crate::sparse::Value;
use half::{bf16, f16};

/// A number as kernels read it from weights.
pub(super) trait Number: Value {
    /// Sixteen numbers of memory, widened.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Lanes>(from: *const Self) -> L;

    /// `rows` rows of `depth` numbers as f32, and from a row to the next: themselves, or widened in `buffer`.
    ///
    /// # Safety
    /// As [`Lanes`]; rows are `stride` apart; `buffer` holds `rows` times `depth`, each rounded up to sixteen.
    #[inline(always)]
    unsafe fn widen<L: Lanes>(
        from: *const Self,
        stride: usize,
        rows: usize,
        depth: usize,
        buffer: *mut f32,
    ) -> (*const f32, usize) {
        let padded = depth.next_multiple_of(16);
        for row in 0..rows {
            // SAFETY: the caller's contract; the rest of a row is taken one by one.
            unsafe {
                let (from, to) = (from.add(row * stride), buffer.add(row * padded));
                let whole = depth / 16 * 16;
                for k in (0..whole).step_by(16) {
                    Self::load::<L>(from.add(k)).store(to.add(k));
                }
                for k in whole..depth {
                    *to.add(k) = (*from.add(k)).to_f32();
                }
            }
        }
        (buffer, padded)
    }
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's contract.
        unsafe { L::load(from) }
    }

    #[inline(always)]
    unsafe fn widen<L: Lanes>(
        from: *const Self,
        stride: usize,
        _: usize,
        _: usize,
        _: *mut f32,
    ) -> (*const f32, usize) {
        (from, stride)
    }
}

impl Number for bf16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's contract.
        unsafe { L::load_bf16(from) }
    }
}

impl Number for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's contract.
        unsafe { L::load_f16(from) }
    }
}

/// Sixteen `f32` numbers.
///
/// # Safety
/// All functions: the machine has the instruction set, and pointers are good for what is read or
/// written, which need not be aligned. They are inlined by force into functions that have the
/// instruction set turned on.
pub(super) trait Lanes: Copy {
    /// Vectors that fit the registers, besides a few for operands.
    const REGISTERS: usize;

    /// The same number in every lane.
    unsafe fn splat(value: f32) -> Self;
    /// Sixteen numbers of memory.
    unsafe fn load(from: *const f32) -> Self;
    /// To sixteen places of memory.
    unsafe fn store(self, to: *mut f32);
    /// `self + a * b`
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// `self + other`
    unsafe fn add(self, other: Self) -> Self;
    /// The sum of all lanes.
    unsafe fn sum(self) -> f32;
    /// Sixteen bf16 numbers of memory, widened.
    unsafe fn load_bf16(from: *const bf16) -> Self;
    /// Sixteen f16 numbers of memory, widened.
    unsafe fn load_f16(from: *const f16) -> Self;
    /// The next numbers of `from` in the lanes whose bit is set, 0 elsewhere. Reads up to 16 numbers.
    unsafe fn expand(mask: u16, from: *const f32) -> Self;
    /// The next bf16 numbers of `from` in the places whose bit is set, 0 elsewhere, widened: the even places
    /// and the odd ones. Reads up to 32 numbers.
    unsafe fn expand_pairs(mask: u32, from: *const bf16) -> (Self, Self);
    /// `x[columns[lane]]`
    unsafe fn gather(x: *const f32, columns: *const u8) -> Self;
    /// `x[columns[lane]]`, columns below 2^31.
    unsafe fn gather_wide(x: *const f32, columns: *const u32) -> Self;

    /// `to[j * to_stride + i] = from[i * from_stride + j]` for 16 x 16 numbers.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for i in 0..16 {
            for j in 0..16 {
                // SAFETY: the contract of the trait.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
            }
        }
    }
}

/// Arrays that the compiler vectorises as it can.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 16]);

// Every `unsafe` block of the implementations rests on the contract of the trait.
impl Lanes for Portable {
    const REGISTERS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 16])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the contract of the trait.
        Self(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the contract of the trait.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut sums = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
        }
        sums[0]
    }

    #[inline(always)]
    unsafe fn expand(mask: u16, mut from: *const f32) -> Self {
        let mut lanes = [0.0; 16];
        let mut bits = mask;
        while bits != 0 {
            // SAFETY: one number is read for every bit.
            unsafe {
                lanes[bits.trailing_zeros() as usize] = *from;
                from = from.add(1);
            }
            bits &= bits - 1;
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the contract of the trait.
        Self(std::array::from_fn(|i| unsafe { *from.add(i) }.to_f32()))
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the contract of the trait.
        Self(std::array::from_fn(|i| unsafe { *from.add(i) }.to_f32()))
    }

    #[inline(always)]
    unsafe fn expand_pairs(mask: u32, mut from: *const bf16) -> (Self, Self) {
        let mut lanes = [[0.0; 16]; 2];
        let mut bits = mask;
        while bits != 0 {
            let place = bits.trailing_zeros() as usize;
            // SAFETY: one number is read for every bit.
            unsafe {
                lanes[place % 2][place / 2] = (*from).to_f32();
                from = from.add(1);
            }
            bits &= bits - 1;
        }
        (Self(lanes[0]), Self(lanes[1]))
    }

    #[inline(always)]
    unsafe fn gather(x: *const f32, columns: *const u8) -> Self {
        // SAFETY: the contract of the trait.
        Self(std::array::from_fn(|i| unsafe { *x.add(usize::from(*columns.add(i))) }))
    }

    #[inline(always)]
    unsafe fn gather_wide(x: *const f32, columns: *const u32) -> Self {
        // SAFETY: the contract of the trait.
        Self(std::array::from_fn(|i| unsafe { *x.add(*columns.add(i) as usize) }))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use half::{bf16, f16};
    use std::arch::x86_64::*;

    /// One register.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(__m512);

    impl Lanes for Avx512 {
        const REGISTERS: usize = 24;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the contract of the trait, here and in what follows.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: as above.
            unsafe { _mm512_reduce_add_ps(self.0) }
        }

        #[inline(always)]
        unsafe fn expand(mask: u16, from: *const f32) -> Self {
            // From a register: some CPUs take long to expand from memory.
            // SAFETY: as above.
            Self(unsafe { _mm512_maskz_expand_ps(mask, _mm512_loadu_ps(from)) })
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const bf16) -> Self {
            // SAFETY: as above.
            Self(unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            })
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const f16) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
        }

        #[inline(always)]
        unsafe fn expand_pairs(mask: u32, from: *const bf16) -> (Self, Self) {
            // SAFETY: as above; `Simd::for_pairs` has made sure of VBMI2.
            unsafe {
                let pairs = _mm512_maskz_expand_epi16(mask, _mm512_loadu_si512(from.cast()));
                let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                (Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))), Self(_mm512_castsi512_ps(odd)))
            }
        }

        #[inline(always)]
        unsafe fn gather(x: *const f32, columns: *const u8) -> Self {
            // SAFETY: as above.
            Self(unsafe {
                let columns = _mm512_cvtepu8_epi32(_mm_loadu_si128(columns.cast()));
                _mm512_i32gather_ps::<4>(columns, x)
            })
        }

        #[inline(always)]
        unsafe fn gather_wide(x: *const f32, columns: *const u32) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_i32gather_ps::<4>(_mm512_loadu_si512(columns.cast()), x) })
        }

        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            // SAFETY: as above.
            unsafe {
                let rows: [__m512; 16] = std::array::from_fn(|i| _mm512_loadu_ps(from.add(i * from_stride)));
                // quads[4 * g + j]: columns j, j + 4, j + 8, j + 12 of the four rows of group g.
                let mut quads = [_mm512_setzero_ps(); 16];
                for g in 0..4 {
                    let low =
                        |a: usize, b: usize| _mm512_castps_pd(_mm512_unpacklo_ps(rows[4 * g + a], rows[4 * g + b]));
                    let high =
                        |a: usize, b: usize| _mm512_castps_pd(_mm512_unpackhi_ps(rows[4 * g + a], rows[4 * g + b]));
                    quads[4 * g] = _mm512_castpd_ps(_mm512_unpacklo_pd(low(0, 1), low(2, 3)));
                    quads[4 * g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low(0, 1), low(2, 3)));
                    quads[4 * g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high(0, 1), high(2, 3)));
                    quads[4 * g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high(0, 1), high(2, 3)));
                }
                for j in 0..4 {
                    // Quarters 0 and 2, then 1 and 3, of two groups each.
                    let a = _mm512_shuffle_f32x4::<0x88>(quads[j], quads[4 + j]);
                    let b = _mm512_shuffle_f32x4::<0xdd>(quads[j], quads[4 + j]);
                    let c = _mm512_shuffle_f32x4::<0x88>(quads[8 + j], quads[12 + j]);
                    let d = _mm512_shuffle_f32x4::<0xdd>(quads[8 + j], quads[12 + j]);
                    _mm512_storeu_ps(to.add(j * to_stride), _mm512_shuffle_f32x4::<0x88>(a, c));
                    _mm512_storeu_ps(to.add((j + 4) * to_stride), _mm512_shuffle_f32x4::<0x88>(b, d));
                    _mm512_storeu_ps(to.add((j + 8) * to_stride), _mm512_shuffle_f32x4::<0xdd>(a, c));
                    _mm512_storeu_ps(to.add((j + 12) * to_stride), _mm512_shuffle_f32x4::<0xdd>(b, d));
                }
            }
        }
    }

    /// Two registers.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256, __m256);

    /// For every mask of eight lanes the place that each lane's number comes from; the top bit marks a
    /// lane that has none.
    static PLACES: [[u32; 8]; 256] = {
        let mut table = [[1u32 << 31; 8]; 256];
        let mut mask = 0;
        while mask < 256 {
            let (mut lane, mut next) = (0, 0);
            while lane < 8 {
                if mask >> lane & 1 == 1 {
                    table[mask][lane] = next;
                    next += 1;
                }
                lane += 1;
            }
            mask += 1;
        }
        table
    };

    /// The same for 16-bit numbers, byte by byte.
    static BYTES: [[u8; 16]; 256] = {
        let mut table = [[1u8 << 7; 16]; 256];
        let mut mask = 0;
        while mask < 256 {
            let mut lane = 0;
            while lane < 8 {
                if mask >> lane & 1 == 1 {
                    table[mask][2 * lane] = 2 * PLACES[mask][lane] as u8;
                    table[mask][2 * lane + 1] = 2 * PLACES[mask][lane] as u8 + 1;
                }
                lane += 1;
            }
            mask += 1;
        }
        table
    };

    impl Lanes for Avx2 {
        const REGISTERS: usize = 6;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the contract of the trait, here and in what follows.
            let half = unsafe { _mm256_set1_ps(value) };
            Self(half, half)
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }

        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: as above.
            unsafe {
                let eight = _mm256_add_ps(self.0, self.1);
                let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }

        #[inline(always)]
        unsafe fn expand(mask: u16, from: *const f32) -> Self {
            // SAFETY: as above; a half reads eight numbers, the second from where the first ended.
            unsafe {
                let half = |mask: u16, from: *const f32| {
                    let places = _mm256_loadu_si256(PLACES[usize::from(mask)].as_ptr().cast());
                    let spread = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), places);
                    _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_srai_epi32::<31>(places)), spread)
                };
                let (low, high) = (mask & 255, mask >> 8);
                Self(half(low, from), half(high, from.add(low.count_ones() as usize)))
            }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const bf16) -> Self {
            // SAFETY: as above.
            unsafe {
                let half = |from: *const bf16| {
                    let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
                };
                Self(half(from), half(from.add(8)))
            }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const f16) -> Self {
            // SAFETY: as above; every CPU with AVX2 that `Simd::is_available` lets through has F16C.
            unsafe {
                let half = |from: *const f16| _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
                Self(half(from), half(from.add(8)))
            }
        }

        #[inline(always)]
        unsafe fn expand_pairs(mask: u32, from: *const bf16) -> (Self, Self) {
            // SAFETY: as above; a quarter reads eight numbers, each from where the last ended.
            unsafe {
                let mut next = from;
                let quarters: [__m128i; 4] = std::array::from_fn(|i| {
                    let bits = (mask >> (8 * i)) as usize & 255;
                    let places = _mm_loadu_si128(BYTES[bits].as_ptr().cast());
                    let quarter = _mm_shuffle_epi8(_mm_loadu_si128(next.cast()), places);
                    next = next.add(bits.count_ones() as usize);
                    quarter
                });
                let low = _mm256_set_m128i(quarters[1], quarters[0]);
                let high = _mm256_set_m128i(quarters[3], quarters[2]);
                let even = |pairs| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
                let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
                let odd = |pairs| _mm256_castsi256_ps(_mm256_and_si256(pairs, upper));
                (Self(even(low), even(high)), Self(odd(low), odd(high)))
            }
        }

        #[inline(always)]
        unsafe fn gather(x: *const f32, columns: *const u8) -> Self {
            // SAFETY: as above.
            unsafe {
                let half = |columns: *const u8| {
                    let columns = _mm256_cvtepu8_epi32(_mm_loadl_epi64(columns.cast()));
                    _mm256_i32gather_ps::<4>(x, columns)
                };
                Self(half(columns), half(columns.add(8)))
            }
        }

        #[inline(always)]
        unsafe fn gather_wide(x: *const f32, columns: *const u32) -> Self {
            // SAFETY: as above.
            unsafe {
                let half = |columns: *const u32| _mm256_i32gather_ps::<4>(x, _mm256_loadu_si256(columns.cast()));
                Self(half(columns), half(columns.add(8)))
            }
        }
    }
}
