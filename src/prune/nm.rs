//! N:M patterns: of every M weights along the input dimension the N with the highest scores stay.
//!
//! Mishra et al., arXiv 2104.08378 (2:4). Of equal scores the later one stays.

use super::{Layer, PruneError, Scores};
use crate::sparse::Pattern;

pub(super) fn prune(layers: &[Layer<'_>], scores: &dyn Scores, n: u32, m: u32) -> Result<Vec<Pattern>, PruneError> {
    if let Some(layer) = layers.iter().find(|layer| !layer.cols.is_multiple_of(m as usize)) {
        return Err(PruneError::GroupWidth { layer: layer.name.into(), cols: layer.cols, n, m });
    }
    let (keep, width) = (n as usize, m as usize);
    Ok(layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            Pattern::from_rows(layer.rows, layer.cols, |row, words| {
                let mut row_scores = vec![0; layer.cols];
                scores.fill(index, row * layer.cols, &mut row_scores);
                let mut order: Vec<usize> = Vec::with_capacity(width);
                for (group, scores) in row_scores.chunks(width).enumerate() {
                    order.clear();
                    order.extend(0..width);
                    order.sort_by_key(|&i| scores[i]);
                    for &i in &order[width - keep..] {
                        let col = group * width + i;
                        words[col / 64] |= 1 << (col % 64);
                    }
                }
            })
        })
        .collect())
}
