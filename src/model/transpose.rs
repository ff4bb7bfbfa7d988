//! A matrix the other way round.

/// `[rows, cols]` → `[cols, rows]`, in blocks that fit the L1 cache.
pub(crate) fn transpose<T: Copy + Default>(from: &[T], rows: usize, cols: usize) -> Vec<T> {
    const BLOCK: usize = 32;
    let mut to = vec![T::default(); from.len()];
    for row0 in (0..rows).step_by(BLOCK) {
        for col0 in (0..cols).step_by(BLOCK) {
            for row in row0..rows.min(row0 + BLOCK) {
                for col in col0..cols.min(col0 + BLOCK) {
                    to[col * rows + row] = from[row * cols + col];
                }
            }
        }
    }
    to
}
