//! Lloyd's k-means: its starts, its passes, and what becomes of a cluster that lost its points.
//!
//! ```text
//!   starts ──> every point to its nearest centre (ties: the lowest) ──> centres = means ──┐
//!                 ^                                                                       │
//!                 └────────────────────── until no label changes ─────────────────────────┘
//! ```
//! Points are bits ([`super::bits`]) or numbers ([`super::dense`]); this file knows neither. An empty cluster takes the
//! point that is farthest from its centre (ties: the lowest) and is taken away from its cluster's mean; when every
//! point is at its centre, it stays empty and its centre stays.
//!
//! S. Lloyd, "Least squares quantization in PCM", 1982; the starts are those of D. Arthur and S. Vassilvitskii,
//! "k-means++", 2007, with several tries each.

use super::super::Mask;
use super::super::random::Random;
use super::Points;
use super::bits::BitCentres;
use super::centres::{Centres, Start};
use super::dense::DenseCentres;
use std::borrow::Cow;

/// Passes after which a run ends anyway.
const MAX_PASSES: usize = 300;

/// What a run of k-means ends with.
#[derive(Clone, Debug, PartialEq)]
pub struct KMeans {
    /// The cluster of every point, in the order of starts.
    pub labels: Vec<usize>,
    /// The sum of squared distances to the last centres, in units of the points.
    pub inertia: f64,
    /// Passes, the one that changed nothing among them.
    pub n_iter: usize,
    /// Times that an empty cluster took a point.
    pub relocated: usize,
}

impl KMeans {
    /// The run with the smallest inertia, the first of several.
    ///
    /// # Panics
    /// When `k` is 0 or above the number of features, or weights have another shape than the mask.
    pub fn best(mask: &Mask, points: Points, k: usize, starts: usize, seed: u64) -> Self {
        let mut centres = centres(mask, points, k);
        let mut run = |start: usize| {
            let drawn = plus_plus(&*centres, k, &mut Random::new(seed, start as u64));
            centres.start(Start::Points(&drawn));
            lloyd(&mut *centres, k)
        };
        let mut best = run(0);
        for start in 1..starts {
            let found = run(start);
            if found.inertia < best.inertia {
                best = found;
            }
        }
        best
    }

    /// One run from the centres given.
    ///
    /// # Panics
    /// As [`KMeans::best`], or when there are not `k` starts.
    pub fn from(mask: &Mask, points: Points, k: usize, start: Start) -> Self {
        let given = match start {
            Start::Points(points) => points.len(),
            Start::Given(centres) => centres.len() / mask.length(),
        };
        assert_eq!(given, k, "there are as many starts as clusters");
        let mut centres = centres(mask, points, k);
        centres.start(start);
        lloyd(&mut *centres, k)
    }
}

fn centres<'a>(mask: &'a Mask, points: Points<'a>, k: usize) -> Box<dyn Centres + 'a> {
    assert!((1..=mask.features()).contains(&k), "{k} clusters of {} features", mask.features());
    match points {
        Points::Mask => Box::new(BitCentres::new(mask, k)),
        Points::Weights(weights) => Box::new(DenseCentres::new(Cow::Borrowed(weights), mask.features(), k)),
        Points::Sign(weights) => {
            let sign = |&weight: &f32| if weight == 0.0 { 0.0 } else { weight.signum() };
            Box::new(DenseCentres::new(weights.iter().map(sign).collect(), mask.features(), k))
        }
    }
}

fn lloyd(centres: &mut dyn Centres, k: usize) -> KMeans {
    let mut labels = Vec::new();
    let (mut n_iter, mut relocated) = (0, 0);
    while n_iter < MAX_PASSES {
        n_iter += 1;
        let (new, mut own): (Vec<usize>, Vec<f64>) = centres.nearest().into_iter().unzip();
        if new == labels {
            break;
        }
        labels = new;
        let mut members = labels.clone();
        for cluster in empty(&labels, k) {
            let Some(farthest) = farthest(&own) else { break };
            members[farthest] = cluster;
            own[farthest] = 0.0;
            relocated += 1;
        }
        centres.move_to_means(&members);
    }
    let inertia = centres.distances(&labels).iter().sum();
    KMeans { labels, inertia, n_iter, relocated }
}

fn empty(labels: &[usize], k: usize) -> Vec<usize> {
    let mut used = vec![false; k];
    labels.iter().for_each(|&label| used[label] = true);
    (0..k).filter(|&cluster| !used[cluster]).collect()
}

/// The point with the largest distance, the lowest of several; nothing where all are 0.
fn farthest(own: &[f64]) -> Option<usize> {
    let mut best = None;
    let mut distance = 0.0;
    for (point, &own) in own.iter().enumerate() {
        if own > distance {
            (best, distance) = (Some(point), own);
        }
    }
    best
}

/// `k` different-looking points: each is drawn several times with a chance that grows with its squared distance to
/// those before, and the try that leaves the smallest sum of distances is taken.
fn plus_plus(centres: &dyn Centres, k: usize, random: &mut Random) -> Vec<usize> {
    let tries = 2 + (k as f64).ln() as usize;
    let points = centres.points();
    let mut chosen = vec![random.below(points)];
    let mut nearest = centres.distances_to_point(chosen[0]);
    while chosen.len() < k {
        let mut best: Option<(f64, usize, Vec<f64>)> = None;
        for _ in 0..tries {
            let point = draw(&nearest, random);
            let mut with = centres.distances_to_point(point);
            with.iter_mut().zip(&nearest).for_each(|(with, &before)| *with = with.min(before));
            let sum = with.iter().sum();
            if best.as_ref().is_none_or(|(least, _, _)| sum < *least) {
                best = Some((sum, point, with));
            }
        }
        if let Some((_, point, with)) = best {
            chosen.push(point);
            nearest = with;
        }
    }
    chosen
}

/// A point, each with a chance in proportion to its weight; any where all are 0.
fn draw(weights: &[f64], random: &mut Random) -> usize {
    let total: f64 = weights.iter().sum();
    let mut left = random.unit() * total;
    for (point, &weight) in weights.iter().enumerate() {
        if left < weight {
            return point;
        }
        left -= weight;
    }
    // Nothing has a weight, or rounding left a little.
    weights.iter().rposition(|&weight| weight > 0.0).unwrap_or_else(|| random.below(weights.len()))
}
