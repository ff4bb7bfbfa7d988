//! Experiment → planned cells: what both `plan` and `run` do first. Writes nothing.

use super::KINDS;
use super::kinds::Ground;
use super::memory::{TooLarge, too_large};
use super::model::Read;
use super::select::select;
use crate::config::Experiment;
use crate::config::analysis::Work;
use crate::config::experiment::{Data, Metric, ModelSource, Where, same_sparsity};
use crate::execute::device::{self, DeviceError};
use crate::execute::kernels::cpu::Simd;
use crate::load::{Checkpoint, LoadError, Loader, ModelFiles, TextInput, Texts, Tokens, Wanted};
use crate::model::Architecture;
use crate::plan::{Cell, CellId, Decision, Of, Only, Partition, Planned, Rerun};
use crate::record::{ExpectRecord, Machine, PlanEntry, PlanRecord, Store};
use std::cell::LazyCell;
use std::collections::HashSet;
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
    /// A variant that a backend has no kernels for, found only after `auto` was decided.
    #[error("`{backend}` has no kernels for the variant `{variant}`")]
    Variant {
        /// The backend.
        backend: &'static str,
        /// The variant.
        variant: &'static str,
    },
    /// A model has too few positions for what is to be timed.
    #[error("`measure.prompt` {prompt} and `measure.generate` {generate} are {needed} tokens, but `{model}` has {positions} positions", needed = .prompt.saturating_add(*.generate))]
    Positions {
        /// The model source.
        model: String,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens generated behind it.
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
    #[error("no cell is selected")]
    NothingSelected,
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
            Self::Variant { backend, .. } => {
                Some(format!("take it out of `execute.variants`, or take {}", elsewhere(backend)))
            }
            Self::Positions { positions, .. } => {
                Some(format!("set `measure.prompt` and `measure.generate` to {positions} or less together"))
            }
            Self::Analysis { hint, .. } => hint.clone(),
            Self::Expectation(_) => Some("`sparsify-exp plan FILE` lists the cells and their columns".into()),
            Self::TooLarge(_) => {
                Some("leave the cell out with `--only`, or measure it all the same with `--ignore-memory`".into())
            }
            Self::NothingSelected => {
                Some("`sparsify-exp plan FILE` lists the cells; see `--only`, `--partition` and `--limit`".into())
            }
        }
    }
}

/// Where a format may have kernels that a backend lacks.
fn elsewhere(backend: &str) -> &'static str {
    if backend == "cuda" { "`device.backend = \"flex\"`" } else { "a machine with a GPU" }
}

/// Finds models, tokenises texts, names every cell and decides what to do about it.
///
/// # Errors
/// When a device, a model or a text can't be used, or nothing is selected.
pub fn prepare(
    experiment: Experiment,
    loader: &Loader,
    store: &Store,
    options: &PrepareOptions,
) -> Result<Prepared, PrepareError> {
    let mut backends = Vec::new();
    for &choice in &experiment.backends {
        let backend = device::resolve(choice, experiment.device_index)?;
        if !backends.contains(&backend) {
            backends.push(backend);
        }
    }
    let (models, texts) = prepare_models(&experiment, loader)?;
    let warnings = texts.as_ref().map_or_else(Vec::new, Texts::warnings);
    let texts = texts.map_or_else(Vec::new, |texts| texts.inputs());
    let machine: LazyCell<Machine> = LazyCell::new(|| Machine::current(Simd::detect().name()));
    let ground = Ground { experiment: &experiment, backends: &backends, models: &models, machine: &machine };
    let mut cells = Vec::new();
    let mut seen = HashSet::new();
    for kind in &KINDS {
        // Two sources of one model, say a folder and the hub, make one cell.
        cells.extend((kind.plan)(&ground)?.into_iter().filter(|planned| seen.insert(planned.id.clone())));
    }
    let plan = plan_record(&experiment, &cells)?;
    let unused = select(&mut cells, store, options)?;
    // The machine is looked at only where something is to run on it.
    let runs = cells.iter().any(Planned::runs);
    let too_large = if runs { too_large(&cells, &machine, experiment.device_index) } else { Vec::new() };
    Ok(Prepared { texts, experiment, models, cells, unused, plan, warnings, too_large })
}

