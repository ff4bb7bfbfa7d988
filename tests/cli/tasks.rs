//! Zero-shot tasks: what is kept of them, what is compared, and what is refused.

use crate::support::{Lab, Model};
use std::path::PathBuf;

const EXPERIMENT: &str = r#"name = "e"
[model]
source = "path:model"
[device]
backend = "flex"
[measure]
metrics = ["structure", "tasks"]
[tasks]
names = ["piqa"]
path = "sets"
[execute]
variants = ["dense", "masked", "csr"]
[[prune]]
method = "magnitude"
sparsity = 0.5
"#;

/// Rows of piqa, and where they lie.
const PIQA: &str = "sets/baber/piqa/piqa_validation.jsonl";
const ARC: &str = "sets/allenai/ai2_arc/ARC-Easy/test.jsonl";

/// A small model, and a dozen items of each of two tasks in words that it knows.
fn lab(experiment: &str) -> Lab {
    let lab = Lab::tiny(experiment);
    let words = ["the cat", "a dog ran", "sat on", "the mat", "b c d", "on a mat"];
    let (mut piqa, mut arc) = (String::new(), String::new());
    for i in 0..12 {
        let word = |shift: usize| words[(i * 5 + shift * (1 + i / 6)) % words.len()];
        piqa += &format!(
            "{{\"goal\": \"{}\", \"sol1\": \"{}\", \"sol2\": \"{}\", \"label\": {}}}\n",
            word(0),
            word(1),
            word(2),
            i % 2
        );
        arc += &format!(
            "{{\"question\": \"{}\", \"choices\": {{\"text\": [\"{}\", \"{}\", \"{}\"], \"label\": [\"A\", \"B\", \"C\"]}}, \
             \"answerKey\": \"{}\"}}\n",
            word(0),
            word(1),
            word(2),
            word(3),
            ["A", "B", "C"][i % 3]
        );
    }
    lab.write(PIQA, piqa);
    lab.write(ARC, arc);
    lab
}

/// The files of items, of a task.
fn items(lab: &Lab, task: &str) -> Vec<PathBuf> {
    let files = lab.files("results/e/items").into_keys().filter(|name| name.contains(&format!("-{task}-")));
    files.map(|name| PathBuf::from("results/e/items").join(name)).collect()
}

#[test]
fn items_are_kept_and_a_task_that_is_added_is_measured_alone() {
    let lab = lab(EXPERIMENT);
    lab.run(["run", "e.toml"]).exits(0).says(&["3 cells measured"]);
    let kept = items(&lab, "piqa");
    assert_eq!(kept.len(), 3);
    let text = lab.read(&kept[0]);
    assert!(text.starts_with("row,gold,acc_choice,acc,acc_norm_choice,acc_norm,log_likelihoods\n1,0,"), "{text}");
    assert_eq!(text.lines().count(), 13);
    for (id, cell) in lab.cells() {
        let found = cell["results"].as_array().unwrap().iter().find_map(|part| part["result"].get("task"));
        let digest = found.unwrap()["kept"].as_str().unwrap().to_owned();
        let file = kept.iter().find(|path| path.to_str().unwrap().contains(&id)).unwrap();
        assert_eq!(digest, crate::support::sha256(lab.read(file).as_bytes()));
    }
    let rows = lab.table("results/e/tables/tasks.csv");
    let right = text.lines().skip(1).filter(|line| line.split(',').nth(3) == Some("1")).count();
    let of_dense: Vec<_> = rows.iter().filter(|row| kept[0].to_str().unwrap().contains(&row["cell"])).collect();
    assert_eq!(of_dense.len(), 2);
    assert!((of_dense[0]["value"].parse::<f64>().unwrap() - right as f64 / 12.0).abs() < 1e-12);
    // Nothing to do, and then a task more.
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured, 3 cached"]);
    let before: Vec<String> = kept.iter().map(|path| lab.read(path)).collect();
    lab.write("e.toml", EXPERIMENT.replace("[\"piqa\"]", "[\"piqa\", \"arc_easy\"]"));
    lab.run(["run", "e.toml"]).exits(0).says(&["3 cells measured"]);
    assert_eq!(items(&lab, "arc_easy").len(), 3);
    assert_eq!(before, items(&lab, "piqa").iter().map(|path| lab.read(path)).collect::<Vec<_>>());
    let tables = lab.table("results/e/tables/tasks.csv");
    let names: Vec<&str> = tables.iter().take(5).map(|row| row["task"].as_str()).collect();
    assert_eq!(names, ["piqa", "piqa", "arc_easy", "arc_easy", "mean"]);
    // Every pair of cells, by two tasks and two metrics, and all items together.
    let pairs = lab.table("results/e/tables/task_pairs.csv");
    assert!(pairs.len() >= 2 * 5 && pairs.iter().any(|row| row["task"] == "all"), "{pairs:?}");
    assert!(lab.read("results/e/plots/tasks.svg").contains("Accuracy, difference to dense"));
    // Other items are other results.
    lab.write(PIQA, lab.read(PIQA).replacen("\"label\": 0", "\"label\": 1", 1));
    lab.run(["plan", "e.toml"]).exits(0).says(&["3 cells, 3 to measure"]);
}

