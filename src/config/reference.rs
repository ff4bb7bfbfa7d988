//! Every key of the experiment file, as a page for people: `docs/configuration.md`.
//!
//! Made from the schema alone, whose texts are the doc comments of [`raw`](super::raw): nothing is said twice.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use crate::config::json_schema;

const INTRODUCTION: &str = "\
Made by `sparsify-exp schema configuration` from the descriptions that editors show too; a test keeps it current. To \
change a text, change the doc comment in [`src/config/raw.rs`](../src/config/raw.rs). The same as a JSON schema: \
[`schemas/experiment.json`](../schemas/experiment.json).

*An array where a single value is expected is an axis; a block is the product of its axes; the experiment is the union \
of its blocks.* The keys of axes are marked **axis**; one of numbers may \
be a range, `{ from = 0.1, to = 0.9, step = 0.1 }`, with both ends. `-s prune.sparsity=[0.5,0.6]` on the command line sets any key by \
its dotted path.
";

/// The page, in Markdown.
pub fn reference() -> String {
    let schema = json_schema();
    let mut page = Page { text: format!("# The experiment file\n\n{INTRODUCTION}"), explained: BTreeSet::new() };
    page.section("", &schema);
    page.text
}

struct Page {
    text: String,
    /// Lists of words that stand on the page already.
    explained: BTreeSet<String>,
}

impl Page {
    /// A table's keys, the words that they take, and the tables in it.
    ///
    /// `path` is the dotted path of the table: empty for the whole file.
    fn section(&mut self, path: &str, table: &Value) {
        let keys: Vec<(&str, &Value)> = properties(table);
        self.text.push_str("\n| key | takes | meaning |\n|---|---|---|\n");
        for (name, key) in &keys {
            let meaning = description(key).strip_prefix("Axis: ");
            let several = match (meaning, takes_several(key)) {
                (Some(_), _) => "**axis** of ",
                (None, true) => "one or several of ",
                (None, false) => "",
            };
            let meaning = capital(meaning.unwrap_or(description(key)));
            let row = format!("| `{name}` | {several}{} | {meaning}{} |", takes(single(key)), examples(key));
            let _ = writeln!(self.text, "{row}");
        }
        for (name, key) in &keys {
            self.words(name, single(key));
        }
        for (name, key) in keys {
            let Some((inner, repeated)) = inner_table(key) else { continue };
            let inside = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let heading = match (path.is_empty(), repeated) {
                (true, true) => format!("## `[[{inside}]]`"),
                (true, false) => format!("## `[{inside}]`"),
                (false, _) => format!("### `{inside}`"),
            };
            let _ = write!(self.text, "\n{heading}\n\n{}\n", description(key));
            self.section(&inside, inner);
        }
    }

    /// What each word of a key means, unless the page has said so.
    fn words(&mut self, name: &str, key: &Value) {
        let words: Vec<(&str, &str)> = words(key).into_iter().filter(|(_, help)| !help.is_empty()).collect();
        if words.is_empty() || !self.explained.insert(format!("{words:?}")) {
            return;
        }
        let _ = write!(self.text, "\n`{name}`:\n\n");
        for (word, help) in words {
            let _ = writeln!(self.text, "- `{word}`: {help}");
        }
    }
}

pub(super) fn properties(table: &Value) -> Vec<(&str, &Value)> {
    table["properties"].as_object().into_iter().flatten().map(|(name, key)| (name.as_str(), key)).collect()
}

pub(super) fn description(key: &Value) -> &str {
    key["description"].as_str().unwrap_or_default()
}

/// Whether a key takes one value or an array of such values.
fn takes_several(key: &Value) -> bool {
    key["anyOf"].as_array().is_some_and(|choices| choices.len() >= 2 && choices[1]["items"] == choices[0])
}

/// What a key takes where it takes one value.
fn single(key: &Value) -> &Value {
    if takes_several(key) { &key["anyOf"][0] } else { key }
}

/// The table that a key holds, and whether it holds several.
pub(super) fn inner_table(key: &Value) -> Option<(&Value, bool)> {
    let has_keys = |value: &Value| value["properties"].is_object();
    match (has_keys(key), has_keys(&key["items"])) {
        (true, _) => Some((key, false)),
        (false, true) => Some((&key["items"], true)),
        (false, false) => None,
    }
}

