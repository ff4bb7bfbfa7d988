//! One prune point: its pattern, its variants, and their numbers.

use super::error::CellError;
use super::patterns::patterns;
use super::pruned::{Calibrated, Pruned};
use super::session::Session;
use super::tasks::ask;
use crate::choice::Choice;
use crate::config::experiment::{Dtype, LatencySettings, Metric, Variant};
use crate::execute::{LayerShape, PackFor, ReadError, SparseBackend, SparseWeight};
use crate::load::{TaskTokens, Tokenizer};
use crate::measure::{
    Agreement, ForwardError, Latency, PeakRss, Stored, Workload, agreement, all_logits, decoded_logits, gate, latency,
    likelihood, profile, structure,
};
use crate::model::{Decoder, LinearWeight};
use crate::plan::{Cell, PrunePoint};
use crate::record::{KernelUse, Measured, PrunedLinears, Scarce, TaskNumbers, Ties, Timings};
use crate::run::backend::{burn_dtype, bytes_per_number};
use std::time::Instant;

/// A cell, and what is to be measured of it now.
pub(super) struct Job<'a> {
    /// What is run.
    pub cell: &'a Cell,
    /// What is measured beside the structure.
    pub due: Vec<Metric>,
    /// What the experiment times, whether or not it is due: kernels are listed for it too.
    pub timed: Option<LatencySettings>,
    /// Whether to look where its time goes.
    pub profiled: bool,
    /// The tasks that are asked.
    pub tasks: Vec<&'a TaskTokens>,
    /// The model's.
    pub tokenizer: &'a Tokenizer,
}

impl Job<'_> {
    fn measures(&self, metric: Metric) -> bool {
        self.due.contains(&metric)
    }
}

/// A model in a variant's form.
struct Formed<B: SparseBackend> {
    decoder: Decoder<B>,
    /// What each linear stores.
    stored: Vec<Stored>,
    /// What was measured to choose the forms.
    choices: Vec<Choice>,
}

/// Told what is being done.
pub(super) type Stage<'a> = &'a dyn Fn(&str);

/// Measures the dense model.
pub(super) fn dense<B: SparseBackend>(
    session: &mut Session<B>,
    job: &Job<'_>,
    stage: Stage<'_>,
) -> (Timings, Result<Measured, CellError>) {
    let mut timings = Timings { load_seconds: session.load_seconds, ..Default::default() };
    let (peak, start) = (PeakRss::begin(), Instant::now());
    let mut measure = || {
        let mut measured = sizes(session, job.cell, &session.stored.clone())?;
        if job.measures(Metric::Agreement) {
            stage("agreement");
            // Computed although the answer is known: the logits must be finite, and the variants need them.
            session.reference()?;
            measured.agreement = Some(Agreement::perfect(session.tokens.agreement.iter().map(Vec::len).sum()));
        }
        let mut decoder = session.decoder.clone();
        read_text(&mut measured, session, &mut decoder, job, stage)?;
        measured.tasks = tasks_of(&mut decoder, job, stage)?;
        measured.latency = latency_of(&mut decoder, job, stage)?;
        Ok(measured)
    };
    let measured = measure();
    timings.measure_seconds = start.elapsed().as_secs_f64();
    timings.peak_rss_bytes = peak.bytes();
    (timings, measured)
}

/// A prune point whose patterns are known, and whose masked logits are computed when they are needed.
pub(super) struct Point {
    layers: Vec<Pruned>,
    calibrate_seconds: Option<f64>,
    prune_seconds: f64,
    ties: Option<Ties>,
    scarce: Option<Scarce>,
    /// The masked variant's [`gate_logits`].
    masked: Option<Vec<f32>>,
}

impl Point {
    /// Decides which weights go.
    pub fn new<B: SparseBackend>(
        session: &Session<B>,
        point: &PrunePoint,
        seed: Option<u64>,
        dtype: Dtype,
    ) -> Result<Self, CellError> {
        let start = Instant::now();
        let (layers, ties) = patterns(session, point, seed, dtype)?;
        let prune_seconds = start.elapsed().as_secs_f64();
        Ok(Self { layers, calibrate_seconds: None, prune_seconds, ties, scarce: None, masked: None })
    }

    /// Takes what calibration decided.
    pub fn calibrated(calibrated: Calibrated) -> Self {
        let Calibrated { layers, calibrate_seconds, prune_seconds, ties, scarce } = calibrated;
        Self { layers, calibrate_seconds: Some(calibrate_seconds), prune_seconds, ties, scarce, masked: None }
    }

