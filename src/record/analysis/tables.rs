//! The tables of analyses and their columns with what each says, listed once.

/// A column's name, and what it says in a line.
pub type Named = (&'static str, &'static str);

const REFERENCE: Named = ("reference", "the feature that distances are from");
const FEATURE: Named = ("feature", "which feature of the axis, from 0 on");
const HAMMING_COUNT: Named = ("hamming_count", "positions at which the two differ");
const HAMMING: Named = ("hamming", "the share of positions at which the two differ");
const EXPECTED: Named = ("expected", "what `hamming` is by chance at the densities of the two");
const KAPPA: Named = ("kappa", "1 - hamming over its value by chance: 0 by chance, 1 for equal features");
const JACCARD: Named = ("jaccard", "positions that both keep, over those that either keeps");
const DENSITY: Named = ("density", "share of positions kept");
const RANK: Named = ("rank", "1 is the nearest; 0 is the reference itself");
const METRIC: Named = ("metric", "the distance that gives the order");
const K: Named = ("k", "clusters asked for");
const MODE: Named = ("mode", "`sampled`: features with their nearest; `partition`: every feature in one group");
const GROUPING: Named = ("grouping", "how the partition was made");
const GROUP_SIZE: Named = ("group_size", "features of a group, as asked for");
const GROUP_INDEX: Named = ("group_index", "which group, from 0 on");
const ORDER: Named = ("order", "the order in which features stand");
const BLOCK: Named = ("block", "features of a block, as asked for");
const DEAD_ROWS: Named = ("dead_rows", "positions that no feature keeps");
const SOURCE_B: Named = ("source_b", "the other source");
const SEED_B: Named = ("seed_b", "the other source's seed");
const TARGET: Named = ("target", "share of inputs that was to be 0; empty where thresholds are given");
const WITHIN: Named = ("within", "mean distance of all pairs of features of one cluster");
const BETWEEN: Named = ("between", "mean distance of all pairs of features of different clusters");
const SEPARATION: Named = ("separation", "between / within");
const SINGLETONS: Named = ("n_singletons", "clusters of one feature");

