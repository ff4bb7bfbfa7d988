//! `check`: is the file right?

use super::args::CheckArgs;
use super::output::Printer;
use super::run::read_experiment;
use crate::error::{CliError, exit};

pub(super) fn check(args: &CheckArgs) -> Result<u8, CliError> {
    let mut code = exit::OK;
    for file in &args.files {
        match read_experiment(file, &args.set) {
            Ok(experiment) => {
                if !experiment.warnings.is_empty() {
                    Printer::note(&experiment.warnings.to_string());
                }
                Printer::note(&format!("{}: ok", file.display()));
            }
            Err(error) => {
                Printer::error(&error);
                code = code.max(error.code);
            }
        }
    }
    Ok(code)
}
