//! What follows from clusters: distances within and between them, silhouettes, and what density alone explains.
//!
//! ```text
//!   cluster c: m features, s_r of them keep position r
//!     sum of the distances of its pairs            sum_r s_r (m - s_r)
//!     sum of the distances to another cluster      sum_r s_r (m' - s'_r) + s'_r (m - s_r)
//!     sum of the distances from a feature x        m |x| + sum_r s_r - 2 x·s
//! ```
//! So every figure is linear in features, and exact until its last division.

use super::super::Mask;
use super::super::stats::{mean, ratio};
use super::super::sums::{BitSum, cluster_sums, products};
use rayon::prelude::*;

/// The figures of a clustering, all of Hamming distances between masks.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The mean distance of all pairs of one cluster.
    pub within: f64,
    /// The mean distance of all pairs of different clusters.
    pub between: f64,
    /// between / within; undefined where there is no pair of one sort, or within is 0.
    pub separation: f64,
    /// Pairs of one cluster.
    pub within_pairs: u64,
    /// Pairs of different clusters.
    pub between_pairs: u64,
    /// What within is by chance, given the densities.
    pub expected_within: f64,
    /// What between is by chance, given the densities.
    pub expected_between: f64,
    /// expected_between / expected_within: what density alone explains of the separation.
    pub density_separation: f64,
    /// The mean over features; undefined unless there are two clusters, and fewer than features.
    pub silhouette: f64,
    /// Clusters of one feature.
    pub n_singletons: usize,
    /// Clusters with a feature.
    pub n_nonempty: usize,
    /// Features of the largest cluster, of all.
    pub largest_fraction: f64,
    /// The mean over all k clusters of their mean distance, that of fewer than two features counting as 0.
    pub legacy_within: f64,
    /// The mean over pairs of clusters of their mean distance.
    pub legacy_between: f64,
    /// The original program's "separation": legacy_between / legacy_within, 0 where that is 0. With s singletons of k
    /// clusters it is k / (k - s) times the separation, on random masks too.
    pub legacy_ratio: f64,
    /// Features of every cluster.
    pub sizes: Vec<usize>,
}

impl Figures {
    /// Of no clustering.
    pub(super) fn undefined() -> Self {
        let nan = f64::NAN;
        Self {
            within: nan,
            between: nan,
            separation: nan,
            within_pairs: 0,
            between_pairs: 0,
            expected_within: nan,
            expected_between: nan,
            density_separation: nan,
            silhouette: nan,
            n_singletons: 0,
            n_nonempty: 0,
            largest_fraction: nan,
            legacy_within: nan,
            legacy_between: nan,
            legacy_ratio: nan,
            sizes: Vec::new(),
        }
    }
}

/// Clusters and how many of their features keep each position.
struct Clusters {
    sizes: Vec<usize>,
    sums: Vec<BitSum>,
    /// `[k][length]`
    kept: Vec<Vec<i64>>,
}

impl Clusters {
    fn of(mask: &Mask, labels: &[usize], k: usize) -> Self {
        assert_eq!(labels.len(), mask.features(), "every feature has a label");
        let sums = cluster_sums(mask, labels, k);
        let kept = sums.par_iter().map(|sum| sum.values(mask.length())).collect();
        let mut sizes = vec![0; k];
        labels.iter().for_each(|&label| sizes[label] += 1);
        Self { sizes, sums, kept }
    }

    /// The sum of the distances of the pairs of one cluster.
    fn within(&self, cluster: usize) -> u64 {
        let size = self.sizes[cluster] as i64;
        self.kept[cluster].iter().map(|&kept| (kept * (size - kept)) as u64).sum()
    }

    /// The sum of the distances of the pairs of two clusters.
    fn between(&self, a: usize, b: usize) -> u64 {
        let (m, n) = (self.sizes[a] as i64, self.sizes[b] as i64);
        self.kept[a].iter().zip(&self.kept[b]).map(|(&a, &b)| (a * (n - b) + b * (m - a)) as u64).sum()
    }
}

fn pairs_of(size: usize) -> u64 {
    (size as u64) * (size as u64).saturating_sub(1) / 2
}

