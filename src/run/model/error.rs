//! Why a cell of a model has no numbers.

use crate::config::experiment::TaskName;
use crate::execute::{PackError, ReadError};
use crate::load::LoadError;
use crate::measure::{ForwardError, Gate, GateMiss};
use crate::prune::PruneError;
use crate::record::{Failure, FailureKind};
use thiserror::Error;

/// Why a cell failed.
#[derive(Debug, Error)]
pub(in crate::run) enum CellError {
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error("{1}")]
    Gate(Gate, GateMiss),
    #[error(transparent)]
    Prune(#[from] PruneError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A point that could not be pruned for an earlier cell.
    #[error("{0}")]
    Point(String),
    #[error("the logits of row {row} of `{file}` contain NaN or infinity, in the task `{task}`")]
    TaskLogits { task: TaskName, row: usize, file: String },
    #[error("`exclude` leaves no linear to prune: {0}")]
    NothingToPrune(String),
}

impl CellError {
    /// As it is stored.
    pub fn failure(&self) -> Failure {
        let (kind, gate) = match self {
            Self::Gate(gate, _) => (FailureKind::Gate, Some(*gate)),
            Self::Forward(ForwardError::NotFinite { .. }) | Self::TaskLogits { .. } => (FailureKind::NotFinite, None),
            Self::Prune(_) | Self::NothingToPrune(_) | Self::Point(_) => (FailureKind::Pruning, None),
            Self::Forward(_) | Self::Pack(_) | Self::Read(_) | Self::Load(_) => (FailureKind::Other, None),
        };
        Failure { gate, ..Failure::new(kind, self.to_string()) }
    }
}
