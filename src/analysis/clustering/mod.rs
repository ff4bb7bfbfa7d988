//! Clusters of features, what sets them apart, and whether chance would do as well.
//!
//! ```text
//!   points: mask, weights or signs ──> k-means    ┐
//!   distances of masks ──> k-medoids, hierarchy   ┴──> labels ──> figures: separation, silhouette, singletons
//!                                                                     │
//!   every feature shuffled on its own, clustered the same way ──> null: mean, deviation, z
//! ```
//! Whatever is clustered, figures are of Hamming distances between masks. Even a random mask has a separation above 1,
//! for clusters are made to be apart: only z compares it with what chance gives.

mod bits;
mod centres;
mod dense;
mod figures;
mod kmeans;
mod medoids;

pub use centres::Start;
pub use figures::{ClusterPairRow, Figures, cluster_pairs, figures, silhouettes};
pub use kmeans::KMeans;
pub use medoids::{Medoids, assign_to_medoids, build_medoids, swap_medoids};

use super::random::{shuffled, shuffled_weights, sub_seed};
use super::stats::{mean, ratio, sd};
use super::{Hierarchy, Linkage, Mask, canonical};
use rayon::prelude::*;

/// What k-means takes features to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Points<'a> {
    /// Rows of 0 and 1.
    Mask,
    /// Rows of weights, `[features, length]`.
    Weights(&'a [f32]),
    /// Rows of -1, 0 and 1: the signs of weights `[features, length]`.
    Sign(&'a [f32]),
}

impl Points<'_> {
    /// The name that tables show.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::Weights(_) => "weights",
            Self::Sign(_) => "sign",
        }
    }
}

/// How clusters are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm<'a> {
    /// The best of `starts` runs of k-means.
    KMeans {
        /// What is clustered.
        points: Points<'a>,
        /// Runs; 0 is taken as 1.
        starts: usize,
    },
    /// Medoids of masks, built one by one and swapped while that helps.
    KMedoids,
    /// A hierarchy of masks, cut.
    Agglomerative(Linkage),
}

impl Algorithm<'_> {
    /// The name that tables show.
    pub fn name(&self) -> &'static str {
        match self {
            Self::KMeans { .. } => "kmeans",
            Self::KMedoids => "kmedoids",
            Self::Agglomerative(_) => "agglomerative",
        }
    }
}

/// A clustering to be made.
#[derive(Clone, Copy, Debug)]
pub struct ClusterSettings<'a> {
    /// How.
    pub algorithm: Algorithm<'a>,
    /// Clusters.
    pub k: usize,
    /// Times that the null model is clustered; 0 leaves it out.
    pub null_repeats: usize,
    /// Of the starts and of the null model.
    pub seed: u64,
}

/// A row of table `clustering`.
#[derive(Clone, Debug)]
pub struct ClusteringRow {
    /// Clusters asked for.
    pub k: usize,
    /// Features clustered.
    pub n_features: usize,
    /// What follows from the clusters; undefined where there were fewer features than clusters.
    pub figures: Figures,
    /// The sum of squared distances to centres, in units of the points; of distances to medoids, in positions;
    /// undefined for a hierarchy.
    pub inertia: f64,
    /// Passes of k-means, the one that changes nothing among them; swaps of medoids; nothing for a hierarchy.
    pub n_iter: Option<usize>,
    /// What clustering shuffled features gives.
    pub null: Null,
}

/// The separation of a null model.
#[derive(Clone, Copy, Debug)]
pub struct Null {
    /// Over repeats; undefined without any.
    pub mean: f64,
    /// Over repeats, over n - 1.
    pub sd: f64,
    /// How many deviations the separation is above the mean; undefined where the deviation is 0.
    pub z: f64,
}

impl Null {
    /// Beside a separation.
    pub fn of(separation: f64, repeats: &[f64]) -> Self {
        let defined: Vec<f64> = repeats.iter().copied().filter(|value| !value.is_nan()).collect();
        let (mean, sd) = (mean(&defined), sd(&defined, 1));
        Self { mean, sd, z: ratio(separation - mean, sd) }
    }
}

/// A row of table `clusters`, without the embedding.
#[derive(Clone, Copy, Debug)]
pub struct ClusterRow {
    /// Which feature of the mask that was clustered.
    pub feature: usize,
    /// Clusters are numbered by first appearance.
    pub cluster: usize,
    /// How much nearer its cluster is than the next.
    pub silhouette: f64,
}

