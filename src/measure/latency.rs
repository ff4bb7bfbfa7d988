//! How long a model takes: a prompt at once, then one token after the other with a cache.
//!
//! ```text
//!   prefill   prompt tokens ──> hidden ──> logits of the last position        one sample a repeat
//!   decode    arg-max ──> one token ──> logits ──> arg-max ──> ...            one sample a token
//! ```
//!
//! Samples are whole: they begin with token ids and end with the next ones on the host. Where the time goes
//! is measured in passes of their own, since looking at the parts slows the whole.

use super::forward::ForwardError;
use super::memory::peak_rss_bytes;
use super::profile::Profile;
use super::stats::{mean, quantile, sd};
use super::workload::{Workload, last_tokens, prompts};
use crate::execute::SparseBackend;
use crate::model::{Batch, Decoder, KvCache};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The most repeats in which the parts are timed.
const PARTS_REPEATS: usize = 5;

/// The times of a prompt length and batch size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Sequences at a time.
    pub batch: usize,
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens generated after it.
    pub generate: usize,
    /// The whole prompts and the logits of their last positions.
    pub prefill: Phase,
    /// One more token of every sequence.
    pub decode: Phase,
    /// On a CPU the most memory that the process had held since the cell was begun, where the system says so. On a device the
    /// most bytes of it that were in use after any prompt or token: tensors of the model and the cache, less the
    /// dense weights that a variant has replaced and that wait beside it; what a step needs only while it runs is
    /// not seen.
    pub peak_bytes: Option<u64>,
    /// Where the time of a token goes, step by step, where `run --profile` has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// The times of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Every sample, in order; of `decode` one a token, repeat after repeat.
    pub seconds: Vec<f64>,
    /// Where the time goes, in other runs.
    pub parts: Parts,
}

/// Where the time of a phase goes: medians, which need not add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// All of it.
    pub whole_seconds: f64,
    /// Matrix products, dense or sparse, the output head's included.
    pub linears_seconds: f64,
    /// The attention between the projections.
    pub attention_seconds: f64,
    /// Norms, activations, sums, look-ups, and what calling the backend costs.
    pub other_seconds: f64,
}

/// What is told of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation; NaN of one sample.
    pub sd: f64,
    /// The median.
    pub median: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The smallest.
    pub min: f64,
}

impl Phase {
    /// Statistics of the samples, in seconds.
    pub fn spread(&self) -> Spread {
        let s = &self.seconds;
        Spread { mean: mean(s), sd: sd(s), median: quantile(s, 0.5), p95: quantile(s, 0.95), min: quantile(s, 0.0) }
    }

    /// The seconds between which the middle half of the samples lies; none of fewer than two samples.
    pub fn middle_half(&self) -> Option<(f64, f64)> {
        (self.seconds.len() > 1).then(|| (quantile(&self.seconds, 0.25), quantile(&self.seconds, 0.75)))
    }
}

/// Times a workload; `done` is called with the number of finished runs, and of all.
///
/// # Errors
/// When the workload does not fit the model, or a logit is not finite.
pub fn latency<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    workload: &Workload,
    mut done: impl FnMut(usize, usize),
) -> Result<Latency, ForwardError> {
    let Workload { batch, prompt, generate, warmup, repeats } = *workload;
    let parts_repeats = repeats.min(PARTS_REPEATS);
    let runs = warmup + repeats + parts_repeats;
    let prompts = prompts(batch, prompt, decoder.architecture().vocabulary);
    let mut cache = KvCache::new(decoder.architecture(), batch, prompt + generate);
    let (mut whole, mut parts) = (Samples::default(), Samples::default());
    let mut memory = None;
    for run in 0..runs {
        done(run, runs);
        let mut ignored = Samples::default();
        let samples = match run {
            run if run < warmup => &mut ignored,
            run if run < warmup + repeats => &mut whole,
            _ => &mut parts,
        };
        decoder.watch_sections(run >= warmup + repeats);
        let result = samples.run(decoder, &mut cache, &prompts, generate);
        decoder.watch_sections(false);
        result?;
        memory = memory.max(samples.memory);
    }
    let phase = |whole: &[Sample], parts: &[Sample]| Phase {
        seconds: whole.iter().map(|sample| sample.whole).collect(),
        parts: Parts::medians(parts),
    };
    Ok(Latency {
        batch,
        prompt,
        generate,
        prefill: phase(&whole.prefill, &parts.prefill),
        decode: phase(&whole.decode, &parts.decode),
        peak_bytes: if B::ON_HOST { peak_rss_bytes() } else { memory },
        profile: None,
    })
}

/// Seconds of a prompt or token; of its parts 0 where they were not watched.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    whole: f64,
    linears: f64,
    attention: f64,
}

#[derive(Default)]
struct Samples {
    prefill: Vec<Sample>,
    decode: Vec<Sample>,
    /// The most bytes in use on the device after any of them.
    memory: Option<u64>,
}

