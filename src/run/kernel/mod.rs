//! Kernel cells: planned, and run matrix by matrix.
//!
//! ```text
//!   matrix        backend, dtype, shape, seed      random weights, made once
//!     weight      format, sparsity                 copies larger than the last-level cache, made once
//!       cell      tokens                           input ─> warm-up, timed calls ─> error against float64
//! ```
//! The dense weight comes first, so that every sparse cell knows the dense time of its own process.

mod files;
mod format;

use super::PrepareError;
use super::backend::{OnBackend, burn_dtype, bytes_per_number, device_name, on_backend, threads};
use super::kinds::{Ground, Kind, Runner};
use super::panics::{caught, panicked};
use super::scheduler::{Desk, RunError};
use crate::choice::Choice;
use crate::config::experiment::{Format, KernelFormat};
use crate::config::kernel::{kernel_dtypes, kernel_formats, only_sparsity};
use crate::execute::{KERNEL_POLICY_VERSION, OwnError, PackError, Peaks, ReadError, SparseBackend, host_numbers};
use crate::load::normals;
use crate::measure::{
    Compared, KernelError, PeakRss, Product, Traffic, input_threshold, masked_input, max_rel_err, quantile,
    rotated_copies, time_calls,
};
use crate::plan::{
    Backend, CellId, Inputs, KernelCell, Of, Part, Planned, TIMES, accompany, expand_kernels, kernel_inputs,
};
use crate::record::{Failure, FailureKind, KernelMeasured, Numbers, Timings, last_cache_bytes};
use crate::sparse::Pattern;
use burn::tensor::{DType, Tensor, TensorData};
use files::block_files;
use format::{KernelWeight, build_own, build_weight};
use std::path::{Path, PathBuf};
use std::time::Instant;
use thiserror::Error;

/// What measuring a CPU's peaks takes.
const PEAKS_BYTES: u64 = 512 << 20;

/// The row of kernels.
pub(super) const KIND: Kind = Kind { name: "kernel", plan, accompany, runner: || Box::new(Kernels::default()) };

/// Every kernel cell of an experiment, named, and nothing decided yet.
///
/// # Errors
/// When a backend's kernels lack a dtype or a format.
fn plan(ground: &Ground<'_>) -> Result<Vec<Planned>, PrepareError> {
    let Ground { experiment, backends, machine, .. } = ground;
    let inputs = |backend: Backend| {
        let threads = backend.is_cpu().then(|| threads(experiment));
        kernel_inputs(device_name(machine, experiment, backend), threads, KERNEL_POLICY_VERSION)
    };
    let planned = |cell: KernelCell| {
        if !kernel_dtypes(cell.backend.choice()).contains(&cell.dtype) {
            return Err(PrepareError::KernelDtype { backend: cell.backend.name(), dtype: cell.dtype.name() });
        }
        if !kernel_formats(cell.backend.choice()).contains(&cell.format) {
            return Err(PrepareError::KernelFormat { backend: cell.backend.name(), format: cell.format.name() });
        }
        let (inputs, memory_bytes) = (inputs(cell.backend), memory(&cell, machine.last_cache_bytes));
        let parts = |id: &CellId| vec![Part::new(id, TIMES, Inputs::default())];
        Ok(Planned::new(cell, inputs, parts, memory_bytes))
    };
    let cells = expand_kernels(experiment, backends, &block_files(experiment)?).map_err(PrepareError::KernelLaunch)?;
    cells.into_iter().map(planned).collect()
}

/// An estimate: the weight on the host twice, its rotating copies, input and output.
fn memory(cell: &KernelCell, last_cache: Option<u64>) -> u64 {
    let [out, inp] = cell.shape.map(|side| side as u64);
    let number = bytes_per_number(cell.dtype);
    let kept = (out * inp) as f64 * (1.0 - cell.sparsity.unwrap_or(0.0));
    let stored = match cell.format {
        KernelFormat::Dense | KernelFormat::Threshold => out * inp * number,
        KernelFormat::Sparse(format) => format.about_bytes([out, inp], kept as u64, number),
        // It takes at most what dense does, and may take as much.
        KernelFormat::Auto => Format::Csr.about_bytes([out, inp], kept as u64, number),
        // The largest of its layouts.
        KernelFormat::Source => (kept as u64 * (number + 4) + (out + 1) * 4).max(out * inp * number),
    };
    let traffic = traffic(cell, stored, cell.backend.is_cpu());
    let copies = stored * rotated_copies(traffic, last_cache) as u64;
    let tensors = 2 * (out + inp) * cell.tokens as u64 * 4;
    (2 * 4 * out * inp + copies + tensors).max(PEAKS_BYTES)
}

