//! The models that points of `given` are compared with: `reference = "hf:ORG/NAME"` beside a checkpoint that was pruned
//! elsewhere.
//!
//! ```text
//!   [[prune]] reference ──Loader──> files ──tokenizer──> the texts as tokens ══ those of the experiment's models?
//!                                     │
//!                                     └── digest: what cells of such points read, beside their own model
//! ```
//! Logits of two models are comparable where both see the same tokens and choose among the same ones; else it is refused.

use super::prepared::PreparedModel;
use crate::config::Experiment;
use crate::config::experiment::ModelSource;
use crate::load::{Checkpoint, LoadError, Loader, ModelFiles, Texts};

/// The references of an experiment, each once.
pub(super) fn sources(experiment: &Experiment) -> Vec<&ModelSource> {
    let mut sources: Vec<&ModelSource> = Vec::new();
    for source in experiment.prune.iter().filter_map(|block| block.reference.as_ref()) {
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

/// Finds the references, and makes them known to the models that are compared with them.
///
/// # Errors
/// When one can't be found or read, or sees other tokens than a model.
pub(super) fn prepare(
    experiment: &Experiment,
    loader: &Loader,
    texts: Option<&Texts>,
    models: &mut [PreparedModel],
) -> Result<Vec<ModelFiles>, LoadError> {
    let Some(texts) = texts else { return Ok(Vec::new()) };
    let mut references = Vec::new();
    for source in sources(experiment) {
        let files = loader.find(source)?;
        let checkpoint = Checkpoint::open(files.clone())?;
        let architecture = checkpoint.architecture();
        let tokenizer = files.tokenizer()?;
        let digest = files.digest();
        for model in &mut *models {
            let sequences = texts.agreement_tokens(&tokenizer, &files.source, model.tokens.context)?;
            let vocabularies = [model.architecture.vocabulary, architecture.vocabulary];
            if vocabularies[0] != vocabularies[1] || sequences != model.tokens.agreement {
                let (reference, model) = (files.source.clone(), model.files.source.clone());
                return Err(LoadError::OtherTokens { reference, model, vocabularies });
            }
            if model.tokens.context > architecture.max_positions {
                let (context, positions) = (model.tokens.context, architecture.max_positions);
                return Err(LoadError::Context { model: files.source.clone(), context, positions });
            }
            model.read.compared_with(files.source.clone(), digest.clone());
        }
        references.push(files);
    }
    Ok(references)
}
