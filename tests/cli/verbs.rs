//! The verbs other than `run`, and what they and `run` agree on.

use crate::support::{Lab, ROOT, THREE_CELLS, list};
use serde_json::Value;
use std::path::Path;

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["id"].as_str().unwrap()).collect()
}

#[test]
fn plan_shows_what_run_then_does() {
    let lab = Lab::tiny(THREE_CELLS);
    let plan = || lab.run(["plan", "e.toml", "--output-format", "json"]).exits(0).json_lines();
    let planned = plan();
    assert!(!lab.path("results").exists(), "a plan writes nothing");
    assert!(planned.iter().all(|line| line["decision"] == "new" && line["runs"] == true && line["selected"] == true));
    assert!(planned.iter().all(|line| line["memory_bytes"].as_u64().unwrap() > 0));
    let run = lab.run(["run", "e.toml", "--output-format", "json"]).exits(0).json_lines();
    assert_eq!(run.last().unwrap()["event"], "done");
    let cells: Vec<Value> = run.into_iter().filter(|line| line["event"] == "cell").collect();
    assert_eq!(ids(&cells), ids(&planned));
    let same = |key: &str| cells.iter().zip(&planned).all(|(ran, planned)| ran[key] == planned[key]);
    assert!(same("cell") && same("setup"));
    let mut named = ids(&planned);
    named.sort();
    assert!(lab.cells().keys().eq(named));
    let again = plan();
    assert_eq!(ids(&again), ids(&planned));
    assert!(again.iter().all(|line| line["decision"] == "cached" && line["runs"] == false));
}

#[test]
fn plan_for_people() {
    let lab = Lab::tiny(THREE_CELLS);
    let plan = lab.run(["plan", "e.toml", "--only", "variant!=csr"]);
    plan.exits(0).says(&["3 cells, 2 to measure, at most about"]);
    plan.prints(&["cell", "do", "setup", "new", "Dense", "new", "Masked50", "magnitude", "not selected", "CSR50"]);
    assert_eq!(plan.stdout.lines().count(), 4);
}

#[test]
fn check_needs_no_model() {
    let lab = Lab::with(THREE_CELLS);
    lab.run(["check", "e.toml"]).exits(0).prints_nothing().says(&["e.toml: ok"]);
    lab.write("bad.toml", "name = 1");
    let both = lab.run(["check", "bad.toml", "e.toml"]);
    both.exits(2).says(&["wrong type of `name`", "--> bad.toml:1:8", "e.toml: ok"]);
    lab.run(["check", "e.toml", "-s", "prune.sparsity=5"]).exits(2);
    lab.run(["check", "e.toml", "nowhere.toml"]).exits(3);
}

#[test]
fn every_experiment_of_the_repository_is_right() {
    let files = list(&Path::new(ROOT).join("experiments"));
    let files: Vec<&str> =
        files.iter().map(|path| path.to_str().unwrap()).filter(|path| path.ends_with(".toml")).collect();
    assert!(!files.is_empty());
    let outcome = Lab::empty().run(["check"].into_iter().chain(files.iter().copied()));
    outcome.exits(0);
    assert_eq!(outcome.stderr.matches(": ok").count(), files.len(), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("warning"), "{}", outcome.stderr);
}

#[test]
fn report_makes_the_same_files_from_the_cells_alone() {
    let lab = Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "sparsity = [0.25, 0.5]"));
    let run = lab.run(["run", "e.toml"]);
    run.exits(0);
    let files = || ["tables", "plots"].map(|folder| lab.files(&format!("results/e/{folder}")));
    let before = files();
    assert!(before.iter().all(|files| !files.is_empty()));
    for folder in ["results/e/tables", "results/e/plots", "model"] {
        std::fs::remove_dir_all(lab.path(folder)).unwrap();
    }
    std::fs::remove_file(lab.path("e.toml")).unwrap();
    let report = lab.run(["report", "results/e"]);
    report.exits(0).says(&["tables and plots: results/e"]);
    assert_eq!(report.stdout, run.stdout);
    assert!(before == files());
}

