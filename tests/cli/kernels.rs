//! `[[kernel]]` blocks from outside: bare kernels, timed without a model.

use crate::schema::{conforms, schema_of};
use crate::support::{Lab, ROOT, THREE_CELLS};
use serde_json::Value;
use std::path::Path;

/// Two shapes, two numbers of tokens, three weights: twelve cells of a millisecond.
fn quick() -> String {
    std::fs::read_to_string(Path::new(ROOT).join("experiments/kernels-quick.toml"))
        .unwrap()
        .replace("kernels-quick", "e")
}

const CELLS: usize = 12;

/// Cell and decision of every line, as `plan` says.
fn decisions(lab: &Lab, args: &[&str]) -> Vec<String> {
    let outcome = lab.run(["plan", "e.toml", "--output-format", "json"].into_iter().chain(args.iter().copied()));
    let shown = |line: &Value| {
        let kernel = &line["cell"];
        let action = if line["selected"] == true { line["decision"].as_str().unwrap() } else { "not selected" };
        let format = kernel["format"].as_str().unwrap();
        format!("{format} {}x{} {} {action}", kernel["shape"][0], kernel["shape"][1], kernel["tokens"])
    };
    outcome.exits(0).json_lines().iter().map(shown).collect()
}

#[test]
fn a_run_measures_every_kernel_once() {
    let lab = Lab::with(&quick());
    let first = lab.run(["run", "e.toml"]);
    first.exits(0).says(&[
        "[1/12] dense 64x64 1 token flex f32  ",
        " ms",
        "[3/12] csr 64x64 50 % 1 token flex f32  ",
        "x\n",
        "12 cells measured, 0 cached, 0 failed: results/e",
    ]);
    first.prints(&["format", "median_us", "speedup_vs_dense", "kernel", "dense-", "csr-"]);
    let before = lab.files("results/e/cells");
    assert_eq!(before.len(), CELLS);
    let second = lab.run(["run", "e.toml"]);
    second.exits(0).says(&["0 cells measured, 12 cached, 0 failed"]);
    assert_eq!(first.stdout, second.stdout);
    assert!(before == lab.files("results/e/cells"));
    // The report needs nothing but the cells.
    let report = lab.stable_report();
    for folder in ["results/e/tables", "results/e/plots"] {
        std::fs::remove_dir_all(lab.path(folder)).unwrap();
    }
    lab.run(["report", "results/e"]).exits(0);
    assert!(report == lab.stable_report());
}

#[test]
fn files_keep_to_their_schemas() {
    let lab = Lab::with(&quick());
    let events = lab.run(["run", "e.toml", "--output-format", "json"]).exits(0).json_lines();
    let schema = schema_of("events");
    events.iter().for_each(|event| conforms(event, &schema));
    assert_eq!(
        events.iter().filter(|event| event["cell"]["kind"] == "kernel" && event["cached"] == false).count(),
        CELLS
    );
    let schema = schema_of("cell");
    for (id, cell) in lab.cells() {
        conforms(&cell, &schema);
        assert_eq!(cell["id"], id.as_str());
        let measured = &cell["results"][0]["result"]["times"];
        assert_eq!(measured["seconds"].as_array().unwrap().len(), 5);
        assert!(measured["dense_seconds"].as_f64().unwrap() > 0.0 && measured["copies"].as_u64().unwrap() > 1);
    }
    conforms(&serde_json::from_str(&lab.read("results/e/manifest.json")).unwrap(), &schema_of("manifest"));
}

