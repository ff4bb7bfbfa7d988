//! How far a folder is, while others may be at work on it: a glance at every cell, without a lock.
//!
//! ```text
//!   plan.json ──> cells ─┬─ cells/ID.json   its groups of results, its failure     done | failed | left
//!                        └──> Group: kind, model, method
//!   runs/*.json ──> Runner: host, process, since when, what it does
//!   what is done ──Pace──> seconds of what is left
//! ```
//! Owns the counts. Digests are not checked, which takes longer than all else: `plan` and `report` do that.

use crate::column::Value;
use crate::plan::{CellId, Class, Pace, Seconds, Task};
use crate::record::{
    Acceptances, Life, Outline, PartOutline, PlanEntry, Program, Record, RunRecord, Store, StoreError, host, life,
};
use rayon::prelude::*;
use std::collections::HashMap;

/// How far a folder is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The experiment's name; none before the first cell is done.
    pub name: Option<String>,
    /// Cells by kind, model and method, in the plan's order.
    pub groups: Vec<Group>,
    /// The cells that failed, with their reasons.
    pub failures: Vec<FailedCell>,
    /// Cells whose files can't be read, one message each.
    pub damaged: Vec<String>,
    /// Of the cells that are done, those that another version of the program has measured and nobody has accepted.
    pub stale: usize,
    /// Processes that run, and those that gave no sign of life since.
    pub runners: Vec<Runner>,
    /// Seconds that one process would take for what is left, by what is done; none where nothing is.
    pub seconds_left: Option<f64>,
}

/// Cells of one kind, model and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The kind of work.
    pub kind: &'static str,
    /// The model, where there is one.
    pub model: String,
    /// The method; of an analysis its name, of a kernel its format.
    pub method: String,
    /// Cells that have all results that are wanted.
    pub done: usize,
    /// Cells whose last measurement failed.
    pub failed: usize,
    /// The others.
    pub left: usize,
}

/// A cell that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCell {
    /// Its name.
    pub id: CellId,
    /// What it is, in words.
    pub cell: String,
    /// Why.
    pub message: String,
}

/// A process that has begun and not ended.
#[derive(Clone, Debug)]
pub struct Runner {
    /// What it says of itself.
    pub run: RunRecord,
    /// Whether it still runs.
    pub runs: bool,
}

/// What a glance at a cell's file shows.
enum Glance {
    Done { seconds: Seconds, stale: bool },
    Failed(String),
    Left,
    Damaged(String),
}

/// How far a folder is.
///
/// # Errors
/// When the plan or a file can't be read.
pub fn status(store: &Store) -> Result<Status, StoreError> {
    let mut status = Status { runners: runners(store), ..Status::default() };
    let Some(plan) = store.plan()? else { return Ok(status) };
    status.name = Some(plan.name);
    let current = Current { program: Program::current(), accepted: store.acceptances() };
    let look = |entry| glance(store, entry, &current);
    let glances: Vec<Glance> = plan.cells.par_iter().map(look).collect::<Result<_, _>>()?;
    let mut pace = Pace::default();
    let mut rest: HashMap<Class, usize> = HashMap::new();
    let mut places: HashMap<(&'static str, String, String), usize> = HashMap::new();
    for (PlanEntry { id, cell, .. }, glance) in plan.cells.into_iter().zip(glances) {
        let class = Class::of(&cell);
        let group = status.group_of(&cell, &mut places);
        match glance {
            Glance::Done { seconds, stale } => {
                group.done += 1;
                // Each cell's file says how long loading and calibrating took: it counts once.
                let shared = if pace.knows_group_of(&class) { 0.0 } else { seconds.group };
                pace.learn(&class, Seconds { group: shared, ..seconds });
                status.stale += usize::from(stale);
                continue;
            }
            Glance::Failed(message) => {
                group.failed += 1;
                status.failures.push(FailedCell { id, cell: cell.to_string(), message });
                continue;
            }
            Glance::Left => group.left += 1,
            Glance::Damaged(message) => {
                group.left += 1;
                status.damaged.push(message);
            }
        }
        *rest.entry(class).or_default() += 1;
    }
    status.seconds_left = pace.left(rest.iter().map(|(class, count)| (class, *count)));
    Ok(status)
}

impl Status {
    /// Of all groups: done, failed, left.
    pub fn counts(&self) -> [usize; 3] {
        let sum = |of: fn(&Group) -> usize| self.groups.iter().map(of).sum();
        [sum(|group| group.done), sum(|group| group.failed), sum(|group| group.left)]
    }

    /// How many processes measure.
    pub fn running(&self) -> usize {
        self.runners.iter().filter(|runner| runner.runs).map(|runner| runner.run.at_once.unwrap_or(1)).sum()
    }

    fn group_of(&mut self, cell: &Task, places: &mut HashMap<(&'static str, String, String), usize>) -> &mut Group {
        let key = cell.kind().key();
        let entry = |name: &str| {
            let value = key.iter().find(|(column, _)| *column == name).map(|(_, value)| value);
            value.filter(|value| **value != Value::Missing).map(ToString::to_string)
        };
        let kind = cell.kind().name();
        let model = entry("model").unwrap_or_default();
        let method = ["method", "analysis", "variant", "format"].into_iter().find_map(entry).unwrap_or_default();
        let at = *places.entry((kind, model, method)).or_insert_with_key(|(kind, model, method)| {
            let (model, method) = (model.clone(), method.clone());
            self.groups.push(Group { kind, model, method, done: 0, failed: 0, left: 0 });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }
}

/// Whose results count.
struct Current {
    program: Program,
    accepted: Acceptances,
}

impl Current {
    fn has(&self, part: &PartOutline) -> bool {
        self.accepted.is_current(&part.id, &part.program, &self.program)
    }
}

fn glance(store: &Store, entry: &PlanEntry, current: &Current) -> Result<Glance, StoreError> {
    let outline = match store.outline(&entry.id) {
        Ok(Some(outline)) => outline,
        Ok(None) => return Ok(Glance::Left),
        Err(error) if error.is_of_a_file() => return Ok(Glance::Damaged(error.to_string())),
        Err(error) => return Err(error),
    };
    let Outline { format, results, failure, timings } = outline;
    let lacks = |id: &CellId| results.iter().all(|part| part.id != *id);
    let wanted = |id: &CellId| entry.parts.iter().any(|part| part.id == *id);
    let missing: Vec<&CellId> =
        entry.parts.iter().filter(|part| !part.check && lacks(&part.id)).map(|part| &part.id).collect();
    // A cell of another format is measured again.
    Ok(match failure {
        _ if format != Record::FORMAT => Glance::Left,
        Some(failure) if missing.iter().any(|id| failure.parts.contains(id)) => Glance::Failed(failure.message),
        Some(_) | None if !missing.is_empty() => Glance::Left,
        Some(_) | None => Glance::Done {
            seconds: Seconds {
                own: timings.measure_seconds + timings.convert_seconds.unwrap_or(0.0),
                point: timings.prune_seconds.unwrap_or(0.0),
                group: timings.load_seconds + timings.calibrate_seconds.unwrap_or(0.0),
            },
            stale: results.iter().any(|part| wanted(&part.id) && !current.has(part)),
        },
    })
}

/// The processes that have begun and not ended, in the order in which they began.
fn runners(store: &Store) -> Vec<Runner> {
    let here = host();
    let runs = store.runs().into_iter();
    let judged = runs.map(|(run, written)| (life(&run, written, &here), run));
    let open = judged.filter(|(life, _)| *life != Life::Over);
    open.map(|(life, run)| Runner { run, runs: life == Life::Running }).collect()
}
