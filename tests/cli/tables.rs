//! `[[table]]`: tables for a paper.

use crate::support::{Lab, THREE_CELLS};

/// Two methods at a sparsity and a pattern, one of them with three seeds.
const EXPERIMENT: &str = r#"name = "e"
seed = [0, 1, 2]
[model]
source = "path:model"
[data]
agreement = "file:texts.txt"
[[prune]]
method = ["magnitude", "random"]
sparsity = 0.5
[[prune]]
method = ["magnitude", "random"]
pattern = "2:4"

[[table]]
id = "main"
rows = ["method"]
columns = ["sparsity_target"]
value = "top1_match"
best = "max"
digits = 3

[[table]]
id = "shares"
from = "groups"
rows = ["group"]
columns = ["variant"]
value = "sparsity"
where = { method = "magnitude", pattern = "2:4" }
"#;

#[test]
fn tables_are_made_from_a_run_and_again_from_its_cells() {
    let lab = Lab::tiny(EXPERIMENT);
    let run = lab.run(["run", "e.toml"]);
    run.exits(0).prints(&[
        "main: top1_match; * best, + second",
        "method",
        "50 %",
        "2:4",
        "dense",
        "magnitude",
        "random",
    ]);
    let read = |name: &str| std::fs::read_to_string(lab.path(format!("results/e/tables/{name}"))).unwrap();
    let (latex, markdown) = (read("main.tex"), read("main.md"));
    assert!(latex.contains("\\usepackage{booktabs}") && latex.contains("\\textbf{"), "{latex}");
    assert!(markdown.contains("| method | 50 % | 2:4 |\n|---|---:|---:|\n| dense | 1.000 | 1.000 |\n"), "{markdown}");
    let rows = lab.table("results/e/tables/main.csv");
    assert_eq!(rows.iter().map(|row| row["method"].as_str()).collect::<Vec<_>>(), ["dense", "magnitude", "random"]);
    assert_eq!((rows[1]["50 % seeds"].as_str(), rows[2]["50 % seeds"].as_str()), ("1", "3"));
    let spread = lab.table("results/e/tables/spread.csv");
    let random = spread.iter().find(|row| row["method"] == "random" && row["pattern"] == "2:4").unwrap();
    assert_eq!((&rows[2]["2:4"], &rows[2]["2:4 sd"]), (&random["top1_match_mean"], &random["top1_match_sd"]));
    let groups = lab.table("results/e/tables/shares.csv");
    assert!(groups[0].contains_key("dense") && groups[0].contains_key("masked"), "{groups:?}");
    for name in ["main.tex", "main.md", "main.csv"] {
        std::fs::remove_file(lab.path(format!("results/e/tables/{name}"))).unwrap();
    }
    assert_eq!(lab.run(["report", "results/e"]).exits(0).stdout, run.stdout);
    assert_eq!((read("main.tex"), read("main.md")), (latex, markdown));
    // Without the block, what it made goes, and nothing is measured.
    let without = lab.run(["run", "e.toml", "-s", "table=[]"]);
    without.exits(0).says(&["0 cells measured"]);
    assert!(!lab.path("results/e/tables/main.tex").exists() && lab.path("results/e/tables/summary.tex").exists());
}

#[test]
fn a_table_that_cannot_be_made_is_named_and_all_else_is_written() {
    for (rest, said) in [
        (
            "rows = [\"variant\"]\nvalue = \"size_mb\"\nwhere = { method = \"wanda\" }",
            "no row of `summary` has `method = wanda`",
        ),
        ("from = \"groups\"\nrows = [\"module\"]\nvalue = \"bytes\"", "`groups` has no column `module`"),
        ("from = \"groups\"\nrows = [\"group\"]\nvalue = \"bytes\"", "add `variant` to `rows` or `columns`"),
    ] {
        let lab = Lab::tiny(&format!("{THREE_CELLS}[[table]]\nid = \"t\"\n{rest}\n"));
        let outcome = lab.run(["run", "e.toml"]);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert_eq!(lab.table("results/e/tables/summary.csv").len(), 3);
        assert_eq!(lab.run(["report", "results/e"]).code, Some(2));
    }
}

#[test]
fn a_plan_knows_how_long_it_may_take() {
    let lab = Lab::tiny(THREE_CELLS);
    let new = lab.run(["plan", "e.toml"]);
    assert!(!new.exits(0).stderr.contains("judging by"), "{}", new.stderr);
    lab.run(["run", "e.toml"]).exits(0);
    for more in ["prune.sparsity=[0.5,0.6]", "prune.sparsity=[0.7]"] {
        let plan = lab.run(["plan", "e.toml", "-s", more]);
        plan.exits(0).says(&["to measure, ", "judging by 3 cells already measured"]);
    }
}