#[test]
fn tables_and_plots_have_the_names_of_the_interface() {
    let lab = Lab::with(&quick());
    lab.run(["run", "e.toml"]).exits(0);
    let header = |table: &str| lab.read(format!("results/e/tables/{table}.csv")).lines().next().unwrap().to_owned();
    assert_eq!(
        header("kernels"),
        "cell,format,backend,dtype,out_features,in_features,tokens,sparsity_target,sparsity,repeats,median_us,p95_us,\
         min_us,bytes,gflops,gbps,roofline_fraction,speedup_vs_dense,max_rel_err,kernel,median_low_us,median_high_us"
    );
    assert_eq!(
        header("break_even"),
        "format,backend,dtype,out_features,in_features,tokens,break_even_sparsity,note,break_even_low,break_even_high"
    );
    let tables: Vec<String> = lab.files("results/e/tables").into_keys().collect();
    let named = |name: &str| ["csv", "md", "tex"].map(|extension| format!("{name}.{extension}"));
    assert_eq!(tables, [named("break_even"), named("kernels")].concat(), "no table about models");
    let mut plots: Vec<String> = lab.files("results/e/plots").into_keys().collect();
    plots.retain(|name| name.ends_with(".png"));
    assert_eq!(plots, ["roofline-flex-f32.png", "speedup-flex-f32-128x64.png", "speedup-flex-f32-64x64.png"]);

    let rows = lab.table("results/e/tables/kernels.csv");
    assert_eq!(rows.len(), CELLS);
    let number = |row: &std::collections::BTreeMap<String, String>, column: &str| row[column].parse::<f64>().unwrap();
    for row in &rows {
        let dense = row["format"] == "dense";
        assert_eq!(row["sparsity_target"].is_empty(), dense);
        assert_eq!(number(row, "sparsity"), if dense { 0.0 } else { number(row, "sparsity_target") });
        assert!(number(row, "min_us") <= number(row, "median_us") && number(row, "median_us") <= number(row, "p95_us"));
        assert!(number(row, "max_rel_err") < 1e-4 && number(row, "roofline_fraction") > 0.0);
        assert_eq!(dense, number(row, "speedup_vs_dense") == 1.0 && row["kernel"].starts_with("dense-"));
    }
    let of = |format: &str, tokens: &str| {
        rows.iter()
            .find(|row| row["format"] == format && row["tokens"] == tokens && row["out_features"] == "128")
            .unwrap()
    };
    // A weight of 128 x 64 and, of each token, 64 numbers in and 128 out.
    assert_eq!(number(of("dense", "8"), "bytes"), (4 * (128 * 64 + 8 * (64 + 128))) as f64);
    // Five bytes a kept weight, at most a quarter of padding and index, and the numbers in and out.
    let kept = (128 * 64 / 2 * 5) as f64;
    let stored = number(of("csr", "1"), "bytes") - (4 * (64 + 128)) as f64;
    assert!(kept < stored && stored < 1.25 * kept, "{stored}");
}

#[test]
fn dense_is_timed_again_beside_new_sparse_cells() {
    let lab = Lab::with(&quick());
    lab.run(["run", "e.toml", "-s", "kernel.sparsity=0.5"]).exits(0).says(&["8 cells measured"]);
    let more = ["--only", "sparsity=0.75, out_features=64, tokens<8"];
    let expected = |word: &str| {
        let matrix = |shape: &str, dense: &str, csr: &str| {
            [format!("dense {shape} 1 {dense}"), format!("dense {shape} 8 not selected")]
                .into_iter()
                .chain(["csr", "csr"].map(|format| format!("{format} {shape} {{}} not selected")))
                .chain([format!("csr {shape} 1 {csr}"), format!("csr {shape} 8 not selected")])
                .collect::<Vec<_>>()
        };
        let mut all = matrix("64x64", word, if word == "rerun" { "new" } else { "cached" });
        all.extend(matrix("128x64", "not selected", "not selected"));
        for shape in [2, 8] {
            all[shape] = all[shape].replace("{}", "1");
            all[shape + 1] = all[shape + 1].replace("{}", "8");
        }
        all
    };
    assert_eq!(decisions(&lab, &more), expected("rerun"));
    let plan = lab.run(["plan", "e.toml"].into_iter().chain(more));
    plan.exits(0).prints(&["format", "rerun", "dense", "64", "new", "csr"]).says(&[
        "rerun: timed beside the sparse kernels that are compared with it",
        "12 cells, 2 to measure, ",
        "at most about",
    ]);
    lab.run(["run", "e.toml"].into_iter().chain(more)).exits(0).says(&["2 cells measured, 0 cached"]);
    // Now both are there: the dense cell is in no one's company.
    assert_eq!(decisions(&lab, &more), expected("not selected"));
    // Without `--only` the cells that are there stay, the rest runs with its dense cells.
    lab.run(["run", "e.toml"]).exits(0).says(&["6 cells measured, 6 cached"]);
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured, 12 cached"]);
}

#[test]
fn a_limit_comes_to_an_end_in_the_end() {
    let lab = Lab::with(&quick());
    let one_shape = ["run", "e.toml", "-s", "kernel.shape=[64, 64]"];
    for _ in 0..CELLS / 2 {
        lab.run(one_shape.into_iter().chain(["--limit", "1"])).exits(0);
    }
    lab.run(one_shape).exits(0).says(&["0 cells measured, 6 cached"]);
}

