//! What is kept, what is measured again, and what becomes of a run that is stopped or shared.

use crate::support::{Lab, Outcome, THREE_CELLS};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Child;

/// Forty cells of a few milliseconds each.
fn many_quick_cells() -> Lab {
    let sparsities: Vec<String> = (1..=20).map(|i| (f64::from(i) / 40.0).to_string()).collect();
    let text = format!("[{}]\n[execute]\nvariants = [\"masked\", \"csr\"]\n", sparsities.join(", "));
    Lab::tiny(&THREE_CELLS.replace("0.5\n", &text))
}

/// This many cells, slow enough to be interrupted.
const SLOW_CELLS: usize = 24;

fn many_slow_cells() -> Lab {
    let sparsities: Vec<String> = (1..=SLOW_CELLS / 2).map(|i| (i as f64 / 20.0).to_string()).collect();
    Lab::with(&format!(
        "name = \"e\"\n[model]\nsource = \"builtin:tiny-opt\"\n[data]\ncontext = 16\n[measure]\nmetrics = [\"structure\"]\n\
         [[prune]]\nmethod = \"magnitude\"\nsparsity = [{}]\n[execute]\nvariants = [\"masked\", \"csr\"]\n",
        sparsities.join(", ")
    ))
}

fn two_patterns_one_of_which_fails() -> Lab {
    Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "pattern = [\"2:3\", \"2:4\"]"))
}

/// Setup and decision of every cell, as `plan` says.
fn decisions(lab: &Lab, args: &[&str]) -> Vec<String> {
    let outcome = lab.run(["plan", "e.toml", "--output-format", "json"].into_iter().chain(args.iter().copied()));
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = outcome.exits(0).json_lines();
    lines.iter().map(|line| format!("{} {}", word(line, "setup"), word(line, "decision"))).collect()
}

fn cell_files(lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    lab.files("results/e/cells")
}

#[test]
fn a_second_run_measures_nothing_and_changes_nothing() {
    let lab = Lab::tiny(THREE_CELLS);
    let first = lab.run(["run", "e.toml"]);
    first.exits(0).says(&["3 cells measured, 0 cached, 0 failed: results/e"]);
    // All files but those that say when the program ran.
    let files = || {
        let mut files = lab.files("results/e");
        files.retain(|name, _| !name.starts_with("runs/") && name != "manifest.json" && name != "report.html");
        files
    };
    let before = files();
    let second = lab.run(["run", "e.toml"]);
    second.exits(0).says(&["0 cells measured, 3 cached, 0 failed: results/e"]);
    assert_eq!(first.stdout, second.stdout);
    assert!(before.len() > 20 && before == files());
    assert_eq!(lab.files("results/e/runs").len(), 2);
    assert_eq!(lab.read("results/e/experiment.toml"), THREE_CELLS);
}

#[test]
fn a_changed_parameter_makes_new_cells_and_keeps_the_others() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    let before = cell_files(&lab);
    lab.run(["run", "e.toml", "-s", "prune.sparsity=[0.5, 0.25]"]).exits(0).says(&["2 cells measured, 3 cached"]);
    let after = cell_files(&lab);
    assert_eq!(after.len(), 5);
    assert!(before.iter().all(|(name, bytes)| after[name] == *bytes));
    // Back to the file as it is: nothing to do, and the tables show its cells alone.
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured, 3 cached"]);
    assert_eq!(lab.table("results/e/tables/summary.csv").len(), 3);
    assert!(cell_files(&lab) == after);
}

#[test]
fn names_and_paths_make_no_new_cells_but_contents_do() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    std::fs::rename(lab.path("model"), lab.path("renamed")).unwrap();
    std::fs::rename(lab.path("texts.txt"), lab.path("other.txt")).unwrap();
    let moved = ["-s", "model.source=path:renamed", "-s", "data.agreement=file:other.txt", "-s", "title=x"];
    assert_eq!(decisions(&lab, &moved), ["Dense cached", "Masked50 cached", "CSR50 cached"]);
    lab.write("other.txt", "the dog\n");
    assert_eq!(decisions(&lab, &moved), ["Dense add", "Masked50 add", "CSR50 add"]);
    lab.run(["plan", "e.toml"].into_iter().chain(moved))
        .exits(0)
        .says(&["and 2 more add: agreement file:texts.txt -> file:other.txt"]);
}

