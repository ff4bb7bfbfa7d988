//! What is printed and written as a whole: helps, tables and figures as they were when somebody last looked at them.
//!
//! A change fails the test, which prints old and new. To accept it, run the tests once more with
//! `INSTA_UPDATE=always` and commit `tests/snapshots/`.

use crate::support::{Lab, ROOT, THREE_CELLS};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Compares a text with the one that is kept under a name.
#[track_caller]
pub fn as_kept(name: &str, description: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => Path::new(ROOT).join("tests/snapshots"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
        description => description,
    }, {
        insta::assert_snapshot!(name, text);
    });
}

const ACCEPT: &str = "to accept changes: INSTA_UPDATE=always cargo test, then read the diff";

/// What `--help` prints after some words, at the width of a page.
fn help(words: &[&str]) -> String {
    let lab = Lab::empty();
    let mut command = lab.command(words.iter().copied().chain(["--help"]));
    command.env("COLUMNS", "100");
    let outcome = lab.outcome(command.output().unwrap());
    outcome.exits(0);
    outcome.stdout
}

#[test]
fn helps_are_as_they_were() {
    let whole = help(&[]);
    let commands = whole.split_once("Commands:\n").unwrap().1;
    let names = commands.lines().take_while(|line| line.starts_with("  "));
    let verbs: Vec<&str> =
        names.filter(|line| !line.starts_with("   ")).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(verbs.len() > 7 && verbs.contains(&"run"), "{verbs:?}");
    as_kept("help", ACCEPT, &whole);
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        as_kept(&format!("help-{verb}"), ACCEPT, &help(&[verb]));
    }
}

/// A text whose numbers are rounded to six digits: the last ones depend on the order in which a processor adds.
fn rounded(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let number = &rest[start..];
        let number = &number[..number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len())];
        result.push_str(&rest[..start]);
        match number.parse::<f64>() {
            Ok(value) if number.contains('.') && number.len() > 7 && value != 0.0 => {
                let digits = (5 - value.abs().log10().floor() as i32).max(0) as usize;
                result.push_str(&format!("{value:.digits$}"));
            }
            _ => result.push_str(number),
        }
        rest = &rest[start + number.len()..];
    }
    result + rest
}

/// A table as CSV without what differs between two runs or two processors.
fn masked(lab: &Lab, table: &str) -> String {
    let text = lab.read(format!("results/e/tables/{table}.csv"));
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let columns = reader.headers().unwrap().clone();
    let differs = |column: &str| {
        column.ends_with("_seconds")
            || ["peak_rss_bytes", "kernel"].contains(&column)
            || column.starts_with("gate_max_abs")
    };
    let mut lines = vec![columns.iter().collect::<Vec<_>>().join(",")];
    for row in reader.records() {
        let row = row.unwrap();
        let shown = columns
            .iter()
            .zip(&row)
            .map(|(column, value)| if differs(column) && !value.is_empty() { "*".to_owned() } else { rounded(value) });
        lines.push(shown.collect::<Vec<_>>().join(","));
    }
    lines.join("\n")
}

/// What people are shown, without the widths of columns and without rounding errors, which are the only numbers with
/// an exponent: they are the processor's.
fn unaligned(text: &str) -> String {
    fn word(word: &str) -> &str {
        if word.contains("e-") && word.starts_with(|c: char| c.is_ascii_digit()) { "*" } else { word }
    }
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join("  ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn tables_of_a_small_run_are_as_they_were() {
    let expect = "[[expect]]\nwhere = { variant = \"csr\" }\nmetric = \"sparsity\"\nvalue = 0.3\ntolerance = 0.3\nsource = \"a table\"\n";
    let lab = Lab::tiny(&format!("{THREE_CELLS}{expect}"));
    let printed = lab.run(["run", "e.toml"]).exits(0).stdout.clone();
    let mut names: Vec<String> = lab.files("results/e/tables").into_keys().collect();
    names.retain(|name| name.ends_with(".csv"));
    assert!(names.len() >= 7, "{names:?}");
    let tables = names.iter().map(|name| format!("{name}\n{}", masked(&lab, name.trim_end_matches(".csv"))));
    as_kept("tables", ACCEPT, &tables.collect::<Vec<_>>().join("\n\n"));
    for other in ["groups.md", "groups.tex"] {
        as_kept(other, ACCEPT, &rounded(&lab.read(format!("results/e/tables/{other}"))));
    }
    as_kept("printed", ACCEPT, &unaligned(&rounded(&printed)));
}

#[test]
fn figures_are_as_they_were() {
    let lab = Lab::tiny(&THREE_CELLS.replace(", \"agreement\"", ""));
    lab.run(["run", "e.toml"]).exits(0);
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures");
    std::fs::create_dir_all(&kept).unwrap();
    let mut digests = Vec::new();
    for (name, bytes) in lab.files("results/e/plots").into_iter().filter(|(name, _)| name.ends_with(".svg")) {
        std::fs::write(kept.join(&name), &bytes).unwrap();
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        digests.push(format!("{name} {} bytes, SHA-256 {digest}", bytes.len()));
    }
    assert!(digests.len() >= 2, "{digests:?}");
    let look = format!("look at the new figures in target/tmp/figures; {ACCEPT}");
    as_kept("figures", &look, &digests.join("\n"));
}

#[test]
fn numbers_are_rounded_and_nothing_else() {
    assert_eq!(rounded("a 12.3456789, 0.000123456789|100000000 x1.5 0.0"), "a 12.3457, 0.000123457|100000000 x1.5 0.0");
    assert_eq!(unaligned("a    4.17e-7\n\nfine-grained"), "a  *\n\nfine-grained");
    assert_eq!(rounded("csr32 1234567.891 v0.1.0"), "csr32 1234568 v0.1.0");
}
