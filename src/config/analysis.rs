//! `[[analysis]]` blocks: what is asked of masks and activations.
//!
//! ```text
//!   AnalysisBlock ─ id
//!                 ├ work      Work: a kind and its settings, every default filled in
//!                 ├ sources   prune points of this file, the dense model, checkpoints, folders of matrices
//!                 └ layers, roles, feature_axis, skip_constant        which matrices, and what their features are
//! ```
//! What an analysis computes is none of this module's business.

mod words;

pub use words::*;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::config::experiment::{Method, NmPattern, Scope, percent};

/// One `[[analysis]]` block.
#[derive(Clone, Debug, PartialEq)]
pub struct AnalysisBlock {
    /// Its name: the column `analysis` of its tables.
    pub id: String,
    /// What is done.
    pub work: Work,
    /// Whose matrices are looked at.
    pub sources: Vec<SourceChoice>,
    /// The layers; none for all.
    pub layers: Option<Vec<LayerRange>>,
    /// The roles; none for all matrices.
    pub roles: Option<Vec<Role>>,
    /// What their features are.
    pub feature_axis: FeatureAxis,
    /// Whether features that keep nothing or everything are left out of candidates, references, seeds and clusters.
    pub skip_constant: bool,
}

impl AnalysisBlock {
    /// Whether it looks at what enters linears of a model while the calibration text runs through it.
    pub fn sees_model_inputs(&self) -> bool {
        let models = self.sources.iter().any(|source| matches!(source.from, SourceFrom::Points | SourceFrom::Dense));
        models && self.work.sees_inputs()
    }

    /// Whether a layer is asked for.
    pub fn has_layer(&self, layer: usize) -> bool {
        self.layers.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.has(layer)))
    }

    /// Whether a role is asked for; matrices without one are where no role is named.
    pub fn has_role(&self, role: Option<Role>) -> bool {
        self.roles.as_ref().is_none_or(|roles| role.is_some_and(|role| roles.contains(&role)))
    }
}

/// What an analysis does, with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Work {
    /// `structure`
    Structure {
        /// Features of a head; none for the model's own.
        head_dim: Option<usize>,
        /// Columns of a block.
        column_block: usize,
        /// The patterns N:M that are looked for.
        nm: Vec<[usize; 2]>,
        /// Whether features get Wanda scores.
        scores: bool,
    },
    /// `mask-similarity`
    MaskSimilarity {
        /// The figures of the summary.
        metrics: Vec<SimilarityFigure>,
        /// The pairs of sources, by name; none for all.
        pairs: Option<Vec<[String; 2]>>,
    },
    /// `spy`
    Spy {
        /// The orders of features, one picture each.
        order: Vec<Order>,
        /// Whether the densities along both sides are kept.
        marginals: bool,
        /// The most pixels of a side.
        pixels: usize,
    },
    /// `hamming-gradient`
    HammingGradient {
        /// The features that distances are from.
        references: References,
        /// Which features are compared with them.
        candidates: CandidateMode,
        /// How many of them.
        n: usize,
        /// What gives the order.
        metric: Nearness,
    },
    /// `neighbours`
    Neighbours {
        /// The features that distances are from.
        references: References,
        /// How many of each.
        n: usize,
        /// What gives the order.
        metric: Nearness,
    },
    /// `clustering`
    Clustering(ClusterWork),
    /// `block-coherence`
    BlockCoherence {
        /// Sizes of blocks.
        block: Vec<usize>,
        /// Orders of features.
        order: Vec<Order>,
    },
    /// `groups`
    Groups(GroupWork),
    /// `hierarchy`
    Hierarchy {
        /// How far two clusters are apart.
        linkage: TreeLinkage,
        /// Numbers of clusters.
        cuts: Vec<usize>,
    },
    /// `activation-sparsity`
    ActivationSparsity {
        /// Shares of inputs that are set to 0.
        targets: Vec<f64>,
        /// Or thresholds of inputs, by role.
        thresholds: Vec<RoleThreshold>,
        /// Sizes of batches whose kept inputs are united.
        batch: Vec<usize>,
        /// The most tokens that are looked at.
        tokens: usize,
    },
}