#[test]
fn report_needs_no_plan() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    // Without a plan the cells are in the order of their names.
    let rows = || {
        let mut lines: Vec<String> = lab.read("results/e/tables/summary.csv").lines().map(Into::into).collect();
        lines.sort();
        lines
    };
    let before = rows();
    std::fs::remove_file(lab.path("results/e/plan.json")).unwrap();
    lab.run(["report", "results/e"]).exits(0);
    assert_eq!(rows(), before);
}

#[test]
fn list_names_what_a_file_can_use() {
    let lab = Lab::empty();
    for (what, words) in [
        ("methods", &["magnitude", "random", "wanda", "ria", "sparsegpt", "admm", "given"][..]),
        ("models", &["hf:ORG/NAME", "builtin:tiny-opt", "synthetic:opt-125m", "model_type opt", "model_type llama"]),
        ("metrics", &["structure", "agreement", "perplexity"]),
        ("variants", &["dense", "masked", "csr ", "bitmap", "csr32", "nm", "auto"]),
        ("backends", &["auto", "cuda", "ndarray", "flex"]),
    ] {
        let outcome = lab.run(["list", what]);
        assert_eq!(outcome.exits(0).stderr, "");
        for word in words {
            let named = outcome.stdout.lines().any(|line| line.starts_with(word));
            assert!(named, "`list {what}` lacks {word}:\n{}", outcome.stdout);
        }
    }
    lab.run(["list", "things"]).exits(2).says(&["methods", "models", "metrics", "variants", "backends"]);
}

#[test]
fn what_is_listed_is_known() {
    // Every variant takes this pattern.
    let lab = Lab::with(&THREE_CELLS.replace("sparsity = 0.5", "pattern = \"2:4\""));
    let names = |what: &str| -> Vec<String> {
        let outcome = lab.run(["list", what]);
        let first = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        outcome.exits(0).stdout.lines().skip(1).map(first).collect()
    };
    let models: Vec<String> =
        names("models").into_iter().filter(|name| name.contains(':') && !name.contains("NAME")).collect();
    let models = models.into_iter().filter(|name| !name.ends_with("DIR")).collect();
    for (names, key) in [
        (names("metrics"), "measure.metrics"),
        (names("tasks"), "tasks.names"),
        (names("variants"), "execute.variants"),
        (names("backends"), "device.backend"),
        (models, "model.source"),
    ] {
        assert!(names.len() > 2, "{key}: {names:?}");
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let all = format!("{key}=[{}]", quoted.join(", "));
        lab.run(["check", "e.toml", "-s", "tasks.names=\"piqa\"", "-s", &all]).exits(0);
    }
}

#[test]
fn schema_prints_each() {
    let lab = Lab::empty();
    let default = lab.run(["schema"]);
    default.exits(0);
    for name in ["experiment", "cell", "manifest", "events"] {
        let outcome = lab.run(["schema", name]);
        let schema: Value = serde_json::from_str(&outcome.exits(0).stdout).unwrap();
        assert!(["properties", "oneOf", "anyOf"].iter().any(|key| schema.get(key).is_some()), "{name}");
        assert_eq!(outcome.stdout == default.stdout, name == "experiment");
    }
}

#[test]
fn info_and_version() {
    let lab = Lab::empty();
    let version = env!("CARGO_PKG_VERSION");
    let lines = ["version", version, "processor", "gpus", "backend auto", "hub cache", "LAB", "hub offline", "true"];
    lab.run(["info"]).exits(0).prints(&lines);
    let cached = lab.outcome(lab.command(["info"]).env("XDG_CACHE_HOME", "/scratch").output().unwrap());
    cached.exits(0).prints(&["kernel cache  /scratch/sparsify-exp"]);
    let said = lab.run(["--version"]).exits(0).stdout.clone();
    assert!(said.starts_with(&format!("sparsify-exp {version} (")) && said.contains("features: "), "{said}");
}

#[test]
fn help_tells_every_verb_and_flag() {
    let lab = Lab::empty();
    lab.run(["--help"]).exits(0).prints(&["run", "plan", "check", "report", "export", "list", "schema", "info"]);
    let help = lab.run(["run", "--help"]);
    for flag in [
        "-s",
        "--only",
        "--partition",
        "--rerun",
        "--fail-fast",
        "--offline",
        "--limit",
        "--results",
        "--output-format",
    ] {
        help.exits(0).prints(&[flag]);
    }
}
