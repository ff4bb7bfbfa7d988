//! What a model cell times, and on what: all of it decides how long the same work takes. Knows no cell.

use crate::config::experiment::LatencySettings;

/// What a cell times, and on what: all that decides how long it takes beside the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyPoint {
    /// What is timed.
    pub work: LatencySettings,
    /// Where it runs.
    pub timed_on: TimedOn,
}

/// What decides how long the same work takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimedOn {
    /// The name of the GPU or processor.
    pub device: String,
    /// CPU threads.
    pub threads: usize,
    /// The version of the program's kernels.
    pub kernels: u32,
}
