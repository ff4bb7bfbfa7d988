//! The files that `[[kernel]]` blocks name: read before anything is planned, and again where a cell runs.

use crate::config::Experiment;
use crate::config::kernel::KernelBlock;
use crate::config::source::WrittenPath;
use crate::input;
use crate::load::{MatrixError, MatrixFile, read_matrix};
use crate::plan::{BlockFiles, GivenFile, GivenMatrix, OwnKernel};
use crate::run::PrepareError;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The largest source that is read.
const SOURCE_BYTES: u64 = 16 << 20;

/// The files of every block.
///
/// # Errors
/// When one can't be read, or does not go with the rest of its block.
pub(super) fn block_files(experiment: &Experiment) -> Result<Vec<BlockFiles>, PrepareError> {
    experiment.kernels.iter().map(of_block).collect()
}

fn of_block(block: &KernelBlock) -> Result<BlockFiles, PrepareError> {
    let source = block.source.as_ref().map(|source| {
        let (_, sha256) = text(&source.path).map_err(|reason| unreadable("source", &source.path, reason))?;
        Ok::<_, PrepareError>(GivenFile { file: source.path.written().to_owned(), sha256 })
    });
    let matrix = |key, path: &Option<WrittenPath>| {
        let read = path.as_ref().map(|path| {
            let MatrixFile { shape, numbers, sha256 } = read_matrix(path).map_err(|error| unusable(key, error))?;
            let nonzero = numbers.iter().filter(|&&number| number != 0.0).count() as u64;
            Ok::<_, PrepareError>(GivenMatrix {
                file: GivenFile { file: path.written().to_owned(), sha256 },
                shape,
                nonzero,
            })
        });
        read.transpose()
    };
    let files = BlockFiles {
        source: source.transpose()?,
        weight: matrix("weight", &block.weight)?,
        input: matrix("input", &block.input)?,
    };
    fits(block, &files)?;
    Ok(files)
}

/// Whether the input is as wide as the weight, and has as many rows as are asked for.
fn fits(block: &KernelBlock, files: &BlockFiles) -> Result<(), PrepareError> {
    let Some(input) = &files.input else { return Ok(()) };
    let [rows, width] = input.shape;
    let file = || input.file.file.clone();
    let of_file = files.weight.as_ref().map(|weight| weight.shape[1]);
    let widths = block.shapes.iter().map(|shape| shape.0[1]).chain(of_file);
    for cols in widths.filter(|&cols| cols != width) {
        return Err(PrepareError::KernelFile {
            key: "input",
            reason: format!("`{}` has {width} columns, and the weight {cols}", file()),
            hint: Some("take the input that this weight is multiplied with: `[tokens, in_features]`".into()),
        });
    }
    match block.tokens.iter().find(|&&tokens| tokens > rows) {
        Some(tokens) => Err(PrepareError::KernelFile {
            key: "input",
            reason: format!("`{}` has {rows} rows, and `kernel.tokens` is {tokens}", file()),
            hint: Some("leave `tokens` out to take all rows".into()),
        }),
        None => Ok(()),
    }
}

fn unreadable(key: &'static str, path: &Path, reason: String) -> PrepareError {
    PrepareError::KernelFile { key, reason: format!("cannot read `{}`: {reason}", path.display()), hint: None }
}

fn unusable(key: &'static str, error: MatrixError) -> PrepareError {
    PrepareError::KernelFile { key, reason: error.to_string(), hint: error.hint() }
}

/// A source and its digest.
fn text(path: &Path) -> Result<(String, String), String> {
    let text = input::read_to_string(path, SOURCE_BYTES).map_err(|error| error.to_string())?;
    let sha256 = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((text, sha256))
}

/// A file as it was planned, beside the experiment file.
fn place(file: &GivenFile, experiment: &Path) -> WrittenPath {
    WrittenPath::new(&file.file).joined(experiment.parent().unwrap_or(Path::new("")))
}

/// The source of a cell's kernel.
///
/// # Errors
/// When it can't be read, or is not what was planned.
pub(super) fn source(kernel: &OwnKernel, experiment: &Path) -> Result<String, String> {
    let path = place(&kernel.source, experiment);
    let (text, sha256) = text(&path).map_err(|reason| format!("cannot read `{}`: {reason}", path.display()))?;
    if sha256 == kernel.source.sha256 { Ok(text) } else { Err(changed(&path)) }
}

/// The matrix of a cell.
///
/// # Errors
/// As [`source`].
pub(super) fn matrix(file: &GivenFile, experiment: &Path) -> Result<Vec<f32>, String> {
    let path = place(file, experiment);
    let matrix = read_matrix(&path).map_err(|error| error.to_string())?;
    if matrix.sha256 == file.sha256 { Ok(matrix.numbers) } else { Err(changed(&path)) }
}

fn changed(path: &Path) -> String {
    format!("`{}` changed while the experiment ran", path.display())
}
