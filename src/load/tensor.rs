//! A matrix in a file of its own: a tensor that `torch.save` wrote, or the only tensor of a checkpoint's file.

use super::digest::sha256_of;
use super::weights::{BareTensor, FileProblem, Files, Weights, WeightsError};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A matrix, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixFile {
    /// `[rows, columns]`; of more than two dimensions, all but the last are rows.
    pub shape: [usize; 2],
    /// As f32, all finite.
    pub numbers: Vec<f32>,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// Why a file gives no matrix.
#[derive(Debug, Error)]
pub enum MatrixError {
    /// It can't be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// It can't be hashed.
    #[error("cannot read `{}`: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// It has several tensors, or none.
    #[error("`{}` has {count} tensors, expected one", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// How many it has.
        count: usize,
    },
    /// It is no matrix.
    #[error("the tensor of `{}` has the shape {shape:?}, expected a matrix that is not empty", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Its tensor's shape.
        shape: Vec<usize>,
    },
    /// It has numbers that no product can be checked with.
    #[error("the tensor of `{}` has {count} numbers that are NaN or infinite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
}

impl MatrixError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Weights(error) => error.hint(),
            Self::Io { .. } => None,
            Self::Tensors { .. } | Self::Shape { .. } => {
                Some("write the matrix alone: `torch.save(weight.detach().cpu(), \"FILE.pt\")`".into())
            }
            Self::NotFinite { .. } => {
                Some("take another file: its product has no reference to be checked against".into())
            }
        }
    }
}

/// Reads a matrix.
///
/// # Errors
/// When the file has none.
pub fn read_matrix(path: &Path) -> Result<MatrixFile, MatrixError> {
    // Before it is mapped, which would block on a pipe.
    let io = |error| MatrixError::Io { path: path.to_owned(), error };
    drop(crate::input::open(path).map_err(io)?);
    let sha256 = sha256_of(path).map_err(io)?;
    let (shape, numbers) = match BareTensor::open(path) {
        Ok(tensor) => (tensor.shape().to_vec(), tensor.read()?.into_owned()),
        Err(WeightsError::File { problem: FileProblem::NotOneTensor | FileProblem::UnknownFormat, .. }) => {
            only_tensor(path)?
        }
        Err(error) => return Err(error.into()),
    };
    let rows = shape.iter().rev().skip(1).product::<usize>();
    let cols = match shape.last() {
        Some(&cols) if shape.len() >= 2 && rows * cols > 0 => cols,
        _ => return Err(MatrixError::Shape { path: path.to_owned(), shape }),
    };
    let count = numbers.iter().filter(|number| !number.is_finite()).count();
    if count > 0 {
        return Err(MatrixError::NotFinite { path: path.to_owned(), count });
    }
    Ok(MatrixFile { shape: [rows, cols], numbers, sha256 })
}

/// Shape and numbers of the only tensor of a checkpoint's file.
fn only_tensor(path: &Path) -> Result<(Vec<usize>, Vec<f32>), MatrixError> {
    let weights = Weights::open_files(&Files { paths: vec![path.to_owned()], index: None })?;
    let names: Vec<&str> = weights.names().collect();
    let &[name] = names.as_slice() else {
        return Err(MatrixError::Tensors { path: path.to_owned(), count: names.len() });
    };
    let shape = weights.info(name).map(|info| info.shape.clone()).unwrap_or_default();
    Ok((shape, weights.read_f32(name)?.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_of_torch_save_is_a_matrix() {
        // tests/fixtures/pickle: torch.save(torch.tensor([[1.0, 0.0, -2.5], [0.0, 0.5, 0.0]]), ...) of PyTorch 2.15, and
        // the same in bfloat16 of shape [2, 1, 3].
        for (file, shape) in [("matrix.pt", [2, 3]), ("matrix-bf16.pt", [2, 3])] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickle").join(file);
            let matrix = read_matrix(&path).unwrap();
            assert_eq!((matrix.shape, matrix.numbers.as_slice()), (shape, &[1.0, 0.0, -2.5, 0.0, 0.5, 0.0][..]));
            assert_eq!(matrix.sha256.len(), 64);
        }
    }

    #[test]
    fn what_is_no_matrix_is_told() {
        let lab = tempfile::tempdir().unwrap();
        let write = |name: &str, header: &str, bytes: usize| {
            let path = lab.path().join(name);
            let length = (header.len() as u64).to_le_bytes();
            std::fs::write(&path, [&length[..], header.as_bytes(), &vec![0xff; bytes]].concat()).unwrap();
            read_matrix(&path).unwrap_err().to_string()
        };
        let vector = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
        assert!(write("v.safetensors", vector, 16).contains("has the shape [4], expected a matrix"));
        let nan = r#"{"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}}"#;
        assert!(write("n.safetensors", nan, 8).contains("4 numbers that are NaN"));
        let two = r#"{"a":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[1,2],"data_offsets":[4,8]}}"#;
        assert!(write("t.safetensors", two, 8).contains("has 2 tensors, expected one"));
        assert!(read_matrix(&lab.path().join("none.pt")).unwrap_err().to_string().contains("cannot read"));
        assert!(read_matrix(lab.path()).unwrap_err().to_string().contains("a folder"));
    }
}