#[test]
fn rerun_says_which_cells_are_measured_again() {
    let lab = two_patterns_one_of_which_fails();
    lab.run(["run", "e.toml"]).exits(100);
    let (stale, mut cell) = lab.cells().into_iter().find(|(_, cell)| cell["cell"]["variant"] == "dense").unwrap();
    for part in cell["results"].as_array_mut().unwrap() {
        part["program"]["version"] = "0.0.1".into();
    }
    lab.write_cell(&stale, cell);

    for (rerun, dense, bad, good) in [
        ("none", "stale", "failed", "cached"),
        ("failed", "stale", "retry", "cached"),
        ("stale", "rerun", "retry", "cached"),
        ("all", "rerun", "rerun", "rerun"),
    ] {
        let cells = [("Dense", dense), ("Masked2:3", bad), ("CSR2:3", bad), ("Masked2:4", good), ("CSR2:4", good)];
        let expected = cells.map(|(setup, word)| format!("{setup} {word}"));
        assert_eq!(decisions(&lab, &["--rerun", rerun]), expected, "--rerun {rerun}");
    }
    let plan = lab.run(["plan", "e.toml"]);
    plan.exits(0).says(&[&stale, "stale: made by 0.0.1", "`--rerun stale` measures it again"]);

    // `run` does what `plan` says.
    let before = cell_files(&lab);
    lab.run(["run", "e.toml", "--rerun", "none"]).exits(100).says(&["0 cells measured, 5 cached, 2 failed"]);
    assert!(cell_files(&lab) == before);
    lab.run(["run", "e.toml"]).exits(100).says(&["2 cells measured, 3 cached, 2 failed"]);
    lab.run(["run", "e.toml", "--rerun", "stale"]).exits(100).says(&["3 cells measured, 2 cached, 2 failed"]);
    let versions = lab.cells()[&stale]["results"].as_array().unwrap().clone();
    assert!(versions.iter().all(|part| part["program"]["version"] != "0.0.1"));
    lab.run(["run", "e.toml", "--rerun", "all"]).exits(100).says(&["5 cells measured, 0 cached, 2 failed"]);
}

#[test]
fn a_damaged_cell_is_measured_again() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    let (report, id) = (lab.stable_report(), lab.cells().into_keys().next().unwrap());
    for damaged in ["", "{\"format\": 1,", "{}", "null"] {
        lab.write(&format!("results/e/cells/{id}.json"), damaged);
        let plan = lab.run(["plan", "e.toml"]);
        plan.exits(0).prints(&[&id, "retry"]);
        plan.says(&[&id, "retry: ", "is damaged or of another version of the program"]);
        lab.run(["run", "e.toml"]).exits(0).says(&["1 cell measured, 2 cached, 0 failed"]);
        assert!(lab.stable_report() == report);
    }
}

/// The cell of a variant: name and content.
fn cell_of(lab: &Lab, variant: &str) -> (String, Value) {
    lab.cells().into_iter().find(|(_, cell)| cell["cell"]["variant"] == variant).unwrap()
}

