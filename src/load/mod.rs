//! Bytes in: model sources and texts become a checkpoint and token ids.
//!
//! ```text
//!   ModelSource ──model_files.rs──> ModelFiles (paths, digests) ──checkpoint.rs──> Checkpoint: tensors by module
//!        hf: through hub/                                          weights/, synthetic.rs, builtin.rs
//!   TextSource ──text.rs──> text ──tokenizer.rs──> token ids; calibration.rs draws windows of them
//!        hf: through hub/ and dataset/
//! ```
//!
//! Only `hub/` opens sockets. Nothing here knows backends, pruning or measurements.

pub mod builtin;
mod calibration;
mod checkpoint;
mod dataset;
mod digest;
mod drawn;
mod error;
pub mod hub;
mod matrices;
mod mersenne;
mod model_files;
mod quantised;
mod synthetic;
mod tasks;
mod tensor;
mod text;
mod tokenizer;
pub mod weights;
mod windows;

pub use calibration::Calibration;
pub use checkpoint::{Checkpoint, StoredTensor};
pub use dataset::DatasetError;
pub use error::LoadError;
pub use matrices::{LoadedMatrix, MatrixName, MatrixSource, NamedMatrix, matrix_folder};
pub use model_files::{COMPANIONS, Companion, InputFile, Loader, ModelFiles, Observer};
pub use synthetic::normals;
pub use tasks::{Request, TaskError, TaskItem, TaskSets, TaskTokens};
pub use tensor::{MatrixError, MatrixFile, read_matrix};
pub use text::{Reach, TextInput, Texts, Tokens, Wanted};
pub use tokenizer::Tokenizer;
pub use windows::Windows;
