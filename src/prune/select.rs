//! Unstructured patterns: the k lowest scores of a scope go, found by selection, not by sorting.
//!
//! The rule is `torch.kthvalue`'s: k = floor(sparsity * weights), the threshold is the k-th smallest
//! score, a weight is kept when its score is above it. Scores tied with the threshold go too; k = 0
//! prunes nothing.
//!
//! ```text
//!   pass 1   counts of the scores' upper bits          every score read once
//!            -> the bin that holds the k-th smallest
//!   pass 2   the scores of that bin, a few per cent    every score read once more
//!            -> its (k - scores below the bin)-th smallest, by quickselect
//! ```
//!
//! Methods that look at inputs remove exactly k weights of every row instead: of tied scores those of lower
//! columns go first, which is what a stable sort does.

use super::histogram::bin_of;
use super::{Decided, Layer, Scores, to_prune};
use crate::sparse::Pattern;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Scores computed at a time: 16 KiB, within the L1 cache.
const CHUNK: usize = 4096;
/// Lower bits that a bin leaves open: 8192 bins of 4 bytes fit the L1 cache, and 32 bins an octave
/// of magnitudes leave few scores for the second pass.
const BIN_SHIFT: u32 = 19;
const BINS: usize = 1 << (32 - BIN_SHIFT);

