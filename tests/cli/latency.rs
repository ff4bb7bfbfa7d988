//! What is timed: columns, rows, names of cells, and what can't be timed. No test looks at how fast it is.

use crate::schema::{conforms, schema_of};
use crate::support::{Lab, THREE_CELLS};
use std::collections::BTreeMap;

pub const TIMED: &str = r#"name = "e"
[model]
source = "builtin:tiny-opt"
[data]
context = 16
[[prune]]
method = "magnitude"
sparsity = 0.5
[execute]
warmup = 0
repeats = 2
[measure]
metrics = ["structure", "latency"]
prompt = 8
generate = 4
"#;
const KEY: &str = "cell,setup,model,method,scope,pattern,sparsity_target,seed,variant,backend,dtype";

pub type Row = BTreeMap<String, String>;

pub fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?}"))
}

#[test]
fn a_run_gives_the_tables_of_the_interface_once() {
    let lab = Lab::with(TIMED);
    lab.run(["run", "e.toml"]).exits(0);
    let header = |name: &str| lab.read(format!("results/e/tables/{name}.csv")).lines().next().unwrap().to_owned();
    let latency = "phase,batch,tokens,repeats,mean_ms,sd_ms,median_ms,p95_ms,min_ms,tokens_per_s,speedup_vs_dense,peak_bytes,\
         median_low_ms,median_high_ms,speedup_low,speedup_high,same_kernels_as";
    assert_eq!(header("latency"), format!("{KEY},{latency}"));
    let parts = "phase,batch,tokens,whole_ms,linears_ms,attention_ms,other_ms";
    assert_eq!(header("latency_parts"), format!("{KEY},{parts}"));
    let rows: Vec<Row> = lab.table("results/e/tables/latency.csv");
    let named: Vec<[&str; 5]> =
        rows.iter().map(|row| ["setup", "phase", "batch", "tokens", "repeats"].map(|c| row[c].as_str())).collect();
    let both = |setup| [[setup, "prefill", "1", "8", "2"], [setup, "decode", "1", "4", "2"]];
    assert_eq!(named, [both("Dense"), both("Masked50"), both("CSR50")].concat());
    for row in &rows {
        let tokens = if row["phase"] == "prefill" { 8.0 } else { 1.0 };
        let (median, speed) = (number(row, "median_ms"), number(row, "tokens_per_s"));
        assert!((speed * median / 1e3 / tokens - 1.0).abs() < 1e-9, "{row:?}");
        assert!(number(row, "min_ms") <= median && median <= number(row, "p95_ms"), "{row:?}");
        assert!(number(row, "sd_ms") >= 0.0 && number(row, "peak_bytes") > 0.0);
        let dense = rows.iter().find(|r| r["variant"] == "dense" && r["phase"] == row["phase"]).unwrap();
        let speedup = number(dense, "median_ms") / median;
        assert!((number(row, "speedup_vs_dense") / speedup - 1.0).abs() < 1e-9, "{row:?}");
        assert!(row["variant"] != "dense" || row["speedup_vs_dense"] == "1");
    }
    let parts: Vec<Row> = lab.table("results/e/tables/latency_parts.csv");
    assert_eq!(parts.len(), rows.len());
    assert!(parts.iter().all(|row| number(row, "linears_ms") > 0.0 && number(row, "attention_ms") > 0.0));
    for extension in ["csv", "svg", "png"] {
        assert!(lab.path(format!("results/e/plots/latency.{extension}")).exists(), "{extension}");
    }
    let schema = schema_of("cell");
    lab.cells().values().for_each(|cell| conforms(cell, &schema));

    let again = lab.run(["run", "e.toml", "--output-format", "json"]);
    let events = again.exits(0).json_lines();
    let done = events.last().unwrap();
    assert_eq!((&done["ran"], &done["kept"]), (&0.into(), &3.into()));
    assert_eq!(lab.table("results/e/tables/latency.csv"), rows);
}