    /// Its pruned linears.
    pub fn layers(&self) -> &[Pruned] {
        &self.layers
    }

    /// Measures a variant of this point.
    pub fn variant<B: SparseBackend>(
        &mut self,
        session: &mut Session<B>,
        job: &Job<'_>,
        stage: Stage<'_>,
    ) -> (Timings, Result<Measured, CellError>) {
        let peak = PeakRss::begin();
        let mut timings = Timings {
            load_seconds: session.load_seconds,
            calibrate_seconds: self.calibrate_seconds,
            prune_seconds: Some(self.prune_seconds),
            ..Default::default()
        };
        let measured = match job.cell.variant {
            Variant::Dense | Variant::Masked => self.masked(session, job, &mut timings, stage),
            Variant::Sparse(_) | Variant::Auto => self.sparse(session, job, &mut timings, stage),
        };
        let measured = measured.map(|measured| Measured { ties: self.ties, pruned: Some(self.pruned()), ..measured });
        timings.peak_rss_bytes = peak.bytes();
        // The variant is gone, and with it what a device's memory pools keep of it should be.
        B::memory_cleanup(session.decoder.device());
        (timings, measured)
    }

    fn pruned(&self) -> PrunedLinears {
        let total = |layer: &Pruned| (layer.pattern.rows() * layer.pattern.cols()) as u64;
        PrunedLinears {
            nonzero: self.layers.iter().map(|layer| layer.kept).sum(),
            total: self.layers.iter().map(total).sum(),
            scarce: self.scarce,
        }
    }

