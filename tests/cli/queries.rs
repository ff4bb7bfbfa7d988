//! `[[query]]` and `report --duckdb`: with a real `duckdb` where there is one, and without.

use crate::support::{Lab, Outcome, THREE_CELLS};

const QUERIES: &str = r#"
[[query]]
id = "by-variant"
sql = """
SELECT variant, sum(nonzero) AS nonzero, max(perplexity) AS perplexity
FROM summary GROUP BY ALL"""
plot = "bar"
y = "nonzero"

[[query]]
id = "layer_densities"
sql = "SELECT module_name, 1 - sparsity AS density FROM layers WHERE variant = 'masked' ORDER BY density, module_name"
plot = "histogram"
series = []
"#;

fn lab(queries: &str) -> Lab {
    Lab::tiny(&format!("{THREE_CELLS}{queries}"))
}

/// The program without a `duckdb`.
fn without(lab: &Lab, args: &[&str]) -> Outcome {
    let mut command = lab.command(args.iter().copied());
    command.env_remove("DUCKDB").env("PATH", lab.path("nothing"));
    lab.outcome(command.output().unwrap())
}

/// Whether this machine has one.
fn has_duckdb() -> bool {
    let named = std::env::var_os("DUCKDB").filter(|named| !named.is_empty());
    std::process::Command::new(named.unwrap_or("duckdb".into())).arg("--version").output().is_ok()
}

#[test]
fn without_the_program_everything_else_is_written_and_the_error_says_how_to_get_it() {
    let lab = lab(QUERIES);
    let outcome = without(&lab, &["run", "e.toml"]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    let said = "2 queries can't be answered: the program `duckdb` is not found";
    assert!(
        outcome.stderr.starts_with(&format!("warning: {said}\n")),
        "known before hours of work: {}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains(&format!("error: {said}\n\nhint: install it: `pip install duckdb-cli`")));
    assert_eq!(lab.table("results/e/tables/summary.csv").len(), 3);
    let report = without(&lab, &["report", "results/e"]);
    assert_eq!((report.code, report.stdout), (Some(3), outcome.stdout));
    assert_eq!(without(&lab, &["run", "e.toml", "-s", "query=[]"]).code, Some(0), "a query decides no cell");
    let database = without(&lab, &["report", "results/e", "--duckdb"]);
    assert_eq!(database.code, Some(3));
    assert!(database.stderr.contains("`tables.duckdb` can't be written: the program `duckdb` is not found"));
    let mut named = lab.command(["report", "results/e", "--duckdb"]);
    let named = lab.outcome(named.env("DUCKDB", lab.path("texts.txt")).output().unwrap());
    assert!(named.stderr.contains("the variable DUCKDB is `LAB/texts.txt`, which is no program"), "{}", named.stderr);
}

#[test]
fn results_are_tables_and_pictures_and_the_same_each_time() {
    if !has_duckdb() {
        return;
    }
    let lab = lab(QUERIES);
    let outcome = lab.run(["run", "e.toml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let rows = lab.table("results/e/tables/by-variant.csv");
    let column = |name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("variant"), ["csr", "dense", "masked"], "sorted");
    assert_eq!(column("perplexity"), [""; 3], "not measured is missing");
    let nonzero = |variant: &str| {
        let rows = lab.table("results/e/tables/summary.csv");
        rows.iter().find(|row| row["variant"] == variant).unwrap()["nonzero"].clone()
    };
    assert_eq!(column("nonzero"), ["csr", "dense", "masked"].map(nonzero));
    assert!(
        lab.read("results/e/tables/by-variant.md").starts_with("| variant | nonzero | perplexity |\n|---|---:|---|\n")
    );
    assert!(lab.read("results/e/tables/layer_densities.tex").contains("\\toprule"));
    assert_eq!(lab.table("results/e/tables/queries.csv")[0]["rows"], "3");
    assert!(lab.read("results/e/plots/layer_densities.svg").contains("query layer_densities"));
    let first = lab.stable_report();
    assert_eq!(lab.run(["report", "results/e", "--duckdb"]).code, Some(0));
    assert_eq!(lab.stable_report(), first);
    assert!(lab.path("results/e/tables.duckdb").is_file());
}

#[test]
fn what_is_asked_no_more_goes() {
    if !has_duckdb() {
        return;
    }
    let lab = lab(QUERIES);
    assert_eq!(lab.run(["run", "e.toml"]).code, Some(0));
    let there = |file: &str| lab.path(format!("results/e/{file}")).exists();
    // One query fails, the other is gone.
    let broken = lab.run(["run", "e.toml", "-s", r#"query=[{ id = "by-variant", sql = "SELECT x FROM summary" }]"#]);
    assert_eq!(broken.code, Some(100));
    let error =
        "error: query `by-variant` of `results/e/experiment.toml` failed: Binder Error: Referenced column \"x\"";
    assert!(broken.stderr.contains(error), "{}", broken.stderr);
    assert!(broken.stderr.contains("hint: mend it in the experiment file"), "{}", broken.stderr);
    for file in ["tables/by-variant.csv", "tables/layer_densities.tex", "plots/by-variant.png"] {
        assert!(!there(file), "{file} shows what was asked before");
    }
    assert!(there("tables/queries.csv"));
    assert_eq!(lab.run(["run", "e.toml", "-s", "query=[]"]).code, Some(0));
    assert!(!there("tables/queries.csv") && there("tables/summary.csv"));
}

#[test]
fn a_database_that_is_there_is_kept_current() {
    if !has_duckdb() {
        return;
    }
    let lab = lab("");
    assert_eq!(lab.run(["run", "e.toml", "--only", "variant=dense"]).code, Some(0));
    assert!(!lab.path("results/e/tables.duckdb").exists());
    assert_eq!(lab.run(["report", "results/e", "--duckdb"]).code, Some(0));
    let before = std::fs::read(lab.path("results/e/tables.duckdb")).unwrap();
    assert_eq!(lab.run(["run", "e.toml"]).code, Some(0));
    assert_ne!(std::fs::read(lab.path("results/e/tables.duckdb")).unwrap(), before);
    let outcome = without(&lab, &["report", "results/e"]);
    assert_eq!(outcome.code, Some(3));
    assert!(!lab.path("results/e/tables.duckdb").exists(), "rather none than an old one");
}

#[test]
fn mistakes_in_a_query_are_shown_where_they_are() {
    let lab = lab(r#"
[[query]]
id = "a b"
sql = "SELECT 1"
[[query]]
sql = " "
plot = "pie"
[[query]]
id = "X"
sql = "SELECT 1"
x = "y"
[[query]]
id = "x"
sql = "SELECT 1"
plot = "histogram"
y = "n"
[[query]]
id = "summary"
sql = "SELECT 1"
timeout = 0
"#);
    let outcome = lab.run(["check", "e.toml"]);
    assert_eq!(outcome.code, Some(2));
    for expected in [
        "`query.id` can't name a table: `a b`",
        "missing key `query.id`",
        "`query.sql` is empty",
        "expected one of `bar`, `line`, `histogram`",
        "two results have the `id` `x`",
        "`query.x` has no effect without `plot`",
        "`query.y` has no effect for `histogram`",
        "`query.id` is the name of a table of every report: `summary`",
        "`query.timeout` is out of range",
    ] {
        assert!(outcome.stderr.contains(expected), "no {expected}:\n{}", outcome.stderr);
    }
}