/// What a call reads of a stored weight at least: all, but for `threshold`.
fn traffic(cell: &KernelCell, stored: u64, on_host: bool) -> Traffic {
    let left_out = cell.sparsity.filter(|_| cell.format == KernelFormat::Threshold).unwrap_or(0.0);
    Traffic { stored, read: (stored as f64 * (1.0 - left_out)) as u64, on_host }
}

/// Why a kernel cell failed.
#[derive(Debug, Error)]
enum CellError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Own(#[from] OwnError),
    #[error("the device's peaks can't be measured: {0}")]
    Peaks(String),
    #[error("{0}")]
    File(String),
    #[error(
        "the output contains NaN or infinity; each of its numbers is NaN before the kernel is launched, so that one may not have been written"
    )]
    Unwritten,
}

impl CellError {
    fn failure(&self) -> Failure {
        let kind = match self {
            Self::Kernel(KernelError::Gate { .. }) => FailureKind::Gate,
            Self::Kernel(KernelError::NotFinite) | Self::Unwritten => FailureKind::NotFinite,
            Self::Kernel(KernelError::Device { .. })
            | Self::Pack(_)
            | Self::Own(_)
            | Self::Peaks(_)
            | Self::File(_) => FailureKind::Other,
        };
        Failure::new(kind, self.to_string())
    }
}

/// Runs batches of kernel cells; the device's peaks stay from one to the next.
#[derive(Default)]
struct Kernels {
    peaks: KnownPeaks,
}

impl Runner for Kernels {
    fn run(&mut self, desk: &mut Desk<'_>, batch: &[&Planned]) -> Result<(), RunError> {
        let cells: Vec<(&Planned, &KernelCell)> =
            batch.iter().filter_map(|planned| Some((*planned, KernelCell::of(&planned.task)?))).collect();
        let cells = desk.take(&cells, |(planned, _)| planned);
        let Some((_, first)) = cells.first() else { return Ok(()) };
        let (backend, index) = (first.backend, desk.prepared.experiment.device_index);
        on_backend(backend, index, Matrix { desk, peaks: &mut self.peaks, cells: &cells })
    }
}

/// The cells of one matrix.
struct Matrix<'b, 'd> {
    desk: &'b mut Desk<'d>,
    peaks: &'b mut KnownPeaks,
    cells: &'b [(&'b Planned, &'b KernelCell)],
}

impl OnBackend for Matrix<'_, '_> {
    type Output = Result<(), RunError>;

    /// Runs the cells weight by weight.
    fn on<B: SparseBackend>(self, device: B::Device) -> Self::Output {
        let Self { desk, peaks, cells } = self;
        let mut bench: Option<Bench<B>> = None;
        for same_weight in cells.chunk_by(|(_, a), (_, b)| a.same_weight(b)) {
            let mut weight: Option<Weight<B>> = None;
            for (planned, cell) in same_weight {
                if desk.stop() {
                    return Ok(());
                }
                desk.watch.begins(&planned.task);
                let (peak, mut timings) = (PeakRss::begin(), Timings::default());
                let stage = |stage: &str| desk.watch.stage(stage);
                let result = caught(|| {
                    if bench.is_none() {
                        stage(if B::ON_HOST { "measuring the device's peaks" } else { DEVICE_PEAKS });
                        let peaks = peaks.of::<B>(cell, &device)?;
                        stage("making the matrix");
                        bench = Some(Bench::new(cell, &desk.prepared.experiment.path, device.clone(), peaks)?);
                    }
                    let Some(bench) = &mut bench else { unreachable!("it was made above") };
                    if weight.is_none() {
                        stage("storing copies");
                        weight = Some(bench.weight(cell)?);
                    }
                    let Some(weight) = &mut weight else { unreachable!("it was made above") };
                    bench.time(cell, weight, &mut timings, &stage)
                });
                let mut result = match result {
                    Ok(result) => result.map_err(|error: CellError| error.failure()),
                    Err(message) => Err(Failure::new(FailureKind::Other, message)),
                };
                if panicked(&mut result) {
                    // Whatever is on the device, and times that sparse cells would be compared with.
                    (bench, weight, *peaks) = (None, None, KnownPeaks::default());
                }
                timings.peak_rss_bytes = peak.bytes();
                let numbers = result.map(|measured| vec![Numbers::Times(Box::new(measured))]);
                desk.record(planned, timings, numbers)?;
            }
        }
        Ok(())
    }
}