/// Mean distances of pairs.
pub(super) struct PairMeans {
    within: f64,
    between: f64,
    pub(super) separation: f64,
    within_pairs: u64,
    between_pairs: u64,
}

/// The means alone, which need no product of features with sums.
pub(super) fn pair_means(mask: &Mask, labels: &[usize], k: usize) -> PairMeans {
    means_of(mask, &Clusters::of(mask, labels, k))
}

fn means_of(mask: &Mask, clusters: &Clusters) -> PairMeans {
    let features = mask.features() as i64;
    let within_sum: u64 = (0..clusters.sizes.len()).map(|cluster| clusters.within(cluster)).sum();
    let kept_by = |at: usize| clusters.kept.iter().map(|kept| kept[at]).sum::<i64>();
    let all: u64 = (0..mask.length()).map(kept_by).map(|kept| (kept * (features - kept)) as u64).sum();
    let within_pairs: u64 = clusters.sizes.iter().map(|&size| pairs_of(size)).sum();
    let between_pairs = pairs_of(mask.features()) - within_pairs;
    let length = mask.length() as f64;
    let within = ratio(within_sum as f64, within_pairs as f64) / length;
    let between = ratio((all - within_sum) as f64, between_pairs as f64) / length;
    PairMeans { within, between, separation: ratio(between, within), within_pairs, between_pairs }
}

/// The figures of clusters; `labels` are of all features and below `k`. Clusters may be empty.
///
/// # Panics
/// When a label is missing or not below `k`.
pub fn figures(mask: &Mask, labels: &[usize], k: usize) -> Figures {
    let clusters = Clusters::of(mask, labels, k);
    let means = means_of(mask, &clusters);
    let (expected_within, expected_between) = expected(mask, labels, k, &means);
    let sizes = &clusters.sizes;
    let (legacy_within, legacy_between) = legacy(mask, &clusters);
    let times = |size: usize| sizes.iter().filter(|&&other| other == size).count();
    let silhouettes = silhouettes_of(mask, labels, &clusters);
    Figures {
        within: means.within,
        between: means.between,
        separation: means.separation,
        within_pairs: means.within_pairs,
        between_pairs: means.between_pairs,
        expected_within,
        expected_between,
        density_separation: ratio(expected_between, expected_within),
        silhouette: mean(&silhouettes),
        n_singletons: times(1),
        n_nonempty: k - times(0),
        largest_fraction: ratio(sizes.iter().copied().max().unwrap_or(0) as f64, mask.features() as f64),
        legacy_within,
        legacy_between,
        legacy_ratio: if legacy_between.is_nan() {
            f64::NAN
        } else if legacy_within > 0.0 {
            legacy_between / legacy_within
        } else {
            0.0
        },
        sizes: clusters.sizes,
    }
}

/// The means of D = a (R - b) + b (R - a) over pairs of one cluster and of different ones, of R^2. Over the ordered
/// pairs of m features that keep a_1, a_2, ..., the sum of D / 2 is R m T - T^2 - R T + U, with T and U the sums of a and
/// of a^2.
fn expected(mask: &Mask, labels: &[usize], k: usize, means: &PairMeans) -> (f64, f64) {
    let length = mask.length() as i128;
    let half =
        |size: i128, total: i128, squares: i128| length * size * total - total * total - length * total + squares;
    let mut clusters = vec![(0, 0, 0); k + 1];
    for (feature, &label) in labels.iter().enumerate() {
        let kept = mask.kept(feature) as i128;
        for cluster in [label, k] {
            let (size, total, squares) = &mut clusters[cluster];
            (*size, *total, *squares) = (*size + 1, *total + kept, *squares + kept * kept);
        }
    }
    let halves: Vec<i128> = clusters.into_iter().map(|(size, total, squares)| half(size, total, squares)).collect();
    let within: i128 = halves[..k].iter().sum();
    let area = (length * length) as f64;
    (
        ratio(within as f64, means.within_pairs as f64) / area,
        ratio((halves[k] - within) as f64, means.between_pairs as f64) / area,
    )
}

