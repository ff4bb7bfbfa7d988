//! The JSON schema of the experiment file, for editors and for the file's own check of keys and
//! types.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::config::raw::RawExperiment;
use crate::prune::{Least, SettingValue, settings};

/// The schema: draft 7, because that is what editors' TOML plug-ins read, and without references,
/// so that a reader finds a key where the file has it.
pub fn json_schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<RawExperiment>();
    RecursiveTransform(tidy).transform(&mut schema);
    add_settings(&mut schema);
    schema.insert("title".to_owned(), Value::from(RawExperiment::schema_name()));
    let mut rest = schema.as_object().cloned().unwrap_or_default();
    // What the schema is comes before what is in it.
    let first = ["$schema", "title", "description"];
    let head: Vec<_> = first.iter().filter_map(|key| rest.shift_remove_entry(*key)).collect();
    Value::Object(head.into_iter().chain(rest).collect())
}

/// The keys that methods declare, among those of a `[[prune]]` block.
fn add_settings(schema: &mut Schema) {
    let Some(Value::Object(keys)) = schema.pointer_mut("/properties/prune/items/properties") else { return };
    for (setting, users) in settings() {
        let names: Vec<String> = users.iter().map(|(method, _)| format!("`{method}`")).collect();
        let same = users.iter().all(|(_, default)| *default == users[0].1);
        let each: Vec<String> = users.iter().map(|(method, default)| format!("{default} for `{method}`")).collect();
        let default = if same { users[0].1.to_string() } else { each.join(", ") };
        let description = format!("For {}: {}. Default: {default}.", names.join(" and "), setting.help);
        let (kind, value) = match setting.default {
            SettingValue::Real(number) => ("number", Value::from(number)),
            SettingValue::Count(count) => ("integer", Value::from(count)),
        };
        let mut key = serde_json::json!({ "description": description, "type": kind });
        if same {
            key["default"] = value;
        } else {
            key["examples"] = Value::from(vec![value]);
        }
        if let (SettingValue::Count(_), Least::At(least)) = (setting.default, setting.least) {
            key["minimum"] = Value::from(least as u64);
        }
        keys.insert(setting.name.to_owned(), key);
    }
}

/// Takes out what TOML does not have, `null`, and Rust's widths of integers.
fn tidy(schema: &mut Schema) {
    schema.remove("format");
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(choices)) = schema.get_mut("anyOf") else {
        return;
    };
    choices.retain(|choice| choice["type"] != "null");
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        schema.remove("anyOf");
        for (key, value) in only {
            // What a field says of itself goes before what its type says.
            if schema.get(&key).is_none() {
                schema.insert(key, value);
            }
        }
    }
}
