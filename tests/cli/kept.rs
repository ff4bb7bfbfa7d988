//! The experiment file that a results folder keeps: it is enough to go on with.

use crate::support::{Lab, THREE_CELLS};
use serde_json::Value;

/// A lab whose experiment file lies in a folder of its own, and names its model from there.
fn in_folders() -> Lab {
    let lab = Lab::tiny("");
    lab.write("exp/e.toml", THREE_CELLS.replace("path:model", "path:../model").replace("file:texts", "file:../texts"));
    lab
}

fn origin(lab: &Lab, file: &str) -> Value {
    serde_json::from_str::<Value>(&lab.read(file)).unwrap()["origin"].clone()
}

#[test]
fn the_kept_file_has_the_overrides_and_finds_its_results() {
    let lab = in_folders();
    let set = ["-s", "prune.sparsity=[0.25, 0.5]", "-s", "measure.metrics=structure"];
    lab.run(["run", "exp/e.toml"].into_iter().chain(set)).exits(0).says(&["5 cells measured"]);
    let (tables, cells) = (lab.stable_report(), lab.files("results/e/cells"));
    let kept = lab.read("results/e/experiment.toml");
    assert!(
        kept.starts_with("# exp/e.toml with -s 'prune.sparsity=[0.25, 0.5]' -s 'measure.metrics=structure',"),
        "{kept}"
    );
    assert!(kept.contains("sparsity = [0.25, 0.5]") && kept.contains("\"path:../model\""), "{kept}");
    for file in ["results/e/plan.json", "results/e/manifest.json"] {
        assert_eq!(origin(&lab, file)["file"], "../../exp/e.toml");
        assert_eq!(
            origin(&lab, file)["set"],
            serde_json::json!(["prune.sparsity=[0.25, 0.5]", "measure.metrics=structure"])
        );
    }
    // From anywhere, with the plan and without.
    lab.run(["run", "results/e/experiment.toml"]).exits(0).says(&["0 cells measured, 5 cached, 0 failed: results/e"]);
    std::fs::remove_file(lab.path("results/e/plan.json")).unwrap();
    let mut command = lab.command(["run", "experiment.toml"]);
    command.current_dir(lab.path("results/e"));
    lab.outcome(command.output().unwrap()).exits(0).says(&["0 cells measured, 5 cached, 0 failed"]);
    assert!(lab.stable_report() == tables && lab.files("results/e/cells") == cells);
    assert_eq!(lab.read("results/e/experiment.toml"), kept);
    assert_eq!(origin(&lab, "results/e/plan.json")["file"], "../../exp/e.toml");
    assert!(!lab.path("results/e/results").exists());
}

#[test]
fn the_kept_file_takes_overrides_another_name_and_another_folder() {
    let lab = in_folders();
    lab.run(["run", "exp/e.toml", "--results", "out"]).exits(0).says(&["3 cells measured, 0 cached, 0 failed: out/e"]);
    assert_eq!(lab.read("out/e/experiment.toml"), lab.read("exp/e.toml"));
    let kept = ["run", "out/e/experiment.toml"];
    let more = lab.run(kept.into_iter().chain(["-s", "prune.sparsity=0.75"]));
    more.exits(0).says(&["2 cells measured, 1 cached, 0 failed: out/e"]);
    assert!(!more.stderr.contains("warning"), "{}", more.stderr);
    let again = lab.run(kept.into_iter().chain(["-s", "prune.sparsity=0.75", "-s", "name=f"]));
    again.exits(0).says(&["3 cached (3 of them copied from other experiments), 0 failed: out/f"]);
    lab.run(kept.into_iter().chain(["--results", "third"])).exits(0).says(&["3 cells measured, 0 cached", "third/e"]);
    // The folder's name is its owner's business.
    std::fs::rename(lab.path("out/e"), lab.path("out/renamed")).unwrap();
    lab.run(["plan", "out/renamed/experiment.toml"]).exits(0).says(&["3 cells, 0 to measure"]);
}

