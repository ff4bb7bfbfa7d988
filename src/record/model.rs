//! A model cell as reports see it.

use super::cell::{Failure, Record, Timings};
use super::numbers::{Measured, Numbers};
use crate::column::Value;
use crate::config::experiment::MetricColumn;
use crate::plan::{Cell, CellId, Of, Settings};

/// A model cell as reports see it: the groups of its results that are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct CellResult {
    /// The cell's name.
    pub id: CellId,
    /// What was run.
    pub cell: Cell,
    /// The numbers, unless there are none or the gate was missed.
    pub measured: Option<Measured>,
    /// Why its last measurement failed, if it did.
    pub failure: Option<Failure>,
    /// How long it took.
    pub timings: Timings,
    /// What its latency was measured with and on, where it was.
    pub timed_on: Option<Settings>,
}

impl CellResult {
    /// Of a record, if it is one of a model cell.
    pub fn of(record: Record) -> Option<Self> {
        let cell = Cell::of(&record.cell)?.clone();
        // A variant that was shown to be no faithful execution has no numbers, also none from before.
        let faithful = record.failure.as_ref().is_none_or(|failure| failure.gate.is_none());
        let timed = record.results.iter().find(|part| matches!(part.result, Numbers::Latency(_)));
        let timed_on = timed.and_then(|part| part.inputs.0.values().next().cloned());
        let Record { id, results, failure, timings, .. } = record;
        Some(Self { id, cell, measured: Measured::of(results).filter(|_| faithful), failure, timings, timed_on })
    }

    /// A column of `summary.csv`. A variant that missed the gate shows how far off it was, and nothing else.
    pub fn column(&self, column: MetricColumn) -> Value {
        let missed = self.failure.as_ref().and_then(|failure| failure.gate);
        match (&self.measured, missed, column) {
            (Some(measured), ..) => measured.column(column),
            (None, Some(gate), MetricColumn::GateMaxAbs) => gate.max_abs.into(),
            (None, Some(gate), MetricColumn::GateMaxLogit) => gate.max_logit.into(),
            (None, ..) => Value::Missing,
        }
    }
}
