//! Mishaps with the results folder.

use super::*;

#[test]
fn a_file_in_the_way() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.write("results", "mine");
    let outcome = lab.run(["run", "e.toml"]);
    outcome.exits(UNEXPECTED).prints_nothing();
    outcome.says(&["error: failed to write `results/e/cells`: ", "hint: ", "`--results DIR`"]);
    assert_eq!(lab.read("results"), "mine");
    lab.run(["run", "e.toml", "--results", "elsewhere"]).exits(0);
    assert!(lab.path("elsewhere/e/tables/summary.csv").exists());
}

#[test]
#[cfg(unix)]
fn a_read_only_folder() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::tiny(THREE_CELLS);
    let folder = lab.path("results");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(folder.join("x"), "").is_ok() {
        return; // root may write anywhere; the file in the way takes the same path
    }
    lab.run(["run", "e.toml"]).exits(UNEXPECTED).says(&["error: failed to write `results/e/cells`: Permission denied"]);
}

/// A limit on the size of files fails in the middle of a write, as a full disk does.
#[test]
#[cfg(unix)]
fn a_write_that_fails_halfway_leaves_nothing_and_a_later_run_completes() {
    let lab = Lab::tiny(THREE_CELLS);
    // In blocks of 512 or 1024 bytes: a plan fits, a cell does not.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 6; exec \"$0\" run e.toml", crate::support::program()]);
    lab.settle(&mut command);
    let outcome = lab.outcome(command.output().unwrap());
    outcome.exits(UNEXPECTED).prints_nothing();
    outcome.says(&["error: failed to write `results/e/cells/", "File too large", "hint: "]);
    assert_eq!(lab.cells().len(), 0);
    assert!(lab.files("results/e/cells").is_empty());
    lab.run(["run", "e.toml"]).exits(0);
    assert_eq!(lab.cells().len(), 3);
}

/// Where the system lets users mount a file system of their own; else there is nothing to test with.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk() {
    let lab = Lab::tiny(THREE_CELLS);
    std::fs::create_dir(lab.path("results")).unwrap();
    let mut command = std::process::Command::new("unshare");
    let script = "mount -t tmpfs -o size=16k tmpfs results 2>/dev/null || exit 77; exec \"$0\" run e.toml";
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, crate::support::program()]);
    lab.settle(&mut command);
    let Ok(output) = command.output() else { return };
    let outcome = lab.outcome(output);
    if outcome.code == Some(77) || outcome.stderr.starts_with("unshare:") {
        return;
    }
    outcome.exits(UNEXPECTED).prints_nothing();
    outcome.says(&["error: failed to write `results/e/", "No space left", "hint: free some space and run again"]);
}

#[test]
fn a_failing_run_leaves_what_is_there() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    let kept = || ["cells", "tables", "plots"].map(|folder| lab.files(&format!("results/e/{folder}")));
    let before = kept();
    let mut model = Model::tiny();
    model.tensors.get_mut("model.decoder.layers.0.fc2.weight").unwrap().1[0] = f32::NAN;
    model.save(&lab.path("model"));
    lab.run(["run", "e.toml"]).exits(INPUT);
    assert!(before == kept(), "cells, tables or plots changed");
    // What was measured can still be reported.
    lab.run(["report", "results/e"]).exits(0);
    assert!(before == kept(), "the report changed");
}

#[test]
fn a_failing_run_leaves_its_record() {
    let lab = Lab::tiny(THREE_CELLS);
    let mut model = Model::tiny();
    model.tensors.get_mut("model.decoder.layers.0.fc2.weight").unwrap().1[0] = f32::NAN;
    model.save(&lab.path("model"));
    lab.run(["run", "e.toml"]).exits(INPUT);
    let runs = lab.files("results/e/runs");
    assert_eq!(runs.len(), 1);
    let run: serde_json::Value = serde_json::from_slice(runs.values().next().unwrap()).unwrap();
    assert_eq!(run["exit_code"], INPUT);
}

/// Another process may be about to measure it again.
#[test]
fn a_damaged_cell_of_no_concern_is_no_error() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    lab.write("results/e/cells/0000000000000000.json", "{");
    let csr = lab.cells_but("0000000000000000").into_iter().find(|(_, cell)| cell["cell"]["variant"] == "csr").unwrap();
    lab.write(&format!("results/e/cells/{}.json", csr.0), "{");
    lab.run(["run", "e.toml", "--only", "variant=masked"])
        .exits(0)
        .says(&["0 cells measured, 1 cached", "1 still to do"]);
}

/// stdout is data: losing it is an error, unlike a reader that has seen enough.
#[test]
#[cfg(target_os = "linux")]
fn data_that_cannot_be_written() {
    let lab = Lab::tiny(THREE_CELLS);
    for args in [&["plan", "e.toml"][..], &["schema"], &["run", "e.toml", "--output-format", "json"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = lab.command(args.iter().copied()).stdout(full).output().unwrap();
        lab.outcome(output).exits(UNEXPECTED).says(&["error: ", "No space left"]);
    }
}

#[test]
fn a_report_on_nothing() {
    let outcome = Lab::empty().run(["report", "nowhere"]);
    outcome.exits(INPUT).prints_nothing().says(&["error: no cells in `nowhere`", "hint: "]);
}