/// The settings of `clustering`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterWork {
    /// Features that are clustered, the reference among them; 0 for all.
    pub neighbours: usize,
    /// The features whose neighbourhoods are clustered.
    pub references: References,
    /// What is clustered.
    pub input: ClusterInput,
    /// How.
    pub algorithm: ClusterAlgorithm,
    /// Of `agglomerative`.
    pub linkage: TreeLinkage,
    /// Numbers of clusters.
    pub k: Vec<usize>,
    /// Starts of k-means.
    pub n_init: usize,
    /// Times that the null model is clustered.
    pub null_repeats: usize,
    /// The perplexity of the embedding; none for no embedding.
    pub tsne: Option<f64>,
    /// Whether the original's ratio is shown.
    pub legacy_ratio: bool,
}

/// The settings of `groups`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupWork {
    /// How groups are found.
    pub mode: GroupMode,
    /// Features of a group.
    pub group_size: usize,
    /// The features that are sampled.
    pub references: References,
    /// How a partition is made.
    pub method: PartitionMethod,
    /// Whether distributions of distances are kept.
    pub cdf: bool,
    /// Whether the members are kept.
    pub save_permutation: bool,
}

/// Which features are references.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum References {
    /// So many, drawn.
    Random(usize),
    /// These.
    Given(Vec<usize>),
    /// Every one.
    All,
}

impl References {
    /// Whether they are drawn.
    pub fn drawn(&self) -> bool {
        matches!(self, Self::Random(_))
    }
}

/// An order of features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// As they are.
    Identity,
    /// Few kept positions first.
    Density,
    /// By the clusters of an analysis.
    Cluster {
        /// The analysis.
        id: String,
        /// What it does.
        work: ClusterWork,
        /// Whether it leaves constant features out.
        skip_constant: bool,
    },
    /// By the groups of an analysis.
    Groups {
        /// The analysis.
        id: String,
        /// What it does.
        work: GroupWork,
    },
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Density => f.write_str("density"),
            Self::Cluster { id, .. } => write!(f, "cluster:{id}"),
            Self::Groups { id, .. } => write!(f, "groups:{id}"),
        }
    }
}

/// A threshold of the inputs of matrices of one role.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleThreshold {
    /// The role.
    pub role: Role,
    /// Inputs of at most this magnitude are set to 0.
    pub threshold: f64,
}

impl Work {
    /// The kind; a partition is `groups`, however it was spelled.
    pub fn kind(&self) -> AnalysisKind {
        match self {
            Self::Structure { .. } => AnalysisKind::Structure,
            Self::MaskSimilarity { .. } => AnalysisKind::MaskSimilarity,
            Self::Spy { .. } => AnalysisKind::Spy,
            Self::HammingGradient { .. } => AnalysisKind::HammingGradient,
            Self::Neighbours { .. } => AnalysisKind::Neighbours,
            Self::Clustering(_) => AnalysisKind::Clustering,
            Self::BlockCoherence { .. } => AnalysisKind::BlockCoherence,
            Self::Groups(_) => AnalysisKind::Groups,
            Self::Hierarchy { .. } => AnalysisKind::Hierarchy,
            Self::ActivationSparsity { .. } => AnalysisKind::ActivationSparsity,
        }
    }

    /// The orders of features that it looks at.
    pub fn orders(&self) -> &[Order] {
        match self {
            Self::Spy { order, .. } | Self::BlockCoherence { order, .. } => order,
            Self::Structure { .. }
            | Self::MaskSimilarity { .. }
            | Self::HammingGradient { .. }
            | Self::Neighbours { .. }
            | Self::Clustering(_)
            | Self::Groups(_)
            | Self::Hierarchy { .. }
            | Self::ActivationSparsity { .. } => &[],
        }
    }

    /// Whether anything is drawn, so that every seed of the experiment is a repeat.
    pub fn draws(&self) -> bool {
        let ordered = |orders: &[Order]| {
            orders.iter().any(|order| match order {
                Order::Identity | Order::Density => false,
                Order::Cluster { work, .. } => work.draws(),
                Order::Groups { work, .. } => work.draws(),
            })
        };
        match self {
            Self::Structure { .. } | Self::MaskSimilarity { .. } | Self::Hierarchy { .. } => false,
            // The windows that inputs are captured on are drawn.
            Self::ActivationSparsity { .. } => true,
            Self::Spy { order, .. } | Self::BlockCoherence { order, .. } => ordered(order),
            Self::HammingGradient { references, candidates, .. } => {
                references.drawn() || *candidates == CandidateMode::Random
            }
            Self::Neighbours { references, .. } => references.drawn(),
            Self::Clustering(work) => work.draws(),
            Self::Groups(work) => work.draws(),
        }
    }