    fn masked<B: SparseBackend>(
        &mut self,
        session: &mut Session<B>,
        job: &Job<'_>,
        timings: &mut Timings,
        stage: Stage<'_>,
    ) -> Result<Measured, CellError> {
        let cell = job.cell;
        reference_of(session, job, stage)?;
        stage("masking");
        let start = Instant::now();
        let mut decoder = self.masked_decoder(session, cell)?;
        timings.convert_seconds = Some(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let mut stored = session.stored.clone();
        for pruned in &self.layers {
            stored[pruned.module].nonzero = pruned.kept;
        }
        let mut measured = sizes(session, cell, &stored)?;
        if job.measures(Metric::Agreement) {
            stage("agreement");
            let logits = self.masked_logits(&mut decoder, session)?;
            let vocabulary = decoder.architecture().vocabulary;
            measured.agreement = Some(agreement_of(session, cell, logits, vocabulary)?);
        }
        read_text(&mut measured, session, &mut decoder, job, stage)?;
        measured.tasks = tasks_of(&mut decoder, job, stage)?;
        measured.latency = self.own_memory::<B>(latency_of(&mut decoder, job, stage)?, cell);
        timings.measure_seconds = start.elapsed().as_secs_f64();
        Ok(measured)
    }

    fn sparse<B: SparseBackend>(
        &mut self,
        session: &mut Session<B>,
        job: &Job<'_>,
        timings: &mut Timings,
        stage: Stage<'_>,
    ) -> Result<Measured, CellError> {
        let cell = job.cell;
        reference_of(session, job, stage)?;
        // The masked logits come first and their model goes, so that the two never share the memory.
        if self.masked.is_none() {
            stage("masked logits for the gate");
            let mut masked = self.masked_decoder(session, cell)?;
            self.masked_logits(&mut masked, session)?;
            drop(masked);
            // What a device's memory pools keep of it would stand in the way of the sparse model.
            B::memory_cleanup(session.decoder.device());
            session.restore()?;
        }
        stage("converting");
        let start = Instant::now();
        let Formed { mut decoder, stored, choices } = self.sparse_decoder(session, cell)?;
        timings.convert_seconds = Some(start.elapsed().as_secs_f64());

        let start = Instant::now();
        let mut measured = sizes(session, cell, &stored)?;
        measured.kernels = self.kernels(&decoder, &tokens_of(session, job));
        measured.choices = choices;
        stage("gate");
        let logits = gate_logits(&mut decoder, session)?;
        let vocabulary = decoder.architecture().vocabulary;
        let masked = self.masked.as_deref().unwrap_or_default();
        measured.gate =
            Some(gate(masked, &logits, vocabulary, cell.dtype).map_err(|(g, miss)| CellError::Gate(g, miss))?);
        if job.measures(Metric::Agreement) {
            stage("agreement");
            measured.agreement = Some(agreement_of(session, cell, &logits, vocabulary)?);
        }
        drop(logits);
        read_text(&mut measured, session, &mut decoder, job, stage)?;
        measured.tasks = tasks_of(&mut decoder, job, stage)?;
        measured.latency = self.own_memory::<B>(latency_of(&mut decoder, job, stage)?, cell);
        timings.measure_seconds = start.elapsed().as_secs_f64();
        Ok(measured)
    }

    /// On a device the dense weights that the variant has replaced lie beside it for the variants that follow:
    /// what is in use without them is what the variant alone would take.
    fn own_memory<B: SparseBackend>(&self, latency: Option<Vec<Latency>>, cell: &Cell) -> Option<Vec<Latency>> {
        let weights = |pruned: &Pruned| (pruned.pattern.rows() * pruned.pattern.cols()) as u64;
        let replaced = self.layers.iter().map(weights).sum::<u64>() * bytes_per_number(cell.dtype);
        let own = |latency: Latency| match latency.peak_bytes.filter(|_| !B::ON_HOST) {
            Some(bytes) => Latency { peak_bytes: Some(bytes.saturating_sub(replaced)), ..latency },
            None => latency,
        };
        latency.map(|latencies| latencies.into_iter().map(own).collect())
    }

    /// The model with its pruned linears in the variant's form.
    fn sparse_decoder<B: SparseBackend>(&self, session: &mut Session<B>, cell: &Cell) -> Result<Formed<B>, CellError> {
        let dtype = burn_dtype(cell.dtype);
        let mut decoder = session.decoder.clone();
        let mut stored = session.stored.clone();
        // A form that is the same for any number of tokens does not ask.
        let (tokens, mixes) = (cell.tokens.unwrap_or(1), cell.variant == Variant::Auto);
        let mut choices: Vec<Choice> = Vec::new();
        for pruned in &self.layers {
            let Pruned { module, pattern, kept, .. } = pruned;
            let dense = session.dense(*module);
            let shape = LayerShape { rows: pattern.rows(), cols: pattern.cols(), kept: pattern.kept() };
            let format = match cell.variant {
                Variant::Sparse(format) => Some(format),
                Variant::Auto => {
                    let fastest = B::fastest(shape, tokens, dtype, decoder.device());
                    choices.extend(fastest.choice.filter(|choice| !choices.contains(choice)));
                    fastest.format
                }
                Variant::Dense | Variant::Masked => None,
            };
            let slot = &mut stored[*module];
            slot.nonzero = *kept;
            let weight = match format {
                Some(format) => {
                    let bias = session.decoder.linear(*module).bias.as_ref();
                    let (weights, device) = (pruned.weights(dense)?, decoder.device());
                    let packed =
                        SparseWeight::new(format, &weights, pattern, bias, dtype, PackFor { tokens, mixes }, device)?;
                    slot.weight_bytes = packed.bytes() as u64;
                    (slot.entries, slot.format) = (Some(shape.kept as u64), packed.layout().into());
                    LinearWeight::Sparse(packed)
                }
                None => LinearWeight::Dense(pruned.masked(dense, dtype, decoder.device())?),
            };
            decoder.set_weight(*module, weight);
            session.let_go(*module);
        }
        Ok(Formed { decoder, stored, choices })
    }

    /// Which kernels the pruned linears run for each number of tokens, and how many linears each.
    fn kernels<B: SparseBackend>(&self, decoder: &Decoder<B>, tokens: &[usize]) -> Vec<KernelUse> {
        let mut uses: Vec<KernelUse> = Vec::new();
        for &tokens in tokens {
            for pruned in &self.layers {
                let kernel = decoder.linear(pruned.module).weight.kernel(tokens);
                match uses.iter_mut().find(|used| (used.tokens, &used.kernel) == (tokens, &kernel)) {
                    Some(used) => used.linears += 1,
                    None => uses.push(KernelUse { kernel, tokens, linears: 1 }),
                }
            }
        }
        uses
    }

    fn masked_decoder<B: SparseBackend>(&self, session: &mut Session<B>, cell: &Cell) -> Result<Decoder<B>, ReadError> {
        let (mut decoder, dtype) = (session.decoder.clone(), burn_dtype(cell.dtype));
        for pruned in &self.layers {
            let masked = pruned.masked(session.dense(pruned.module), dtype, session.decoder.device())?;
            decoder.set_weight(pruned.module, LinearWeight::Dense(masked));
            session.let_go(pruned.module);
        }
        Ok(decoder)
    }

    fn masked_logits<B: SparseBackend>(
        &mut self,
        masked: &mut Decoder<B>,
        session: &Session<B>,
    ) -> Result<&[f32], ForwardError> {
        if self.masked.is_none() {
            self.masked = Some(gate_logits(masked, session)?);
        }
        Ok(self.masked.as_deref().unwrap_or_default())
    }
}

/// Computes the logits that are compared with, before the dense weights may go.
fn reference_of<B: SparseBackend>(session: &mut Session<B>, job: &Job<'_>, stage: Stage<'_>) -> Result<(), CellError> {
    if job.measures(Metric::Agreement) {
        stage("logits of the dense model");
        session.compared(job.cell.reference())?;
    }
    Ok(())
}

/// What the gate compares: the logits on the agreement texts, and after them those of decoded tokens, since other
/// kernels run for one token than for a text.
fn gate_logits<B: SparseBackend>(decoder: &mut Decoder<B>, session: &Session<B>) -> Result<Vec<f32>, ForwardError> {
    let texts = &session.tokens.agreement;
    let mut logits = all_logits(decoder, texts)?;
    if let Some(text) = texts.first() {
        logits.extend(decoded_logits(decoder, text)?);
    }
    Ok(logits)
}

/// How far a variant whose [`gate_logits`] these are agrees with what it is compared with.
fn agreement_of<B: SparseBackend>(
    session: &mut Session<B>,
    cell: &Cell,
    logits: &[f32],
    vocabulary: usize,
) -> Result<Agreement, CellError> {
    let reference = session.compared(cell.reference())?;
    Ok(agreement(reference, &logits[..reference.len()], vocabulary))
}

/// Tokens that linears see at once in what a cell measures: the texts; prompts and single tokens, if timed.
fn tokens_of<B: SparseBackend>(session: &Session<B>, job: &Job<'_>) -> Vec<usize> {
    let mut tokens = vec![session.tokens.agreement.iter().map(Vec::len).sum()];
    if let Some(latency) = &job.timed {
        for batch in &latency.batch {
            tokens.push(*batch);
            tokens.extend(latency.prompt.iter().map(|prompt| batch * prompt));
        }
    }
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

fn sizes<B: SparseBackend>(session: &mut Session<B>, cell: &Cell, stored: &[Stored]) -> Result<Measured, CellError> {
    let structure = structure(session.decoder.architecture(), stored, bytes_per_number(cell.dtype));
    Ok(Measured::new(structure, session.compared_nonzero(cell.reference())?))
}

/// Measures what is wanted of the perplexity text, in one pass.
fn read_text<B: SparseBackend>(
    measured: &mut Measured,
    session: &Session<B>,
    decoder: &mut Decoder<B>,
    job: &Job<'_>,
    stage: Stage<'_>,
) -> Result<(), CellError> {
    let wanted = |metric: Metric| metric.reads().perplexity_text() && job.measures(metric);
    let any = Metric::ALL.iter().any(|metric| wanted(metric.value));
    let Some(windows) = session.tokens.perplexity.as_ref().filter(|_| any) else { return Ok(()) };
    stage("perplexity");
    let (all, length) = (windows.tokens.len(), windows.tokens.first().map_or(1, Vec::len).max(1));
    let done = |tokens: usize| stage(&format!("perplexity, window {} of {all}", tokens.div_ceil(length)));
    measured.set_text(&likelihood(decoder, &windows.tokens, windows.overlap, windows.bytes, done)?, wanted);
    Ok(())
}

/// The tasks that are due.
fn tasks_of<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    job: &Job<'_>,
    stage: Stage<'_>,
) -> Result<Vec<TaskNumbers>, CellError> {
    job.tasks.iter().map(|task| ask(decoder, task, job.tokenizer, stage)).collect()
}

/// The times of every batch size and prompt length, where they are asked for.
fn latency_of<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    job: &Job<'_>,
    stage: Stage<'_>,
) -> Result<Option<Vec<Latency>>, CellError> {
    let timed = job.timed.as_ref().filter(|_| job.measures(Metric::Latency));
    let Some(LatencySettings { warmup, repeats, batch, prompt, generate }) = timed else { return Ok(None) };
    let mut latencies = Vec::with_capacity(batch.len() * prompt.len());
    for &batch in batch {
        for &prompt in prompt {
            let workload = Workload { batch, prompt, generate: *generate, warmup: *warmup, repeats: *repeats };
            let done = |run, runs| stage(&format!("latency of batch {batch}, prompt {prompt}: run {run} of {runs}"));
            let mut timed = latency(decoder, &workload, done)?;
            if job.profiled {
                stage(&format!("profile of batch {batch}, prompt {prompt}"));
                timed.profile = Some(profile(decoder, &workload)?);
            }
            latencies.push(timed);
        }
    }
    Ok(Some(latencies))
}
