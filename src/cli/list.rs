//! `list`: the words that an experiment file can use.

use super::args::What;
use super::output::Printer;
use crate::config::experiment::{BackendChoice, Method, Metric, Variant};
use crate::config::source::{BUILTIN_MODELS, MODEL_FORMS, SYNTHETIC_MODELS};
use crate::config::tasks::TaskName;
use crate::error::{CliError, exit};
use crate::execute::device;
use crate::keyword::Keyword;
use crate::model::FAMILIES;
use crate::report::table::Table;

pub(super) fn list(what: What) -> Result<u8, CliError> {
    let rows = match what {
        What::Methods => words(Method::ALL),
        What::Metrics => words(Metric::ALL),
        What::Variants => words(Variant::ALL),
        What::Backends => backends(),
        What::Models => models(),
        What::Tasks => TaskName::words().into_iter().map(|(name, help)| (name.into(), help.into())).collect(),
    };
    let mut table = Table::new("list", ["name", "what it is"]);
    table.rows = rows.into_iter().map(|(name, help)| vec![name.into(), help.into()]).collect();
    Printer::data(&table.terminal());
    Ok(exit::OK)
}

fn words<T>(words: &[Keyword<T>]) -> Vec<(String, String)> {
    words.iter().map(|word| (word.name.into(), word.help.into())).collect()
}

fn backends() -> Vec<(String, String)> {
    let usable = |word: &Keyword<BackendChoice>| match device::resolve(word.value, 0) {
        Ok(backend) if backend.name() == word.name => String::new(),
        Ok(backend) => format!(" (here: {backend})"),
        Err(error) => format!(" (not usable here: {error})"),
    };
    BackendChoice::ALL.iter().map(|word| (word.name.into(), format!("{}{}", word.help, usable(word)))).collect()
}

fn models() -> Vec<(String, String)> {
    let forms = MODEL_FORMS.iter().map(|(form, help)| ((*form).to_owned(), (*help).to_owned()));
    let builtin = BUILTIN_MODELS.iter().map(|name| (format!("builtin:{name}"), "inside the program".to_owned()));
    let shapes = SYNTHETIC_MODELS.iter().map(|name| (format!("synthetic:{name}"), "random weights".to_owned()));
    let families = FAMILIES.iter().map(|f| (format!("model_type {}", f.model_type), f.help.to_owned()));
    forms.chain(builtin).chain(shapes).chain(families).collect()
}
