//! Experiment → planned cells: what both `plan` and `run` do first. Writes nothing.

use super::kernels;
use super::memory::{memory, too_large};
use crate::config::Experiment;
use crate::config::experiment::{Dtype, Metric, Where, same_sparsity};
use crate::execute::KERNEL_POLICY_VERSION;
use crate::execute::device::{self, DeviceError};
use crate::execute::kernels::cpu::Simd;
use crate::load::{Checkpoint, LoadError, Loader, ModelFiles, TextInput, Texts, Tokens, Wanted};
use crate::model::Architecture;
use crate::plan::{
    Backend, Cell, CellId, Decision, InputDigests, KernelCell, KernelInputs, LatencyPoint, Only, Partition, Rerun,
    TimedOn, Work, accompany, decide, expand,
};
use crate::record::{ExpectRecord, KernelEntry, Machine, PlanEntry, PlanRecord, Program, Store};
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
}

/// An experiment, ready to run.
pub struct Prepared {
    /// What the user wrote.
    pub experiment: Experiment,
    /// The models, in the file's order.
    pub models: Vec<PreparedModel>,
    /// What the texts were read from.
    pub texts: Vec<TextInput>,
    /// Every model cell of the plan, in order.
    pub cells: Vec<PlannedCell>,
    /// Every kernel cell of the plan, in order, after the model cells.
    pub kernels: Vec<PlannedKernel>,
    /// The plan as it is stored.
    pub plan: PlanRecord,
    /// What to tell the user: of texts, and of devices whose memory may be too small.
    pub warnings: Vec<String>,
}

/// A model whose files are found and whose texts are tokenised.
pub struct PreparedModel {
    /// Its files.
    pub files: ModelFiles,
    /// What it is made of.
    pub architecture: Arc<Architecture>,
    /// The texts as it sees them.
    pub tokens: Tokens,
    digests: Digests,
}

/// Digests of what the cells of a model read, each computed once.
struct Digests {
    /// Of what every cell reads.
    shared: InputDigests,
    /// Of the calibration windows of each seed.
    calibration: Vec<(u64, Option<String>)>,
}

impl Prepared {
    /// Name and decision of every cell of the plan, and whether it is selected.
    fn decisions(&self) -> impl Iterator<Item = (&CellId, &Decision, bool)> {
        let cells = self.cells.iter().map(|planned| (&planned.id, &planned.decision, planned.selected));
        cells.chain(self.kernels.iter().map(|planned| (&planned.id, &planned.decision, planned.selected)))
    }

    /// Selected cells that stay as they are.
    pub fn kept(&self) -> impl Iterator<Item = (&CellId, &Decision)> {
        let kept = self.decisions().filter(|(_, decision, selected)| *selected && !decision.runs());
        kept.map(|(id, decision, _)| (id, decision))
    }

    /// Selected cells of which there is more to say than a word.
    pub fn reasons(&self) -> impl Iterator<Item = (&CellId, &Decision)> {
        let told = |decision: &Decision| decision.to_string() != decision.word();
        self.decisions().filter(move |(_, d, selected)| *selected && told(d)).map(|(id, decision, _)| (id, decision))
    }

    /// How many cells there are.
    pub fn total(&self) -> usize {
        self.cells.len() + self.kernels.len()
    }

    /// How many of them this process will run.
    pub fn running(&self) -> usize {
        self.decisions().filter(|(_, decision, selected)| *selected && decision.runs()).count()
    }
}

/// A cell, and what is to be done about it.
#[derive(Clone, Debug)]
pub struct Planned<C, I> {
    /// Its name.
    pub id: CellId,
    /// What it is.
    pub cell: C,
    /// What it reads or depends on.
    pub inputs: I,
    /// What its file says to do.
    pub decision: Decision,
    /// Whether this process was asked to see to it.
    pub selected: bool,
    /// An estimate of the memory that it needs, in bytes.
    pub memory_bytes: u64,
}

/// A model cell.
pub type PlannedCell = Planned<Cell, InputDigests>;
/// A kernel cell.
pub type PlannedKernel = Planned<KernelCell, KernelInputs>;

impl<C, I> Planned<C, I> {
    /// Whether this process will run it.
    pub fn runs(&self) -> bool {
        self.selected && self.decision.runs()
    }

