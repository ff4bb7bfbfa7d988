//! `plan`: what `run` would do, and why.

use super::args::{OutputFormat, PlanArgs};
use super::interrupt::Interrupt;
use super::output::Printer;
use super::run::{counted, load_experiment, prepare_selection, store_of, warn_of_another_file, warn_of_memory};
use crate::column::Value;
use crate::error::{CliError, exit};
use crate::plan::Planned;
use crate::record::Store;
use crate::report::table::Table;
use crate::run::{Estimate, Prepared, estimate};
use indicatif::HumanBytes;
use serde_json::json;
use std::collections::HashMap;

pub(super) fn plan(args: &PlanArgs) -> Result<u8, CliError> {
    let experiment = load_experiment(&args.selection)?;
    let store = store_of(&args.selection, &experiment);
    warn_of_another_file(&store, &experiment, &args.selection.file);
    let interrupt = Interrupt::listen(|_| {});
    let prepared = prepare_selection(experiment, &args.selection, &store, &interrupt, true)?;
    warn_of_memory(&prepared, "`run` stops unless it is given `--ignore-memory`");
    match args.output_format {
        OutputFormat::Json => json_lines(&prepared),
        OutputFormat::Human => show(&prepared, &store),
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

fn show(prepared: &Prepared, store: &Store) {
    let tables = tables(&prepared.cells);
    Printer::data(&tables.iter().map(Table::terminal).collect::<Vec<_>>().join("\n"));
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
    let time = estimate(prepared, store).map_or_else(String::new, |estimate| format!(", {}", in_words(&estimate)));
    Printer::note(&format!("{total}, {} to measure{time}{memory}{unused}", prepared.running()));
}

/// `about 3 minutes, judging by 16 cells already measured`
fn in_words(estimate: &Estimate) -> String {
    let Estimate { seconds, measured, unlike } = *estimate;
    let time = match seconds {
        _ if seconds < 1.0 => "less than a second".to_owned(),
        _ if seconds < 100.0 => format!("about {seconds:.0} s"),
        _ if seconds < 6000.0 => format!("about {:.0} minutes", seconds / 60.0),
        _ => format!("about {:.1} hours", seconds / 3600.0),
    };
    let unlike = match unlike {
        0 => String::new(),
        count => format!(", without {count} that are like none of them"),
    };
    format!("{time}, judging by {} already measured{unlike}", counted(measured, "cell"))
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

/// A table for each kind of work, in the plan's order: its key columns, and what is done about each cell.
fn tables(cells: &[Planned]) -> Vec<Table> {
    cells.chunk_by(|a, b| a.task.kind().name() == b.task.kind().name()).map(table).collect()
}

fn table(cells: &[Planned]) -> Table {
    let keys: Vec<_> = cells.iter().map(|planned| planned.task.kind().key()).collect();
    // A cell may have fewer columns than its like, the first of them.
    let key = keys.iter().max_by_key(|key| key.len()).cloned().unwrap_or_default();
    let names = ["cell", "do"].into_iter().chain(key.iter().map(|(name, _)| *name)).chain(["memory"]);
    let mut table = Table::new("plan", names);
    for (planned, own) in cells.iter().zip(keys) {
        let action = if planned.selected { planned.decision.word() } else { "not selected" };
        let mut row = vec![planned.id.as_str().into(), action.into()];
        let lacking = key.len() - own.len();
        row.extend(own.into_iter().map(|(_, entry)| entry));
        row.extend((0..lacking).map(|_| Value::Missing));
        row.push(HumanBytes(planned.memory_bytes).to_string().into());
        table.rows.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_words() {
        let of = |seconds, unlike| in_words(&Estimate { seconds, measured: 2, unlike });
        assert_eq!(of(0.2, 0), "less than a second, judging by 2 cells already measured");
        assert_eq!(of(99.0, 0), "about 99 s, judging by 2 cells already measured");
        assert_eq!(
            of(3601.0, 3),
            "about 60 minutes, judging by 2 cells already measured, without 3 that are like none of them"
        );
        assert!(of(9000.0, 0).starts_with("about 2.5 hours"));
    }
}
