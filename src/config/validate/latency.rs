//! The keys of `latency`, which stand in two sections.

use super::{Validator, value, values};
use crate::config::axis::{At, Axis};
use crate::config::experiment::{LatencySettings, Metric};
use crate::diagnostic::{Diagnostic, Span};

/// The keys as written.
pub(super) struct RawLatency {
    pub warmup: Option<At<usize>>,
    pub repeats: Option<At<usize>>,
    pub batch: Option<Axis<usize>>,
    pub prompt: Option<Axis<usize>>,
    pub generate: Option<At<usize>>,
}

impl Validator<'_> {
    pub(super) fn latency(&mut self, raw: RawLatency, metrics: &[Metric]) -> LatencySettings {
        if !metrics.contains(&Metric::Latency) && !self.was_removed("measure.metrics") {
            self.unused_latency_keys(&raw);
        }
        let RawLatency { warmup, repeats, batch, prompt, generate } = raw;
        let batch = self.axis("measure.batch", batch, &[1]);
        let prompt = self.axis("measure.prompt", prompt, &[128]);
        self.counts("measure.batch", &batch, LatencySettings::MAX_BATCH);
        self.counts("measure.prompt", &prompt, usize::MAX);
        self.count_workloads(&batch, &prompt);
        LatencySettings {
            warmup: value(warmup).unwrap_or(3),
            repeats: value(repeats).unwrap_or(20),
            batch: values(batch),
            prompt: values(prompt),
            generate: value(generate).unwrap_or(32),
        }
    }

    fn unused_latency_keys(&mut self, raw: &RawLatency) {
        let one = |key: &Option<At<usize>>| key.as_ref().map(|at| at.span.clone());
        let axis = |key: &Option<Axis<usize>>| key.as_ref().map(|axis| axis.span.clone());
        let keys: [(&str, Option<Span>); 5] = [
            ("execute.warmup", one(&raw.warmup)),
            ("execute.repeats", one(&raw.repeats)),
            ("measure.batch", axis(&raw.batch)),
            ("measure.prompt", axis(&raw.prompt)),
            ("measure.generate", one(&raw.generate)),
        ];
        for (key, span) in keys.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            self.report(
                Diagnostic::warning(format!("`{key}` has no effect"))
                    .at(span, "only `latency` uses it, which is not measured")
                    .help("add `latency` to `metrics` under `[measure]`"),
            );
        }
    }

    /// The schema can't bound the values of an axis.
    fn counts(&mut self, path: &str, axis: &[At<usize>], most: usize) {
        for at in axis.iter().filter(|at| at.value < 1 || at.value > most) {
            let expected = match most {
                usize::MAX => "expected an integer of at least 1".to_owned(),
                most => format!("expected an integer from 1 to {most}"),
            };
            self.report(Diagnostic::error(format!("`{path}` is out of range")).at(at.span.clone(), expected));
        }
    }
}
