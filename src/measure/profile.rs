//! Where the time of one generated token goes, step by step.
//!
//! ```text
//!   prompt ─> token ─> token ─> ..      as a whole                       whole_seconds, one a token
//!   prompt ─> token ─> token ─> ..      the same again, step by step     of each step seconds, one a token
//!          └> token                     or the first token again and     of each launch seconds, one a round
//!                                       again, launch by launch
//! ```
//! Waiting for a step makes it slower, so that the steps may add up to more than the whole; what no step is (making
//! tensors, experts' choices) is in the whole alone. Where a device repeats a pass as a whole, its launches are timed by its
//! own clock instead. Knows models; what is written of it is the report's.

use super::forward::ForwardError;
use super::workload::{Workload, last_tokens, prompts};
use crate::execute::SparseBackend;
use crate::execute::decode::TimedLaunch;
use crate::model::{Batch, Decoder, KvCache, StepTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The most tokens that are profiled.
const MOST_TOKENS: usize = 16;

/// Where the time of one generated token of every sequence goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What measured the steps.
    pub clock: ProfileClock,
    /// Each token as a whole, when no step was looked at.
    pub whole_seconds: Vec<f64>,
    /// The steps, in the order in which they first run.
    pub steps: Vec<ProfiledStep>,
}

/// What measures steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProfileClock {
    /// The host's clock, which waits for the device before and after each step.
    Host,
    /// The device's clock, at marks between launches, of which none begins before the one before it has ended.
    Device,
}

impl ProfileClock {
    /// Its word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Device => "device",
        }
    }
}

/// The steps of one name and kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfiledStep {
    /// What it is, without the number of its block: `self_attn.q_proj`, `attention`. A launch that does several things is
    /// called after the last.
    pub stage: String,
    /// Which code path ran; empty where there is one.
    pub kernel: String,
    /// How often it ran for all of the tokens.
    pub calls: usize,
    /// All its calls of each token, or of the same token in each round.
    pub seconds: Vec<f64>,
}

/// Generates a few tokens after each prompt of a workload, twice, and gives the times of the second time's steps.
///
/// # Errors
/// When the workload does not fit the model, or a logit is not finite.
pub fn profile<B: SparseBackend>(decoder: &mut Decoder<B>, workload: &Workload) -> Result<Profile, ForwardError> {
    let tokens = workload.generate.clamp(1, MOST_TOKENS);
    let prompts = prompts(workload.batch, workload.prompt, decoder.architecture().vocabulary);
    let mut cache = KvCache::new(decoder.architecture(), workload.batch, workload.prompt + workload.generate.max(1));
    let mut whole_seconds = Vec::with_capacity(tokens);
    generate(decoder, &mut cache, &prompts, tokens, &mut |_, seconds| whole_seconds.push(seconds))?;
    cache.clear();
    let first = likeliest(decoder, &mut cache, &Batch::new(prompts.iter().map(Vec::as_slice)))?;
    if let Some(launches) = decoder.timed_launches(&first, &mut cache, tokens)? {
        return Ok(Profile { clock: ProfileClock::Device, whole_seconds, steps: by_stage(launches) });
    }
    let mut steps = Vec::new();
    let result = {
        decoder.watch_steps(true);
        let mut token = 0;
        let result = generate(decoder, &mut cache, &prompts, tokens, &mut |decoder, _| {
            add(&mut steps, token, decoder.step_times());
            token += 1;
        });
        decoder.watch_steps(false);
        result
    };
    result?;
    steps.iter_mut().for_each(|step| step.seconds.resize(tokens, 0.0));
    Ok(Profile { clock: ProfileClock::Host, whole_seconds, steps })
}

/// The launches of one name and kernel together.
fn by_stage(launches: Vec<TimedLaunch>) -> Vec<ProfiledStep> {
    let mut steps: Vec<ProfiledStep> = Vec::new();
    for TimedLaunch { stage, kernel, seconds } in launches {
        match steps.iter_mut().find(|step| step.stage == stage && step.kernel == kernel) {
            Some(step) => {
                step.calls += seconds.len();
                step.seconds.iter_mut().zip(seconds).for_each(|(sum, more)| *sum += more);
            }
            None => steps.push(ProfiledStep { stage, kernel, calls: seconds.len(), seconds }),
        }
    }
    steps
}

/// Adds what a token's steps took; a step that did not run for it, or for those before, took nothing.
fn add(steps: &mut Vec<ProfiledStep>, token: usize, times: Vec<StepTime>) {
    for StepTime { name, kernel, calls, time } in times {
        let known = steps.iter().position(|step| step.stage == name && step.kernel == kernel);
        let index = known.unwrap_or_else(|| {
            steps.push(ProfiledStep { stage: name, kernel, calls: 0, seconds: Vec::new() });
            steps.len() - 1
        });
        let step = &mut steps[index];
        step.calls += calls;
        step.seconds.resize(token, 0.0);
        step.seconds.push(time.as_secs_f64());
    }
}

