//! `[tasks]`: what the metric `tasks` measures.
//!
//! ```text
//!   names ──> TaskName, TaskName, ..     a task each; the name of a set stands for its tasks
//!   shots, limit, path, bos              how items become what the model reads
//! ```
//! Owns the words and the rules of the keys. What a task's dataset is and how its rows become questions is
//! `load/tasks`'s business.

use schemars::JsonSchema;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::axis::{At, Axis};
use crate::diagnostic::nearest;
use crate::keyword::{UnknownKeyword, keywords};

const ACC: &[TaskMetric] = &[TaskMetric::Acc];
const ACC_NORM: &[TaskMetric] = &[TaskMetric::Acc, TaskMetric::AccNorm];
const ACC_PERPLEXITY: &[TaskMetric] = &[TaskMetric::Acc, TaskMetric::Perplexity];
const MATCHES: &[TaskMetric] = &[TaskMetric::StrictMatch, TaskMetric::FlexibleMatch];

/// Tasks that are no subject of MMLU, each with a line of help and the numbers that it gives.
const TASKS: [(&str, &str, &[TaskMetric]); 10] = [
    ("boolq", "yes or no, of a passage", ACC),
    ("rte", "whether a sentence follows from another", ACC),
    ("hellaswag", "how a description goes on", ACC_NORM),
    ("winogrande", "which of two nouns fills a gap", ACC),
    ("arc_easy", "questions of science, easy ones", ACC_NORM),
    ("arc_challenge", "questions of science, hard ones", ACC_NORM),
    ("openbookqa", "questions of science with common knowledge", ACC_NORM),
    ("piqa", "which of two ways reaches a goal", ACC_NORM),
    ("lambada_openai", "the last word of a passage", ACC_PERPLEXITY),
    ("gsm8k", "word problems, whose solution is written out", MATCHES),
];

/// The subjects of MMLU, as its configurations are called, with what stands in front of them in a task's name.
pub const SUBJECTS: [&str; 57] = [
    "mmlu_abstract_algebra",
    "mmlu_anatomy",
    "mmlu_astronomy",
    "mmlu_business_ethics",
    "mmlu_clinical_knowledge",
    "mmlu_college_biology",
    "mmlu_college_chemistry",
    "mmlu_college_computer_science",
    "mmlu_college_mathematics",
    "mmlu_college_medicine",
    "mmlu_college_physics",
    "mmlu_computer_security",
    "mmlu_conceptual_physics",
    "mmlu_econometrics",
    "mmlu_electrical_engineering",
    "mmlu_elementary_mathematics",
    "mmlu_formal_logic",
    "mmlu_global_facts",
    "mmlu_high_school_biology",
    "mmlu_high_school_chemistry",
    "mmlu_high_school_computer_science",
    "mmlu_high_school_european_history",
    "mmlu_high_school_geography",
    "mmlu_high_school_government_and_politics",
    "mmlu_high_school_macroeconomics",
    "mmlu_high_school_mathematics",
    "mmlu_high_school_microeconomics",
    "mmlu_high_school_physics",
    "mmlu_high_school_psychology",
    "mmlu_high_school_statistics",
    "mmlu_high_school_us_history",
    "mmlu_high_school_world_history",
    "mmlu_human_aging",
    "mmlu_human_sexuality",
    "mmlu_international_law",
    "mmlu_jurisprudence",
    "mmlu_logical_fallacies",
    "mmlu_machine_learning",
    "mmlu_management",
    "mmlu_marketing",
    "mmlu_medical_genetics",
    "mmlu_miscellaneous",
    "mmlu_moral_disputes",
    "mmlu_moral_scenarios",
    "mmlu_nutrition",
    "mmlu_philosophy",
    "mmlu_prehistory",
    "mmlu_professional_accounting",
    "mmlu_professional_law",
    "mmlu_professional_medicine",
    "mmlu_professional_psychology",
    "mmlu_public_relations",
    "mmlu_security_studies",
    "mmlu_sociology",
    "mmlu_us_foreign_policy",
    "mmlu_virology",
    "mmlu_world_religions",
];

/// The task of all subjects.
pub const MMLU: &str = "mmlu";
/// The plain mean over all tasks of a cell.
pub const MEAN: &str = "mean";
/// What stands in front of a subject in a task's name.
pub const OF_MMLU: &str = "mmlu_";

