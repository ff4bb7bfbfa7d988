//! What the cells of a model read: digests, and the settings that say how the texts were cut.

use crate::config::experiment::Data;
use crate::load::{TaskTokens, Tokens};
use crate::plan::{Cell, Inputs, PartInputs};
use serde_json::json;

/// What the cells of a model read, each digest computed once.
pub(in crate::run) struct Read {
    /// What every cell reads.
    shared: Inputs,
    /// The calibration windows of each seed.
    calibration: Vec<(u64, Inputs)>,
    /// What the parts read.
    pub parts: PartInputs,
}

impl Read {
    /// Of a model's files, and the texts as it sees them.
    pub fn new(model: String, data: &Data, tokens: &Tokens, tasks: &[TaskTokens]) -> Self {
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
            perplexity_bytes: tokens.perplexity.as_ref().map_or(0, |windows| windows.bytes),
            tasks: tasks.iter().map(|task| (task.task, of_task(task))).collect(),
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
    pub fn of(&self, cell: &Cell) -> Inputs {
        let seed = cell.seed.filter(|_| cell.prune.as_ref().is_some_and(|point| point.method.calibrates()));
        self.with_windows(seed)
    }
}

/// The items of a task, and for people how they were asked.
fn of_task(task: &TaskTokens) -> Inputs {
    let settings = [
        ("sha256", json!(task.sha256)),
        ("text", json!(task.source)),
        ("shots", json!(task.shots)),
        ("items", json!(task.items.len())),
    ];
    Inputs::default().with(task.task.name(), settings)
}
