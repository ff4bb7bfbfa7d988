//! A checkpoint: an architecture and its tensors, checked against each other.

use super::model_files::{ModelFiles, WeightFiles};
use super::weights::{TensorInfo, Weights};
use super::{LoadError, quantised, synthetic};
use crate::model::{self, Architecture, Halves, Module, Numbers, Part};
use rayon::prelude::*;
use safetensors::Dtype;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A model's tensors, by module.
pub struct Checkpoint {
    files: ModelFiles,
    architecture: Arc<Architecture>,
    store: Store,
    warnings: Vec<String>,
}

/// A tensor as a checkpoint's files have it.
#[derive(Clone, Debug)]
pub struct StoredTensor<'a> {
    /// The module that it belongs to.
    pub module: usize,
    /// Which of the module's tensors it is.
    pub part: Part,
    /// Its name in the files.
    pub name: &'a str,
    /// Its type, and its shape as stored: `[in_features, out_features]` where the module is `transposed`.
    pub info: &'a TensorInfo,
}

enum Store {
    /// Names of the tensors as the files have them, by module and part.
    Files {
        weights: Weights,
        names: HashMap<(usize, bool), String>,
    },
    Synthetic(String),
}

impl Checkpoint {
    /// Opens the weights and compares every tensor with the configuration; reads no numbers yet, except where a head
    /// may be another one than the configuration says.
    ///
    /// # Errors
    /// When files are unreadable or tensors missing or of another shape: all of them, in one error.
    pub fn open(files: ModelFiles) -> Result<Self, LoadError> {
        let error = |source| LoadError::Config { file: files.config_name.clone(), source };
        let mut architecture = model::architecture(&files.config).map_err(error)?;
        let weights = match &files.weights {
            WeightFiles::Synthetic(name) => {
                let (architecture, store) = (Arc::new(architecture), Store::Synthetic(name.clone()));
                return Ok(Self { files, architecture, store, warnings: Vec::new() });
            }
            WeightFiles::Static(bytes) => Weights::from_static(bytes, &files.source)?,
            WeightFiles::Files(files) => Weights::open_files(files)?,
        };
        let warnings = settle_head(&weights, &mut architecture, &files.source)?;
        let store = named(weights, &architecture, &files.source)?;
        Ok(Self { architecture: Arc::new(architecture), store, warnings: warnings.into_iter().collect(), files })
    }

