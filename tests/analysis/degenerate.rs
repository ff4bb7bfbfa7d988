//! One row, one column, nothing kept, everything kept.

use crate::activation::{batches, check_row};
use crate::clusters::check_tree;
use crate::groups::{check_block, check_coherence, check_group};
use crate::pairs::check_summary;
use crate::reference::{COUNTED, Check, Reference, cells, number, numbers};
use crate::structure::check_structure;
use serde_json::Value;
use sparsify_exp::analysis::{
    Algorithm, Axis, ClusterSettings, Linear, Mask, Metric, Partition, Points, WeightPair, activation_sparsity,
    block_coherence, candidates, clustering, figures, group_rows, nearest_first, order, partition, similarity,
    structure, summarise,
};
use sparsify_exp::sparse::Pattern;

#[test]
fn degenerate_masks() {
    let reference = Reference::open();
    let mut check = Check::new("degenerate");
    for (name, expected) in reference.json("degenerate.json").as_object().unwrap() {
        if let Some(name) = name.strip_prefix("activation_zero_") {
            let (x, w) = if name == "input" { (0.0, 1.0) } else { (1.0, 0.0) };
            let (inputs, weights) = ([x; 15], [w; 10]);
            let pattern = Pattern::keep_where(2, 5, &weights, |_, weight| weight != 0.0);
            let threshold = expected["threshold"].as_f64().unwrap();
            let linear = Linear { inputs: &inputs, weights: &weights, pattern: &pattern };
            check_row(&mut check, expected, &activation_sparsity(&linear, &[threshold], &batches(expected))[0]);
            continue;
        }
        let matrix = reference.matrix("degenerate", name);
        let mask = Mask::of(&matrix.pattern(), Axis::In);
        let total = (matrix.shape[0] * matrix.shape[1]) as u64;
        let found = structure(&matrix.pattern(), Some(&matrix.numbers), 4, total);
        check_structure(&mut check, &cells(&expected["structure"]), &found);
        check_neighbours(&mut check, &mask, expected);
        let weights = WeightPair { a: &matrix.numbers, b: &matrix.numbers, axis: Axis::In };
        let summary = summarise(&similarity(&mask, &mask, Some(weights)));
        for row in expected["self_similarity"].as_array().unwrap() {
            check_summary(&mut check, &cells(row), &summary);
        }
        check_clusters(&mut check, &mask, expected);
        check_groups(&mut check, &mask, expected);
    }
}

fn check_neighbours(check: &mut Check, mask: &Mask, expected: &Value) {
    let constant: Vec<usize> = (0..mask.features()).filter(|&feature| mask.is_constant(feature)).collect();
    check.equal("constant", &numbers(&expected["constant_columns"]), &constant);
    let mut order = |key: &str, skip: bool, metric: Metric| {
        check.equal(key, &numbers(&expected[key]), &nearest_first(mask, 0, &candidates(mask, 0, skip), metric));
    };
    order("neighbours_of_0_skip_false", false, Metric::Hamming);
    order("neighbours_of_0_skip_true", true, Metric::Hamming);
    order("neighbours_of_0_kappa", false, Metric::Kappa);
    order("neighbours_of_0_jaccard", false, Metric::Jaccard);
}

fn check_clusters(check: &mut Check, mask: &Mask, expected: &Value) {
    let left = mask.varying();
    check.same(&cells(expected), "features_left_by_skip_constant", left.len());
    let algorithm = Algorithm::KMeans { points: Points::Mask, starts: 2 };
    let settings = ClusterSettings { algorithm, k: 8, null_repeats: 1, seed: 0 };
    let found = clustering(&mask.select(&left), &settings);
    check.holds("fewer features than clusters give an empty row", found.features.is_empty() == (left.len() < 8));
    if expected["hierarchy"].is_null() {
        return;
    }
    check_tree(check, mask, &expected["hierarchy"]);
    let found = figures(mask, &vec![0; mask.features()], 1);
    let floats = [
        ("within", found.within),
        ("between", found.between),
        ("separation", found.separation),
        ("silhouette", found.silhouette),
        ("legacy_within", found.legacy_within),
        ("legacy_ratio", found.legacy_ratio),
    ];
    floats.into_iter().for_each(|(key, value)| check.near(&cells(&expected["one_cluster"]), key, value, COUNTED));
}

fn check_groups(check: &mut Check, mask: &Mask, expected: &Value) {
    match (&expected["partition_8"], partition(mask, 8, Partition::Greedy)) {
        (Value::Array(groups), Ok(found)) => {
            for (group, (expected, row)) in found.iter().zip(groups.iter().zip(group_rows(mask, &found, 8))) {
                check.equal("members", &numbers(&expected["members"]), group);
                check_group(check, &cells(expected), &row);
            }
        }
        (expected, found) => check.holds("an error", expected.is_string() && found.is_err()),
    }
    let (blocks, summary) = block_coherence(mask, &order::identity(mask), 4);
    check_coherence(check, &cells(&expected["coherence_4"]), &summary);
    for expected in expected["coherence_4_blocks"].as_array().unwrap().iter().map(cells) {
        check_block(check, &expected, &blocks[number(&expected, "block_index")]);
    }
}
