//! `plan`: what `run` would do, and why.

use super::args::{OutputFormat, PlanArgs};
use super::interrupt::Interrupt;
use super::output::Printer;
use super::run::{counted, load_experiment, prepare_selection, warn_of_another_file, warn_of_memory};
use crate::error::{CliError, exit};
use crate::plan::{Cell, KernelCell, Planned, Task};
use crate::record::{Store, experiment_folder};
use crate::report::table::{Table, Value};
use crate::run::Prepared;
use indicatif::HumanBytes;
use serde_json::json;
use std::collections::HashMap;

pub(super) fn plan(args: &PlanArgs) -> Result<u8, CliError> {
    let experiment = load_experiment(&args.selection)?;
    let store = Store::at(experiment_folder(&args.selection.results, &experiment.name));
    warn_of_another_file(&store, &experiment, &args.selection.file);
    let interrupt = Interrupt::listen(|_| {});
    let prepared = prepare_selection(experiment, &args.selection, &store, &interrupt, true)?;
    warn_of_memory(&prepared, "`run` stops unless it is given `--ignore-memory`");
    match args.output_format {
        OutputFormat::Json => json_lines(&prepared),
        OutputFormat::Human => show(&prepared),
    }
    Ok(exit::OK)
}

fn json_lines(prepared: &Prepared) {
    for planned in &prepared.cells {
        let parts = planned.parts.iter().map(|part| (part.group.to_owned(), json!(part.id)));
        let parts: serde_json::Map<String, serde_json::Value> = parts.collect();
        Printer::json(&json!({
            "id": planned.id,
            "setup": planned.task.kind().setup(),
            "cell": planned.task,
            "parts": parts,
            "decision": planned.decision.word(),
            "reason": planned.decision.to_string(),
            "due": if planned.runs() { &planned.due[..] } else { &[] },
            "taken_from": planned.taken_from,
            "selected": planned.selected,
            "runs": planned.runs(),
            "memory_bytes": planned.memory_bytes,
        }));
    }
}

fn show(prepared: &Prepared) {
    let tables = KINDS.map(|table| table(&prepared.cells));
    let tables = tables.iter().filter(|table| !table.rows.is_empty());
    Printer::data(&tables.map(Table::terminal).collect::<Vec<_>>().join("\n"));
    reasons(prepared).iter().for_each(|reason| Printer::note(reason));
    let running = prepared.cells.iter().filter(|planned| planned.runs());
    let memory = match running.map(|planned| planned.memory_bytes).max() {
        Some(bytes) => format!(", at most about {} of memory", HumanBytes(bytes)),
        None => String::new(),
    };
    let unused = match prepared.unused {
        0 => String::new(),
        count => format!("; {} of earlier settings in the folder, unused", counted(count, "cell")),
    };
    let total = counted(prepared.cells.len(), "cell");
    Printer::note(&format!("{total}, {} to measure{memory}{unused}", prepared.running()));
}

/// Why cells run or not, where there is more to say than a word; the same reason is said once.
fn reasons(prepared: &Prepared) -> Vec<String> {
    let mut reasons: Vec<(String, String, usize)> = Vec::new();
    let mut places = HashMap::new();
    for (id, decision) in prepared.reasons() {
        let decision = decision.to_string();
        let place = *places.entry(decision.clone()).or_insert(reasons.len());
        match reasons.get_mut(place) {
            Some((.., more)) => *more += 1,
            None => reasons.push((decision, id.to_string(), 0)),
        }
    }
    let line = |(decision, id, more): (String, String, usize)| match more {
        0 => format!("{id} {decision}"),
        more => format!("{id} and {more} more {decision}"),
    };
    reasons.into_iter().map(line).collect()
}

/// The table of each kind of work.
const KINDS: [fn(&[Planned]) -> Table; 2] = [models, kernels];

fn action(planned: &Planned) -> Value {
    if planned.selected { planned.decision.word().into() } else { "not selected".into() }
}

fn models(cells: &[Planned]) -> Table {
    let columns = [
        "cell", "do", "setup", "model", "method", "scope", "pattern", "sparsity", "seed", "backend", "dtype", "memory",
    ];
    let mut table = Table::new("plan", columns);
    let row = |planned: &Planned, cell: &Cell| {
        let point = cell.prune.as_ref();
        vec![
            planned.id.as_str().into(),
            action(planned),
            cell.setup().into(),
            cell.model.clone().into(),
            point.map(|p| p.method.name()).into(),
            point.and_then(|p| p.scope).map(|scope| scope.name()).into(),
            point.map(|p| p.pattern.to_string()).into(),
            point.and_then(|p| p.target()).into(),
            cell.seed.into(),
            cell.backend.name().into(),
            cell.dtype.name().into(),
            HumanBytes(planned.memory_bytes).to_string().into(),
        ]
    };
    table.rows.extend(cells.iter().filter_map(|planned| match &planned.task {
        Task::Model(cell) => Some(row(planned, cell)),
        Task::Kernel(_) => None,
    }));
    table
}

fn kernels(cells: &[Planned]) -> Table {
    let columns = [
        "cell",
        "do",
        "format",
        "backend",
        "dtype",
        "out_features",
        "in_features",
        "tokens",
        "sparsity",
        "seed",
        "memory",
    ];
    let mut table = Table::new("plan", columns);
    let row = |planned: &Planned, cell: &KernelCell| {
        vec![
            planned.id.as_str().into(),
            action(planned),
            cell.format.name().into(),
            cell.backend.name().into(),
            cell.dtype.name().into(),
            Value::Int(cell.shape[0] as u64),
            Value::Int(cell.shape[1] as u64),
            Value::Int(cell.tokens as u64),
            cell.sparsity.into(),
            cell.seed.into(),
            HumanBytes(planned.memory_bytes).to_string().into(),
        ]
    };
    table.rows.extend(cells.iter().filter_map(|planned| match &planned.task {
        Task::Kernel(cell) => Some(row(planned, cell)),
        Task::Model(_) => None,
    }));
    table
}