#[test]
fn a_cell_that_is_not_what_was_written_is_measured_again() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    let (report, (id, masked), (other, csr)) = (lab.stable_report(), cell_of(&lab, "masked"), cell_of(&lab, "csr"));
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut cell = masked.clone();
        change(&mut cell);
        cell
    };
    let mut untouched = masked.clone();
    untouched.as_object_mut().unwrap().shift_remove("digest");
    // With the digest that the file had, and with one that fits the content.
    let as_found = [
        (csr.clone(), format!("is the file of cell `{other}`")),
        (changed(&|cell| cell["format"] = 999.into()), "has the format 999, and this program reads 2".into()),
        (changed(&|cell| cell["format"] = 1.into()), "has the format 1, and this program reads 2".into()),
        (changed(&|cell| cell["id"] = "0123456789abcdef".into()), "was changed after it was written".into()),
        (changed(&|cell| cell["cell"]["model"] = "path:other".into()), "was changed after it was written".into()),
        (changed(&|cell| cell["cell"]["prune"]["sparsity"] = 0.25.into()), "was changed after it was written".into()),
        (changed(&|cell| cell["timings"]["load_seconds"] = 7.5.into()), "was changed after it was written".into()),
        (
            changed(&|cell| cell["results"][0]["result"]["structure"]["dense_nonzero"] = 7.into()),
            "was changed after it was written".into(),
        ),
        (untouched, "was changed after it was written".into()),
    ];
    let sealed = [
        (csr, format!("is the file of cell `{other}`")),
        (changed(&|cell| cell["id"] = "0123456789abcdef".into()), "is the file of cell `0123456789abcdef`".into()),
        (changed(&|cell| cell["cell"]["variant"] = "csr".into()), "says that another cell was run".into()),
        (changed(&|cell| cell["cell"]["kind"] = "kernel".into()), "is damaged or of another version".into()),
        (
            changed(&|cell| cell["results"][1]["inputs"]["agreement"]["sha256"] = "00".into()),
            "says that another cell was run".into(),
        ),
        (changed(&|cell| cell["cell"]["prune"]["sparsity"] = 0.25.into()), "says that another cell was run".into()),
    ];
    let as_found = as_found.map(|(cell, why)| (false, cell, why));
    for (seal, cell, why) in as_found.into_iter().chain(sealed.map(|(cell, why)| (true, cell, why))) {
        match seal {
            true => lab.write_cell(&id, cell),
            false => lab.write(&format!("results/e/cells/{id}.json"), format!("{cell:#}")),
        }
        assert_eq!(decisions(&lab, &[]), ["Dense cached", "Masked50 retry", "CSR50 cached"], "{why}");
        lab.run(["plan", "e.toml"]).exits(0).says(&[&id, "retry: ", &why]);
        // A report leaves it out, with the plan and without.
        lab.run(["report", "results/e"]).exits(0).says(&["warning: ", &id, &why]);
        assert_eq!(lab.table("results/e/tables/summary.csv").len(), 2, "{why}");
        let plan = lab.read("results/e/plan.json");
        std::fs::remove_file(lab.path("results/e/plan.json")).unwrap();
        lab.run(["report", "results/e"]).exits(0).says(&["warning: ", &id, &why]);
        assert_eq!(lab.table("results/e/tables/summary.csv").len(), 2, "{why}");
        lab.write("results/e/plan.json", plan);
        lab.run(["run", "e.toml"]).exits(0).says(&["1 cell measured, 2 cached, 0 failed"]);
        assert!(lab.stable_report() == report, "{why}");
    }
}

#[test]
fn white_space_makes_no_other_cell() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    for (id, cell) in lab.cells() {
        lab.write(&format!("results/e/cells/{id}.json"), cell.to_string());
    }
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured, 3 cached"]);
}

#[test]
fn limit_and_only_select() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml", "--limit", "2"]).exits(0).says(&["2 cells measured, 0 cached, 0 failed, 1 still to do"]);
    assert_eq!(lab.cells().len(), 2);
    let plan = lab.run(["plan", "e.toml", "--only", "variant=dense"]);
    plan.exits(0).prints(&["cached", "Dense"]).says(&["3 cells, 0 to measure"]);
    lab.run(["run", "e.toml", "--only", "variant=dense"]).exits(0).says(&["0 cells measured, 1 cached"]);
    let either = ["run", "e.toml", "--only", "variant=csr", "--only", "sparsity<0.2"];
    lab.run(either).exits(0).says(&["1 cell measured, 0 cached"]);
    assert_eq!(lab.cells().len(), 3);
}

#[test]
fn fail_fast_stops_at_the_first_failed_cell() {
    let lab = two_patterns_one_of_which_fails();
    let outcome = lab.run(["run", "e.toml", "--fail-fast"]);
    outcome.exits(100).says(&["2 cells measured, 0 cached, 1 failed, 3 still to do"]);
    lab.run(["run", "e.toml"]).exits(100).says(&["4 cells measured, 1 cached, 2 failed"]);
}

/// Three cells that can measure perplexity, too.
const WITH_TEXT: &str = r#"name = "e"
[model]
source = "path:model"
[data]
agreement = "file:texts.txt"
perplexity = "file:texts.txt"
perplexity_windows = 1
context = 4
[measure]
metrics = ["structure", "agreement"]
[[prune]]
method = "magnitude"
sparsity = 0.5
"#;
const PERPLEXITY: [&str; 2] = ["-s", "measure.metrics=[\"structure\", \"agreement\", \"perplexity\"]"];

fn run(lab: &Lab, args: &[&str]) -> Outcome {
    lab.run(["run", "e.toml"].into_iter().chain(args.iter().copied()))
}

