//! `[[analysis]]` blocks as written.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::analysis::{
    AnalysisKind, CandidateMode, ClusterAlgorithm, ClusterInput, FeatureAxis, GroupMode, IntegerOrText, NamePair,
    Nearness, NmPair, NullKind, PartitionMethod, Role, SimilarityFigure, TreeLinkage,
};
use crate::config::axis::{At, Axis};
use crate::config::experiment::{Method, Scope};

/// An `[[analysis]]` block.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAnalysis {
    /// Names the rows of its tables, and what other analyses' `order = "cluster:ID"` means: letters, digits, `.`, `_`
    /// and `-`. Required.
    #[schemars(required, extend("pattern" = "^[A-Za-z0-9._-]+$", "examples" = ["similarity"]))]
    pub id: Option<At<String>>,
    /// What is looked at. Required.
    #[schemars(required)]
    pub kind: Option<At<AnalysisKind>>,
    /// Whose matrices: each entry selects prune points of this file, the dense model, a checkpoint folder (`path`) or a
    /// folder of `.pt` matrices (`pt`). Default: every prune point of the file; of `activation-sparsity`, the dense model.
    #[schemars(extend("examples" = [[{ "method": "wanda", "sparsity": 0.5 }, { "pt": "masks", "method": "sparsegpt" }]]))]
    pub sources: Option<Vec<At<RawAnalysisSource>>>,
    /// Axis: the layers: numbers from 0 on, ranges such as `"0-11"`, or `"all"`. Default: `"all"`.
    #[schemars(extend("default" = "all", "examples" = [[1], "0-11"]))]
    pub layers: Option<Axis<IntegerOrText>>,
    /// Axis: the roles of matrices in their block, the same for all models. Default: every matrix there is.
    #[schemars(extend("examples" = [["q", "k", "v", "o"]]))]
    pub roles: Option<Axis<Role>>,
    /// What a feature is: a column (`in`), a row (`out`), or the side of the residual stream (`residual`). Default: `in`.
    #[schemars(extend("default" = "in"))]
    pub feature_axis: Option<At<FeatureAxis>>,
    /// Whether features that keep nothing or everything are left out of candidates, drawn references, sampled seeds,
    /// clusters and trees. Default: `true`.
    #[schemars(extend("default" = true))]
    pub skip_constant: Option<At<bool>>,
    /// For `structure`: features of a head. Default: the model's own; of a folder of matrices, none are cut.
    #[schemars(extend("examples" = [128]))]
    pub head_dim: Option<At<NonZeroUsize>>,
    /// For `structure`: columns of a block of the density profile. Default: 128.
    #[schemars(extend("default" = 128))]
    pub column_block: Option<At<NonZeroUsize>>,
    /// Axis, for `structure`: pairs `[N, M]` whose patterns are looked for. Default: `[[2, 4], [4, 8]]`.
    #[schemars(extend("default" = [[2, 4], [4, 8]]))]
    pub nm: Option<Axis<NmPair>>,
    /// For `structure`: whether features get Wanda scores, for which the calibration text runs through the source's
    /// model. Default: whether a method of the file reads that text anyway.
    pub scores: Option<At<bool>>,
    /// For `mask-similarity`: pairs of sources, by name. Default: every pair.
    #[schemars(extend("examples" = [[["wanda50", "sparsegpt50"]]]))]
    pub pairs: Option<Axis<NamePair>>,
    /// Axis, for `mask-similarity`: the figures of its summary. Default: all.
    pub metrics: Option<Axis<SimilarityFigure>>,
    /// Axis, for `spy` and `block-coherence`: orders of features: `identity`, `density`, `cluster:ID` or `groups:ID` of
    /// an analysis above. Of several `k` the largest counts, of several references the first. Default: `identity`.
    #[schemars(extend("default" = "identity", "examples" = [["identity", "density", "cluster:clusters"]]))]
    pub order: Option<Axis<String>>,
    /// For `spy`: whether the densities along both sides are kept. Default: `true`.
    #[schemars(extend("default" = true))]
    pub marginals: Option<At<bool>>,
    /// For `spy`: the most pixels of a side, at most 1024. Default: 512.
    #[schemars(extend("default" = 512))]
    pub pixels: Option<At<NonZeroUsize>>,
    /// Axis, for `hamming-gradient`, `neighbours`, `clustering` and `groups`: the features that distances are from, or
    /// `"random"`. Default: 0 for `hamming-gradient`, else `"random"`.
    #[schemars(extend("examples" = [0, "random"]))]
    pub reference: Option<Axis<IntegerOrText>>,
    /// How many references are drawn where they are random, or `"all"`. Default: 10; 1 for `hamming-gradient`.
    #[schemars(extend("examples" = [10, "all"]))]
    pub references: Option<At<IntegerOrText>>,
    /// For `hamming-gradient`: which features are compared with the reference. Default: all.
    #[schemars(extend("examples" = [{ "mode": "random", "n": 511 }]))]
    pub candidates: Option<At<RawCandidates>>,
    /// For `hamming-gradient` and `neighbours`: what nearness is measured by. Default: `hamming`.
    #[schemars(extend("default" = "hamming"))]
    pub metric: Option<At<Nearness>>,
    /// For `neighbours`: how many of each reference, without it; for `clustering`: how many features are clustered, the
    /// reference among them, or 0 for all. Default: 8; 128 for `clustering`.
    #[schemars(extend("examples" = [128]))]
    pub neighbours: Option<At<usize>>,
    /// For `clustering`: what is clustered. Distances are always those of masks. Default: `mask`.
    #[schemars(extend("default" = "mask"))]
    pub input: Option<At<ClusterInput>>,
    /// For `clustering`: how clusters are found. Default: `kmeans`.
    #[schemars(extend("default" = "kmeans"))]
    pub algorithm: Option<At<ClusterAlgorithm>>,
    /// For `hierarchy`, and `clustering` with `agglomerative`: how far two clusters are apart. Default: `average`.
    #[schemars(extend("default" = "average"))]
    pub linkage: Option<At<TreeLinkage>>,
    /// Axis, for `clustering`: numbers of clusters. Default: `[4, 8, 16]`.
    #[schemars(extend("default" = [4, 8, 16]))]
    pub k: Option<Axis<NonZeroUsize>>,
    /// For `clustering` with `kmeans`: starts, of which the best counts. Default: 10.
    #[schemars(extend("default" = 10))]
    pub n_init: Option<At<NonZeroUsize>>,
    /// For `clustering`: the null model that separations are compared with. Default: 20 column shuffles.
    #[schemars(extend("examples" = [{ "kind": "column-shuffle", "repeats": 20 }]))]
    pub null: Option<At<RawNull>>,
    /// For `clustering`: an embedding in the plane of the first reference's features. Default: none.
    #[schemars(extend("examples" = [{ "perplexity": 30 }]))]
    pub tsne: Option<At<RawTsne>>,
    /// For `clustering`: whether the original's ratio of means over clusters, which singletons inflate, is shown beside the
    /// separation. Default: `true`.
    #[schemars(extend("default" = true))]
    pub legacy_ratio: Option<At<bool>>,
    /// Axis, for `block-coherence`: features of a block. Default: `[4, 8, 16]`.
    #[schemars(extend("default" = [4, 8, 16]))]
    pub block: Option<Axis<NonZeroUsize>>,
    /// For `groups`: how groups are found. Default: `sampled`.
    #[schemars(extend("default" = "sampled"))]
    pub mode: Option<At<GroupMode>>,
    /// For `groups`: features of a group. Default: 8.
    #[schemars(extend("default" = 8))]
    pub group_size: Option<At<NonZeroUsize>>,
    /// For `groups` with `sampled`: how many features are sampled. Default: 64.
    #[schemars(extend("default" = 64))]
    pub samples: Option<At<NonZeroUsize>>,
    /// For `groups` with `partition`: how features are partitioned. Default: `greedy`.
    #[schemars(extend("default" = "greedy"))]
    pub method: Option<At<PartitionMethod>>,
    /// For `groups`: whether the distributions of distances are kept. Default: `false`.
    #[schemars(extend("default" = false))]
    pub cdf: Option<At<bool>>,
    /// For `groups`: whether the members of every group are kept; of a partition they are its permutation. Default: `true`.
    #[schemars(extend("default" = true))]
    pub save_permutation: Option<At<bool>>,
    /// Axis, for `hierarchy`: numbers of clusters; those above the number of features have no row. Default:
    /// `[10, 50, 100, 500, 1000, 2000]`.
    #[schemars(extend("default" = [10, 50, 100, 500, 1000, 2000]))]
    pub cuts: Option<Axis<NonZeroUsize>>,
    /// Axis, for `activation-sparsity`: shares of inputs that are set to 0, which give every matrix its threshold. Default:
    /// `[0.25, 0.5, 0.9]`.
    #[schemars(extend("default" = [0.25, 0.5, 0.9]))]
    pub targets: Option<Axis<f64>>,
    /// For `activation-sparsity`: thresholds by role in place of `targets`; inputs of at most this magnitude are set to 0.
    #[schemars(extend("examples" = [{ "q": 0.018, "k": 0.018, "v": 0.018 }]))]
    pub thresholds: Option<At<RawThresholds>>,
    /// Axis, for `activation-sparsity`: sizes of batches, of which the inputs kept by any token are counted. Default:
    /// `[1, 8, 32]`.
    #[schemars(extend("default" = [1, 8, 32]))]
    pub batch: Option<Axis<NonZeroUsize>>,
    /// For `activation-sparsity`: the most tokens of the calibration text whose inputs are looked at. Default: 4096.
    #[schemars(extend("default" = 4096))]
    pub tokens: Option<At<NonZeroUsize>>,
}

