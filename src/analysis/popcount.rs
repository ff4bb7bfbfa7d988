//! Counting bits: how many a row of words has, and how many two rows have in common.
//!
//! ```text
//!   a  1 0 1 1      a & b  1 0 0 1      common(a, b) = 2
//!   b  1 1 0 1
//! ```
//!
//! The only `unsafe` code of the analyses. Each function is compiled for AVX-512 with VPOPCNTDQ, for AVX2 and for
//! any CPU; [`Simd::detect`] picks once per process. Results are whole numbers, hence the same on all of them.

use std::sync::OnceLock;

/// Rows of a tile on either side: 16 counters and 4 + 1 operands are in registers at once, of 32.
pub(super) const TILE: usize = 4;

/// The instruction set that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Simd {
    /// Eight words an instruction.
    Avx512,
    /// Four words in about ten instructions: nibbles are looked up.
    Avx2,
    /// Word by word.
    Portable,
}

impl Simd {
    /// The best that this machine has.
    fn detect() -> Self {
        static BEST: OnceLock<Simd> = OnceLock::new();
        *BEST.get_or_init(|| {
            let best = [Self::Avx512, Self::Avx2].into_iter().find(|simd| simd.is_available());
            best.unwrap_or(Self::Portable)
        })
    }

    /// Whether this machine has it.
    fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vpopcntdq"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }
}

/// The bits that are set.
pub(super) fn ones(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// The bits that are set in both rows.
///
/// # Panics
/// When the rows have different lengths.
pub(super) fn common(a: &[u64], b: &[u64]) -> u32 {
    let mut out = [0];
    tile(&[a], &[b], &mut out);
    out[0]
}

/// `out[i * b.len() + j]` is [`common`] of `a[i]` and `b[j]`. At most 2^32 - 1 bits a row.
///
/// # Panics
/// When rows have different lengths, or `out` has no place for every pair.
pub(super) fn tile(a: &[&[u64]], b: &[&[u64]], out: &mut [u32]) {
    tile_with(Simd::detect(), a, b, out);
}

fn tile_with(simd: Simd, a: &[&[u64]], b: &[&[u64]], out: &mut [u32]) {
    assert_eq!(out.len(), a.len() * b.len(), "a tile needs a place for every pair");
    let Some(words) = a.first().map(|row| row.len()) else { return };
    assert!(a.iter().chain(b).all(|row| row.len() == words), "rows have different lengths");
    match simd {
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => blocks(a, b, out, |a, b| {
            // SAFETY: `detect` found AVX-512F and VPOPCNTDQ; all rows have `words` words, as was checked above.
            unsafe { avx512::block(a, b, words) }
        }),
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => pairs(a, b, out, |a, b| {
            // SAFETY: `detect` found AVX2 and POPCNT; both rows have `words` words, as was checked above.
            unsafe { avx2::pair(a, b, words) }
        }),
        #[cfg(not(target_arch = "x86_64"))]
        Simd::Avx512 | Simd::Avx2 => pairs(a, b, out, portable),
        Simd::Portable => pairs(a, b, out, portable),
    }
}

fn portable(a: &[u64], b: &[u64]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a & b).count_ones()).sum()
}

/// Pair by pair.
fn pairs(a: &[&[u64]], b: &[&[u64]], out: &mut [u32], count: impl Fn(&[u64], &[u64]) -> u32) {
    for (a, out) in a.iter().zip(out.chunks_mut(b.len().max(1))) {
        for (b, out) in b.iter().zip(out) {
            *out = count(a, b);
        }
    }
}

