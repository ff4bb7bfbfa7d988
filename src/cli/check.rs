//! `check`: is the file right?

use super::args::CheckArgs;
use super::output::Printer;
use super::run::read_experiment;
use crate::error::{CliError, exit};
use std::collections::HashMap;
use std::path::Path;

pub(super) fn check(args: &CheckArgs) -> Result<u8, CliError> {
    let mut code = exit::OK;
    let mut names: HashMap<String, &Path> = HashMap::new();
    for file in &args.files {
        match read_experiment(file, &args.set) {
            Ok(experiment) => {
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
