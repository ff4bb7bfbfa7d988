//! Distances, similarities, neighbours and gradients.

use crate::reference::{COUNTED, Check, Reference, Row, SUMMED, axis, number};
use sparsify_exp::analysis::{
    Axis, Mask, Metric, NeighbourRow, Pair, SimilarityRow, SimilaritySummary, WeightPair, candidates, distances,
    gradient, neighbours, similarity, summarise,
};
use std::collections::HashMap;

#[test]
fn all_distances() {
    let reference = Reference::open();
    let mut check = Check::new("hamming_counts");
    for (name, expected) in reference.expected_tensors("hamming_counts.safetensors") {
        let mask = match name.split('.').collect::<Vec<_>>()[..] {
            [source, "o", "in"] => reference.mask(source, "self_attn.o_proj", Axis::In),
            [source, "down", "out"] => reference.mask(source, "mlp.down_proj", Axis::Out),
            [synthetic] => reference.mask("synthetic", synthetic, Axis::In),
            _ => panic!("{name}"),
        };
        let features = mask.features();
        let mut found = vec![0.0; features * features];
        let mut all = distances(&mask).into_iter();
        for i in 0..features {
            for j in i + 1..features {
                let distance = all.next().unwrap() as f32;
                (found[i * features + j], found[j * features + i]) = (distance, distance);
            }
        }
        check.equal(&name, &expected.numbers, &found);
    }
}

fn check_similarity(check: &mut Check, row: &Row, found: &SimilarityRow) {
    check.same(row, "hamming_count", found.hamming_count);
    let counted = [
        ("density_a", found.density_a),
        ("density_b", found.density_b),
        ("jaccard", found.jaccard),
        ("jaccard_chance", found.jaccard_chance),
        ("hamming", found.hamming),
        ("hamming_chance", found.hamming_chance),
        ("kappa", found.kappa),
        ("mask_cosine", found.mask_cosine),
    ];
    counted.into_iter().for_each(|(key, value)| check.near(row, key, value, COUNTED));
    check.near(row, "cosine", found.cosine, SUMMED);
}

/// A row of `mask_similarity_summary`.
pub fn check_summary(check: &mut Check, row: &Row, found: &[SimilaritySummary]) {
    let found = found.iter().find(|summary| summary.metric.name() == row["metric"]).unwrap();
    let within = if row["metric"] == "cosine" { SUMMED } else { COUNTED };
    check.same(row, "n_features", found.n_features);
    check.same(row, "n_undefined", found.n_undefined);
    let parts = [("mean", found.mean), ("sd", found.sd), ("p5", found.p5), ("p50", found.p50), ("p95", found.p95)];
    parts.into_iter().for_each(|(key, value)| check.near(row, key, value, within));
    check.near(row, "chance", found.chance, COUNTED);
}

/// All features of the two sources of a row.
fn compare(reference: &Reference, row: &Row) -> Vec<SimilarityRow> {
    let synthetic = |a: &Mask, b: &Mask| {
        let weights = |mask: &Mask| -> Vec<f32> {
            let cells = (0..mask.features()).flat_map(|f| (0..mask.length()).map(move |at| (f, at)));
            cells.map(|(f, at)| f32::from(u8::from(mask.get(f, at)))).collect()
        };
        let (x, y) = (weights(a), weights(b));
        similarity(a, b, Some(WeightPair { a: &x, b: &y, axis: Axis::Out }))
    };
    match row["source"].as_str() {
        "identical" | "complement" => {
            let mask = reference.mask("synthetic", "clusters", Axis::In);
            let other = Mask::from_fn(mask.features(), mask.length(), |f, at| {
                mask.get(f, at) != (row["source"] == "complement")
            });
            synthetic(&mask, &other)
        }
        "iid" => {
            let mask = reference.mask("synthetic", "random", Axis::In);
            let half = mask.features() / 2;
            let part = |first: usize| mask.select(&(first..first + half).collect::<Vec<_>>());
            synthetic(&part(0), &part(half))
        }
        source => {
            let (component, axis) = (&row["component"], axis(row));
            let mask = |source: &str| {
                Mask::of(&reference.pattern(source, component, &mask_source(reference, source, row)), axis)
            };
            let weights = |source: &str| &reference.matrix(source, component).numbers[..];
            let (a, b) = (source, &row["source_b"]);
            similarity(&mask(a), &mask(b), Some(WeightPair { a: weights(a), b: weights(b), axis }))
        }
    }
}