/// What a clustering gives.
#[derive(Clone, Debug)]
pub struct Clustering {
    /// The figures.
    pub row: ClusteringRow,
    /// The features; none where there were fewer than clusters.
    pub features: Vec<ClusterRow>,
    /// Distances within and between clusters.
    pub pairs: Vec<ClusterPairRow>,
}

impl Clustering {
    /// The cluster of every feature.
    pub fn labels(&self) -> Vec<usize> {
        self.features.iter().map(|row| row.cluster).collect()
    }
}

/// Clusters the features of a mask. With fewer features than clusters, as `skip_constant` may leave, every figure is
/// undefined.
///
/// # Panics
/// When weights have another shape than the mask.
pub fn clustering(mask: &Mask, settings: &ClusterSettings) -> Clustering {
    let (k, n_features) = (settings.k, mask.features());
    let Some(found) = run(mask, settings, settings.seed) else {
        let null = Null { mean: f64::NAN, sd: f64::NAN, z: f64::NAN };
        let row = ClusteringRow { k, n_features, figures: Figures::undefined(), inertia: f64::NAN, n_iter: None, null };
        return Clustering { row, features: Vec::new(), pairs: Vec::new() };
    };
    let labels = canonical(&found.labels);
    let silhouettes = silhouettes(mask, &labels, k);
    let figures = figures(mask, &labels, k);
    let null = Null::of(figures.separation, &null_separations(mask, settings));
    let features = labels.iter().zip(silhouettes).enumerate();
    Clustering {
        row: ClusteringRow { k, n_features, figures, inertia: found.inertia, n_iter: found.n_iter, null },
        features: features
            .map(|(feature, (&cluster, silhouette))| ClusterRow { feature, cluster, silhouette })
            .collect(),
        pairs: cluster_pairs(mask, &labels, k),
    }
}

/// The separations of shuffled features that are clustered the same way.
pub fn null_separations(mask: &Mask, settings: &ClusterSettings) -> Vec<f64> {
    let repeat = |repeat: usize| {
        let seed = sub_seed(&[&settings.seed.to_string(), "null", &repeat.to_string()]);
        let with = |mask: &Mask, algorithm| {
            let found = run(mask, &ClusterSettings { algorithm, ..*settings }, seed)?;
            Some(figures::pair_means(mask, &found.labels, settings.k).separation)
        };
        let found = match settings.algorithm {
            Algorithm::KMeans { points: Points::Weights(weights), starts } => {
                let (mask, weights) = shuffled_weights(mask, weights, seed);
                with(&mask, Algorithm::KMeans { points: Points::Weights(&weights), starts })
            }
            Algorithm::KMeans { points: Points::Sign(weights), starts } => {
                let (mask, weights) = shuffled_weights(mask, weights, seed);
                with(&mask, Algorithm::KMeans { points: Points::Sign(&weights), starts })
            }
            algorithm @ (Algorithm::KMeans { points: Points::Mask, .. }
            | Algorithm::KMedoids
            | Algorithm::Agglomerative(_)) => with(&shuffled(mask, seed), algorithm),
        };
        found.unwrap_or(f64::NAN)
    };
    (0..settings.null_repeats).into_par_iter().map(repeat).collect()
}

struct Found {
    labels: Vec<usize>,
    inertia: f64,
    n_iter: Option<usize>,
}

fn run(mask: &Mask, settings: &ClusterSettings, seed: u64) -> Option<Found> {
    let k = settings.k;
    if k == 0 || k > mask.features() {
        return None;
    }
    Some(match settings.algorithm {
        Algorithm::KMeans { points, starts } => {
            let found = KMeans::best(mask, points, k, starts, seed);
            Found { labels: found.labels, inertia: found.inertia, n_iter: Some(found.n_iter) }
        }
        Algorithm::KMedoids => {
            let found = swap_medoids(mask, &build_medoids(mask, k));
            Found { labels: found.labels, inertia: found.cost_count as f64, n_iter: Some(found.swaps) }
        }
        Algorithm::Agglomerative(linkage) => {
            Found { labels: Hierarchy::of(mask, linkage).cut(k)?, inertia: f64::NAN, n_iter: None }
        }
    })
}

#[cfg(test)]
mod tests;
