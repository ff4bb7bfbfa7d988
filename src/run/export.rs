//! A prune point as a checkpoint: the model's own files again, its pruned weights with zeros in place or without them.
//!
//! ```text
//!   Prepared ──> the one selected point ──> Session, Point: which weights go
//!                                                 │
//!   the checkpoint's tensors, byte for byte ──mask | pack──> model.safetensors | model.sparse.safetensors
//!   config.json, tokenizer files ──────────────────────────> copied
//! ```
//!
//! The folder is written beside its place and renamed: it is whole or not there. What the checkpoint has, the copy
//! has too, under the same names, in the same dtype and layout.

use super::backend::{OnBackend, on_backend};
use super::export_error::{DENSE_FILE, ExportError, ORIGIN_FILE};
use super::model::{CellError, Keep, Pruned, Session, Stopped, calibrate, patterns};
use super::panics::{self, caught};
use super::place;
use super::prepared::{Prepared, PreparedModel};
use super::scheduler::Watch;
use crate::config::experiment::Variant;
use crate::execute::SparseBackend;
use crate::load::weights::{self, Dtype, SPARSE_FILE, TensorInfo};
use crate::load::{Checkpoint, Companion, LoadError, Loader, StoredTensor};
use crate::model::{self, Part};
use crate::plan::{Cell, Of, Planned};
use crate::record::{NewFolder, Program, WriteError};
use crate::sparse::Pattern;
use half::{bf16, f16};
use serde_json::json;
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How pruned weights are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportFormat {
    /// With zeros in place: a checkpoint like any other.
    #[default]
    Dense,
    /// Without zeros: a bit a weight and the kept values, which this program alone reads.
    Sparse,
}

/// Where to and how.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The folder to be made.
    pub to: PathBuf,
    /// How pruned weights are written.
    pub format: ExportFormat,
    /// Whether an export that is there already may be replaced.
    pub overwrite: bool,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The point.
    pub point: String,
    /// Pruned linears.
    pub pruned: usize,
    /// Bytes of the file of weights.
    pub bytes: u64,
    /// Bytes that the weights have with their zeros.
    pub dense_bytes: u64,
    /// What updated weights were rounded to, where that is less than the f32 that they were computed in.
    pub rounded: Option<&'static str>,
}

/// Prunes the one point that is selected, and writes the checkpoint.
///
/// # Errors
/// When not one point is selected, it can't be pruned, or the folder can't be made. Nothing is written then.
pub fn export(
    prepared: &Prepared,
    loader: &Loader,
    options: &ExportOptions,
    watch: &dyn Watch,
) -> Result<Exported, ExportError> {
    let (planned, cell) = the_point(prepared)?;
    let point = name(cell);
    let model = model_of(prepared, cell)?;
    let source = prepared.experiment.models.iter().find(|source| source.to_string() == cell.model);
    let source = source.ok_or(ExportError::NoPoint)?;
    place::free(&options.to, options.overwrite, &model.files)?;
    let checkpoint = Checkpoint::open(model.files.clone())?;
    if checkpoint.stored().is_empty() {
        return Err(ExportError::Synthetic(cell.model.clone()));
    }
    let companions = loader.companions(source, &model.files)?;
    let layers = layers(prepared, cell, watch)?;
    watch.stage("writing");
    let file = if options.format == ExportFormat::Dense { DENSE_FILE } else { SPARSE_FILE };
    let origin = origin(planned, cell, options.format, &place::names(&companions, file));
    let folder = NewFolder::beside(&options.to)?;
    for Companion { name, bytes } in companions.iter().chain([&origin]) {
        folder.write(name, |file| file.write_all(bytes).map_err(|source| write_error(&options.to, name, source)))?;
    }
    let tensors = Tensors::new(&checkpoint, &layers, options.format);
    let bytes = folder.write(file, |out| {
        let written = weights::write_safetensors(out, &tensors.infos, |index| {
            let interrupted = watch.interrupted();
            if interrupted { Err(Problem::Interrupted) } else { Ok(tensors.bytes(index)?) }
        });
        written.map_err(|problem| match problem {
            Problem::Io(source) => write_error(&options.to, file, source).into(),
            Problem::Load(error) => ExportError::Load(error),
            Problem::Interrupted => ExportError::Interrupted,
        })
    })?;
    // Pruning takes a while, in which somebody may have put something there.
    place::free(&options.to, options.overwrite, &model.files)?;
    folder.finish()?;
    Ok(Exported { point, pruned: layers.len(), bytes, dense_bytes: tensors.dense_bytes, rounded: tensors.rounded })
}

fn write_error(folder: &Path, name: &str, source: io::Error) -> WriteError {
    WriteError { path: folder.join(name), source }
}

