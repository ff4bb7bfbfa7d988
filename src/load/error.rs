//! Why an input can't be used.

use super::dataset::DatasetError;
use super::hub::HubError;
use super::tasks::TaskError;
use super::weights::{DEQUANTISE, GGUF, MERGE, WeightsError};
use crate::model;
use std::path::PathBuf;
use thiserror::Error;

/// Why a model or a text can't be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Files of weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A task.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A file can't be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A folder of matrices is not there, or is none.
    #[error("no folder of matrices `{}`", .0.display())]
    NoMatrices(PathBuf),
    /// A folder of matrices has no file of a matrix.
    #[error("`{}` has no `.pt` file", .0.display())]
    EmptyFolder(PathBuf),
    /// A file's name says nothing of what is in it.
    #[error("the name of `{}` says neither layer nor component", .0.display())]
    MatrixName(PathBuf),
    /// A file's name contradicts itself.
    #[error("the name of `{}` says that {n} of {m} weights are pruned, and that the sparsity is {sparsity}", path.display())]
    MatrixSparsity {
        /// The file.
        path: PathBuf,
        /// Weights of a group that are pruned.
        n: u32,
        /// Of so many.
        m: u32,
        /// What it says too.
        sparsity: f64,
    },
    /// A file's name has a pattern that there is not.
    #[error("the name of `{}` says that {n} of {m} weights are pruned", path.display())]
    MatrixPattern {
        /// The file.
        path: PathBuf,
        /// Weights of a group that are pruned.
        n: u32,
        /// Of so many.
        m: u32,
    },
    /// Two files are the same matrix of a model.
    #[error("both `{}` and `{}` are {what}", first.display(), second.display())]
    SameMatrix {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// What they are: layer and role.
        what: String,
    },
    /// A mask or inputs of another shape than their matrix.
    #[error("`{name}` of `{}` is {found:?}, and the matrix in `{}` is {expected:?}", path.display(), matrix.display())]
    Beside {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The matrix's file.
        matrix: PathBuf,
        /// The matrix's shape.
        expected: [usize; 2],
    },
    /// A mask prunes what is not 0.
    #[error("the mask of `{}` prunes {count} weights that are not 0", path.display())]
    MaskDropsWeights {
        /// The matrix's file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A checkpoint folder is not there.
    #[error("no checkpoint folder `{}`", .0.display())]
    NoFolder(PathBuf),
    /// A checkpoint lacks a file.
    #[error("`{model}` has no {what}: looked for {looked_for}")]
    NoFile {
        /// The model source.
        model: String,
        /// What the file is for.
        what: &'static str,
        /// Names of files.
        looked_for: &'static str,
    },
    /// A source of one folder names a file.
    #[error("`{}` is a file, and `path:` names a folder", .0.display())]
    NotAFolder(PathBuf),
    /// An adapter in place of a model.
    #[error("`{0}` is an adapter, not a whole model: it has `adapter_config.json`")]
    Adapter(String),
    /// Only weights of llama.cpp.
    #[error("`{model}` has its weights in the GGUF file `{file}`, mostly quantised")]
    Gguf {
        /// The model source.
        model: String,
        /// The file.
        file: String,
    },
    /// Weights in a file of another program.
    #[error("`{model}` has its weights in `{file}`, which is not read")]
    OtherWeights {
        /// The model source.
        model: String,
        /// The file.
        file: String,
    },
    /// Several files of weights, and no index of them.
    #[error("`{model}` has its weights in several files, and no `{index}` that says which tensor is in which")]
    NoIndex {
        /// The model source.
        model: String,
        /// The index's name.
        index: String,
    },
    /// Quantised or compressed weights.
    #[error("the weights of `{model}` are quantised or compressed ({method})")]
    Quantised {
        /// The model source.
        model: String,
        /// The method, as the checkpoint names it.
        method: String,
    },
    /// Git wrote a pointer to the large file in its place.
    #[error("`{0}` is a Git LFS pointer, not the file itself")]
    LfsPointer(String),
    /// A JSON file is malformed.
    #[error("`{file}` is no valid JSON")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The configuration describes no network that can be run.
    #[error("`{file}`: {source}")]
    Config {
        /// The file.
        file: String,
        /// Why.
        source: model::ConfigError,
    },
    /// The tokenizer's files.
    #[error("`{file}` is no usable tokenizer: {message}")]
    Tokenizer {
        /// The file.
        file: String,
        /// Why.
        message: String,
    },
    /// There is a tokenizer, but of a kind that is not read.
    #[error("the tokenizer of `{model}` is {kind}, `{file}`, which is not read")]
    OtherTokenizer {
        /// The model source.
        model: String,
        /// The file that is there.
        file: &'static str,
        /// What it is.
        kind: &'static str,
    },
    /// `vocab.json` and `merges.txt` of a kind that is not known.
    #[error("`{file}` {}, so that `vocab.json` and `merges.txt` can't be read: known are {known}", stated(class))]
    TokenizerClass {
        /// The file that should say it.
        file: String,
        /// What it says.
        class: Option<String>,
        /// The kinds that are known.
        known: String,
    },
    /// What Git leaves where Git-LFS has not fetched the file.
    #[error("`{}` is only a pointer of Git-LFS, not the file itself", path.display())]
    Pointer {
        /// The file.
        path: PathBuf,
    },
    /// There is not enough memory to cut a text into tokens.
    #[error(
        "a text of {bytes} bytes takes up to {} MiB in the tokenizer `{file}`, more than there is",
        needed.div_ceil(1 << 20)
    )]
    TextMemory {
        /// The tokenizer.
        file: String,
        /// Bytes of the text, as the tokenizer has normalised it.
        bytes: usize,
        /// Bytes of memory.
        needed: usize,
    },
    /// Tensors that the architecture needs are missing or of another shape.
    #[error("the weights of `{model}` do not fit its config.json:\n{}", [&problems[..], &instead[..]].concat().join("\n"))]
    Tensors {
        /// The model source.
        model: String,
        /// One line a tensor.
        problems: Vec<String>,
        /// Tensors that the files have in their place, and sizes that the configuration leaves out, in words.
        instead: Vec<String>,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{tensor}` of `{model}` has {count} values that are NaN or infinite, the first at index {first}")]
    NotFinite {
        /// The model source.
        model: String,
        /// The tensor.
        tensor: String,
        /// How many.
        count: usize,
        /// Where the first one is, row-major.
        first: usize,
    },
    /// A text is too short.
    #[error("`{text}` has {tokens} tokens, fewer than one window of {context}")]
    ShortText {
        /// The text source.
        text: String,
        /// Its tokens.
        tokens: usize,
        /// Tokens of a window.
        context: usize,
    },
    /// No document is long enough to draw a window from.
    #[error("no document of `{text}` has more than {context} tokens, the length of a window")]
    ShortDocuments {
        /// The text source.
        text: String,
        /// Tokens of a window.
        context: usize,
    },
    /// The calibration text is too short.
    #[error("`{text}` has {tokens} tokens, fewer than a calibration window of {length}")]
    ShortCalibration {
        /// The text source.
        text: String,
        /// Its tokens.
        tokens: usize,
        /// Tokens of a window.
        length: usize,
    },
    /// Windows with gaps between them.
    #[error("`data.perplexity_stride` is {stride}, but a window has {most} tokens of the text")]
    Stride {
        /// Tokens asked for.
        stride: usize,
        /// Tokens of the text in a window.
        most: usize,
    },
    /// There is nothing to put in front of windows.
    #[error("the tokenizer of `{model}` puts no special token in front of a text")]
    NoBos {
        /// The model source.
        model: String,
        /// The key that wants some.
        key: &'static str,
    },
    /// The tokenizer makes no token of a text.
    #[error("the tokenizer of `{model}` makes no token of `{text}`")]
    NoTokens {
        /// The model source.
        model: String,
        /// The text source.
        text: String,
    },
    /// A text has nothing in it.
    #[error("`{text}` has no text in it")]
    EmptyText {
        /// The text source.
        text: String,
    },
    /// The tokenizer knows tokens that the model does not.
    #[error("the tokenizer of `{model}` gives token id {id}, but the model's vocabulary has {vocabulary} entries")]
    Vocabulary {
        /// The model source.
        model: String,
        /// The id.
        id: u32,
        /// Entries of the vocabulary.
        vocabulary: usize,
    },
    /// `context` is more than the model can take.
    #[error("`data.context` is {context}, but `{model}` has {positions} positions")]
    Context {
        /// The model source.
        model: String,
        /// Tokens asked for.
        context: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// A model is to be compared with one that sees the texts as other tokens.
    #[error("`{model}` can't be compared with its `prune.reference` `{reference}`: {}", other_tokens(*vocabularies))]
    OtherTokens {
        /// The reference.
        reference: String,
        /// The model.
        model: String,
        /// Entries of the vocabularies, the model's first.
        vocabularies: [usize; 2],
    },
    /// `calibration_length` is more than the model can take.
    #[error("`data.calibration_length` is {length}, but `{model}` has {positions} positions")]
    CalibrationLength {
        /// The model source.
        model: String,
        /// Tokens asked for.
        length: usize,
        /// Positions of the model.
        positions: usize,
    },
}

fn other_tokens([model, reference]: [usize; 2]) -> String {
    match model == reference {
        true => "their tokenizers cut the agreement texts into other tokens".into(),
        false => format!("they have {model} and {reference} tokens to choose from"),
    }
}

impl LoadError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hub(error) => error.hint(),
            Self::Weights(error) => error.hint(),
            Self::Dataset(error) => error.hint(),
            Self::Task(error) => error.hint(),
            Self::Config { source, .. } => source.hint(),
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
                Some("save the file as UTF-8".into())
            }
            Self::Read { source, .. }
                if matches!(source.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::FileTooLarge) =>
            {
                Some("only regular files of a sensible size are read: name the file itself".into())
            }
            Self::Read { .. } => Some(
                "check the path and its permissions; `path:` and `file:` are relative to the experiment file".into(),
            ),
            Self::NoFolder(_) => Some(
                "`path:` names a folder, relative to the experiment file, with config.json, tokenizer and weights"
                    .into(),
            ),
            Self::NoMatrices(_) => Some("`pt` names a folder, relative to the experiment file".into()),
            Self::EmptyFolder(_) | Self::MatrixName(_) => Some(
                "name files `layerN-COMPONENT.pt`, `layerN-COMPONENT-n-m.pt` or `layerN-COMPONENT-n-m-SPARSITY.pt`, as in \
                 `layer1-mlp.down_proj-0-0-0.5.pt`"
                    .into(),
            ),
            Self::MatrixSparsity { .. } | Self::MatrixPattern { .. } => {
                Some("in `layerN-COMPONENT-n-m-SPARSITY.pt` n of every m weights are pruned: rename the file".into())
            }
            Self::SameMatrix { .. } => Some("keep one of them, or choose by `pattern` or `layers`".into()),
            Self::Beside { .. } => Some("the files belong to different matrices".into()),
            Self::MaskDropsWeights { .. } => Some("mask and matrix are of different models, or the weights were not masked".into()),
            Self::NotAFolder(_) => Some("name the folder that has config.json, tokenizer and weights".into()),
            Self::Adapter(_) => Some(MERGE.into()),
            Self::Gguf { .. } => Some(GGUF.into()),
            Self::OtherWeights { .. } => {
                Some("load it with transformers and save it with `save_pretrained`, as safetensors".into())
            }
            Self::NoIndex { index, .. } => Some(format!("copy `{index}` beside them: the checkpoint was saved with it")),
            Self::Quantised { .. } => Some(DEQUANTISE.into()),
            Self::LfsPointer(_) => {
                Some("run `git lfs pull` in the checkpoint's repository, or download the file again".into())
            }
            // Nothing says that there ever was a whole checkpoint to save again.
            Self::NoFile { what, .. } => Some(format!(
                "put the {what} into the folder; `hf download OWNER/NAME --local-dir FOLDER` gets all files of a checkpoint"
            )),
            Self::Json { .. } | Self::Tokenizer { .. } => {
                Some("download the checkpoint again, or save it again with `save_pretrained`".into())
            }
            Self::OtherTokenizer { .. } | Self::TokenizerClass { .. } => Some(
                "write a tokenizer.json beside it, with Python's transformers: \
                 `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`"
                    .into(),
            ),
            Self::Pointer { .. } => {
                Some("run `git lfs pull` where it was cloned, or download it again with `hf download`".into())
            }
            Self::TextMemory { .. } => Some(
                "give a shorter text; of a dataset, set `data.perplexity_windows`, `data.perplexity_documents` or \
                 `data.calibration_documents`"
                    .into(),
            ),
            Self::NoTokens { .. } => Some("the tokenizer is another model's, or the text of another language".into()),
            Self::Tensors { .. } => {
                Some("config.json and the weights are of different models, or the download is incomplete".into())
            }
            Self::NotFinite { .. } => {
                Some("the checkpoint is damaged or its training diverged: no result on it would mean anything".into())
            }
            Self::ShortText { .. } => Some("set a smaller `data.context`, or give a longer text".into()),
            Self::ShortDocuments { .. } => {
                Some("set a smaller `data.context`, or leave `data.perplexity_drawing` out".into())
            }
            Self::ShortCalibration { .. } => {
                Some("set a smaller `data.calibration_length`, or give a longer text".into())
            }
            Self::Stride { most, .. } => Some(format!("set `data.perplexity_stride` to {most} or less")),
            Self::NoBos { key, .. } => Some(format!("leave `{key}` out")),
            Self::EmptyText { .. } => Some("give a UTF-8 text with at least one line that is not blank".into()),
            Self::OtherTokens { .. } => Some("name the model that the checkpoint was pruned from".into()),
            Self::Vocabulary { .. } => Some("the checkpoint's tokenizer belongs to another model".into()),
            Self::Context { positions, .. } => Some(format!("set `data.context` to {positions} or less")),
            Self::CalibrationLength { positions, .. } => {
                Some(format!("set `data.calibration_length` to {positions} or less"))
            }
        }
    }
}

/// What a configuration says of the tokenizer's class.
fn stated(class: &Option<String>) -> String {
    match class {
        Some(class) => format!("has `tokenizer_class = {class}`, which is not known"),
        None => "has no `tokenizer_class`".into(),
    }
}