/// Sets of tasks, each with a line of help: the tables of papers, in the order of their columns. Wanda's are the
/// `task_list` of `main.py` in locuslab/wanda at 8e8fc87b; SLiM's (arXiv 2410.09615) the `tasks` of `main.py` in
/// Mohammad-Mozaffari/slim at ed72646c, whose means are over `mmlu` as one of six.
pub const SETS: [(&str, &str, &[&str]); 2] = [
    (
        "wanda7",
        "the seven of Wanda's tables",
        &["boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa"],
    ),
    ("slim6", "the six of SLiM's tables", &["mmlu", "piqa", "arc_easy", "arc_challenge", "winogrande", "openbookqa"]),
];

/// A task of the closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskName(&'static str);

impl TaskName {
    /// The file's spelling.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// The subject of MMLU that it is, if it is one: `abstract_algebra`.
    pub fn subject(self) -> Option<&'static str> {
        self.0.strip_prefix(OF_MMLU)
    }

    /// The numbers that it gives, the first one first in tables.
    pub fn metrics(self) -> &'static [TaskMetric] {
        TASKS.iter().find(|(name, ..)| *name == self.0).map_or(ACC, |(.., metrics)| metrics)
    }

    /// The numbers that a name of the file gives: a task's own, `acc` of a mean of tasks.
    pub fn metrics_of(name: &str) -> &'static [TaskMetric] {
        name.parse().map_or(ACC, Self::metrics)
    }

    /// Examples in front of an item where nothing is said.
    pub fn default_shots(self) -> usize {
        if self.generates() { 5 } else { 0 }
    }

    /// Whether the model writes its answer, where others say how likely given ones are.
    pub fn generates(self) -> bool {
        self.0 == "gsm8k"
    }

    /// Whether it is settled which examples stand in front of an item.
    pub fn has_examples(self) -> bool {
        self.subject().is_some() || self.generates()
    }

    /// The tasks that a name of the file stands for; none if there is no such name.
    pub fn of(name: &str) -> Option<Vec<Self>> {
        if name == MMLU {
            return Some(SUBJECTS.map(Self).to_vec());
        }
        if let Some((_, _, tasks)) = SETS.iter().find(|(set, ..)| *set == name) {
            return Some(tasks.iter().filter_map(|name| Self::of(name)).flatten().collect());
        }
        all().find(|task| task.0 == name).map(|task| vec![task])
    }

    /// Words for people: every name that `tasks.names` takes, subjects of MMLU apart.
    pub fn words() -> Vec<(&'static str, &'static str)> {
        let sets = SETS.iter().map(|(set, help, _)| (*set, *help));
        let mmlu = [(MMLU, "knowledge of 57 subjects; `mmlu_SUBJECT` is one of them")];
        TASKS.iter().map(|(name, help, _)| (*name, *help)).chain(mmlu).chain(sets).collect()
    }

    /// The known name that is most like a text.
    pub fn nearest(text: &str) -> Option<&'static str> {
        let names = SETS.iter().map(|(set, ..)| *set).chain([MMLU]).chain(all().map(Self::name));
        nearest(text, names)
    }
}

/// Every task.
fn all() -> impl Iterator<Item = TaskName> {
    TASKS.iter().map(|(name, ..)| *name).chain(SUBJECTS).map(TaskName)
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl FromStr for TaskName {
    type Err = UnknownKeyword;

    fn from_str(text: &str) -> Result<Self, UnknownKeyword> {
        let unknown =
            || UnknownKeyword { kind: "task", name: text.into(), expected: TASKS.map(|(name, ..)| name).into() };
        all().find(|task| task.0 == text).ok_or_else(unknown)
    }
}

impl Serialize for TaskName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for TaskName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for TaskName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TaskName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

keywords! {
    /// A number that a task gives.
    TaskMetric "task metric" {
        Acc "acc" "share of items whose likeliest choice is the right one; of lambada_openai, whose last word is the likeliest at every token",
        AccNorm "acc_norm" "the same, each likelihood divided by the characters of its choice",
        Perplexity "perplexity" "exp of the mean negative log-likelihood of a target",
        StrictMatch "exact_match_strict" "share of items whose written answer stands behind four number signs and is right",
        FlexibleMatch "exact_match_flexible" "share of items whose last written number is right",
    }
}

impl TaskMetric {
    /// Whether it is the share of items that are right.
    pub fn is_share(self) -> bool {
        match self {
            Self::Acc | Self::AccNorm | Self::StrictMatch | Self::FlexibleMatch => true,
            Self::Perplexity => false,
        }
    }
}

/// Whether the model's BOS token stands in front of every context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskBos {
    /// As the tokenizer does with a text.
    #[default]
    Tokenizer,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl TaskBos {
    /// As the file has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Always => "true",
            Self::Never => "false",
        }
    }
}

