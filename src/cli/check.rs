//! `check`: is the file right?

use super::args::CheckArgs;
use super::output::Printer;
use super::run::{origin_of, read_experiment, told};
use crate::config::{self, Experiment};
use crate::error::{CliError, exit};
use std::collections::HashMap;
use std::path::Path;

pub(super) fn check(args: &CheckArgs) -> Result<u8, CliError> {
    let mut code = exit::OK;
    let mut names: HashMap<String, &Path> = HashMap::new();
    for file in &args.files {
        match read(file, args) {
            Ok((experiment, page)) => {
                if let Some(page) = page {
                    Printer::data(&page);
                }
                if !experiment.warnings.is_empty() {
                    Printer::note(&experiment.warnings.to_string());
                }
                Printer::note(&format!("{}: ok", file.display()));
                let earlier = *names.entry(experiment.name.clone()).or_insert(file);
                if earlier != file {
                    Printer::warning(&format!(
                        "`{}` and `{}` have one name, `{}`: their results would go to one folder; give one of them \
                         another `name`",
                        earlier.display(),
                        file.display(),
                        experiment.name
                    ));
                }
            }
            Err(error) => {
                Printer::error(&error);
                code = code.max(error.code);
            }
        }
    }
    Ok(code)
}

/// The experiment of a file and, where it is asked for, the file as it is resolved.
fn read(file: &Path, args: &CheckArgs) -> Result<(Experiment, Option<String>), CliError> {
    if !args.resolved {
        return Ok((read_experiment(file, &args.set)?, None));
    }
    let (experiment, page) = config::resolved(file, origin_of(file), &args.set).map_err(told)?;
    Ok((experiment, Some(page)))
}
