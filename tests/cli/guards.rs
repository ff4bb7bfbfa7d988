//! Folders and files of others: nothing of theirs is lost, nothing of ours goes where it should not, and their names
//! are words everywhere.

use crate::support::{Lab, THREE_CELLS};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Runs the experiment and changes its cells as somebody else might.
fn received(change: impl Fn(&mut Value)) -> Lab {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    for name in lab.files("results/e/cells").into_keys() {
        let path = format!("results/e/cells/{name}");
        let mut cell: Value = serde_json::from_str(&lab.read(&path)).unwrap();
        change(&mut cell);
        seal(&mut cell);
        lab.write(&path, cell.to_string());
    }
    lab
}

/// Gives a cell the digest of its content, as whoever sends it to somebody can.
fn seal(cell: &mut Value) {
    cell.as_object_mut().unwrap().shift_remove("digest");
    let digest = Sha256::digest(cell.to_string());
    cell["digest"] = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
}

#[cfg(unix)]
#[test]
fn a_report_writes_nothing_outside_of_its_folder() {
    use std::os::unix::fs::symlink;
    for (link, removed) in [("tables", "tables"), ("plots", "plots"), ("tables/summary.csv", "tables/summary.csv")] {
        let lab = Lab::tiny(THREE_CELLS);
        lab.run(["run", "e.toml"]).exits(0);
        lab.write("elsewhere/thesis", "years of work");
        let target = if link.contains('.') { lab.path("elsewhere/thesis") } else { lab.path("elsewhere") };
        let path = lab.path(format!("results/e/{removed}"));
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap()
        } else {
            std::fs::remove_file(&path).unwrap()
        }
        symlink(&target, &path).unwrap();
        let before = lab.files("elsewhere");
        for command in [vec!["report", "results/e"], vec!["run", "e.toml", "--rerun", "all"]] {
            lab.run(command).exits(1).says(&[&format!("`results/e/{link}` is a link to"), "hint: remove the link"]);
            assert!(lab.files("elsewhere") == before, "{link}");
        }
    }
}

