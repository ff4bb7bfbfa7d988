//! An experiment that is ready to run, what decides which of its cells do, and why there may be none. prepare.rs makes
//! it.

use super::memory::TooLarge;
use super::model::Read;
use crate::config::Experiment;
use crate::config::arena::LaunchProblem;
use crate::execute::device::DeviceError;
use crate::load::{InputFile, LoadError, ModelFiles, TaskTokens, TextInput, Tokenizer, Tokens};
use crate::model::Architecture;
use crate::plan::{CellId, Decision, Only, Partition, Planned, Rerun, SelectError};
use crate::record::{InputRecord, PlanRecord};
use std::sync::Arc;
use thiserror::Error;

/// What decides which cells run.
#[derive(Clone, Debug, Default)]
pub struct PrepareOptions {
    /// Conditions; a cell is selected when one of them holds, or there are none.
    pub only: Vec<Only>,
    /// The part of the plan that is this process's.
    pub partition: Option<Partition>,
    /// Which finished cells run again.
    pub rerun: Rerun,
    /// How many cells run at most.
    pub limit: Option<usize>,
    /// Whether to look for what tells new cells from those of earlier settings.
    pub explain: bool,
}

/// An experiment, ready to run.
pub struct Prepared {
    /// What the user wrote.
    pub experiment: Experiment,
    /// The models, in the file's order.
    pub models: Vec<PreparedModel>,
    /// Models that given points are compared with, each once.
    pub references: Vec<ModelFiles>,
    /// What the texts were read from.
    pub texts: Vec<TextInput>,
    /// Every cell of the plan, in order, kind by kind.
    pub cells: Vec<Planned>,
    /// Cells of the results folder that are not of this plan.
    pub unused: usize,
    /// The plan as it is stored.
    pub plan: PlanRecord,
    /// What to tell the user.
    pub warnings: Vec<String>,
    /// Cells that may take more memory than there is.
    pub too_large: Vec<TooLarge>,
}

/// A model whose files are found and whose texts are tokenised.
pub struct PreparedModel {
    /// Its files.
    pub files: ModelFiles,
    /// What it is made of.
    pub architecture: Arc<Architecture>,
    /// The texts as it sees them.
    pub tokens: Tokens,
    /// The tasks as it sees them.
    pub tasks: Vec<TaskTokens>,
    /// What reads what it writes.
    pub tokenizer: Tokenizer,
    /// Digests of what its cells read.
    pub(super) read: Read,
}

impl Prepared {
    fn selected(&self) -> impl Iterator<Item = &Planned> {
        self.cells.iter().filter(|planned| planned.selected)
    }

    /// Selected cells that stay as they are, or are copied.
    pub fn kept(&self) -> impl Iterator<Item = (&CellId, &Decision)> {
        self.selected().filter(|planned| !planned.decision.runs()).map(|planned| (&planned.id, &planned.decision))
    }

    /// Selected cells of which there is more to say than a word.
    pub fn reasons(&self) -> impl Iterator<Item = (&CellId, &Decision)> {
        let told = |decision: &Decision| decision.to_string() != decision.word();
        let all = self.selected().map(|planned| (&planned.id, &planned.decision));
        all.filter(move |(_, decision)| told(decision))
    }

    /// The files and texts that results depend on.
    pub fn inputs(&self) -> Vec<InputRecord> {
        let of_model = |files: &ModelFiles| {
            let record = |file: &InputFile| InputRecord {
                source: files.source.clone(),
                file: Some(file.name.clone()),
                sha256: file.sha256.clone(),
                bytes: Some(file.bytes),
                commit: files.commit.clone(),
            };
            files.inputs.iter().map(record).collect::<Vec<_>>()
        };
        let of_text = |text: &TextInput| {
            let TextInput { source, file, sha256, bytes, commit } = text.clone();
            InputRecord { source, file, sha256, bytes, commit }
        };
        // A reference may be one of the models.
        let is_other = |files: &&ModelFiles| self.models.iter().all(|model| model.files.source != files.source);
        let models = self.models.iter().map(|model| &model.files).chain(self.references.iter().filter(is_other));
        models.flat_map(of_model).chain(self.texts.iter().map(of_text)).collect()
    }

    /// How many of the cells this process will run.
    pub fn running(&self) -> usize {
        self.cells.iter().filter(|planned| planned.runs()).count()
    }
}

