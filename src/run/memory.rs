//! How much memory a cell needs, estimated before anything runs.
//!
//! ```text
//!   dense model                    stays while the cells of a model run
//!   + the larger of: masked linears (for the gate; gone before the sparse ones come), sparse linears,
//!     activations of the calibration windows
//!   + a linear once more           on a device: what is expanded or sent
//!   + cache and logits
//! ```

use super::prepare::{PlannedCell, PlannedKernel, PreparedModel};
use super::session::bytes_per_number;
use crate::config::experiment::{Dtype, Propagate};
use crate::model::{Architecture, Module};
use crate::plan::{Backend, Cell, PrunePoint};
use crate::prune;
use crate::record::Machine;
use std::fmt;

/// Logits that are on a device at a time; on the host all are kept.
const DEVICE_LOGITS: u64 = 64 << 20;

/// An upper estimate in bytes: of the host's memory, of a GPU's for cells on it.
pub(super) fn memory(cell: &Cell, model: &PreparedModel) -> u64 {
    let positions: usize = model.tokens.agreement.iter().map(Vec::len).sum();
    let windows = cell.seed.and_then(|seed| model.tokens.calibration_of(seed)).unwrap_or_default();
    let calibrates = cell.prune.as_ref().is_some_and(|point| point.method.calibrates());
    let calibration = if calibrates { windows.iter().map(Vec::len).sum() } else { 0 };
    estimate(cell, &model.architecture, positions as u64, calibration)
}

/// `positions` tokens have their logits compared, `calibration` tokens run through the model while it is pruned.
fn estimate(cell: &Cell, architecture: &Architecture, positions: u64, calibration: usize) -> u64 {
    let number = bytes_per_number(cell.dtype);
    let dense = architecture.parameters() as u64 * number;
    let prunable = || architecture.linears().filter(|(_, m)| m.tied_to.is_none()).map(|(_, m)| m);
    let weights = |module: &Module| module.weights() as u64;
    let linears: u64 = prunable().map(weights).sum();
    let largest = prunable().map(weights).max().unwrap_or(0) * number;
    let variant = match &cell.prune {
        None => 0,
        // CSR, the largest sparse format.
        Some(point) => {
            let stored = (linears * number).max((linears as f64 * (1.0 - point.sparsity)) as u64 * (number + 2));
            // Inputs and outputs of a stage; they are gone before the variant is made.
            stored.max(2 * activations(architecture, calibration, cell.dtype)) + new_weights(point, linears)
        }
    };
    let attention = architecture.attention;
    let kept_per_token = 2 * (architecture.blocks.len() * attention.kv_heads * attention.head_dim) as u64 * number;
    let cache = cell.latency.as_ref().map_or(0, |latency| {
        let largest = |axis: &[usize]| axis.iter().copied().max().unwrap_or(0) as u64;
        let tokens = largest(&latency.prompt).saturating_add(latency.generate as u64);
        largest(&latency.batch).saturating_mul(tokens).saturating_mul(kept_per_token)
    });
    // The dense, the masked and the variant's logits are compared on the host.
    let logits = positions * architecture.vocabulary as u64 * 4;
    let more = match cell.backend {
        Backend::Flex => 3 * logits,
        Backend::NdArray => 3 * logits + dense / 2,
        Backend::Cuda => largest + logits.min(DEVICE_LOGITS),
    };
    (dense + variant + more).saturating_add(cache)
}

/// Bytes that the points of a calibration may take together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    host: u64,
    /// Of a GPU, which holds the activations; without one the host does.
    device: Option<u64>,
}

impl Room {
    /// A quarter of the memory that there is.
    pub fn current(device_index: usize, backend: Backend) -> Self {
        let machine = Machine::current("");
        let device = (!backend.is_cpu()).then(|| machine.gpu_memory(device_index).unwrap_or(machine.memory_bytes) / 4);
        Self { host: machine.memory_bytes / 4, device }
    }

    /// How many of some points fit, at least one. Each takes memory for its patterns and new weights and, unless
    /// it looks at dense inputs, for the activations of all windows, `tokens` in sum.
    pub fn fitting(self, points: &[&PrunePoint], architecture: &Architecture, tokens: usize, dtype: Dtype) -> usize {
        let prunable = architecture.linears().filter(|(_, module)| module.tied_to.is_none());
        let weights: u64 = prunable.map(|(_, module)| module.weights() as u64).sum();
        let activations = activations(architecture, tokens, dtype);
        let (mut kept, mut held) = (0, 0);
        let fits = |point: &&&PrunePoint| {
            kept += weights / 8 + new_weights(point, weights);
            held += if point.propagate == Some(Propagate::Dense) { 0 } else { activations };
            match self.device {
                Some(device) => kept <= self.host && held <= device,
                None => kept + held <= self.host,
            }
        };
        points.iter().take_while(fits).count().max(1)
    }
}

/// Bytes of the activations of so many tokens between two blocks.
fn activations(architecture: &Architecture, tokens: usize, dtype: Dtype) -> u64 {
    let width = architecture.blocks.first().map_or(0, |block| architecture.modules[block.output].shape[0]);
    (tokens * width) as u64 * bytes_per_number(dtype)
}

/// Bytes of the values of weights kept, of methods that change them: those that look at products of inputs.
fn new_weights(point: &PrunePoint, weights: u64) -> u64 {
    match prune::entry(point.method).inputs {
        prune::Needs::Gram => (weights as f64 * (1.0 - point.sparsity)) as u64 * 4,
        _ => 0,
    }
}

/// A cell that will run, and may take more memory than its device has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    cell: String,
    needs: u64,
    /// Where the memory is.
    place: &'static str,
    has: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cell, needs, place, has } = self;
        write!(f, "{cell} may take {} of memory, and {place} has {}", gib(*needs), gib(*has))
    }
}

