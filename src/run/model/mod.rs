//! Models: how their cells are planned, and what runs them.
//!
//! memory.rs estimates what a cell takes; runner.rs runs a batch; session.rs is a loaded model, patterns.rs and
//! calibrate.rs decide which weights go, and point.rs measures the variants of a prune point.

mod calibrate;
mod memory;
mod patterns;
mod point;
mod runner;
mod session;

pub(super) use calibrate::{Stopped, calibrate};
pub(super) use memory::Room;
pub(super) use patterns::{Pruned, patterns};
pub(super) use point::CellError;
pub(super) use session::Session;

use super::kinds::{Ground, Kind};
use super::{PrepareError, PreparedModel};
use crate::config::Experiment;
use crate::config::experiment::{Data, Dtype, Metric};
use crate::execute::{KERNEL_POLICY_VERSION, device};
use crate::plan::{Backend, Cell, Inputs, LatencyPoint, PartInputs, Planned, TimedOn, expand, parts};
use crate::record::Machine;
use memory::memory;
use runner::Models;
use serde_json::json;

/// The row of models.
pub(super) const KIND: Kind = Kind { name: "model", plan, accompany: |_| {}, runner: || Box::new(Models) };

/// Every model cell of an experiment, named, and nothing decided yet.
fn plan(ground: &Ground<'_>) -> Result<Vec<Planned>, PrepareError> {
    let Ground { experiment, backends, models, machine } = ground;
    let model_of = |source: &str| models.iter().find(|model| model.files.source == source);
    let dtype_of = |source: &str, backend| {
        device::default_dtype(backend, model_of(source).map_or(Dtype::F32, |model| model.files.dtype()))
    };
    let timed = experiment.metrics.contains(&Metric::Latency);
    let tokens_of = |source: &str| match timed {
        // A decoded token of every sequence is what generation takes most of its time for.
        true => experiment.latency.batch.iter().copied().min().unwrap_or(1),
        false => model_of(source).map_or(1, |model| model.tokens.agreement.iter().map(Vec::len).sum()),
    };
    let mut planned = Vec::new();
    for cell in expand(experiment, backends, dtype_of, tokens_of) {
        if cell.backend.is_cpu() && cell.dtype != Dtype::F32 {
            return Err(PrepareError::Dtype { backend: cell.backend.name(), dtype: cell.dtype.name() });
        }
        if !cell.variant.runs_on(cell.backend.choice()) {
            return Err(PrepareError::Variant { backend: cell.backend.name(), variant: cell.variant.name() });
        }
        let Some(model) = model_of(&cell.model) else { continue };
        if timed {
            timed_tokens_fit(experiment, model)?;
        }
        let latency = timed.then(|| LatencyPoint {
            work: experiment.latency.clone(),
            timed_on: timed_on(machine, experiment, cell.backend),
        });
        let read = PartInputs { latency, ..model.read.parts.clone() };
        let memory_bytes = memory(&cell, model, timed.then_some(&experiment.latency));
        let parts = |id: &_| parts(id, &cell, &experiment.metrics, &read);
        planned.push(Planned::new(cell.clone(), model.read.of(&cell), parts, memory_bytes));
    }
    Ok(planned)
}

/// What decides how fast a backend is.
fn timed_on(machine: &Machine, experiment: &Experiment, backend: Backend) -> TimedOn {
    let gpu = machine.gpu(experiment.device_index).unwrap_or("GPU");
    let device = if backend.is_cpu() { &machine.cpu } else { gpu };
    // 0 takes what rayon takes, which the environment may limit.
    let threads = if experiment.threads == 0 { rayon::current_num_threads() } else { experiment.threads };
    TimedOn { device: device.to_owned(), threads, kernels: KERNEL_POLICY_VERSION }
}

fn timed_tokens_fit(experiment: &Experiment, model: &PreparedModel) -> Result<(), PrepareError> {
    let (generate, positions) = (experiment.latency.generate, model.architecture.max_positions);
    match experiment.latency.prompt.iter().find(|prompt| prompt.saturating_add(generate) > positions) {
        Some(&prompt) => {
            Err(PrepareError::Positions { model: model.files.source.clone(), prompt, generate, positions })
        }
        None => Ok(()),
    }
}

/// What the cells of a model read, each digest computed once.
pub(in crate::run) struct Read {
    /// What every cell reads.
    shared: Inputs,
    /// The calibration windows of each seed.
    calibration: Vec<(u64, Inputs)>,
    /// What the parts read.
    parts: PartInputs,
}

impl Read {
    /// Of a model's files, and the texts as it sees them.
    pub fn new(model: String, data: &Data, tokens: &crate::load::Tokens) -> Self {
        let shared = Inputs::default().with("model", [("sha256", json!(model))]);
        let of_seed = |seed| {
            let settings = [
                ("sha256", json!(tokens.calibration_digest(seed))),
                ("text", json!(data.calibration.to_string())),
                ("samples", json!(data.calibration_samples)),
                ("length", json!(data.calibration_length.unwrap_or(tokens.context))),
                ("bos", json!(data.calibration_bos)),
                ("join", json!(data.calibration_joining.join)),
                ("documents", json!(data.calibration_joining.documents)),
            ];
            (seed, shared.clone().with("calibration", settings))
        };
        let calibration = tokens.calibration.iter().map(|calibration| of_seed(calibration.seed)).collect();
        let agreement = [
            ("sha256", json!(tokens.agreement_digest())),
            ("text", json!(data.agreement.to_string())),
            ("context", json!(tokens.context)),
        ];
        let perplexity = [
            ("sha256", json!(tokens.perplexity_digest())),
            ("text", json!(data.perplexity.to_string())),
            ("context", json!(tokens.context)),
            ("windows", json!(data.perplexity_windows)),
            ("stride", json!(data.perplexity_stride)),
            ("bos", json!(data.perplexity_bos)),
            ("join", json!(data.perplexity_joining.join)),
            ("documents", json!(data.perplexity_joining.documents)),
        ];
        let parts = PartInputs {
            agreement: Inputs::default().with("agreement", agreement),
            perplexity: Inputs::default().with("perplexity", perplexity),
            latency: None,
        };
        Self { shared, calibration, parts }
    }

    /// The model, and the calibration windows of a seed where one is given.
    pub fn with_windows(&self, seed: Option<u64>) -> Inputs {
        let windows = self.calibration.iter().find(|(of, _)| Some(*of) == seed);
        windows.map_or(&self.shared, |(_, inputs)| inputs).clone()
    }

    /// And the texts that behaviour is measured on.
    pub fn with_texts(&self, seed: Option<u64>) -> Inputs {
        let mut inputs = self.with_windows(seed);
        inputs.0.extend(self.parts.agreement.0.clone());
        inputs.0.extend(self.parts.perplexity.0.clone());
        inputs
    }

    /// What a cell reads.
    fn of(&self, cell: &Cell) -> Inputs {
        let seed = cell.seed.filter(|_| cell.prune.as_ref().is_some_and(|point| point.method.calibrates()));
        self.with_windows(seed)
    }
}
