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

/// So many cells, slow enough to be interrupted.
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
    // All files but the two that say when the program ran.
    let files = || {
        let mut files = lab.files("results/e");
        files.retain(|name, _| !name.starts_with("runs/") && name != "manifest.json");
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
    assert_eq!(decisions(&lab, &moved), ["Dense new", "Masked50 new", "CSR50 new"]);
}

#[test]
fn rerun_says_which_cells_are_measured_again() {
    let lab = two_patterns_one_of_which_fails();
    lab.run(["run", "e.toml"]).exits(100);
    let (stale, mut cell) = lab.cells().into_iter().find(|(_, cell)| cell["cell"]["variant"] == "dense").unwrap();
    cell["program"]["version"] = "0.0.1".into();
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
    assert_ne!(lab.cells()[&stale]["program"]["version"], "0.0.1");
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
        (untouched, "was changed after it was written".into()),
    ];
    let sealed = [
        (csr, format!("is the file of cell `{other}`")),
        (changed(&|cell| cell["id"] = "0123456789abcdef".into()), "is the file of cell `0123456789abcdef`".into()),
        (changed(&|cell| cell["cell"]["variant"] = "csr".into()), "says that another cell was run".into()),
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
    // One record for every process but the killed one.
    let runs = lab.files("results/e/runs").into_values();
    let mut codes: Vec<u64> =
        runs.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap()["exit_code"].as_u64().unwrap()).collect();
    codes.sort();
    assert_eq!(codes, [0, 130, 143]);
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
