//! Pivots of small tables.

use super::*;
use crate::config::experiment::Best;
use crate::config::pivot::{MODEL_KEY, Scalar, Wanted};
use crate::plan::Cell;
use crate::report::table::Value;

const COLUMNS: [&str; 9] =
    ["cell", "setup", "model", "method", "pattern", "sparsity_target", "seed", "variant", "perplexity"];

/// A row: model, method, sparsity, seed, variant and number; `2:4` for a sparsity of 0.
fn row(model: &str, method: &str, sparsity: f64, seed: Option<u64>, variant: &str, number: f64) -> Vec<Value> {
    let dense = method.is_empty();
    let pattern: Value = if sparsity == 0.0 { "2:4" } else { "unstructured" }.into();
    let target = if sparsity == 0.0 { 0.5 } else { sparsity };
    let pruned = |value: Value| if dense { Value::Missing } else { value };
    let cell = format!("{model}{method}{sparsity}{seed:?}{variant}");
    vec![
        cell.into(),
        "S".into(),
        model.into(),
        pruned(method.into()),
        pruned(pattern),
        pruned(target.into()),
        seed.into(),
        variant.into(),
        number.into(),
    ]
}

/// Two models, dense, magnitude without seeds and wanda and sparsegpt with three, at 50 % and 2:4, masked and csr.
fn summary() -> Table {
    let mut table = Table::new("summary", COLUMNS);
    for (model, factor) in [("m", 1.0), ("n", 10.0)] {
        table.rows.push(row(model, "", 0.5, None, "dense", factor * 10.0));
        for sparsity in [0.5, 0.0] {
            for variant in ["masked", "csr"] {
                table.rows.push(row(model, "magnitude", sparsity, None, variant, factor * 20.0));
                for seed in 0..3u64 {
                    // Both share what the seed draws; sparsegpt is better by 1 at each.
                    let drawn = [0.0, 0.4, -0.4][seed as usize];
                    table.rows.push(row(model, "wanda", sparsity, Some(seed), variant, factor * (14.0 + drawn)));
                    let sparsegpt = factor * (13.0 + drawn + 0.01 * seed as f64);
                    table.rows.push(row(model, "sparsegpt", sparsity, Some(seed), variant, sparsegpt));
                }
            }
        }
    }
    table
}

fn spec(rows: &[&str], columns: &[&str]) -> PivotSpec {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    PivotSpec {
        id: "main".into(),
        rows: owned(rows),
        columns: owned(columns),
        value: "perplexity".into(),
        from: "summary".into(),
        best: Some(Best::Min),
        digits: None,
        r#where: Vec::new(),
    }
}

fn only(column: &str, values: &[&str]) -> Wanted {
    Wanted { column: column.into(), values: values.iter().map(|value| Scalar::Text((*value).into())).collect() }
}

fn made(spec: &PivotSpec) -> Result<Pivot, PivotError> {
    pivot(spec, &[&summary()], &PointNames::new())
}

