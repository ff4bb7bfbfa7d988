//! What a page holds: its policy, its data, and that nothing of a name becomes markup.

use super::*;

const NASTY: &str = "</script><script>alert(1)</script> \" ' & \u{202e}<!--";

fn table(name: &'static str, word: &str) -> Table {
    let mut table = Table::new(name, ["cell", "measure_seconds", "note"]);
    table.rows.push(vec![word.into(), 0.125.into(), Value::Missing]);
    table.rows.push(vec!["b".into(), 2.0.into(), 7u64.into()]);
    table
}

/// Two rows of two entries, below one heading.
fn marked(word: &str) -> Marked {
    let (best, second) = (Mark { bold: true, ..Mark::default() }, Mark { underlined: true, ..Mark::default() });
    let marks = vec![vec![best, second], vec![second, Mark::default()]];
    Marked { table: table("main", word), headings: 1, marks }
}

#[test]
fn the_marks_of_a_pivot_are_seen() {
    let page = page("a");
    let section = page.split("id=\"pivots\"").nth(1).unwrap().split("</section>").next().unwrap();
    assert_eq!(section.matches("class=\"number best\"").count(), 1, "{section}");
    assert_eq!(section.matches("class=\"number second\"").count(), 2, "{section}");
    assert_eq!(section.matches("class=\"number\"").count(), 3, "two headings and an entry: {section}");
}

fn page(word: &str) -> String {
    let (summary, timings) = (table("summary", word), table("timings", "a"));
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>\n".to_owned();
    let figures = [DrawnFigure { name: "setups".into(), svg }];
    let failed = FailedCell { id: "1f".into(), what: word.into(), kind: "other".into(), reason: word.into() };
    render(&Content {
        title: word.into(),
        state: vec![(Tone::Good, "2 cells".into())],
        messages: vec![(Tone::Warning, word.into())],
        failures: vec![failed],
        verdicts: vec![&summary],
        pivots: vec![marked(word)],
        figures: &figures,
        groups: vec![("Model cells", vec![&summary, &timings]), ("Kernels", vec![])],
        file: Some(format!("title = \"{word}\"\n")),
        manifest: None,
    })
}

#[test]
fn equal_contents_give_equal_bytes() {
    assert_eq!(page("a"), page("a"));
    assert_ne!(page("a"), page("b"));
}

#[test]
fn names_are_words_wherever_they_stand() {
    for word in [NASTY, "<img src=x onerror=alert(1)>"] {
        let page = page(word);
        assert_eq!(page.matches("<script").count(), 2, "the data and the script alone");
        assert_eq!(page.matches("</script").count(), 2);
        assert!(!page.contains("<img") && !page.contains("<!--") && !page.contains('\u{202e}'));
    }
}

#[test]
fn the_policy_names_the_style_and_the_script() {
    let page = page("a");
    let part = |from: &str, to: &str| page.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap().0;
    assert!(page.contains(&format!("style-src '{}'", hash(part("<style>", "</style>")))));
    assert!(page.contains(&format!(
        "script-src '{}'",
        hash(page.rsplit_once("<script>").unwrap().1.split_once("</script>").unwrap().0)
    )));
    // The example of `openssl dgst -sha256 -binary | base64` of the three letters `abc`.
    assert_eq!(hash("abc"), "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy would forbid them");
    for outside in ["http:", "https:", "src=", "url(", "@import"] {
        let without_names = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!without_names.contains(outside), "{outside}");
    }
}

#[test]
fn rows_are_data_and_times_are_sums() {
    let page = page("a");
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data[0]["rows"], serde_json::json!([["a", 0.125, null], ["b", 2.0, 7]]));
    assert_eq!(data[1]["name"], "timings");
    assert!(page.contains("<td>measure</td><td class=\"number\">2.125</td>"), "{page}");
    assert!(page.contains("data-table=\"1\"") && !page.contains("Kernels"));
}

#[test]
fn commands_can_be_typed() {
    assert_eq!(quoted("prune.sparsity=0.5"), "prune.sparsity=0.5");
    assert_eq!(quoted("method=wanda, sparsity>0.5"), "'method=wanda, sparsity>0.5'");
    assert_eq!((quoted("it's"), quoted("")), ("'it'\\''s'".into(), "''".into()));
    assert_eq!(quoted("a\nb$(x)"), "'a\\nb$(x)'");
}
