//! One envelope around every kind of work.
//!
//! ```text
//!   Planned                        one cell: what its file and an event of it are about, too
//!     task    Task ─┬─ Model(Cell)            a kind of work is a row of `kinds!` and a file beside this one
//!                   ├─ Kernel(KernelCell)
//!                   └─ Analysis(AnalysisCell)
//!     inputs  what it reads:  "calibration" ─> sha256, text, samples, length
//!     id      hash of task and inputs
//!     parts   groups of results, each measured and kept by itself
//!               "perplexity"  inputs: sha256, text, windows, context     id: hash of the cell's id and these
//!     decision, due           what is to be done, and for which parts
//! ```
//! A number's name is what decides it: a metric that is added, or more windows, give a new part and leave the others.
//! What a kind brings is [`Kind`]; nothing here knows how a task is run or shown.

use super::analysis::AnalysisCell;
use super::identify::CellId;
use super::kernel::KernelCell;
use super::model::{Backend, Cell};
use super::resume::Decision;
use crate::column;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// What a kind of work says about one of its tasks.
pub trait Kind: fmt::Display {
    /// The kind's name, as files have it.
    fn name(&self) -> &'static str;
    /// All of the task that decides its results, in a form that only changes when they do.
    fn canonical(&self) -> Value;
    /// Whether both must be run by one process, since they are compared with each other.
    fn belongs_with(&self, other: &Task) -> bool;
    /// Whether both are run together, since they share what is loaded.
    fn same_batch(&self, other: &Task) -> bool;
    /// What it runs on.
    fn backend(&self) -> Backend;
    /// A short label for people.
    fn setup(&self) -> String;
    /// What tells it from others of its kind: the entries of the kind's key columns, in order.
    fn key(&self) -> Vec<(&'static str, column::Value)>;
}

/// A task of one kind, where it is of that kind: nothing that asks for its own kind knows of others.
pub trait Of: Sized {
    /// The task itself.
    fn of(task: &Task) -> Option<&Self>;
}

/// Declares the closed list of kinds.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident($task:ty),)+) => {
        /// What is to be run, of whichever kind.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        pub enum Task {
            $($(#[$doc])* $kind($task),)+
        }

        impl Task {
            /// The key columns of all kinds, each once, with what they say.
            pub fn key_columns() -> Vec<(&'static str, &'static str)> {
                let mut all: Vec<(&'static str, &'static str)> = Vec::new();
                $(for column in <$task>::KEY {
                    if all.iter().all(|(name, _)| *name != column.name) {
                        all.push((column.name, column.help));
                    }
                })+
                all.extend(Cell::CALIBRATION.iter().map(|column| (column.name, column.help)));
                all
            }

            /// What its kind says of it.
            pub fn kind(&self) -> &dyn Kind {
                match self { $(Self::$kind(task) => task,)+ }
            }
        }

        $(impl From<$task> for Task {
            fn from(task: $task) -> Self {
                Self::$kind(task)
            }
        }

        impl Of for $task {
            fn of(task: &Task) -> Option<&Self> {
                if let Task::$kind(task) = task { Some(task) } else { None }
            }
        })+
    };
}

kinds! {
    /// A model in one form, pruned or not.
    Model(Cell),
    /// A bare linear, timed without a model.
    Kernel(KernelCell),
    /// An analysis of masks or activations.
    Analysis(AnalysisCell),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

/// Settings by name.
pub type Settings = BTreeMap<String, Value>;

/// What results depend on beside the task, by name. Where there is a `sha256`, it decides and the rest says for
/// people what it is the digest of; otherwise all of it decides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Inputs(pub BTreeMap<String, Settings>);

/// The setting that decides alone.
const DIGEST: &str = "sha256";

impl Inputs {
    /// With one more.
    #[must_use]
    pub fn with(mut self, name: &str, settings: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value));
        self.0.insert(name.to_owned(), settings.collect());
        self
    }

    /// With one more whose settings are the fields of a value.
    #[must_use]
    pub fn with_fields(mut self, name: &str, value: &impl Serialize) -> Self {
        if let Ok(Value::Object(fields)) = serde_json::to_value(value) {
            self.0.insert(name.to_owned(), fields.into_iter().collect());
        }
        self
    }

    /// What decides, by name.
    pub(super) fn deciding(&self) -> BTreeMap<&str, Value> {
        let of = |settings: &Settings| match settings.get(DIGEST) {
            Some(digest) => digest.clone(),
            None => settings.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        };
        self.0.iter().map(|(name, settings)| (name.as_str(), of(settings))).collect()
    }

    /// How these differ from earlier ones, `calibration_length 256 -> 128`; nothing where the same decides.
    pub fn changes_from(&self, earlier: &Self) -> Vec<String> {
        let (new, old) = (self.deciding(), earlier.deciding());
        let mut changes = Vec::new();
        for name in new.keys().chain(old.keys().filter(|name| !new.contains_key(*name))) {
            if new.get(name) == old.get(name) {
                continue;
            }
            match (earlier.0.get(*name), self.0.get(*name)) {
                (None, _) => changes.push(format!("{name} is new")),
                (Some(_), None) => changes.push(format!("{name} is gone")),
                (Some(old), Some(new)) => changes.extend(setting_changes(name, old, new)),
            }
        }
        changes
    }
}

