//! Model source → its files, with their digests. Opens no weights yet.

use super::builtin;
use super::digest::sha256_of;
use super::hub::{Hub, HubSettings, RepoKind, Snapshot};
use super::tokenizer::{Tokenizer, TokenizerFiles};
use super::{LoadError, quantised, synthetic, weights};
use crate::config::experiment::Dtype;
use crate::config::source::ModelSource;
use crate::hex::hex;
use crate::input;
use crate::model::published;
use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that results depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Its name within the source.
    pub name: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// A model source with its files found.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// The source, as the file spells it.
    pub source: String,
    /// `config.json`.
    pub config: Value,
    /// What `config.json` is called in messages.
    pub config_name: String,
    /// Configuration and weights.
    pub inputs: Vec<InputFile>,
    /// The commit, for a model of the hub.
    pub commit: Option<String>,
    /// What to tell the user.
    pub warnings: Vec<String>,
    pub(super) weights: WeightFiles,
    pub(super) tokenizer: TokenizerFiles,
}

/// Where weights come from.
#[derive(Clone, Debug)]
pub(super) enum WeightFiles {
    Static(&'static [u8]),
    Files(weights::Files),
    Synthetic(String),
}

/// Told how a download goes: file, bytes so far, bytes in all. `Break` stops it.
pub type Observer = Arc<dyn Fn(&str, u64, Option<u64>) -> ControlFlow<()> + Send + Sync>;

/// Finds the files of models and datasets.
pub struct Loader {
    offline: bool,
    /// Whether files of the hub's cache are read again and checked.
    checks: bool,
    observer: Observer,
}

impl Loader {
    /// A loader that uses the network unless `offline` or the environment forbids it.
    pub fn new(offline: bool, observer: Observer) -> Self {
        Self { offline, checks: false, observer }
    }

    /// A loader that reads what the hub's cache has and checks it against its hash; what is damaged is downloaded anew.
    pub fn checking(observer: Observer) -> Self {
        Self { offline: false, checks: true, observer }
    }

    /// Finds, and where needed downloads, the files of a model.
    ///
    /// # Errors
    /// When the model is not there, or one of its files is missing or unreadable.
    pub fn find(&self, source: &ModelSource) -> Result<ModelFiles, LoadError> {
        match source {
            ModelSource::Builtin(_) => builtin_files(source.to_string()),
            ModelSource::Synthetic(name) => synthetic_files(source.to_string(), name),
            ModelSource::Path(path) => folder_files(source.to_string(), path),
            ModelSource::Hub { repo, revision } => {
                hub_files(source.to_string(), &self.hub()?.repo(RepoKind::Model, repo, revision.as_deref())?)
            }
        }
    }

    /// The files beside the weights of a model that [`Loader::find`] has found, of the same commit; where needed
    /// and allowed, they are downloaded. Of a model inside the program, what it has; of a synthetic one, none.
    ///
    /// # Errors
    /// When one can't be downloaded or read.
    pub fn companions(&self, source: &ModelSource, files: &ModelFiles) -> Result<Vec<Companion>, LoadError> {
        let all = |find: &dyn Fn(&str) -> Result<Option<PathBuf>, LoadError>| {
            let companion = |name: &&str| {
                let path = find(name).transpose()?;
                Some(path.and_then(|path| Ok(Companion { name: (*name).into(), bytes: read(&path, input::LARGE)? })))
            };
            COMPANIONS.iter().filter_map(companion).collect()
        };
        match source {
            ModelSource::Builtin(_) => {
                let of = |name: &str, bytes: &[u8]| Companion { name: name.into(), bytes: bytes.into() };
                Ok(vec![of("config.json", builtin::CONFIG), of("tokenizer.json", builtin::TOKENIZER)])
            }
            ModelSource::Synthetic(_) => Ok(Vec::new()),
            ModelSource::Path(folder) => all(&|name| Ok(Some(folder.join(name)).filter(|path| path.is_file()))),
            ModelSource::Hub { repo, revision } => {
                let revision = files.commit.as_deref().or(revision.as_deref());
                let snapshot = self.hub()?.repo(RepoKind::Model, repo, revision)?;
                all(&|name| Ok(snapshot.find(name)?))
            }
        }
    }

    /// The hub, or its cache where the network is not to be used.
    pub(super) fn hub(&self) -> Result<Hub, LoadError> {
        let observer = self.observer.clone();
        let settings = HubSettings::from_env(self.offline)?;
        let hub = Hub::with_observer(settings, move |p| observer(p.file, p.received, p.total))?;
        Ok(if self.checks { hub.checking() } else { hub })
    }
}

/// A file beside the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Files that a checkpoint may have beside its weights: its configuration, and all that makes its tokenizer.
pub const COMPANIONS: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
];

