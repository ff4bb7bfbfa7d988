//! How much memory a cell needs, estimated before anything runs.
//!
//! ```text
//!   dense model                    stays while the cells of a model run; of large ones in host memory, its linears go
//!                                  as the variant's come (`lean`)
//!   + the larger of: masked linears (for the gate; gone before the sparse ones come), sparse linears,
//!     activations of the calibration windows
//!   + patterns                     a bit a weight
//!   + a linear once more           on a device: what is expanded or sent; of weights of 16 bits: what is widened
//!   + cache and logits
//!   + a pass over items of tasks, or the answers that are written at once, where there are any
//! ```

use super::pruned::excluded;
use crate::config::experiment::{Dtype, Format, LatencySettings, Propagate, Variant};
use crate::load::{ModelFiles, TaskTokens};
use crate::measure::{PASS_TOKENS, WINDOW_TOKENS, places};
use crate::model::Architecture;
use crate::plan::{Backend, Cell, PrunePoint};
use crate::prune;
use crate::record::Machine;
use crate::run::PreparedModel;
use crate::run::backend::bytes_per_number;

/// Logits that are on a device at a time; on the host all are kept.
const DEVICE_LOGITS: u64 = 64 << 20;

/// Models with fewer weights than this in their linears keep them: 64 MiB, where reading again saves little.
const KEPT_BELOW: usize = 16 << 20;
/// The same of random weights, which are drawn again in the time in which many more are read.
const DRAWN_KEPT_BELOW: usize = 1 << 30;

/// Whether a model in host memory lets the dense weights of linears go while a variant has others in their place.
pub(super) fn lean(files: &ModelFiles, architecture: &Architecture) -> bool {
    let linears: usize = architecture.linears().map(|(_, module)| module.weights()).sum();
    linears >= if files.is_stand_in() { DRAWN_KEPT_BELOW } else { KEPT_BELOW }
}

/// The dense model as a session holds it.
struct Dense {
    bytes: u64,
    /// Whether weights stay in 16 bits, and are widened matrix by matrix.
    as_stored: bool,
    /// Whether its linears go as a variant's come.
    lean: bool,
}

/// An upper estimate in bytes: of the host's memory, of a GPU's for cells on it.
pub(super) fn memory(cell: &Cell, model: &PreparedModel, timed: Option<&LatencySettings>) -> u64 {
    let positions: usize = model.tokens.agreement.iter().map(Vec::len).sum();
    let windows = cell.seed.and_then(|seed| model.tokens.calibration_of(cell.calibration(), seed)).unwrap_or_default();
    let calibrates = cell.prune.as_ref().is_some_and(|point| point.method.calibrates());
    let calibration = if calibrates { windows.iter().map(Vec::len).sum() } else { 0 };
    let wide = model.architecture.parameters() as u64 * bytes_per_number(cell.dtype);
    let as_stored = cell.backend.is_cpu() && timed.is_none() && model.files.dtype() != Dtype::F32;
    let bytes = match as_stored {
        // What `config.json` says of its files may be wrong, their size is not.
        true => model.files.inputs.iter().map(|input| input.bytes).sum::<u64>().clamp(wide / 2, wide),
        false => wide,
    };
    let lean = cell.backend.is_cpu() && lean(&model.files, &model.architecture);
    let dense = Dense { bytes, as_stored, lean };
    let needed = estimate(cell, &model.architecture, dense, positions as u64, calibration, timed);
    let of_task = |task: &TaskTokens| {
        let inputs = task.items.iter().flat_map(|item| &item.requests).map(|request| request.input.len());
        let longest = inputs.max().unwrap_or(0);
        let asked = asking(&model.architecture, longest, cell);
        match task.task.generates() {
            true => asked + answering(&model.architecture, task.items.len(), longest, cell),
            false => asked,
        }
    };
    // Of perplexity; the host's passes are small.
    let pass = if cell.backend.is_cpu() { 0 } else { passing(&model.architecture, WINDOW_TOKENS[1], cell.dtype) };
    needed.saturating_add(model.tasks.iter().map(of_task).max().unwrap_or(0).max(pass))
}

