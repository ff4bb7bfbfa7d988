//! A table that the repository keeps, computed again.

use crate::support::{Lab, ROOT};
use std::collections::BTreeMap;
use std::path::Path;

/// How far a value may be from the kept one, relative to it: the order of additions differs between processors, and
/// with it the last bits of logits. Everything else must be equal, letter by letter.
const TOLERANCES: [(&str, f64); 5] =
    [("kl_nats", 1e-4), ("perplexity", 1e-4), ("gate_max_logit", 1e-4), ("top1_match", 0.01), ("top5_overlap", 0.01)];

/// What is not compared: a rounding error, and the names of cells, which follow from the inputs' digests and change
/// whenever more of them is named.
const OTHER: [&str; 2] = ["gate_max_abs", "cell"];

#[test]
fn the_first_experiment_gives_the_table_that_is_kept() {
    let root = Path::new(ROOT);
    let kept = root.join("results/reference/s1/tables/summary.csv");
    let kept: Vec<BTreeMap<String, String>> =
        csv::Reader::from_path(kept).unwrap().deserialize().map(|row| row.unwrap()).collect();
    assert_eq!(kept.len(), 7);
    let lab = Lab::empty();
    let file = root.join("experiments/s1.toml");
    lab.run(["run", file.to_str().unwrap(), "-s", "device.backend=flex"]).exits(0);
    let now = lab.table("results/s1/tables/summary.csv");
    assert_eq!(now.len(), kept.len());
    let mut wrong = Vec::new();
    for (now, kept) in now.iter().zip(&kept) {
        for (column, kept_value) in kept.iter().filter(|(column, _)| !OTHER.contains(&column.as_str())) {
            let tolerance = TOLERANCES.iter().find(|(name, _)| name == column).map(|(_, tolerance)| *tolerance);
            if !near(&now[column], kept_value, tolerance) {
                wrong.push(format!("{}: {column} is {}, kept is {kept_value}", kept["setup"], now[column]));
            }
        }
        assert_eq!(now["gate_max_abs"].is_empty(), kept["gate_max_abs"].is_empty());
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn near(now: &str, kept: &str, tolerance: Option<f64>) -> bool {
    match (now.parse::<f64>(), kept.parse::<f64>(), tolerance) {
        (Ok(now), Ok(kept), Some(tolerance)) => (now - kept).abs() <= tolerance * kept.abs(),
        _ => now == kept,
    }
}

#[test]
fn what_differs_is_seen() {
    assert!(near("1.00001", "1", Some(1e-4)) && !near("1.001", "1", Some(1e-4)));
    assert!(!near("2227198", "2227199", None) && near("csr", "csr", None) && !near("", "1", Some(0.1)));
}
