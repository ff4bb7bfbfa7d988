//! What the cells of a model read: digests, and the settings that say how the texts were cut.

use crate::config::experiment::{Calibration, CalibrationChoice, Data, Drawing};
use crate::load::{TaskTokens, Tokens};
use crate::plan::{Cell, Inputs, PartInputs};
use serde_json::json;

/// What the cells of a model read, each digest computed once.
pub(in crate::run) struct Read {
    /// What every cell reads.
    shared: Inputs,
    /// The calibration windows of each calibration and seed.
    calibration: Vec<(CalibrationChoice, u64, Inputs)>,
    /// The models that given points are compared with, by their spelling.
    references: Vec<(String, String)>,
    /// What the parts read.
    pub parts: PartInputs,
}

impl Read {
    /// Of a model's files, and the texts as it sees them.
    pub fn new(model: String, data: &Data, tokens: &Tokens, tasks: &[TaskTokens]) -> Self {
        let shared = Inputs::default().with("model", [("sha256", json!(model))]);
        let of_seed = |of: &Calibration, seed| {
            let settings = [
                ("sha256", json!(tokens.calibration_digest(Some(&of.choice()), seed))),
                ("text", json!(of.text.to_string())),
                ("samples", json!(of.samples)),
                ("length", json!(of.length.unwrap_or(tokens.context))),
                ("bos", json!(data.calibration_bos)),
                ("join", json!(of.joining.join)),
                ("documents", json!(of.joining.documents)),
            ];
            (of.choice(), seed, shared.clone().with("calibration", settings))
        };
        let calibrations = data.calibrations.iter().zip(&tokens.calibration);
        let calibration =
            calibrations.flat_map(|(of, (_, seeds))| seeds.iter().map(move |drawn| of_seed(of, drawn.seed)));
        let calibration = calibration.collect();
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
        // Only where there is something to tell: it is in order in all that was measured before there was a choice.
        let drawing = Some(data.perplexity_drawing).filter(|drawing| *drawing != Drawing::InOrder);
        let perplexity = perplexity.into_iter().chain(drawing.map(|drawing| ("drawing", json!(drawing))));
        let parts = PartInputs {
            agreement: Inputs::default().with("agreement", agreement),
            perplexity: Inputs::default().with("perplexity", perplexity),
            perplexity_bytes: tokens.perplexity.as_ref().map_or(0, |windows| windows.bytes),
            tasks: tasks.iter().map(|task| (task.task, of_task(task))).collect(),
            latency: None,
        };
        Self { shared, calibration, references: Vec::new(), parts }
    }

    /// With the digest of a model that points are compared with.
    pub fn compared_with(&mut self, reference: String, sha256: String) {
        self.references.push((reference, sha256));
    }

    /// The model, and the calibration windows of a seed where one is given: of a choice among several calibrations, or of
    /// the only one.
    pub fn with_windows(&self, choice: Option<&CalibrationChoice>, seed: Option<u64>) -> Inputs {
        let is_meant = |(of, its, _): &&(CalibrationChoice, u64, Inputs)| {
            Some(*its) == seed && choice.is_none_or(|choice| choice == of)
        };
        self.calibration.iter().find(is_meant).map_or(&self.shared, |(_, _, inputs)| inputs).clone()
    }

    /// And the texts that behaviour is measured on.
    pub fn with_texts(&self, seed: Option<u64>) -> Inputs {
        let mut inputs = self.with_windows(None, seed);
        inputs.0.extend(self.parts.agreement.0.clone());
        inputs.0.extend(self.parts.perplexity.0.clone());
        inputs
    }

    /// What a cell reads.
    pub fn of(&self, cell: &Cell) -> Inputs {
        let seed = cell.seed.filter(|_| cell.prune.as_ref().is_some_and(|point| point.method.calibrates()));
        let inputs = self.with_windows(cell.calibration(), seed);
        match self.references.iter().find(|(source, _)| Some(source.as_str()) == cell.reference()) {
            Some((source, sha256)) => inputs.with("reference", [("sha256", json!(sha256)), ("text", json!(source))]),
            None => inputs,
        }
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