#[test]
fn a_killed_run_and_a_moved_tree_leave_a_file_to_go_on_with() {
    let lab = in_folders();
    lab.run(["run", "exp/e.toml", "--limit", "1"]).exits(0);
    std::fs::remove_file(lab.path("results/e/manifest.json")).unwrap();
    std::fs::create_dir(lab.path("moved")).unwrap();
    for name in ["exp", "results", "model", "texts.txt"] {
        std::fs::rename(lab.path(name), lab.path("moved").join(name)).unwrap();
    }
    lab.run(["run", "moved/results/e/experiment.toml"]).exits(0).says(&["2 cells measured, 1 cached"]);
    // A file of that name which no results folder keeps is a file like any other.
    lab.write("moved/experiment.toml", THREE_CELLS);
    lab.run(["run", "moved/experiment.toml"]).exits(0).says(&["results/e"]);
    assert!(lab.path("results/e/cells").is_dir());
}

#[test]
fn an_edited_perplexity_is_noticed_and_measured_again() {
    let text = THREE_CELLS.replace(
        "[measure]\nmetrics = [",
        "perplexity = \"file:texts.txt\"\ncontext = 4\n[measure]\nmetrics = [\"perplexity\", ",
    );
    let lab = Lab::tiny(&text);
    lab.run(["run", "e.toml"]).exits(0);
    let (report, cells) = (lab.stable_report(), lab.cells());
    let (id, cell) = cells.iter().find(|(_, cell)| cell["cell"]["variant"] == "masked").unwrap();
    let mut edited = cell.clone();
    let part =
        edited["results"].as_array_mut().unwrap().iter_mut().find(|part| part["result"]["perplexity"].is_number());
    part.unwrap()["result"]["perplexity"] = 3.0.into();
    lab.write(&format!("results/e/cells/{id}.json"), format!("{edited:#}"));
    lab.run(["plan", "results/e/experiment.toml"]).exits(0).says(&[id, "retry: ", "was changed after it was written"]);
    lab.run(["run", "results/e/experiment.toml"]).exits(0).says(&["1 cell measured, 2 cached, 0 failed"]);
    assert!(lab.stable_report() == report);
}

/// What [`THREE_CELLS`] says, in two files.
fn extended() -> Lab {
    let lab = Lab::tiny("");
    lab.write("base.toml", THREE_CELLS.replace("\"e\"", "\"base\""));
    lab.write("e.toml", "extends = \"base.toml\"\nname = \"e\"\n[measure]\nmetrics = \"structure\"\n");
    lab
}

#[test]
fn a_folder_of_a_file_that_extends_another_stands_alone() {
    let lab = extended();
    lab.run(["check", "e.toml"]).exits(0).prints_nothing();
    lab.run(["check", "--resolved", "e.toml"]).exits(0).prints(&[
        "name = \"e\"\n",
        "seed = 0  # default\n",
        "[model]  # base.toml\nsource = \"path:model\"  # base.toml\n",
        "agreement = \"file:texts.txt\"  # base.toml\n",
        "sparsity = 0.5  # base.toml\n",
        "metrics = \"structure\"\n",
    ]);
    lab.run(["run", "e.toml", "-s", "prune.sparsity=[0.5, 0.25]"]).exits(0).says(&["5 cells measured"]);
    let kept = lab.read("results/e/experiment.toml");
    assert!(
        kept.starts_with("# e.toml with all that it takes from base.toml -s 'prune.sparsity=[0.5, 0.25]',"),
        "{kept}"
    );
    std::fs::remove_file(lab.path("base.toml")).unwrap();
    lab.run(["run", "results/e/experiment.toml"]).exits(0).says(&["0 cells measured, 5 cached"]);
    // A base that is gone is an input that is missing; what is resolved is a file like any other.
    lab.run(["run", "e.toml"]).exits(3).says(&["`base.toml`, which `extends` names", "e.toml:1:11"]);
    lab.run(["check", "--resolved", "e.toml"]).exits(3).prints_nothing();
}

#[test]
fn a_resolved_file_runs_like_its_own() {
    let lab = extended();
    lab.run(["run", "e.toml"]).exits(0).says(&["3 cells measured"]);
    let page = lab.run(["check", "--resolved", "e.toml", "-s", "device.threads=1"]);
    lab.write("r.toml", &page.exits(0).stdout);
    lab.run(["run", "r.toml"]).exits(0).says(&["0 cells measured, 3 cached"]);
    lab.write("base.toml", "[model]\nsorce = 1\n");
    lab.run(["check", "e.toml"]).exits(2).says(&["unknown key `model.sorce`", "base.toml:2:1"]);
}