    /// What to tell the user of the tensors.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The source and its digests.
    pub fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// What the network is made of.
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// One tensor in f32, a linear's weight as `[out_features, in_features]`; every number is finite.
    ///
    /// # Errors
    /// When it can't be read, or a number is NaN or infinite.
    pub fn read(&self, module: usize, part: Part) -> Result<Cow<'_, [f32]>, LoadError> {
        let described = &self.architecture.modules[module];
        let (weights, names) = match &self.store {
            Store::Synthetic(name) => {
                return Ok(synthetic::tensor(name, module, described, part, self.files.dtype()).wide());
            }
            Store::Files { weights, names } => (weights, names),
        };
        let name = &names[&(module, part == Part::Bias)];
        let numbers = weights.read_f32(name)?;
        self.check_finite(name, &numbers)?;
        if described.transposed && part == Part::Weight {
            let (out, inp) = (described.shape[0], described.shape[1]);
            return Ok(model::transpose(&numbers, inp, out).into());
        }
        Ok(numbers)
    }

    /// As [`Checkpoint::read`], but what the files have in 16 bits stays so.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn read_as_stored(&self, module: usize, part: Part) -> Result<Numbers<'_>, LoadError> {
        let described = &self.architecture.modules[module];
        let (weights, names) = match &self.store {
            Store::Synthetic(name) => {
                return Ok(synthetic::tensor(name, module, described, part, self.files.dtype()));
            }
            Store::Files { weights, names } => (weights, names),
        };
        let name = &names[&(module, part == Part::Bias)];
        let of = match weights.info(name).map(|info| info.dtype) {
            Some(Dtype::F16) => Halves::f16,
            Some(Dtype::BF16) => Halves::bf16,
            _ => return Ok(self.read(module, part)?.into()),
        };
        let halves = of(&weights.read_bytes(name)?);
        if let Some((first, count)) = halves.not_finite() {
            let (model, tensor) = (self.files.source.clone(), name.clone());
            return Err(LoadError::NotFinite { model, tensor, count, first });
        }
        Ok(Numbers::Halves(match described.transposed && part == Part::Weight {
            true => halves.transposed(described.shape[1], described.shape[0]),
            false => halves,
        }))
    }

    /// Which weights of a linear are kept, `[out_features, in_features]`, where the files say so by a mask or a bitmap.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn explicit_mask(&self, module: usize) -> Result<Option<Vec<bool>>, LoadError> {
        let Store::Files { weights, names } = &self.store else { return Ok(None) };
        let Some(name) = names.get(&(module, false)) else { return Ok(None) };
        let kept = weights.explicit_mask(name)?;
        let described = &self.architecture.modules[module];
        Ok(kept.map(|kept| match described.transposed {
            true => {
                let (out, inp) = (described.shape[0], described.shape[1]);
                (0..out * inp).map(|at| kept[at % inp * out + at / inp]).collect()
            }
            false => kept,
        }))
    }

    /// What a linear's weight is made of as stored; nothing of a synthetic model.
    pub fn stored_dtype(&self, module: usize) -> Option<String> {
        let Store::Files { weights, names } = &self.store else { return None };
        let info = weights.info(names.get(&(module, false))?)?;
        Some(info.dtype.to_string().to_lowercase())
    }

    /// Gives the memory of a tensor's file pages back, where the system allows it.
    pub fn release(&self, module: usize, part: Part) {
        if let Store::Files { weights, names } = &self.store
            && let Some(name) = names.get(&(module, part == Part::Bias))
        {
            weights.release(name);
        }
    }

    /// The network's tensors as the files have them, in the order of their names; none of a synthetic model. What
    /// else is in the files, such as causal masks and equal copies of a tied weight, is no part of the network.
    pub fn stored(&self) -> Vec<StoredTensor<'_>> {
        let Store::Files { weights, names } = &self.store else { return Vec::new() };
        let mut tensors = Vec::with_capacity(names.len());
        for (&(module, bias), name) in names {
            if let Some(info) = weights.info(name) {
                tensors.push(StoredTensor { module, part: if bias { Part::Bias } else { Part::Weight }, name, info });
            }
        }
        tensors.sort_by_key(|tensor| tensor.name);
        tensors
    }

    /// A tensor's bytes as its file has them: little-endian, row-major in [`StoredTensor::info`]'s shape and dtype.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn stored_bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, LoadError> {
        match &self.store {
            Store::Files { weights, .. } => Ok(weights.read_bytes(name)?),
            Store::Synthetic(_) => Ok(Cow::Borrowed(&[])),
        }
    }

    fn check_finite(&self, tensor: &str, numbers: &[f32]) -> Result<(), LoadError> {
        const CHUNK: usize = 1 << 16;
        let bad = |chunk: &[f32]| chunk.iter().filter(|n| !n.is_finite()).count();
        let count: usize = numbers.par_chunks(CHUNK).map(bad).sum();
        if count == 0 {
            return Ok(());
        }
        let first = numbers.iter().position(|n| !n.is_finite()).unwrap_or_default();
        Err(LoadError::NotFinite { model: self.files.source.clone(), tensor: tensor.into(), count, first })
    }
}

/// Unties the head where the files have one of its own with other numbers: it is what the model was trained with,
/// whatever the configuration says, and the library keeps it too. Gives the warning about it.
fn settle_head(weights: &Weights, architecture: &mut Architecture, model: &str) -> Result<Option<String>, LoadError> {
    let head = &architecture.modules[architecture.head];
    let Some(owner) = head.tied_to.map(|owner| &architecture.modules[owner]) else { return Ok(None) };
    let stored = |module| stored_names(module, Part::Weight).into_iter().find(|name| weights.contains(name));
    let (Some(table), Some(own)) = (stored(owner), stored(head)) else { return Ok(None) };
    weights.check(&table)?;
    weights.check(&own)?;
    if weights.same(&table, &own)? {
        return Ok(None);
    }
    architecture.modules[architecture.head].tied_to = None;
    Ok(Some(format!(
        "`{own}` of `{model}` differs from `{table}`, though `tie_word_embeddings` is true: the file's head is used"
    )))
}