impl ModelFiles {
    /// The digest of configuration and weights together.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for input in &self.inputs {
            hasher.update(&input.sha256);
        }
        hex(&hasher.finalize())
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// When its files are malformed.
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        self.tokenizer.open()
    }

    /// What the configuration says that the weights are.
    pub fn dtype(&self) -> Dtype {
        let name = self.config.get("torch_dtype").or_else(|| self.config.get("dtype")).and_then(Value::as_str);
        match name {
            Some("float16") => Dtype::F16,
            Some("bfloat16") => Dtype::Bf16,
            _ => Dtype::F32,
        }
    }

    /// The folder that its weights are in, if they are in files.
    pub fn folder(&self) -> Option<&Path> {
        match &self.weights {
            WeightFiles::Files(files) => files.paths.first()?.parent(),
            WeightFiles::Static(_) | WeightFiles::Synthetic(_) => None,
        }
    }

    /// Whether the model is no published one: inside the program, or random.
    pub fn is_stand_in(&self) -> bool {
        !matches!(self.weights, WeightFiles::Files(_))
    }
}

fn builtin_files(source: String) -> Result<ModelFiles, LoadError> {
    let input = |name: &str, bytes: &[u8]| InputFile {
        name: name.into(),
        sha256: hex(&Sha256::digest(bytes)),
        bytes: bytes.len() as u64,
    };
    Ok(ModelFiles {
        config: parse_config("config.json", builtin::CONFIG)?,
        config_name: format!("{source}/config.json"),
        source,
        inputs: vec![input("config.json", builtin::CONFIG), input("model.safetensors", builtin::WEIGHTS)],
        commit: None,
        warnings: Vec::new(),
        weights: WeightFiles::Static(builtin::WEIGHTS),
        tokenizer: TokenizerFiles::Static(builtin::TOKENIZER),
    })
}

fn synthetic_files(source: String, name: &str) -> Result<ModelFiles, LoadError> {
    let config = published(name).unwrap_or_default();
    let mut files = ModelFiles {
        config,
        config_name: source.clone(),
        inputs: Vec::new(),
        source: source.clone(),
        commit: None,
        warnings: Vec::new(),
        weights: WeightFiles::Synthetic(name.into()),
        tokenizer: TokenizerFiles::Static(builtin::TOKENIZER),
    };
    let recipe = synthetic::recipe(name, &files.config, files.dtype());
    files.inputs.push(InputFile { name: source, sha256: hex(&Sha256::digest(recipe.as_bytes())), bytes: 0 });
    Ok(files)
}

fn folder_files(source: String, folder: &Path) -> Result<ModelFiles, LoadError> {
    if !folder.is_dir() {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Err(match name.ends_with(".gguf") {
            true if folder.exists() => LoadError::Gguf { model: source, file: name },
            false if folder.exists() => LoadError::NotAFolder(folder.into()),
            true | false => LoadError::NoFolder(folder.into()),
        });
    }
    let find = |name: &str| Ok(Some(folder.join(name)).filter(|path| path.exists()));
    let names = || {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let missing = |what, looked_for| instead(&source, what, looked_for, &names());
    let weights = || match weights::find_files(folder) {
        Err(weights::WeightsError::NoWeights { .. }) => Err(missing("weights", WEIGHTS)),
        found => Ok(found?),
    };
    found(source.clone(), find, missing, weights, |_| None)
}

fn hub_files(source: String, snapshot: &Snapshot) -> Result<ModelFiles, LoadError> {
    let find = |name: &str| snapshot.find(name).map_err(LoadError::from);
    let missing = |what, looked_for: &'static str| {
        // The cache may lack what the hub has: then nobody knows more than that it was never downloaded.
        let first = looked_for.split([',', ' ']).next().unwrap_or(looked_for);
        match snapshot.cache_only().map(|_| snapshot.get(first)) {
            Some(Err(error)) => LoadError::from(error),
            Some(Ok(_)) | None => instead(&source, what, looked_for, &snapshot.files()),
        }
    };
    let weights = || hub_weights(snapshot)?.ok_or_else(|| missing("weights", WEIGHTS));
    let mut files = found(source.clone(), find, missing, weights, |path| snapshot.sha256(path))?;
    files.commit = Some(snapshot.commit().into());
    files.warnings = snapshot.warnings().iter().map(ToString::to_string).collect();
    Ok(files)
}

/// The weight files of a repository, in the order of preference of [`weights::find_files`].
fn hub_weights(snapshot: &Snapshot) -> Result<Option<weights::Files>, LoadError> {
    for name in weights::WEIGHT_FILES {
        let Some(path) = snapshot.find(name)? else { continue };
        if !name.ends_with(".json") {
            return Ok(Some(weights::Files { paths: vec![path], index: None }));
        }
        let index = weights::Index::read(&path)?;
        let paths = index.shards().iter().map(|shard| snapshot.get(shard)).collect::<Result<_, _>>()?;
        return Ok(Some(weights::Files { paths, index: Some(index) }));
    }
    Ok(None)
}

