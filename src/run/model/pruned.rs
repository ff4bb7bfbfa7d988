//! Which linears a point leaves as they are, what pruning leaves of the others, and what calibration leaves of a point.
//! How it is decided is patterns.rs's and calibrate.rs's affair.

use crate::execute::{ReadError, SparseBackend};
use crate::model::DenseWeight;
use crate::plan::PrunePoint;
use crate::record::{Scarce, Ties};
use crate::sparse::Pattern;
use burn::tensor::DType;
use std::borrow::Cow;

/// A pruned linear.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::run) struct Pruned {
    /// Its module's index.
    pub module: usize,
    /// The weights kept.
    pub pattern: Pattern,
    /// Those of them that are not zero.
    pub kept: u64,
    /// The new values of the weights kept, row after row, where the method changes them.
    pub(super) values: Option<Vec<f32>>,
}

impl Pruned {
    /// The weights `[rows, cols]`: those kept have the values that the pruned model has; what stands elsewhere
    /// means nothing. `dense` is the same linear's weight in the dense model.
    ///
    /// # Errors
    /// When the device does not give them back.
    pub fn weights<'a, B: SparseBackend>(&self, dense: &'a DenseWeight<B>) -> Result<Cow<'a, [f32]>, ReadError> {
        match &self.values {
            Some(values) => Ok(self.pattern.unpack(values).into()),
            None => dense.host(),
        }
    }

    /// The weights `[rows, cols]` of the pruned model, zeros in place, where the method changes them.
    pub fn updated(&self) -> Option<Vec<f32>> {
        self.values.as_ref().map(|values| self.pattern.unpack(values))
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.pattern.words().len() * 8 + self.values.as_ref().map_or(0, |values| values.len() * 4)
    }

    /// Whether the method changes the weights that it keeps.
    pub fn is_updated(&self) -> bool {
        self.values.is_some()
    }

    /// The weight of the pruned model, zeros in place.
    ///
    /// # Errors
    /// When the device does not give back what is masked on the host.
    pub fn masked<B: SparseBackend>(
        &self,
        dense: &DenseWeight<B>,
        dtype: DType,
        device: &B::Device,
    ) -> Result<DenseWeight<B>, ReadError> {
        let shape = [self.pattern.rows(), self.pattern.cols()];
        match &self.values {
            Some(values) => Ok(DenseWeight::new(self.pattern.unpack(values).into(), shape, dtype, device)),
            None => dense.masked(&self.pattern),
        }
    }
}

/// The names of linears that a point leaves as they are.
///
/// # Errors
/// When a glob is none.
pub(super) fn excluded(point: &PrunePoint) -> Result<globset::GlobSet, globset::Error> {
    let mut globs = globset::GlobSetBuilder::new();
    for glob in &point.exclude {
        globs.add(globset::Glob::new(glob)?);
    }
    globs.build()
}

/// What calibration made of a point.
pub(in crate::run) struct Calibrated {
    /// Its pruned linears, in the order of their modules.
    pub layers: Vec<Pruned>,
    /// The time of the passes that served it, which other points may have shared.
    pub calibrate_seconds: f64,
    /// The time of its own pruning.
    pub prune_seconds: f64,
    /// Weights that tie, where the method knows.
    pub ties: Option<Ties>,
    /// Linears of experts that few tokens reach, where there are any.
    pub scarce: Option<Scarce>,
}
