//! What masks and activations look like: the numbers of every kind of analysis.
//!
//! ```text
//!   Pattern [out, in] ──> structure, spy                              densities, N:M, pictures
//!        │
//!        └── Axis ──> Mask [features][length] of bits
//!                       ├── similarity (two masks)                    each figure beside its chance value
//!                       ├── neighbours, gradient                      nearest features
//!                       ├── clustering, hierarchy, embedding          separation, silhouette, null model
//!                       └── order ──> block coherence, groups         what a kernel could skip
//!   inputs [tokens, in] and weights ──> activation sparsity           thresholds, output error
//!   figures of repeats ──> Repeats                                    mean, deviation, interval, paired
//! ```
//!
//! Masks are bits and distances are counted, not computed with floats: whole numbers until the last division, so that
//! ties are ties and results are the same on every machine and for any number of threads. Sums over all pairs of
//! features come from sums of features (`sums`), so no figure keeps a table of all pairs but the hierarchy.
//!
//! An undefined figure is NaN, never 0 or infinite. Every kind returns structs whose fields are the columns of its table.
//! This module knows matrices and masks: no models, files, experiments or backends.

mod activation;
mod clustering;
mod coherence;
mod groups;
mod hierarchy;
mod mask;
mod neighbours;
pub mod order;
mod pairs;
mod patterns;
mod popcount;
mod random;
mod similarity;
mod spy;
mod stats;
mod structure;
mod sums;
mod tsne;

pub use activation::*;
pub use clustering::*;
pub use coherence::{BlockRow, CoherenceSummary, block_coherence};
pub use groups::{
    CdfRow, GroupRow, GroupSummary, MemberRow, Partition, RandomPartition, distance_cdf, group_rows, group_summary,
    member_rows, partition, random_partition, sampled,
};
pub use hierarchy::*;
pub use mask::{Axis, Mask};
pub use neighbours::{
    Gradient, NeighbourRow, candidates, gradient, nearest_first, neighbourhood, neighbours, references,
};
pub use order::canonical;
pub use pairs::{Metric, Pair, distance_histogram, distances};
pub use random::{draw, permutation, shuffled, sub_seed};
pub use similarity::{SimilarityMetric, SimilarityRow, SimilaritySummary, WeightPair, similarity, summarise};
pub use spy::{Spy, spy};
pub use stats::Repeats;
pub use structure::{
    FeatureRow, NmConformance, Profile, ProfileRow, Spread, Structure, density_profile, features, nm_conformance,
    structure,
};
pub use tsne::*;

use thiserror::Error;

/// What cannot be analysed as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnalysisError {
    /// A group cannot have that many features.
    #[error("groups of {size} cannot be made of {features} features")]
    GroupSize {
        /// Asked for.
        size: usize,
        /// There are.
        features: usize,
    },
}
