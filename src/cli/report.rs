//! `report`: tables and plots again.

use super::args::ReportArgs;
use super::output::Printer;
use crate::error::{CliError, exit};
use crate::record::Store;
use crate::report::{self, Extras};

pub(super) fn report(args: &ReportArgs) -> Result<u8, CliError> {
    let extras = Extras { database: args.duckdb };
    let mut code = exit::OK;
    for folder in &args.folders {
        let report = report::report(&Store::at(folder), extras)?;
        Printer::report(&report);
        for damaged in &report.damaged {
            Printer::warning(damaged);
        }
        Printer::note(&format!("tables and plots: {}", folder.display()));
        Printer::findings(&report);
        if report.missed > 0 {
            code = exit::FAILED;
        }
        // What a query needs and is not there is the more urgent of two faults.
        code = Printer::unanswered(&report).unwrap_or(code);
    }
    Ok(code)
}
