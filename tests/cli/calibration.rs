//! Methods that look at the inputs of layers.

use crate::support::Lab;
use serde_json::Value;

const GRID: &str = "name = \"e\"\nseed = 3\n[model]\nsource = \"builtin:tiny-opt\"\n\
    [data]\ncontext = 64\nperplexity_windows = 2\ncalibration_samples = 4\n[measure]\nmetrics = [\"structure\", \"agreement\", \"perplexity\"]\n\
    [execute]\nvariants = [\"masked\", \"csr\"]\n\
    [[prune]]\nmethod = [\"wanda\", \"sparsegpt\"]\nsparsity = [0.4, 0.6]\n\
    [[prune]]\nmethod = \"magnitude\"\nsparsity = 0.5\n";

#[test]
fn calibrated_points_run_in_every_form_and_once() {
    let lab = Lab::with(GRID);
    lab.run(["run", "e.toml"]).exits(0).says(&["10 cells measured, 0 cached, 0 failed"]);
    let rows = lab.table("results/e/tables/summary.csv");
    for row in &rows {
        let what = format!("{row:?}");
        let calibrated = row["method"] != "magnitude";
        assert_eq!(row["seed"], if calibrated { "3" } else { "" }, "{what}");
        assert!(row["perplexity"].parse::<f64>().unwrap() > 1.0, "{what}");
    }
    // The two forms of a point compute the same model, as the gate made sure; nothing but rounding differs.
    let column = |row: usize, name: &str| rows[row][name].parse::<f64>().unwrap();
    for pair in (0..rows.len()).step_by(2) {
        let (masked, csr) = (column(pair, "perplexity"), column(pair + 1, "perplexity"));
        assert!((masked / csr - 1.0).abs() < 1e-4, "{masked} {csr}");
    }
    let has_gate =
        |cell: &Value| cell["results"].as_array().unwrap().iter().any(|part| part["result"]["gate"].is_object());
    let gates = lab.cells().values().filter(|cell| has_gate(cell)).count();
    assert_eq!(gates, 5);
    for cell in lab.cells().into_values() {
        let calibrated = cell["cell"]["prune"]["method"] != "magnitude";
        assert_eq!(cell["timings"]["calibrate_seconds"].is_number(), calibrated);
        assert!(cell["timings"]["prune_seconds"].is_number());
        assert_eq!(cell["inputs"]["calibration"]["sha256"].is_string(), calibrated);
    }
    let before = lab.files("results/e/cells");
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured, 10 cached, 0 failed"]);
    assert!(lab.files("results/e/cells") == before);
}

#[test]
fn what_is_calibrated_beside_a_point_does_not_matter() {
    let together = Lab::with(GRID);
    together.run(["run", "e.toml"]).exits(0);
    let one_by_one = Lab::with(GRID);
    for only in ["method=wanda,sparsity=0.6", "method=sparsegpt,sparsity=0.4", "method=sparsegpt", "method=wanda"] {
        one_by_one.run(["run", "e.toml", "--only", only]).exits(0);
    }
    // Reports on the way had plots of fewer setups.
    std::fs::remove_dir_all(one_by_one.path("results/e/plots")).unwrap();
    one_by_one.run(["run", "e.toml"]).exits(0);
    assert!(together.stable_report() == one_by_one.stable_report());
}

/// The grid of one method with some calibrations.
fn calibrations(keys: &str) -> String {
    GRID.replace("calibration_samples = 4", keys)
        .replace("[\"wanda\", \"sparsegpt\"]", "\"wanda\"")
        .replace("[0.4, 0.6]", "0.5")
}

#[test]
fn calibrations_are_an_axis_and_cells_keep_their_names() {
    let lab = Lab::with(&calibrations("calibration_samples = 4\ncalibration_length = 16"));
    lab.run(["run", "e.toml"]).exits(0).says(&["4 cells measured"]);
    let before = lab.files("results/e/cells");
    assert!(!lab.read("results/e/tables/summary.csv").contains("calibration_samples"));
    lab.write("texts.txt", lab.read("e.toml").repeat(40));
    let keys = "calibration = [\"builtin:calibration\", \"file:texts.txt\"]\ncalibration_samples = [4, 2]\n\
                calibration_length = { from = 16, to = 32, step = 16 }";
    lab.write("e.toml", calibrations(keys));
    // Two forms of eight calibrations, and of magnitude, which has none; those of before are found again.
    let outcome = lab.run(["run", "e.toml"]);
    outcome.exits(0).says(&["14 cells measured, 4 cached, 0 failed"]);
    let after = lab.files("results/e/cells");
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
    let rows = lab.table("results/e/tables/summary.csv");
    let of = |text: &str, samples: &str, length: &str| {
        let row = rows.iter().find(|row| {
            row["variant"] == "masked"
                && (
                    row["calibration"].as_str(),
                    row["calibration_samples"].as_str(),
                    row["calibration_length"].as_str(),
                ) == (text, samples, length)
        });
        row.unwrap_or_else(|| panic!("{text} {samples} {length}"))["perplexity"].clone()
    };
    let mut all = Vec::new();
    for text in ["builtin:calibration", "file:texts.txt"] {
        for (samples, length) in [("4", "16"), ("2", "16"), ("4", "32"), ("2", "32")] {
            all.push(of(text, samples, length));
        }
    }
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), 8, "{all:?}");
    assert!(rows.iter().filter(|row| row["method"] == "magnitude").all(|row| row["calibration"].is_empty()));
    // No mean is taken over calibrations, and a condition tells them apart.
    assert_eq!(lab.table("results/e/tables/spread.csv").len(), 18);
    lab.run(["run", "e.toml", "--only", "calibration_samples=2,calibration_length>16"])
        .exits(0)
        .says(&["0 cells measured, 4 cached"]);
    lab.run(["plan", "e.toml", "--only", "calibration_samples=3"]).exits(4);
    // Each alone gives the same numbers as among the others.
    let alone = Lab::with(&calibrations("calibration_samples = 2\ncalibration_length = 32"));
    alone.run(["run", "e.toml"]).exits(0);
    let row = &alone.table("results/e/tables/summary.csv")[0];
    assert_eq!((row["method"].as_str(), &row["perplexity"]), ("wanda", &of("builtin:calibration", "2", "32")));
}

#[test]
fn a_point_that_can_not_be_pruned_fails_alone() {
    let lab = Lab::with(&GRID.replace("sparsity = [0.4, 0.6]", "pattern = [\"2:5\", \"2:4\"]"));
    lab.run(["run", "e.toml"]).exits(100).says(&["10 cells measured, 0 cached, 4 failed"]);
    for cell in lab.cells().into_values() {
        let failed = cell["cell"]["prune"]["pattern"] == "2:5";
        assert_eq!(cell["failure"].is_object(), failed, "{cell}");
        assert!(!failed || cell["failure"]["kind"] == "pruning", "{cell}");
    }
}
