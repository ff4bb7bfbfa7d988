//! Where the zeros of a matrix are: densities by row, column, head and block of columns, dead rows and columns,
//! conformance with N:M, and what the matrix costs.
//!
//! ```text
//!   weight [out, in]      heads along Axis::Out          N:M along in: groups of M from column 0 on
//!   x . x x | .           head 0: the first rows         [x . x x] .      3 kept of 4; the last column
//!   . x . x | x           head 1: the next ...           [. x . x] x      is the remainder
//! ```
//! Densities, bytes and operations count kept positions; weights are needed for norms alone.

use super::stats::{mean, ratio, sd};
use super::sums::BitSum;
use super::{Axis, Mask};
use crate::sparse::Pattern;
use rayon::prelude::*;

/// How shares are spread over rows, columns or features; the deviation is over n.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Spread {
    pub mean: f64,
    pub sd: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    fn of(counts: &[usize], size: usize) -> Self {
        let shares: Vec<f64> = counts.iter().map(|&count| count as f64 / size as f64).collect();
        let min = shares.iter().copied().fold(f64::INFINITY, f64::min);
        let max = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self { mean: mean(&shares), sd: sd(&shares, 0), min, max }
    }
}

/// A row of table `structure`.
#[derive(Clone, Debug)]
pub struct Structure {
    /// Positions kept.
    pub nnz: u64,
    /// Positions.
    pub total: u64,
    /// 1 - nnz / total.
    pub sparsity: f64,
    /// Kept positions whose weight is 0; none where weights are not given.
    pub kept_zeros: u64,
    /// This matrix of all matrices of its source.
    pub param_frac: f64,
    /// 2 out in.
    pub flops_per_token_dense: u64,
    /// 2 nnz.
    pub flops_per_token_sparse: u64,
    /// Of the stored type, without an index.
    pub bytes_dense: u64,
    /// Values, indices (16 bits up to 65536 columns, else 32) and row starts.
    pub bytes_csr: u64,
    /// With indices of 32 bits.
    pub bytes_csr_i32: u64,
    /// With indices and row starts of 64 bits.
    pub bytes_csr_i64: u64,
    /// Values and a bit a position, rows from a byte on.
    pub bytes_bitmask: u64,
    /// And row starts of 32 bits.
    pub bytes_bitmask_with_offsets: u64,
    /// Of the rows' densities.
    pub row_density: Spread,
    /// Of the columns' densities.
    pub col_density: Spread,
    /// Rows that keep nothing.
    pub dead_rows: usize,
    /// Columns that keep nothing.
    pub dead_cols: usize,
    /// Rows that keep everything.
    pub full_rows: usize,
    /// Columns that keep everything.
    pub full_cols: usize,
}

/// The structure of a matrix `[out, in]`. `weights` are its values, row-major, where there are any; a value takes
/// `value_bytes`; the matrices of its source have `source_total` positions together.
///
/// # Panics
/// When weights have another shape.
pub fn structure(pattern: &Pattern, weights: Option<&[f32]>, value_bytes: u64, source_total: u64) -> Structure {
    let (out, cols) = (pattern.rows() as u64, pattern.cols() as u64);
    let (nnz, total) = (pattern.kept() as u64, out * cols);
    let rows: Vec<usize> = (0..pattern.rows()).map(|row| pattern.kept_in_row(row)).collect();
    let columns = column_counts(pattern);
    let index = if cols > 65536 { 4 } else { 2 };
    let times = |list: &[usize], count: usize| list.iter().filter(|&&kept| kept == count).count();
    Structure {
        nnz,
        total,
        sparsity: 1.0 - ratio(nnz as f64, total as f64),
        kept_zeros: weights.map_or(0, |weights| kept_zeros(pattern, weights)),
        param_frac: ratio(total as f64, source_total as f64),
        flops_per_token_dense: 2 * total,
        flops_per_token_sparse: 2 * nnz,
        bytes_dense: total * value_bytes,
        bytes_csr: nnz * (value_bytes + index) + 4 * (out + 1),
        bytes_csr_i32: nnz * (value_bytes + 4) + 4 * (out + 1),
        bytes_csr_i64: nnz * (value_bytes + 8) + 8 * (out + 1),
        bytes_bitmask: nnz * value_bytes + out * cols.div_ceil(8),
        bytes_bitmask_with_offsets: nnz * value_bytes + out * cols.div_ceil(8) + 4 * (out + 1),
        row_density: Spread::of(&rows, pattern.cols()),
        col_density: Spread::of(&columns, pattern.rows()),
        dead_rows: times(&rows, 0),
        dead_cols: times(&columns, 0),
        full_rows: times(&rows, pattern.cols()),
        full_cols: times(&columns, pattern.rows()),
    }
}

