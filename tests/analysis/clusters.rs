//! k-means, hierarchies, medoids, and statistics over references.

use crate::reference::{COUNTED, Check, Reference, Row, SUMMED, Tensor, cells, floats, numbers};
use serde_json::Value;
use sparsify_exp::analysis::{
    Axis, Figures, Hierarchy, KMeans, Linkage, Mask, Medoids, Points, Repeats, Start, assign_to_medoids, build_medoids,
    canonical, cluster_pairs, figures, hierarchy_rows, neighbourhood, silhouettes, swap_medoids,
};
use std::collections::BTreeMap;

/// The points of a mask's features: their weights, feature by feature.
fn rows_of(matrix: &Tensor, features: &[usize]) -> Vec<f32> {
    let columns = matrix.shape[1];
    features.iter().flat_map(|&feature| matrix.numbers.iter().skip(feature).step_by(columns).copied()).collect()
}

fn check_figures(check: &mut Check, row: &Row, found: &Figures) {
    let floats = [
        ("within", found.within),
        ("between", found.between),
        ("separation", found.separation),
        ("expected_within", found.expected_within),
        ("expected_between", found.expected_between),
        ("density_separation", found.density_separation),
        ("silhouette", found.silhouette),
        ("largest_fraction", found.largest_fraction),
        ("legacy_within", found.legacy_within),
        ("legacy_between", found.legacy_between),
        ("legacy_ratio", found.legacy_ratio),
    ];
    let known = floats.into_iter().filter(|(key, _)| row.contains_key(*key));
    known.for_each(|(key, value)| check.near(row, key, value, COUNTED));
    check.same(row, "n_singletons", found.n_singletons);
    if row.contains_key("n_nonempty") {
        check.same(row, "n_nonempty", found.n_nonempty);
        check.same(row, "within_pairs", found.within_pairs);
        check.same(row, "between_pairs", found.between_pairs);
    }
}

/// What a case of k-means clusters: a mask, and weights or signs where it is not the mask.
fn subject(reference: &Reference, case: &Value) -> (Mask, Option<Vec<f32>>, bool) {
    let name = case["case"].as_str().unwrap();
    let synthetic = |name: &str| reference.mask("synthetic", name, Axis::In);
    let all = |mask: &Mask| (0..mask.features()).collect::<Vec<_>>();
    match name {
        "planted" | "planted-badstart" | "planted-k1" => (synthetic("clusters"), None, false),
        "all-singletons" => (synthetic("clusters").select(&(0..12).collect::<Vec<_>>()), None, false),
        "random-mask" => (synthetic("random"), None, false),
        "random-weights" => {
            let mask = synthetic("random");
            let weights = rows_of(reference.matrix("synthetic", "random"), &all(&mask));
            (mask, Some(weights), false)
        }
        "two-distinct-columns" => (reference.mask("degenerate", "two_distinct", Axis::In), None, false),
        "empty-cluster-refilled" => {
            let mask = synthetic("clusters");
            let columns: Vec<usize> =
                all(&mask).into_iter().map(|column| if column == 1 { 0 } else { column }).collect();
            (mask.select(&columns), None, false)
        }
        name => {
            let (source, rest) = name.split_once('/').unwrap();
            let (component, sign) = rest.strip_suffix(" sign").map_or((rest, false), |component| (component, true));
            let features = numbers(&case["features"]);
            let mask = reference.mask(source, component, Axis::In);
            assert_eq!(mask.varying(), features);
            let weights = rows_of(reference.matrix(source, component), &features);
            (mask.select(&features), sign.then_some(weights), sign)
        }
    }
}

fn run(mask: &Mask, weights: Option<&[f32]>, sign: bool, k: usize, start: &Tensor) -> KMeans {
    let points = match weights {
        None => Points::Mask,
        Some(weights) if sign => Points::Sign(weights),
        Some(weights) => Points::Weights(weights),
    };
    KMeans::from(mask, points, k, Start::Given(&start.numbers))
}

