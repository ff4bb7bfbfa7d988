//! The tables of analyses and their columns, listed once.

/// Every table that cells store rows of, and its columns after the key, in the order of reports.
#[rustfmt::skip]
pub const TABLES: &[(&str, &[&str])] = &[
    ("structure", &[
        "group", "nnz", "total", "sparsity", "kept_zeros", "param_frac", "flops_per_token_dense",
        "flops_per_token_sparse", "bytes_dense", "bytes_csr", "bytes_csr_i32", "bytes_csr_i64", "bytes_bitmask",
        "bytes_bitmask_with_offsets", "row_density_mean", "row_density_sd", "row_density_min", "row_density_max",
        "col_density_mean", "col_density_sd", "col_density_min", "col_density_max", "dead_rows", "dead_cols",
        "full_rows", "full_cols", "mask_source",
    ]),
    ("density_profile", &[
        "axis", "index", "count", "size", "density", "complete",
    ]),
    ("nm_conformance", &[
        "n", "m", "groups", "conforming", "conforming_fraction", "exact_fraction", "max_kept", "remainder_columns",
        "remainder_kept", "kept_histogram",
    ]),
    ("features", &[
        "feature", "density", "l2_norm", "wanda_score", "is_dead", "is_full",
    ]),
    ("mask_similarity", &[
        "source_b", "seed_b", "feature", "density_a", "density_b", "jaccard", "jaccard_chance", "hamming_count",
        "hamming", "hamming_chance", "kappa", "cosine", "mask_cosine",
    ]),
    ("mask_similarity_summary", &[
        "source_b", "seed_b", "metric", "n_features", "n_undefined", "mean", "sd", "p5", "p50", "p95", "chance",
    ]),
    ("spy", &[
        "order", "width", "height", "rows", "cols", "density", "marginals",
    ]),
    ("gradient", &[
        "reference", "rank", "feature", "hamming_count", "hamming", "expected", "kappa", "jaccard", "density",
    ]),
    ("gradient_summary", &[
        "candidates", "metric", "reference", "n_candidates", "hamming_min", "hamming_max", "hamming_mean", "rows",
        "reference_density", "subset_sparsity", "tied_neighbours",
    ]),
    ("neighbours", &[
        "metric", "reference", "reference_constant", "rank", "feature", "hamming_count", "hamming", "expected",
        "kappa", "jaccard", "density",
    ]),
    ("distance_histogram", &[
        "reference", "hamming_lo", "hamming_hi", "features",
    ]),
    ("clusters", &[
        "reference", "k", "feature", "cluster", "silhouette", "tsne_x", "tsne_y",
    ]),
    ("clustering", &[
        "reference", "k", "algorithm", "input", "n_features", "within", "between", "separation", "expected_within",
        "expected_between", "density_separation", "silhouette", "n_singletons", "n_nonempty", "largest_fraction",
        "inertia", "n_iter", "null_mean", "null_sd", "z", "legacy_within", "legacy_ratio", "dead_rows",
    ]),
    ("cluster_pairs", &[
        "reference", "k", "cluster_a", "cluster_b", "pairs", "mean_hamming",
    ]),
    ("block_coherence", &[
        "order", "block", "block_index", "size", "rows", "all_zero_rows", "coherence", "null", "lift", "null_sd",
        "dead_rows",
    ]),
    ("block_coherence_summary", &[
        "order", "block", "blocks", "coherence_mean", "null_mean", "lift", "skippable_fraction",
        "null_skippable_fraction", "coherence_mean_complete", "dead_rows",
    ]),
    ("groups", &[
        "mode", "grouping", "group_size", "group_index", "seed_feature", "size", "complete", "mean_pairwise_hamming",
        "all_zero_rows", "all_one_rows", "distinct_patterns", "repeated_patterns", "pattern_entropy", "density",
        "null_zero_rows", "null_one_rows", "null_distinct_patterns", "null_pattern_entropy",
        "upstream_mean_with_diagonal",
    ]),
    ("group_members", &[
        "mode", "grouping", "group_size", "group_index", "position", "feature",
    ]),
    ("group_summary", &[
        "mode", "grouping", "group_size", "groups", "rows_total", "zero_fraction", "one_fraction",
        "null_zero_fraction", "null_one_fraction", "zero_lift", "mean_distance", "random_mean_distance",
        "random_zero_rows", "random_one_rows", "dead_rows",
    ]),
    ("distance_cdf", &[
        "mode", "grouping", "group_size", "group_index", "hamming", "cdf",
    ]),
    ("hierarchy", &[
        "linkage", "n_clusters", "within", "between", "separation", "n_singletons", "largest",
    ]),
    ("activation_sparsity", &[
        "target", "threshold", "tokens", "achieved_mean", "achieved_p5", "achieved_p95", "rel_output_error",
        "rel_output_error_token_mean", "batch", "batch_union_kept", "weights_touched", "weights_touched_fraction",
        "weights_touched_of_kept",
    ]),
    ("activation_behaviour", &[
        "target", "top1_agreement", "top5_overlap", "perplexity", "perplexity_base", "kl", "tokens",
    ]),
];

/// The columns of a table after its key.
pub fn columns_of(table: &str) -> &'static [&'static str] {
    TABLES.iter().find(|(name, _)| *name == table).map_or(&[], |(_, columns)| columns)
}
