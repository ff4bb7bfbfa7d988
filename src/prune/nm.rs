//! N:M patterns: of every M weights along the input dimension the N with the highest scores stay.
//!
//! Mishra et al., arXiv 2104.08378 (2:4). Of equal scores the later one stays.

use super::{Decided, Layer, PruneError, Scores};
use crate::sparse::Pattern;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) fn prune(layers: &[Layer<'_>], scores: &dyn Scores, n: u32, m: u32) -> Result<Decided, PruneError> {
    layers.iter().try_for_each(|layer| divides(layer, n, m))?;
    let (keep, width) = (n as usize, m as usize);
    let ties = AtomicU64::new(0);
    let patterns = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            Pattern::from_rows(layer.rows, layer.cols, |row, words| {
                let mut row_scores = vec![0; layer.cols];
                scores.fill(index, row * layer.cols, &mut row_scores);
                words.fill(u64::MAX);
                let mut of_row = 0;
                for (group, scores) in row_scores.chunks(width).enumerate() {
                    let goes = lowest(width - keep, scores);
                    of_row += tied(goes, scores);
                    for col in (0..width).filter(|i| goes >> i & 1 == 1).map(|i| group * width + i) {
                        words[col / 64] &= !(1 << (col % 64));
                    }
                }
                ties.fetch_add(of_row, Ordering::Relaxed);
            })
        })
        .collect();
    Ok(Decided { patterns, ties: Some(ties.into_inner()) })
}

/// How many of the scores that stay are as low as the highest that goes, unless that is 0.
fn tied(goes: u64, scores: &[u32]) -> u64 {
    let of = |wanted: u64| scores.iter().enumerate().filter(move |(i, _)| goes >> i & 1 == wanted).map(|(_, s)| *s);
    let cut = of(1).max().unwrap_or(0);
    if cut == 0 { 0 } else { of(0).filter(|score| *score == cut).count() as u64 }
}

/// # Errors
/// When a layer's input features can't be put into groups of M.
pub(super) fn divides(layer: &Layer<'_>, n: u32, m: u32) -> Result<(), PruneError> {
    match layer.cols.is_multiple_of(m as usize) {
        true => Ok(()),
        false => Err(PruneError::GroupWidth { layer: layer.name.into(), cols: layer.cols, n, m }),
    }
}

/// The places of the `count` lowest of at most 64 scores, as bits; of equal scores the earlier one.
///
/// A score goes when fewer than `count` are in front of it. For groups of 4 and 8 comparing all pairs is faster
/// than sorting.
pub(super) fn lowest(count: usize, scores: &[u32]) -> u64 {
    let mut bits = 0;
    for (i, &score) in scores.iter().enumerate() {
        let before = scores[..i].iter().filter(|&&earlier| earlier <= score).count();
        let behind = scores[i + 1..].iter().filter(|&&later| later < score).count();
        bits |= u64::from(before + behind < count) << i;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::lowest;

    #[test]
    fn of_equal_scores_the_earlier_goes() {
        assert_eq!(lowest(2, &[5, 1, 7, 3]), 0b1010);
        assert_eq!(lowest(2, &[4, 4, 4, 4]), 0b0011);
        assert_eq!(lowest(2, &[9, 4, 1, 4]), 0b0110);
        assert_eq!(lowest(0, &[9, 4]), 0);
        assert_eq!(lowest(63, &[7; 64]), u64::MAX >> 1);
    }
}
