//! `verify`: what passes, and what is found.

use crate::support::{Lab, Model, Outcome, ROOT};
use serde_json::Value;
use std::path::Path;

/// Two methods, one of them random, on one model; five cells of a few milliseconds, and two of kernels.
const EXPERIMENT: &str = r#"name = "e"
seed = 0
[model]
source = "path:model"
[device]
backend = "flex"
[data]
agreement = "file:texts.txt"
perplexity = "file:texts.txt"
context = 4
[measure]
metrics = ["structure", "agreement", "perplexity"]
[execute]
variants = ["dense", "masked", "csr"]
[[prune]]
method = ["magnitude", "random"]
sparsity = 0.5
[[kernel]]
shape = [8, 8]
sparsity = 0.5
tokens = 1
format = ["dense", "csr"]
warmup = 0
repeats = 3
"#;

fn measured() -> Lab {
    let lab = Lab::tiny(EXPERIMENT);
    lab.run(["run", "e.toml"]).exits(0).says(&["7 cells measured"]);
    lab
}

fn verify(lab: &Lab, args: &[&str]) -> Outcome {
    lab.run(["verify", "results/e"].into_iter().chain(args.iter().copied()))
}

/// The last record of a verification.
fn record(lab: &Lab) -> Value {
    let files = lab.files("results/e/verify");
    serde_json::from_slice(files.values().next_back().unwrap()).unwrap()
}

/// Changes a cell as an attacker would, who gives it the digest of its new content.
fn forge(lab: &Lab, variant: &str, change: impl Fn(&mut Value)) -> String {
    let found = lab.cells().into_iter().find(|(_, cell)| cell["cell"]["variant"] == variant);
    let (id, mut cell) = found.unwrap();
    change(&mut cell);
    lab.write_cell(&id, cell);
    id
}

/// A number of a cell's results.
fn number<'a>(cell: &'a mut Value, group: &str, pointer: &str) -> &'a mut Value {
    let parts = cell["results"].as_array_mut().unwrap().iter_mut();
    let group = parts.map(|part| &mut part["result"]).find(|result| result.get(group).is_some()).unwrap();
    group.pointer_mut(pointer).unwrap()
}

/// What becomes of a number.
type Attack = fn(&Value) -> Value;

/// The next number that there is.
fn next_up(number: &Value) -> Value {
    f64::from_bits(number.as_f64().unwrap().to_bits() + 1).into()
}

#[test]
fn an_untouched_folder_passes_and_only_gets_a_record() {
    let lab = measured();
    let before = lab.files("results/e");
    let outcome = verify(&lab, &[]);
    outcome.exits(0).prints(&["cells", "files of these cells"]);
    outcome.says(&["all of 7 cells: ", "equal: ", " 0 different; ", "record: results/e/verify/"]);
    let mut after = lab.files("results/e");
    after.retain(|name, _| !name.starts_with("verify/"));
    assert!(after == before);
    let record = record(&lab);
    assert_eq!((&record["verdict"], &record["drawn"], &record["of"]), (&"equal".into(), &7.into(), &7.into()));
    assert_eq!(record["caught"], 1.0);
    assert!(record["counts"]["equal"].as_u64().unwrap() > 100 && record["counts"]["timings"].as_u64().unwrap() > 6);
    assert!(record["inputs"].as_array().unwrap().iter().any(|input| input["file"] == "model.safetensors"));
    // As JSON, and of what is not finished.
    std::fs::remove_file(lab.path(format!("results/e/cells/{}.json", lab.cells().keys().next().unwrap()))).unwrap();
    let outcome = verify(&lab, &["--output-format", "json"]);
    outcome.says(&["1 cell of the experiment not in the folder"]);
    let lines = outcome.json_lines();
    assert_eq!(lines.iter().filter(|line| line["event"] == "cell").count(), 6);
    assert_eq!(lines.last().unwrap()["verification"]["unfinished"], 1);
}

