//! A picture of a mask: the share of kept positions in every pixel, and along its sides.
//!
//! ```text
//!   mask [out, in]                picture [height, width], at most this many pixels a side
//!   x . | x x          ┌────┬────┐   rows of pixel p: floor(p out / height) to before floor((p + 1) out / height)
//!   . x | x x   ──>    │ .5 │ 1  │
//!   ----+----          ├────┼────┤
//!   . . | x .          │ 0  │ .5 │
//!   . . | . x          └────┴────┘
//! ```
//! Rows and columns come in any order: as they are, by density, by cluster, by group.

use super::stats::ratio;
use crate::sparse::Pattern;
use rayon::prelude::*;

/// A picture of densities.
#[derive(Clone, Debug, PartialEq)]
pub struct Spy {
    /// Pixels in a row.
    pub width: usize,
    /// Pixels in a column.
    pub height: usize,
    /// `[height, width]`, row-major: the share of its positions that a pixel keeps.
    pub density: Vec<f64>,
    /// `[height]`: of all positions of a row of pixels.
    pub row_marginal: Vec<f64>,
    /// `[width]`: of all positions of a column of pixels.
    pub col_marginal: Vec<f64>,
}

/// Draws a matrix `[out, in]` with at most `max_px` pixels a side. `rows` and `cols` are orders: the first row drawn
/// is `rows[0]`; nothing stands for the order of the matrix. An order may leave rows out.
///
/// # Panics
/// When an order names what is not there.
pub fn spy(pattern: &Pattern, rows: Option<&[usize]>, cols: Option<&[usize]>, max_px: usize) -> Spy {
    let all = |order: Option<&[usize]>, count: usize| order.map_or_else(|| (0..count).collect(), <[usize]>::to_vec);
    let (rows, cols) = (all(rows, pattern.rows()), all(cols, pattern.cols()));
    let (height, width) = (rows.len().min(max_px), cols.len().min(max_px));
    // The pixel of every column of the matrix; columns left out have none.
    let mut pixel_of = vec![None; pattern.cols()];
    for pixel in 0..width {
        cols[span(pixel, width, cols.len())].iter().for_each(|&col| pixel_of[col] = Some(pixel));
    }
    let counts: Vec<Vec<u64>> = (0..height)
        .into_par_iter()
        .map(|pixel| {
            let mut counts = vec![0; width];
            for &row in &rows[span(pixel, height, rows.len())] {
                pattern.columns_of(row).filter_map(|col| pixel_of[col]).for_each(|pixel| counts[pixel] += 1);
            }
            counts
        })
        .collect();
    let high = |pixel| span(pixel, height, rows.len()).len();
    let wide = |pixel| span(pixel, width, cols.len()).len();
    let share = |count: u64, size: usize| ratio(count as f64, size as f64);
    let row_marginal =
        counts.iter().enumerate().map(|(y, row)| share(row.iter().sum(), high(y) * cols.len())).collect();
    let column = |x: usize| counts.iter().map(|row| row[x]).sum();
    let col_marginal = (0..width).map(|x| share(column(x), wide(x) * rows.len())).collect();
    let pixels =
        counts.iter().enumerate().flat_map(|(y, row)| row.iter().enumerate().map(move |(x, &count)| (y, x, count)));
    let density = pixels.map(|(y, x, count)| share(count, high(y) * wide(x))).collect();
    Spy { width, height, density, row_marginal, col_marginal }
}

/// What a pixel of `pixels` shows of `count`.
fn span(pixel: usize, pixels: usize, count: usize) -> std::ops::Range<usize> {
    pixel * count / pixels..(pixel + 1) * count / pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_means_of_blocks() {
        let weights = [1., 0., 1., 1., 0., 1., 1., 1., 0., 0., 1., 0., 0., 0., 0., 1.];
        let pattern = Pattern::keep_where(4, 4, &weights, |_, weight| weight != 0.0);
        let found = spy(&pattern, None, None, 2);
        assert_eq!((found.width, found.height, &found.density[..]), (2, 2, &[0.5, 1.0, 0.0, 0.5][..]));
        assert_eq!((&found.row_marginal[..], &found.col_marginal[..]), (&[0.75, 0.25][..], &[0.25, 0.75][..]));
        let found = spy(&pattern, Some(&[3, 2, 1, 0]), Some(&[3, 2, 0]), 2);
        assert_eq!(found.density, [0.5, 0.25, 1.0, 0.75]);
    }

    #[test]
    fn a_small_mask_is_drawn_bit_by_bit_and_an_odd_one_loses_nothing() {
        let pattern = Pattern::random(7, 5, 0.5, 3);
        let found = spy(&pattern, None, None, 1024);
        assert!((0..35).all(|i| (found.density[i] == 1.0) == pattern.get(i / 5, i % 5)));
        let pattern = Pattern::random(1000, 333, 0.3, 4);
        let found = spy(&pattern, None, None, 64);
        let weights: Vec<f64> =
            (0..64 * 64).map(|i| (span(i / 64, 64, 1000).len() * span(i % 64, 64, 333).len()) as f64).collect();
        let kept: f64 = found.density.iter().zip(&weights).map(|(density, weight)| density * weight).sum();
        assert!((kept - pattern.kept() as f64).abs() < 1e-6);
        assert!(spy(&pattern, Some(&[]), None, 64).density.is_empty());
    }
}