fn kept_zeros(pattern: &Pattern, weights: &[f32]) -> u64 {
    assert_eq!(weights.len(), pattern.rows() * pattern.cols(), "weights have another shape");
    let of_row = |row: usize| {
        let weights = &weights[row * pattern.cols()..];
        pattern.columns_of(row).filter(|&col| weights[col] == 0.0).count() as u64
    };
    (0..pattern.rows()).into_par_iter().map(of_row).sum()
}

/// How many positions every column keeps.
fn column_counts(pattern: &Pattern) -> Vec<usize> {
    let words = pattern.cols().div_ceil(64);
    let rows: Vec<usize> = (0..pattern.rows()).collect();
    // Counts of whole numbers: their order does not matter.
    let sums = rows.par_chunks(256).map(|rows| {
        let rows: Vec<&[u64]> = rows.iter().map(|&row| pattern.row(row)).collect();
        BitSum::of(words, &rows)
    });
    let sum = sums.reduce(|| BitSum::zero(words), |a, b| a.plus(&b));
    sum.values(pattern.cols()).into_iter().map(|count| count as usize).collect()
}

/// What a density profile goes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Every row.
    Row,
    /// Every column.
    Col,
    /// This many rows (`Axis::Out`: q, k, v) or columns (`Axis::In`: o) at a time.
    Head(Axis, usize),
    /// This many columns at a time.
    ColBlock(usize),
}

/// A row of table `density_profile`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProfileRow {
    /// Which row, column, head or block.
    pub index: usize,
    /// Positions that it keeps.
    pub count: usize,
    /// Positions that it has.
    pub size: usize,
    /// count / size.
    pub density: f64,
    /// Whether it is as wide as asked for; the last may be narrower.
    pub complete: bool,
}

/// Densities along one axis, in order. A width of 0 is taken as 1.
pub fn density_profile(pattern: &Pattern, profile: Profile) -> Vec<ProfileRow> {
    let (rows, cols) = (pattern.rows(), pattern.cols());
    let of_rows = || (0..rows).map(|row| pattern.kept_in_row(row)).collect::<Vec<_>>();
    let (counts, other, width) = match profile {
        Profile::Row => (of_rows(), cols, 1),
        Profile::Col => (column_counts(pattern), rows, 1),
        Profile::Head(Axis::Out, width) => (of_rows(), cols, width.max(1)),
        Profile::Head(Axis::In, width) | Profile::ColBlock(width) => (column_counts(pattern), rows, width.max(1)),
    };
    let rows = counts.chunks(width).enumerate().map(|(index, counts)| {
        let (count, size) = (counts.iter().sum::<usize>(), counts.len() * other);
        ProfileRow { index, count, size, density: ratio(count as f64, size as f64), complete: counts.len() == width }
    });
    rows.collect()
}

/// A row of table `nm_conformance`.
#[derive(Clone, Debug, PartialEq)]
pub struct NmConformance {
    /// Positions that may be kept.
    pub n: usize,
    /// Of this many.
    pub m: usize,
    /// Groups of M consecutive columns, of all rows; what is left of a row is in none.
    pub groups: u64,
    /// Groups that keep at most N.
    pub conforming: u64,
    /// conforming / groups; undefined without groups.
    pub conforming_fraction: f64,
    /// Groups that keep exactly N, of all; undefined without groups.
    pub exact_fraction: f64,
    /// The most that a group keeps.
    pub max_kept: Option<usize>,
    /// Columns after the last group: in mod M.
    pub remainder_columns: usize,
    /// Positions kept in them.
    pub remainder_kept: u64,
    /// Groups that keep 0, 1, ... M.
    pub kept_histogram: Vec<u64>,
}

