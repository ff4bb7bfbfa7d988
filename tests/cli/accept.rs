//! Cells of another version that somebody takes as current.

use crate::support::{Lab, THREE_CELLS};
use serde_json::Value;

/// Makes cells as an earlier version would have written them: those of a variant, or all.
fn age(lab: &Lab, variant: Option<&str>, version: &str) {
    for (id, mut cell) in lab.cells() {
        if variant.is_none_or(|variant| cell["cell"]["variant"] == variant) {
            cell["results"]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|part| part["program"]["version"] = version.into());
            lab.write_cell(&id, cell);
        }
    }
}

fn decisions(lab: &Lab, args: &[&str]) -> Vec<(String, String)> {
    let plan = lab.run(["plan", "e.toml", "--output-format", "json"].into_iter().chain(args.iter().copied()));
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    plan.exits(0).json_lines().iter().map(|line| (word(line, "decision"), word(line, "reason"))).collect()
}

fn words(lab: &Lab, args: &[&str]) -> Vec<String> {
    decisions(lab, args).into_iter().map(|(word, _)| word).collect()
}

#[test]
fn stale_cells_are_accepted_with_who_when_and_why() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    age(&lab, None, "0.0.1");
    assert_eq!(words(&lab, &[]), ["stale"; 3]);
    lab.run(["status", "results/e"]).exits(0).says(&[
        "3 cells by another version",
        "--rerun stale",
        "3 of 3 cells done",
    ]);
    let before = lab.files("results/e/cells");
    let accepted =
        lab.run(["accept", "results/e", "--by", "Ann", "--why", "only messages have changed", "--only", "variant=csr"]);
    accepted.exits(0).prints(&["CSR50", "0.0.1"]).says(&["1 cell accepted for", "by Ann: results/e/accepted/"]);
    assert_eq!(words(&lab, &[]), ["stale", "stale", "cached"]);
    let status = lab.run(["status", "results/e", "--output-format", "json"]).exits(0).json_lines().remove(0);
    assert_eq!((&status["done"], &status["stale"]), (&3.into(), &2.into()));
    let reason = &decisions(&lab, &[])[2].1;
    assert!(reason.starts_with("cached: made by 0.0.1") && reason.contains("accepted by Ann at 2"), "{reason}");
    assert!(reason.ends_with(": only messages have changed"), "{reason}");
    lab.run(["accept", "results/e", "--by", "Bo", "--why", "the same"]).exits(0).says(&["2 cells accepted"]);
    // Nothing of it touches a cell, and what is asked for is still measured.
    assert!(lab.files("results/e/cells") == before);
    lab.run(["run", "e.toml", "--rerun", "stale"]).exits(0).says(&["0 cells measured, 3 cached"]);
    assert_eq!(words(&lab, &["--rerun", "all"]), ["rerun"; 3]);
    lab.run(["accept", "results/e", "--why", "again", "--by", "Bo"])
        .exits(4)
        .says(&["`results/e` has no stale cell", "hint: "]);
    let record: Value = lab
        .files("results/e/accepted")
        .into_values()
        .map(|bytes| serde_json::from_slice(&bytes).unwrap())
        .next()
        .unwrap();
    assert!(record["who"].is_string() && record["when"].is_string() && record["why"].is_string());
}

#[test]
fn an_acceptance_is_of_one_maker_and_for_one_program() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    age(&lab, None, "0.0.1");
    lab.run(["accept", "results/e", "--by", "Ann", "--why", "w"]).exits(0);
    // What a third version made is not what she has looked at.
    age(&lab, Some("masked"), "0.0.2");
    assert_eq!(words(&lab, &[]), ["cached", "stale", "cached"]);
    // For the next program all of it is stale again.
    for (name, bytes) in lab.files("results/e/accepted") {
        let mut record: Value = serde_json::from_slice(&bytes).unwrap();
        record["program"]["version"] = "0.0.9".into();
        lab.write(&format!("results/e/accepted/{name}"), record.to_string());
    }
    assert_eq!(words(&lab, &[]), ["stale"; 3]);
    // A file that is none accepts nothing, and takes nothing with it.
    lab.write("results/e/accepted/x.json", "{");
    assert_eq!(words(&lab, &[]), ["stale"; 3]);
}

#[test]
fn nobody_accepts_without_a_reason_or_what_cannot_be_believed() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    age(&lab, None, "0.0.1");
    lab.run(["accept", "results/e", "--by", "Ann"]).exits(2).says(&["--why"]);
    lab.run(["accept", "results/e", "--by", "Ann", "--why", "  "]).exits(2).says(&["`--why` says nothing"]);
    let (id, cell) = lab.cells().into_iter().next().unwrap();
    lab.write(&format!("results/e/cells/{id}.json"), cell.to_string().replace("0.0.1", "0.0.3"));
    lab.run(["accept", "results/e", "--by", "Ann", "--why", "w"]).exits(0).says(&[
        "warning: ",
        &id,
        "was changed after it was written: not accepted",
        "2 cells accepted",
    ]);
    lab.run(["accept", "nowhere", "--by", "Ann", "--why", "w"]).exits(4).says(&["`nowhere` has no stale cell"]);
}

#[test]
fn a_plan_says_in_words_why_each_cell_is_what_it_is() {
    let lab = Lab::tiny(THREE_CELLS);
    assert!(decisions(&lab, &[]).iter().all(|(_, reason)| reason == "new: never measured"));
    lab.run(["run", "e.toml", "--limit", "2"]).exits(0);
    age(&lab, Some("dense"), "0.0.1");
    let (id, mut cell) = lab.cells().into_iter().find(|(_, cell)| cell["cell"]["variant"] == "masked").unwrap();
    cell["timings"]["load_seconds"] = 9.5.into();
    lab.write(&format!("results/e/cells/{id}.json"), cell.to_string());
    let [stale, retry, new] = &decisions(&lab, &[])[..] else { panic!("three cells") };
    assert!(stale.1.starts_with("stale: made by 0.0.1") && stale.1.contains(", and this is 0.1.0"), "{}", stale.1);
    assert!(retry.1.starts_with("retry: `") && retry.1.ends_with("was changed after it was written"), "{}", retry.1);
    assert_eq!(new.1, "new: never measured");
    assert_eq!(decisions(&lab, &["--rerun", "all"])[0].1, "rerun: `--rerun` asks for it");
}
