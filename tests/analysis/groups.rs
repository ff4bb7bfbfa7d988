//! Block coherence, groups and their distances.

use crate::reference::{COUNTED, Check, Reference, Row, axis, number, numbers};
use sparsify_exp::analysis::{
    BlockRow, CoherenceSummary, GroupRow, Mask, Partition, block_coherence, distance_cdf, group_rows, group_summary,
    order, partition, sampled,
};
use std::collections::HashMap;

/// A row of `block_coherence`.
pub fn check_block(check: &mut Check, row: &Row, found: &BlockRow) {
    let counts = [("size", found.size), ("rows", found.rows), ("all_zero_rows", found.all_zero_rows)];
    counts.into_iter().for_each(|(key, count)| check.same(row, key, count));
    let floats =
        [("coherence", found.coherence), ("null", found.null), ("lift", found.lift), ("null_sd", found.null_sd)];
    floats.into_iter().for_each(|(key, value)| check.near(row, key, value, COUNTED));
}

/// A row of `block_coherence_summary`.
pub fn check_coherence(check: &mut Check, row: &Row, found: &CoherenceSummary) {
    check.same(row, "blocks", found.blocks);
    let floats = [
        ("coherence_mean", found.coherence_mean),
        ("null_mean", found.null_mean),
        ("lift", found.lift),
        ("skippable_fraction", found.skippable_fraction),
        ("null_skippable_fraction", found.null_skippable_fraction),
        ("coherence_mean_complete", found.coherence_mean_complete),
    ];
    floats.into_iter().for_each(|(key, value)| check.near(row, key, value, COUNTED));
}

#[test]
fn coherence_of_blocks() {
    let reference = Reference::open();
    let rows = reference.csv("block_coherence.csv");
    let truth = numbers(&reference.json("planted.json")["cluster_truth"]);
    let mut check = Check::new("block_coherence");
    for summary in reference.csv("block_coherence_summary.csv") {
        let mask = reference.mask(&summary["source"], &summary["component"], axis(&summary));
        let features = match summary["order"].as_str() {
            "identity" => order::identity(&mask),
            "density" => order::by_density(&mask),
            "groups:greedy8" => order::by_groups(&partition(&mask, 8, Partition::Greedy).unwrap()),
            "cluster:planted" => order::by_cluster(&truth),
            other => panic!("order {other}"),
        };
        let (blocks, found) = block_coherence(&mask, &features, number(&summary, "block"));
        check_coherence(&mut check, &summary, &found);
        let same = |row: &&Row| {
            ["source", "component", "feature_axis", "order", "block"].iter().all(|&key| row[key] == summary[key])
        };
        let expected: Vec<&Row> = rows.iter().filter(same).collect();
        assert_eq!(expected.len(), blocks.len());
        expected.into_iter().zip(&blocks).for_each(|(row, found)| check_block(&mut check, row, found));
    }
}

/// The figures of a group.
pub fn check_group(check: &mut Check, row: &Row, found: &GroupRow) {
    let counts = [
        ("size", found.size),
        ("all_zero_rows", found.all_zero_rows),
        ("all_one_rows", found.all_one_rows),
        ("distinct_patterns", found.distinct_patterns),
        ("repeated_patterns", found.repeated_patterns),
    ];
    counts.into_iter().for_each(|(key, count)| check.same(row, key, count));
    let floats = [
        ("mean_pairwise_hamming", found.mean_pairwise_hamming),
        ("pattern_entropy", found.pattern_entropy),
        ("density", found.density),
        ("null_zero_rows", found.null_zero_rows),
        ("null_one_rows", found.null_one_rows),
        ("null_distinct_patterns", found.null_distinct_patterns),
        ("null_pattern_entropy", found.null_pattern_entropy),
        ("upstream_mean_with_diagonal", found.upstream_mean_with_diagonal),
    ];
    floats.into_iter().for_each(|(key, value)| check.near(row, key, value, COUNTED));
}

fn key(row: &Row) -> String {
    ["source", "component", "feature_axis", "mode", "method", "group_size"].map(|key| row[key].clone()).join(" ")
}

fn by_key(rows: Vec<Row>) -> HashMap<String, Vec<Row>> {
    let mut found: HashMap<String, Vec<Row>> = HashMap::new();
    rows.into_iter().for_each(|row| found.entry(key(&row)).or_default().push(row));
    found
}

#[test]
fn groups_members_and_distances() {
    let reference = Reference::open();
    let (groups, members) = (by_key(reference.csv("groups.csv")), by_key(reference.csv("group_members.csv")));
    let distances = by_key(reference.csv("distance_cdf.csv"));
    let mut check = Check::new("groups");
    for summary in reference.csv("group_summary.csv") {
        let mask = reference.mask(&summary["source"], &summary["component"], axis(&summary));
        let expected = &groups[&key(&summary)];
        let size = number(&summary, "group_size");
        let found = make(&mask, &summary, expected, size);
        let rows = group_rows(&mask, &found, size);
        assert_eq!(rows.len(), expected.len());
        for (row, found) in expected.iter().zip(&rows) {
            check.same(row, "group_index", found.group_index);
            check.same(row, "seed_feature", found.seed_feature);
            check.same(row, "complete", found.complete);
            check_group(&mut check, row, found);
        }
        if let Some(expected) = members.get(&key(&summary)) {
            let expected: Vec<usize> = expected.iter().map(|row| number(row, "feature")).collect();
            check.equal("members", &expected, &found.concat());
        }
        let totals = group_summary(&rows, mask.length());
        check.same(&summary, "groups", totals.groups);
        check.same(&summary, "rows_total", totals.rows_total);
        let floats = [
            ("zero_fraction", totals.zero_fraction),
            ("one_fraction", totals.one_fraction),
            ("null_zero_fraction", totals.null_zero_fraction),
            ("null_one_fraction", totals.null_one_fraction),
            ("mean_distance", totals.mean_distance),
        ];
        floats.into_iter().for_each(|(key, value)| check.near(&summary, key, value, COUNTED));
        if let Some(expected) = distances.get(&key(&summary)) {
            let found = distance_cdf(&mask, &found);
            assert_eq!(found.len(), expected.len());
            for (row, found) in expected.iter().zip(found) {
                check.same(row, "group_index", found.group_index.map_or(-1, |group| group as i64));
                check.near(row, "hamming", found.hamming, COUNTED);
                check.near(row, "cdf", found.cdf, COUNTED);
            }
        }
    }
}

/// The groups of a summary; seeds of sampled ones are those of the reference.
fn make(mask: &Mask, summary: &Row, expected: &[Row], size: usize) -> Vec<Vec<usize>> {
    let method = match summary["method"].as_str() {
        "greedy" => Partition::Greedy,
        "density" => Partition::Density,
        "identity" => Partition::Identity,
        _ => {
            let seeds: Vec<usize> = expected.iter().map(|row| number(row, "seed_feature")).collect();
            return sampled(mask, &seeds, size, true);
        }
    };
    partition(mask, size, method).unwrap()
}