fn plan(lab: &Lab, args: &[&str]) -> Outcome {
    lab.run(["plan", "e.toml"].into_iter().chain(args.iter().copied()))
}

/// The groups that a plan measures, of each cell.
fn due(lab: &Lab, args: &[&str]) -> Vec<String> {
    let lines = plan(lab, &[args, &["--output-format", "json"]].concat()).exits(0).json_lines();
    let words = |line: &Value| {
        let groups = line["due"].as_array().unwrap();
        groups.iter().map(|group| group.as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    lines.iter().map(words).collect()
}

/// What the cells have of a group: name, numbers, and when they were measured.
fn of_group(lab: &Lab, group: &str) -> Vec<Value> {
    let parts = lab.cells().into_values().flat_map(|cell| cell["results"].as_array().unwrap().clone());
    parts.filter(|part| part["result"].get(group).is_some()).collect()
}

#[test]
fn a_metric_that_is_added_is_measured_alone() {
    let lab = Lab::tiny(WITH_TEXT);
    run(&lab, &[]).exits(0);
    let known = || ["structure", "agreement"].map(|group| of_group(&lab, group));
    let (before, report) = (known(), lab.stable_report());
    assert_eq!(decisions(&lab, &PERPLEXITY), ["Dense add", "Masked50 add", "CSR50 add"]);
    assert_eq!(due(&lab, &PERPLEXITY), ["perplexity"; 3]);
    plan(&lab, &PERPLEXITY)
        .exits(0)
        .says(&[" and 2 more add: perplexity is not measured yet", "3 cells, 3 to measure"]);
    run(&lab, &PERPLEXITY).exits(0).says(&["3 cells measured, 0 cached, 0 failed"]);
    assert!(known() == before, "what was known was measured again");
    assert_eq!(of_group(&lab, "perplexity").len(), 3);
    assert_eq!(decisions(&lab, &PERPLEXITY), ["Dense cached", "Masked50 cached", "CSR50 cached"]);
    // As if all had been measured at once, and the other way round.
    let at_once = Lab::tiny(WITH_TEXT);
    run(&at_once, &PERPLEXITY).exits(0);
    assert!(at_once.stable_report() == lab.stable_report());
    run(&at_once, &[]).exits(0).says(&["0 cells measured, 3 cached"]);
    run(&lab, &[]).exits(0).says(&["0 cells measured, 3 cached"]);
    assert!(lab.stable_report() == report && at_once.stable_report() == report);
}

#[test]
fn more_windows_measure_perplexity_alone() {
    let lab = Lab::tiny(WITH_TEXT);
    let more = [&PERPLEXITY[..], &["-s", "data.perplexity_windows=2"]].concat();
    run(&lab, &PERPLEXITY).exits(0);
    let report = lab.stable_report();
    assert_eq!(due(&lab, &more), ["perplexity"; 3]);
    plan(&lab, &more).exits(0).says(&[" and 2 more add: perplexity_windows 1 -> 2"]);
    run(&lab, &more).exits(0).says(&["3 cells measured"]);
    assert!(lab.stable_report() != report);
    // Both are kept, so that going back measures nothing.
    assert_eq!(of_group(&lab, "perplexity").len(), 6);
    run(&lab, &PERPLEXITY).exits(0).says(&["0 cells measured, 3 cached"]);
    assert!(lab.stable_report() == report);
    // What decides stands in words beside the digest.
    let settings: Vec<Value> =
        of_group(&lab, "perplexity").iter().map(|part| part["inputs"]["perplexity"]["windows"].clone()).collect();
    assert_eq!(settings, [1, 2, 1, 2, 1, 2]);
    assert!(of_group(&lab, "perplexity").iter().all(|part| part["inputs"]["perplexity"]["context"] == 4));
}

#[test]
fn another_agreement_text_matters_only_where_agreement_is_measured() {
    let lab = Lab::tiny(WITH_TEXT);
    lab.write("other.txt", "the dog\n");
    let (only, other) = (["-s", "measure.metrics=\"perplexity\""], ["-s", "data.agreement=file:other.txt"]);
    run(&lab, &only).exits(0).says(&["3 cells measured"]);
    run(&lab, &[only, other].concat()).exits(0).says(&["0 cells measured, 3 cached"]);
    assert_eq!(due(&lab, &other), ["agreement"; 3]);
    run(&lab, &[]).exits(0).says(&["3 cells measured"]);
    plan(&lab, &other).exits(0).says(&["add: agreement file:texts.txt -> file:other.txt"]);
}

#[test]
fn a_failed_addition_leaves_what_is_known() {
    let lab = Lab::tiny(WITH_TEXT);
    run(&lab, &[]).exits(0);
    let (id, mut cell) = cell_of(&lab, "masked");
    let parts: Vec<Value> = plan(&lab, &[&PERPLEXITY[..], &["--output-format", "json"]].concat()).exits(0).json_lines();
    let part = parts.iter().find(|line| line["id"] == id.as_str()).unwrap()["parts"]["perplexity"].clone();
    cell["failure"] = serde_json::json!({ "kind": "other", "message": "no memory", "gate": null, "parts": [part] });
    lab.write_cell(&id, cell);
    // The failure is of no concern to those who do not want what failed.
    assert_eq!(decisions(&lab, &[]), ["Dense cached", "Masked50 cached", "CSR50 cached"]);
    assert_eq!(decisions(&lab, &PERPLEXITY), ["Dense add", "Masked50 retry", "CSR50 add"]);
    let none = [&PERPLEXITY[..], &["--rerun", "none"]].concat();
    assert_eq!(decisions(&lab, &none), ["Dense add", "Masked50 failed", "CSR50 add"]);
    run(&lab, &none).exits(100).says(&["2 cells measured, 1 cached, 1 failed"]);
    let rows = lab.table("results/e/tables/summary.csv");
    let masked = rows.iter().find(|row| row["variant"] == "masked").unwrap();
    assert!(masked["perplexity"].is_empty() && !masked["top1_match"].is_empty());
    assert_eq!(due(&lab, &PERPLEXITY), ["", "perplexity", ""]);
    run(&lab, &PERPLEXITY).exits(0).says(&["1 cell measured, 2 cached, 0 failed"]);
}

/// `results/f` with the same cells as `results/e`.
fn with_sibling(lab: &Lab) {
    lab.write("f.toml", WITH_TEXT.replace("name = \"e\"", "name = \"f\""));
    lab.run(["run", "f.toml"]).exits(0);
}

#[test]
fn what_another_experiment_has_measured_is_copied() {
    let lab = Lab::tiny(WITH_TEXT);
    with_sibling(&lab);
    assert_eq!(decisions(&lab, &[]), ["Dense copy", "Masked50 copy", "CSR50 copy"]);
    plan(&lab, &[]).exits(0).says(&[" and 2 more copy: measured in `f`", "3 cells, 0 to measure"]);
    assert!(!lab.path("results/e").exists(), "a plan writes nothing");
    let outcome = run(&lab, &["--output-format", "json"]);
    outcome.exits(0).says(&["0 cells measured, 3 cached (3 of them copied from other experiments), 0 failed"]);
    let events = outcome.json_lines();
    let cells: Vec<&Value> = events.iter().filter(|event| event["event"] == "cell").collect();
    assert!(cells.iter().all(|event| event["cached"] == true && event["measured"]["agreement"].is_object()));
    assert_eq!(cells.len(), 3);
    assert!(of_group(&lab, "gate").len() == 1 && of_group(&lab, "structure").len() == 3);
    assert!(of_group(&lab, "structure").iter().all(|part| part["origin"] == "f"));
    let tables = |name: &str| lab.read(format!("results/{name}/tables/summary.csv"));
    assert_eq!(tables("e"), tables("f"));
    run(&lab, &[]).exits(0).says(&["0 cells measured, 3 cached, 0 failed"]);
}

#[test]
fn only_what_is_wanted_known_and_believed_is_copied() {
    let lab = Lab::tiny(WITH_TEXT);
    with_sibling(&lab);
    // What it has not measured is measured here, and no more than that.
    assert_eq!(due(&lab, &PERPLEXITY), ["perplexity"; 3]);
    run(&lab, &PERPLEXITY).exits(0).says(&["3 cells measured, 0 cached"]);
    assert!(of_group(&lab, "agreement").iter().all(|part| part["origin"] == "f"));
    assert!(of_group(&lab, "perplexity").iter().all(|part| part.get("origin").is_none()));
    // Asked to measure, it measures.
    run(&lab, &["--rerun", "all"]).exits(0).says(&["3 cells measured, 0 cached, 0 failed"]);
    assert!(of_group(&lab, "agreement").iter().all(|part| part.get("origin").is_none()));
    // An edited cell is believed nowhere, and what another program measured is measured by this one.
    std::fs::remove_dir_all(lab.path("results/e")).unwrap();
    for (name, bytes) in lab.files("results/f/cells") {
        let text = String::from_utf8(bytes).unwrap();
        let edited = match text.contains("\"variant\": \"masked\"") {
            true => text.replace("\"dense_nonzero\": ", "\"dense_nonzero\": 1"),
            false => text,
        };
        lab.write(&format!("results/f/cells/{name}"), edited);
    }
    assert_eq!(decisions(&lab, &[]), ["Dense copy", "Masked50 new", "CSR50 copy"]);
    run(&lab, &[]).exits(0).says(&["1 cell measured, 2 cached (2 of them copied from other experiments)"]);
}

#[test]
fn a_plan_says_why_cells_are_new_and_what_lies_unused() {
    let lab = Lab::tiny(WITH_TEXT);
    lab.run(["run", "e.toml"]).exits(0);
    let plan = |args: &[&str]| plan(&lab, args);
    let fewer = ["-s", "prune.sparsity=0.25"];
    plan(&fewer)
        .exits(0)
        .says(&["and 1 more new: sparsity 0.5 -> 0.25", "; 2 cells of earlier settings in the folder"]);
    assert!(!plan(&[]).exits(0).stderr.contains("earlier settings"));
    let wanda = |length: &'static str| {
        [
            "-s",
            "prune.method=wanda",
            "-s",
            "data.calibration=file:texts.txt",
            "-s",
            "data.calibration_samples=2",
            "-s",
            length,
        ]
    };
    let (long, short) = (wanda("data.calibration_length=4"), wanda("data.calibration_length=3"));
    run(&lab, &long).exits(0).says(&["2 cells measured, 1 cached"]);
    plan(&short).exits(0).says(&["and 1 more new: calibration_length 4 -> 3", "; 4 cells of earlier settings"]);
    let other = [&long[..], &["-s", "prune.propagate=dense"]].concat();
    plan(&other).exits(0).says(&["and 1 more new: propagate pruned -> dense"]);
    // The same words, other tokens.
    lab.write("texts.txt", "a cat sat on the mat\nthe dog ran\n");
    plan(&long).exits(0).says(&["new: the content of calibration has changed"]);
    let cell = lab.cells().into_values().find(|cell| cell["cell"]["prune"]["method"] == "wanda").unwrap();
    let read = &cell["inputs"]["calibration"];
    assert_eq!((&read["length"], &read["samples"], &read["text"]), (&4.into(), &2.into(), &"file:texts.txt".into()));
}

#[test]
fn a_plan_of_another_format_is_told() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    let plan = lab.read("results/e/plan.json");
    lab.write("results/e/plan.json", plan.replace("\"format\": 2", "\"format\": 1"));
    lab.run(["report", "results/e"])
        .exits(1)
        .says(&["results/e/plan.json` has the format 1, and this program reads 2"]);
    // What the plan calls a cell must be what was run.
    lab.write("results/e/plan.json", plan.replace("\"variant\": \"masked\"", "\"variant\": \"bitmap\""));
    lab.run(["report", "results/e"]).exits(0).says(&["warning: ", "plan.json` says something else of `"]);
    assert_eq!(lab.table("results/e/tables/summary.csv").len(), 2);
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured, 3 cached"]);
}