#[test]
fn partitions_keep_a_matrix_together() {
    let lab = Lab::with(&quick());
    let part = decisions(&lab, &["--partition", "slice:2/2"]);
    for line in &part {
        let selected = !line.ends_with("not selected");
        assert_eq!(selected, line.contains("128x64"), "{part:?}");
    }
    lab.run(["run", "e.toml", "--partition", "slice:2/2"]).exits(0).says(&["6 cells measured, 0 cached, 0 failed, 6"]);
    lab.run(["run", "e.toml", "--partition", "slice:1/2"]).exits(0).says(&["6 cells measured, 0 cached"]);
}

#[test]
fn models_and_kernels_share_a_file() {
    let block = "[[kernel]]\nshape = [16, 8]\ntokens = 2\nsparsity = 0.5\nformat = \"csr\"\nwarmup = 0\nrepeats = 2\n";
    let lab = Lab::tiny(&format!("{THREE_CELLS}{block}"));
    let run = lab.run(["run", "e.toml"]);
    run.exits(0).says(&["[1/5] path:model Dense", "[4/5] dense 16x8 2 tokens", "[5/5] csr 16x8 50 % 2 tokens"]);
    run.prints(&["size_mb", "dense", "csr", "masked takes", "\n\nformat", "dense-"]);
    assert_eq!(
        (lab.table("results/e/tables/summary.csv").len(), lab.table("results/e/tables/kernels.csv").len()),
        (3, 2)
    );
    // A condition on a column of one kind selects none of the other.
    lab.run(["plan", "e.toml", "--only", "variant!=csr"]).exits(0).says(&["5 cells, 0 to measure"]);
    let only =
        |expr: &str| lab.run(["plan", "e.toml", "--only", expr, "--output-format", "json"]).exits(0).json_lines();
    let selected = |expr: &str| only(expr).iter().filter(|line| line["selected"] == true).count();
    assert_eq!([selected("variant!=csr"), selected("format!=csr"), selected("sparsity=0.5")], [2, 1, 3]);
}

#[test]
fn a_kernel_that_the_backend_cannot_run_is_a_failed_cell() {
    let lab = Lab::with(&quick());
    lab.run(["run", "e.toml"]).exits(0);
    let (id, mut cell) =
        lab.cells().into_iter().find(|(_, cell)| cell["cell"]["format"] == "csr").expect("there is one");
    let times = cell["results"][0]["id"].clone();
    cell["results"] = Value::Array(Vec::new());
    cell["failure"] = serde_json::json!({ "kind": "gate", "message": "gate missed", "gate": null, "parts": [times] });
    lab.write_cell(&id, cell);
    let kept = lab.run(["run", "e.toml", "--rerun", "none"]);
    kept.exits(100).says(&["0 cells measured, 12 cached, 1 failed"]);
    let row = lab.table("results/e/tables/kernels.csv").into_iter().find(|row| row["cell"] == id).unwrap();
    assert_eq!((row["median_us"].as_str(), row["kernel"].as_str(), row["format"].as_str()), ("", "", "csr"));
    // It and its dense cell.
    lab.run(["run", "e.toml"]).exits(0).says(&["2 cells measured, 10 cached, 0 failed"]);
}

#[test]
fn mistakes_have_their_place() {
    let run = |from: &str, to: &str| {
        assert!(quick().contains(from), "nothing to change: {from}");
        Lab::with(&quick().replace(from, to)).run(["run", "e.toml"])
    };
    run("[128, 64]", "[128]").exits(2).prints_nothing().says(&["`kernel.shape[1]` is no pair", "[out_features, in_"]);
    run("\n[[kernel]]", "\n[[prune]]\nmethod = \"random\"\nsparsity = 0.5\n[[kernel]]")
        .exits(2)
        .says(&["`[[prune]]` needs a model", "there is no `[model]` section"]);
    let unknown = Lab::with(&quick()).run(["run", "e.toml", "-s", "kernel.shapes=[1, 2]"]);
    unknown.exits(2).says(&["unknown path `kernel.shapes`", "did you mean `kernel.shape`?"]);
    Lab::with(&quick()).run(["run", "e.toml", "--only", "format=bitmap"]).exits(4).prints_nothing();
    Lab::with(&quick()).run(["check", "e.toml"]).exits(0).says(&["e.toml: ok"]);
}