/// An entry of `sources`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAnalysisSource {
    /// What the column `source` says. Default: `METHOD` and the sparsity in percent or the pattern, as in `wanda50`; of a
    /// folder, its name.
    pub name: Option<At<String>>,
    /// Only prune points of this method; of a folder, the method that tables say.
    pub method: Option<At<Method>>,
    /// Only prune points of this sparsity; of a folder, what tables say where file names don't.
    pub sparsity: Option<At<f64>>,
    /// Only prune points of this scope.
    pub scope: Option<At<Scope>>,
    /// Only prune points of this pattern; of a folder of matrices, only files of it.
    pub pattern: Option<At<String>>,
    /// `true` for the model as it is, not pruned.
    pub dense: Option<At<bool>>,
    /// A checkpoint folder, relative to the experiment file: its zeros, or its masks where it has any.
    pub path: Option<At<String>>,
    /// A folder of PyTorch matrices, relative to the experiment file: `layerN-COMPONENT.pt`, `layerN-COMPONENT-n-m.pt` or
    /// `layerN-COMPONENT-n-m-SPARSITY.pt`, where n of every m weights are pruned; folders in it are searched too.
    pub pt: Option<At<String>>,
    /// For `pt`: a safetensors file with the inputs of matrices, `[tokens, in_features]` under `layerN-COMPONENT`.
    pub inputs: Option<At<String>>,
    /// For `pt`: a safetensors file with masks of 0 and 1 under `layerN-COMPONENT`, or `NAME/layerN-COMPONENT` for the
    /// source of this name. Where there is none, what is not 0 is kept.
    pub masks: Option<At<String>>,
}

