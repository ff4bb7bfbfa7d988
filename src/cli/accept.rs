//! `accept`: cells of another version of the program are taken as current.

use super::args::AcceptArgs;
use super::output::Printer;
use super::run::counted;
use crate::error::{CliError, exit};
use crate::record::{Acceptance, AcceptedResult, Program, Record, Store, now};
use crate::report::table::Table;

pub(super) fn accept(args: &AcceptArgs) -> Result<u8, CliError> {
    let why = args.why.trim();
    if why.is_empty() {
        return Err(CliError::usage(
            "`--why` says nothing",
            Some("say what has changed, and why it changes no number".into()),
        ));
    }
    let who = who(args.by.as_deref())?;
    let (store, program) = (Store::at(&args.folder), Program::current());
    let (stale, damaged) = stale(&store, &program, args)?;
    damaged.iter().for_each(|message| Printer::warning(&format!("{message}: not accepted")));
    if stale.is_empty() {
        return Err(CliError {
            code: exit::NOTHING,
            message: format!(
                "`{}` has no stale cell{}",
                args.folder.display(),
                if args.only.is_empty() { "" } else { " of these" }
            ),
            hint: Some("`sparsify-exp plan FILE` says of each cell what it is, and why".into()),
        });
    }
    let accepted = Acceptance {
        format: Acceptance::FORMAT,
        who: who.clone(),
        when: now(),
        why: why.into(),
        program: program.clone(),
        results: stale.iter().flat_map(|(_, results)| results.clone()).collect(),
    };
    let path = store.write_event("accepted", &accepted.when, &accepted)?;
    Printer::data(&table(&stale).terminal());
    Printer::note(&format!(
        "{} accepted for {program} by {who}: {}",
        counted(stale.len(), "cell"),
        store.root().join(path).display()
    ));
    Ok(exit::OK)
}

/// Who accepts.
fn who(given: Option<&str>) -> Result<String, CliError> {
    let names = ["USER", "LOGNAME", "USERNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    let who = given.map(str::to_owned).into_iter().chain(names).find(|name| !name.trim().is_empty());
    who.ok_or_else(|| CliError::usage("nobody knows who you are", Some("give your name: `--by NAME`".into())))
}

/// The cells with results of another program, and those that can't be believed, a message each.
type Stale = (Vec<(Record, Vec<AcceptedResult>)>, Vec<String>);

fn stale(store: &Store, program: &Program, args: &AcceptArgs) -> Result<Stale, CliError> {
    let (known, mut stale, mut damaged) = (store.acceptances(), Vec::new(), Vec::new());
    for record in store.cells()? {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                damaged.push(error.to_string());
                continue;
            }
        };
        if !args.only.is_empty() && !args.only.iter().any(|only| only.matches(&record.cell)) {
            continue;
        }
        let by_another = record.results.iter().filter(|part| !known.is_current(&part.id, &part.program, program));
        let results: Vec<AcceptedResult> = by_another
            .map(|part| AcceptedResult {
                cell: record.id.clone(),
                result: part.id.clone(),
                program: part.program.clone(),
            })
            .collect();
        if !results.is_empty() {
            stale.push((record, results));
        }
    }
    Ok((stale, damaged))
}

fn table(stale: &[(Record, Vec<AcceptedResult>)]) -> Table {
    let mut table = Table::new("accepted", ["cell", "setup", "made by", "results"]);
    for (record, results) in stale {
        let mut makers: Vec<String> = results.iter().map(|result| result.program.to_string()).collect();
        makers.dedup();
        table.rows.push(vec![
            record.id.as_str().into(),
            record.cell.kind().setup().into(),
            makers.join(", ").into(),
            results.len().into(),
        ]);
    }
    table
}