/// How far a matrix keeps N of M consecutive columns. An M of 0 is taken as 1.
pub fn nm_conformance(pattern: &Pattern, n: usize, m: usize) -> NmConformance {
    let m = m.max(1);
    let per_row = pattern.cols() / m;
    let of_row = |row: usize| {
        let words = pattern.row(row);
        let mut histogram = vec![0u64; m + 1];
        (0..per_row).for_each(|group| histogram[kept_between(words, group * m, group * m + m)] += 1);
        histogram
    };
    let sum = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let kept_histogram = (0..pattern.rows()).into_par_iter().map(of_row).reduce(|| vec![0; m + 1], sum);
    let groups: u64 = kept_histogram.iter().sum();
    let kept: u64 = kept_histogram.iter().enumerate().map(|(kept, times)| kept as u64 * times).sum();
    let conforming = kept_histogram.iter().take(n.saturating_add(1)).sum();
    let exact = kept_histogram.get(n).copied().unwrap_or(0);
    NmConformance {
        n,
        m,
        groups,
        conforming,
        conforming_fraction: ratio(conforming as f64, groups as f64),
        exact_fraction: ratio(exact as f64, groups as f64),
        max_kept: kept_histogram.iter().rposition(|&times| times > 0),
        remainder_columns: pattern.cols() - per_row * m,
        remainder_kept: pattern.kept() as u64 - kept,
        kept_histogram,
    }
}

/// Bits set from `from` to before `to`.
fn kept_between(words: &[u64], from: usize, to: usize) -> usize {
    let mut kept = 0;
    let mut at = from;
    while at < to {
        let end = to.min((at / 64 + 1) * 64);
        let bits = words[at / 64] >> (at % 64);
        let width = end - at;
        kept += (if width == 64 { bits } else { bits & ((1 << width) - 1) }).count_ones() as usize;
        at = end;
    }
    kept
}

/// A row of table `features`.
#[derive(Clone, Copy, Debug)]
pub struct FeatureRow {
    /// Which feature.
    pub feature: usize,
    /// The share of positions kept.
    pub density: f64,
    /// Of its weights.
    pub l2_norm: f64,
    /// The sum of its weights' Wanda scores, |w| times the norm of the input; undefined without inputs.
    pub wanda_score: f64,
    /// Keeps nothing.
    pub is_dead: bool,
    /// Keeps everything.
    pub is_full: bool,
}

