//! A cell of the folder and the same cell run again, number by number.

use super::compare::{Arithmetic, Compared, Entry};
use super::record::ItemVerdict;
use crate::record::{Numbers, PartRecord, Program, Record};
use serde_json::Value;

/// What is not compared: where a matrix lay says nothing of its numbers, and its digest is; and profiles, which are made
/// of times and only where somebody asks for them.
const NOT_COMPARED: [&str; 2] = ["path", "profile"];

/// Compares a cell's results.
pub(super) fn compare(recorded: &Record, now: Option<&Record>, arithmetic: &Arithmetic) -> ItemVerdict {
    let mut compared = Compared::default();
    let failure = |record: &Record| record.failure.as_ref().map(|failure| failure.message.clone());
    match (failure(recorded), now.map(failure)) {
        (_, None) => compared.one_sided("the cell".into(), "there", "it was not measured"),
        (None, Some(None)) => {}
        (Some(then), Some(Some(now))) => {
            compared.entry("failure", || "failure".into(), &Entry::Word(then), &Entry::Word(now), arithmetic);
        }
        (then, Some(now)) => {
            let word =
                |failure: Option<String>| failure.map_or("it did not fail".into(), |why| format!("failed: {why}"));
            compared.one_sided("the cell".into(), &word(then), &word(now));
        }
    }
    let by_name = |part: &PartRecord| now.and_then(|now| now.results.iter().find(|again| again.id == part.id));
    for part in &recorded.results {
        let group = part.result.group();
        let Some(again) = by_name(part) else {
            if recorded.failure.is_none() {
                compared.one_sided(group.into(), "there", "nothing");
            }
            continue;
        };
        let current = Program::current();
        let reason = (part.program.to_string() != current.to_string())
            .then(|| format!("the program is {current}, and was {}", part.program));
        let arithmetic = arithmetic.and(reason);
        let [then, now] = [part, again].map(|part| with_items(&part.result));
        walk(&mut compared, "", group, &then, &now, &arithmetic);
    }
    if let Some(now) = now {
        let [then, now] = [recorded, now].map(|record| serde_json::to_value(record.timings).unwrap_or_default());
        timings(&mut compared, &then, &now, arithmetic);
    }
    ItemVerdict::of(recorded.id.as_str(), &recorded.cell.to_string(), compared)
}

/// Numbers as JSON; of a task its items stand for the digest of their file, which is another one if a single digit is.
fn with_items(numbers: &Numbers) -> Value {
    let mut value = serde_json::to_value(numbers).unwrap_or_default();
    if let Some(task) = numbers.with_file()
        && let Some(Value::Object(fields)) = value.get_mut("task")
    {
        fields.remove("kept");
        fields.insert("kept_items".into(), serde_json::to_value(&task.rows).unwrap_or_default());
    }
    value
}

/// What both have of how long the cell took: what one of them did not do (calibrate, say) has no ratio.
fn timings(compared: &mut Compared, then: &Value, now: &Value, arithmetic: &Arithmetic) {
    for (name, then) in then.as_object().into_iter().flatten() {
        if let Some(now) = now.get(name).filter(|now| now.is_number() && then.is_number()) {
            compared.entry(name, || name.clone(), &entry(then), &entry(now), arithmetic);
        }
    }
}

/// Compares two values of JSON, of which `path` says where they are and `name` which key they are below.
fn walk(compared: &mut Compared, path: &str, name: &str, then: &Value, now: &Value, arithmetic: &Arithmetic) {
    if NOT_COMPARED.contains(&name) {
        return;
    }
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            for (key, value) in then.iter().filter(|(key, _)| !NOT_COMPARED.contains(&key.as_str())) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match now.get(key) {
                    Some(now) => walk(compared, &path, key, value, now, arithmetic),
                    None => compared.one_sided(path, "there", "nothing"),
                }
            }
            for key in now.keys().filter(|key| !then.contains_key(*key) && !NOT_COMPARED.contains(&key.as_str())) {
                compared.one_sided(format!("{path}.{key}"), "nothing", "there");
            }
        }
        (Value::Array(then), Value::Array(now)) => {
            if then.len() != now.len() {
                let word = |count: usize| format!("{count} entries");
                return compared.one_sided(path.to_owned(), &word(then.len()), &word(now.len()));
            }
            for (index, (then, now)) in then.iter().zip(now).enumerate() {
                walk(compared, &format!("{path}[{index}]"), name, then, now, arithmetic);
            }
        }
        // Rows of an analysis are texts of JSON, one a line.
        (Value::String(then), Value::String(now)) if name == "rows" => {
            match [then, now].map(|t| serde_json::from_str(t)) {
                [Ok(then), Ok(now)] => walk(compared, path, "row", &then, &now, arithmetic),
                _ => compared.entry(
                    name,
                    || path.to_owned(),
                    &Entry::Word(then.clone()),
                    &Entry::Word(now.clone()),
                    arithmetic,
                ),
            }
        }
        (then, now) => compared.entry(name, || path.to_owned(), &entry(then), &entry(now), arithmetic),
    }
}

