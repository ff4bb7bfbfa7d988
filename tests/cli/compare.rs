//! `compare`: two folders, or two setups of one, side by side.

use crate::snapshots::as_kept;
use crate::support::{Lab, Outcome, THREE_CELLS};
use serde_json::Value;

/// Magnitude, and random over three seeds, at two sparsities.
fn two_methods() -> Lab {
    let text = THREE_CELLS.replace("name = \"e\"", "name = \"e\"\nseed = [0, 1, 2]");
    let lab = Lab::tiny(
        &text.replace("\"magnitude\"\nsparsity = 0.5", "[\"magnitude\", \"random\"]\nsparsity = [0.25, 0.5]"),
    );
    lab.run(["run", "e.toml"]).exits(0);
    lab
}

fn compare(lab: &Lab, args: &[&str]) -> Outcome {
    lab.run(["compare"].into_iter().chain(args.iter().copied()))
}

/// The rows of a metric.
fn rows(outcome: &Outcome, metric: &str) -> Vec<Value> {
    outcome.exits(0).json_lines().into_iter().filter(|row| row["metric"] == metric).collect()
}

fn json(lab: &Lab, args: &[&str]) -> Outcome {
    compare(lab, &[args, &["--output-format", "json"]].concat())
}

#[test]
fn two_setups_of_a_folder_stand_side_by_side() {
    let lab = two_methods();
    let methods = ["results/e", "method=magnitude", "method=random", "--only", "variant=masked"];
    let rows_of = |metric: &str| rows(&json(&lab, &methods), metric);
    let kl = rows_of("kl_nats");
    assert_eq!(kl.len(), 2);
    // The tables have the same means and deviations.
    let spread = lab.table("results/e/tables/spread.csv");
    for row in &kl {
        let of = |method: &str| {
            let at = |of: &&std::collections::BTreeMap<String, String>| {
                of["method"] == method
                    && of["variant"] == "masked"
                    && row["sparsity_target"].as_f64() == of["sparsity_target"].parse().ok()
            };
            spread.iter().find(at).unwrap()
        };
        let number = |text: &str| text.parse::<f64>().unwrap();
        let (a, b) = (number(&of("magnitude")["kl_nats_mean"]), number(&of("random")["kl_nats_mean"]));
        assert!((row["a"].as_f64().unwrap() - a).abs() < 1e-12 && (row["b"].as_f64().unwrap() - b).abs() < 1e-12);
        assert!((row["ratio"].as_f64().unwrap() - b / a).abs() < 1e-9);
        let sd = number(&of("random")["kl_nats_sd"]);
        assert!((row["sd_b"].as_f64().unwrap() - sd).abs() < 1e-12);
        assert!((row["ratio_sd"].as_f64().unwrap() - sd / a).abs() < 1e-9);
        assert_eq!((&row["n_a"], &row["n_b"], row["sd_a"].is_null()), (&1.into(), &3.into(), true));
        let expected = if (b - a).abs() <= sd {
            "inconclusive"
        } else if b < a {
            "b"
        } else {
            "a"
        };
        assert_eq!(row["verdict"], expected);
    }
    assert!(rows_of("total").iter().all(|row| row["verdict"] == "equal" || row["verdict"] == "inconclusive"));
    // Dense has no sparsity: it stands beside all of them. So do two variants.
    let dense = ["results/e", "variant=dense", "variant=csr, method=magnitude"];
    assert_eq!(rows(&json(&lab, &dense), "nonzero").len(), 2);
    let variants = ["results/e", "variant=masked", "variant=csr", "--only", "method=magnitude"];
    assert!(rows(&json(&lab, &variants), "nonzero").iter().all(|row| row["verdict"] == "equal"));
    assert!(rows(&json(&lab, &variants), "size_mb").iter().all(|row| row["verdict"] == "a" || row["verdict"] == "b"));
}

#[test]
fn what_a_person_sees_is_as_it_was() {
    let lab = Lab::tiny(&THREE_CELLS.replace(", \"agreement\"]", "]"));
    lab.run(["run", "e.toml"]).exits(0);
    let outcome = compare(&lab, &["results/e", "variant=masked", "variant=csr"]);
    as_kept(
        "compare",
        "to accept changes: INSTA_UPDATE=always cargo test, then read the diff",
        &format!("{}{}", outcome.stdout, outcome.stderr),
    );
}

#[test]
fn two_folders_have_their_same_cells_side_by_side() {
    let lab = two_methods();
    lab.write("other.txt", "the dog sat on a mat\n");
    let other = [
        "run",
        "e.toml",
        "-s",
        "data.agreement=file:other.txt",
        "-s",
        "prune.sparsity=[0.5, 0.75]",
        "--results",
        "other",
    ];
    lab.run(other).exits(0);
    let outcome = json(&lab, &["results/e", "other/e"]);
    outcome.says(&[
        "a: `results/e`, b: `other/e`; difference is b - a",
        "points compared; ",
        "of `results/e` alone; ",
        "of `other/e` alone",
    ]);
    assert!(rows(&outcome, "nonzero").iter().all(|row| row["verdict"] == "equal"));
    // Five points: dense, and two methods at 0.5 in two variants.
    assert_eq!(rows(&outcome, "nonzero").len(), 5);
    let refused = rows(&outcome, "kl_nats");
    assert!(refused.iter().all(|row| row["verdict"] == "not comparable: agreement file:texts.txt -> file:other.txt"));
    assert!(refused.iter().all(|row| row["difference"].is_null() && row["ratio"].is_null() && row["a"].is_null()));
    // With itself, everything is equal.
    let itself = json(&lab, &["results/e", "results/e"]).exits(0).json_lines();
    assert!(itself.len() > 50 && itself.iter().all(|row| row["verdict"] == "equal"));
}