#[test]
fn every_batch_size_is_timed_with_every_prompt() {
    let lab = Lab::with(TIMED);
    let axes = ["-s", "measure.batch=[1, 3]", "-s", "measure.prompt=[5, 8]", "-s", "execute.variants=[\"csr\"]"];
    lab.run(["run", "e.toml"].into_iter().chain(axes)).exits(0);
    let rows: Vec<Row> = lab.table("results/e/tables/latency.csv");
    let named: Vec<[&str; 3]> = rows.iter().map(|row| ["phase", "batch", "tokens"].map(|c| row[c].as_str())).collect();
    let expected: Vec<[&str; 3]> = [["1", "5"], ["1", "8"], ["3", "5"], ["3", "8"]]
        .into_iter()
        .flat_map(|[batch, prompt]| [["prefill", batch, prompt], ["decode", batch, "4"]])
        .collect();
    assert_eq!(named, expected);
    // The dense model was not run, so that there is nothing to compare with.
    assert!(rows.iter().all(|row| row["speedup_vs_dense"].is_empty()));
}

#[test]
fn what_is_timed_is_in_the_name_of_its_results_and_of_no_others() {
    let lab = Lab::tiny(&THREE_CELLS.replace("[measure]", "[execute]\nwarmup = 1\n[measure]"));
    // The names of cells and of groups of results.
    let ids = |settings: &[&str], group: &str| -> Vec<(String, Option<String>)> {
        let args = ["plan", "e.toml", "--output-format", "json"].into_iter();
        let lines = lab.run(args.chain(settings.iter().flat_map(|s| ["-s", *s]))).exits(0).json_lines();
        let word = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        lines.iter().map(|line| (word(&line["id"]).unwrap(), word(&line["parts"][group]))).collect()
    };
    let plain = ids(&[], "structure");
    let timed = ["measure.metrics=[\"structure\", \"latency\"]", "measure.prompt=4", "measure.generate=4"];
    let base = ids(&timed, "latency");
    assert!(base.iter().all(|(_, latency)| latency.is_some()));
    for setting in [
        "execute.warmup=2",
        "execute.repeats=3",
        "measure.batch=2",
        "measure.prompt=5",
        "measure.generate=2",
        "device.threads=3",
    ] {
        let changed = [&timed[..], &[setting]].concat();
        assert_eq!(ids(&changed, "structure"), plain, "{setting}");
        let latency = ids(&changed, "latency");
        assert!(latency.iter().zip(&base).all(|(a, b)| a.0 == b.0 && a.1 != b.1), "{setting}");
    }
    assert_eq!(ids(&timed, "latency"), base);
}

#[test]
fn a_prompt_longer_than_the_model_is_an_error_of_the_file() {
    let lab = Lab::tiny(&THREE_CELLS.replace("metrics = [\"structure\", \"agreement\"]", "metrics = [\"latency\"]"));
    for verb in ["plan", "run"] {
        lab.run([verb, "e.toml"]).exits(2).prints_nothing().says(&[
            "`measure.prompt` 128 and `measure.generate` 32 are 160 tokens, but `path:model` has 16 positions",
            "set `measure.prompt` and `measure.generate` to 16 or less together",
        ]);
        assert!(!lab.path("results").exists());
    }
    let most = i64::MAX.to_string();
    for (key, value) in [("measure.prompt", most.as_str()), ("measure.generate", &most)] {
        lab.run(["plan", "e.toml", "-s", &format!("{key}={value}")])
            .exits(2)
            .says(&["`measure.prompt`", "16 positions"]);
    }
    lab.run(["plan", "e.toml", "-s", "measure.prompt=12", "-s", "measure.generate=4"]).exits(0);
}

#[test]
fn keys_without_the_metric_are_told() {
    let lab = Lab::with(&TIMED.replace(", \"latency\"", ""));
    let outcome = lab.run(["check", "e.toml"]);
    outcome.exits(0);
    for key in ["execute.warmup", "execute.repeats", "measure.prompt", "measure.generate"] {
        outcome.says(&[&format!("`{key}` has no effect"), "add `latency` to `metrics` under `[measure]`"]);
    }
    lab.run(["check", "e.toml", "-s", "measure.batch=0"]).exits(2).says(&["`measure.batch` is out of range"]);
}