/// The words that a key takes, each with its help.
pub(super) fn words(key: &Value) -> Vec<(&str, &str)> {
    let described = key["oneOf"].as_array().into_iter().flatten();
    let described = described.filter_map(|word| Some((word["const"].as_str()?, description(word))));
    let bare = key["enum"].as_array().into_iter().flatten().filter_map(|word| Some((word.as_str()?, "")));
    described.chain(bare).collect()
}

/// The kind of value, in a few words.
fn takes(key: &Value) -> String {
    let words = words(key);
    if !words.is_empty() {
        return words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some((_, repeated)) = inner_table(key) {
        return if repeated { "tables, see below" } else { "a table, see below" }.into();
    }
    if let Some([number, text]) = key["anyOf"].as_array().map(Vec::as_slice) {
        return format!("{} or {}", takes(number), if text["type"] == "string" { "expression" } else { "value" });
    }
    if let Some(choices) = key["oneOf"].as_array() {
        return choices.iter().map(takes).collect::<Vec<_>>().join(" or ");
    }
    if key["additionalProperties"].is_object() {
        return "a table of values, one or several of each key".into();
    }
    let kind = key["type"].as_str().unwrap_or("value");
    match (kind, &key["items"]) {
        ("array", Value::Array(items)) => {
            let names: Vec<&str> = items.iter().filter_map(|item| item["title"].as_str()).collect();
            format!("`[{}]`", names.join(", "))
        }
        ("array", item) => format!("array of {}", takes(item)),
        ("string", _) => "text".into(),
        ("integer", _) => key["minimum"].as_u64().map_or("integer".into(), |least| format!("integer ≥ {least}")),
        (other, _) => other.into(),
    }
}

/// The examples of a key as the file has them.
fn examples(key: &Value) -> String {
    let examples: Vec<String> =
        key["examples"].as_array().into_iter().flatten().map(|value| format!("`{}`", toml(value))).collect();
    if examples.is_empty() { String::new() } else { format!(" For example {}.", examples.join(", ")) }
}

/// A value as TOML has it in a line.
pub(super) fn toml(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{key} = {}", toml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// With a capital first, and without what would end a cell of a Markdown table.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}", letters.as_str().replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The dotted paths of all keys below a table.
    fn paths(path: &str, table: &Value) -> Vec<String> {
        let below = |(name, key): (&str, &Value)| {
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let inner = inner_table(key).map(|(inner, _)| paths(&path, inner)).unwrap_or_default();
            std::iter::once(path).chain(inner).collect::<Vec<_>>()
        };
        properties(table).into_iter().flat_map(below).collect()
    }

    #[test]
    fn every_key_has_a_row_with_a_meaning() {
        let page = reference();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let paths = paths("", &json_schema());
        assert_eq!(rows.len(), paths.len());
        for (row, path) in rows.iter().zip(sorted_as_on_the_page(&paths)) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            assert_eq!(cells[0], format!("`{}`", path.rsplit('.').next().unwrap()), "{row}");
            assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
        }
    }

    /// The page has all keys of a table before those of the tables in it.
    fn sorted_as_on_the_page(paths: &[String]) -> Vec<String> {
        let parent = |path: &str| path.rsplit_once('.').map_or(String::new(), |(parent, _)| parent.to_owned());
        let mut parents: Vec<String> = Vec::new();
        for path in paths {
            if !parents.contains(&parent(path)) {
                parents.push(parent(path));
            }
        }
        parents.iter().flat_map(|above| paths.iter().filter(|path| parent(path) == *above).cloned()).collect()
    }

    #[test]
    fn values_read_as_toml_has_them() {
        assert_eq!(
            toml(&json!([{ "method": "random", "sparsity": 0.7 }])),
            "[{ method = \"random\", sparsity = 0.7 }]"
        );
        assert_eq!(takes(&json!({ "type": "integer", "minimum": 2 })), "integer ≥ 2");
        assert_eq!(takes(&json!({ "type": "array", "items": { "type": "string" } })), "array of text");
        let axis = json!({ "anyOf": [{ "type": "number" }, { "type": "array", "items": { "type": "number" } }] });
        assert!(takes_several(&axis) && !takes_several(&axis["anyOf"][1]));
        assert_eq!(takes(single(&axis)), "number");
        assert_eq!(capital("a|b"), "A\\|b");
    }
}
