//! `report`: tables and plots again.

use super::args::ReportArgs;
use super::output::Printer;
use crate::error::{CliError, exit};
use crate::record::Store;
use crate::report;

pub(super) fn report(args: &ReportArgs) -> Result<u8, CliError> {
    let mut missed = 0;
    for folder in &args.folders {
        let report = report::report(&Store::at(folder))?;
        Printer::report(&report);
        for damaged in &report.damaged {
            Printer::warning(damaged);
        }
        missed += report.missed;
        Printer::note(&format!("tables and plots: {}", folder.display()));
        Printer::findings(&report);
    }
    Ok(if missed > 0 { exit::FAILED } else { exit::OK })
}
