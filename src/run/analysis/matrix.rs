//! A matrix as analyses see it, wherever it comes from.
//!
//! ```text
//!   prune point    pattern of the pruner, weights of the pruned model       explicit
//!   dense model    what is not 0                                             nonzero
//!   checkpoint     mask or bitmap of its files, else what is not 0
//!   .pt file       mask beside it, else what is not 0
//! ```

use super::slots::{Slot, slots};
use crate::analysis::{Axis, Mask};
use crate::config::analysis::{FeatureAxis, Role};
use crate::config::source::{ModelSource, WrittenPath};
use crate::load::{Checkpoint, LoadError, Loader, MatrixSource};
use crate::model::{Architecture, Part};
use crate::plan::{AnalysisCell, AnalysisSource};
use crate::record::MatrixInfo;
use crate::sparse::Pattern;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A matrix, and what is known of it.
pub(super) struct Matrix {
    /// `[out_features, in_features]`.
    pub pattern: Pattern,
    /// Row-major, zeros in place.
    pub weights: Vec<f32>,
    pub path: String,
    pub sha256: String,
    pub dtype: String,
    pub value_bytes: u64,
    pub explicit: bool,
    /// The model's own size of a head.
    pub head_dim: Option<usize>,
    /// Norms of its inputs over all calibration tokens.
    pub norms: Option<Vec<f64>>,
    /// `[tokens, in_features]`, where they are looked at.
    pub inputs: Option<Vec<f32>>,
}

/// What stands between a matrix and the weights and kept positions that it is made of.
pub(super) struct Raw {
    pub shape: [usize; 2],
    pub weights: Vec<f32>,
    /// Which are kept, where something else than their values says so.
    pub kept: Option<Pattern>,
}

impl Raw {
    /// Some of the rows, where the matrix is a part of a fused weight.
    pub fn rows(self, rows: Option<&[usize]>) -> Self {
        let Some(rows) = rows else { return self };
        let cols = self.shape[1];
        let weights = rows.iter().flat_map(|&row| self.weights[row * cols..][..cols].iter().copied()).collect();
        let pick = |kept: Pattern| {
            Pattern::from_rows(rows.len(), cols, |row, words| words.copy_from_slice(kept.row(rows[row])))
        };
        Self { shape: [rows.len(), cols], weights, kept: self.kept.map(pick) }
    }

    /// The pattern, with whether it is explicit; what is not kept is 0.
    pub fn masked(self) -> (Pattern, Vec<f32>, bool) {
        let [rows, cols] = self.shape;
        match self.kept {
            Some(pattern) => {
                let weights = pattern.apply(&self.weights);
                (pattern, weights, true)
            }
            None => {
                let pattern = Pattern::keep_where(rows, cols, &self.weights, |_, weight| weight != 0.0);
                (pattern, self.weights, false)
            }
        }
    }
}

/// A pattern of kept positions, row-major.
pub(super) fn pattern_of(kept: &[bool], [rows, cols]: [usize; 2]) -> Pattern {
    let ones: Vec<f32> = kept.iter().map(|&kept| f32::from(u8::from(kept))).collect();
    Pattern::keep_where(rows, cols, &ones, |_, one| one != 0.0)
}

impl Matrix {
    /// Reads a file, and what lies beside it.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn of_file(file: &MatrixSource, with_inputs: bool, with_norms: bool) -> Result<Self, LoadError> {
        let loaded = file.read(with_inputs || with_norms)?;
        let kept = loaded.mask.map(|mask| pattern_of(&mask, file.shape));
        let (pattern, weights, explicit) = Raw { shape: file.shape, weights: loaded.weights, kept }.masked();
        let norms = loaded.inputs.as_ref().filter(|_| with_norms).map(|inputs| norms(inputs, file.shape[1]));
        Ok(Self {
            pattern,
            weights,
            path: file.path.display().to_string(),
            // The first is the matrix's own.
            sha256: file.sha256.split(' ').next().unwrap_or_default().to_owned(),
            dtype: file.dtype.clone(),
            value_bytes: file.value_bytes,
            explicit,
            head_dim: None,
            norms,
            inputs: loaded.inputs.filter(|_| with_inputs),
        })
    }

    /// `[out_features, in_features]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.pattern.rows(), self.pattern.cols()]
    }

    /// Rows that keep nothing.
    pub fn dead_rows(&self) -> usize {
        (0..self.pattern.rows()).filter(|&row| self.pattern.kept_in_row(row) == 0).count()
    }

    /// What is recorded of it.
    pub fn info(&self) -> MatrixInfo {
        let columns = Mask::of(&self.pattern, Axis::In);
        MatrixInfo {
            path: self.path.clone(),
            sha256: self.sha256.clone(),
            out_features: self.pattern.rows(),
            in_features: self.pattern.cols(),
            dtype: self.dtype.clone(),
            mask_source: self.mask_source().into(),
            nnz: self.pattern.kept() as u64,
            dead_rows: self.dead_rows(),
            dead_cols: (0..columns.features()).filter(|&col| columns.is_dead(col)).count(),
        }
    }

    /// `explicit` or `nonzero`.
    pub fn mask_source(&self) -> &'static str {
        if self.explicit { "explicit" } else { "nonzero" }
    }

    /// The weights with a row for every feature.
    pub fn by_feature(&self, axis: Axis) -> Vec<f32> {
        let [rows, cols] = self.shape();
        match axis {
            Axis::Out => self.weights.clone(),
            Axis::In => crate::model::transpose(&self.weights, rows, cols),
        }
    }
}