/// The original's means over clusters. With p = s / m the share of a cluster's features that keep a position, the
/// mean distance of two clusters is the sum of p (1 - p') + p' (1 - p); over all ordered pairs that adds up to
/// P (K - P) - sum p (1 - p), P being the sum of p and K the number of clusters that are not empty.
fn legacy(mask: &Mask, clusters: &Clusters) -> (f64, f64) {
    let length = mask.length() as f64;
    let own = (0..clusters.sizes.len()).map(|cluster| {
        let pairs = pairs_of(clusters.sizes[cluster]);
        if pairs == 0 { 0.0 } else { clusters.within(cluster) as f64 / pairs as f64 / length }
    });
    let within = mean(&own.collect::<Vec<_>>());
    let filled: Vec<usize> = (0..clusters.sizes.len()).filter(|&cluster| clusters.sizes[cluster] > 0).collect();
    let count = filled.len() as f64;
    let at = |position: usize| {
        let shares =
            || filled.iter().map(|&cluster| clusters.kept[cluster][position] as f64 / clusters.sizes[cluster] as f64);
        let total: f64 = shares().sum();
        total * (count - total) - shares().map(|share| share * (1.0 - share)).sum::<f64>()
    };
    let all: f64 = (0..mask.length()).map(at).sum();
    (within, ratio(all, count * (count - 1.0) / 2.0) / length)
}

/// The silhouette of every feature: (b - a) / max(a, b), a being the mean distance to the others of its cluster and b
/// the smallest mean distance to another cluster. 0 for singletons; undefined unless there are two clusters, and fewer
/// than features.
///
/// # Panics
/// When a label is missing or not below `k`.
pub fn silhouettes(mask: &Mask, labels: &[usize], k: usize) -> Vec<f64> {
    silhouettes_of(mask, labels, &Clusters::of(mask, labels, k))
}

fn silhouettes_of(mask: &Mask, labels: &[usize], clusters: &Clusters) -> Vec<f64> {
    let sizes = &clusters.sizes;
    let filled = sizes.iter().filter(|&&size| size > 0).count();
    if filled < 2 || filled >= mask.features() {
        return vec![f64::NAN; mask.features()];
    }
    let totals: Vec<i64> = clusters.sums.iter().map(BitSum::total).collect();
    let products = products(mask, &clusters.sums);
    let of_feature = |(feature, products): (usize, &[i64])| {
        let own = labels[feature];
        if sizes[own] == 1 {
            return 0.0;
        }
        let distances = |cluster: usize| {
            (sizes[cluster] as i64 * mask.kept(feature) as i64 + totals[cluster] - 2 * products[cluster]) as f64
        };
        let others = (0..sizes.len()).filter(|&cluster| cluster != own && sizes[cluster] > 0);
        let a = distances(own) / (sizes[own] - 1) as f64;
        let b = others.map(|cluster| distances(cluster) / sizes[cluster] as f64).fold(f64::INFINITY, f64::min);
        if a.max(b) > 0.0 { (b - a) / a.max(b) } else { 0.0 }
    };
    products.par_chunks(sizes.len()).enumerate().map(of_feature).collect()
}

/// A row of table `cluster_pairs`.
#[derive(Clone, Copy, Debug)]
pub struct ClusterPairRow {
    /// One cluster.
    pub cluster_a: usize,
    /// Another, or the same.
    pub cluster_b: usize,
    /// Pairs of features.
    pub pairs: u64,
    /// Their mean distance; undefined without any.
    pub mean_hamming: f64,
}

/// The mean distances of all pairs of clusters a <= b.
///
/// # Panics
/// When a label is missing or not below `k`.
pub fn cluster_pairs(mask: &Mask, labels: &[usize], k: usize) -> Vec<ClusterPairRow> {
    let clusters = Clusters::of(mask, labels, k);
    let row = |a: usize, b: usize| {
        let (sum, pairs) = if a == b {
            (clusters.within(a), pairs_of(clusters.sizes[a]))
        } else {
            (clusters.between(a, b), clusters.sizes[a] as u64 * clusters.sizes[b] as u64)
        };
        let mean_hamming = ratio(sum as f64, pairs as f64) / mask.length() as f64;
        ClusterPairRow { cluster_a: a, cluster_b: b, pairs, mean_hamming }
    };
    (0..k).into_par_iter().flat_map_iter(|a| (a..k).map(|b| row(a, b)).collect::<Vec<_>>()).collect()
}
