//! Experiment → planned cells: what both `plan` and `run` do first. Writes nothing.

use super::KINDS;
use super::kinds::Ground;
use super::memory::too_large;
use super::model::Read;
use super::prepared::{PrepareError, PrepareOptions, Prepared, PreparedModel};
use super::reference;
use super::select::select;
use crate::config::Experiment;
use crate::config::analysis::Work;
use crate::config::experiment::{Data, Expected, Metric, ModelSource, Workers};
use crate::execute::device;
use crate::execute::kernels::cpu::Simd;
use crate::load::{Checkpoint, LoadError, Loader, Reach, TaskSets, TaskTokens, TextInput, Texts, Wanted};
use crate::plan::{Cell, CellId, Of, Planned};
use crate::record::{ExpectRecord, Machine, OriginRecord, PlanEntry, PlanRecord, Store};
use std::cell::LazyCell;
use std::collections::HashSet;

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
    let Loaded { mut models, texts, inputs, warnings } = prepare_models(&experiment, loader)?;
    let references = reference::prepare(&experiment, loader, texts.as_ref(), &mut models)?;
    let machine: LazyCell<Machine> = LazyCell::new(|| Machine::current(Simd::detect().name()));
    let ground = Ground { experiment: &experiment, backends: &backends, models: &models, machine: &machine };
    let mut cells = Vec::new();
    let mut seen = HashSet::new();
    for kind in &KINDS {
        // Two sources of one model, say a folder and the hub, make one cell.
        cells.extend((kind.plan)(&ground)?.into_iter().filter(|planned| seen.insert(planned.id.clone())));
    }
    let plan = plan_record(&experiment, &cells, store)?;
    let unused = select(&mut cells, store, options)?;
    // The machine is looked at only where something is to run on it.
    let runs = cells.iter().any(Planned::runs);
    let too_large =
        if runs { too_large(&cells, &machine, experiment.device_index, sharing(&experiment)) } else { Vec::new() };
    Ok(Prepared { texts: inputs, experiment, models, references, cells, unused, plan, warnings, too_large })
}

/// How many processes share the machine's memory.
fn sharing(experiment: &Experiment) -> usize {
    match experiment.workers {
        Workers::Count(count) => count,
        Workers::All => rayon::current_num_threads(),
    }
}

/// What an experiment reads.
#[derive(Default)]
struct Loaded {
    models: Vec<PreparedModel>,
    texts: Option<Texts>,
    inputs: Vec<TextInput>,
    warnings: Vec<String>,
}

/// The models, the texts and the tasks; nothing is read where there is no model.
fn prepare_models(experiment: &Experiment, loader: &Loader) -> Result<Loaded, LoadError> {
    if experiment.models.is_empty() {
        return Ok(Loaded::default());
    }
    let texts = Texts::read(&experiment.data, &wanted(experiment), loader)?;
    let tasks = match experiment.metrics.contains(&Metric::Tasks) {
        true => TaskSets::read(&experiment.tasks, loader)?,
        false => TaskSets::default(),
    };
    let prepared = |source| prepare_model(loader, source, &texts, &tasks, &experiment.data);
    let models: Vec<PreparedModel> = experiment.models.iter().map(prepared).collect::<Result<_, _>>()?;
    let mut warnings = texts.warnings();
    warnings.extend_from_slice(tasks.warnings());
    warnings.extend(models.iter().flat_map(|model| &model.tasks).filter_map(TaskTokens::cut));
    let inputs = texts.inputs().into_iter().chain(tasks.inputs()).collect();
    Ok(Loaded { models, texts: Some(texts), inputs, warnings })
}

/// The texts that the experiment needs.
pub(super) fn wanted(experiment: &Experiment) -> Wanted {
    let mut methods = experiment.prune.iter().flat_map(|block| &block.methods);
    let analyses = || experiment.analyses.iter();
    let seen = analyses().any(|block| block.sees_model_inputs());
    let calibrated = methods.any(|method| method.calibrates()) || seen;
    let thresholded = analyses().any(|block| matches!(block.work, Work::ActivationSparsity { .. }));
    Wanted {
        perplexity: thresholded || experiment.metrics.iter().any(|metric| metric.reads().perplexity_text()),
        calibration: if calibrated { experiment.seeds.clone() } else { Vec::new() },
    }
}

fn prepare_model(
    loader: &Loader,
    source: &ModelSource,
    texts: &Texts,
    tasks: &TaskSets,
    data: &Data,
) -> Result<PreparedModel, LoadError> {
    let mut files = loader.find(source)?;
    // Opened and closed again: a damaged header or a wrong shape is known before anything runs.
    let checkpoint = Checkpoint::open(files.clone())?;
    files.warnings.extend_from_slice(checkpoint.warnings());
    let architecture = checkpoint.architecture().clone();
    let tokenizer = files.tokenizer()?;
    let vocabulary = architecture.vocabulary;
    let reach = Reach { positions: architecture.max_positions, longest: architecture.longest };
    let tokens = texts.encode(&tokenizer, &files.source, reach, vocabulary)?;
    let tasks = tasks.encode(&tokenizer, &files.source, architecture.max_positions, vocabulary)?;
    let read = Read::new(files.digest(), data, &tokens, &tasks);
    Ok(PreparedModel { files, architecture, tokens, tasks, tokenizer, read })
}

fn plan_record(experiment: &Experiment, planned: &[Planned], store: &Store) -> Result<PlanRecord, PrepareError> {
    let mut expectations = Vec::new();
    for expect in &experiment.expects {
        // Expectations are about columns of `summary.csv`, which only models are in.
        let about =
            |planned: &&Planned| Cell::of(&planned.task).is_some_and(|cell| expect.r#where.hold(Cell::KEY, cell));
        let cells = planned.iter().filter(about);
        let cells: Vec<CellId> = cells.map(|planned| planned.id.clone()).collect();
        if cells.is_empty() {
            return Err(PrepareError::Expectation(expect.r#where.to_string()));
        }
        let (metric, task) = match &expect.metric {
            Expected::Column(column) => (column.name().into(), None),
            Expected::Task { task, metric } => (metric.name().into(), Some(task.clone())),
        };
        expectations.push(ExpectRecord {
            r#where: expect.r#where.to_string(),
            cells,
            metric,
            task,
            value: expect.value,
            tolerance: expect.tolerance,
            source: expect.source.clone(),
        });
    }
    Ok(PlanRecord {
        format: PlanRecord::FORMAT,
        name: experiment.name.clone(),
        origin: Some(OriginRecord::of(&experiment.origin, store.root())),
        title: experiment.title.clone(),
        cells: planned.iter().map(PlanEntry::of).collect(),
        expectations,
        plot_width: experiment.plot_width,
        queries: experiment.queries.clone(),
        pivots: experiment.pivots.clone(),
    })
}