#[test]
fn the_main_table_of_a_paper() {
    let pivot = made(&PivotSpec { r#where: vec![only("model", &["m"])], ..spec(&["method"], &["sparsity"]) }).unwrap();
    assert_eq!(pivot.rows, [["dense"], ["magnitude"], ["wanda"], ["sparsegpt"]]);
    assert_eq!(pivot.columns, [["50 %"], ["2:4"]]);
    let shown = pivot.terminal();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[2].trim_end(), "dense             10.00            10.00", "{shown}");
    assert_eq!(lines[4].trim_end(), "wanda      14.00 ± 0.40 +   14.00 ± 0.40 +", "{shown}");
    let latex = pivot.latex();
    assert!(latex.starts_with(MADE) && latex.contains("\\usepackage{booktabs}"), "{latex}");
    assert!(latex.contains("method & 50\\,\\% & 2:4 \\\\"), "{latex}");
    assert!(latex.contains("dense & 10.00 & 10.00 \\\\\n\\midrule\nmagnitude & 20.00"), "{latex}");
    assert!(latex.contains("sparsegpt & \\textbf{13.01 $\\pm$ 0.40}"), "{latex}");
    assert!(latex.contains("wanda & \\underline{14.00 $\\pm$ 0.40}"), "paired seeds tell them apart: {latex}");
    assert!(pivot.markdown().contains("| sparsegpt | **13.01 ± 0.40** | **13.01 ± 0.40** |"), "{}", pivot.markdown());
    let csv = pivot.csv();
    assert!(csv.starts_with("method,50 %,50 % sd,50 % seeds,50 % mark,2:4,"), "{csv}");
    assert!(csv.contains("\nmagnitude,20,,1,,20,,1,\n"), "{csv}");
}

#[test]
fn methods_compete_at_one_model_whatever_heads_what() {
    let down = made(&spec(&["model", "method"], &["sparsity_target"])).unwrap();
    assert_eq!(down.references, [true, false, false, false, true, false, false, false]);
    let best = |pivot: &Pivot| {
        let all = pivot.entries.iter().flatten().flatten();
        all.filter(|entry| entry.standing.place == Some(Rank::Best)).count()
    };
    assert_eq!(best(&down), 4, "one of each model and sparsity");
    let across = made(&spec(&["sparsity_target"], &["model", "method"])).unwrap();
    assert_eq!((across.rows.len(), across.columns.len(), best(&across)), (2, 8, 4));
    assert_eq!(across.header()[0], [("m".to_owned(), 4), ("n".to_owned(), 4)]);
    assert!(across.latex().contains("\\multicolumn{4}{c}{m} & \\multicolumn{4}{c}{n}"), "{}", across.latex());
    assert!(across.latex().contains("\\cmidrule(lr){2-5}\\cmidrule(lr){6-9}"), "{}", across.latex());
}

#[test]
fn numbers_of_different_things_are_refused() {
    let error = made(&spec(&["method"], &["sparsity_target"])).unwrap_err();
    assert_eq!(error.to_string(), "`table` `main`: at `dense, 50 %` there are numbers that differ in `model` (m, n)");
    assert_eq!(error.hint().unwrap(), "add `model` to `rows` or `columns`, or write `where = { model = \"m\" }`");
    let mut sizes = summary();
    *sizes.columns.last_mut().unwrap() = "size_mb".into();
    let sized = PivotSpec { value: "size_mb".into(), ..spec(&["model", "method"], &["sparsity_target"]) };
    let error = pivot(&sized, &[&sizes], &PointNames::new()).unwrap_err();
    assert!(error.to_string().ends_with("differ in `variant` (masked, csr)"), "sizes are the variants' own: {error}");
    let mut twice = summary();
    twice.rows.push(row("m", "wanda", 0.5, Some(0), "masked", 15.0));
    let error = pivot(&spec(&["model", "method"], &["sparsity_target"]), &[&twice], &PointNames::new()).unwrap_err();
    assert!(error.to_string().ends_with("differ in something that the tidy table has no column for"), "{error}");
}

#[test]
fn what_is_not_there_is_named() {
    let spec = spec(&["method"], &["sparsity_target"]);
    let error = |change: &dyn Fn(&mut PivotSpec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        made(&spec).unwrap_err().to_string()
    };
    assert!(error(&|s| s.from = "groups".into()).ends_with("there is no table `groups` in this report"));
    assert!(error(&|s| s.rows = vec!["scope".into()]).ends_with("`summary` has no column `scope`"));
    assert!(error(&|s| s.value = "variant".into()).contains("is no number: `dense`"));
    assert!(
        error(&|s| s.r#where = vec![only("method", &["wand"])]).ends_with("no row of `summary` has `method = wand`")
    );
}

#[test]
fn points_that_settings_tell_apart_have_names_of_their_own() {
    let mut table = Table::new("summary", COLUMNS);
    table.rows.push(row("m", "wanda", 0.5, Some(0), "masked", 14.0));
    table.rows.push(row("m", "wanda", 0.5, Some(1), "masked", 15.0));
    let cell = |row: usize| table.rows[row][0].to_string();
    let names = PointNames::from([(cell(0), "wanda".into()), (cell(1), "wanda, owl".into())]);
    let pivot = pivot(&spec(&["method"], &[]), &[&table], &names).unwrap();
    assert_eq!(pivot.rows, [["wanda"], ["wanda, owl"]]);
    assert_eq!(pivot.terminal().lines().nth(1), Some("method      perplexity"));
    assert!(pivot.notes.iter().any(|note| note.starts_with("fewer than 3 seeds")), "{:?}", pivot.notes);
}

#[test]
fn a_pivot_of_groups_needs_no_methods() {
    let mut table = Table::new("groups", ["cell", "setup", "method", "variant", "group", "sparsity"]);
    for (setup, method, variant, share) in [("Dense", None, "dense", 0.0), ("CSR30", Some("magnitude"), "csr", 0.3)] {
        for group in ["mlp_linear", "norm"] {
            table.rows.push(vec![
                setup.into(),
                setup.into(),
                method.into(),
                variant.into(),
                group.into(),
                share.into(),
            ]);
        }
    }
    let spec = PivotSpec {
        from: "groups".into(),
        value: "sparsity".into(),
        best: None,
        digits: Some(1),
        ..spec(&["group"], &["setup"])
    };
    let pivot = pivot(&spec, &[&table], &PointNames::new()).unwrap();
    assert_eq!(pivot.columns, [["Dense"], ["CSR30"]]);
    assert_eq!(pivot.terminal().lines().last(), Some("norm          0.0    0.3"));
}

#[test]
fn names_of_others_are_words() {
    let mut table = Table::new("summary", COLUMNS);
    table.rows.push(row("a_b&c|d\u{1b}[31m", "wanda", 0.5, None, "masked", 14.0));
    let pivot = pivot(&spec(&["model"], &[]), &[&table], &PointNames::new()).unwrap();
    assert!(pivot.latex().contains("a\\_b\\&c"), "{}", pivot.latex());
    assert!(!pivot.terminal().contains('\u{1b}') && pivot.markdown().contains("a_b&amp;c\\|d"));
}

#[test]
fn the_file_knows_the_key_of_model_cells() {
    let names: Vec<&str> = Cell::KEY.iter().map(|column| column.name).collect();
    assert_eq!(names, MODEL_KEY);
}