/// Bytes of keys and values while answers are written to `items` items, whose prompts have up to `longest` tokens.
fn answering(architecture: &Architecture, items: usize, longest: usize, cell: &Cell) -> u64 {
    let capacity = longest + TaskTokens::WRITTEN;
    let attention = architecture.attention;
    let of_token = 2 * architecture.blocks.len() * attention.kv_heads * attention.head_dim;
    let number = if cell.backend.is_cpu() { 4 } else { bytes_per_number(cell.dtype) };
    (places(architecture, items, capacity) * capacity * of_token) as u64 * number
}

/// Bytes of a pass over the items of tasks, of which the longest has `longest` tokens.
fn asking(architecture: &Architecture, longest: usize, cell: &Cell) -> u64 {
    /// Logits, on the device and as they are read.
    const LOGITS: u64 = 128 << 20;
    let pass = passing(architecture, longest.max(PASS_TOKENS[usize::from(!cell.backend.is_cpu())]), cell.dtype);
    // What items begin with, and what their own tokens follow, in every block.
    let attention = architecture.attention;
    let of_token = 4 * (architecture.blocks.len() * attention.kv_heads * attention.head_dim) as u64;
    pass + LOGITS + longest as u64 * of_token * bytes_per_number(cell.dtype)
}

/// Bytes of what the tokens of a pass are made into.
fn passing(architecture: &Architecture, tokens: usize, dtype: Dtype) -> u64 {
    /// Residuals, projections, gates and what they give, in widths of the network.
    const WIDTHS: u64 = 12;
    WIDTHS * activations(architecture, tokens, dtype)
}

/// `positions` tokens have their logits compared, `calibration` tokens run through the model while it is pruned.
fn estimate(
    cell: &Cell,
    architecture: &Architecture,
    dense: Dense,
    positions: u64,
    calibration: usize,
    timed: Option<&LatencySettings>,
) -> u64 {
    let number = bytes_per_number(cell.dtype);
    let wide = architecture.parameters() as u64 * number;
    let largest = architecture.linears().map(|(_, module)| module.weights()).max().unwrap_or(0) as u64 * number;
    let variant = match &cell.prune {
        None => 0,
        Some(point) => of_variant(cell, point, architecture, &dense, calibration),
    };
    let attention = architecture.attention;
    let kept_per_token = 2 * (architecture.blocks.len() * attention.kv_heads * attention.head_dim) as u64 * number;
    let cache = timed.map_or(0, |latency| {
        let largest = |axis: &[usize]| axis.iter().copied().max().unwrap_or(0) as u64;
        let tokens = largest(&latency.prompt).saturating_add(latency.generate as u64);
        largest(&latency.batch).saturating_mul(tokens).saturating_mul(kept_per_token)
    });
    // The dense, the masked and the variant's logits are compared on the host.
    let logits = positions * architecture.vocabulary as u64 * 4;
    let dense = dense.bytes;
    let more = match cell.backend {
        Backend::Flex => 3 * logits,
        Backend::NdArray => 3 * logits + wide / 2,
        Backend::Cuda => largest + logits.min(DEVICE_LOGITS),
    };
    // What it is compared with may lie beside it.
    let reference = if cell.reference().is_some() { dense } else { 0 };
    (dense + reference + variant + more).saturating_add(cache)
}

/// Bytes of a variant beside the dense model, from pruning on.
fn of_variant(cell: &Cell, point: &PrunePoint, architecture: &Architecture, dense: &Dense, calibration: usize) -> u64 {
    let number = bytes_per_number(cell.dtype);
    let excluded = excluded(point).ok();
    let stays = |name: &str| excluded.as_ref().is_some_and(|globs| globs.is_match(name));
    let prunable = architecture.linears().filter(|(_, m)| m.tied_to.is_none() && !stays(&m.name));
    let weights: Vec<u64> = prunable.map(|(_, module)| module.weights() as u64).collect();
    let (linears, largest) = (weights.iter().sum::<u64>(), weights.iter().copied().max().unwrap_or(0));
    let index = match cell.variant {
        Variant::Sparse(format) => format.row().index.per_kept,
        Variant::Dense | Variant::Masked | Variant::Auto => 0,
    };
    // CSR's at least, the largest of those that `auto` takes.
    let index = index.max(Format::Csr.row().index.per_kept);
    // Masked linears are as the dense ones are, unless the method changes them.
    let as_dense = (dense.bytes as f64 * linears as f64 / architecture.parameters().max(1) as f64) as u64;
    let masked = match point.method.entry().inputs {
        prune::Needs::Gram => linears * number,
        prune::Needs::Nothing | prune::Needs::Norms => as_dense,
    };
    let kept = (linears as f64 * (1.0 - point.sparsity)) as u64;
    let sparse = match cell.variant {
        Variant::Sparse(_) | Variant::Auto => kept * (number + index),
        Variant::Dense | Variant::Masked => 0,
    };
    let stored = masked.max(sparse);
    let beside = if dense.lean { stored.saturating_sub(as_dense) } else { stored };
    // A widened matrix, and what is made of it.
    let widened = if dense.as_stored { 2 * largest * number } else { 0 };
    // Inputs and outputs of a stage; they are gone before the variant is made.
    let calibrating = 2 * activations(architecture, calibration, cell.dtype);
    beside.max(calibrating) + new_weights(point, linears) + linears / 8 + widened
}