#[test]
fn a_changed_file_of_items_is_noticed() {
    let lab = lab(EXPERIMENT);
    lab.run(["run", "e.toml"]).exits(0);
    lab.run(["verify", "results/e"]).exits(0).says(&[" 0 different; "]);
    let file = items(&lab, "piqa").remove(0);
    let (path, text) = (file.to_str().unwrap(), lab.read(&file));
    let changed = text.replacen(",0,1,", ",1,0,", 1);
    let changed = if changed == text { text.replacen(",1,0,", ",0,1,", 1) } else { changed };
    assert_ne!(changed, text);
    for content in [Some(changed), None] {
        match content {
            Some(changed) => lab.write(path, changed),
            None => std::fs::remove_file(lab.path(&file)).unwrap(),
        }
        lab.run(["verify", "results/e"]).exits(100).says(&["missing or was changed"]);
        lab.run(["report", "results/e"]).exits(0).says(&[path, "missing or was changed"]);
        lab.run(["plan", "e.toml"]).exits(0).says(&["3 cells, 1 to measure"]);
        lab.run(["run", "e.toml"]).exits(0).says(&["1 cell measured, 2 cached"]);
        assert_eq!(lab.read(&file), text);
        lab.run(["plan", "e.toml"]).exits(0).says(&["3 cells, 0 to measure"]);
    }
}

#[test]
fn accuracies_are_expected_and_compared() {
    let expect = |task: &str, metric: &str, value: f64| {
        format!(
            "[[expect]]\nwhere = {{ variant = \"dense\" }}\ntask = \"{task}\"\nmetric = \"{metric}\"\nvalue = {value}\ntolerance = 0.01\n"
        )
    };
    let lab = lab(EXPERIMENT);
    lab.run(["run", "e.toml"]).exits(0);
    let rows = lab.table("results/e/tables/tasks.csv");
    let dense = |metric: &str| {
        let row = rows.iter().find(|row| row["variant"] == "dense" && row["metric"] == metric).unwrap();
        row["value"].parse::<f64>().unwrap()
    };
    let all = expect("piqa", "acc", dense("acc")) + &expect("piqa", "acc_norm", dense("acc_norm"));
    lab.write("e.toml", format!("{EXPERIMENT}{all}"));
    lab.run(["run", "e.toml"]).exits(0);
    lab.write("e.toml", format!("{EXPERIMENT}{}", expect("piqa", "acc", dense("acc") + 0.02)));
    lab.run(["run", "e.toml"]).exits(100).says(&["1 expectation missed"]);
    let row = lab.table("results/e/tables/expectations.csv").remove(0);
    assert_eq!((row["metric"].as_str(), row["verdict"].as_str()), ("piqa acc", "FAIL"));
    lab.run(["compare", "results/e", "variant=dense", "variant=masked"]).exits(0).prints(&["piqa acc", "p = "]);
    lab.run(["list", "tasks"]).exits(0).prints(&["lambada_openai", "wanda7"]);
    // Of another folder, with other items: no comparison.
    lab.write("f.toml", EXPERIMENT.replace("name = \"e\"", "name = \"f\"") + "# other\n");
    lab.write(PIQA, lab.read(PIQA).replacen("\"label\": 0", "\"label\": 1", 1));
    lab.run(["run", "f.toml"]).exits(0);
    lab.run(["compare", "results/e", "results/f"]).exits(0).prints(&["not comparable"]);
}