/// The models and the texts; nothing is read where there is no model.
fn prepare_models(experiment: &Experiment, loader: &Loader) -> Result<(Vec<PreparedModel>, Option<Texts>), LoadError> {
    if experiment.models.is_empty() {
        return Ok(Default::default());
    }
    let texts = Texts::read(&experiment.data, &wanted(experiment), loader)?;
    let models = experiment.models.iter().map(|source| prepare_model(loader, source, &texts, &experiment.data));
    Ok((models.collect::<Result<_, _>>()?, Some(texts)))
}

/// The texts that the experiment needs.
fn wanted(experiment: &Experiment) -> Wanted {
    let mut methods = experiment.prune.iter().flat_map(|block| &block.methods);
    let analyses = || experiment.analyses.iter();
    let seen = analyses().any(|block| block.sees_model_inputs());
    let calibrated = methods.any(|method| method.calibrates()) || seen;
    let thresholded = analyses().any(|block| matches!(block.work, Work::ActivationSparsity { .. }));
    Wanted {
        perplexity: experiment.metrics.contains(&Metric::Perplexity) || thresholded,
        calibration: if calibrated { experiment.seeds.clone() } else { Vec::new() },
    }
}

fn prepare_model(
    loader: &Loader,
    source: &ModelSource,
    texts: &Texts,
    data: &Data,
) -> Result<PreparedModel, LoadError> {
    let mut files = loader.find(source)?;
    // Opened and closed again: a damaged header or a wrong shape is known before anything runs.
    let checkpoint = Checkpoint::open(files.clone())?;
    files.warnings.extend_from_slice(checkpoint.warnings());
    let architecture = checkpoint.architecture().clone();
    let tokenizer = files.tokenizer()?;
    let tokens = texts.encode(&tokenizer, &files.source, architecture.max_positions, architecture.vocabulary)?;
    let read = Read::new(files.digest(), data, &tokens);
    Ok(PreparedModel { files, architecture, tokens, read })
}

fn plan_record(experiment: &Experiment, planned: &[Planned]) -> Result<PlanRecord, PrepareError> {
    let mut expectations = Vec::new();
    for expect in &experiment.expects {
        // Expectations are about columns of `summary.csv`, which only models are in.
        let about = |planned: &&Planned| Cell::of(&planned.task).is_some_and(|cell| selects(&expect.r#where, cell));
        let cells = planned.iter().filter(about);
        let cells: Vec<CellId> = cells.map(|planned| planned.id.clone()).collect();
        if cells.is_empty() {
            return Err(PrepareError::Expectation(expect.r#where.to_string()));
        }
        expectations.push(ExpectRecord {
            r#where: expect.r#where.to_string(),
            cells,
            metric: expect.metric.clone(),
            value: expect.value,
            tolerance: expect.tolerance,
            source: expect.source.clone(),
        });
    }
    Ok(PlanRecord {
        format: PlanRecord::FORMAT,
        name: experiment.name.clone(),
        title: experiment.title.clone(),
        cells: planned.iter().map(PlanEntry::of).collect(),
        expectations,
        queries: experiment.queries.clone(),
    })
}

/// Whether a cell has every value that `wanted` gives.
fn selects(wanted: &Where, cell: &Cell) -> bool {
    let point = cell.prune.as_ref();
    let backend = |choice: crate::config::experiment::BackendChoice| choice.name() == cell.backend.name();
    wanted.model.as_ref().is_none_or(|model| *model == cell.model)
        && wanted.method.is_none_or(|method| point.is_some_and(|p| p.method == method))
        && wanted.scope.is_none_or(|scope| point.is_some_and(|p| p.scope == Some(scope)))
        && wanted.pattern.is_none_or(|pattern| point.is_some_and(|p| p.pattern == pattern))
        && wanted.sparsity.is_none_or(|sparsity| point.is_some_and(|p| same_sparsity(p.sparsity, sparsity)))
        && wanted.seed.is_none_or(|seed| cell.seed == Some(seed))
        && wanted.variant.is_none_or(|variant| cell.variant == variant)
        && wanted.backend.is_none_or(backend)
        && wanted.dtype.is_none_or(|dtype| cell.dtype == dtype)
}
