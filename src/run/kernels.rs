//! Kernel cells: planned, and run matrix by matrix.
//!
//! ```text
//!   matrix        backend, dtype, shape, seed      random weights, made once
//!     weight      format, sparsity                 copies larger than the last cache, made once
//!       cell      tokens                           input ─> warm-up, timed calls ─> error against float64
//! ```
//! The dense weight comes first, so that every sparse cell knows the dense time of its own process.

use super::cells::{RunError, Runner, caught, parts, unless_panicked};
use super::format::build_weight;
use super::prepare::{Planned, PlannedKernel, PrepareError};
use super::session::{burn_dtype, bytes_per_number};
use crate::config::Experiment;
use crate::config::experiment::KernelFormat;
use crate::config::kernel::kernel_dtypes;
use crate::execute::kernels::cpu::Simd;
use crate::execute::{KERNEL_POLICY_VERSION, PackError, Peaks, SparseBackend};
use crate::load::normals;
use crate::measure::{KernelError, Product, max_rel_err, peak_rss_bytes, quantile, rotated_copies, time_linear};
use crate::model::Linear;
use crate::plan::{Backend, CellId, Decision, KernelCell, KernelInputs, Work, expand_kernels};
use crate::record::{
    Failure, FailureKind, KernelMeasured, KernelRecord, Machine, Program, Record, Timings, last_cache_bytes, now,
};
use crate::sparse::Pattern;
use burn::backend::{Flex, NdArray};
use burn::tensor::{DType, Tensor, TensorData};
use std::time::Instant;
use thiserror::Error;

/// What measuring a CPU's peaks takes.
const PEAKS_BYTES: u64 = 512 << 20;

/// Every kernel cell of an experiment, named, and nothing decided yet.
///
/// # Errors
/// When a backend's kernels lack a dtype.
pub(super) fn plan(experiment: &Experiment, backends: &[Backend]) -> Result<Vec<PlannedKernel>, PrepareError> {
    if experiment.kernels.is_empty() {
        return Ok(Vec::new());
    }
    let machine = Machine::current(Simd::detect().name());
    let threads = if experiment.threads > 0 { experiment.threads } else { rayon::current_num_threads() };
    let inputs = |backend: Backend| {
        let gpu = machine.gpus.get(experiment.device_index).and_then(|gpu| gpu.split(',').next());
        let device = if backend.is_cpu() { machine.cpu.as_str() } else { gpu.unwrap_or("a GPU") };
        let threads = backend.is_cpu().then_some(threads);
        KernelInputs { device: device.to_owned(), threads, kernel_policy: KERNEL_POLICY_VERSION }
    };
    let planned = |cell: KernelCell| {
        if !kernel_dtypes(cell.backend.choice()).contains(&cell.dtype) {
            return Err(PrepareError::KernelDtype { backend: cell.backend.name(), dtype: cell.dtype.name() });
        }
        let inputs = inputs(cell.backend);
        let (id, memory_bytes) = (CellId::of_kernel(&cell, &inputs), memory(&cell, machine.last_cache_bytes));
        Ok(Planned { id, cell, inputs, decision: Decision::New, selected: true, memory_bytes })
    };
    expand_kernels(experiment, backends).into_iter().map(planned).collect()
}

/// An estimate: the weight on the host twice, its rotating copies, input and output.
fn memory(cell: &KernelCell, last_cache: Option<u64>) -> u64 {
    let [out, inp] = cell.shape.map(|side| side as u64);
    let number = bytes_per_number(cell.dtype);
    let kept = (out * inp) as f64 * (1.0 - cell.sparsity.unwrap_or(0.0));
    let stored = match cell.format {
        KernelFormat::Dense => out * inp * number,
        KernelFormat::Bitmap => kept as u64 * number + out * inp / 8,
        // `auto` takes at most what dense does, and may take as much.
        KernelFormat::Csr | KernelFormat::Auto => kept as u64 * (number + 2) + 4 * (out + 1),
    };
    let copies = stored * rotated_copies(stored, cell.backend.is_cpu(), last_cache) as u64;
    let tensors = 2 * (out + inp) * cell.tokens as u64 * 4;
    (2 * 4 * out * inp + copies + tensors).max(PEAKS_BYTES)
}

/// Why a kernel cell failed.
#[derive(Debug, Error)]
enum CellError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Pack(#[from] PackError),
}

