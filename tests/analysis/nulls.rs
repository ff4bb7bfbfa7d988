//! Null models: what is drawn must be near what is expected, or near what another program drew.

use crate::reference::{COUNTED, Check, Reference, cells, floats};
use sparsify_exp::analysis::{
    Algorithm, Axis, ClusterSettings, KMeans, Mask, Pair, Partition, Points, Repeats, block_coherence, clustering,
    distance_histogram, group_rows, group_summary, nm_conformance, order, partition, random_partition, shuffled,
};

fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap()
}

fn mean_distance(mask: &Mask) -> f64 {
    let histogram = distance_histogram(mask);
    let pairs: u64 = histogram.iter().sum();
    let sum: u64 = histogram.iter().enumerate().map(|(distance, times)| distance as u64 * times).sum();
    sum as f64 / pairs as f64 / mask.length() as f64
}

/// The mean of `of(i, j)` over pairs i < j.
fn over_pairs(features: usize, of: impl Fn(usize, usize) -> Option<f64>) -> f64 {
    let pairs = (0..features).flat_map(|i| (i + 1..features).map(move |j| (i, j)));
    let values: Vec<f64> = pairs.filter_map(|(i, j)| of(i, j)).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn distances_under_shuffles() {
    let reference = Reference::open();
    let expected = &reference.json("nulls.json")["random_pairs"];
    let mask = reference.mask("synthetic", "random", Axis::In);
    let mut check = Check::new("nulls: pairs");
    check.near_value("observed", number(&expected["observed_mean_hamming"]), mean_distance(&mask), COUNTED);
    let chance = over_pairs(mask.features(), |i, j| Some(Pair::of(&mask, i, &mask, j).hamming_chance()));
    check.near_value("expected", number(&expected["expected_mean_hamming"]), chance, COUNTED);
    let repeats: Vec<f64> = (0..20).map(|seed| mean_distance(&shuffled(&mask, seed))).collect();
    let off = (Repeats::of(&repeats).mean - chance).abs();
    check.holds("shuffles", off < 5.0 * number(&expected["sd_of_mean"]) / 20f64.sqrt());
}

#[test]
fn separations_under_shuffles() {
    let reference = Reference::open();
    let mut check = Check::new("nulls: separation");
    for expected in reference.json("nulls.json")["separation"].as_array().unwrap() {
        let row = cells(expected);
        let mask = reference.mask("synthetic", &row["mask"], Axis::In);
        let algorithm = Algorithm::KMeans { points: Points::Mask, starts: 10 };
        let settings = ClusterSettings { algorithm, k: row["k"].parse().unwrap(), null_repeats: 20, seed: 1 };
        let found = clustering(&mask, &settings).row;
        let off = (found.null.mean - number(&expected["null_mean"])).abs();
        check.holds("the null's mean", off < number(&expected["accept_null_mean_of_20_within"]));
        let range = floats(&expected["accept_null_sd_ratio_of_20"]);
        let ratio = found.null.sd / number(&expected["null_sd"]);
        check.holds("the null's deviation", (range[0]..range[1]).contains(&ratio));
        let random = number(&expected["z_mean"]).abs() < 3.0;
        check.holds("z", random == (found.null.z.abs() < 3.0));
        check.holds("planted clusters are far off", random || found.null.z > 100.0);
    }
}

#[test]
fn coherence_under_shuffles() {
    let reference = Reference::open();
    let expected = &reference.json("nulls.json")["coherence_shuffle"];
    let (source, component) = expected["matrix"].as_str().unwrap().split_once('/').unwrap();
    let mask = reference.mask(source, component, Axis::In);
    let mut check = Check::new("nulls: coherence");
    let (blocks, summary) = block_coherence(&mask, &order::identity(&mask), 8);
    let (means, sds) = (floats(&expected["per_block_mean"]), floats(&expected["per_block_sd"]));
    for (block, (mean, sd)) in blocks.iter().zip(means.into_iter().zip(sds)) {
        check.near_value("mean", mean, block.null, COUNTED);
        check.near_value("sd", sd, block.null_sd, COUNTED);
    }
    check.near_value("mean", number(&expected["mean_over_blocks"]), summary.null_mean, COUNTED);
    let drawn: Vec<f64> = (0..50)
        .map(|seed| block_coherence(&shuffled(&mask, seed), &order::identity(&mask), 8).1.coherence_mean)
        .collect();
    let off = (Repeats::of(&drawn).mean - summary.null_mean).abs();
    check.holds("shuffles", off < 5.0 * number(&expected["sd_of_mean_over_blocks"]) / 50f64.sqrt());
}

#[test]
fn random_partitions() {
    let reference = Reference::open();
    let expected = &reference.json("nulls.json")["random_partition"];
    let (source, component) = expected["matrix"].as_str().unwrap().split_once('/').unwrap();
    let mask = reference.mask(source, component, Axis::In);
    let mut check = Check::new("nulls: partitions");
    let found = random_partition(&mask, 8);
    check.near_value("distance", number(&expected["expected_mean_distance"]), found.mean_distance, COUNTED);
    let zero = number(&expected["expected_zero_rows_per_complete_group"]);
    check.near_value("zero rows", zero, found.zero_rows, COUNTED);
    let one = number(&expected["expected_one_rows_per_complete_group"]);
    check.near_value("one rows", one, found.one_rows, COUNTED);
    for seed in 0..5 {
        let groups = partition(&mask, 8, Partition::Random(seed)).unwrap();
        let rows: Vec<_> = group_rows(&mask, &groups, 8).into_iter().filter(|row| row.complete).collect();
        let drawn = group_summary(&rows, mask.length());
        let off = (drawn.mean_distance - found.mean_distance).abs();
        check.holds("drawn distance", off < 5.0 * number(&expected["sd_of_one_partition"]));
        let off = (drawn.zero_fraction * mask.length() as f64 - found.zero_rows).abs();
        check.holds("drawn zero rows", off < 5.0 * number(&expected["sd_of_one_partition_zero_rows"]));
    }
}

#[test]
fn nm_masks_without_other_structure() {
    let reference = Reference::open();
    let mut check = Check::new("nulls: N:M");
    for (name, n, m) in [("nm24", 2, 4), ("nm48", 4, 8)] {
        let expected = &reference.json("nulls.json")["nm_iid"][name];
        let mask = reference.mask("synthetic", name, Axis::In);
        let whole = mask.features() / m * m;
        let distance = |same: bool| {
            over_pairs(whole, |i, j| ((i / m == j / m) == same).then(|| Pair::of(&mask, i, &mask, j).hamming()))
        };
        check.near_value("within", number(&expected["within_group_mean"]), distance(true), COUNTED);
        check.near_value("within", number(&expected["within_group_expected"]), distance(true), COUNTED);
        check.near_value("between", number(&expected["between_group_mean"]), distance(false), COUNTED);
        let conforming = nm_conformance(&reference.matrix("synthetic", name).pattern(), n, m).conforming_fraction;
        check.near_value("conforming", number(&expected["conforming_fraction"]), conforming, COUNTED);
    }
}

#[test]
fn the_best_of_ten_starts_is_as_good_as_that_of_scikit_learn() {
    let reference = Reference::open();
    let mut check = Check::new("nulls: ten starts");
    for expected in reference.json("nulls.json")["kmeans_n_init_10"].as_array().unwrap() {
        let row = cells(expected);
        let mask = reference.mask("synthetic", &row["mask"], Axis::In);
        for seed in 0..3 {
            let found = KMeans::best(&mask, Points::Mask, row["k"].parse().unwrap(), 10, seed).inertia;
            let bound = number(&expected["accept_below"]);
            check.holds(&format!("{found} is not below {bound}"), found < bound);
        }
    }
}