const DEVICE_PEAKS: &str = "measuring the device's peaks (first run: compiles kernels)";
const COMPILING: &str = "compiling kernels, and timing those that there are several of (first run)";

/// Peaks by backend and dtype, measured once a process.
#[derive(Default)]
struct KnownPeaks(Vec<(Backend, DType, Peaks)>);

impl KnownPeaks {
    fn of<B: SparseBackend>(&mut self, cell: &KernelCell, device: &B::Device) -> Result<Peaks, CellError> {
        let dtype = burn_dtype(cell.dtype);
        let known = self.0.iter().find(|(backend, of, _)| (*backend, *of) == (cell.backend, dtype));
        if let Some((.., peaks)) = known {
            return Ok(*peaks);
        }
        let peaks = B::peaks(device, dtype).map_err(CellError::Peaks)?;
        self.0.push((cell.backend, dtype, peaks));
        Ok(peaks)
    }
}

/// A matrix, and what is known of its device.
struct Bench<B: SparseBackend> {
    device: B::Device,
    peaks: Peaks,
    /// `[out_features, in_features]`; random ones have no zeros but by chance.
    weights: Vec<f32>,
    /// Whether they are a file's, whose zeros are what is left out.
    given: bool,
    /// What files are relative to.
    experiment: PathBuf,
    load_seconds: f64,
    /// Tokens and median seconds of the dense cells that this process has timed.
    dense: Vec<(usize, f64)>,
}

/// Copies of one stored weight.
struct Weight<B: SparseBackend> {
    /// On the host, the one that was used last stands last.
    copies: Vec<KernelWeight<B>>,
    /// What was measured to choose its form.
    choice: Option<Choice>,
    /// Of a copy.
    bytes: u64,
    kept: u64,
    /// `[out_features, in_features]`, zeros in place.
    masked: Vec<f32>,
    convert_seconds: f64,
}

/// What a call multiplies the weight with.
struct Input<B: SparseBackend> {
    /// `[tokens, in_features]`
    x: Tensor<B, 2>,
    /// Its numbers before rounding; of `threshold`, zeros where it is not above.
    numbers: Vec<f32>,
    /// What counts as zero, of `threshold`.
    threshold: Option<f32>,
    /// Of `threshold`, the weights that the entries above it meet, in the mean over the tokens.
    nonzero: Option<u64>,
    /// Of `threshold`, the share of the columns that is read.
    read: Option<f64>,
}

/// What random numbers are named after; raised when they change.
fn label(cell: &KernelCell) -> String {
    format!("kernel 1, seed {}", cell.seed)
}

impl<B: SparseBackend> Bench<B> {
    fn new(cell: &KernelCell, experiment: &Path, device: B::Device, peaks: Peaks) -> Result<Self, CellError> {
        let start = Instant::now();
        let [out, inp] = cell.shape;
        let weights = match &cell.given.weight {
            Some(file) => files::matrix(file, experiment).map_err(CellError::File)?,
            None => normals(&label(cell), 0, 1.0 / (inp as f32).sqrt(), out * inp),
        };
        let (given, experiment) = (cell.given.weight.is_some(), experiment.to_owned());
        let load_seconds = start.elapsed().as_secs_f64();
        Ok(Self { device, peaks, weights, given, experiment, load_seconds, dense: Vec::new() })
    }