impl CellError {
    fn failure(&self) -> Failure {
        let kind = match self {
            Self::Kernel(KernelError::Gate { .. }) => FailureKind::Gate,
            Self::Kernel(KernelError::NotFinite) => FailureKind::NotFinite,
            _ => FailureKind::Other,
        };
        Failure { kind, message: self.to_string(), gate: None }
    }
}

impl Runner<'_> {
    /// Runs every kernel cell that is to run.
    pub(super) fn kernels(&mut self) -> Result<(), RunError> {
        let cells: Vec<&PlannedKernel> = self.prepared.kernels.iter().filter(|planned| planned.runs()).collect();
        let mut peaks = KnownPeaks::default();
        for matrix in cells.chunk_by(|a, b| a.cell.same_matrix(&b.cell)) {
            if self.stop() {
                break;
            }
            match matrix[0].cell.backend {
                Backend::Flex => self.matrix::<Flex>(matrix, Default::default(), &mut peaks)?,
                Backend::NdArray => self.matrix::<NdArray<f32>>(matrix, Default::default(), &mut peaks)?,
                #[cfg(feature = "cuda")]
                Backend::Cuda => {
                    super::panics::collect();
                    let device = crate::execute::cuda_device(self.prepared.experiment.device_index);
                    self.matrix::<crate::execute::Cuda>(matrix, device, &mut peaks)?;
                }
                #[cfg(not(feature = "cuda"))]
                Backend::Cuda => unreachable!("no cell is planned on a backend that is not built in"),
            }
        }
        Ok(())
    }

    /// Runs the cells of one matrix, weight by weight.
    fn matrix<B: SparseBackend>(
        &mut self,
        cells: &[&PlannedKernel],
        device: B::Device,
        peaks: &mut KnownPeaks,
    ) -> Result<(), RunError> {
        let mut bench: Option<Bench<B>> = None;
        for same_weight in cells.chunk_by(|a, b| a.cell.same_weight(&b.cell)) {
            let mut weight: Option<Weight<B>> = None;
            for planned in same_weight {
                if self.stop() {
                    return Ok(());
                }
                let cell = &planned.cell;
                self.watch.begins(Work::Kernel(cell));
                let mut timings = Timings::default();
                let result = caught(|| {
                    if bench.is_none() {
                        self.watch.stage("measuring the device's peaks");
                        let peaks = peaks.of::<B>(cell, &device);
                        self.watch.stage("making the matrix");
                        bench = Some(Bench::new(cell, device.clone(), peaks));
                    }
                    let Some(bench) = &mut bench else { unreachable!("it was made above") };
                    if weight.is_none() {
                        self.watch.stage("storing copies");
                        weight = Some(bench.weight(cell)?);
                    }
                    let Some(weight) = &mut weight else { unreachable!("it was made above") };
                    self.watch.stage("timing");
                    bench.time(cell, weight, &mut timings)
                });
                let result = match result {
                    Ok(result) => result.map_err(|error: CellError| error.failure()),
                    Err(message) => Err(Failure { kind: FailureKind::Other, message, gate: None }),
                };
                timings.peak_rss_bytes = peak_rss_bytes();
                self.record_kernel(planned, timings, unless_panicked(result))?;
            }
        }
        Ok(())
    }

    fn record_kernel(
        &mut self,
        planned: &PlannedKernel,
        timings: Timings,
        result: Result<KernelMeasured, Failure>,
    ) -> Result<(), RunError> {
        let (measured, failure) = parts(result);
        let record = KernelRecord {
            format: KernelRecord::FORMAT,
            id: planned.id.clone(),
            kernel: planned.cell.clone(),
            inputs: planned.inputs.clone(),
            program: Program::current(),
            measured,
            failure,
            timings,
            finished: now(),
        };
        self.store(Record::Kernel(Box::new(record)))
    }
}

/// Peaks by backend and dtype, measured once a process.
#[derive(Default)]
struct KnownPeaks(Vec<(Backend, DType, Peaks)>);

impl KnownPeaks {
    fn of<B: SparseBackend>(&mut self, cell: &KernelCell, device: &B::Device) -> Peaks {
        let dtype = burn_dtype(cell.dtype);
        let known = self.0.iter().find(|(backend, of, _)| (*backend, *of) == (cell.backend, dtype));
        if let Some((.., peaks)) = known {
            return *peaks;
        }
        let peaks = B::peaks(device, dtype);
        self.0.push((cell.backend, dtype, peaks));
        peaks
    }
}