/// What weights are looked for under, for messages.
const WEIGHTS: &str = "model.safetensors, pytorch_model.bin, and their *.index.json for shards";

/// Files of weights that other programs write.
const OTHER_WEIGHTS: [&str; 8] =
    [".h5", ".msgpack", ".ot", ".onnx", ".pth", ".pt", ".ckpt", "consolidated.safetensors"];

/// Why a file is missing, as the other files tell.
fn instead(model: &str, what: &'static str, looked_for: &'static str, names: &[String]) -> LoadError {
    let model = model.to_owned();
    let with = |ending: &str| names.iter().find(|name| name.ends_with(ending)).cloned();
    if names.iter().any(|name| name.starts_with("adapter_model.")) {
        return LoadError::Adapter(model);
    }
    if let Some(file) = with(".gguf") {
        return LoadError::Gguf { model, file };
    }
    if let Some(index) = names.iter().find_map(|name| index_of(name)).filter(|_| what == "weights") {
        return LoadError::NoIndex { model, index };
    }
    match OTHER_WEIGHTS.iter().find_map(|ending| with(ending)).filter(|_| what == "weights") {
        Some(file) => LoadError::OtherWeights { model, file },
        None => LoadError::NoFile { model, what, looked_for },
    }
}

/// The index of a shard: `model.safetensors.index.json` of `model-00001-of-00002.safetensors`.
fn index_of(shard: &str) -> Option<String> {
    let (stem, ending) = shard.rsplit_once('.').filter(|(_, ending)| matches!(*ending, "safetensors" | "bin"))?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(number) && is_number(count)).then(|| format!("{name}.{ending}.index.json"))
}

/// What folders and snapshots have in common.
fn found(
    source: String,
    find: impl Fn(&str) -> Result<Option<PathBuf>, LoadError>,
    missing: impl Fn(&'static str, &'static str) -> LoadError,
    weights: impl FnOnce() -> Result<weights::Files, LoadError>,
    known_sha256: impl Fn(&Path) -> Option<String> + Sync,
) -> Result<ModelFiles, LoadError> {
    // Even beside a whole model: the library would put the adapter onto the base model that it names.
    if find("adapter_config.json")?.is_some() {
        return Err(LoadError::Adapter(source));
    }
    let config_path = find("config.json")?.ok_or_else(|| missing("configuration", "config.json"))?;
    let config_name = config_path.display().to_string();
    let config = parse_config(&config_name, &read(&config_path, input::SMALL)?)?;
    if let Some(method) = quantised::by_config(&config) {
        return Err(LoadError::Quantised { model: source, method });
    }
    // Before the weights, which may be a long download.
    let tokenizer =
        TokenizerFiles::find(&find, &config, &source)?.ok_or_else(|| missing("tokenizer", TokenizerFiles::NAMES))?;
    let weights = weights()?;
    let mut inputs = vec![input_file(&config_path, None)?];
    let hashed = weights.paths.par_iter().map(|path| input_file(path, known_sha256(path)));
    inputs.extend(hashed.collect::<Result<Vec<_>, _>>()?);
    let weights = WeightFiles::Files(weights);
    Ok(ModelFiles { source, config, config_name, inputs, commit: None, warnings: Vec::new(), weights, tokenizer })
}

fn parse_config(name: &str, bytes: &[u8]) -> Result<Value, LoadError> {
    if bytes.starts_with(weights::LFS_MAGIC) {
        return Err(LoadError::LfsPointer(name.into()));
    }
    serde_json::from_slice(bytes).map_err(|source| LoadError::Json { file: name.into(), source })
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    input::read(path, limit).map_err(|source| LoadError::Read { path: path.into(), source })
}

fn input_file(path: &Path, known_sha256: Option<String>) -> Result<InputFile, LoadError> {
    let error = |source| LoadError::Read { path: path.into(), source };
    let bytes = std::fs::metadata(path).map_err(error)?.len();
    let sha256 = match known_sha256 {
        Some(sha256) => sha256,
        None => sha256_of(path).map_err(error)?,
    };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(InputFile { name, sha256, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_missed_where_there_are_shards() {
        assert_eq!(index_of("model-00001-of-00002.safetensors").unwrap(), "model.safetensors.index.json");
        assert_eq!(index_of("pytorch_model-2-of-3.bin").unwrap(), "pytorch_model.bin.index.json");
        for other in ["model.safetensors", "best-of-breed.bin", "model-00001-of-.bin", "one-1-of-2.txt"] {
            assert_eq!(index_of(other), None, "{other}");
        }
        let names = vec!["model-00001-of-00002.safetensors".to_owned()];
        let error = instead("path:x", "weights", WEIGHTS, &names);
        assert!(error.to_string().contains("no `model.safetensors.index.json`"), "{error}");
        assert!(matches!(instead("path:x", "tokenizer", "tokenizer.json", &names), LoadError::NoFile { .. }));
    }
}