/// A value of JSON that has no others in it.
fn entry(value: &Value) -> Entry {
    match value {
        Value::Number(number) if number.is_f64() => Entry::Real(number.as_f64().unwrap_or(f64::NAN)),
        Value::Number(number) => Entry::Whole(number.as_i128().unwrap_or(0)),
        Value::Null => Entry::Word(String::new()),
        Value::String(text) => Entry::Word(text.clone()),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Entry::Word(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::compare::Counts;
    use serde_json::json;

    fn counts(then: Value, now: Value) -> Counts {
        let mut compared = Compared::default();
        walk(&mut compared, "", "analysis", &then, &now, &Arithmetic::Same);
        compared.counts
    }

    #[test]
    fn items_are_compared_and_not_the_digest_of_their_file() {
        use crate::config::tasks::TaskMetric;
        use crate::record::{ItemRow, TaskNumbers, TaskValue};
        let numbers = |likelihoods: [f64; 2], choice| {
            let row = ItemRow {
                row: 1,
                answers: vec![(Some(choice), choice == 0)],
                log_likelihoods: likelihoods.into(),
                ..Default::default()
            };
            let value = TaskValue { metric: TaskMetric::Acc, value: 0.5, stderr: None };
            Numbers::Task(Box::new(TaskNumbers::new("piqa".parse().unwrap(), 0, 0, vec![value], vec![row])))
        };
        let count = |a: &Numbers, b: &Numbers| {
            let mut compared = Compared::default();
            let other = Arithmetic::Other(vec!["of another machine".into()]);
            walk(&mut compared, "", "piqa", &with_items(a), &with_items(b), &other);
            (compared.counts.within, compared.counts.different)
        };
        let recorded = numbers([-1.5, -2.5], 0);
        assert_eq!(count(&recorded, &recorded), (0, 0));
        assert_eq!(count(&recorded, &numbers([-1.500_01, -2.5], 0)), (1, 0));
        assert_eq!(count(&recorded, &numbers([-1.6, -2.5], 0)), (0, 1));
        assert!(count(&recorded, &numbers([-1.5, -2.5], 1)).1 > 0);
    }

    #[test]
    fn every_number_is_found_wherever_it_is() {
        let then = json!({ "a": [1, 2.5, { "kl_nats": 0.25 }], "path": "/x", "rows": ["[3,0.5,null]"], "seconds": [1.0, 2.0] });
        assert_eq!(counts(then.clone(), then.clone()), Counts { equal: 6, within: 0, different: 0, timings: 2 });
        for (pointer, value) in [("/a/0", json!(2)), ("/a/2/kl_nats", json!(0.26)), ("/rows/0", json!("[3,0.6,null]"))]
        {
            let mut now = then.clone();
            *now.pointer_mut(pointer).unwrap() = value;
            assert_eq!(counts(then.clone(), now).different, 1, "{pointer}");
        }
        let mut now = then.clone();
        now["path"] = "/y".into();
        now["seconds"] = json!([5.0, 9.0]);
        assert_eq!(counts(then.clone(), now.clone()).different, 0);
        // Only one of the runs was asked for a profile.
        now["profile"] = json!({ "calls": 3 });
        assert_eq!(counts(then.clone(), now.clone()).different, 0);
        assert_eq!(counts(now.clone(), then.clone()).different, 0);
        now["a"] = json!([1, 2.5]);
        assert_eq!(counts(then.clone(), now.clone()).different, 1);
        now.as_object_mut().unwrap().remove("rows");
        assert_eq!(counts(then, now).different, 2);
    }
}
