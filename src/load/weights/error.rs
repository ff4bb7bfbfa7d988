//! What can be wrong with a checkpoint's files.
//!
//! Three levels: [`WeightsError`] names the file and the tensor, [`FileProblem`] says what is wrong with a
//! file, [`TensorProblem`] what is wrong with one tensor of a sound file. Messages are complete without
//! their `source`, which is therefore not set.

use std::path::PathBuf;

use safetensors::Dtype;

use super::pickle::PickleError;

/// Why a checkpoint's weights could not be found, opened or read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system refused to open, stat or map the file.
    #[error("cannot read `{}`: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The folder to look in is not a folder.
    #[error("`{}` is not a folder", dir.display())]
    NotAFolder {
        /// The path that was given.
        dir: PathBuf,
    },
    /// The folder has none of the files that hold weights.
    #[error("no weights in `{}`", dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
        /// The file names that were looked for.
        looked_for: &'static [&'static str],
    },
    /// An index of shards is not the JSON that it should be.
    #[error("`{}` is not an index of shards: {reason}", index.display())]
    BadIndex {
        /// The index file.
        index: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An index names a shard outside its own folder.
    #[error("`{}` names the shard `{shard}`, which is not a plain file name", index.display())]
    BadShardName {
        /// The index file.
        index: PathBuf,
        /// The name as the index has it.
        shard: String,
    },
    /// A shard that the index names is not in its folder.
    #[error("`{}` names the shard `{shard}`, which is missing", index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The missing file's name.
        shard: String,
    },
    /// Two files of one checkpoint have a tensor of the same name.
    #[error("tensor `{name}` is both in `{}` and in `{}`", first.display(), second.display())]
    DuplicateTensor {
        /// The tensor.
        name: String,
        /// The file that was opened first.
        first: PathBuf,
        /// The file that has it again.
        second: PathBuf,
    },
    /// An index names a tensor in a shard that lacks it, while another one has it.
    #[error("`{}` names the tensor `{name}` in `{shard}`, but it is in `{}`", index.display(), found.display())]
    Misplaced {
        /// The index file.
        index: PathBuf,
        /// The tensor.
        name: String,
        /// The shard that the index names.
        shard: String,
        /// The shard that has it.
        found: PathBuf,
    },
    /// Tensors of an adapter, which change others when the model runs.
    #[error("`{}` has tensors of an adapter, such as `{name}`", path.display())]
    Adapter {
        /// The file.
        path: PathBuf,
        /// One of the tensors.
        name: String,
    },
    /// A file is damaged or of a kind that is not supported.
    #[error("`{}` {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// A tensor's description does not fit its bytes, or its type cannot be read.
    #[error("tensor `{name}` of `{}` {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: TensorProblem,
    },
    /// No file of the checkpoint has a tensor of this name.
    #[error("no tensor `{name}` in {}", list(files))]
    NoSuchTensor {
        /// The name that was asked for.
        name: String,
        /// The files of the checkpoint.
        files: Vec<PathBuf>,
    },
}

/// What is wrong with a file as a whole; each message continues the file's name.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The file has no bytes.
    #[error("is empty")]
    Empty,
    /// Git wrote a pointer to the large file in its place.
    #[error("is a Git LFS pointer, not the weights themselves")]
    LfsPointer,
    /// A checkpoint of `torch.save` with the extension of another format.
    #[error("is a PyTorch checkpoint under the name of a safetensors file")]
    PickleNamedSafetensors,
    /// Weights of llama.cpp.
    #[error("is a GGUF file, whose weights are mostly quantised")]
    Gguf,
    /// Neither safetensors nor a format of `torch.save`.
    #[error("is neither a safetensors file nor a PyTorch checkpoint")]
    UnknownFormat,
    /// The safetensors header claims to be longer than the file, or than the format allows.
    #[error("claims a safetensors header of {header} bytes in a file of {file} bytes")]
    HeaderTooLong {
        /// Bytes of header, as the first eight bytes say.
        header: u64,
        /// Bytes of the file.
        file: usize,
    },
    /// The safetensors header is not the JSON that it should be, or contradicts itself.
    #[error("has a damaged safetensors header: {0}")]
    BadHeader(String),
    /// The safetensors file is shorter or longer than its header says.
    #[error("has {actual} bytes where its header describes {expected}")]
    WrongLength {
        /// Bytes that the header describes, itself included; saturated if beyond 64 bits.
        expected: u64,
        /// Bytes of the file.
        actual: usize,
    },
    /// The zip archive that a PyTorch checkpoint is cannot be read.
    #[error("is a damaged or truncated zip archive: {0}")]
    BadZip(String),
    /// An archive entry is compressed or encrypted, which `torch.save` never does.
    #[error("has the entry `{0}` compressed or encrypted, and `torch.save` only stores entries")]
    NotStored(String),
    /// The archive lacks an entry that its pickle, or the format, needs.
    #[error("lacks the entry `{0}`")]
    MissingEntry(String),
    /// The pickle that describes the tensors cannot be read.
    #[error("has a pickle that cannot be read: {0}")]
    Pickle(PickleError),
    /// The storages after a legacy pickle end early.
    #[error("ends in the middle of the storage `{0}`")]
    TruncatedStorage(String),
    /// Saved on a big-endian machine.
    #[error("was saved in big-endian byte order")]
    BigEndian,
    /// A state dict or another object where a bare tensor is expected.
    #[error("does not hold one tensor and nothing else")]
    NotOneTensor,
    /// The file is sound and holds no tensor.
    #[error("holds no tensors")]
    NoTensors,
}