/// Why an experiment can't be prepared.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A model or a text.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A dtype that a backend lacks, found only after `auto` was decided.
    #[error("`{backend}` has no dtype `{dtype}`")]
    Dtype {
        /// The backend.
        backend: &'static str,
        /// The dtype.
        dtype: &'static str,
    },
    /// A dtype that a backend's kernels lack, found only after `auto` was decided.
    #[error("the kernels of `{backend}` have no dtype `{dtype}`")]
    KernelDtype {
        /// The backend.
        backend: &'static str,
        /// The dtype.
        dtype: &'static str,
    },
    /// A format that a backend's kernels lack, found only after `auto` was decided.
    #[error("`{backend}` has no kernel for the format `{format}`")]
    KernelFormat {
        /// The backend.
        backend: &'static str,
        /// The format.
        format: &'static str,
    },
    /// A file of a `[[kernel]]` block that is not there, or not what the block needs.
    #[error("`kernel.{key}`: {reason}")]
    KernelFile {
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A user's kernel that can't be launched for a shape.
    #[error("{0}")]
    KernelLaunch(LaunchProblem),
    /// A variant that a backend has no kernels for, found only after `auto` was decided.
    #[error("`{backend}` has no kernels for the variant `{variant}`")]
    Variant {
        /// The backend.
        backend: &'static str,
        /// The variant.
        variant: &'static str,
    },
    /// A dtype that a variant's kernels lack, found only after the checkpoint's was known.
    #[error("the variant `{variant}` has no kernels for `{dtype}`")]
    VariantDtype {
        /// The variant.
        variant: &'static str,
        /// The dtype.
        dtype: &'static str,
    },
    /// A model has too few positions for what is to be timed.
    #[error("`measure.prompt` {prompt} and `measure.generate` {generate} are {needed} tokens, but `{model}` has {positions} positions", needed = .prompt.saturating_add(*.generate))]
    Positions {
        /// The model source.
        model: String,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens generated after it.
        generate: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// An analysis does not fit the matrices that it is to look at.
    #[error("analysis `{id}`: {problem}")]
    Analysis {
        /// Its name.
        id: String,
        /// What does not fit.
        problem: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// An expectation is about no cell.
    #[error("the `[[expect]]` with `{0}` is about no cell of this experiment")]
    Expectation(String),
    /// There may not be enough memory.
    #[error("{0}")]
    TooLarge(TooLarge),
    /// Nothing is selected.
    #[error("no cell is selected{}", .0.as_ref().map_or_else(String::new, |why| format!(": {why}")))]
    NothingSelected(Option<SelectError>),
}

impl PrepareError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Device(error) => error.hint(),
            Self::Load(error) => error.hint(),
            Self::Dtype { .. } => Some("the CPU backends compute in f32: leave `dtype` out, or take a GPU".into()),
            Self::KernelDtype { .. } => Some("take another `kernel.dtype`, or another backend".into()),
            Self::KernelFormat { backend, .. } => {
                Some(format!("take another `kernel.format`, or {}", elsewhere(backend)))
            }
            Self::KernelFile { hint, .. } => hint.clone(),
            Self::KernelLaunch(_) => Some("mend the expression, or leave the shape out".into()),
            Self::Variant { backend, .. } => {
                Some(format!("take it out of `execute.variants`, or take {}", elsewhere(backend)))
            }
            Self::VariantDtype { .. } => {
                Some("write `dtype = \"f16\"` below `[model]`, or take another variant".into())
            }
            Self::Positions { positions, .. } => {
                Some(format!("set `measure.prompt` and `measure.generate` to {positions} or less together"))
            }
            Self::Analysis { hint, .. } => hint.clone(),
            Self::Expectation(_) => Some("`sparsify-exp plan FILE` lists the cells and their columns".into()),
            Self::TooLarge(_) => {
                Some("leave the cell out with `--only`, or measure it all the same with `--ignore-memory`".into())
            }
            Self::NothingSelected(_) => {
                Some("`sparsify-exp plan FILE` lists the cells; see `--only`, `--partition` and `--limit`".into())
            }
        }
    }
}

/// Where a format may have kernels that a backend lacks.
fn elsewhere(backend: &str) -> &'static str {
    if backend == "cuda" { "`device.backend = \"flex\"`" } else { "a machine with a GPU" }
}