    /// Whether it looks at what enters linears while a text runs through the model.
    pub fn sees_inputs(&self) -> bool {
        match self {
            Self::Structure { scores, .. } => *scores,
            Self::ActivationSparsity { .. } => true,
            Self::MaskSimilarity { .. }
            | Self::Spy { .. }
            | Self::HammingGradient { .. }
            | Self::Neighbours { .. }
            | Self::Clustering(_)
            | Self::BlockCoherence { .. }
            | Self::Groups(_)
            | Self::Hierarchy { .. } => false,
        }
    }
}

impl ClusterWork {
    /// Whether anything is drawn.
    pub fn draws(&self) -> bool {
        self.null_repeats > 0
            || self.tsne.is_some()
            || self.algorithm == ClusterAlgorithm::KMeans
            || (self.neighbours > 0 && self.references.drawn())
    }
}

impl GroupWork {
    /// Whether anything is drawn.
    pub fn draws(&self) -> bool {
        match self.mode {
            GroupMode::Sampled => self.references.drawn(),
            GroupMode::Partition => self.method == PartitionMethod::Random,
        }
    }
}

/// Whose matrices are looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceChoice {
    /// What tables call it, where the file says so.
    pub name: Option<String>,
    /// Where its matrices come from.
    pub from: SourceFrom,
    /// Of points, which are meant; of the others, what tables say.
    pub method: Option<Method>,
    /// Likewise.
    pub sparsity: Option<f64>,
    /// Likewise.
    pub scope: Option<Scope>,
    /// Likewise; of a folder also which of its files are meant.
    pub pattern: Option<NmPattern>,
}

impl SourceChoice {
    /// What tables call it: its name, or what it is called otherwise.
    pub fn label(&self, otherwise: &str) -> String {
        self.name.clone().unwrap_or_else(|| otherwise.to_owned())
    }
}

/// Where matrices come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFrom {
    /// Prune points of the file.
    Points,
    /// The model as it is.
    Dense,
    /// A checkpoint folder.
    Checkpoint(PathBuf),
    /// A folder of `.pt` matrices.
    Folder {
        /// The folder.
        path: PathBuf,
        /// A safetensors file with inputs of the matrices.
        inputs: Option<PathBuf>,
        /// A safetensors file with masks of the matrices.
        masks: Option<PathBuf>,
    },
}

/// What a source is called that has no name: `wanda50`, `sparsegpt2:4`.
pub fn point_name(method: Method, pattern: NmPattern, sparsity: Option<f64>) -> String {
    match (pattern, sparsity) {
        (NmPattern::NofM { .. }, _) => format!("{method}{pattern}"),
        (NmPattern::Unstructured, Some(sparsity)) => format!("{method}{}", percent(sparsity)),
        (NmPattern::Unstructured, None) => method.to_string(),
    }
}

/// A layer, or several that follow each other: `3`, `"0-11"`, `"all"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRange {
    /// The first.
    pub first: usize,
    /// The last.
    pub last: usize,
}

impl LayerRange {
    fn has(self, layer: usize) -> bool {
        (self.first..=self.last).contains(&layer)
    }
}

impl std::str::FromStr for LayerRange {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "all" {
            return Ok(Self { first: 0, last: usize::MAX });
        }
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| plain).ok_or(())
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first <= last { Ok(Self { first, last }) } else { Err(()) }
    }
}

/// An integer or a word of the file, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntegerOrText {
    /// An integer.
    Integer(u64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for IntegerOrText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for IntegerOrText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = IntegerOrText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or a string")
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
                Ok(IntegerOrText::Integer(value))
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
                u64::try_from(value).map(IntegerOrText::Integer).map_err(|_| E::custom("expected no negative integer"))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(IntegerOrText::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for IntegerOrText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "IntegerOrText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "type": "integer", "minimum": 0 }, { "type": "string" }] })
    }
}

/// `[N, M]` of an N:M pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct NmPair(pub [usize; 2]);

impl fmt::Display for NmPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.0[0], self.0[1])
    }
}

/// The names of two sources.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct NamePair(pub [String; 2]);

impl fmt::Display for NamePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.0[0], self.0[1])
    }
}

/// The schema of an array of exactly two.
macro_rules! pair_schema {
    ($type:ident, $first:tt, $second:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "array", "items": [$first, $second], "minItems": 2, "maxItems": 2 })
            }
        }
    };
}
pair_schema!(NmPair, { "title": "n", "type": "integer", "minimum": 1 }, { "title": "m", "type": "integer", "minimum": 2 });
pair_schema!(NamePair, { "title": "source", "type": "string" }, { "title": "source_b", "type": "string" });