impl<'de> Deserialize<'de> for TaskBos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = TaskBos;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`tokenizer`, true or false")
            }

            fn visit_bool<E: Error>(self, always: bool) -> Result<TaskBos, E> {
                Ok(if always { TaskBos::Always } else { TaskBos::Never })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TaskBos, E> {
                let known = text == TaskBos::Tokenizer.name();
                if known { Ok(TaskBos::Tokenizer) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
            }
        }
        deserializer.deserialize_any(Word)
    }
}

impl JsonSchema for TaskBos {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TaskBos".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "oneOf": [{ "type": "string", "enum": ["tokenizer"] }, { "type": "boolean" }] })
    }
}

/// The `[tasks]` section: what the metric `tasks` measures.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTasks {
    /// The tasks: `boolq`, `rte`, `hellaswag`, `winogrande`, `arc_easy`, `arc_challenge`, `openbookqa`, `piqa`,
    /// `lambada_openai`, `gsm8k`; `mmlu` for all of its 57 subjects, or `mmlu_SUBJECT` for one; `wanda7` and `slim6` for
    /// the tasks of these papers' tables. Required with the metric `tasks`.
    #[schemars(required, extend("examples" = ["wanda7", ["boolq", "mmlu"]]))]
    pub names: Option<Axis<String>>,
    /// Examples in front of every item, the first of their split; only `mmlu` and `gsm8k` have them in a settled order.
    /// Default: 0; of `gsm8k`, 5.
    #[schemars(extend("examples" = [5]))]
    pub shots: Option<At<usize>>,
    /// Items of each task, from the first on; 0 means all. Default: 0.
    #[schemars(extend("default" = 0, "examples" = [100]))]
    pub limit: Option<At<usize>>,
    /// A folder with the datasets, each as its repository of the hub has it: `DIR/ORG/NAME/..`; relative to the
    /// experiment file. Default: the hub, through its cache.
    #[schemars(extend("examples" = ["datasets"]))]
    pub path: Option<At<String>>,
    /// Whether the model's BOS token stands in front of every context: `tokenizer` leaves it to the tokenizer, as
    /// lm-evaluation-harness does from 0.4.9.2 on; before, it was `false` for all but Gemma. Default: `tokenizer`.
    #[schemars(extend("default" = "tokenizer"))]
    pub bos: Option<At<TaskBos>>,
}

/// What the metric `tasks` measures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSettings {
    /// The tasks, each once.
    pub names: Vec<TaskName>,
    /// Whether they were asked for as `mmlu`, so that in a folder that has only some subjects these count.
    pub whole_mmlu: bool,
    /// Examples in front of an item; none for each task's own number.
    pub shots: Option<usize>,
    /// Items of each task; 0 means all.
    pub limit: usize,
    /// The folder of the datasets, if they are not the hub's.
    pub path: Option<PathBuf>,
    /// Whether the BOS token stands in front.
    pub bos: TaskBos,
}

impl TaskSettings {
    /// Examples in front of the items of a task.
    pub fn shots_of(&self, task: TaskName) -> usize {
        self.shots.unwrap_or(task.default_shots())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sets_are_tasks() {
        assert_eq!(TaskName::of("boolq"), Some(vec![TaskName("boolq")]));
        assert_eq!(TaskName::of("wanda7").map(|tasks| tasks.len()), Some(7));
        assert_eq!(TaskName::of("slim6").map(|tasks| tasks.len()), Some(57 + 5));
        assert_eq!(TaskName::of("mmlu_virology").map(|tasks| tasks[0].subject()), Some(Some("virology")));
        assert_eq!(TaskName::of("copa"), None);
        assert_eq!(TaskName::nearest("hellswag"), Some("hellaswag"));
        assert!("mmlu".parse::<TaskName>().is_err() && "rte".parse() == Ok(TaskName("rte")));
        let metrics = |name: &str| TaskName::metrics_of(name).iter().map(|metric| metric.name()).collect::<Vec<_>>();
        assert_eq!(metrics("gsm8k"), ["exact_match_strict", "exact_match_flexible"]);
        assert_eq!([metrics("piqa"), metrics("lambada_openai")], [["acc", "acc_norm"], ["acc", "perplexity"]]);
        assert!(["mmlu", "mmlu_virology", "wanda7", "mean", "rte"].iter().all(|name| metrics(name) == ["acc"]));
        for (_, _, tasks) in SETS {
            assert!(tasks.iter().all(|task| TaskName::of(task).is_some()));
        }
    }
}
