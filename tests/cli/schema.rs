//! The schemas beside the program are the program's own, and its files keep to them.

use crate::support::{Lab, ROOT, THREE_CELLS, list};
use serde_json::Value;
use std::path::{Path, PathBuf};

const NAMES: [&str; 4] = ["experiment", "cell", "manifest", "events"];

/// A schema as the program prints it.
pub fn schema_of(name: &str) -> Value {
    serde_json::from_str(&Lab::empty().run(["schema", name]).exits(0).stdout).unwrap()
}

/// Fails the test unless a value keeps to a schema, as far as the program's schemas go.
#[track_caller]
pub fn conforms(value: &Value, schema: &Value) {
    if let Err(error) = check(value, schema, schema, "") {
        panic!("{error}\n{value:#}");
    }
}

/// `root` is where references lead to, `at` the path of the value.
fn check(value: &Value, schema: &Value, root: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).ok_or(format!("no {reference}"))?;
        return check(value, target, root, at);
    }
    for choices in [&schema["oneOf"], &schema["anyOf"]].into_iter().filter_map(Value::as_array) {
        let errors: Vec<String> = choices.iter().filter_map(|choice| check(value, choice, root, at).err()).collect();
        if errors.len() == choices.len() {
            return Err(format!("no choice fits `{at}`: {}", errors.join("; ")));
        }
    }
    let constant = schema.get("const").is_none_or(|constant| constant == value);
    let listed = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    if !constant || !listed || !has_type(value, schema.get("type")) {
        return Err(format!("`{at}` is {value}"));
    }
    let required = schema["required"].as_array().filter(|_| value.is_object());
    if let Some(missing) = required.into_iter().flatten().find(|key| value.get(key.as_str().unwrap()).is_none()) {
        return Err(format!("`{at}` lacks {missing}"));
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(key) {
            Some(schema) => check(value, schema, root, &format!("{at}.{key}"))?,
            None if schema["additionalProperties"] == false => return Err(format!("`{at}` has the unknown key {key}")),
            None => {}
        }
    }
    let items = value.as_array().filter(|_| schema.get("items").is_some());
    for (index, item) in items.into_iter().flatten().enumerate() {
        // A tuple has a schema for each of its items.
        let schema = schema["items"].get(index).unwrap_or(&schema["items"]);
        check(item, schema, root, &format!("{at}.{index}"))?;
    }
    let length = value.as_array().map(|items| items.len() as u64);
    let fits = |bound: &str, holds: fn(u64, u64) -> bool| {
        length.zip(schema[bound].as_u64()).is_none_or(|(length, bound)| holds(length, bound))
    };
    if !fits("minItems", |length, least| length >= least) || !fits("maxItems", |length, most| length <= most) {
        return Err(format!("`{at}` has {length:?} items"));
    }
    Ok(())
}

/// Whether a value is of one of the types of a schema.
fn has_type(value: &Value, types: Option<&Value>) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    };
    types.is_none_or(|types| types.as_array().map_or_else(|| is(types), |types| types.iter().any(is)))
}

fn experiments() -> Vec<PathBuf> {
    let folder = Path::new(ROOT).join("experiments");
    let mut files = [list(&folder), list(&folder.join("papers"))].concat();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(!files.is_empty());
    files
}

#[test]
fn the_check_can_fail() {
    let schema = schema_of("events");
    let good: Value = serde_json::from_str(
        r#"{"event": "done", "ran": 1, "failed": 0, "kept": 0, "expectations_missed": 0, "results": "r", "failures": []}"#,
    )
    .unwrap();
    conforms(&good, &schema);
    for (key, bad) in [("ran", Value::from("1")), ("event", "end".into()), ("results", Value::Null)] {
        let mut changed = good.clone();
        changed[key] = bad;
        assert!(check(&changed, &schema, &schema, "").is_err(), "{key}");
        changed.as_object_mut().unwrap().remove(key);
        assert!(check(&changed, &schema, &schema, "").is_err(), "{key}");
    }
}

#[test]
fn schemas_are_up_to_date() {
    let lab = Lab::empty();
    for name in NAMES {
        let path = Path::new(ROOT).join("schemas").join(format!("{name}.json"));
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == lab.run(["schema", name]).exits(0).stdout,
            "schemas/{name}.json is out of date: for n in {}; do sparsify-exp schema $n > schemas/$n.json; done",
            NAMES.join(" ")
        );
    }
}

#[test]
fn the_pages_of_keys_and_columns_are_up_to_date() {
    for page in ["configuration", "columns"] {
        let stored = std::fs::read_to_string(Path::new(ROOT).join(format!("docs/{page}.md"))).unwrap_or_default();
        assert!(
            stored == Lab::empty().run(["schema", page]).exits(0).stdout,
            "docs/{page}.md is out of date: sparsify-exp schema {page} > docs/{page}.md"
        );
    }
}

#[test]
fn experiments_name_their_schema_and_keep_to_it() {
    let schema = schema_of("experiment");
    for path in experiments() {
        let text = std::fs::read_to_string(&path).unwrap();
        let up = if path.parent().is_some_and(|folder| folder.ends_with("papers")) { "../.." } else { ".." };
        let line = format!("#:schema {up}/schemas/experiment.json");
        assert_eq!(text.lines().next(), Some(line.as_str()), "{}", path.display());
        Lab::empty().run(["check", path.to_str().unwrap()]).exits(0);
        conforms(&toml::from_str(&text).unwrap(), &schema);
    }
    for text in [
        "[model]\nsource = 7",
        "",
        "[[kernel]]\nshape = [1]\ntokens = 1\nformat = 'csr'",
        "[[kernel]]\nshape = [1, 'x']\ntokens = 1\nformat = 'csr'",
    ] {
        let wrong: Value = toml::from_str(&format!("name = 'x'\n{text}")).unwrap();
        assert!(check(&wrong, &schema, &schema, "").is_err(), "{text}");
    }
}

#[test]
fn results_keep_to_their_schemas() {
    let lab = Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "pattern = [\"2:3\", \"2:4\"]"));
    lab.run(["run", "e.toml"]).exits(100);
    let schema = schema_of("cell");
    let cells = lab.cells();
    assert_eq!(cells.len(), 5);
    for (id, cell) in &cells {
        conforms(cell, &schema);
        assert_eq!(cell["id"], id.as_str());
    }
    let manifest: Value = serde_json::from_str(&lab.read("results/e/manifest.json")).unwrap();
    conforms(&manifest, &schema_of("manifest"));
    let inputs = manifest["inputs"].as_array().unwrap();
    let sources: Vec<&str> = inputs.iter().map(|input| input["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["path:model", "path:model", "file:texts.txt"]);
    assert_eq!(manifest["argv"].as_array().unwrap()[1..], ["run", "e.toml"]);
}