fn setting_changes(name: &str, old: &Settings, new: &Settings) -> Vec<String> {
    let digested = old.contains_key(DIGEST) || new.contains_key(DIGEST);
    let label = |key: &str| match key {
        "text" => name.to_owned(),
        "context" => key.to_owned(),
        key if digested => format!("{name}_{key}"),
        key => key.to_owned(),
    };
    let shown = |settings: &Settings, key: &str| match settings.get(key) {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let keys = new.keys().chain(old.keys().filter(|key| !new.contains_key(*key)));
    let differing = keys.filter(|key| *key != DIGEST && old.get(*key) != new.get(*key));
    let mut changes: Vec<String> =
        differing.map(|key| format!("{} {} -> {}", label(key), shown(old, key), shown(new, key))).collect();
    if changes.is_empty() {
        changes.push(format!("the content of {name} has changed"));
    }
    changes
}

/// A group of results of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The group.
    pub group: &'static str,
    /// Its name: what decides these results.
    pub id: CellId,
    /// What they depend on beside the cell.
    pub inputs: Inputs,
    /// Whether it only says how the others came to be: it is kept with them, and never measured for itself.
    pub check: bool,
}

impl Part {
    /// A group of results of a cell.
    pub fn new(cell: &CellId, group: &'static str, inputs: Inputs) -> Self {
        Self { id: CellId::of_part(cell, group, &inputs), group, inputs, check: false }
    }
}

/// A cell, and what is to be done about it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub id: CellId,
    /// What it is.
    pub task: Task,
    /// What it reads or depends on.
    pub inputs: Inputs,
    /// Its groups of results.
    pub parts: Vec<Part>,
    /// What its file says to do.
    pub decision: Decision,
    /// The groups that are measured when it runs.
    pub due: Vec<&'static str>,
    /// The experiment beside this one that has results of this cell, where those are taken over.
    pub taken_from: Option<String>,
    /// Whether this process was asked to see to it.
    pub selected: bool,
    /// An estimate of the memory that it needs, in bytes.
    pub memory_bytes: u64,
}

impl Planned {
    /// A cell of which nothing is known yet.
    pub fn new(
        task: impl Into<Task>,
        inputs: Inputs,
        parts: impl FnOnce(&CellId) -> Vec<Part>,
        memory_bytes: u64,
    ) -> Self {
        let task = task.into();
        let id = CellId::new(&task, &inputs);
        let parts = parts(&id);
        let due = parts.iter().filter(|part| !part.check).map(|part| part.group).collect();
        let (decision, taken_from, selected) = (Decision::New { why: Vec::new() }, None, true);
        Self { id, task, inputs, parts, decision, due, taken_from, selected, memory_bytes }
    }

    /// Whether this process will run it.
    pub fn runs(&self) -> bool {
        self.selected && self.decision.runs()
    }

    /// Has all of it measured again.
    pub fn again(&mut self, decision: Decision) {
        self.decision = decision;
        self.due = self.parts.iter().filter(|part| !part.check).map(|part| part.group).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(length: u64, digest: &str) -> Inputs {
        Inputs::default().with(
            "calibration",
            [("sha256", digest.into()), ("text", "builtin:corpus".into()), ("length", length.into())],
        )
    }

    #[test]
    fn changes_are_told_by_setting_and_by_content_where_no_setting_differs() {
        assert_eq!(text(128, "b").changes_from(&text(256, "a")), ["calibration_length 256 -> 128"]);
        assert_eq!(text(128, "b").changes_from(&text(128, "a")), ["the content of calibration has changed"]);
        // What is the same by its digest is the same, whatever it is called.
        assert!(text(128, "a").changes_from(&text(256, "a")).is_empty());
        let timed = |warmup: u64| Inputs::default().with("latency", [("warmup", warmup.into()), ("batch", json!([1]))]);
        assert_eq!(timed(2).changes_from(&timed(3)), ["warmup 3 -> 2"]);
        assert_eq!(text(1, "a").changes_from(&timed(3)), ["calibration is new", "latency is gone"]);
    }

    #[test]
    fn of_what_has_a_digest_the_digest_decides() {
        assert_eq!(text(1, "a").deciding(), text(2, "a").deciding());
        assert_ne!(text(1, "a").deciding(), text(1, "b").deciding());
    }
}