#[test]
fn k_means_and_its_figures() {
    let reference = Reference::open();
    let starts = reference.tensors("kmeans_init.safetensors");
    let mut check = Check::new("clustering");
    for case in reference.json("clustering.json")["cases"].as_array().unwrap() {
        let (mask, weights, sign) = subject(&reference, case);
        let row = cells(case);
        let k: usize = row["k"].parse().unwrap();
        let found = run(&mask, weights.as_deref(), sign, k, &starts[&row["init_key"]]);
        check.equal(&row["case"], &numbers(&case["labels"]), &found.labels);
        check.equal(&row["case"], &numbers(&case["labels_canonical"]), &canonical(&found.labels));
        check.near(&row, "inertia", found.inertia, SUMMED);
        check.same(&row, "n_iter", found.n_iter);
        check.same(&row, "relocated", found.relocated);
        let figures = figures(&mask, &found.labels, k);
        check_figures(&mut check, &row, &figures);
        check.equal("sizes", &numbers(&case["sizes"]), &figures.sizes);
        let expected = floats(&case["silhouette_per_feature"]);
        for (expected, found) in expected.into_iter().zip(silhouettes(&mask, &found.labels, k)) {
            check.near_value(&row["case"], expected, found, COUNTED);
        }
        let pairs = cluster_pairs(&mask, &found.labels, k);
        let expected = case["cluster_pairs"].as_array().unwrap();
        assert_eq!(pairs.len(), expected.len());
        for (expected, found) in expected.iter().map(cells).zip(pairs) {
            check.same(&expected, "cluster_a", found.cluster_a);
            check.same(&expected, "cluster_b", found.cluster_b);
            check.same(&expected, "pairs", found.pairs);
            check.near(&expected, "mean_hamming", found.mean_hamming, COUNTED);
        }
    }
}

#[test]
fn references_and_their_statistics() {
    let reference = Reference::open();
    let starts = reference.tensors("kmeans_init.safetensors");
    let mut check = Check::new("clustering_references");
    // Separations and legacy ratios by source, component and k.
    let mut found: BTreeMap<String, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for case in reference.json("clustering_references.json")["cases"].as_array().unwrap() {
        let row = cells(case);
        let mask = reference.mask(&row["source"], &row["component"], Axis::In);
        let members = neighbourhood(&mask, row["reference"].parse().unwrap(), 32, true);
        check.equal("features", &numbers(&case["features"]), &members);
        let mask = mask.select(&members);
        let k: usize = row["k"].parse().unwrap();
        let run = run(&mask, None, false, k, &starts[&row["init_key"]]);
        check.equal("labels", &numbers(&case["labels"]), &run.labels);
        check.near(&row, "inertia", run.inertia, SUMMED);
        check.same(&row, "n_iter", run.n_iter);
        let figures = figures(&mask, &run.labels, k);
        check_figures(&mut check, &row, &figures);
        let key = format!("{} {} {k}", row["source"], row["component"]);
        let (separations, legacy) = found.entry(key).or_default();
        separations.push(figures.separation);
        legacy.push(figures.legacy_ratio);
    }
    let mut check = Check::new("clustering_summary");
    for row in reference.csv("clustering_summary.csv") {
        let of = |source: &str| &found[&format!("{source} {} {}", row["component"], row["k"])];
        let repeats = match row["source"].as_str() {
            "sgpt-wanda" => Repeats::paired(&of("wanda").0, &of("sgpt").0),
            source => {
                check.near(&row, "legacy_ratio_mean", Repeats::of(&of(source).1).mean, COUNTED);
                Repeats::of(&of(source).0)
            }
        };
        check.same(&row, "n_references", repeats.n);
        check.same(&row, "n_undefined", repeats.n_undefined);
        let floats = [
            ("separation_mean", repeats.mean),
            ("separation_sd", repeats.sd),
            ("separation_ci_lo", repeats.ci_lo),
            ("separation_ci_hi", repeats.ci_hi),
            ("cv", repeats.cv),
        ];
        floats.into_iter().for_each(|(key, value)| check.near(&row, key, value, COUNTED));
    }
}