#[test]
fn shares_of_tasks_stand_in_the_terminal_and_on_the_page() {
    let two = EXPERIMENT.replace("[\"piqa\"]", "[\"piqa\", \"arc_easy\"]");
    let lab = lab(&two);
    let shown = lab.run(["run", "e.toml"]);
    let rows = lab.table("results/e/tables/tasks.csv");
    let value = |variant: &str, task: &str| {
        let is = |row: &&std::collections::BTreeMap<String, String>| {
            row["variant"] == variant && row["task"] == task && row["metric"] == "acc"
        };
        rows.iter().find(is).unwrap()["value"].parse::<f64>().unwrap()
    };
    let line = |variant: &str| {
        let mut lines = shown.exits(0).stdout.lines().skip_while(|line| !line.starts_with("accuracy"));
        let line = lines.find(|line| line.split_whitespace().any(|word| word == variant)).unwrap().to_owned();
        let numbers = line.split_whitespace().filter_map(|word| word.trim_end_matches(['*', '+', '†']).parse().ok());
        numbers.collect::<Vec<f64>>()
    };
    for variant in ["dense", "masked", "csr"] {
        let found = line(variant);
        let expected = ["piqa", "arc_easy", "mean"].map(|task| value(variant, task));
        let near = found.iter().rev().zip(expected.iter().rev()).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(near && found.len() >= 3, "{variant}: {found:?} {expected:?}");
    }
    let page = lab.read("results/e/report.html");
    assert!(page.contains("Tables for a paper") && page.contains("tasks: accuracy"));
    // Without tasks there is no such table.
    lab.write("f.toml", EXPERIMENT.replace(", \"tasks\"]", "]").replace("name = \"e\"", "name = \"f\""));
    let without = lab.run(["run", "f.toml"]);
    assert!(!without.exits(0).stdout.contains("accuracy"));
    assert!(!lab.read("results/f/report.html").contains("Tables for a paper"));
}

/// A model with room for an answer, and items of gsm8k, of which the model writes something.
fn writing(keys: &str) -> Lab {
    let lab = lab(&EXPERIMENT.replace("names = [\"piqa\"]", &format!("names = [\"gsm8k\"]\n{keys}")));
    let mut model = Model::golden("tiny-llama");
    model.config["max_position_embeddings"] = 700.into();
    model.save(&lab.path("model"));
    let items = |count: usize| -> String {
        let item = |i| format!("{{\"question\": \"What is {i} and 2?\", \"answer\": \"A sum.\\n#### {}\"}}\n", i + 2);
        (0..count).map(item).collect()
    };
    lab.write("sets/openai/gsm8k/main/test.jsonl", items(18));
    lab.write("sets/openai/gsm8k/main/train.jsonl", items(4));
    lab
}

#[test]
fn written_answers_are_kept_and_expected() {
    let lab = writing("shots = 2");
    lab.run(["run", "e.toml"]).exits(0);
    let kept = items(&lab, "gsm8k");
    assert_eq!(kept.len(), 3);
    let rows = lab.table("results/e/tables/tasks.csv");
    let metrics: Vec<&str> = rows.iter().take(2).map(|row| row["metric"].as_str()).collect();
    assert_eq!(metrics, ["exact_match_strict", "exact_match_flexible"]);
    assert!(rows.iter().all(|row| row["items"] == "18" && row["shots"] == "2"));
    // A number that the model never writes is never right.
    let expect = |metric: &str, value: &str| {
        format!(
            "[[expect]]\nwhere = {{ variant = \"dense\" }}\ntask = \"gsm8k\"\nmetric = \"{metric}\"\nvalue = {value}\ntolerance = 0.001\n"
        )
    };
    let text = lab.read("e.toml");
    let of = |metric: &str| rows.iter().find(|row| row["metric"] == metric).unwrap()["value"].clone();
    let both = expect("exact_match_strict", &of("exact_match_strict"))
        + &expect("exact_match_flexible", &of("exact_match_flexible"));
    lab.write("e.toml", format!("{text}{both}"));
    lab.run(["run", "e.toml"]).exits(0);
    lab.write("e.toml", format!("{text}{}", expect("exact_match_strict", "1.0")));
    lab.run(["run", "e.toml"]).exits(100).says(&["1 expectation missed"]);
    lab.write("e.toml", format!("{text}{}", expect("acc", "1.0")));
    lab.run(["check", "e.toml"]).exits(2).says(&[
        "`gsm8k` has no `acc`",
        "`exact_match_strict`",
        "`exact_match_flexible`",
    ]);
}

#[test]
fn a_model_without_room_for_an_answer_is_refused() {
    let lab = writing("shots = 0");
    let mut model = Model::golden("tiny-llama");
    model.save(&lab.path("model"));
    lab.run(["run", "e.toml"]).exits(3).says(&["an answer has up to 256 tokens", "128 positions"]);
    model.config["max_position_embeddings"] = 270.into();
    model.save(&lab.path("model"));
    lab.run(["run", "e.toml"]).exits(0).says(&["18 of the 18 items of `gsm8k` leave no room for an answer"]);
    lab.write("e.toml", lab.read("e.toml").replace("shots = 0", "shots = 5"));
    lab.run(["run", "e.toml"])
        .exits(3)
        .says(&["`tasks.shots` is 5, but the examples of `gsm8k`", "set `tasks.shots` to 4"]);
    std::fs::remove_file(lab.path("sets/openai/gsm8k/main/train.jsonl")).unwrap();
    lab.run(["run", "e.toml"])
        .exits(3)
        .says(&["no split `train`", "sets/openai/gsm8k/main/train-00000-of-00001.parquet"]);
}

