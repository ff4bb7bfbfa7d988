//! `plan`: what `run` would do, and why.

use super::args::{OutputFormat, PlanArgs};
use super::interrupt::Interrupt;
use super::output::Printer;
use super::run::{counted, load_experiment, prepare_selection, warn_of_memory};
use crate::error::{CliError, exit};
use crate::record::{Store, experiment_folder};
use crate::report::table::{Table, Value};
use crate::run::{Planned, PlannedCell, PlannedKernel, Prepared};
use indicatif::HumanBytes;
use serde_json::json;

pub(super) fn plan(args: &PlanArgs) -> Result<u8, CliError> {
    let experiment = load_experiment(&args.selection)?;
    let store = Store::at(experiment_folder(&args.selection.results, &experiment.name));
    let interrupt = Interrupt::listen(|_| {});
    let prepared = prepare_selection(experiment, &args.selection, &store, &interrupt)?;
    warn_of_memory(&prepared, "`run` stops unless it is given `--ignore-memory`");
    match args.output_format {
        OutputFormat::Json => json_lines(&prepared),
        OutputFormat::Human => show(&prepared),
    }
    Ok(exit::OK)
}

fn json_lines(prepared: &Prepared) {
    for planned in &prepared.cells {
        Printer::json(&json!({
            "id": planned.id,
            "setup": planned.cell.setup(),
            "cell": planned.cell,
            "decision": planned.decision.word(),
            "reason": planned.decision.to_string(),
            "selected": planned.selected,
            "runs": planned.runs(),
            "memory_bytes": planned.memory_bytes,
        }));
    }
    for planned in &prepared.kernels {
        Printer::json(&json!({
            "id": planned.id,
            "kernel": planned.cell,
            "decision": planned.decision.word(),
            "reason": planned.decision.to_string(),
            "selected": planned.selected,
            "runs": planned.runs(),
            "memory_bytes": planned.memory_bytes,
        }));
    }
}

fn show(prepared: &Prepared) {
    let tables = [models(&prepared.cells), kernels(&prepared.kernels)];
    let tables = tables.iter().filter(|table| !table.rows.is_empty());
    Printer::data(&tables.map(Table::terminal).collect::<Vec<_>>().join("\n"));
    for (id, decision) in prepared.reasons() {
        Printer::note(&format!("{id} {decision}"));
    }
    let needed = |runs: bool, bytes: u64| runs.then_some(bytes);
    let models = prepared.cells.iter().filter_map(|planned| needed(planned.runs(), planned.memory_bytes));
    let kernels = prepared.kernels.iter().filter_map(|planned| needed(planned.runs(), planned.memory_bytes));
    let memory = match models.chain(kernels).max() {
        Some(bytes) => format!(", at most about {} of memory", HumanBytes(bytes)),
        None => String::new(),
    };
    Printer::note(&format!("{}, {} to measure{memory}", counted(prepared.total(), "cell"), prepared.running()));
}

fn action<C, I>(planned: &Planned<C, I>) -> Value {
    if planned.selected { planned.decision.word().into() } else { "not selected".into() }
}

fn models(cells: &[PlannedCell]) -> Table {
    let columns = [
        "cell", "do", "setup", "model", "method", "scope", "pattern", "sparsity", "seed", "backend", "dtype", "memory",
    ];
    let mut table = Table::new("plan", columns);
    for planned in cells {
        let cell = &planned.cell;
        let point = cell.prune.as_ref();
        table.rows.push(vec![
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
        ]);
    }
    table
}

fn kernels(cells: &[PlannedKernel]) -> Table {
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
    for planned in cells {
        let cell = &planned.cell;
        table.rows.push(vec![
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
        ]);
    }
    table
}