pub(super) fn global(layers: &[Layer<'_>], scores: &dyn Scores, sparsity: f64) -> Decided {
    let sizes: Vec<usize> = layers.iter().map(|layer| layer.rows * layer.cols).collect();
    let threshold = threshold(&sizes, |layer, start, out| scores.fill(layer, start, out), sparsity);
    let patterns: Vec<Pattern> =
        layers.iter().enumerate().map(|(index, layer)| above(index, layer, scores, |_| threshold)).collect();
    let ties = beyond(&patterns, threshold, sparsity);
    Decided { patterns, ties: Some(ties) }
}

/// Weights that went beyond the k asked for, since they tie with a threshold that is not 0.
fn beyond(patterns: &[Pattern], threshold: Option<u32>, sparsity: f64) -> u64 {
    let weights: usize = patterns.iter().map(|pattern| pattern.rows() * pattern.cols()).sum();
    let kept: usize = patterns.iter().map(Pattern::kept).sum();
    if threshold.is_none_or(|cut| cut == 0) { 0 } else { (weights - kept - to_prune(weights, sparsity)) as u64 }
}

pub(super) fn per_layer(layers: &[Layer<'_>], scores: &dyn Scores, sparsity: f64) -> Decided {
    let mut ties = 0;
    let one = |(index, layer): (usize, &Layer<'_>)| {
        let threshold = threshold(&[layer.rows * layer.cols], |_, start, out| scores.fill(index, start, out), sparsity);
        let pattern = above(index, layer, scores, |_| threshold);
        ties += beyond(std::slice::from_ref(&pattern), threshold, sparsity);
        pattern
    };
    let patterns = layers.iter().enumerate().map(one).collect();
    Decided { patterns, ties: Some(ties) }
}

pub(super) fn per_row(layers: &[Layer<'_>], scores: &dyn Scores, sparsity: f64) -> Decided {
    let ties = AtomicU64::new(0);
    let one = |(index, layer): (usize, &Layer<'_>)| {
        let k = to_prune(layer.cols, sparsity);
        above(index, layer, scores, |row_scores| {
            let cut = (k > 0).then(|| *row_scores.to_vec().select_nth_unstable(k - 1).1)?;
            if cut > 0 {
                let gone = row_scores.iter().filter(|score| **score <= cut).count();
                ties.fetch_add((gone - k) as u64, Ordering::Relaxed);
            }
            Some(cut)
        })
    };
    let patterns = layers.iter().enumerate().map(one).collect();
    Decided { patterns, ties: Some(ties.into_inner()) }
}

/// Removes exactly k weights of every row.
pub(super) fn exactly_per_row(layers: &[Layer<'_>], scores: &dyn Scores, sparsity: f64) -> Decided {
    let ties = AtomicU64::new(0);
    let one = |(index, layer): (usize, &Layer<'_>)| {
        let k = to_prune(layer.cols, sparsity);
        Pattern::from_rows(layer.rows, layer.cols, |row, words| {
            let mut row_scores = vec![0; layer.cols];
            scores.fill(index, row * layer.cols, &mut row_scores);
            words.fill(u64::MAX);
            // The column as the lower half makes every key another's unequal.
            let mut keys: Vec<u64> =
                row_scores.iter().enumerate().map(|(col, &score)| u64::from(score) << 32 | col as u64).collect();
            if 0 < k && k < keys.len() {
                keys.select_nth_unstable(k);
            }
            let (gone, stay) = keys.split_at(k);
            let cut = gone.iter().map(|key| key >> 32).max().unwrap_or(0);
            if cut > 0 {
                ties.fetch_add(stay.iter().filter(|key| *key >> 32 == cut).count() as u64, Ordering::Relaxed);
            }
            for col in gone.iter().map(|key| (key & u64::from(u32::MAX)) as usize) {
                words[col / 64] &= !(1 << (col % 64));
            }
        })
    };
    let patterns = layers.iter().enumerate().map(one).collect();
    Decided { patterns, ties: Some(ties.into_inner()) }
}

/// Keeps the scores above a row's threshold; no threshold keeps all.
fn above(
    index: usize,
    layer: &Layer<'_>,
    scores: &dyn Scores,
    threshold: impl Fn(&[u32]) -> Option<u32> + Sync,
) -> Pattern {
    Pattern::from_rows(layer.rows, layer.cols, |row, words| {
        let mut row_scores = vec![0; layer.cols];
        scores.fill(index, row * layer.cols, &mut row_scores);
        let Some(threshold) = threshold(&row_scores) else { return words.fill(u64::MAX) };
        for (word, scores) in words.iter_mut().zip(row_scores.chunks(64)) {
            *word = scores.iter().enumerate().fold(0, |word, (bit, &score)| word | u64::from(score > threshold) << bit);
        }
    })
}

/// The k-th smallest score of parts of the given sizes, k being floor(sparsity * weights); none for k = 0.
fn threshold(sizes: &[usize], fill: impl Fn(usize, usize, &mut [u32]) + Sync, sparsity: f64) -> Option<u32> {
    kth_smallest(sizes, fill, to_prune(sizes.iter().sum(), sparsity))
}

/// The k-th smallest score of parts of the given sizes, or none for k = 0.
pub(super) fn kth_smallest(sizes: &[usize], fill: impl Fn(usize, usize, &mut [u32]) + Sync, k: usize) -> Option<u32> {
    if k == 0 {
        return None;
    }
    let chunks: Vec<(usize, usize, usize)> = sizes
        .iter()
        .enumerate()
        .flat_map(|(part, &size)| (0..size).step_by(CHUNK).map(move |start| (part, start, CHUNK.min(size - start))))
        .collect();
    let each =
        |&(part, start, length): &(usize, usize, usize), buffer: &mut [u32; CHUNK], visit: &mut dyn FnMut(&[u32])| {
            fill(part, start, &mut buffer[..length]);
            visit(&buffer[..length]);
        };
    let tasks = chunks.par_chunks(chunks.len().div_ceil(4 * rayon::current_num_threads()).max(1));

    let histogram = tasks
        .clone()
        .map(|chunks| {
            let mut bins = vec![0u32; BINS];
            let mut buffer = [0; CHUNK];
            for chunk in chunks {
                each(chunk, &mut buffer, &mut |scores| {
                    for score in scores {
                        bins[(score >> BIN_SHIFT) as usize] += 1;
                    }
                });
            }
            bins.into_iter().map(u64::from).collect::<Vec<u64>>()
        })
        .reduce(|| vec![0; BINS], |a, b| a.into_iter().zip(b).map(|(a, b)| a + b).collect());
    let (bin, below) = bin_of(&histogram, k as u64).expect("every score was counted, and k is at most their number");

    let mut candidates: Vec<u32> = tasks
        .flat_map_iter(|chunks| {
            let mut found = Vec::new();
            let mut buffer = [0; CHUNK];
            for chunk in chunks {
                each(chunk, &mut buffer, &mut |scores| {
                    found.extend(scores.iter().filter(|&&score| score >> BIN_SHIFT == bin as u32));
                });
            }
            found
        })
        .collect();
    let rank = (k as u64 - below - 1) as usize;
    Some(*candidates.select_nth_unstable(rank).1)
}

#[cfg(test)]
mod tests {
    use super::super::{Method, NmPattern, Scope};
    use super::super::{Request, prune};
    use super::*;
    use proptest::prelude::*;

    fn request(method: Method, scope: Scope, sparsity: f64) -> Request {
        let (scope, pattern) = (Some(scope), NmPattern::Unstructured);
        Request { method, scope, pattern, sparsity, seed: 3, settings: Default::default() }
    }

    fn layer(rows: usize, cols: usize, weights: Vec<f32>) -> Layer<'static> {
        Layer { name: "layer", rows, cols, weights: weights.into() }
    }

    #[test]
    fn four_by_four_by_hand() {
        // Magnitudes 0.1 .. 1.6; global 50 % removes 0.1 .. 0.8.
        #[rustfmt::skip]
        let weights = vec![
             0.1, -1.6,  0.3, -1.4,
            -0.5,  0.6, -1.2,  1.1,
             0.9, -0.8,  0.7, -1.0,
             1.3, -0.4,  1.5, -0.2,
        ];
        let kept = |scope, sparsity| {
            let patterns =
                prune(&[layer(4, 4, weights.clone())], &request(Method::Magnitude, scope, sparsity)).unwrap();
            (0..4).map(|row| patterns[0].columns_of(row).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(kept(Scope::Global, 0.5), [vec![1, 3], vec![2, 3], vec![0, 3], vec![0, 2]]);
        assert_eq!(kept(Scope::Layer, 0.5), kept(Scope::Global, 0.5));
        assert_eq!(kept(Scope::Row, 0.25), [vec![1, 2, 3], vec![1, 2, 3], vec![0, 1, 3], vec![0, 1, 2]]);
        assert_eq!(kept(Scope::Global, 0.0), vec![vec![0, 1, 2, 3]; 4]);
    }

    #[test]
    fn ties_with_the_threshold_go() {
        let patterns =
            prune(&[layer(1, 5, vec![1.0, -1.0, 1.0, 2.0, 0.5])], &request(Method::Magnitude, Scope::Global, 0.4))
                .unwrap();
        assert_eq!(patterns[0].columns_of(0).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn ties_are_counted_by_hand() {
        use super::super::{GramStatistics, decide, prune_calibrated};
        let weights = vec![1.0, -1.0, 1.0, 2.0, 1.0, 1.0, 3.0, 0.5];
        let ties = |request: Request| decide(0, &[layer(2, 4, weights.clone())], &request).unwrap().ties;
        let of = |scope, sparsity| ties(request(Method::Magnitude, scope, sparsity));
        // Four are to go, 0.5 and three of the five ones; the two others go too.
        assert_eq!(of(Scope::Global, 0.5), Some(2));
        assert_eq!(of(Scope::Layer, 0.5), Some(2));
        // Of 1 1 1 2 two are to go and three do; of 1 1 3 0.5 the two that are to go are 0.5 and a one.
        assert_eq!(of(Scope::Row, 0.5), Some(2));
        assert_eq!(of(Scope::Global, 0.0), Some(0));
        // 0.5 alone is to go.
        assert_eq!(of(Scope::Global, 0.125), Some(0));
        // Of 1 1 1 2 two go and a one stays; of 1 1 3 0.5 a one goes and a one stays.
        let pattern = NmPattern::NofM { n: 2, m: 4 };
        assert_eq!(ties(Request { pattern, scope: None, ..request(Method::Magnitude, Scope::Row, 0.5) }), Some(2));
        let inputs = GramStatistics::new(1, vec![1.0, 1.0, 4.0, 1.0], None);
        // Scores 1 1 2 2 and 1 1 6 0.5.
        let wanda = |request| prune_calibrated(&layer(2, 4, weights.clone()), &inputs, &request).unwrap().ties;
        assert_eq!(wanda(request(Method::Wanda, Scope::Row, 0.5)), Some(1));
        assert_eq!(wanda(request(Method::Wanda, Scope::Row, 0.75)), Some(1));
        // Which of the zeros go is nobody's loss.
        let zeros = decide(0, &[layer(1, 4, vec![0.0, -0.0, 0.0, 1.0])], &request(Method::Magnitude, Scope::Row, 0.5));
        assert_eq!(zeros.unwrap().ties, Some(0));
        assert_eq!(ties(request(Method::Given, Scope::Row, 0.5)), None);
    }

    #[test]
    fn random_depends_on_the_seed_alone_and_removes_its_share() {
        let make = |seed| {
            let layers = [layer(50, 70, vec![1.0; 3500]), layer(10, 7, vec![1.0; 70])];
            prune(&layers, &Request { seed, ..request(Method::Random, Scope::Layer, 0.3) }).unwrap()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert_eq!(make(1)[0].kept(), 2450);
        assert_eq!(make(1)[1].kept(), 49);
    }

    proptest! {
        #[test]
        fn ties_are_the_scores_at_the_cut_beyond_those_to_go(
            quarters in prop::collection::vec(0i8..5, 48),
            sparsity in 0.0f64..1.0,
        ) {
            use super::super::{GramStatistics, decide, prune_calibrated};
            let weights: Vec<f32> = quarters.iter().map(|&q| f32::from(q) / 4.0).collect();
            let beyond = |set: &[f32], k: usize| {
                let mut sorted = set.to_vec();
                sorted.sort_by(f32::total_cmp);
                let cut = if k == 0 { 0.0 } else { sorted[k - 1] };
                if cut == 0.0 { 0 } else { (sorted.iter().filter(|score| **score <= cut).count() - k) as u64 }
            };
            let of = |width: usize, k: usize| weights.chunks(width).map(|set| beyond(set, k)).sum::<u64>();
            let ties = |request: Request| decide(0, &[layer(6, 8, weights.clone())], &request).unwrap().ties.unwrap();
            for (scope, width) in [(Scope::Global, 48), (Scope::Layer, 48), (Scope::Row, 8)] {
                prop_assert_eq!(ties(request(Method::Magnitude, scope, sparsity)), of(width, to_prune(width, sparsity)));
            }
            let inputs = GramStatistics::new(1, vec![1.0; 8], None);
            let wanda = |request| prune_calibrated(&layer(6, 8, weights.clone()), &inputs, &request).unwrap().ties;
            prop_assert_eq!(wanda(request(Method::Wanda, Scope::Row, sparsity)), Some(of(8, to_prune(8, sparsity))));
            for (n, m) in [(2, 4), (1, 4), (5, 8)] {
                let nm = |method| Request { pattern: NmPattern::NofM { n, m }, scope: None, ..request(method, Scope::Row, 0.0) };
                prop_assert_eq!(ties(nm(Method::Magnitude)), of(m as usize, (m - n) as usize));
                prop_assert_eq!(wanda(nm(Method::Wanda)), Some(of(m as usize, (m - n) as usize)));
            }
        }

        #[test]
        fn selection_equals_sorting(
            values in prop::collection::vec(prop_oneof![-2.0f32..2.0, Just(0.0), Just(0.25)], 1..9000),
            sparsity in 0.0f64..1.0,
        ) {
            let mut sorted: Vec<f32> = values.iter().map(|v| v.abs()).collect();
            sorted.sort_by(f32::total_cmp);
            let k = (sparsity * values.len() as f64) as usize;
            let expected = values.iter().filter(|v| k == 0 || v.abs() > sorted[k - 1]).count();
            let split = values.len() / 3;
            let layers = [layer(1, split, values[..split].to_vec()), layer(1, values.len() - split, values[split..].to_vec())];
            let patterns = prune(&layers, &request(Method::Magnitude, Scope::Global, sparsity)).unwrap();
            prop_assert_eq!(patterns.iter().map(Pattern::kept).sum::<usize>(), expected);
        }

        #[test]
        fn every_group_of_a_nm_pattern_keeps_exactly_n(n in 1u32..8, more in 1u32..8, rows in 1usize..9, groups in 1usize..20, seed in any::<u64>()) {
            let m = n + more;
            let cols = groups * m as usize;
            let weights = (0..rows * cols).map(|i| ((i as u64 * 7919) ^ seed) as f32).collect();
            let pattern = NmPattern::NofM { n, m };
            let patterns = prune(&[layer(rows, cols, weights)], &Request { pattern, scope: None, ..request(Method::Magnitude, Scope::Global, 0.0) }).unwrap();
            for row in 0..rows {
                for group in 0..groups {
                    let kept = (0..m as usize).filter(|i| patterns[0].get(row, group * m as usize + i)).count();
                    prop_assert_eq!(kept, n as usize);
                }
            }
        }
    }
}