/// What is wrong with one tensor; each message continues the tensor's name and its file's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorProblem {
    /// Where a matrix is expected.
    #[error("has the shape {0:?}, and a matrix `[out_features, in_features]` without an empty side is expected")]
    NotAMatrix(Vec<usize>),
    /// Numbers that a mask can't have.
    #[error("is no mask of 0 and 1")]
    NotAMask,
    /// Integers, booleans and small floats are not weights.
    #[error("has dtype {0}, and only F64, F32, F16 and BF16 can be read")]
    UnsupportedDtype(Dtype),
    /// More dimensions than any weight has.
    #[error("has {0} dimensions")]
    Dimensions(usize),
    /// One of the two tensors of a weight pruned by PyTorch is not what the other needs.
    #[error("is not a weight and its mask: {0}")]
    Masked(String),
    /// Shape, strides and offset reach past the storage's end.
    #[error("needs {needs} bytes of a storage of {has}")]
    StorageTooShort {
        /// Bytes from the storage's start to the tensor's last element; saturated if beyond 64 bits.
        needs: u64,
        /// Bytes of the storage.
        has: usize,
    },
    /// More elements than the storage has, as `torch.Tensor.expand` makes them.
    #[error("repeats elements of its storage (an expanded tensor)")]
    Expanded,
    /// A matrix without its zeros whose parts contradict each other.
    #[error("is not a matrix without its zeros: {0}")]
    Packed(String),
    /// A finite F64 value that F32 has no room for.
    #[error("has the value {0:e}, which is beyond the range of f32")]
    OutOfRange(f64),
}

/// What to do with quantised weights.
pub const DEQUANTISE: &str =
    "dequantise first, with the library that made the checkpoint, and save the model in bfloat16 or float32";

/// What to do with an adapter.
pub const MERGE: &str = "merge the adapter into its base model first (in PEFT `merge_and_unload()`), and use the \
    folder that the merged model is saved to";

/// What to do with a GGUF file.
pub const GGUF: &str = "take the checkpoint that the file was made from, as safetensors";

impl WeightsError {
    /// The next action for the user, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { error, .. } => {
                let special = error.kind() == std::io::ErrorKind::InvalidInput;
                special.then(|| "weights are read from regular files; copy the file itself into the folder".into())
            }
            Self::DuplicateTensor { .. } => Some("keep the file that has the tensor's right values".into()),
            Self::Misplaced { shard, .. } => Some(format!("download the index and `{shard}` again")),
            Self::Adapter { .. } => Some(MERGE.into()),
            Self::NotAFolder { .. } => Some("give the folder that holds `config.json` and the weights".into()),
            Self::NoWeights { looked_for, .. } => Some(format!("looked for `{}`", looked_for.join("`, `"))),
            Self::BadIndex { .. } => Some("download the index file again".into()),
            Self::BadShardName { .. } => {
                Some("shards must lie beside their index; don't use a checkpoint that points elsewhere".into())
            }
            Self::MissingShard { shard, .. } => Some(format!("download `{shard}` into the same folder")),
            Self::File { problem, .. } => problem.hint(),
            Self::Tensor { problem, .. } => problem.hint(),
            Self::NoSuchTensor { .. } => Some("check that the weights belong to the `config.json` beside them".into()),
        }
    }
}

impl FileProblem {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::LfsPointer => "run `git lfs pull` in the checkpoint's repository, or download the file again",
            Self::PickleNamedSafetensors => {
                "rename it to `pytorch_model.bin`, or better, save the state dict as safetensors"
            }
            Self::Gguf => GGUF,
            Self::UnknownFormat => "use a `.safetensors` file or a state dict saved by `torch.save`",
            Self::NotStored(_) => "save the checkpoint again as safetensors",
            Self::Pickle(PickleError::ForbiddenGlobal { .. } | PickleError::NotAStateDict) => {
                "only plain state dicts are read, and nothing is executed; save `model.state_dict()` as safetensors"
            }
            Self::Pickle(PickleError::Dimensions { .. } | PickleError::LongName(_)) => {
                "the file is no checkpoint of a language model: take another one"
            }
            Self::Pickle(PickleError::Protocol { .. }) => "save the state dict again as safetensors",
            Self::BigEndian => "save the state dict again as safetensors on a little-endian machine",
            Self::NotOneTensor => "save the matrix itself: `torch.save(linear.weight, FILE)`",
            Self::NoTensors => return None,
            Self::Empty
            | Self::HeaderTooLong { .. }
            | Self::BadHeader(_)
            | Self::WrongLength { .. }
            | Self::BadZip(_)
            | Self::MissingEntry(_)
            | Self::TruncatedStorage(_)
            | Self::Pickle(
                PickleError::Truncated { .. }
                | PickleError::UnknownOpcode { .. }
                | PickleError::Unexpected { .. }
                | PickleError::TooLong,
            ) => "the download may be incomplete: download the file again",
        };
        Some(hint.into())
    }
}

impl TensorProblem {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotAMatrix(_) => "save the weight of one linear in every file",
            Self::NotAMask => "save it as booleans, or as 0 and 1",
            Self::StorageTooShort { .. } | Self::Packed(_) | Self::Dimensions(_) => {
                "the file is damaged: download or export it again"
            }
            Self::Masked(_) => "make the pruning permanent with `torch.nn.utils.prune.remove` and save the model again",
            Self::Expanded => "call `.contiguous()` on the tensor and save it again",
            // Not "convert to float32": integers would become weights without their scales.
            Self::UnsupportedDtype(_) => DEQUANTISE,
            Self::OutOfRange(_) => "convert the checkpoint to float32 and save it again",
        };
        Some(hint.into())
    }
}

fn list(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|path| format!("`{}`", path.display())).collect();
    names.join(", ")
}