/// Rows of explicit masks have one for one of their sources.
fn mask_source(reference: &Reference, source: &str, row: &Row) -> String {
    let there = reference.masks.contains_key(&format!("{source}/{}", row["component"]));
    if there { row["mask_source"].clone() } else { "nonzero".into() }
}

#[test]
fn similarities() {
    let reference = Reference::open();
    let key = |row: &Row| {
        ["source", "source_b", "component", "feature_axis", "mask_source"].map(|key| row[key].clone()).join(" ")
    };
    let mut found: HashMap<String, Vec<SimilarityRow>> = HashMap::new();
    let mut check = Check::new("mask_similarity");
    for row in reference.csv("mask_similarity.csv") {
        let rows = found.entry(key(&row)).or_insert_with(|| compare(&reference, &row));
        check_similarity(&mut check, &row, &rows[number(&row, "feature")]);
    }
    let mut check = Check::new("mask_similarity_summary");
    for row in reference.csv("mask_similarity_summary.csv") {
        let rows = found.entry(key(&row)).or_insert_with(|| compare(&reference, &row));
        check_summary(&mut check, &row, &summarise(rows));
    }
}

fn check_neighbour(check: &mut Check, row: &Row, found: &NeighbourRow) {
    for (key, value) in [("rank", found.rank), ("feature", found.feature), ("hamming_count", found.hamming_count)] {
        check.same(row, key, value);
    }
    let floats =
        [("hamming", found.hamming), ("expected", found.expected), ("kappa", found.kappa), ("density", found.density)];
    floats.into_iter().for_each(|(key, value)| check.near(row, key, value, COUNTED));
}

#[test]
fn gradients() {
    let reference = Reference::open();
    let rows = reference.csv("gradient.csv");
    let mut check = Check::new("gradient");
    for summary in reference.csv("gradient_summary.csv") {
        let mask = reference.mask(&summary["source"], &summary["component"], Axis::In);
        let start = number(&summary, "reference");
        let from = match summary["candidate_list"].as_str() {
            "" => candidates(&mask, start, summary["skip_constant"] == "true"),
            list => list.split(' ').map(|feature| feature.parse().unwrap()).collect(),
        };
        let found = gradient(&mask, start, &from, Metric::Hamming);
        check.same(&summary, "n_candidates", found.n_candidates);
        check.same(&summary, "hamming_min", found.hamming_min.unwrap());
        check.same(&summary, "hamming_max", found.hamming_max.unwrap());
        check.near(&summary, "hamming_mean", found.hamming_mean, COUNTED);
        check.near(&summary, "reference_density", found.reference_density, COUNTED);
        check.near(&summary, "subset_sparsity", found.subset_sparsity, COUNTED);
        check.same(&summary, "tied_neighbours", found.tied_neighbours);
        let same = |row: &&Row| {
            ["source", "component", "candidates", "skip_constant", "reference"]
                .iter()
                .all(|&key| row[key] == summary[key])
        };
        let expected: Vec<&Row> = rows.iter().filter(same).collect();
        assert_eq!(expected.len(), found.rows.len());
        expected.into_iter().zip(&found.rows).for_each(|(row, found)| check_neighbour(&mut check, row, found));
    }
}

#[test]
fn nearest_features() {
    let reference = Reference::open();
    let mut check = Check::new("neighbours");
    for row in reference.csv("neighbours.csv") {
        let mask = reference.mask(&row["source"], &row["component"], Axis::In);
        let start = number(&row, "reference");
        let metric = match row["metric"].as_str() {
            "hamming" => Metric::Hamming,
            "jaccard" => Metric::Jaccard,
            _ => Metric::Kappa,
        };
        let rank = number(&row, "rank");
        let from = candidates(&mask, start, row["skip_constant"] == "true");
        let found = neighbours(&mask, start, &from, metric, rank)[rank - 1];
        check_neighbour(&mut check, &row, &found);
        check.near(&row, "jaccard", found.jaccard, COUNTED);
        check.same(&row, "reference_constant", mask.is_constant(start));
        assert_eq!(Pair::of(&mask, start, &mask, found.feature).hamming(), found.hamming);
    }
}