/// The norm of every column of `[tokens, width]`.
pub(super) fn norms(inputs: &[f32], width: usize) -> Vec<f64> {
    let mut squares = vec![0.0; width];
    for row in inputs.chunks(width) {
        squares.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    squares.into_iter().map(f64::sqrt).collect()
}

/// Which side features are, of a source.
pub(super) fn axis_of(cell: &AnalysisCell, source: &AnalysisSource) -> Axis {
    match cell.axis_of(source) {
        FeatureAxis::Out => Axis::Out,
        FeatureAxis::In | FeatureAxis::Residual => Axis::In,
    }
}

/// The slot of a cell in a model; of experts the one of the same name.
pub(super) fn slot_of(cell: &AnalysisCell, architecture: &Architecture) -> Option<Slot> {
    slots(architecture).into_iter().find(|slot| {
        let name = &architecture.modules[slot.module].name;
        let named = slot.expert.is_none() || cell.sources.iter().any(|source| source.module == *name);
        (Some(slot.layer), Some(slot.role)) == (cell.layer, cell.role) && named
    })
}

/// The model's size of a head, where a role has heads.
pub(super) fn head_dim(architecture: &Architecture, role: Option<Role>) -> Option<usize> {
    let heads = matches!(role, Some(Role::Q | Role::K | Role::V | Role::O));
    heads.then_some(architecture.attention.head_dim)
}

/// Checkpoints and files that are open, so that every place of a checkpoint is read from the same one.
#[derive(Default)]
pub(super) struct Opened(Vec<(PathBuf, Checkpoint, String)>);

impl Opened {
    /// The matrix of a cell in a checkpoint folder.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn matrix(&mut self, cell: &AnalysisCell, folder: &str) -> Result<Option<Matrix>, LoadError> {
        let path = Path::new(folder);
        if !self.0.iter().any(|(known, ..)| known == path) {
            let loader = Loader::new(true, Arc::new(|_, _, _| ControlFlow::Continue(())));
            let files = loader.find(&ModelSource::Path(WrittenPath::new(&path.display().to_string())))?;
            let digest = files.digest();
            self.0.push((path.to_owned(), Checkpoint::open(files)?, digest));
        }
        let Some((_, checkpoint, digest)) = self.0.iter().find(|(known, ..)| known == path) else { return Ok(None) };
        let architecture = checkpoint.architecture();
        let Some(slot) = slot_of(cell, architecture) else { return Ok(None) };
        let shape = &architecture.modules[slot.module].shape;
        let shape = [shape[0], shape[1]];
        let weights = checkpoint.read(slot.module, Part::Weight)?.into_owned();
        let kept = checkpoint.explicit_mask(slot.module)?.map(|kept| pattern_of(&kept, shape));
        checkpoint.release(slot.module, Part::Weight);
        let (pattern, weights, explicit) = Raw { shape, weights, kept }.rows(slot.rows.as_deref()).masked();
        let dtype = checkpoint.stored_dtype(slot.module).unwrap_or_else(|| "f32".into());
        Ok(Some(Matrix {
            pattern,
            weights,
            path: folder.to_owned(),
            sha256: digest.clone(),
            value_bytes: if dtype.ends_with("16") {
                2
            } else if dtype.ends_with("64") {
                8
            } else {
                4
            },
            dtype,
            explicit,
            head_dim: head_dim(architecture, cell.role),
            norms: None,
            inputs: None,
        }))
    }
}