/// The merges and cuts of a tree.
pub fn check_tree(check: &mut Check, mask: &Mask, expected: &Value) {
    let tree = Hierarchy::of(mask, Linkage::Average);
    let of = |of: &dyn Fn(&sparsify_exp::analysis::Merge) -> usize| tree.merges.iter().map(of).collect::<Vec<_>>();
    check.equal("merges_a", &numbers(&expected["merges_a"]), &of(&|merge| merge.a));
    check.equal("merges_b", &numbers(&expected["merges_b"]), &of(&|merge| merge.b));
    if !expected["merges_size"].is_null() {
        check.equal("merges_size", &numbers(&expected["merges_size"]), &of(&|merge| merge.size));
    }
    let heights = floats(&expected["heights"]);
    heights
        .into_iter()
        .zip(&tree.merges)
        .for_each(|(height, merge)| check.near_value("height", height, merge.height, COUNTED));
    for cut in expected["cuts"].as_array().unwrap() {
        let row = cells(cut);
        let clusters = row["n_clusters"].parse().unwrap();
        check.equal("labels", &numbers(&cut["labels"]), &tree.cut(clusters).unwrap());
        let found = hierarchy_rows(mask, &tree, &[clusters])[0];
        check.near(&row, "within", found.within, COUNTED);
        check.near(&row, "between", found.between, COUNTED);
        check.near(&row, "separation", found.separation, COUNTED);
        check.same(&row, "n_singletons", found.n_singletons);
        check.same(&row, "largest", found.largest);
    }
}

#[test]
fn hierarchies() {
    let reference = Reference::open();
    let mut check = Check::new("hierarchy");
    for case in reference.json("hierarchy.json")["cases"].as_array().unwrap() {
        let name = case["case"].as_str().unwrap();
        let (source, component) = name.split_once('/').unwrap_or(("synthetic", name));
        check_tree(&mut check, &reference.mask(source, component, Axis::In), case);
    }
}

#[test]
fn medoids() {
    let reference = Reference::open();
    let mut check = Check::new("medoids");
    for case in reference.json("medoids.json")["cases"].as_array().unwrap() {
        let (name, k) = (case["case"].as_str().unwrap(), case["k"].as_u64().unwrap() as usize);
        let mask = match name.split_once('/') {
            None => reference.mask("synthetic", name, Axis::In),
            Some((source, rest)) => {
                let mask = reference.mask(source, rest.split(' ').next().unwrap(), Axis::In);
                mask.select(&mask.varying())
            }
        };
        let built = build_medoids(&mask, k);
        let swapped = swap_medoids(&mask, &built);
        check.same(&cells(case), "swaps", swapped.swaps);
        let given = assign_to_medoids(&mask, &numbers(&case["given"]["medoids"]));
        let runs: [(&str, Medoids); 3] =
            [("given", given), ("build", assign_to_medoids(&mask, &built)), ("swapped", swapped)];
        for (tag, found) in runs {
            let expected = &case[tag];
            let row = cells(expected);
            check.equal("medoids", &numbers(&expected["medoids"]), &found.medoids);
            check.equal("labels", &numbers(&expected["labels"]), &found.labels);
            check.same(&row, "cost_count", found.cost_count);
            check.near(&row, "cost", found.cost_count as f64 / mask.length() as f64, COUNTED);
            let figures = figures(&mask, &found.labels, k);
            let floats = [
                ("within", figures.within),
                ("between", figures.between),
                ("separation", figures.separation),
                ("silhouette", figures.silhouette),
            ];
            floats.into_iter().for_each(|(key, value)| check.near(&row, key, value, COUNTED));
        }
    }
}