/// Bytes that the points of a calibration may take together.
#[derive(Clone, Copy, Debug)]
pub(in crate::run) struct Room {
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

/// Bytes of the activations of this many tokens between two blocks.
fn activations(architecture: &Architecture, tokens: usize, dtype: Dtype) -> u64 {
    let width = architecture.blocks.first().map_or(0, |block| architecture.modules[block.output].shape[0]);
    (tokens * width) as u64 * bytes_per_number(dtype)
}

/// Bytes of the values of weights kept, of methods that change them: those that look at products of inputs.
fn new_weights(point: &PrunePoint, weights: u64) -> u64 {
    match point.method.entry().inputs {
        prune::Needs::Gram => (weights as f64 * (1.0 - point.sparsity)) as u64 * 4,
        prune::Needs::Nothing | prune::Needs::Norms => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Method, NmPattern, Scope};
    use crate::config::source::ModelSource;
    use crate::load::Loader;
    use crate::model::{architecture, published};
    use crate::plan::PrunePoint;
    use std::ops::ControlFlow;
    use std::sync::Arc;

    fn cell(backend: Backend, sparsity: Option<f64>) -> Cell {
        let (scope, pattern) = (Some(Scope::Global), NmPattern::Unstructured);
        let prune = |sparsity| PrunePoint::new(Method::Magnitude, scope, pattern, sparsity, Vec::new());
        Cell {
            model: "synthetic:llama-2-7b".into(),
            prune: sparsity.map(prune),
            seed: None,
            variant: if sparsity.is_some() { Variant::Sparse(Format::Csr) } else { Variant::Dense },
            backend,
            dtype: Dtype::F16,
            tokens: None,
        }
    }

    #[test]
    fn seven_billion_weights_of_two_bytes() {
        let architecture = architecture(&published("llama-2-7b").unwrap()).unwrap();
        let dense = || Dense { bytes: architecture.parameters() as u64 * 2, as_stored: false, lean: false };
        let gigabytes = |cell: &Cell| estimate(cell, &architecture, dense(), 200, 0, None) as f64 / 1e9;
        let dense = gigabytes(&cell(Backend::Cuda, None));
        // 13.48 of weights, 0.26 for the largest, and some logits.
        assert!((13.7..13.9).contains(&dense), "{dense}");
        // Masked linears until half of the weights are gone: all but the table's 0.26; and 0.83 of patterns.
        let half = gigabytes(&cell(Backend::Cuda, Some(0.5)));
        assert!((dense + 13.9..dense + 14.2).contains(&half), "{half}");
        assert!(gigabytes(&cell(Backend::Cuda, Some(0.1))) > half);
        assert_eq!(gigabytes(&cell(Backend::Cuda, Some(0.9))), half);
    }

    /// Two bytes a weight, and nothing that is there twice: a masked model takes the dense one's place.
    #[test]
    fn eight_billion_weights_in_host_memory() {
        for (name, parameters, pruned) in [("llama-3.1-8b", 8.03e9, 6.98e9), ("qwen3-8b", 8.19e9, 6.95e9)] {
            let architecture = architecture(&published(name).unwrap()).unwrap();
            let gigabytes = |sparsity: Option<f64>, variant: Variant, exclude: &[&str], lean: bool| {
                let prune = sparsity.map(|sparsity| {
                    let exclude = exclude.iter().map(|&glob| glob.to_owned()).collect();
                    PrunePoint::new(Method::Wanda, Some(Scope::Row), NmPattern::Unstructured, sparsity, exclude)
                });
                let cell = Cell { prune, variant, dtype: Dtype::F32, ..cell(Backend::Flex, None) };
                let dense = Dense { bytes: 2 * architecture.parameters() as u64, as_stored: true, lean };
                estimate(&cell, &architecture, dense, 50, 64, None) as f64 / 1e9
            };
            let near = |found: f64, expected: f64| {
                assert!((found - expected).abs() < 0.25, "{name}: {found} for {expected}");
            };
            let dense = gigabytes(None, Variant::Dense, &[], true);
            near(dense, 2e-9 * parameters);
            let masked = gigabytes(Some(0.5), Variant::Masked, &["lm_head"], true);
            let largest = if name == "qwen3-8b" { 12_288.0 } else { 14_336.0 } * 4096.0 * 8e-9;
            near(masked, dense + pruned / 8e9 + largest);
            near(gigabytes(Some(0.5), Variant::Masked, &["lm_head"], false), masked + 2e-9 * pruned);
            // Four bytes of a value and at least two of its place, of every other weight.
            assert!(gigabytes(Some(0.5), Variant::Sparse(Format::Csr), &["lm_head"], true) > masked + 6.9);
            // Half of the head is wider than what is left out.
            assert!(gigabytes(Some(0.5), Variant::Masked, &[], true) > masked + 1.0);
        }
    }

    /// What is drawn takes longer to draw than to read, so that only what is too large to be there twice goes.
    #[test]
    fn large_models_let_their_linears_go() {
        let loader = Loader::new(true, Arc::new(|_: &str, _, _| ControlFlow::Continue(())));
        for (source, goes) in [
            (ModelSource::Synthetic("llama-3.1-8b".into()), true),
            (ModelSource::Synthetic("qwen3-8b".into()), true),
            (ModelSource::Synthetic("qwen3-0.6b".into()), false),
            (ModelSource::Builtin("tiny-opt".into()), false),
        ] {
            let files = loader.find(&source).unwrap();
            assert_eq!(lean(&files, &architecture(&files.config).unwrap()), goes, "{source}");
        }
    }

    #[test]
    fn a_pass_over_items_and_answers_take_memory() {
        let architecture = architecture(&published("llama-2-7b").unwrap()).unwrap();
        let [host, gpu] = [Backend::Flex, Backend::Cuda].map(|backend| cell(backend, None));
        let pass = |longest| asking(&architecture, longest, &host);
        // 12 widths of 4096 for 1024 tokens at least, logits, and 32 blocks of keys and values, twice.
        let of_token = 4 * 32 * 4096 * 2;
        assert_eq!(pass(100), 12 * 1024 * 4096 * 2 + (128 << 20) + 100 * of_token);
        assert_eq!(pass(4000), 12 * 4000 * 4096 * 2 + (128 << 20) + 4000 * of_token);
        assert_eq!(asking(&architecture, 100, &gpu), 12 * 8192 * 4096 * 2 + (128 << 20) + 100 * of_token);
        // Keys and values are f32 on the host, and at most a quarter of 6.7 billion: of five texts of 1000 + 256 tokens.
        let (host, gpu) = (cell(Backend::Flex, None), cell(Backend::Cuda, None));
        let of_text = (2 * 32 * 4096 * 1256) as u64;
        assert_eq!(answering(&architecture, 20, 1000, &host), 5 * 4 * of_text);
        assert_eq!(answering(&architecture, 20, 100, &host), 16 * 4 * (2 * 32 * 4096 * 356));
        assert_eq!(answering(&architecture, 20, 1000, &gpu), 5 * 2 * of_text);
    }

    #[test]
    fn estimates_beyond_any_number_stay_numbers() {
        let architecture = architecture(&published("llama-2-7b").unwrap()).unwrap();
        let timed =
            LatencySettings { warmup: 1, repeats: 1, batch: vec![usize::MAX], prompt: vec![usize::MAX], generate: 1 };
        let dense = Dense { bytes: 1, as_stored: false, lean: true };
        assert_eq!(estimate(&cell(Backend::Flex, None), &architecture, dense, 0, 0, Some(&timed)), u64::MAX);
    }
}