    /// What of the weight is kept; of `dense` and `threshold`, all.
    fn pattern(&self, cell: &KernelCell) -> Pattern {
        let [out, inp] = cell.shape;
        let sparse = !matches!(cell.format, KernelFormat::Dense | KernelFormat::Threshold);
        match cell.sparsity.filter(|_| sparse) {
            Some(_) if self.given => Pattern::keep_where(out, inp, &self.weights, |_, weight| weight != 0.0),
            Some(_) if only_sparsity(cell.format).is_some() => Pattern::random_two_of_four(out, inp, cell.seed),
            sparsity => Pattern::random(out, inp, sparsity.unwrap_or(0.0), cell.seed),
        }
    }

    fn weight(&self, cell: &KernelCell) -> Result<Weight<B>, CellError> {
        let start = Instant::now();
        let pattern = self.pattern(cell);
        let masked =
            if pattern.kept() < self.weights.len() { pattern.apply(&self.weights) } else { self.weights.clone() };
        let (first, bytes, choice) = match &cell.given.kernel {
            Some(own) => {
                let text = files::source(own, &self.experiment).map_err(CellError::File)?;
                let (own, bytes) = build_own::<B>(own, text, &masked, &pattern, cell.dtype, &self.device)?;
                (own, bytes, None)
            }
            None => build_weight::<B>(cell.format, &masked, &pattern, cell.tokens, cell.dtype, &self.device)?,
        };
        let wanted = rotated_copies(traffic(cell, bytes, B::ON_HOST), last_cache_bytes());
        let mut copies = vec![first];
        while copies.len() < wanted {
            copies.push(copies[0].copied());
        }
        let convert_seconds = start.elapsed().as_secs_f64();
        Ok(Weight { copies, choice, bytes, kept: pattern.kept() as u64, masked, convert_seconds })
    }

    fn time(
        &mut self,
        cell: &KernelCell,
        weight: &mut Weight<B>,
        timings: &mut Timings,
        stage: &dyn Fn(&str),
    ) -> Result<KernelMeasured, CellError> {
        (timings.load_seconds, timings.convert_seconds) = (self.load_seconds, Some(weight.convert_seconds));
        let input = self.input(cell)?;
        let threshold = input.threshold.unwrap_or_default();
        // The last copy is checked, so that those to be timed stay out of the cache.
        let [.., last] = &*weight.copies else { unreachable!("there is a copy at least") };
        if !B::ON_HOST {
            stage(COMPILING);
            let start = Instant::now();
            host(last.checked(input.x.clone(), threshold)?)?;
            timings.compile_seconds = Some(start.elapsed().as_secs_f64());
        }
        stage("timing");
        let start = Instant::now();
        let y = host(last.checked(input.x.clone(), threshold)?)?;
        let kernel = last.kernel(cell.tokens);
        let Input { numbers: x, .. } = &input;
        let product = Product { x, weights: &weight.masked, y: &y, shape: cell.shape, dtype: cell.dtype };
        let compared = if cell.given.kernel.is_some() { Compared::Most } else { Compared::Some };
        let max_rel_err = max_rel_err(&product, compared).map_err(|error| match (error, compared) {
            (KernelError::NotFinite, Compared::Most) => CellError::Unwritten,
            (error, Compared::Some | Compared::Most) => error.into(),
        })?;
        drop(y);
        let call = |copy: usize| weight.copies[copy].forward(input.x.clone(), threshold);
        let times = time_calls::<B>(&self.device, weight.copies.len(), call, cell.warmup, cell.repeats)?;
        // The next cell goes on where this one ended: what it left in the cache is then far away.
        let copies = weight.copies.len();
        weight.copies.rotate_left((cell.warmup + cell.repeats) % copies);
        timings.measure_seconds = start.elapsed().as_secs_f64();
        if cell.format == KernelFormat::Dense {
            self.dense.push((cell.tokens, quantile(&times.seconds, 0.5)));
        }
        Ok(KernelMeasured {
            seconds: times.seconds,
            back_to_back: times.back_to_back,
            copies,
            nonzero: input.nonzero.unwrap_or(weight.kept),
            weight_bytes: weight.bytes,
            read_bytes: input.read.map(|share| (weight.bytes as f64 * share).round() as u64),
            threshold: input.threshold,
            max_rel_err,
            kernel,
            choice: weight.choice.clone(),
            dense_seconds: self.dense.iter().find(|(tokens, _)| *tokens == cell.tokens).map(|(_, median)| *median),
            peak_bytes_per_s: self.peaks.bytes_per_s,
            peak_flops_per_s: self.peaks.flops_per_s,
        })
    }

