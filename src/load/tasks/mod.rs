//! Zero-shot tasks: datasets become questions, and questions token ids.
//!
//! ```text
//!   TaskName ──table.rs──> Spec ──place.rs──> files ──rows──> Row ──ask──> Question: contexts, continuations
//!   Question ──encode.rs──> TaskItem: what the model sees, what is scored of it          python.rs: Python's strings
//! ```
//! By the conventions of lm-evaluation-harness 0.4 (`docs/tasks.md`). How likely a continuation is to a model is not
//! known here.

mod encode;
mod error;
mod place;
mod python;
mod row;
mod table;

pub use encode::{Request, TaskItem};
pub use error::TaskError;

use super::dataset::rows;
use super::text::TextInput;
use super::tokenizer::Tokenizer;
use super::{LoadError, Loader};
use crate::config::tasks::{TaskMetric, TaskName, TaskSettings};
use encode::Encoder;
use place::{Place, SplitFile};
use row::Row;
use std::path::PathBuf;
use table::{Question, Spec};

/// The tasks of an experiment, as texts.
#[derive(Clone, Debug, Default)]
pub struct TaskSets {
    tasks: Vec<TaskSet>,
    settings: TaskSettings,
    warnings: Vec<String>,
}

#[derive(Clone, Debug)]
struct TaskSet {
    task: TaskName,
    spec: Spec,
    shots: usize,
    /// Each with the number of its row, from 1.
    questions: Vec<(usize, Question)>,
    /// The file of the items, or the first of several.
    path: PathBuf,
    inputs: Vec<TextInput>,
}

/// A task as one model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskTokens {
    /// The task.
    pub task: TaskName,
    /// Examples in front of an item.
    pub shots: usize,
    /// What it gives.
    pub metrics: &'static [TaskMetric],
    /// The items, in the order of their rows.
    pub items: Vec<TaskItem>,
    /// SHA-256 of all that decides what the model is asked and what counts as right.
    pub sha256: String,
    /// What the dataset's file is called.
    pub source: String,
}

impl TaskTokens {
    /// Tokens that a model may write for an answer.
    pub const WRITTEN: usize = 256;

    /// What to tell the user of items that the model has no room for.
    pub fn cut(&self) -> Option<String> {
        let is_cut = |item: &&TaskItem| item.requests.iter().any(|request| request.dropped > 0);
        let (cut, of) = (self.items.iter().filter(is_cut).count(), self.items.len());
        (cut > 0).then(|| {
            let than = match self.task.generates() {
                true => "leave no room for an answer in the model's positions",
                false => "have more tokens than the model has positions",
            };
            format!(
                "{cut} of the {of} items of `{}` {than}: their contexts are cut in front, as lm-evaluation-harness does",
                self.task
            )
        })
    }
}

impl TaskSets {
    /// Reads the datasets, and downloads them where needed; nothing where there are no tasks.
    ///
    /// # Errors
    /// When a dataset can't be had, or a row is not what its task needs.
    pub fn read(settings: &TaskSettings, loader: &Loader) -> Result<Self, LoadError> {
        let mut sets = Self { settings: settings.clone(), ..Self::default() };
        let mut absent = Vec::new();
        for &task in &settings.names {
            let spec = Spec::of(task);
            let place = Place::find(&spec, settings.path.as_deref(), || loader.hub())?;
            let of_mmlu = settings.whole_mmlu && task.subject().is_some();
            if of_mmlu && !place.has(&spec, task) {
                absent.push(task);
                continue;
            }
            for warning in place.warnings() {
                if !sets.warnings.contains(&warning) {
                    sets.warnings.push(warning);
                }
            }
            sets.tasks.push(TaskSet::read(task, spec, &place, settings)?);
        }
        let subjects = settings.names.iter().filter(|task| task.subject().is_some()).count();
        match settings.path.as_ref().filter(|_| !absent.is_empty()) {
            Some(folder) if absent.len() == subjects => {
                let path = folder.join(Spec::of(absent[0]).repo);
                return Err(TaskError::NoDataset { path }.into());
            }
            Some(folder) => sets.warnings.push(format!(
                "`{}` has {} of the {subjects} subjects of `mmlu`: the others are not measured, and its mean is over these",
                folder.display(),
                subjects - absent.len()
            )),
            None => {}
        }
        Ok(sets)
    }

    /// What the items were read from, each file once.
    pub fn inputs(&self) -> Vec<TextInput> {
        let mut inputs: Vec<TextInput> = Vec::new();
        for input in self.tasks.iter().flat_map(|task| &task.inputs) {
            if !inputs.contains(input) {
                inputs.push(input.clone());
            }
        }
        inputs
    }

    /// What to tell the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The tasks as a model of `positions` positions and a vocabulary of `vocabulary` entries sees them.
    ///
    /// # Errors
    /// When an item has no token, or more than the model has room for, or the tokenizer is another model's.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        model: &str,
        positions: usize,
        vocabulary: usize,
    ) -> Result<Vec<TaskTokens>, LoadError> {
        let encoder = Encoder { tokenizer, bos: self.settings.bos, model, positions, vocabulary };
        self.tasks.iter().map(|set| set.encode(&encoder)).collect()
    }
}

impl TaskSet {
    fn read(task: TaskName, spec: Spec, place: &Place, settings: &TaskSettings) -> Result<Self, LoadError> {
        let shots = settings.shots_of(task);
        let mut files = place.split(&spec, task, spec.split)?;
        let limit = if settings.limit == 0 { usize::MAX } else { settings.limit };
        let items = read_rows(&files, limit)?;
        let mut examples = String::new();
        if let Some(split) = spec.examples.filter(|_| shots > 0) {
            let of_examples = place.split(&spec, task, split)?;
            let rows = read_rows(&of_examples, shots)?;
            if rows.len() < shots {
                let (path, rows) = (of_examples[0].path.clone(), rows.len());
                return Err(TaskError::FewExamples { task: task.name(), path, rows, shots }.into());
            }
            for (path, number, value) in &rows {
                examples += &spec.example(&Row { path, number: *number, value }).map_err(TaskError::from)?;
            }
            files.extend(of_examples);
        }
        if items.is_empty() {
            return Err(TaskError::NoItems { path: files[0].path.clone() }.into());
        }
        let question = |(path, number, value): &(PathBuf, usize, serde_json::Value)| {
            let row = Row { path, number: *number, value };
            Ok((*number, spec.question(task, &row, &examples).map_err(TaskError::from)?))
        };
        let questions = items.iter().map(question).collect::<Result<_, LoadError>>()?;
        let path = files[0].path.clone();
        Ok(Self { task, spec, shots, questions, path, inputs: files.into_iter().map(|file| file.input).collect() })
    }

    fn encode(&self, encoder: &Encoder<'_>) -> Result<TaskTokens, LoadError> {
        let (items, sha256) = encoder.items(&self.questions, &self.path)?;
        let source = self.inputs.first().map_or_else(String::new, |input| {
            input.file.as_ref().map_or_else(|| input.source.clone(), |file| format!("{}/{file}", self.spec.repo))
        });
        Ok(TaskTokens { task: self.task, shots: self.shots, metrics: self.task.metrics(), items, sha256, source })
    }
}

/// The first rows of files, each with its file and its number there.
fn read_rows(files: &[SplitFile], most: usize) -> Result<Vec<(PathBuf, usize, serde_json::Value)>, LoadError> {
    let mut all = Vec::new();
    for SplitFile { path, .. } in files {
        let rows = rows(path, most - all.len())?;
        all.extend(rows.into_iter().enumerate().map(|(index, row)| (path.clone(), index + 1, row)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
