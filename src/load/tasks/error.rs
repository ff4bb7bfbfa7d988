//! Why a task can't be asked.

use super::row::RowProblem;
use std::path::PathBuf;
use thiserror::Error;

/// Why a task can't be asked.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TaskError {
    /// A row of its dataset.
    #[error(transparent)]
    Row(#[from] RowProblem),
    /// A folder of datasets lacks one.
    #[error("no dataset `{}`", path.display())]
    NoDataset {
        /// Where it should be.
        path: PathBuf,
    },
    /// A split is in files that are no parts of one.
    #[error("split `{split}` of dataset `{place}` is in several files: `{first}`, `{second}`")]
    SeveralFiles {
        /// The dataset.
        place: String,
        /// The split.
        split: String,
        /// One.
        first: String,
        /// Another.
        second: String,
    },
    /// A file has no rows.
    #[error("`{}` has no rows", path.display())]
    NoItems {
        /// The file.
        path: PathBuf,
    },
    /// A split has fewer rows than examples are asked for.
    #[error("`tasks.shots` is {shots}, but the examples of `{task}` in `{}` are {rows}", path.display())]
    FewExamples {
        /// The task.
        task: &'static str,
        /// The file.
        path: PathBuf,
        /// Its rows.
        rows: usize,
        /// Examples asked for.
        shots: usize,
    },
    /// A folder of datasets lacks a file.
    #[error("{message}")]
    NoFile {
        /// What is missing.
        message: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A model has no room for an answer.
    #[error("an answer has up to {written} tokens, but `{model}` has {positions} positions")]
    NoRoom {
        /// Tokens of an answer, at most.
        written: usize,
        /// The model source.
        model: String,
        /// Positions of the model.
        positions: usize,
    },
    /// A continuation is longer than the model.
    #[error("choice {choice} of row {row} of `{}` has {tokens} tokens, but `{model}` has {positions} positions", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// The choice, from 1.
        choice: usize,
        /// Tokens of the choice.
        tokens: usize,
        /// The model source.
        model: String,
        /// Positions of the model.
        positions: usize,
    },
    /// A context or a continuation becomes no token.
    #[error("the {part} of choice {choice} of row {row} of `{}` becomes no token with the tokenizer of `{model}`", path.display())]
    NoTokens {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// The choice, from 1.
        choice: usize,
        /// `context` or `continuation`.
        part: &'static str,
        /// The model source.
        model: String,
    },
    /// A tokenizer names no token that begins a text.
    #[error("{what}, but the tokenizer of `{model}` names no {token} token")]
    NoPrefix {
        /// The model source.
        model: String,
        /// What needs it.
        what: String,
        /// `BOS`, or `BOS or EOS`.
        token: &'static str,
    },
}

impl TaskError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Row(_) => "mend the row, or ask fewer items: set `tasks.limit`".into(),
            Self::NoDataset { .. } => {
                "`tasks.path` has datasets as the hub's repositories have them: DIR/ORG/NAME/FILES; without it they come \
                 from the hub"
                    .into()
            }
            Self::SeveralFiles { .. } => "leave one of them in the folder".into(),
            Self::NoItems { .. } => "put a file with items in its place, or download the dataset again".into(),
            Self::NoFile { path, .. } => {
                format!("as the hub's repository has it: `{}`, or as JSON lines in its place", path.display())
            }
            Self::NoRoom { .. } => "leave the tasks out whose answers are written".into(),
            Self::FewExamples { rows, .. } => format!("set `tasks.shots` to {rows} or less"),
            Self::TooLong { .. } => "such an item can't be asked of this model: leave the task out".into(),
            Self::NoTokens { part: "context", .. } => "set `tasks.bos = true`, or leave the task out".into(),
            Self::NoTokens { .. } => "leave the task out".into(),
            Self::NoPrefix { .. } => "name `bos_token` in tokenizer_config.json beside the tokenizer".into(),
        })
    }
}