/// In blocks of [`TILE`] x [`TILE`]; at the edges the last row is counted more than once and its copies dropped.
#[cfg(target_arch = "x86_64")]
fn blocks(
    a: &[&[u64]],
    b: &[&[u64]],
    out: &mut [u32],
    count: impl Fn([&[u64]; TILE], [&[u64]; TILE]) -> [[u32; TILE]; TILE],
) {
    for i in (0..a.len()).step_by(TILE) {
        let these: [&[u64]; TILE] = std::array::from_fn(|k| a[(i + k).min(a.len() - 1)]);
        for j in (0..b.len()).step_by(TILE) {
            let those: [&[u64]; TILE] = std::array::from_fn(|k| b[(j + k).min(b.len() - 1)]);
            let counts = count(these, those);
            for (k, counts) in counts.iter().enumerate().take(a.len() - i) {
                let width = TILE.min(b.len() - j);
                out[(i + k) * b.len() + j..][..width].copy_from_slice(&counts[..width]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::TILE;
    use std::arch::x86_64::*;

    /// Plain loops over arrays: vectors handed through closures would leave their registers.
    ///
    /// # Safety
    /// The CPU has AVX-512F and VPOPCNTDQ, and every row has at least `words` words.
    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    pub(super) unsafe fn block(a: [&[u64]; TILE], b: [&[u64]; TILE], words: usize) -> [[u32; TILE]; TILE] {
        let mut sums = [_mm512_setzero_si512(); TILE * TILE];
        let mut at = 0;
        while at < words {
            // Lanes after the last word are neither read nor counted.
            let lanes = if words - at >= 8 { 0xff } else { (1u8 << (words - at)) - 1 };
            let mut these = [_mm512_setzero_si512(); TILE];
            for i in 0..TILE {
                // SAFETY: `lanes` has bits only for words before `words`, and masked lanes are not touched.
                these[i] = unsafe { _mm512_maskz_loadu_epi64(lanes, a[i].as_ptr().add(at).cast()) };
            }
            for j in 0..TILE {
                // SAFETY: as above.
                let that = unsafe { _mm512_maskz_loadu_epi64(lanes, b[j].as_ptr().add(at).cast()) };
                for i in 0..TILE {
                    let common = _mm512_popcnt_epi64(_mm512_and_si512(these[i], that));
                    sums[i * TILE + j] = _mm512_add_epi64(sums[i * TILE + j], common);
                }
            }
            at += 8;
        }
        let mut out = [[0; TILE]; TILE];
        for (half, out) in out.as_flattened_mut().chunks_exact_mut(8).enumerate() {
            let mut eight = [_mm512_setzero_si512(); 8];
            eight.copy_from_slice(&sums[half * 8..half * 8 + 8]);
            // SAFETY: the caller's contract; eight numbers of 32 bits are 256.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), totals(eight)) };
        }
        out
    }

    /// The totals of eight vectors: halves are added to halves of another vector, three times.
    ///
    /// ```text
    ///   v0 v1  ->  [v0 v1 | v0 v1 | v0 v1 | v0 v1]      pairs of lanes added
    ///   with v2 v3  ->  [v0 v1 | v0 v1 | v2 v3 | v2 v3]
    ///   with v4 v5 v6 v7  ->  [v0 v1 | v2 v3 | v4 v5 | v6 v7]
    /// ```
    #[target_feature(enable = "avx512f")]
    fn totals(v: [__m512i; 8]) -> __m256i {
        let mut pairs = [_mm512_setzero_si512(); 4];
        for (i, pair) in pairs.iter_mut().enumerate() {
            let (a, b) = (v[2 * i], v[2 * i + 1]);
            *pair = _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        }
        let low = fold(pairs[0], pairs[1]);
        let high = fold(pairs[2], pairs[3]);
        _mm512_cvtepi64_epi32(fold(low, high))
    }

    /// Quarters 0 + 1 and 2 + 3 of each.
    #[target_feature(enable = "avx512f")]
    fn fold(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi64(_mm512_shuffle_i64x2::<0b10_00_10_00>(a, b), _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    /// # Safety
    /// The CPU has AVX2 and POPCNT, and both rows have at least `words` words.
    #[target_feature(enable = "avx2,popcnt")]
    pub(super) unsafe fn pair(a: &[u64], b: &[u64], words: usize) -> u32 {
        let ones = _mm256_setr_epi8(
            0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
        );
        let low = _mm256_set1_epi8(0x0f);
        let mut sum = _mm256_setzero_si256();
        let whole = words / 4 * 4;
        for at in (0..whole).step_by(4) {
            // SAFETY: words `at` to `at + 4` are before `words`.
            let load = |row: &[u64]| unsafe { _mm256_loadu_si256(row.as_ptr().add(at).cast()) };
            let both = _mm256_and_si256(load(a), load(b));
            let lower = _mm256_shuffle_epi8(ones, _mm256_and_si256(both, low));
            let upper = _mm256_shuffle_epi8(ones, _mm256_and_si256(_mm256_srli_epi16::<4>(both), low));
            let bytes = _mm256_add_epi8(lower, upper);
            sum = _mm256_add_epi64(sum, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
        }
        let halves = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let total = (_mm_cvtsi128_si64(halves) + _mm_extract_epi64::<1>(halves)) as u32;
        a[whole..words].iter().zip(&b[whole..words]).fold(total, |total, (a, b)| total + (a & b).count_ones())
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    /// Bit by bit, without any of the code above.
    fn slow(a: &[u64], b: &[u64]) -> u32 {
        (0..a.len() * 64).filter(|&i| a[i / 64] >> (i % 64) & 1 == 1 && b[i / 64] >> (i % 64) & 1 == 1).count() as u32
    }

    #[test]
    fn every_instruction_set_counts_alike_at_every_edge() {
        let mut random = Random::new(7, 0);
        for words in [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 64, 65] {
            for (m, n) in [(1, 1), (4, 4), (5, 3), (2, 9), (0, 2), (3, 0)] {
                let mut rows = |n: usize| -> Vec<Vec<u64>> {
                    (0..n).map(|_| (0..words).map(|_| random.next()).collect()).collect()
                };
                let (a, b) = (rows(m), rows(n));
                let (a, b): (Vec<&[u64]>, Vec<&[u64]>) =
                    (a.iter().map(|r| &r[..]).collect(), b.iter().map(|r| &r[..]).collect());
                let expected: Vec<u32> = a.iter().flat_map(|a| b.iter().map(|b| slow(a, b))).collect();
                for simd in [Simd::Avx512, Simd::Avx2, Simd::Portable].into_iter().filter(|simd| simd.is_available()) {
                    let mut out = vec![9; m * n];
                    tile_with(simd, &a, &b, &mut out);
                    assert_eq!(out, expected, "{simd:?}, {words} words, {m} x {n}");
                }
            }
        }
        assert_eq!((common(&[u64::MAX; 9], &[u64::MAX; 9]), ones(&[3, u64::MAX])), (576, 66));
    }

    #[test]
    #[should_panic(expected = "different lengths")]
    fn rows_of_different_lengths_are_refused() {
        common(&[1, 2], &[1]);
    }
}