#[test]
fn a_changed_digit_is_found_in_whatever_number() {
    let lab = measured();
    let cells = lab.files("results/e/cells");
    let attacks: [(&str, &str, &str, Attack); 5] = [
        ("masked", "perplexity", "/perplexity", |_| 3.0.into()),
        ("csr", "perplexity", "/perplexity", next_up),
        ("masked", "agreement", "/agreement/kl_nats", |number| (number.as_f64().unwrap() * 0.9).into()),
        ("csr", "gate", "/gate/gate/max_logit", next_up),
        ("dense", "structure", "/structure/structure/nonzero", |number| (number.as_u64().unwrap() - 1).into()),
    ];
    for (variant, group, pointer, change) in attacks {
        let id = forge(&lab, variant, |cell| {
            let number = number(cell, group, pointer);
            *number = change(number);
        });
        // The program itself believes it: the digest fits.
        lab.run(["plan", "results/e/experiment.toml"]).exits(0).says(&["7 cells, 0 to measure"]);
        let name = pointer[1..].replace('/', ".");
        verify(&lab, &[]).exits(100).prints(&[&name, "DIFFERENT"]).says(&["different: "]);
        let verdicts = record(&lab)["cells"].as_array().unwrap().clone();
        let wrong: Vec<&Value> = verdicts.iter().filter(|cell| cell["counts"]["different"] != 0).collect();
        assert_eq!((wrong.len(), &wrong[0]["name"]), (1, &Value::from(id)), "{name}");
        for (file, bytes) in &cells {
            lab.write(&format!("results/e/cells/{file}"), bytes);
        }
    }
    // Without a fitting digest it is not even looked at.
    let (id, cell) = lab.cells().into_iter().next().unwrap();
    lab.write(
        &format!("results/e/cells/{id}.json"),
        cell.to_string().replacen("\"finished\":\"2", "\"finished\":\"1", 1),
    );
    verify(&lab, &[]).exits(100).says(&[&id, "was changed after it was written"]);
}

#[test]
fn swapped_files_are_named() {
    let lab = measured();
    let safetensors = std::fs::read(lab.path("model/model.safetensors")).unwrap();
    let mut other = Model::tiny();
    other.tensors.values_mut().for_each(|(_, numbers)| numbers[0] += 0.5);
    other.save(&lab.path("model"));
    verify(&lab, &[]).exits(100).says(&[
        "warning: `path:model model.safetensors` is another file than the one that was read: SHA-256 ",
        " in the manifest, ",
        " here",
        "different: 0 numbers",
    ]);
    assert_eq!(record(&lab)["findings"].as_array().unwrap().len(), 1);
    lab.write("model/model.safetensors", safetensors);
    lab.write("texts.txt", "the dog sat on the mat\na cat ran\n");
    verify(&lab, &[]).exits(100).says(&["warning: `file:texts.txt` is another file"]);
    // The same files under another name are the same.
    lab.write("texts.txt", "the cat sat on the mat\na dog ran\n");
    std::fs::rename(lab.path("model"), lab.path("elsewhere")).unwrap();
    verify(&lab, &[]).exits(3);
    verify(&lab, &["-s", "model.source=path:elsewhere"]).exits(0);
}

#[test]
fn another_seed_is_found() {
    // In the file that the folder keeps.
    let lab = measured();
    let kept = lab.read("results/e/experiment.toml");
    lab.write("results/e/experiment.toml", kept.replace("seed = 0", "seed = 1"));
    verify(&lab, &[]).exits(100).says(&[
        "warning: `experiment.toml` is not the file that the manifest is about",
        "warning: `seed` the manifest has [0], the experiment [1]",
    ]);
    // In the manifest too: the cells are still of another seed.
    let mut manifest: Value = serde_json::from_str(&lab.read("results/e/manifest.json")).unwrap();
    let digest = crate::support::sha256(lab.read("results/e/experiment.toml").as_bytes());
    (manifest["seeds"], manifest["experiment_sha256"]) = (serde_json::json!([1]), digest.into());
    lab.write("results/e/manifest.json", manifest.to_string());
    verify(&lab, &[]).exits(100).says(&["warning: ", "the experiment has no such cell"]);
    // The numbers of one seed in the cell of another.
    let lab = measured();
    lab.run(["run", "e.toml", "-s", "seed=1", "--results", "other"]).exits(0);
    let of_seed = |cell: &Value, seed: u64| cell["cell"]["seed"] == seed && cell["cell"]["variant"] == "masked";
    let other: Vec<Value> = lab.files("other/e/cells").values().map(|b| serde_json::from_slice(b).unwrap()).collect();
    let other = other.into_iter().find(|cell| of_seed(cell, 1)).unwrap();
    let (id, mut cell) = lab.cells().into_iter().find(|(_, cell)| of_seed(cell, 0)).unwrap();
    for part in cell["results"].as_array_mut().unwrap() {
        let theirs = other["results"].as_array().unwrap().iter().find(|of| of["inputs"] == part["inputs"]).unwrap();
        if part["result"].get("agreement").is_some() && theirs["result"].get("agreement").is_some() {
            part["result"] = theirs["result"].clone();
        }
    }
    lab.write_cell(&id, cell);
    verify(&lab, &[]).exits(100).prints(&["random", "agreement.", "DIFFERENT"]);
}

