//! The words of `[[analysis]]` blocks.

use crate::keyword::{UnknownKeyword, keywords};

keywords! {
    /// What an analysis looks at.
    AnalysisKind "kind" {
        Structure "structure" "where the zeros are: densities by row, column, head and block of columns, dead features, N:M, sizes",
        MaskSimilarity "mask-similarity" "how alike the masks of two sources are, feature by feature, beside what chance gives",
        Spy "spy" "a picture of the mask: the density of every pixel, and along both sides",
        HammingGradient "hamming-gradient" "features from near to far of a reference",
        Neighbours "neighbours" "the nearest features of references",
        Clustering "clustering" "clusters of features, what sets them apart, and whether chance would do as well",
        BlockCoherence "block-coherence" "blocks of features that are zero together: what a kernel could skip",
        Groups "groups" "groups of near features: of sampled ones, or a partition of all",
        ExhaustiveGroups "exhaustive-groups" "another name of `groups` with `mode = \"partition\"`",
        Hierarchy "hierarchy" "a tree of features, cut to several numbers of clusters",
        ActivationSparsity "activation-sparsity" "what becomes of outputs and predictions when small inputs are set to 0",
    }
}

keywords! {
    /// What a matrix is in its block, whatever its model calls it.
    Role "role" {
        Q "q" "queries of an attention",
        K "k" "keys of an attention",
        V "v" "values of an attention",
        O "o" "the output of an attention",
        Gate "gate" "the gate of a feed-forward layer",
        Up "up" "to the wide side of a feed-forward layer",
        Down "down" "back from the wide side of a feed-forward layer",
    }
}

impl Role {
    /// The role of a module by the last part of its name, `self_attn.q_proj`, where it has one of its own.
    pub fn of_component(name: &str) -> Option<Self> {
        Some(match name.rsplit('.').next()? {
            "q_proj" => Self::Q,
            "k_proj" => Self::K,
            "v_proj" => Self::V,
            "o_proj" | "out_proj" | "dense" => Self::O,
            "gate_proj" => Self::Gate,
            "up_proj" | "fc1" | "c_fc" | "dense_h_to_4h" => Self::Up,
            "down_proj" | "fc2" | "dense_4h_to_h" => Self::Down,
            // GPT-2 has one of each kind of layer.
            "c_proj" if name.contains("attn") => Self::O,
            "c_proj" if name.contains("mlp") => Self::Down,
            _ => return None,
        })
    }
}

keywords! {
    /// Which side of a matrix its features are.
    FeatureAxis "axis" {
        In "in" "columns: input features, each a vector over the outputs",
        Out "out" "rows: output features, each a vector over the inputs",
        Residual "residual" "the side of the residual stream: rows of what writes to it, else columns",
    }
}

impl FeatureAxis {
    /// `in` or `out`, for a module of this name.
    #[must_use]
    pub fn resolved(self, module: &str) -> Self {
        let writes = ["o_proj", "out_proj", "down_proj", "fc2", "c_proj", "dense_4h_to_h", "dense"];
        match self {
            Self::In | Self::Out => self,
            Self::Residual if writes.contains(&module.rsplit('.').next().unwrap_or_default()) => Self::Out,
            Self::Residual => Self::In,
        }
    }
}

keywords! {
    /// What nearness is measured by.
    Nearness "metric" {
        Hamming "hamming" "the share of positions at which two features differ",
        Jaccard "jaccard" "common positions over those that either keeps",
        Kappa "kappa" "how much fewer positions differ than by chance",
    }
}

keywords! {
    /// A figure of two masks.
    SimilarityFigure "metric" {
        Jaccard "jaccard" "common positions over those that either keeps",
        Cosine "cosine" "the cosine of the weights",
        Hamming "hamming" "the share of positions at which they differ",
        Kappa "kappa" "how much fewer positions differ than by chance",
    }
}

keywords! {
    /// Which features are compared with a reference.
    CandidateMode "mode" {
        Random "random" "features drawn at random",
        Nearest "nearest" "the nearest features",
        All "all" "every feature",
    }
}

keywords! {
    /// What is clustered.
    ClusterInput "input" {
        Mask "mask" "which positions are kept",
        Weights "weights" "the weights, as the original does: outliers become clusters of one feature",
        Sign "sign" "the signs of the weights",
    }
}

keywords! {
    /// How clusters are found.
    ClusterAlgorithm "algorithm" {
        KMeans "kmeans" "centres of clusters, the best of several starts",
        KMedoids "kmedoids" "features that stand for the others; of masks only",
        Agglomerative "agglomerative" "a tree of merges, cut; of masks only",
    }
}

keywords! {
    /// How far two clusters are apart.
    TreeLinkage "linkage" {
        Average "average" "the mean distance of all pairs",
        Ward "ward" "how much merging them spreads them, on the root of the distance",
    }
}

keywords! {
    /// The null model of a clustering.
    NullKind "null model" {
        ColumnShuffle "column-shuffle" "every feature keeps as many positions, at random places of its own",
    }
}

keywords! {
    /// How groups are found.
    GroupMode "mode" {
        Sampled "sampled" "sampled features with their nearest; a feature may be in several groups",
        Partition "partition" "every feature is in one group",
    }
}

keywords! {
    /// How a partition is made.
    PartitionMethod "method" {
        Greedy "greedy" "one feature after the other with the nearest of those left",
        Density "density" "cut from features in order of density",
        Identity "identity" "cut from features as they are",
        Random "random" "cut from features in random order",
    }
}
