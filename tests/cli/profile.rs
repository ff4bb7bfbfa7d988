//! `run --profile`: where a token's time goes. No test looks at how long anything takes.

use crate::latency::{Row, TIMED, number};
use crate::schema::{conforms, schema_of};
use crate::support::Lab;

#[test]
fn every_stage_of_a_token_is_a_row_and_a_bar() {
    let lab = Lab::with(TIMED);
    lab.run(["run", "e.toml", "--profile", "-s", "measure.batch=[1, 2]"]).exits(0);
    let rows: Vec<Row> = lab.table("results/e/tables/profile.csv");
    for setup in ["Dense", "Masked50", "CSR50"] {
        for batch in ["1", "2"] {
            let of: Vec<&Row> = rows.iter().filter(|row| row["setup"] == setup && row["batch"] == batch).collect();
            let shares: f64 =
                of.iter().filter(|row| row["stage"] != "whole").map(|row| number(row, "time_share")).sum();
            assert!((shares - 1.0).abs() < 1e-9, "{setup} {batch}: {shares}");
            for row in &of {
                assert_eq!([row["clock"].as_str(), &row["prompt"], &row["tokens"]], ["host", "8", "4"], "{row:?}");
                assert!(number(row, "min_us") <= number(row, "median_us") && number(row, "calls") >= 1.0, "{row:?}");
            }
            let stage = |name: &str| of.iter().find(|row| row["stage"] == name).unwrap_or_else(|| panic!("{name}"));
            assert!(stage("attention")["kernel"].is_empty() && stage("whole")["time_share"].is_empty());
            let kernel = if setup == "CSR50" { "csr" } else { "dense" };
            assert!(stage("fc1")["kernel"].starts_with(kernel), "{:?}", stage("fc1"));
            // The head is not pruned.
            assert!(stage("lm_head")["kernel"].starts_with("dense"), "{:?}", stage("lm_head"));
        }
    }
    for extension in ["csv", "svg", "png"] {
        assert!(lab.path(format!("results/e/plots/profile.{extension}")).exists(), "{extension}");
    }
    let drawn = lab.read("results/e/plots/profile.csv");
    assert!(drawn.contains("CSR50,fc1,") && drawn.contains("Dense,attention,"), "{drawn}");
    let schema = schema_of("cell");
    lab.cells().values().for_each(|cell| conforms(cell, &schema));
    // What is asked for once is shown by others, too.
    lab.run(["report", "results/e"]).exits(0);
    assert_eq!(lab.table("results/e/tables/profile.csv"), rows);
}

#[test]
fn cells_that_were_timed_before_are_told_and_profiled_when_run_again() {
    let lab = Lab::with(TIMED);
    lab.run(["run", "e.toml"]).exits(0);
    assert!(!lab.path("results/e/tables/profile.csv").exists());
    lab.run(["run", "e.toml", "--profile"]).exits(0).says(&["3 cells timed before: `--rerun all` profiles them too"]);
    assert!(!lab.path("results/e/tables/profile.csv").exists());
    let names = lab.cells().into_keys().collect::<Vec<_>>();
    lab.run(["run", "e.toml", "--profile", "--rerun", "all", "--only", "variant=csr"]).exits(0);
    let rows: Vec<Row> = lab.table("results/e/tables/profile.csv");
    assert!(!rows.is_empty() && rows.iter().all(|row| row["setup"] == "CSR50"));
    // A profile is no part of what a cell is.
    assert_eq!(lab.cells().into_keys().collect::<Vec<_>>(), names);
}

#[test]
fn nothing_is_profiled_that_is_not_timed() {
    for metrics in ["[\"structure\"]", "[\"structure\", \"perplexity\"]"] {
        let lab = Lab::with(TIMED);
        let set = format!("measure.metrics={metrics}");
        let says = ["`--profile` looks into what is timed", "add `latency` to `metrics`"];
        lab.run(["run", "e.toml", "--profile", "-s", &set]).exits(2).prints_nothing().says(&says);
        assert!(!lab.path("results").exists());
    }
}