    /// Decides what to do about it; `running` counts the cells that run.
    fn decide(&mut self, wanted: bool, store: &Store, options: &PrepareOptions, running: &mut usize) {
        self.decision = decide(store.existing(&self.id), &Program::current().to_string(), options.rerun);
        self.selected = wanted;
        if self.runs() {
            *running += 1;
            self.selected = options.limit.is_none_or(|limit| *running <= limit);
        }
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
    /// An expectation is about no cell.
    #[error("the `[[expect]]` with `{0}` is about no cell of this experiment")]
    Expectation(String),
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
            Self::KernelFormat { .. } => Some("take another `kernel.format`, or a machine with a GPU".into()),
            Self::Positions { positions, .. } => {
                Some(format!("set `measure.prompt` and `measure.generate` to {positions} or less together"))
            }
            Self::Expectation(_) => Some("`sparsify-exp plan FILE` lists the cells and their columns".into()),
            Self::NothingSelected => {
                Some("`sparsify-exp plan FILE` lists the cells; see `--only`, `--partition` and `--limit`".into())
            }
        }
    }
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
    let mut warnings = texts.as_ref().map_or_else(Vec::new, |texts| texts.warnings().to_vec());
    let texts = texts.map_or_else(Vec::new, |texts| texts.inputs());
    let model_of = |cell: &Cell| models.iter().find(|model| model.files.source == cell.model);
    let dtype_of = |source: &str, backend| {
        let model = models.iter().find(|model| model.files.source == source);
        device::default_dtype(backend, model.map_or(Dtype::F32, |model| model.files.dtype()))
    };

    let machine = LazyCell::new(|| Machine::current(Simd::detect().name()));
    let timed_on = |backend: Backend| timed_on(&machine, &experiment, backend);

    let mut seen = HashSet::new();
    let mut planned = Vec::new();
    for cell in expand(&experiment, &backends, dtype_of, timed_on) {
        if cell.backend.is_cpu() && cell.dtype != Dtype::F32 {
            return Err(PrepareError::Dtype { backend: cell.backend.name(), dtype: cell.dtype.name() });
        }
        let Some(model) = model_of(&cell) else { continue };
        timed_tokens_fit(&cell, model)?;
        let inputs = model.digests.of(&cell);
        let id = CellId::new(&cell, &inputs);
        // Two sources of one model, say a folder and the hub, make one cell.
        if seen.insert(id.clone()) {
            let memory_bytes = memory(&cell, model);
            planned.push(PlannedCell { id, cell, inputs, decision: Decision::New, selected: true, memory_bytes });
        }
    }
    let mut kernels = kernels::plan(&experiment, &backends)?;
    let plan = plan_record(&experiment, &planned, &kernels)?;
    select(&mut planned, &mut kernels, store, options)?;
    // The machine is looked at only where something is to run on it.
    let runs = planned.iter().any(PlannedCell::runs);
    if runs {
        warnings.extend(too_large(&planned, &machine, experiment.device_index));
    }
    Ok(Prepared { texts, experiment, models, cells: planned, kernels, plan, warnings })
}

/// The models and the texts; nothing is read where there is no model.
fn prepare_models(experiment: &Experiment, loader: &Loader) -> Result<(Vec<PreparedModel>, Option<Texts>), LoadError> {
    if experiment.models.is_empty() {
        return Ok(Default::default());
    }
    let texts = Texts::read(&experiment.data, &wanted(experiment), loader)?;
    let models = experiment.models.iter().map(|source| prepare_model(loader, source, &texts));
    Ok((models.collect::<Result<_, _>>()?, Some(texts)))
}

/// The texts that the experiment needs.
fn wanted(experiment: &Experiment) -> Wanted {
    let mut methods = experiment.prune.iter().flat_map(|block| &block.methods);
    let calibrated = methods.any(|method| method.calibrates());
    Wanted {
        perplexity: experiment.metrics.contains(&Metric::Perplexity),
        calibration: if calibrated { experiment.seeds.clone() } else { Vec::new() },
    }
}

fn prepare_model(
    loader: &Loader,
    source: &crate::config::source::ModelSource,
    texts: &Texts,
) -> Result<PreparedModel, LoadError> {
    let files = loader.find(source)?;
    // Opened and closed again: a damaged header or a wrong shape is known before anything runs.
    let architecture = Checkpoint::open(files.clone())?.architecture().clone();
    let tokenizer = files.tokenizer()?;
    let tokens = texts.encode(&tokenizer, &files.source, architecture.max_positions, architecture.vocabulary)?;
    let digests = Digests::new(&files, &tokens);
    Ok(PreparedModel { files, architecture, tokens, digests })
}