/// A matrix, and what is known of its device.
struct Bench<B: SparseBackend> {
    device: B::Device,
    peaks: Peaks,
    /// `[out_features, in_features]`, no zeros but by chance.
    weights: Vec<f32>,
    load_seconds: f64,
    /// Tokens and median seconds of the dense cells that this process has timed.
    dense: Vec<(usize, f64)>,
}

/// Copies of one stored weight.
struct Weight<B: SparseBackend> {
    /// The one that was used last stands last.
    linears: Vec<Linear<B>>,
    /// Of a copy.
    bytes: u64,
    kept: u64,
    /// `[out_features, in_features]`, zeros in place.
    masked: Vec<f32>,
    convert_seconds: f64,
}

/// What random numbers are named after; raised when they change.
fn label(cell: &KernelCell) -> String {
    format!("kernel 1, seed {}", cell.seed)
}

impl<B: SparseBackend> Bench<B> {
    fn new(cell: &KernelCell, device: B::Device, peaks: Peaks) -> Self {
        let start = Instant::now();
        let [out, inp] = cell.shape;
        let weights = normals(&label(cell), 0, 1.0 / (inp as f32).sqrt(), out * inp);
        Self { device, peaks, weights, load_seconds: start.elapsed().as_secs_f64(), dense: Vec::new() }
    }

    fn weight(&self, cell: &KernelCell) -> Result<Weight<B>, CellError> {
        let start = Instant::now();
        let [out, inp] = cell.shape;
        let pattern = Pattern::random(out, inp, cell.sparsity.unwrap_or(0.0), cell.seed);
        let masked = if cell.sparsity.is_some() { pattern.apply(&self.weights) } else { self.weights.clone() };
        let build = || build_weight::<B>(cell.format, &masked, &pattern, cell.tokens, cell.dtype, &self.device);
        let (first, bytes) = build()?;
        let mut linears = vec![Linear { weight: first, bias: None }];
        let copies = rotated_copies(bytes, B::ON_HOST, last_cache_bytes());
        while linears.len() < copies {
            // Built anew: a clone would share the first one's memory.
            linears.push(Linear { weight: build()?.0, bias: None });
        }
        let convert_seconds = start.elapsed().as_secs_f64();
        Ok(Weight { linears, bytes, kept: pattern.kept() as u64, masked, convert_seconds })
    }

    fn time(
        &mut self,
        cell: &KernelCell,
        weight: &mut Weight<B>,
        timings: &mut Timings,
    ) -> Result<KernelMeasured, CellError> {
        let start = Instant::now();
        let [_, inp] = cell.shape;
        let numbers = normals(&label(cell), 1, 1.0, cell.tokens * inp);
        let x = self.input(&numbers, cell);
        // The last copy is checked, so that those to be timed stay out of the cache.
        let [.., last] = &*weight.linears else { unreachable!("there is a copy at least") };
        let y = host(last.forward(x.clone()))?;
        let kernel = last.weight.kernel(cell.tokens);
        let product = Product { x: &numbers, weights: &weight.masked, y: &y, shape: cell.shape, dtype: cell.dtype };
        let max_rel_err = max_rel_err(&product)?;
        drop(y);
        let seconds = time_linear(&weight.linears, &x, cell.warmup, cell.repeats)?;
        // The next cell goes on where this one ended: what it left in the cache is then far away.
        let copies = weight.linears.len();
        weight.linears.rotate_left((cell.warmup + cell.repeats) % copies);
        (timings.load_seconds, timings.convert_seconds) = (self.load_seconds, Some(weight.convert_seconds));
        timings.measure_seconds = start.elapsed().as_secs_f64();
        if cell.format == KernelFormat::Dense {
            self.dense.push((cell.tokens, quantile(&seconds, 0.5)));
        }
        Ok(KernelMeasured {
            seconds,
            copies,
            nonzero: weight.kept,
            weight_bytes: weight.bytes,
            max_rel_err,
            kernel,
            dense_seconds: self.dense.iter().find(|(tokens, _)| *tokens == cell.tokens).map(|(_, median)| *median),
            peak_bytes_per_s: self.peaks.bytes_per_s,
            peak_flops_per_s: self.peaks.flops_per_s,
        })
    }

