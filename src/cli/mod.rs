//! The command line: what the user types, and what the user sees.
//!
//! Data goes to stdout, everything else to stderr. No other module prints.

mod accept;
mod args;
mod check;
mod compare;
mod completions;
mod export;
mod fetch;
mod info;
mod interrupt;
mod list;
mod output;
mod plan;
mod presence;
mod progress;
mod report;
mod run;
mod schema;
mod slurm;
mod status;
mod until;
mod verify;
mod worker;

pub use args::Args;
pub use output::{Event, Printer};

use crate::error::CliError;
use args::Verb;

/// Does what the user typed; returns the exit code.
///
/// # Errors
/// What keeps it from being done.
pub fn dispatch(args: Args) -> Result<u8, CliError> {
    match args.verb {
        Verb::Run(run) => run::run(&run),
        Verb::Plan(plan) => plan::plan(&plan),
        Verb::Check(check) => check::check(&check),
        Verb::Status(status) => status::status(&status),
        Verb::Fetch(args) => fetch::fetch(&args),
        Verb::Slurm(args) => slurm::slurm(&args),
        Verb::Report(report) => report::report(&report),
        Verb::Compare(compare) => compare::compare(&compare),
        Verb::Verify(verify) => verify::verify(&verify),
        Verb::Accept(accept) => accept::accept(&accept),
        Verb::Export(export) => export::export(&export),
        Verb::List { what } => list::list(what),
        Verb::Schema { name } => schema::schema(name),
        Verb::Info => info::info(),
        Verb::Worker(worker) => Ok(worker::worker(&worker)),
        Verb::Completions { shell } => Ok(completions::completions(shell)),
    }
}