/// The table `candidates`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCandidates {
    /// Which features. Default: `all`.
    #[schemars(extend("default" = "all"))]
    pub mode: Option<At<CandidateMode>>,
    /// How many, without the reference. Required unless all are taken.
    pub n: Option<At<NonZeroUsize>>,
}

/// The table `null`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawNull {
    /// The null model. Default: `column-shuffle`.
    #[schemars(extend("default" = "column-shuffle"))]
    pub kind: Option<At<NullKind>>,
    /// How often it is clustered; 0 leaves it out. Default: 20.
    #[schemars(extend("default" = 20))]
    pub repeats: Option<At<usize>>,
}

/// The table `tsne`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTsne {
    /// About how many neighbours a feature is drawn to. Default: 30.
    #[schemars(extend("default" = 30))]
    pub perplexity: Option<At<f64>>,
}

/// The table `thresholds`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawThresholds {
    /// Of inputs of queries.
    pub q: Option<At<f64>>,
    /// Of inputs of keys.
    pub k: Option<At<f64>>,
    /// Of inputs of values.
    pub v: Option<At<f64>>,
    /// Of inputs of an attention's output.
    pub o: Option<At<f64>>,
    /// Of inputs of gates.
    pub gate: Option<At<f64>>,
    /// Of inputs of what leads to the wide side.
    pub up: Option<At<f64>>,
    /// Of inputs of what leads back.
    pub down: Option<At<f64>>,
}
