//! Numbers against references: what PyTorch with transformers computes from the same checkpoints.

mod archive;
mod cache;
mod export;
mod families;
mod golden;
mod kin;
mod tasks;
mod texts;

use sparsify_exp::config;
use sparsify_exp::config::experiment::Experiment;
use sparsify_exp::load::{Checkpoint, Loader, ModelFiles, Texts, Wanted};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// An experiment on a checkpoint folder; `rest` is more TOML.
pub fn experiment(folder: &Path, rest: &str) -> Experiment {
    let text = format!("name = 'test'\n[model]\nsource = \"path:{}\"\n{rest}", folder.display());
    config::parse(Path::new("test.toml"), &text, &[]).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// A loader that may not use the network.
pub fn loader() -> Loader {
    Loader::new(true, Arc::new(|_: &str, _, _| ControlFlow::Continue(())))
}

/// The files and tensors of a checkpoint folder.
pub fn checkpoint(folder: &Path) -> (ModelFiles, Checkpoint) {
    let files = loader().find(&experiment(folder, "").models[0]).unwrap();
    (files.clone(), Checkpoint::open(files).unwrap())
}

/// The notebooks' texts as a checkpoint's tokenizer sees them.
pub fn sample_tokens(folder: &Path) -> Vec<Vec<u32>> {
    let (files, checkpoint) = checkpoint(folder);
    let texts = Texts::read(&experiment(folder, "").data, &Wanted::default(), &loader()).unwrap();
    let architecture = checkpoint.architecture();
    let tokenizer = files.tokenizer().unwrap();
    texts.encode(&tokenizer, "test", architecture.max_positions, architecture.vocabulary).unwrap().agreement
}