/// The cell whose point is the only one selected.
fn the_point(prepared: &Prepared) -> Result<(&Planned, &Cell), ExportError> {
    let mut points: Vec<(&Planned, &Cell)> = Vec::new();
    for planned in prepared.cells.iter().filter(|planned| planned.selected) {
        let Some(cell) = Cell::of(&planned.task) else { continue };
        if cell.prune.is_some() && !points.iter().any(|(_, point)| point.same_point(cell)) {
            points.push((planned, cell));
        }
    }
    match points[..] {
        [] => Err(ExportError::NoPoint),
        [point] => Ok(point),
        _ => Err(ExportError::SeveralPoints(points.iter().map(|(_, cell)| name(cell)).collect())),
    }
}

fn model_of<'a>(prepared: &'a Prepared, cell: &Cell) -> Result<&'a PreparedModel, ExportError> {
    let model = prepared.models.iter().find(|model| model.files.source == cell.model);
    model.ok_or(ExportError::NoPoint)
}

/// A point as people call it, whichever of its variants the cell is.
fn name(cell: &Cell) -> String {
    Cell { variant: Variant::Masked, ..cell.clone() }.to_string()
}

/// What the checkpoint is of, for those who find it.
fn origin(planned: &Planned, cell: &Cell, format: ExportFormat, files: &[String]) -> Companion {
    let Cell { model, backend, dtype, prune, seed, .. } = cell;
    let origin = json!({
        "model": model,
        "backend": backend,
        "dtype": dtype.name(),
        "prune": prune,
        "seed": seed,
        "inputs": planned.inputs,
        "format": if format == ExportFormat::Dense { "dense" } else { "sparse" },
        "program": Program::current(),
        place::FILES: files,
    });
    Companion { name: ORIGIN_FILE.into(), bytes: format!("{origin:#}\n").into_bytes() }
}

/// Which weights go, decided on the backend of the point.
fn layers(prepared: &Prepared, cell: &Cell, watch: &dyn Watch) -> Result<Vec<Pruned>, ExportError> {
    let model = model_of(prepared, cell)?;
    watch.loading(&model.files.source, cell.backend.name());
    on_backend(cell.backend, prepared.experiment.device_index, Pruning { model, cell, watch })
}

/// The pruning of one point.
struct Pruning<'a> {
    model: &'a PreparedModel,
    cell: &'a Cell,
    watch: &'a dyn Watch,
}

impl OnBackend for Pruning<'_> {
    type Output = Result<Vec<Pruned>, ExportError>;

    fn on<B: SparseBackend>(self, device: B::Device) -> Self::Output {
        prune::<B>(self.model, self.cell, &device, self.watch)
    }
}

fn prune<B: SparseBackend>(
    model: &PreparedModel,
    cell: &Cell,
    device: &B::Device,
    watch: &dyn Watch,
) -> Result<Vec<Pruned>, ExportError> {
    let Cell { prune: Some(point), seed, dtype, .. } = cell else { return Err(ExportError::NoPoint) };
    let work = || -> Result<Result<Vec<Pruned>, CellError>, ExportError> {
        let checkpoint = Checkpoint::open(model.files.clone())?;
        let mut session = Session::<B>::load(checkpoint, model.tokens.clone(), *dtype, Keep::AsStored, device)?;
        watch.stage("pruning");
        if !point.method.calibrates() {
            return Ok(patterns(&session, point, *seed, *dtype).map(|(layers, _)| layers));
        }
        let windows =
            seed.and_then(|seed| session.tokens.calibration_of(cell.calibration(), seed)).unwrap_or_default().to_vec();
        match calibrate(&mut session, &windows, &[point], *dtype, watch) {
            Err(Stopped::Interrupted) => Err(ExportError::Interrupted),
            Err(Stopped::Failed(error)) => Ok(Err(error)),
            // One point, one result.
            Ok(results) => Ok(results.into_iter().map(|result| Ok(result?.layers)).next().unwrap_or(Ok(Vec::new()))),
        }
    };
    let failure = |message| ExportError::Prune { point: name(cell), message };
    match (caught(work), panics::take()) {
        (_, Some(message)) | (Err(message), None) => Err(failure(panics::brief(&message))),
        (Ok(Err(error)), None) => Err(error),
        (Ok(Ok(Err(error))), None) => Err(failure(error.to_string())),
        (Ok(Ok(Ok(layers))), None) => Ok(layers),
    }
}

/// Why a file of weights can't be written.
enum Problem {
    Io(io::Error),
    Load(LoadError),
    Interrupted,
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

/// The tensors of a file to be written.
struct Tensors<'a> {
    checkpoint: &'a Checkpoint,
    infos: Vec<(String, TensorInfo)>,
    pieces: Vec<Piece<'a>>,
    dense_bytes: u64,
    rounded: Option<&'static str>,
}

/// What a tensor's bytes are made of.
struct Piece<'a> {
    tensor: StoredTensor<'a>,
    pruned: Option<&'a Pruned>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The tensor, with zeros in place where it is pruned.
    Whole,
    Shape,
    Bitmap,
    Values,
}