fn finished(lab: &Lab, child: Child) -> Outcome {
    lab.outcome(child.wait_with_output().unwrap())
}

/// Starts a run and stops it by a signal once `cells` cells are there.
#[cfg(unix)]
fn stopped(lab: &Lab, signal: &str, cells: usize) -> Outcome {
    let mut child = lab.command(["run", "e.toml"]).spawn().unwrap();
    while lab.cells().len() < cells {
        assert!(child.try_wait().unwrap().is_none(), "the run was over before it could be stopped");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let kill = std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
    assert!(kill.unwrap().success());
    finished(lab, child)
}

#[test]
#[cfg(unix)]
fn a_run_that_is_stopped_again_and_again_ends_as_if_it_had_not_been() {
    let (lab, undisturbed) = (many_slow_cells(), many_slow_cells());
    let mut kept = 0;
    for (signal, code) in [("KILL", None), ("INT", Some(130)), ("TERM", Some(143))] {
        let outcome = stopped(&lab, signal, kept + 3);
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        let said = outcome.stderr.matches("interrupted: run again to continue").count();
        assert_eq!(said, usize::from(code.is_some()), "{}", outcome.stderr);
        // `cells` fails the test if one is half written. A cell is announced once it is in its file.
        let cells = lab.cells().len();
        let announced = outcome.stderr.lines().filter(|line| line.starts_with('[')).count();
        assert!((kept + announced..=kept + announced + 1).contains(&cells), "{cells}, {kept} + {announced}");
        assert!(cells >= kept + 3 && cells < SLOW_CELLS, "{cells} cells after {signal}");
        kept = cells;
    }
    let said = format!("{} cells measured, {kept} cached, 0 failed", SLOW_CELLS - kept);
    lab.run(["run", "e.toml"]).exits(0).says(&[&said]);
    undisturbed.run(["run", "e.toml"]).exits(0);
    assert!(lab.stable_report() == undisturbed.stable_report());
    assert!(lab.cells().keys().eq(undisturbed.cells().keys()));
    // One record for every process; that of the killed one has no end.
    let runs = lab.files("results/e/runs").into_values();
    let runs: Vec<Value> = runs.map(|bytes| serde_json::from_slice(&bytes).unwrap()).collect();
    let mut codes: Vec<Option<u64>> = runs.iter().map(|run| run["exit_code"].as_u64()).collect();
    codes.sort();
    assert_eq!(codes, [None, Some(0), Some(130), Some(143)]);
    assert!(runs.iter().all(|run| run["ended"].is_null() == run["exit_code"].is_null()));
}

#[test]
fn processes_share_a_folder() {
    let alone = many_quick_cells();
    alone.run(["run", "e.toml"]).exits(0).says(&["40 cells measured"]);
    let expected = alone.stable_report();
    let partitions: [&[&str]; 2] = [&["--partition", "slice:1/2"], &["--partition", "slice:2/2"]];
    for arguments in [partitions, [&[], &[]]] {
        let lab = many_quick_cells();
        let start =
            |more: &&[&str]| lab.command(["run", "e.toml"].into_iter().chain(more.iter().copied())).spawn().unwrap();
        let outcomes = arguments.each_ref().map(start).map(|child| finished(&lab, child));
        for outcome in &outcomes {
            outcome.exits(0);
        }
        assert_eq!(lab.cells().len(), 40);
        assert!(cell_files(&lab).keys().all(|name| name.ends_with(".json")));
        let report = lab.stable_report();
        assert!(report.keys().eq(expected.keys()), "{arguments:?}: {:?}", report.keys());
        let differing: Vec<&String> = expected.keys().filter(|name| report[*name] != expected[*name]).collect();
        assert!(differing.is_empty(), "{arguments:?}: {differing:?}");
    }
}

#[test]
fn partitions_are_disjoint_and_make_the_whole() {
    let lab = many_quick_cells();
    let selected = |slice: &str| -> Vec<Value> {
        let outcome = lab.run(["plan", "e.toml", "--partition", slice, "--output-format", "json"]);
        let lines = outcome.exits(0).json_lines().into_iter();
        lines.filter(|line| line["runs"] == true).map(|line| line["id"].clone()).collect()
    };
    let [a, b, c] = ["slice:1/3", "slice:2/3", "slice:3/3"].map(selected);
    assert_eq!(a.len() + b.len() + c.len(), 40);
    assert!(a.iter().all(|id| !b.contains(id) && !c.contains(id)) && b.iter().all(|id| !c.contains(id)));
    // Masked and CSR of a prune point stay together.
    assert!([a, b, c].iter().all(|part| part.len() % 2 == 0 && !part.is_empty()));
}

#[test]
fn a_cell_is_never_half_written() {
    let lab = many_quick_cells();
    let mut child = lab.command(["run", "e.toml"]).spawn().unwrap();
    let mut looks = 0;
    while child.try_wait().unwrap().is_none() {
        // Fails the test if a file is no JSON.
        looks += usize::from(!lab.cells().is_empty());
    }
    finished(&lab, child).exits(0);
    assert!(looks > 0);
    assert_eq!(lab.cells().len(), 40);
}
