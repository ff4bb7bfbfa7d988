//! Where a forward pass spends its time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The parts of a forward pass that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Matrix products, dense or sparse, the output head's included.
    Linears,
    /// Scores, softmax and sums of values, with rotation and the cache; not the projections.
    Attention,
}

/// Time spent in the parts of forward passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectionTimes {
    /// In matrix products, dense or sparse, the output head's included.
    pub linears: Duration,
    /// In the attention between the projections.
    pub attention: Duration,
}

/// Adds up time by section, of work that the device has finished.
#[derive(Debug, Default)]
pub(super) struct Clock {
    nanos: [AtomicU64; 2],
}

impl Clock {
    /// Runs `work` between two calls of `sync`, which waits for the device, and counts its time.
    pub fn time<T>(&self, section: Section, sync: impl Fn(), work: impl FnOnce() -> T) -> T {
        sync();
        let start = Instant::now();
        let result = work();
        sync();
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos[section as usize].fetch_add(nanos, Ordering::Relaxed);
        result
    }

    /// The times since the last call.
    pub fn take(&self) -> SectionTimes {
        let [linears, attention] =
            [Section::Linears, Section::Attention].map(|s| self.nanos[s as usize].swap(0, Ordering::Relaxed));
        SectionTimes { linears: Duration::from_nanos(linears), attention: Duration::from_nanos(attention) }
    }
}