    fn input(&self, numbers: &[f32], cell: &KernelCell) -> Tensor<B, 2> {
        let dtype = burn_dtype(cell.dtype);
        let data = TensorData::new(numbers.to_vec(), [cell.tokens, cell.shape[1]]).convert_dtype(dtype);
        Tensor::from_data(data, (&self.device, dtype))
    }
}

fn host<B: SparseBackend>(y: Tensor<B, 2>) -> Result<Vec<f32>, KernelError> {
    let data = y.try_into_data().map_err(|error| KernelError::Device { reason: error.to_string() })?;
    data.convert::<f32>().into_vec().map_err(|error| KernelError::Device { reason: format!("{error:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::Dtype;

    fn cell(format: KernelFormat, sparsity: Option<f64>, dtype: Dtype) -> KernelCell {
        let (backend, shape) = (Backend::Flex, [70, 40]);
        KernelCell { backend, dtype, shape, tokens: 5, format, sparsity, seed: 3, warmup: 1, repeats: 4 }
    }

    fn measured<B: SparseBackend>(cells: &[KernelCell]) -> Vec<KernelMeasured> {
        let peaks = Peaks { bytes_per_s: 1.0, flops_per_s: 1.0 };
        let mut bench = Bench::<B>::new(&cells[0], Default::default(), peaks);
        let measure = |cell| {
            let mut weight = bench.weight(cell).unwrap();
            bench.time(cell, &mut weight, &mut Timings::default()).unwrap()
        };
        cells.iter().map(measure).collect()
    }

    fn check<B: SparseBackend>() {
        let cells = [
            cell(KernelFormat::Dense, None, Dtype::F32),
            cell(KernelFormat::Csr, Some(0.3), Dtype::F32),
            cell(KernelFormat::Bitmap, Some(0.99), Dtype::F32),
            cell(KernelFormat::Auto, Some(0.0), Dtype::F32),
        ];
        let all = measured::<B>(&cells);
        assert_eq!(all.iter().map(|m| m.nonzero).collect::<Vec<_>>(), [2800, 2800 - 840, 2800 - 2772, 2800]);
        assert!(all.iter().all(|m| m.seconds.len() == 4 && m.copies == 1000 && m.max_rel_err < 1e-5));
        assert!(all.iter().all(|m| m.dense_seconds == all[0].dense_seconds && m.dense_seconds.is_some()));
        assert_eq!(all[0].weight_bytes, 2800 * 4);
        // Masks of five panels, 28 values and sixteen zeros, six starts.
        assert_eq!(all[2].weight_bytes, 5 * 40 * 2 + (28 + 16) * 4 + 6 * 4);
        for (measured, format) in all.iter().zip(["dense-", "csr-", "bitmap-", "dense-"]) {
            assert!(measured.kernel.starts_with(format), "{}", measured.kernel);
        }
    }

    #[test]
    fn every_format_is_right_on_every_cpu_backend() {
        check::<Flex>();
        check::<NdArray<f32>>();
    }

    #[test]
    fn kernels_take_bf16() {
        let cells = [(KernelFormat::Dense, None), (KernelFormat::Csr, Some(0.5)), (KernelFormat::Bitmap, Some(0.5))];
        let all = measured::<Flex>(&cells.map(|(format, sparsity)| cell(format, sparsity, Dtype::Bf16)));
        assert_eq!(all[0].weight_bytes, 2800 * 2);
        assert_eq!(all[2].weight_bytes, 5 * 20 * 4 + (1400 + 32) * 2 + 6 * 4);
    }

    #[test]
    fn copies_do_not_share_memory() {
        let cell = cell(KernelFormat::Dense, None, Dtype::F32);
        let bench = Bench::<Flex>::new(&cell, Default::default(), Peaks { bytes_per_s: 1.0, flops_per_s: 1.0 });
        let weight = bench.weight(&cell).unwrap();
        let place = |linear: &Linear<Flex>| match &linear.weight {
            crate::model::LinearWeight::Dense(weight) => weight.host().as_ptr(),
            _ => unreachable!("dense was asked for"),
        };
        let mut places: Vec<_> = weight.linears.iter().map(place).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), weight.linears.len());
    }
}