/// What decides how fast a backend is.
fn timed_on(machine: &Machine, experiment: &Experiment, backend: Backend) -> TimedOn {
    let gpu = machine.gpu(experiment.device_index).unwrap_or("GPU");
    let device = if backend.is_cpu() { &machine.cpu } else { gpu };
    // 0 takes what rayon takes, which the environment may limit.
    let threads = if experiment.threads == 0 { rayon::current_num_threads() } else { experiment.threads };
    TimedOn { device: device.to_owned(), threads, kernels: KERNEL_POLICY_VERSION }
}

fn timed_tokens_fit(cell: &Cell, model: &PreparedModel) -> Result<(), PrepareError> {
    let Some(LatencyPoint { prompt, generate, .. }) = &cell.latency else { return Ok(()) };
    let positions = model.architecture.max_positions;
    match prompt.iter().find(|prompt| prompt.saturating_add(*generate) > positions) {
        Some(&prompt) => {
            Err(PrepareError::Positions { model: cell.model.clone(), prompt, generate: *generate, positions })
        }
        None => Ok(()),
    }
}

impl Digests {
    fn new(files: &ModelFiles, tokens: &Tokens) -> Self {
        let shared = InputDigests {
            model: files.digest(),
            agreement: tokens.agreement_digest(),
            perplexity: tokens.perplexity_digest(),
            calibration: None,
        };
        let of_seed = |seed| (seed, tokens.calibration_digest(seed));
        let calibration = tokens.calibration.iter().map(|calibration| of_seed(calibration.seed)).collect();
        Self { shared, calibration }
    }

    /// What a cell reads.
    fn of(&self, cell: &Cell) -> InputDigests {
        let seed = cell.seed.filter(|_| cell.prune.as_ref().is_some_and(|point| point.method.calibrates()));
        let windows = self.calibration.iter().find(|(of, _)| Some(*of) == seed);
        InputDigests { calibration: windows.and_then(|(_, digest)| digest.clone()), ..self.shared.clone() }
    }
}

fn select(
    cells: &mut [PlannedCell],
    kernels: &mut [PlannedKernel],
    store: &Store,
    options: &PrepareOptions,
) -> Result<(), PrepareError> {
    let work = cells.iter().map(|planned| Work::Model(&planned.cell));
    let work: Vec<Work<'_>> = work.chain(kernels.iter().map(|planned| Work::Kernel(&planned.cell))).collect();
    let mine = options.partition.map(|partition| partition.mine(&work));
    let wanted = |(index, work): (usize, &Work<'_>)| {
        let wanted = options.only.is_empty() || options.only.iter().any(|only| only.matches(*work));
        wanted && mine.as_ref().is_none_or(|mine| mine[index])
    };
    let wanted: Vec<bool> = work.iter().enumerate().map(wanted).collect();
    let (of_cells, of_kernels) = wanted.split_at(cells.len());
    let mut running = 0;
    for (planned, &wanted) in cells.iter_mut().zip(of_cells) {
        planned.decide(wanted, store, options, &mut running);
    }
    for (planned, &wanted) in kernels.iter_mut().zip(of_kernels) {
        planned.decide(wanted, store, options, &mut running);
    }
    let parts = kernels.iter_mut().map(|planned| (&planned.cell, &mut planned.decision, &mut planned.selected));
    accompany(&mut parts.collect::<Vec<_>>());
    let any = cells.iter().any(|planned| planned.selected) || kernels.iter().any(|planned| planned.selected);
    if any { Ok(()) } else { Err(PrepareError::NothingSelected) }
}

fn plan_record(
    experiment: &Experiment,
    planned: &[PlannedCell],
    kernels: &[PlannedKernel],
) -> Result<PlanRecord, PrepareError> {
    let mut expectations = Vec::new();
    for expect in &experiment.expects {
        let cells = planned.iter().filter(|planned| selects(&expect.r#where, &planned.cell));
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
        cells: planned.iter().map(|p| PlanEntry { id: p.id.clone(), cell: p.cell.clone() }).collect(),
        kernels: kernels.iter().map(|p| KernelEntry { id: p.id.clone(), kernel: p.cell.clone() }).collect(),
        expectations,
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
