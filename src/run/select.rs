//! What is to be done about each cell of a plan: which are selected, what their files say, what other experiments
//! have of them, and what tells new ones from those of earlier settings.

use super::KINDS;
use super::prepared::{PrepareError, PrepareOptions};
use crate::plan::{CellId, Decision, Inputs, Planned, Rerun, Task, decide};
use crate::record::{Program, Record, Store};
use rayon::prelude::*;
use serde_json::Value;
use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The most cells of earlier settings that are looked at.
const MOST_EARLIER: usize = 500;
/// The most new cells that are compared with them: a reader wants to know what has changed, not of every cell.
const MOST_NEW: usize = 1000;
/// The most changes that still tell a new cell from an earlier one, rather than another cell.
const MOST_CHANGES: usize = 2;

/// Decides what to do about each cell; returns how many cells of the folder are not of the plan.
///
/// # Errors
/// When nothing is selected.
pub(super) fn select(cells: &mut [Planned], store: &Store, options: &PrepareOptions) -> Result<usize, PrepareError> {
    let tasks: Vec<&Task> = cells.iter().map(|planned| &planned.task).collect();
    let mine = options.partition.map(|partition| partition.mine(&tasks));
    let wanted = |(index, task): (usize, &&Task)| {
        let wanted = options.only.is_empty() || options.only.iter().any(|only| only.matches(task));
        wanted && mine.as_ref().is_none_or(|mine| mine[index])
    };
    let wanted: Vec<bool> = tasks.iter().enumerate().map(wanted).collect();
    let known: HashSet<&CellId> = cells.iter().map(|planned| &planned.id).collect();
    let unused: Vec<CellId> = store.ids().into_iter().filter(|id| !known.contains(id)).collect();
    let earlier = LazyCell::new(|| Earlier::read(store, &unused));
    let siblings = LazyCell::new(|| Siblings::of(store));
    let (program, accepted) = (Program::current().to_string(), store.acceptances());
    // Reading what is there takes longest.
    let decide = |planned: &Planned| {
        let mut existing = store.existing(&planned.id);
        accepted.mark(&mut existing);
        decide(&existing, &planned.parts, &program, options.rerun)
    };
    let decided: Vec<_> = cells.par_iter().map(decide).collect();
    let (mut running, mut compared) = (0, 0);
    for ((planned, wanted), decided) in cells.iter_mut().zip(wanted).zip(decided) {
        planned.selected = wanted;
        (planned.decision, planned.due) = decided;
        if wanted && options.rerun != Rerun::All {
            siblings_take(planned, &siblings, &program);
        }
        if let Decision::New { why } = &mut planned.decision
            && options.explain
            && wanted
            && compared < MOST_NEW
        {
            compared += 1;
            *why = earlier.changes(&planned.task, &planned.inputs);
        }
        if planned.runs() {
            running += 1;
            planned.selected = options.limit.is_none_or(|limit| running <= limit);
        }
    }
    KINDS.iter().for_each(|kind| (kind.accompany)(cells));
    if cells.iter().any(|planned| planned.selected) {
        return Ok(unused.len());
    }
    let tasks: Vec<&Task> = cells.iter().map(|planned| &planned.task).collect();
    let why = options.only.iter().find_map(|only| only.known(&tasks).err());
    Err(PrepareError::NothingSelected(why))
}

/// Takes over what another experiment has of a cell that lacks it here.
fn siblings_take(planned: &mut Planned, siblings: &LazyCell<Siblings, impl FnOnce() -> Siblings>, program: &str) {
    if !matches!(planned.decision, Decision::New { .. } | Decision::Add { .. }) {
        return;
    }
    let Some((from, groups)) = siblings.groups_of(planned, program) else { return };
    planned.due.retain(|group| !groups.contains(group));
    if planned.due.is_empty() {
        planned.decision = Decision::Copy { from: from.clone() };
    }
    planned.taken_from = Some(from);
}

/// The other experiments of the results folder.
struct Siblings {
    stores: Vec<(String, Store)>,
    /// Which of them have a cell.
    with: HashMap<CellId, Vec<usize>>,
}

impl Siblings {
    fn of(store: &Store) -> Self {
        let stores = store.siblings();
        let mut with: HashMap<CellId, Vec<usize>> = HashMap::new();
        for (index, (_, store)) in stores.iter().enumerate() {
            store.ids().into_iter().for_each(|id| with.entry(id).or_default().push(index));
        }
        Self { stores, with }
    }

    /// The experiment that has most of what is due, and the groups that it has, by this program.
    fn groups_of(&self, planned: &Planned, program: &str) -> Option<(String, Vec<&'static str>)> {
        let mut best: Option<(String, Vec<&'static str>)> = None;
        for &index in self.with.get(&planned.id)? {
            let (name, store) = &self.stores[index];
            // What can't be believed there is measured here.
            let Ok(Some(record)) = store.cell(&planned.id) else { continue };
            let has =
                |id: &CellId| record.results.iter().any(|part| part.id == *id && part.program.to_string() == program);
            let due = planned.parts.iter().filter(|part| planned.due.contains(&part.group) && has(&part.id));
            let groups: Vec<&'static str> = due.map(|part| part.group).collect();
            if groups.len() > best.as_ref().map_or(0, |(_, groups)| groups.len()) {
                best = Some((name.clone(), groups));
            }
        }
        best
    }
}

/// The cells of earlier settings.
struct Earlier(Vec<(Fields, Inputs)>);

/// What tells tasks apart, by name.
type Fields = BTreeMap<String, Value>;

impl Earlier {
    fn read(store: &Store, unused: &[CellId]) -> Self {
        let records = unused.iter().take(MOST_EARLIER).filter_map(|id| store.cell(id).ok().flatten());
        Self(records.map(|Record { cell, inputs, .. }| (fields(&cell), inputs)).collect())
    }

    /// How a cell differs from the earlier one that is nearest to it; nothing where none is near.
    fn changes(&self, task: &Task, inputs: &Inputs) -> Vec<String> {
        let new = fields(task);
        let changes = self.0.iter().map(|(old, read)| {
            let mut changes = differences(old, &new);
            changes.extend(inputs.changes_from(read));
            changes
        });
        let near = changes.filter(|changes| !changes.is_empty() && changes.len() <= MOST_CHANGES);
        near.min_by_key(Vec::len).unwrap_or_default()
    }
}

/// The fields of a task, those of a prune point among them; not how its model is spelled, which decides nothing.
fn fields(task: &Task) -> Fields {
    let mut fields = Fields::new();
    let Ok(Value::Object(of)) = serde_json::to_value(task) else { return fields };
    for (key, value) in of.into_iter().filter(|(key, _)| key != "model") {
        match value {
            Value::Object(inner) => fields.extend(inner),
            value => drop(fields.insert(key, value)),
        }
    }
    fields
}

/// `sparsity 0.5 -> 0.6`
fn differences(old: &Fields, new: &Fields) -> Vec<String> {
    let shown = |fields: &Fields, key: &str| match fields.get(key) {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let keys = new.keys().chain(old.keys().filter(|key| !new.contains_key(*key)));
    let differing = keys.filter(|key| shown(old, key) != shown(new, key));
    differing.map(|key| format!("{key} {} -> {}", shown(old, key), shown(new, key))).collect()
}