/// The largest cell of each device that may lack memory for cells that will run.
pub(super) fn too_large(
    cells: &[PlannedCell],
    kernels: &[PlannedKernel],
    machine: &Machine,
    device_index: usize,
) -> Vec<TooLarge> {
    let cells = cells.iter().filter(|planned| planned.runs()).map(|planned| {
        let cell = format!("`{}` of `{}`", planned.cell.setup(), planned.cell.model);
        (planned.cell.backend, planned.memory_bytes, cell)
    });
    let kernels = kernels.iter().filter(|planned| planned.runs()).map(|planned| {
        let (format, [out, inp]) = (planned.cell.format.name(), planned.cell.shape);
        (planned.cell.backend, planned.memory_bytes, format!("the kernel `{format}` on [{out}, {inp}]"))
    });
    let running: Vec<(Backend, u64, String)> = cells.chain(kernels).collect();
    let mut all = Vec::new();
    for on_gpu in [false, true] {
        let has = if on_gpu { machine.gpu_memory(device_index) } else { Some(machine.memory_bytes) };
        let here = running.iter().filter(|(backend, ..)| backend.is_cpu() != on_gpu);
        let (Some((_, needs, cell)), Some(has)) = (here.max_by_key(|(_, needs, _)| *needs), has) else { continue };
        // What the system does not say is 0.
        if has > 0 && *needs > has {
            let place = if on_gpu { "the GPU" } else { "this machine" };
            all.push(TooLarge { cell: cell.clone(), needs: *needs, place, has });
        }
    }
    all
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Dtype, Method, NmPattern, Scope, Variant};
    use crate::model::{architecture, published};
    use crate::plan::{CellId, Decision, InputDigests, LatencyPoint, PrunePoint, TimedOn};

    fn cell(backend: Backend, sparsity: Option<f64>) -> Cell {
        let (scope, pattern) = (Some(Scope::Global), NmPattern::Unstructured);
        let prune = |sparsity| PrunePoint::new(Method::Magnitude, scope, pattern, sparsity, Vec::new());
        Cell {
            model: "synthetic:llama-2-7b".into(),
            prune: sparsity.map(prune),
            seed: None,
            variant: if sparsity.is_some() { Variant::Csr } else { Variant::Dense },
            backend,
            dtype: Dtype::F16,
            metrics: Vec::new(),
            latency: None::<LatencyPoint>,
        }
    }

    #[test]
    fn seven_billion_weights_of_two_bytes() {
        let architecture = architecture(&published("llama-2-7b").unwrap()).unwrap();
        let gigabytes = |cell: &Cell| estimate(cell, &architecture, 200, 0) as f64 / 1e9;
        let dense = gigabytes(&cell(Backend::Cuda, None));
        // 13.48 of weights, 0.26 for the largest, and some logits.
        assert!((13.7..13.9).contains(&dense), "{dense}");
        // Masked linears until half of the weights are gone: all but the table's 0.26.
        let half = gigabytes(&cell(Backend::Cuda, Some(0.5)));
        assert!((dense + 13.1..dense + 13.3).contains(&half), "{half}");
        assert!(gigabytes(&cell(Backend::Cuda, Some(0.1))) > half);
        assert_eq!(gigabytes(&cell(Backend::Cuda, Some(0.9))), half);
    }

    #[test]
    fn what_needs_more_than_there_is_is_said_for_each_device() {
        let gib = |n: u64| n << 30;
        let none = || String::new();
        let inputs = InputDigests { model: none(), agreement: none(), perplexity: None, calibration: None };
        let planned = |backend, memory_bytes| PlannedCell {
            id: CellId::new(&cell(backend, Some(0.5)), &inputs),
            cell: cell(backend, Some(0.5)),
            inputs: inputs.clone(),
            decision: Decision::New,
            selected: true,
            memory_bytes,
        };
        let machine =
            Machine { memory_bytes: gib(8), gpus: vec!["NVIDIA X, 1.2, 16384 MiB".into()], ..Machine::current("") };
        let said = |cells: &[PlannedCell]| -> Vec<String> {
            too_large(cells, &[], &machine, 0).iter().map(ToString::to_string).collect()
        };
        assert!(said(&[planned(Backend::Flex, gib(8)), planned(Backend::Cuda, gib(16))]).is_empty());
        let cells = [planned(Backend::Flex, gib(9)), planned(Backend::Flex, gib(12)), planned(Backend::Cuda, gib(17))];
        assert_eq!(
            said(&cells),
            [
                "`CSR50` of `synthetic:llama-2-7b` may take 12.0 GiB of memory, and this machine has 8.0 GiB",
                "`CSR50` of `synthetic:llama-2-7b` may take 17.0 GiB of memory, and the GPU has 16.0 GiB",
            ]
        );
        // What does not run needs nothing, and a machine that does not say what it has is not held against it.
        let kept = PlannedCell { selected: false, ..planned(Backend::Flex, gib(12)) };
        assert!(said(&[kept]).is_empty());
        let silent = Machine { memory_bytes: 0, gpus: Vec::new(), ..machine.clone() };
        assert!(too_large(&cells, &[], &silent, 0).is_empty());
    }

    #[test]
    fn estimates_beyond_any_number_stay_numbers() {
        let architecture = architecture(&published("llama-2-7b").unwrap()).unwrap();
        let latency = LatencyPoint {
            warmup: 1,
            repeats: 1,
            batch: vec![usize::MAX],
            prompt: vec![usize::MAX],
            generate: 1,
            timed_on: TimedOn::default(),
        };
        let cell = Cell { latency: Some(latency), ..cell(Backend::Flex, None) };
        assert_eq!(estimate(&cell, &architecture, 0, 0), u64::MAX);
    }
}
