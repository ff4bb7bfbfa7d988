//! `plan`: what `run` would do, and why.

use super::args::{OutputFormat, PlanArgs};
use super::interrupt::Interrupt;
use super::output::Printer;
use super::run::{counted, load_experiment, prepare_selection};
use crate::error::{CliError, exit};
use crate::record::{Store, experiment_folder};
use crate::report::table::{Table, Value};
use crate::run::{PlannedCell, Prepared};
use indicatif::HumanBytes;
use serde_json::json;

pub(super) fn plan(args: &PlanArgs) -> Result<u8, CliError> {
    let experiment = load_experiment(&args.selection)?;
    let store = Store::at(experiment_folder(&args.selection.results, &experiment.name));
    let interrupt = Interrupt::listen(|_| {});
    let prepared = prepare_selection(experiment, &args.selection, &store, &interrupt)?;
    match args.output_format {
        OutputFormat::Json => {
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
        }
        OutputFormat::Human => show(&prepared),
    }
    Ok(exit::OK)
}

fn show(prepared: &Prepared) {
    let columns = [
        "cell", "do", "setup", "model", "method", "scope", "pattern", "sparsity", "seed", "backend", "dtype", "memory",
    ];
    let mut table = Table::new("plan", columns);
    for planned in &prepared.cells {
        let cell = &planned.cell;
        let point = cell.prune.as_ref();
        let action = if planned.selected { planned.decision.word() } else { "not selected" };
        let row: Vec<Value> = vec![
            planned.id.as_str().into(),
            action.into(),
            cell.setup().into(),
            cell.model.clone().into(),
            point.map(|p| p.method.name()).into(),
            point.and_then(|p| p.scope).map(|scope| scope.name()).into(),
            point.map(|p| p.pattern.to_string()).into(),
            point.map(|p| p.sparsity).into(),
            cell.seed.into(),
            cell.backend.name().into(),
            cell.dtype.name().into(),
            HumanBytes(planned.memory_bytes).to_string().into(),
        ];
        table.rows.push(row);
    }
    Printer::data(&table.terminal());
    let reasons = prepared.cells.iter().filter(|p| p.selected && p.decision.to_string() != p.decision.word());
    for planned in reasons {
        Printer::note(&format!("{} {}", planned.id, planned.decision));
    }
    let running: Vec<&PlannedCell> = prepared.cells.iter().filter(|planned| planned.runs()).collect();
    let memory = match running.iter().map(|planned| planned.memory_bytes).max() {
        Some(bytes) => format!(", at most about {} of memory", HumanBytes(bytes)),
        None => String::new(),
    };
    Printer::note(&format!("{}, {} to measure{memory}", counted(prepared.cells.len(), "cell"), running.len()));
}