#[test]
fn odd_items_are_asked_or_refused() {
    let lab = lab(&EXPERIMENT.replace("variants = [\"dense\", \"masked\", \"csr\"]", "variants = [\"dense\"]"));
    let item = |sol1: &str, label: &str| {
        format!(
            "{{\"label\": {label}, \"more\": [1], \"sol2\": \"the mat\", \"sol1\": \"{sol1}\", \"goal\": \"a dog\"}}\n"
        )
    };
    let shares = || -> Vec<(String, String)> {
        let rows = lab.table("results/e/tables/tasks.csv");
        rows.into_iter().take(1).map(|row| (row["value"].clone(), row["stderr"].clone())).collect()
    };
    let pair = |value: &str, error: &str| vec![(value.to_owned(), error.to_owned())];
    // Choices that are equal: the first is taken.
    lab.write(PIQA, item("the mat", "0") + &item("the mat", "1"));
    lab.run(["run", "e.toml"]).exits(0);
    assert_eq!(shares(), pair("0.5", "0.5"));
    // One item has no spread, and a label may be written as text.
    lab.write(PIQA, item("the mat", "\"0\""));
    lab.run(["run", "e.toml"]).exits(0);
    assert_eq!(shares(), pair("1", ""));
    // The same item several times, and a limit beyond the end.
    lab.write(PIQA, item("the mat", "1").repeat(3));
    lab.run(["run", "e.toml", "--set", "tasks.limit=1000"]).exits(0);
    assert_eq!(shares(), pair("0", "0"));
    for label in ["0.0", "null", "true", "-1", "2"] {
        lab.write(PIQA, item("cat", label));
        lab.run(["run", "e.toml"]).exits(3).says(&["`label` of row 1 of", "expected an integer from 0 to 1"]);
    }
    lab.write(PIQA, "");
    lab.run(["run", "e.toml"]).exits(3).says(&["piqa_validation.jsonl` has no rows"]);
    std::fs::remove_file(lab.path(PIQA)).unwrap();
    lab.write("sets/baber/piqa/piqa_validation.csv", "goal,sol1,sol2,label\n");
    lab.run(["run", "e.toml"]).exits(3).says(&["it has `.csv`", "sets/baber/piqa/piqa_validation.parquet"]);
}

#[test]
fn malformed_items_are_named_with_file_and_row() {
    let lab = lab(EXPERIMENT);
    let good = lab.read(PIQA);
    let long = "cat ".repeat(40);
    let cases = [
        ("{\"goal\": \"g\", \"sol1\": \"a\", \"label\": 0}".to_owned(), "no column `sol2`"),
        (
            "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": 2}".to_owned(),
            "expected an integer from 0 to 1, not 2",
        ),
        ("{\"goal\": \"g\", \"sol1\": \"\", \"sol2\": \"b\", \"label\": 0}".to_owned(), "it is empty"),
        ("{\"goal\": 3, \"sol1\": \"a\", \"sol2\": \"b\", \"label\": 0}".to_owned(), "expected a text, not a number"),
        (format!("{{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"{long}\", \"label\": 0}}"), "has 40 tokens, but"),
    ];
    for (row, message) in cases {
        lab.write(PIQA, format!("{good}{row}\n"));
        lab.run(["run", "e.toml"]).exits(3).says(&["row 13", "piqa_validation.jsonl"]).says(&[message]);
        assert!(!lab.path("results/e/cells").exists() || lab.cells().is_empty());
    }
    lab.write(PIQA, format!("{good}{{\"goal\": \n"));
    lab.run(["run", "e.toml"]).exits(3).says(&["piqa_validation.jsonl"]);
    // A context that is longer than the model is cut in front, and that is said.
    lab.write(PIQA, format!("{good}{{\"goal\": \"{long}\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": 0}}\n"));
    lab.run(["run", "e.toml"]).exits(0).says(&["1 of the 13 items of `piqa`"]);
}

#[test]
fn a_model_whose_logits_are_not_finite_fails_and_says_where() {
    let lab = lab(&EXPERIMENT.replace("variants = [\"dense\", \"masked\", \"csr\"]", "variants = [\"dense\"]"));
    let mut model = Model::tiny();
    let (_, weights) = model.tensors.get_mut("model.decoder.layers.0.fc2.weight").unwrap();
    weights.iter_mut().for_each(|number| *number *= 3e38);
    model.save(&lab.path("model"));
    lab.run(["run", "e.toml"]).exits(100).says(&["in the task `piqa`"]);
}