impl<'a> Tensors<'a> {
    fn new(checkpoint: &'a Checkpoint, layers: &'a [Pruned], format: ExportFormat) -> Self {
        let (infos, pieces) = (Vec::new(), Vec::new());
        let mut tensors = Self { checkpoint, infos, pieces, dense_bytes: 0, rounded: None };
        for tensor in checkpoint.stored() {
            let of = |layer: &&Pruned| layer.module == tensor.module && tensor.part == Part::Weight;
            let pruned = layers.iter().find(of);
            let TensorInfo { dtype, shape } = tensor.info.clone();
            if pruned.is_some_and(Pruned::is_updated) && matches!(dtype, Dtype::F16 | Dtype::BF16) {
                tensors.rounded = Some(if dtype == Dtype::F16 { "f16" } else { "bf16" });
            }
            tensors.dense_bytes += (shape.iter().product::<usize>() * dtype.bitsize() / 8) as u64;
            let mut add = |kind, suffix: &str, dtype, shape| {
                tensors.infos.push((format!("{}{suffix}", tensor.name), TensorInfo { dtype, shape }));
                tensors.pieces.push(Piece { tensor: tensor.clone(), pruned, kind });
            };
            match pruned.filter(|_| format == ExportFormat::Sparse) {
                None => add(Kind::Whole, "", dtype, shape),
                Some(layer) => {
                    let [of_shape, of_bitmap, of_values] = weights::SUFFIXES;
                    add(Kind::Shape, of_shape, Dtype::I64, vec![2]);
                    add(Kind::Bitmap, of_bitmap, Dtype::U8, vec![shape[0], shape[1].div_ceil(8)]);
                    add(Kind::Values, of_values, dtype, vec![layer.pattern.kept()]);
                }
            }
        }
        tensors
    }

    /// The bytes of one tensor.
    fn bytes(&self, index: usize) -> Result<Cow<'a, [u8]>, LoadError> {
        let Piece { tensor, pruned, kind } = &self.pieces[index];
        let checkpoint = self.checkpoint;
        let Some(pruned) = pruned else { return checkpoint.stored_bytes(tensor.name) };
        let (shape, cols) = (&tensor.info.shape, tensor.info.shape[1]);
        if *kind == Kind::Shape {
            return Ok(shape.iter().flat_map(|&extent| (extent as i64).to_le_bytes()).collect::<Vec<u8>>().into());
        }
        let transposed = checkpoint.architecture().modules[tensor.module].transposed;
        let pattern = if transposed { Cow::Owned(transpose(&pruned.pattern)) } else { Cow::Borrowed(&pruned.pattern) };
        let bitmap = weights::bitmap(cols, pattern.words());
        if *kind == Kind::Bitmap {
            return Ok(bitmap.into());
        }
        let width = tensor.info.dtype.bitsize() / 8;
        let bytes = match pruned.updated() {
            None => checkpoint.stored_bytes(tensor.name)?,
            Some(weights) if transposed => {
                let [rows, cols] = [pruned.pattern.rows(), pruned.pattern.cols()];
                encode(&model::transpose(&weights, rows, cols), tensor.info.dtype).into()
            }
            Some(weights) => encode(&weights, tensor.info.dtype).into(),
        };
        Ok(match kind {
            Kind::Values => weights::values(cols, width, &bitmap, &bytes).into(),
            Kind::Whole | Kind::Shape | Kind::Bitmap => {
                let mut bytes = bytes.into_owned();
                weights::mask(cols, width, &bitmap, &mut bytes);
                bytes.into()
            }
        })
    }
}

/// Numbers as a file has them.
fn encode(numbers: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F16 => numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect(),
        Dtype::BF16 => numbers.iter().flat_map(|&number| bf16::from_f32(number).to_le_bytes()).collect(),
        Dtype::F64 => numbers.iter().flat_map(|&number| f64::from(number).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
    }
}

/// The pattern of the transposed matrix.
fn transpose(pattern: &Pattern) -> Pattern {
    Pattern::from_rows(pattern.cols(), pattern.rows(), |row, words| {
        for col in (0..pattern.rows()).filter(|&col| pattern.get(col, row)) {
            words[col / 64] |= 1 << (col % 64);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_pattern_keeps_the_same_weights() {
        let pattern = Pattern::from_rows(3, 70, |row, words| words[row % 2] = 1 << row | 1 << 5);
        let transposed = transpose(&pattern);
        assert_eq!((transposed.rows(), transposed.cols(), transposed.kept()), (70, 3, pattern.kept()));
        assert!((0..3).all(|row| (0..70).all(|col| pattern.get(row, col) == transposed.get(col, row))));
        assert_eq!(transpose(&transposed), pattern);
    }
}