/// Every table that cells store rows of, and its columns after the key, in the order of reports.
pub const TABLES: &[(&str, &[Named])] = &[
    (
        "structure",
        &[
            ("group", "what the matrix belongs to, such as `mlp_linear`"),
            ("nnz", "positions kept"),
            ("total", "positions"),
            ("sparsity", "1 - nnz / total"),
            ("kept_zeros", "positions kept whose weight is 0"),
            ("param_frac", "share of this matrix of the positions of all matrices of its source"),
            ("flops_per_token_dense", "two for each position"),
            ("flops_per_token_sparse", "two for each position kept"),
            ("bytes_dense", "all weights in their stored type"),
            ("bytes_csr", "values, indices of 16 bits up to 65536 columns, else of 32, and row starts"),
            ("bytes_csr_i32", "the same with indices of 32 bits"),
            ("bytes_csr_i64", "the same with indices and row starts of 64 bits"),
            ("bytes_bitmask", "values and a bit for each position"),
            ("bytes_bitmask_with_offsets", "the same and row starts of 32 bits"),
            ("row_density_mean", "mean share of positions that a row keeps"),
            ("row_density_sd", "standard deviation of that over rows"),
            ("row_density_min", "the emptiest row's"),
            ("row_density_max", "the fullest row's"),
            ("col_density_mean", "mean share of positions that a column keeps"),
            ("col_density_sd", "standard deviation of that over columns"),
            ("col_density_min", "the emptiest column's"),
            ("col_density_max", "the fullest column's"),
            ("dead_rows", "rows that keep nothing"),
            ("dead_cols", "columns that keep nothing"),
            ("full_rows", "rows that keep everything"),
            ("full_cols", "columns that keep everything"),
            ("mask_source", "what says which weights are kept: `explicit` masks, or `nonzero` weights"),
        ],
    ),
    (
        "density_profile",
        &[
            ("axis", "along what: `row`, `col`, `head`, or `colblock`, blocks of columns"),
            ("index", "which of them, from 0 on"),
            ("count", "positions kept there"),
            ("size", "positions there"),
            ("density", "count / size"),
            ("complete", "whether a head or block has its whole width"),
        ],
    ),
    (
        "nm_conformance",
        &[
            ("n", "positions that a group may keep"),
            ("m", "consecutive columns of a group"),
            ("groups", "groups of all rows"),
            ("conforming", "groups that keep at most n"),
            ("conforming_fraction", "their share"),
            ("exact_fraction", "share of groups that keep exactly n"),
            ("max_kept", "the most that a group keeps"),
            ("remainder_columns", "columns behind the last group"),
            ("remainder_kept", "positions kept there"),
            ("kept_histogram", "groups that keep 0, 1, .. m positions, with spaces between"),
        ],
    ),
    (
        "features",
        &[
            FEATURE,
            DENSITY,
            ("l2_norm", "Euclidean norm of its weights"),
            ("wanda_score", "sum of |weight| times the norm of its input; empty without a calibration text"),
            ("is_dead", "whether it keeps nothing"),
            ("is_full", "whether it keeps everything"),
        ],
    ),
    (
        "mask_similarity",
        &[
            SOURCE_B,
            SEED_B,
            FEATURE,
            ("density_a", "share of positions that it keeps in the first source"),
            ("density_b", "and in the other"),
            JACCARD,
            ("jaccard_chance", "what `jaccard` is by chance at these densities"),
            HAMMING_COUNT,
            HAMMING,
            ("hamming_chance", "what `hamming` is by chance at these densities"),
            KAPPA,
            ("cosine", "cosine of the weights; empty where a norm is 0"),
            ("mask_cosine", "cosine of the masks as 0 and 1"),
        ],
    ),
    (
        "mask_similarity_summary",
        &[
            SOURCE_B,
            SEED_B,
            ("metric", "the column of `mask_similarity` that is summed up"),
            ("n_features", "features"),
            ("n_undefined", "features without a value, which the others leave out"),
            ("mean", "over features"),
            ("sd", "standard deviation over features"),
            ("p5", "5th percentile"),
            ("p50", "median"),
            ("p95", "95th percentile"),
            ("chance", "mean of the values by chance"),
        ],
    ),
    (
        "spy",
        &[
            ORDER,
            ("width", "pixels in a row"),
            ("height", "pixels in a column"),
            ("rows", "rows that are drawn"),
            ("cols", "columns that are drawn"),
            DENSITY,
            ("marginals", "whether shares of rows and columns are drawn beside the picture"),
        ],
    ),
    ("gradient", &[REFERENCE, RANK, FEATURE, HAMMING_COUNT, HAMMING, EXPECTED, KAPPA, JACCARD, DENSITY]),
    (
        "gradient_summary",
        &[
            ("candidates", "which features were looked at: `all`, `nearest` or `random` ones"),
            METRIC,
            REFERENCE,
            ("n_candidates", "features that were looked at"),
            ("hamming_min", "positions at which the nearest differs"),
            ("hamming_max", "positions at which the farthest differs"),
            ("hamming_mean", "mean of that over them"),
            ("rows", "positions of a feature"),
            ("reference_density", "share of positions that the reference keeps"),
            ("subset_sparsity", "share of positions that reference and candidates together do not keep"),
            ("tied_neighbours", "candidates that are as far as the one before them"),
        ],
    ),
    (
        "neighbours",
        &[
            METRIC,
            REFERENCE,
            ("reference_constant", "whether the reference keeps nothing or everything"),
            RANK,
            FEATURE,
            HAMMING_COUNT,
            HAMMING,
            EXPECTED,
            KAPPA,
            JACCARD,
            DENSITY,
        ],
    ),
    (
        "distance_histogram",
        &[
            REFERENCE,
            ("hamming_lo", "distance at which the step begins"),
            ("hamming_hi", "and ends"),
            ("features", "features so far from the reference"),
        ],
    ),
    (
        "clusters",
        &[
            REFERENCE,
            K,
            FEATURE,
            ("cluster", "its cluster, from 0 on"),
            ("silhouette", "1: far from other clusters; 0: between two, or alone"),
            ("tsne_x", "its place in the picture by t-SNE, where one is asked for"),
            ("tsne_y", "likewise"),
        ],
    ),
    (
        "clustering",
        &[
            REFERENCE,
            K,
            ("algorithm", "how clusters were found"),
            ("input", "what was clustered: masks or weights"),
            ("n_features", "features"),
            WITHIN,
            BETWEEN,
            SEPARATION,
            ("expected_within", "what `within` is by chance at the features' densities"),
            ("expected_between", "what `between` is by chance at the features' densities"),
            ("density_separation", "expected_between / expected_within: what densities alone explain"),
            ("silhouette", "mean over features"),
            SINGLETONS,
            ("n_nonempty", "clusters with a feature"),
            ("largest_fraction", "share of features in the largest cluster"),
            ("inertia", "sum of squared distances to the centres"),
            ("n_iter", "passes, the one that changed nothing among them"),
            ("null_mean", "mean separation of shuffled features, clustered alike"),
            ("null_sd", "standard deviation of that"),
            ("z", "(separation - null_mean) / null_sd"),
            ("legacy_within", "the original program's `within`: singletons count as 0"),
            ("legacy_ratio", "the original program's separation"),
            DEAD_ROWS,
        ],
    ),
    (
        "cluster_pairs",
        &[
            REFERENCE,
            K,
            ("cluster_a", "a cluster"),
            ("cluster_b", "another one, or the same"),
            ("pairs", "pairs of features, one of each"),
            ("mean_hamming", "their mean distance"),
        ],
    ),
    (
        "block_coherence",
        &[
            ORDER,
            BLOCK,
            ("block_index", "which block, in that order"),
            ("size", "its features; the last block may have fewer"),
            ("rows", "positions of a feature"),
            ("all_zero_rows", "positions at which no feature of the block keeps anything"),
            ("coherence", "their share"),
            ("null", "the share by chance, where each feature is shuffled on its own"),
            ("lift", "coherence / null"),
            ("null_sd", "exact standard deviation of the share by chance"),
            DEAD_ROWS,
        ],
    ),
    (
        "block_coherence_summary",
        &[
            ORDER,
            BLOCK,
            ("blocks", "blocks, a shorter last one among them"),
            ("coherence_mean", "mean over blocks"),
            ("null_mean", "mean over blocks of the value by chance"),
            ("lift", "coherence_mean / null_mean"),
            ("skippable_fraction", "share of all positions that a kernel could leave out with its blocks"),
            ("null_skippable_fraction", "the same by chance"),
            ("coherence_mean_complete", "mean over blocks that have all their features"),
            DEAD_ROWS,
        ],
    ),
    (
        "groups",
        &[
            MODE,
            GROUPING,
            GROUP_SIZE,
            GROUP_INDEX,
            ("seed_feature", "its first feature"),
            ("size", "its features"),
            ("complete", "whether it has as many as asked for"),
            ("mean_pairwise_hamming", "mean distance of its pairs of features"),
            ("all_zero_rows", "positions at which none of its features keeps anything"),
            ("all_one_rows", "positions that all of its features keep"),
            ("distinct_patterns", "different patterns over its positions"),
            ("repeated_patterns", "patterns that occur more than once"),
            ("pattern_entropy", "entropy of the patterns, in bits"),
            DENSITY,
            ("null_zero_rows", "`all_zero_rows` by chance, where each feature is shuffled on its own"),
            ("null_one_rows", "`all_one_rows` by chance"),
            ("null_distinct_patterns", "`distinct_patterns` by chance; empty for groups that are too varied"),
            ("null_pattern_entropy", "`pattern_entropy` by chance, likewise"),
            ("upstream_mean_with_diagonal", "the original program's mean distance: zeros of the diagonal count"),
        ],
    ),
    ("group_members", &[MODE, GROUPING, GROUP_SIZE, GROUP_INDEX, ("position", "place within the group"), FEATURE]),
    (
        "group_summary",
        &[
            MODE,
            GROUPING,
            GROUP_SIZE,
            ("groups", "groups, incomplete ones among them"),
            ("rows_total", "groups times positions"),
            ("zero_fraction", "share of those at which the whole group keeps nothing"),
            ("one_fraction", "share of those that the whole group keeps"),
            ("null_zero_fraction", "`zero_fraction` by chance"),
            ("null_one_fraction", "`one_fraction` by chance"),
            ("zero_lift", "zero_fraction / null_zero_fraction"),
            ("mean_distance", "mean over groups of the distance of their pairs"),
            ("random_mean_distance", "the same of a random partition"),
            ("random_zero_rows", "positions at which a group of a random partition keeps nothing"),
            ("random_one_rows", "positions that a group of a random partition keeps whole"),
            DEAD_ROWS,
        ],
    ),
    (
        "distance_cdf",
        &[
            MODE,
            GROUPING,
            GROUP_SIZE,
            ("group_index", "which group; -1 for the pairs within all groups together"),
            ("hamming", "a distance that occurs"),
            ("cdf", "share of pairs that are at most as far"),
        ],
    ),
    (
        "hierarchy",
        &[
            ("linkage", "how far two clusters are apart: `average` or `ward`"),
            ("n_clusters", "clusters that the tree is cut to"),
            WITHIN,
            BETWEEN,
            SEPARATION,
            SINGLETONS,
            ("largest", "features of the largest cluster"),
        ],
    ),
    (
        "activation_sparsity",
        &[
            TARGET,
            ("threshold", "inputs of at most this magnitude are 0"),
            ("tokens", "tokens of the calibration"),
            ("achieved_mean", "mean share of a token's inputs that is 0"),
            ("achieved_p5", "5th percentile of that over tokens"),
            ("achieved_p95", "95th percentile of that over tokens"),
            ("rel_output_error", "norm of the change of all outputs over the norm of all outputs"),
            ("rel_output_error_token_mean", "mean of the same over tokens"),
            ("batch", "tokens of a batch"),
            ("batch_union_kept", "mean share of inputs that any token of a batch keeps"),
            ("weights_touched", "kept weights that meet a kept input, of all tokens together"),
            ("weights_touched_fraction", "their share of tokens times weights"),
            ("weights_touched_of_kept", "their share of tokens times kept weights"),
        ],
    ),
    (
        "activation_behaviour",
        &[
            TARGET,
            ("top1_agreement", "share of positions whose most likely token is that of the model as it is"),
            ("top5_overlap", "mean share of common tokens among the five most likely"),
            ("perplexity", "of the perplexity text, without small inputs"),
            ("perplexity_base", "of the model as it is"),
            ("kl", "mean divergence from the predictions of the model as it is, in nats"),
            ("tokens", "positions that were compared"),
        ],
    ),
];

/// The names of a table's columns after its key.
pub fn columns_of(table: &str) -> impl Iterator<Item = &'static str> {
    let columns = TABLES.iter().find(|(name, _)| *name == table).map_or(&[][..], |(_, columns)| columns);
    columns.iter().map(|(name, _)| *name)
}