#[test]
fn a_table_that_its_cells_do_not_give_is_found() {
    let lab = measured();
    for file in ["tables/summary.csv", "tables/summary.tex", "plots/setups.csv"] {
        let text = lab.read(format!("results/e/{file}"));
        let at = text.rfind(|c: char| ('1'..='8').contains(&c)).unwrap();
        let digit = text.as_bytes()[at] + 1;
        lab.write(&format!("results/e/{file}"), format!("{}{}{}", &text[..at], digit as char, &text[at + 1..]));
        verify(&lab, &["--sample", "1"]).exits(100).prints(&[file, "not what the folder's cells give"]);
        lab.write(&format!("results/e/{file}"), text);
    }
    verify(&lab, &["--sample", "1"]).exits(0);
}

#[test]
fn a_sample_is_drawn_by_seed_and_says_what_it_is_worth() {
    let lab = measured();
    let names = |args: &[&str]| {
        verify(&lab, args).exits(0);
        let cells = record(&lab)["cells"].as_array().unwrap().clone();
        std::fs::remove_dir_all(lab.path("results/e/verify")).unwrap();
        cells.iter().map(|cell| cell["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let drawn = names(&["--sample", "2", "--seed", "5"]);
    assert_eq!((drawn.len(), &drawn), (2, &names(&["--sample", "2", "--seed", "5"])));
    assert!((6..30).any(|seed| names(&["--sample", "2", "--seed", &seed.to_string()]) != drawn));
    assert_eq!(names(&["--minutes", "10"]).len(), 7);
    assert_eq!(names(&["--minutes", "0.00001"]).len(), 1);
    // 1 of 7; two of seven are missed with probability 5/7 * 4/6 by two.
    verify(&lab, &["--sample", "2", "--seed", "5"])
        .exits(0)
        .says(&["2 of 7 cells, drawn with `--seed 5`", "with probability 0.28571, in 1 cell with 0.28571"]);
    verify(&lab, &["--sample", "0"]).exits(2);
    verify(&lab, &["--minutes", "-1"]).exits(2);
    // What is not drawn is not found, and what is drawn is.
    let id = forge(&lab, "dense", |cell| *number(cell, "perplexity", "/perplexity") = 3.0.into());
    lab.run(["report", "results/e"]).exits(0);
    let codes = (0..12u64).map(|seed| {
        let outcome = verify(&lab, &["--sample", "2", "--seed", &seed.to_string()]);
        let drawn = record(&lab)["cells"].as_array().unwrap().iter().any(|cell| cell["name"] == id.as_str());
        std::fs::remove_dir_all(lab.path("results/e/verify")).unwrap();
        outcome.exits(if drawn { 100 } else { 0 });
        drawn
    });
    let drawn = codes.filter(|drawn| *drawn).count();
    assert!((1..12).contains(&drawn), "{drawn}");
}

/// Says that the folder was made with another instruction set.
fn made_elsewhere(lab: &Lab) {
    let mut manifest: Value = serde_json::from_str(&lab.read("results/e/manifest.json")).unwrap();
    manifest["machine"]["simd"] = "abacus".into();
    lab.write("results/e/manifest.json", manifest.to_string());
    std::fs::remove_dir_all(lab.path("results/e/runs")).unwrap();
}

#[test]
fn last_bits_of_another_instruction_set_are_called_so() {
    let lab = measured();
    made_elsewhere(&lab);
    forge(&lab, "masked", |cell| {
        let number = number(cell, "perplexity", "/perplexity");
        *number = (number.as_f64().unwrap() * (1.0 + 1e-7)).into();
    });
    lab.run(["report", "results/e"]).exits(0);
    let outcome = verify(&lab, &[]);
    outcome.exits(0).prints(&["perplexity", "1e-4 of it", "within"]);
    outcome.says(&["1 number differs in its last bits: the instruction set is ", " here, and was abacus"]);
    assert_eq!(record(&lab)["verdict"], "within tolerance");
    forge(&lab, "masked", |cell| {
        let number = number(cell, "perplexity", "/perplexity");
        *number = (number.as_f64().unwrap() * 1.001).into();
    });
    verify(&lab, &[]).exits(100).prints(&["perplexity", "DIFFERENT"]);
}

/// A folder as it is handed on without cells.
fn tables_alone(lab: &Lab) {
    for folder in ["cells", "runs"] {
        std::fs::remove_dir_all(lab.path(format!("results/e/{folder}"))).unwrap();
    }
    std::fs::remove_file(lab.path("results/e/plan.json")).unwrap();
}

#[test]
fn a_folder_of_tables_alone_is_compared_row_by_row() {
    let lab = measured();
    tables_alone(&lab);
    verify(&lab, &[]).exits(0).prints(&["tables"]).says(&["equal: ", " 0 different; ", "not compared"]);
    verify(&lab, &["--sample", "3", "--seed", "1"]).exits(0).says(&["3 of 7 cells"]);
    let table = lab.read("results/e/tables/summary.csv");
    // A digit, a row more, a row less, and a word.
    let rows: Vec<&str> = table.lines().collect();
    let perplexity = &lab.table("results/e/tables/summary.csv")[1]["perplexity"];
    let end = perplexity.len() - 1;
    let digit = if perplexity.ends_with('5') { "6" } else { "5" };
    let changed = [
        (table.replacen(perplexity.as_str(), &format!("{}{digit}", &perplexity[..end]), 1), "perplexity of "),
        (format!("{table}{}\n", rows[2]), "#2"),
        (table.replace(&format!("{}\n", rows[2]), ""), "row "),
        (table.replace("magnitude", "wanda"), "wanda"),
    ];
    for (text, number) in changed {
        assert!(text != table);
        lab.write("results/e/tables/summary.csv", text);
        verify(&lab, &[]).exits(100).prints(&["tables/summary.csv", number]);
    }
}

#[test]
fn the_reference_of_the_first_experiment_passes_until_a_digit_is_changed() {
    let lab = Lab::empty();
    for (name, bytes) in walk_reference() {
        lab.write(&format!("results/e/{name}"), bytes);
    }
    verify(&lab, &[]).exits(0).prints(&["tables"]).says(&["all of 7 cells"]);
    let table = lab.read("results/e/tables/summary.csv");
    let nonzero = &lab.table("results/e/tables/summary.csv")[3]["nonzero"];
    lab.write("results/e/tables/summary.csv", table.replacen(nonzero.as_str(), &format!("1{}", &nonzero[1..]), 1));
    verify(&lab, &[]).exits(100).prints(&["tables/summary.csv", "nonzero of ", "DIFFERENT"]);
}

fn walk_reference() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(ROOT).join("results/reference/s1");
    let read = |path: std::path::PathBuf| {
        (path.strip_prefix(&root).unwrap().display().to_string(), std::fs::read(&path).unwrap())
    };
    crate::support::walk(&root).into_iter().map(read).collect()
}

#[test]
fn what_is_no_finished_folder_is_an_error_that_says_so() {
    let lab = measured();
    lab.run(["verify", "nowhere"]).exits(3).says(&["nowhere/experiment.toml"]);
    let manifest = lab.read("results/e/manifest.json");
    std::fs::remove_file(lab.path("results/e/manifest.json")).unwrap();
    verify(&lab, &[]).exits(3).says(&["`results/e` has no `manifest.json`", "hint: "]);
    lab.write("results/e/manifest.json", manifest);
    tables_alone(&lab);
    std::fs::remove_dir_all(lab.path("results/e/tables")).unwrap();
    verify(&lab, &[]).exits(3).says(&["`results/e` has neither cells nor tables"]);
}

#[test]
fn kernels_of_another_device_say_nothing_against_a_folder() {
    let lab = Lab::tiny(EXPERIMENT);
    lab.run(["run", "e.toml", "-s", "device.threads=2"]).exits(0);
    verify(&lab, &["-s", "device.threads=1"]).exits(0).says(&[
        "warning: ",
        "not comparable: different device (threads 2 -> 1)",
        "all of 5 cells",
        "equal: ",
    ]);
    let strangers = record(&lab)["strangers"].as_array().unwrap().clone();
    assert!(strangers.len() == 2 && strangers.iter().all(|stranger| stranger["elsewhere"] == true));
}
