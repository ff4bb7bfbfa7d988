//! What an experiment needs of the hub, brought into its cache: for machines without network.
//!
//! ```text
//!   models   hf:ORG/NAME               configuration, tokenizer, weights, the other files that `export` takes along
//!   texts    hf:ORG/NAME/CONFIG/SPLIT  the split's first file
//!   tasks    their datasets            every file of the splits that they read
//! ```
//! No device is looked at: the machine with network is seldom the one that measures. A source of another kind that is
//! on the hub gets a line in [`fetch`].

use super::prepare::wanted;
use super::reference;
use crate::config::Experiment;
use crate::config::experiment::Metric;
use crate::config::source::ModelSource;
use crate::load::{Checkpoint, InputFile, LoadError, Loader, TaskSets, TextInput, Texts};
use crate::record::sha256;

/// A source of the hub that is in the cache now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The source, as the file spells it.
    pub source: String,
    /// The commit that its revision is at.
    pub commit: String,
    /// Its files.
    pub files: Vec<InputFile>,
}

/// What was fetched, and what to tell the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetches {
    /// The sources, each once.
    pub sources: Vec<Fetched>,
    /// Sources in folders and files of this machine, which others need too.
    pub local: Vec<String>,
    /// What to tell the user.
    pub warnings: Vec<String>,
}

/// Downloads what an experiment needs of the hub, unless it is in the cache and undamaged, and shows that it can be
/// used.
///
/// # Errors
/// When something is not on the hub, can't be had, or can't be used.
pub fn fetch(experiment: &Experiment, loader: &Loader) -> Result<Fetches, LoadError> {
    let mut fetches = Fetches::default();
    let others = reference::sources(experiment).into_iter().filter(|source| !experiment.models.contains(source));
    for source in experiment.models.iter().chain(others) {
        model(source, loader, &mut fetches)?;
    }
    if !experiment.models.is_empty() {
        texts(experiment, loader, &mut fetches)?;
    }
    fetches.local.dedup();
    Ok(fetches)
}

fn model(source: &ModelSource, loader: &Loader, fetches: &mut Fetches) -> Result<(), LoadError> {
    match source {
        ModelSource::Builtin(_) | ModelSource::Synthetic(_) => return Ok(()),
        ModelSource::Path(_) => {
            fetches.local.push(source.to_string());
            return Ok(());
        }
        ModelSource::Hub { .. } => {}
    }
    let files = loader.find(source)?;
    let companions = loader.companions(source, &files)?;
    fetches.warnings.extend(files.warnings.iter().cloned());
    // A damaged header or a wrong shape is better known here than on a node.
    fetches.warnings.extend_from_slice(Checkpoint::open(files.clone())?.warnings());
    let mut all = files.inputs.clone();
    for companion in companions {
        if all.iter().all(|known| known.name != companion.name) {
            let (sha256, bytes) = (sha256(&companion.bytes), companion.bytes.len() as u64);
            all.push(InputFile { name: companion.name, sha256, bytes });
        }
    }
    let commit = files.commit.unwrap_or_default();
    fetches.sources.push(Fetched { source: source.to_string(), commit, files: all });
    Ok(())
}

fn texts(experiment: &Experiment, loader: &Loader, fetches: &mut Fetches) -> Result<(), LoadError> {
    let texts = Texts::read(&experiment.data, &wanted(experiment), loader)?;
    fetches.warnings.extend(texts.warnings());
    fetches.inputs(texts.inputs());
    if experiment.metrics.contains(&Metric::Tasks) {
        let tasks = TaskSets::read(&experiment.tasks, loader)?;
        fetches.warnings.extend_from_slice(tasks.warnings());
        fetches.inputs(tasks.inputs());
    }
    Ok(())
}

impl Fetches {
    /// Files that texts and items were read from.
    fn inputs(&mut self, inputs: Vec<TextInput>) {
        for input in inputs {
            let (Some(name), Some(bytes), Some(commit)) = (input.file, input.bytes, input.commit) else {
                if input.source.starts_with("file:") {
                    self.local.push(input.source);
                }
                continue;
            };
            let file = InputFile { name, sha256: input.sha256, bytes };
            self.sources.push(Fetched { source: input.source, commit, files: vec![file] });
        }
    }
}
