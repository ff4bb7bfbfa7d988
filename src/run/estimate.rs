//! How long a plan may take, judged by cells that were measured already.
//!
//! ```text
//!   cells of the folder and of its siblings ──cost──> Known   key columns, seconds
//!   a cell that runs ──its likest Known──> seconds            same kind of work and backend, most of the key the same
//! ```
//! An estimate and no more: other machines and other settings may have made those cells. Decides nothing.

use super::prepared::Prepared;
use crate::column::Value;
use crate::plan::{CellId, Task};
use crate::record::{Record, Store, Timings};
use std::collections::HashMap;

/// The most cells that are looked at.
const MOST_KNOWN: usize = 500;
/// Columns that say nothing of the time.
const IDLE: [&str; 2] = ["setup", "seed"];

/// How long the cells that run may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Seconds, of those cells that are like measured ones.
    pub seconds: f64,
    /// Cells that the estimate is made of.
    pub measured: usize,
    /// Cells that run and are like none of them.
    pub unlike: usize,
}

/// A measured cell.
struct Known {
    kind: &'static str,
    key: Vec<(&'static str, Value)>,
    seconds: f64,
}

/// The estimate for what a plan runs; none where nothing like it was measured.
pub fn estimate(prepared: &Prepared, store: &Store) -> Option<Estimate> {
    let known = known(store);
    let running = prepared.cells.iter().filter(|planned| planned.runs());
    let seconds: Vec<Option<f64>> = running.map(|planned| likest(&planned.task, &known)).collect();
    let told: Vec<f64> = seconds.iter().copied().flatten().collect();
    (!told.is_empty()).then(|| Estimate {
        seconds: told.iter().sum(),
        measured: known.len(),
        unlike: seconds.len() - told.len(),
    })
}

/// The mean cost of the measured cells that have most of a task's key, among those of its kind and backend.
fn likest(task: &Task, known: &[Known]) -> Option<f64> {
    let (kind, key) = (task.kind().name(), key(task));
    let backend =
        |key: &[(&str, Value)]| key.iter().find(|(name, _)| *name == "backend").map(|(_, value)| value.clone());
    let own = backend(&key);
    let alike = known.iter().filter(|known| known.kind == kind && backend(&known.key) == own);
    let scored: Vec<(usize, f64)> =
        alike.map(|known| (known.key.iter().filter(|entry| key.contains(entry)).count(), known.seconds)).collect();
    let best = scored.iter().map(|(score, _)| *score).max()?;
    let costs: Vec<f64> = scored.iter().filter(|(score, _)| *score == best).map(|(_, seconds)| *seconds).collect();
    Some(costs.iter().sum::<f64>() / costs.len() as f64)
}

fn key(task: &Task) -> Vec<(&'static str, Value)> {
    task.kind().key().into_iter().filter(|(name, _)| !IDLE.contains(name)).collect()
}

/// The cells of the folder, and of the other experiments of the results folder.
fn known(store: &Store) -> Vec<Known> {
    let siblings = store.siblings().into_iter().map(|(_, store)| store);
    let stores: Vec<Store> = std::iter::once(store.clone()).chain(siblings).collect();
    let ids = stores.iter().flat_map(|store| store.ids().into_iter().map(move |id| (store, id)));
    let read = |(store, id): (&Store, CellId)| store.cell(&id).ok().flatten();
    let records: Vec<Record> =
        ids.take(MOST_KNOWN).filter_map(read).filter(|record| record.failure.is_none()).collect();
    let mut shared: HashMap<(usize, u64), usize> = HashMap::new();
    for record in &records {
        for at in together(&record.timings) {
            *shared.entry(at).or_default() += 1;
        }
    }
    let cost = |timings: &Timings| {
        let own =
            timings.measure_seconds + timings.convert_seconds.unwrap_or(0.0) + timings.compile_seconds.unwrap_or(0.0);
        let shares = together(timings).map(|at| f64::from_bits(at.1) / shared.get(&at).copied().unwrap_or(1) as f64);
        own + shares.sum::<f64>()
    };
    let known = |record: &Record| Known {
        kind: record.cell.kind().name(),
        key: key(&record.cell),
        seconds: cost(&record.timings),
    };
    records.iter().map(known).collect()
}

/// What cells did together, each with its time; those that share it have the same, to the last bit.
fn together(timings: &Timings) -> impl Iterator<Item = (usize, u64)> {
    let times = [Some(timings.load_seconds), timings.calibrate_seconds, timings.prune_seconds];
    times.into_iter().enumerate().filter_map(|(kind, time)| Some((kind, time?.to_bits())))
}