impl Samples {
    /// Runs the prompts and generates after them.
    fn run<B: SparseBackend>(
        &mut self,
        decoder: &mut Decoder<B>,
        cache: &mut KvCache<B>,
        prompts: &[Vec<u32>],
        generate: usize,
    ) -> Result<(), ForwardError> {
        cache.clear();
        let (sample, mut tokens) = step(decoder, cache, &Batch::new(prompts.iter().map(Vec::as_slice)))?;
        self.prefill.push(sample);
        self.memory = self.memory.max(B::memory_in_use(decoder.device()));
        for _ in 0..generate {
            let (sample, next) = next(decoder, cache, &tokens)?;
            self.decode.push(sample);
            self.memory = self.memory.max(B::memory_in_use(decoder.device()));
            tokens = next;
        }
        Ok(())
    }
}

/// Extends every sequence; how long that took, and the arg-max of each sequence's last logits.
fn step<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    cache: &mut KvCache<B>,
    batch: &Batch,
) -> Result<(Sample, Vec<u32>), ForwardError> {
    let sequences = cache.sequences();
    let first = cache.past();
    decoder.sync();
    decoder.section_times();
    let start = Instant::now();
    let hidden = decoder.extend(batch, cache)?;
    let logits = decoder.logits(last_tokens(hidden, sequences));
    // Reading the places waits for the device.
    let tokens: Option<Vec<u32>> = decoder.arg_max(logits).map_err(ForwardError::Read)?.into_iter().collect();
    let whole = start.elapsed().as_secs_f64();
    let sections = decoder.section_times();
    let tokens = tokens.ok_or(ForwardError::NotFinite { token: first })?;
    let (linears, attention) = (sections.linears.as_secs_f64(), sections.attention.as_secs_f64());
    Ok((Sample { whole, linears, attention }, tokens))
}

/// One more token of every sequence; how long that took, and the next ones.
fn next<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    cache: &mut KvCache<B>,
    tokens: &[u32],
) -> Result<(Sample, Vec<u32>), ForwardError> {
    let first = cache.past();
    decoder.sync();
    decoder.section_times();
    let start = Instant::now();
    let next = decoder.next(tokens, cache)?;
    let whole = start.elapsed().as_secs_f64();
    let sections = decoder.section_times();
    let next: Option<Vec<u32>> = next.into_iter().collect();
    let (linears, attention) = (sections.linears.as_secs_f64(), sections.attention.as_secs_f64());
    Ok((Sample { whole, linears, attention }, next.ok_or(ForwardError::NotFinite { token: first })?))
}

impl Parts {
    fn medians(samples: &[Sample]) -> Self {
        let median = |part: fn(&Sample) -> f64| quantile(&samples.iter().map(part).collect::<Vec<f64>>(), 0.5);
        Self {
            whole_seconds: median(|s| s.whole),
            linears_seconds: median(|s| s.linears),
            attention_seconds: median(|s| s.attention),
            other_seconds: median(|s| s.whole - s.linears - s.attention),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{DecoderError, Part, architecture};
    use burn::backend::Flex;
    use burn::tensor::DType;
    use serde_json::{Value, json};
    use std::borrow::Cow;
    use std::sync::Arc;

    /// A small network of this configuration, whose weights are this number times some others.
    pub(in crate::measure) fn decoder_of(config: &Value, number: f32) -> Decoder<Flex> {
        let architecture = Arc::new(architecture(config).unwrap());
        let modules = architecture.clone();
        let read = |module: usize, part| {
            let module = &modules.modules[module];
            let count = if part == Part::Weight { module.weights() } else { module.biases() };
            Ok::<_, ()>(Cow::Owned((0..count).map(|i| number * ((i * 7 % 5) as f32 - 1.7)).collect()))
        };
        Decoder::load(architecture, DType::F32, &Default::default(), read).unwrap()
    }

    fn decoder(number: f32) -> Decoder<Flex> {
        let config = json!({
            "model_type": "opt", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 16,
            "max_position_embeddings": 16, "vocab_size": 20, "activation_function": "relu",
        });
        decoder_of(&config, number)
    }

    #[test]
    fn every_run_gives_its_samples() {
        let workload = Workload { batch: 3, prompt: 5, generate: 4, warmup: 1, repeats: 2 };
        let mut told = Vec::new();
        let latency = latency(&mut decoder(0.1), &workload, |run, runs| told.push((run, runs))).unwrap();
        assert_eq!(told, [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)]);
        assert_eq!((latency.prefill.seconds.len(), latency.decode.seconds.len()), (2, 8));
        for phase in [&latency.prefill, &latency.decode] {
            assert!(phase.seconds.iter().all(|&seconds| seconds > 0.0));
            let Parts { whole_seconds, linears_seconds, attention_seconds, other_seconds } = phase.parts;
            assert!([whole_seconds, linears_seconds, attention_seconds, other_seconds].iter().all(|&part| part > 0.0));
            let Spread { mean, median, p95, min, .. } = phase.spread();
            assert!(min <= median && median <= p95 && min <= mean);
        }
    }

    #[test]
    fn what_can_not_be_timed_is_an_error() {
        let workload = Workload { batch: 1, prompt: 14, generate: 3, warmup: 0, repeats: 1 };
        let error = latency(&mut decoder(0.1), &workload, |_, _| ()).unwrap_err();
        assert!(matches!(error, ForwardError::Decoder(DecoderError::TooLong { length: 17, positions: 16 })));
        let workload = Workload { prompt: 2, ..workload };
        let error = latency(&mut decoder(f32::NAN), &workload, |_, _| ()).unwrap_err();
        assert!(matches!(error, ForwardError::NotFinite { token: 0 }));
    }
}
