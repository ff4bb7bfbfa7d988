//! k-medoids: features that stand for the others, the sum of distances to them being small.
//!
//! ```text
//!   build   the feature with the smallest sum of distances, then one by one what lowers the cost most
//!   swap    the swap of a medoid for another feature that lowers the cost most, while one does
//!   cost    the sum over features of the distance to the nearest medoid, in positions
//! ```
//! L. Kaufman and P. Rousseeuw, "Finding Groups in Data", 1990. All swaps with one feature are tried in one walk over the
//! features, as in E. Schubert and P. Rousseeuw, arXiv:1810.05691. Distances are counted anew in every walk: counting is
//! fast, and a table of all pairs would be large.

use super::super::Mask;
use super::super::pairs::distances_from;
use super::super::popcount::tile;
use super::super::sums::{BitSum, products};
use rayon::prelude::*;

/// Medoids and their clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medoids {
    /// Ascending, `[k]`.
    pub medoids: Vec<usize>,
    /// For every feature which medoid is nearest: the earlier of two, a medoid its own.
    pub labels: Vec<usize>,
    /// The sum of distances in positions.
    pub cost_count: u64,
    /// Swaps that were made.
    pub swaps: usize,
}

/// Features of a tile of distances.
const SIDE: usize = 64;

/// The clusters of medoids, which are put in ascending order.
///
/// # Panics
/// When there is no medoid.
pub fn assign_to_medoids(mask: &Mask, medoids: &[usize]) -> Medoids {
    let mut medoids = medoids.to_vec();
    medoids.sort_unstable();
    let near = Near::of(mask, &medoids);
    let mut labels = near.medoid;
    medoids.iter().enumerate().for_each(|(label, &medoid)| labels[medoid] = label);
    let cost_count = near.first.iter().map(|&distance| u64::from(distance)).sum();
    Medoids { medoids, labels, cost_count, swaps: 0 }
}

/// Chooses medoids one by one; of equally good ones the lowest.
///
/// # Panics
/// When `k` is 0 or above the number of features.
pub fn build_medoids(mask: &Mask, k: usize) -> Vec<usize> {
    assert!((1..=mask.features()).contains(&k), "{k} medoids of {} features", mask.features());
    let mut chosen = vec![central(mask)];
    let mut nearest = distances_from(mask, chosen[0]);
    while chosen.len() < k {
        let gains = over_features(mask, |feature, distances| {
            let gain = nearest.iter().zip(distances).map(|(&now, &then)| u64::from(now.saturating_sub(then)));
            (feature, gain.sum::<u64>())
        });
        let free = gains.into_iter().filter(|(feature, _)| !chosen.contains(feature));
        // The largest gain, of equal ones the first.
        let Some((best, _)) = free.reduce(|best, other| if other.1 > best.1 { other } else { best }) else { break };
        chosen.push(best);
        nearest.iter_mut().zip(distances_from(mask, best)).for_each(|(now, then)| *now = then.min(*now));
    }
    chosen.sort_unstable();
    chosen
}

/// The feature with the smallest sum of distances to all, the lowest of several: m |x| + T - 2 x·s.
fn central(mask: &Mask) -> usize {
    let sum = BitSum::of(mask.length().div_ceil(64), &mask.rows());
    let products = products(mask, &[sum]);
    let features = mask.features();
    let cost = |feature: usize| (features * mask.kept(feature)) as i64 - 2 * products[feature];
    (0..features).min_by_key(|&feature| (cost(feature), feature)).unwrap_or(0)
}

/// Swaps medoids while a swap lowers the cost: always the best one, of equal ones that of the lowest medoid, then of
/// the lowest other feature.
///
/// # Panics
/// When there is no medoid.
pub fn swap_medoids(mask: &Mask, medoids: &[usize]) -> Medoids {
    let mut medoids = medoids.to_vec();
    medoids.sort_unstable();
    let mut swaps = 0;
    loop {
        let near = Near::of(mask, &medoids);
        let cost: u64 = near.first.iter().map(|&distance| u64::from(distance)).sum();
        let best = over_features(mask, |feature, distances| near.best_swap(&medoids, feature, distances));
        match best.into_iter().filter(|(_, _, feature)| !medoids.contains(feature)).min() {
            Some((then, gone, feature)) if then < cost => {
                medoids.retain(|&medoid| medoid != gone);
                medoids.push(feature);
                medoids.sort_unstable();
                swaps += 1;
            }
            _ => return Medoids { swaps, ..assign_to_medoids(mask, &medoids) },
        }
    }
}

/// How far every feature is from its medoids.
struct Near {
    /// Which is nearest, the earlier of two.
    medoid: Vec<usize>,
    first: Vec<u32>,
    /// To the second; as far as can be with one medoid.
    second: Vec<u32>,
}

impl Near {
    fn of(mask: &Mask, medoids: &[usize]) -> Self {
        let features = mask.features();
        let mut near =
            Self { medoid: vec![0; features], first: vec![u32::MAX; features], second: vec![u32::MAX; features] };
        for (label, &medoid) in medoids.iter().enumerate() {
            for (feature, distance) in distances_from(mask, medoid).into_iter().enumerate() {
                if distance < near.first[feature] {
                    near.second[feature] = near.first[feature];
                    near.first[feature] = distance;
                    near.medoid[feature] = label;
                } else {
                    near.second[feature] = near.second[feature].min(distance);
                }
            }
        }
        near
    }

    /// The best swap for a feature with these distances: the cost, the medoid that goes, the feature.
    fn best_swap(&self, medoids: &[usize], feature: usize, distances: &[u32]) -> (u64, usize, usize) {
        let mut kept = 0;
        // What it costs beyond that when the nearest medoid of a feature goes.
        let mut loss = vec![0; medoids.len()];
        for (other, &distance) in distances.iter().enumerate() {
            let with = distance.min(self.first[other]);
            kept += u64::from(with);
            loss[self.medoid[other]] += u64::from(distance.min(self.second[other]) - with);
        }
        let swaps = medoids.iter().zip(loss).map(|(&medoid, loss)| (kept + loss, medoid, feature));
        swaps.min().unwrap_or((u64::MAX, 0, feature))
    }
}

/// `of(feature, its distances to all features)` for every feature, in order.
fn over_features<T: Send>(mask: &Mask, of: impl Fn(usize, &[u32]) -> T + Sync) -> Vec<T> {
    let rows = mask.rows();
    let some = |(block, these): (usize, &[&[u64]])| {
        let first = block * SIDE;
        let mut distances = vec![0; these.len() * rows.len()];
        let mut counts = vec![0; SIDE * SIDE];
        for (at, those) in (0..).step_by(SIDE).zip(rows.chunks(SIDE)) {
            let counts = &mut counts[..these.len() * those.len()];
            tile(these, those, counts);
            for (i, counts) in counts.chunks(those.len()).enumerate() {
                for (j, &common) in counts.iter().enumerate() {
                    let kept = (mask.kept(first + i) + mask.kept(at + j)) as u32;
                    distances[i * rows.len() + at + j] = kept - 2 * common;
                }
            }
        }
        distances.chunks(rows.len()).enumerate().map(|(i, distances)| of(first + i, distances)).collect::<Vec<_>>()
    };
    rows.par_chunks(SIDE).enumerate().flat_map_iter(some).collect()
}
