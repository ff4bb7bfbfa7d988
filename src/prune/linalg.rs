//! Products and factors of dense row-major matrices; the only file that knows faer.
//!
//! The threads of the current rayon pool share the work in pieces that no result depends on.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Accum, MatMut, MatRef, Par};

/// The matrix is not positive definite, as far as its precision goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotPositiveDefinite;

/// Columns of a row-major matrix.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    /// The first.
    pub start: usize,
    /// After the last.
    pub end: usize,
    /// Columns of the whole matrix.
    pub of: usize,
}

/// `a += scale * b c`, of which `a` and `c` are columns of wider matrices.
///
/// # Shapes
/// `a` `[rows, n]`, `b` `[rows, k]`, `c` `[k, n]`; the matrices that `a` and `c` are parts of are `columns.of` wide.
pub(super) fn add_product(a: &mut [f32], b: &[f32], c: &[f32], columns: Columns, scale: f32) {
    let Columns { start, end, of } = columns;
    let (n, rows, k) = (end - start, a.len() / of, c.len() / of);
    if n == 0 || rows == 0 || k == 0 {
        return;
    }
    // A row-major matrix is the transpose of a column-major one.
    let a = MatMut::from_column_major_slice_with_stride_mut(&mut a[start..], n, rows, of);
    let b = MatRef::from_column_major_slice(b, k, rows);
    let c = MatRef::from_column_major_slice_with_stride(&c[start..], n, k, of);
    matmul(a, Accum::Add, c, b, scale, Par::rayon(0));
}

/// The upper triangular U with `U^T U = H^-1`, for a symmetric H `[n, n]` that is positive definite.
///
/// ```text
///   J reverses the order of rows: J J = 1
///   J H J = L L^T                   one Cholesky factor
///   U     = J L^-1 J                H = (J L J)(J L J)^T = U^-1 U^-T
/// ```
/// One factor and one triangular inverse, where inverting H and factoring the inverse takes twice the work.
pub(super) fn inverse_root(mut h: Vec<f32>, n: usize) -> Result<Vec<f32>, NotPositiveDefinite> {
    h.reverse();
    factor(&mut h, n)?;
    let mut root = vec![0.0; n * n];
    let out = MatMut::from_row_major_slice_mut(&mut root, n, n);
    invert_lower_triangular(out, MatRef::from_column_major_slice(&h, n, n), Par::rayon(0));
    root.reverse();
    finite(root)
}

/// The inverse of a symmetric H `[n, n]` that is positive definite.
pub(super) fn inverse(mut h: Vec<f32>, n: usize) -> Result<Vec<f32>, NotPositiveDefinite> {
    factor(&mut h, n)?;
    let mut inverse = vec![0.0; n * n];
    let mut memory = MemBuffer::new(llt::inverse::inverse_scratch::<f32>(n, Par::rayon(0)));
    let out = MatMut::from_column_major_slice_mut(&mut inverse, n, n);
    let factor = MatRef::from_column_major_slice(&h, n, n);
    llt::inverse::inverse(out, factor, Par::rayon(0), MemStack::new(&mut memory));
    // Only the lower triangle was written, the upper one when rows are read.
    for row in 0..n {
        for col in 0..row {
            inverse[row * n + col] = inverse[col * n + row];
        }
    }
    finite(inverse)
}

/// Replaces the lower triangle, column-major, by the Cholesky factor.
fn factor(h: &mut [f32], n: usize) -> Result<(), NotPositiveDefinite> {
    let (par, params) = (Par::rayon(0), Default::default());
    let mut memory = MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f32>(n, par, params));
    let h = MatMut::from_column_major_slice_mut(h, n, n);
    let factored = llt::factor::cholesky_in_place(h, Default::default(), par, MemStack::new(&mut memory), params);
    factored.map(drop).map_err(|_| NotPositiveDefinite)
}

/// Pivots that are all but 0 may leave infinite numbers behind.
fn finite(matrix: Vec<f32>) -> Result<Vec<f32>, NotPositiveDefinite> {
    if matrix.iter().all(|number| number.is_finite()) { Ok(matrix) } else { Err(NotPositiveDefinite) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
    }

    #[test]
    fn two_by_two_by_hand() {
        // H^-1 = [[2, -1], [-1, 5]] / 9; its upper root is [[a, b], [0, c]] with a^2 = 2/9, ab = -1/9, b^2 + c^2 = 5/9.
        let h = vec![5.0, 1.0, 1.0, 2.0];
        assert!(close(&inverse(h.clone(), 2).unwrap(), &[2.0 / 9.0, -1.0 / 9.0, -1.0 / 9.0, 5.0 / 9.0]));
        let a = (2.0f32 / 9.0).sqrt();
        let b = -1.0 / 9.0 / a;
        assert!(close(&inverse_root(h, 2).unwrap(), &[a, b, 0.0, (5.0 / 9.0 - b * b).sqrt()]));
    }

    #[test]
    fn what_has_no_root_is_refused() {
        for h in [vec![1.0, 2.0, 2.0, 1.0], vec![0.0; 4], vec![f32::NAN, 0.0, 0.0, 1.0], vec![-1.0, 0.0, 0.0, 1.0]] {
            assert_eq!(inverse_root(h.clone(), 2), Err(NotPositiveDefinite), "{h:?}");
            assert_eq!(inverse(h, 2), Err(NotPositiveDefinite));
        }
    }

    #[test]
    fn products_reach_only_their_columns() {
        let mut a = vec![1.0; 6];
        // [[1], [2]] times [[., 10, 100]] on the last two columns.
        add_product(&mut a, &[1.0, 2.0], &[7.0, 10.0, 100.0], Columns { start: 1, end: 3, of: 3 }, -1.0);
        assert_eq!(a, [1.0, -9.0, -99.0, 1.0, -19.0, -199.0]);
        add_product(&mut a, &[1.0, 2.0], &[7.0, 10.0, 100.0], Columns { start: 3, end: 3, of: 3 }, -1.0);
        assert_eq!(a[0], 1.0);
    }
}