/// Finds every tensor of the architecture under one of the names that checkpoints give it.
fn named(weights: Weights, architecture: &Architecture, model: &str) -> Result<Store, LoadError> {
    let mut names = HashMap::new();
    let mut problems = Vec::new();
    for (index, module) in architecture.modules.iter().enumerate() {
        for part in [Part::Weight, Part::Bias] {
            let wanted = match part {
                Part::Weight => module.tied_to.is_none(),
                Part::Bias => module.bias,
            };
            if !wanted {
                continue;
            }
            // Of a tied pair, files may have either name.
            let head = &architecture.modules[architecture.head];
            let other = (part == Part::Weight && head.tied_to == Some(index)).then_some(head);
            match find(&weights, module, other, part) {
                Ok(name) => drop(names.insert((index, part == Part::Bias), name)),
                Err(problem) => problems.push(problem),
            }
        }
    }
    if !problems.is_empty() {
        return Err(misfit(&weights, architecture, model, problems));
    }
    for name in names.values() {
        weights.check(name)?;
    }
    Ok(Store::Files { weights, names })
}

/// The error about tensors that are missing or of another shape.
fn misfit(weights: &Weights, architecture: &Architecture, model: &str, mut problems: Vec<String>) -> LoadError {
    if let Some((method, tensor)) = quantised::by_tensors(weights.names()) {
        return LoadError::Quantised { model: model.into(), method: format!("{method}: it has `{tensor}`") };
    }
    const SHOWN: usize = 12;
    if problems.len() > SHOWN {
        let more = problems.len() - SHOWN;
        problems.truncate(SHOWN);
        problems.push(format!("  and {more} more"));
    }
    let of = |module| [Part::Weight, Part::Bias].into_iter().flat_map(move |part| stored_names(module, part));
    let known: HashSet<String> = architecture.modules.iter().flat_map(of).collect();
    let others: Vec<&str> = weights.names().filter(|name| !known.contains(*name)).collect();
    let mut instead = Vec::new();
    if !others.is_empty() {
        const NAMED: usize = 4;
        let named: Vec<String> = others.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
        let more = others.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        instead.push(format!("the files have {}{more}, which the network does not", named.join(", ")));
    }
    if !architecture.assumed.is_empty() {
        instead.push(format!("config.json leaves out {}", architecture.assumed.join(", ")));
    }
    LoadError::Tensors { model: model.into(), problems, instead }
}

/// The name of a tensor in the files: one of its module's, or of the module that shares it.
fn find(weights: &Weights, module: &Module, other: Option<&Module>, part: Part) -> Result<String, String> {
    let mut candidates = stored_names(module, part);
    candidates.extend(other.into_iter().flat_map(|other| stored_names(other, part)));
    let Some((name, info)) = candidates.iter().find_map(|name| weights.info(name).map(|info| (name, info))) else {
        return Err(format!("  `{}` is missing", candidates[0]));
    };
    let expected = stored_shape(module, part);
    match info.shape == expected {
        true => Ok(name.clone()),
        false => Err(format!("  `{name}` is {:?}, expected {expected:?}", info.shape)),
    }
}

/// The names a tensor may have: Hugging Face's, and the same without the wrapping model's prefix.
fn stored_names(module: &Module, part: Part) -> Vec<String> {
    let suffix = if part == Part::Weight { "weight" } else { "bias" };
    let mut names = Vec::new();
    names.extend(module.stored_name.map(|name| format!("{name}.{suffix}")));
    names.push(format!("{}.{suffix}", module.name));
    if let Some((_, inner)) = module.name.split_once('.') {
        names.push(format!("{inner}.{suffix}"));
    }
    names
}

fn stored_shape(module: &Module, part: Part) -> Vec<usize> {
    match (part, module.transposed) {
        (Part::Bias, _) => vec![module.biases()],
        (Part::Weight, true) => module.shape.iter().rev().copied().collect(),
        (Part::Weight, false) => module.shape.clone(),
    }
}