#[test]
fn times_are_compared_where_they_were_measured_alike_and_refused_by_name_elsewhere() {
    let text = THREE_CELLS.replace(
        "[\"structure\", \"agreement\"]",
        "[\"structure\", \"latency\"]\nprompt = 4\ngenerate = 2\n[execute]\nrepeats = 4\nwarmup = 0",
    );
    let lab = Lab::tiny(&text);
    for (threads, results) in [("1", "one"), ("1", "again"), ("2", "two")] {
        lab.run(["run", "e.toml", "-s", &format!("device.threads={threads}"), "--results", results]).exits(0);
    }
    let prefill = "prefill_ms batch 1, prompt 4";
    let alike = rows(&json(&lab, &["one/e", "again/e"]), prefill);
    assert_eq!(alike.len(), 3);
    for row in &alike {
        assert_eq!((&row["n_a"], &row["n_b"]), (&4.into(), &4.into()));
        assert!(row["ratio"].as_f64().unwrap() > 0.0 && row["ratio_sd"].as_f64().unwrap() > 0.0);
        assert!(["a", "b", "inconclusive"].contains(&row["verdict"].as_str().unwrap()));
    }
    let refused = rows(&json(&lab, &["one/e", "two/e"]), prefill);
    assert!(refused.len() == 3 && refused.iter().all(|row| row["verdict"] == "not comparable: threads 1 -> 2"));
    assert!(rows(&json(&lab, &["one/e", "two/e"]), "nonzero").iter().all(|row| row["verdict"] == "equal"));
}

#[test]
fn kernels_and_analyses_are_compared_too() {
    let text = "[[kernel]]\nshape = [8, 8]\nsparsity = [0.5, 0.75]\ntokens = 1\nformat = [\"csr\", \"bitmap\"]\nwarmup = 0\nrepeats = 3\n\
                [[analysis]]\nid = \"s\"\nkind = \"structure\"\nsources = [{ method = \"magnitude\", sparsity = 0.5 }]\n";
    let lab = Lab::tiny(&format!("{THREE_CELLS}{text}"));
    lab.run(["run", "e.toml"]).exits(0);
    let kernels = rows(&json(&lab, &["results/e", "format=csr", "format=bitmap"]), "time_us");
    assert_eq!(kernels.len(), 2);
    assert!(kernels.iter().all(|row| row["out_features"] == 8 || row.get("out_features").is_none()));
    let itself = json(&lab, &["results/e", "results/e"]).exits(0).json_lines();
    let of_analysis = |row: &&Value| row["metric"].as_str().unwrap().contains(" of structure");
    assert!(itself.iter().filter(of_analysis).count() > 3);
    assert!(itself.iter().all(|row| row["verdict"] == "equal"));
}

#[test]
fn a_comparison_goes_into_a_file_and_mistakes_have_their_codes() {
    let lab = two_methods();
    let sides = ["results/e", "method=magnitude", "method=random"];
    let with = |more: &[&str]| compare(&lab, &[&sides[..], more].concat());
    with(&["--output", "c.csv"]).exits(0);
    let rows = lab.table("c.csv");
    assert!(rows.iter().any(|row| row["metric"] == "kl_nats" && !row["verdict"].is_empty()));
    with(&["--output", "c.tex"]).exits(0);
    assert!(lab.read("c.tex").contains("\\toprule"));
    with(&["--output", "c.xls"]).exits(2).says(&["`c.xls` ends with none of `.csv`, `.md`, `.tex`"]);
    with(&["--output", "no/c.csv"]).exits(1).says(&["failed to write `no/c.csv`"]);
    compare(&lab, &["results/e"]).exits(2);
    compare(&lab, &["results/e", "method=random"]).exits(2).says(&["`method=random` is one condition"]);
    compare(&lab, &["results/e", "method=random", "methd=wanda"]).exits(2).says(&["unknown column `methd`"]);
    compare(&lab, &["results/e", "nowhere"]).exits(3).says(&["no cells in `nowhere`"]);
    compare(&lab, &["results/e", "method=wanda", "method=random"]).exits(4).says(&["no cell of `method=wanda`"]);
    // Several cells of one seed at a point: nobody knows which is meant.
    let both = json(&lab, &["results/e", "variant=dense", "variant!=dense"]).exits(0).json_lines();
    assert!(both.iter().any(|row| row["verdict"] == "not comparable: several cells at this point"), "{both:?}");
}