/// Generates tokens after prompts; `done` is told the seconds of each, not of the prompts.
fn generate<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    cache: &mut KvCache<B>,
    prompts: &[Vec<u32>],
    tokens: usize,
    done: &mut dyn FnMut(&Decoder<B>, f64),
) -> Result<(), ForwardError> {
    cache.clear();
    let mut next = likeliest(decoder, cache, &Batch::new(prompts.iter().map(Vec::as_slice)))?;
    decoder.step_times();
    for _ in 0..tokens {
        decoder.sync();
        let start = Instant::now();
        let past = cache.past();
        let found: Option<Vec<u32>> = decoder.next(&next, cache)?.into_iter().collect();
        next = found.ok_or(ForwardError::NotFinite { token: past })?;
        done(decoder, start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Extends every sequence, and gives the likeliest token after each.
fn likeliest<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    cache: &mut KvCache<B>,
    batch: &Batch,
) -> Result<Vec<u32>, ForwardError> {
    let (first, sequences) = (cache.past(), cache.sequences());
    let hidden = decoder.extend(batch, cache)?;
    let logits = decoder.logits(last_tokens(hidden, sequences));
    let next: Option<Vec<u32>> = decoder.arg_max(logits).map_err(ForwardError::Read)?.into_iter().collect();
    next.ok_or(ForwardError::NotFinite { token: first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::latency::tests::decoder_of as decoder;
    use crate::model::DecoderError;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn opt() -> Value {
        json!({
            "model_type": "opt", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "ffn_dim": 16,
            "max_position_embeddings": 16, "vocab_size": 20, "activation_function": "relu",
        })
    }

    fn llama() -> Value {
        json!({
            "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 16, "max_position_embeddings": 32, "vocab_size": 20,
        })
    }

    const WORK: Workload = Workload { batch: 2, prompt: 5, generate: 4, warmup: 0, repeats: 1 };

    #[test]
    fn every_step_of_a_token_is_timed_under_its_name() {
        let mut decoder = decoder(&opt(), 0.1);
        let profile = profile(&mut decoder, &WORK).unwrap();
        assert_eq!(profile.whole_seconds.len(), 4);
        let found: Vec<(&str, usize)> = profile.steps.iter().map(|step| (step.stage.as_str(), step.calls)).collect();
        let blocks = [
            ("self_attn_layer_norm", 12),
            ("self_attn.q_proj", 12),
            ("self_attn.k_proj", 12),
            ("self_attn.v_proj", 12),
            ("attention", 12),
            ("self_attn.out_proj", 12),
            ("final_layer_norm", 12),
            ("fc1", 12),
            ("activation", 12),
            ("fc2", 12),
        ];
        let ends = [("norm", 4), ("lm_head", 4), ("arg_max", 4)];
        let tables = [("embed_tokens", 4), ("embed_positions", 4)];
        // The last norm is called as the blocks' are.
        let expected: Vec<(&str, usize)> = tables.into_iter().chain(blocks).chain(ends).collect();
        let count = |all: &[(&str, usize)]| all.iter().map(|(_, calls)| calls).sum::<usize>();
        assert_eq!(count(&found), count(&expected), "{found:?}");
        for name in ["embed_tokens", "embed_positions", "self_attn.q_proj", "attention", "fc2", "lm_head", "arg_max"] {
            assert!(found.iter().any(|(known, _)| *known == name), "{name}: {found:?}");
        }
        for step in &profile.steps {
            assert_eq!(step.seconds.len(), 4);
            assert!(step.seconds.iter().all(|&seconds| seconds > 0.0), "{step:?}");
        }
        let linear = profile.steps.iter().find(|step| step.stage == "fc1").unwrap();
        assert!(linear.kernel.starts_with("dense"), "{linear:?}");
        // Nothing goes on being timed.
        assert!(decoder.step_times().is_empty());
    }

    #[test]
    fn as_many_tokens_are_profiled_as_there_is_room_for_and_at_most_sixteen() {
        let mut decoder = decoder(&llama(), 0.1);
        for (generate, tokens) in [(1, 1), (20, MOST_TOKENS)] {
            let profile = profile(&mut decoder, &Workload { generate, ..WORK }).unwrap();
            assert_eq!(profile.whole_seconds.len(), tokens);
            let gates = profile.steps.iter().find(|step| step.stage == "mlp.gate_proj").unwrap();
            assert_eq!((gates.calls, gates.seconds.len()), (2 * tokens, tokens));
        }
    }

    #[test]
    fn launches_of_one_stage_and_kernel_are_one_step() {
        let launch = |stage: &str, kernel: &str, seconds: [f64; 2]| TimedLaunch {
            stage: stage.into(),
            kernel: kernel.into(),
            seconds: seconds.into(),
        };
        let steps = by_stage(vec![
            launch("q", "a", [1.0, 2.0]),
            launch("norm", "", [0.5, 0.5]),
            launch("q", "a", [3.0, 4.0]),
            launch("q", "b", [8.0, 8.0]),
        ]);
        let found: Vec<(&str, &str, usize, &[f64])> =
            steps.iter().map(|step| (&*step.stage, &*step.kernel, step.calls, &step.seconds[..])).collect();
        let expected: [(&str, &str, usize, &[f64]); 3] =
            [("q", "a", 4, &[4.0, 6.0]), ("norm", "", 2, &[0.5, 0.5]), ("q", "b", 2, &[8.0, 8.0])];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_step_that_some_tokens_skip_took_no_time_there() {
        let time =
            |name: &str| StepTime { name: name.into(), kernel: String::new(), calls: 1, time: Duration::from_secs(1) };
        let mut steps = Vec::new();
        for (token, names) in [&["a"][..], &["b"], &["a", "b"]].into_iter().enumerate() {
            add(&mut steps, token, names.iter().map(|name| time(name)).collect());
        }
        let seconds: Vec<&[f64]> = steps.iter().map(|step| &step.seconds[..]).collect();
        assert_eq!(seconds, [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]);
    }

    #[test]
    fn what_can_not_be_profiled_is_an_error() {
        let mut small = decoder(&opt(), 0.1);
        let error = profile(&mut small, &Workload { prompt: 15, ..WORK }).unwrap_err();
        assert!(matches!(error, ForwardError::Decoder(DecoderError::TooLong { .. })), "{error}");
        let error = profile(&mut decoder(&llama(), f32::NAN), &WORK).unwrap_err();
        assert!(matches!(error, ForwardError::NotFinite { token: 0 }), "{error}");
    }
}
