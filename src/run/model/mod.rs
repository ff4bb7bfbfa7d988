//! Models: how their cells are planned, and what runs them.
//!
//! memory.rs estimates what a cell takes, read.rs what it reads; runner.rs runs a batch; session.rs is a loaded model,
//! patterns.rs and calibrate.rs decide which weights go (pruned.rs), and point.rs measures the variants of a prune
//! point (error.rs: why it can't), tasks.rs asks the items of tasks.

mod calibrate;
mod error;
mod memory;
mod patterns;
mod point;
mod pruned;
mod read;
mod runner;
mod session;
mod tasks;

pub(super) use calibrate::{Stopped, calibrate};
pub(super) use error::CellError;
pub(super) use memory::Room;
pub(super) use patterns::patterns;
pub(super) use pruned::Pruned;
pub(super) use read::Read;
pub(super) use session::{Keep, Session};

use super::backend::{device_name, threads};
use super::kinds::{Ground, Kind};
use super::{PrepareError, PreparedModel};
use crate::config::Experiment;
use crate::config::experiment::{Dtype, Metric};
use crate::execute::{KERNEL_POLICY_VERSION, device};
use crate::plan::{Backend, LatencyPoint, PartInputs, Planned, TimedOn, expand, parts};
use crate::record::Machine;
use memory::memory;
use runner::Models;

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
        if !cell.variant.takes(cell.dtype) {
            return Err(PrepareError::VariantDtype { variant: cell.variant.name(), dtype: cell.dtype.name() });
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
    let device = device_name(machine, experiment, backend).to_owned();
    TimedOn { device, threads: threads(experiment), kernels: KERNEL_POLICY_VERSION }
}

fn timed_tokens_fit(experiment: &Experiment, model: &PreparedModel) -> Result<(), PrepareError> {
    let (generate, positions) = (experiment.latency.generate, model.architecture.longest);
    match experiment.latency.prompt.iter().find(|prompt| prompt.saturating_add(generate) > positions) {
        Some(&prompt) => {
            Err(PrepareError::Positions { model: model.files.source.clone(), prompt, generate, positions })
        }
        None => Ok(()),
    }
}