#[test]
fn numbers_of_layers_in_a_cell_size_nothing() {
    for number in ["4000000000", "18446744073709551615"] {
        let lab = received(|cell| {
            let structure = &mut cell["results"][0]["result"]["structure"]["structure"];
            for layer in structure["layers"].as_array_mut().unwrap() {
                let name = layer["module_name"].as_str().unwrap().replace("layers.0.", &format!("layers.{number}."));
                layer["module_name"] = name.into();
                layer["nonzero"] = u64::MAX.into();
            }
        });
        // Shown or refused, but not by taking all memory.
        let outcome = lab.run(["report", "results/e"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
}

#[test]
fn names_of_others_are_words_in_every_table() {
    let name = "=cmd|' /C calc'!A0<script>alert(1)</script>\n![x](http://evil/)\u{1b}[2J";
    let lab = received(|_| ());
    let path = "results/e/plan.json";
    let mut plan: Value = serde_json::from_str(&lab.read(path)).unwrap();
    for entry in plan["cells"].as_array_mut().unwrap() {
        entry["cell"]["model"] = name.into();
    }
    plan["title"] = name.into();
    lab.write(path, plan.to_string());
    let outcome = lab.run(["report", "results/e"]);
    outcome.exits(0);
    assert!(!outcome.stdout.contains('\u{1b}') && !outcome.stderr.contains('\u{1b}'), "{}", outcome.stdout);
    let markdown = lab.read("results/e/tables/summary.md");
    assert_eq!(markdown.lines().count(), 2 + 3, "{markdown}");
    assert!(!markdown.contains("<script>") && !markdown.contains("![") && !markdown.contains('\u{1b}'), "{markdown}");
    assert!(lab.table("results/e/tables/summary.csv").iter().all(|row| row["model"].starts_with("'=cmd")));
    let latex = lab.read("results/e/tables/summary.tex");
    assert!(!latex.contains("<script>") && !latex.contains('\u{1b}'), "{latex}");
    for (file, bytes) in lab.files("results/e/plots").into_iter().filter(|(file, _)| file.ends_with(".svg")) {
        let svg = String::from_utf8(bytes).unwrap();
        assert!(!svg.contains("<script>") && !svg.contains('\u{1b}'), "{file}");
    }
}

#[test]
fn plots_of_names_that_meet_are_all_there() {
    for models in [["llama_7b", "llama-7b"], ["модель", "другая"]] {
        let lab = Lab::tiny("");
        for model in models {
            crate::support::Model::tiny().save(&lab.path(model));
        }
        // Another weight, so that they are two models and not one by two names.
        let bytes = lab.files(models[1])["model.safetensors"].clone();
        let mut changed = bytes;
        let last = changed.len() - 2;
        changed[last] ^= 1;
        lab.write(&format!("{}/model.safetensors", models[1]), changed);
        let sources = format!("source = [\"path:{}\", \"path:{}\", \"path:model\"]", models[0], models[1]);
        lab.write("e.toml", THREE_CELLS.replace("source = \"path:model\"", &sources));
        lab.run(["run", "e.toml"]).exits(0);
        let files = lab.files("results/e/plots");
        let setups: Vec<&String> =
            files.keys().filter(|name| name.starts_with("setups-") && name.ends_with(".svg")).collect();
        assert!(setups.len() >= 2 && !files.contains_key("setups-path-llama-7b-flex-f32.svg"), "{setups:?}");
        let shown: Vec<String> = setups.iter().map(|name| String::from_utf8(files[*name].clone()).unwrap()).collect();
        for model in models {
            assert_eq!(shown.iter().filter(|svg| svg.contains(&format!("path:{model},"))).count(), 1, "{setups:?}");
        }
    }
}

#[test]
fn two_files_of_one_name_are_said() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.write("other.toml", THREE_CELLS.replace("0.5", "0.25"));
    lab.write("third.toml", THREE_CELLS.replace("name = \"e\"", "name = \"f\""));
    lab.run(["check", "e.toml", "third.toml", "other.toml"])
        .exits(0)
        .says(&["warning: `e.toml` and `other.toml` have one name, `e`"]);
    assert!(!lab.run(["check", "e.toml", "third.toml"]).stderr.contains("warning"));
    lab.run(["run", "e.toml"]).exits(0);
    for verb in ["plan", "run"] {
        lab.run([verb, "other.toml"])
            .exits(0)
            .says(&["warning: `results/e` has the results of `e.toml`, and `other.toml` has the same name, `e`"]);
        if verb == "plan" {
            // A file that was changed is still the same one, wherever it is called from.
            lab.write("e.toml", THREE_CELLS.replace("0.5", "0.75"));
            assert!(!lab.run(["plan", "./e.toml"]).stderr.contains("warning"));
        }
    }
}

#[test]
fn ties_are_counted_and_said() {
    // Of 64 or 128 equal weights half go, and an even number of them is left to chance.
    let same = |method: &str| {
        THREE_CELLS
            .replace(
                "[data]",
                "[data]\ncalibration = \"file:texts.txt\"\ncalibration_samples = 2\ncalibration_length = 4",
            )
            .replace("\"magnitude\"\nsparsity = 0.5", &format!("\"{method}\"\npattern = \"2:4\""))
    };
    let lab = Lab::tiny(&same("magnitude"));
    let mut model = crate::support::Model::tiny();
    for (name, tensor) in &mut model.tensors {
        if ["proj.weight", "fc1.weight", "fc2.weight"].iter().any(|part| name.ends_with(part)) {
            tensor.1.iter_mut().enumerate().for_each(|(i, x)| *x = if i % 3 == 0 { -0.25 } else { 0.25 });
        }
    }
    model.save(&lab.path("model"));
    lab.run(["run", "e.toml"]).exits(0).says(&["warning: path:model magnitude Masked2:4", "50.0 % of the weights tie"]);
    let rows = lab.table("results/e/tables/summary.csv");
    // Of every group of four equal weights two stay that might have gone.
    let linears = 4 * 8 * 8 + 2 * 8 * 16;
    let ties: Vec<&str> = rows.iter().map(|row| row["ties"].as_str()).collect();
    assert_eq!(ties, ["", &(linears / 2).to_string(), &(linears / 2).to_string()]);
    // What reconstructs weights has no such number; what scores distinct weights has none of them.
    lab.write("e.toml", same("sparsegpt"));
    lab.run(["run", "e.toml", "--only", "variant=masked"]).exits(0);
    assert!(lab.table("results/e/tables/summary.csv").iter().all(|row| row["ties"].is_empty()));
    let lab = Lab::tiny(&same("wanda"));
    assert!(!lab.run(["run", "e.toml"]).stderr.contains("tie with"));
    assert_eq!(lab.table("results/e/tables/summary.csv")[1]["ties"], "0");
}

#[test]
fn figures_say_which_weights_are_kept() {
    let lab = Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "pattern = [\"2:4\", \"1:4\"]"));
    lab.run(["run", "e.toml"]).exits(0);
    let rows = lab.table("results/e/tables/summary.csv");
    assert_eq!((rows[1]["setup"].as_str(), rows[1]["pattern"].as_str()), ("Masked2:4", "2:4"));
    let setups = lab.read("results/e/plots/setups.csv");
    assert!(setups.contains("Masked 2 of 4 kept") && setups.contains("CSR 1 of 4 kept"), "{setups}");
    lab.write("e.toml", THREE_CELLS.replace("sparsity = 0.5", "sparsity = 0.6\npattern = \"2:4\""));
    lab.run(["check", "e.toml"]).exits(2).says(&["2 of 4 kept, which fixes the sparsity at 0.5"]);
}

#[cfg(unix)]
#[test]
fn experiment_files_are_regular_files() {
    let lab = Lab::empty();
    assert!(std::process::Command::new("mkfifo").arg(lab.path("pipe.toml")).status().unwrap().success());
    lab.run(["check", "pipe.toml"]).exits(3).says(&["`pipe.toml`", "not a regular file"]);
    lab.run(["run", "/dev/zero"]).exits(3).says(&[
        "`/dev/zero`",
        "not a regular file",
        "hint: give an experiment file",
    ]);
    lab.run(["check", "."]).exits(3).says(&["a folder, not a regular file"]);
}