/// The features of a matrix `[out, in]` with its weights, row-major. `input_norms` are the norms of its inputs, `[in]`,
/// over all calibration tokens.
///
/// # Panics
/// When weights or norms have another shape.
pub fn features(pattern: &Pattern, weights: &[f32], input_norms: Option<&[f64]>, axis: Axis) -> Vec<FeatureRow> {
    let (rows, cols) = (pattern.rows(), pattern.cols());
    assert_eq!(weights.len(), rows * cols, "weights have another shape");
    assert!(input_norms.is_none_or(|norms| norms.len() == cols), "there is one norm for every input");
    let mask = Mask::of(pattern, axis);
    let (mut squares, mut sizes) = (vec![0.0; mask.features()], vec![0.0; mask.features()]);
    for (row, weights) in weights.chunks(cols).enumerate() {
        for (col, &weight) in weights.iter().enumerate() {
            let feature = match axis {
                Axis::In => col,
                Axis::Out => row,
            };
            let size = f64::from(weight).abs();
            squares[feature] += size * size;
            sizes[feature] += size * input_norms.map_or(f64::NAN, |norms| norms[col]);
        }
    }
    let row = |feature: usize| FeatureRow {
        feature,
        density: mask.density(feature),
        l2_norm: squares[feature].sqrt(),
        wanda_score: sizes[feature],
        is_dead: mask.is_dead(feature),
        is_full: mask.is_full(feature),
    };
    (0..mask.features()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of `x` and `.`.
    fn pattern(rows: &[&str]) -> Pattern {
        let cols = rows[0].len();
        let weights: Vec<f32> =
            rows.iter().flat_map(|row| row.bytes().map(|b| f32::from(u8::from(b == b'x')))).collect();
        Pattern::keep_where(rows.len(), cols, &weights, |_, weight| weight != 0.0)
    }

    #[test]
    fn counts_and_bytes() {
        let pattern = pattern(&["x.xx.", ".....", "xxx.x"]);
        let mut weights = [1.0; 15];
        weights[0] = -0.0;
        let found = structure(&pattern, Some(&weights), 2, 60);
        assert_eq!((found.nnz, found.total, found.kept_zeros, found.param_frac), (7, 15, 1, 0.25));
        assert_eq!((found.dead_rows, found.dead_cols, found.full_rows, found.full_cols), (1, 0, 0, 0));
        assert_eq!((found.bytes_dense, found.bytes_csr, found.bytes_bitmask), (30, 7 * 4 + 16, 14 + 3));
        assert_eq!((found.row_density.max, found.row_density.min, found.col_density.min), (0.8, 0.0, 1.0 / 3.0));
        assert!((found.row_density.mean - 7.0 / 15.0).abs() < 1e-15);
        let wide = structure(&Pattern::full(1, 65537), None, 4, 65537);
        assert_eq!((wide.bytes_csr, wide.full_cols, wide.kept_zeros), (65537 * 8 + 8, 65537, 0));
    }

    #[test]
    fn profiles_keep_the_last_and_say_that_it_is_shorter() {
        let pattern = pattern(&["x.xx.", ".....", "xxx.x"]);
        let counts = |profile| -> Vec<(usize, usize, bool)> {
            density_profile(&pattern, profile).iter().map(|row| (row.count, row.size, row.complete)).collect()
        };
        assert_eq!(counts(Profile::Row), [(3, 5, true), (0, 5, true), (4, 5, true)]);
        assert_eq!(counts(Profile::Col), [(2, 3, true), (1, 3, true), (2, 3, true), (1, 3, true), (1, 3, true)]);
        assert_eq!(counts(Profile::Head(Axis::Out, 2)), [(3, 10, true), (4, 5, false)]);
        assert_eq!(counts(Profile::ColBlock(3)), [(5, 9, true), (2, 6, false)]);
        assert_eq!(counts(Profile::Head(Axis::In, 5)), [(7, 15, true)]);
        assert_eq!(density_profile(&pattern, Profile::ColBlock(3))[1].density, 2.0 / 6.0);
    }

    #[test]
    fn groups_start_at_column_0_and_the_remainder_is_in_none() {
        let found = nm_conformance(&pattern(&["x.xxx", ".x.xx", "....x"]), 2, 4);
        assert_eq!((found.groups, found.conforming, found.max_kept), (3, 2, Some(3)));
        assert_eq!((found.remainder_columns, found.remainder_kept), (1, 3));
        assert_eq!(found.kept_histogram, [1, 0, 1, 1, 0]);
        assert_eq!((found.conforming_fraction, found.exact_fraction), (2.0 / 3.0, 1.0 / 3.0));
        let none = nm_conformance(&pattern(&["xx", "x."]), 2, 4);
        assert!(none.conforming_fraction.is_nan() && none.max_kept.is_none() && none.remainder_kept == 3);
        // Groups across words.
        let wide = Pattern::from_rows(2, 200, |_, words| words.fill(0x5555_5555_5555_5555));
        let found = nm_conformance(&wide, 50, 100);
        assert_eq!((found.groups, found.conforming, found.exact_fraction), (4, 4, 1.0));
        assert_eq!(nm_conformance(&wide, 3, 7).kept_histogram, [0, 0, 0, 28, 28, 0, 0, 0]);
    }

    #[test]
    fn features_have_norms_and_scores_of_their_axis() {
        let pattern = pattern(&["x.", "xx"]);
        let weights = [3.0, 0.0, -4.0, 2.0];
        let found = features(&pattern, &weights, Some(&[10.0, 100.0]), Axis::In);
        assert_eq!((found[0].l2_norm, found[0].wanda_score, found[0].is_full), (5.0, 70.0, true));
        assert_eq!((found[1].l2_norm, found[1].wanda_score, found[1].density), (2.0, 200.0, 0.5));
        let found = features(&pattern, &weights, Some(&[10.0, 100.0]), Axis::Out);
        assert_eq!((found[0].wanda_score, found[1].wanda_score), (30.0, 240.0));
        assert!(features(&pattern, &weights, None, Axis::In)[0].wanda_score.is_nan());
    }
}