    fn input(&self, cell: &KernelCell) -> Result<Input<B>, CellError> {
        let [out, inp] = cell.shape;
        let numbers = match &cell.given.input {
            Some(file) => {
                let mut numbers = files::matrix(file, &self.experiment).map_err(CellError::File)?;
                numbers.truncate(cell.tokens * inp);
                numbers
            }
            None => normals(&label(cell), 1, 1.0, cell.tokens * inp),
        };
        let dtype = burn_dtype(cell.dtype);
        let data = TensorData::new(numbers.clone(), [cell.tokens, inp]).convert_dtype(dtype);
        let x = Tensor::from_data(data, (&self.device, dtype));
        if cell.format != KernelFormat::Threshold {
            return Ok(Input { x, numbers, threshold: None, nonzero: None, read: None });
        }
        let threshold = input_threshold(&numbers, cell.sparsity.unwrap_or(0.0), cell.dtype);
        let masked = masked_input(&numbers, threshold, inp, cell.dtype);
        Ok(Input {
            x,
            numbers: masked.x,
            threshold: Some(threshold),
            nonzero: Some((masked.entries * out / cell.tokens) as u64),
            read: Some(masked.columns as f64 / inp as f64),
        })
    }
}

fn host<B: SparseBackend>(y: Tensor<B, 2>) -> Result<Vec<f32>, KernelError> {
    host_numbers(y).map_err(|ReadError(reason)| KernelError::Device { reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::Dtype;
    use crate::model::{Linear, LinearWeight};
    use crate::plan::Given;
    use burn::backend::{Flex, NdArray};

    fn cell(format: KernelFormat, sparsity: Option<f64>, dtype: Dtype) -> KernelCell {
        let (backend, shape) = (Backend::Flex, [70, 40]);
        KernelCell {
            backend,
            dtype,
            shape,
            tokens: 5,
            format,
            sparsity,
            seed: 3,
            warmup: 1,
            repeats: 4,
            given: Given::default(),
        }
    }

    fn measured<B: SparseBackend>(cells: &[KernelCell]) -> Vec<KernelMeasured> {
        let peaks = Peaks { bytes_per_s: 1.0, flops_per_s: 1.0 };
        let mut bench = Bench::<B>::new(&cells[0], Path::new("e.toml"), Default::default(), peaks).unwrap();
        let measure = |cell| {
            let mut weight = bench.weight(cell).unwrap();
            bench.time(cell, &mut weight, &mut Timings::default(), &|_| ()).unwrap()
        };
        cells.iter().map(measure).collect()
    }

    fn check<B: SparseBackend>() {
        let cells = [
            cell(KernelFormat::Dense, None, Dtype::F32),
            cell(KernelFormat::Sparse(Format::Csr), Some(0.3), Dtype::F32),
            cell(KernelFormat::Sparse(Format::Bitmap), Some(0.99), Dtype::F32),
            cell(KernelFormat::Auto, Some(0.0), Dtype::F32),
            cell(KernelFormat::Sparse(Format::Csr32), Some(0.3), Dtype::F32),
        ];
        let all = measured::<B>(&cells);
        assert_eq!(
            all.iter().map(|m| m.nonzero).collect::<Vec<_>>(),
            [2800, 2800 - 840, 2800 - 2772, 2800, 2800 - 840]
        );
        assert!(all.iter().all(|m| m.seconds.len() == 4 && m.copies == 1000 && m.max_rel_err < 1e-5));
        assert!(all.iter().all(|m| m.dense_seconds == all[0].dense_seconds && m.dense_seconds.is_some()));
        assert_eq!(all[0].weight_bytes, 2800 * 4);
        // Masks of five panels, 28 values and sixteen zeros, six starts.
        assert_eq!(all[2].weight_bytes, 5 * 40 * 2 + (28 + 16) * 4 + 6 * 4);
        // A value and a column of four bytes each, 71 row pointers.
        assert_eq!(all[4].weight_bytes, (2800 - 840) * 8 + 71 * 4);
        for (measured, format) in all.iter().zip(["dense-", "csr-", "bitmap-", "dense-", "csr32-"]) {
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
        let formats = [Format::Csr, Format::Bitmap, Format::Csr32].map(|f| (KernelFormat::Sparse(f), Some(0.5)));
        let cells: Vec<_> = [(KernelFormat::Dense, None)].into_iter().chain(formats).collect();
        let cells: Vec<_> = cells.into_iter().map(|(format, sparsity)| cell(format, sparsity, Dtype::Bf16)).collect();
        let all = measured::<Flex>(&cells);
        assert_eq!(all[0].weight_bytes, 2800 * 2);
        assert_eq!(all[2].weight_bytes, 5 * 20 * 4 + (1400 + 32) * 2 + 6 * 4);
        assert_eq!(all[3].weight_bytes, 1400 * 6 + 71 * 4);
    }

    #[test]
    fn pairs_of_four_are_drawn_for_the_format_that_takes_no_other_zeros() {
        for (sparsity, seed) in [(0.5, 3), (0.5, 4)] {
            let of = |format| KernelCell { seed, ..cell(KernelFormat::Sparse(format), Some(sparsity), Dtype::F16) };
            let peaks = Peaks { bytes_per_s: 1.0, flops_per_s: 1.0 };
            let bench = Bench::<Flex>::new(&of(Format::Nm), Path::new("e.toml"), Default::default(), peaks).unwrap();
            let pattern = bench.pattern(&of(Format::Nm));
            assert_eq!(pattern, Pattern::random_two_of_four(70, 40, seed));
            assert_eq!(bench.pattern(&of(Format::Csr)), Pattern::random(70, 40, sparsity, seed));
            assert!(bench.weight(&of(Format::Nm)).is_err_and(|error| error.to_string().contains("no kernel")));
        }
    }

    #[test]
    fn copies_do_not_share_memory() {
        let cell = cell(KernelFormat::Dense, None, Dtype::F32);
        let bench = Bench::<Flex>::new(
            &cell,
            Path::new("e.toml"),
            Default::default(),
            Peaks { bytes_per_s: 1.0, flops_per_s: 1.0 },
        )
        .unwrap();
        let weight = bench.weight(&cell).unwrap();
        let place = |weight: &KernelWeight<Flex>| match weight {
            KernelWeight::Linear(Linear { weight: LinearWeight::Dense(weight), .. }) => weight.host().unwrap().as_ptr(),
            KernelWeight::Linear(_) | KernelWeight::Columns(_) | KernelWeight::Own(_) => {
                unreachable!("dense was asked for")
            }
        };
        let mut places: Vec<_> = weight.copies.iter().map(place).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), weight.copies.len());
    }

    #[test]
    fn a_threshold_leaves_out_inputs() {
        // No CPU kernel skips columns; the plain form says whether the cell is put together rightly.
        let threshold = |sparsity, dtype| cell(KernelFormat::Threshold, Some(sparsity), dtype);
        let cells =
            [cell(KernelFormat::Dense, None, Dtype::F32), threshold(0.9, Dtype::F32), threshold(0.0, Dtype::F32)];
        let all = measured::<Flex>(&cells);
        assert!(all.iter().all(|m| m.max_rel_err < 1e-5));
        // 200 entries of five tokens, 20 above it: each in a column of its own at most.
        assert_eq!(all[1].nonzero, 20 * 70 / 5);
        let read = all[1].read_bytes.unwrap();
        assert!((4 * 72 * 4..=20 * 72 * 4).contains(&read) && read.is_multiple_of(72 * 4), "{read}");
        assert_eq!((all[1].weight_bytes, all[1].kernel.as_str()), (40 * 72 * 4, "threshold-masked-dense"));
        assert_eq!((all[2].nonzero, all[2].read_bytes, all[2].threshold), (2800, Some(40 * 72 * 4), Some(-1.0)));
        assert_eq!((all[0].nonzero, all[0].read_bytes, all[0].threshold), (2800, None, None));
        assert!(all[1].threshold > Some(1.0) && all[1].dense_seconds.is_some());
    }
}
