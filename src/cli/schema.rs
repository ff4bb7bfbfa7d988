//! `schema`: the JSON schemas of `schemas/`, and the page of keys of `docs/`.

use super::args::SchemaName;
use super::output::{Event, Printer};
use crate::config;
use crate::error::{CliError, exit};
use crate::record::{Manifest, Record};
use crate::report;
use schemars::schema_for;

pub(super) fn schema(name: SchemaName) -> Result<u8, CliError> {
    let schema = match name {
        SchemaName::Configuration => {
            Printer::data(&config::reference());
            return Ok(exit::OK);
        }
        SchemaName::Columns => {
            Printer::data(&report::reference());
            return Ok(exit::OK);
        }
        SchemaName::Experiment => config::json_schema(),
        SchemaName::Cell => schema_for!(Record).into(),
        SchemaName::Manifest => schema_for!(Manifest).into(),
        SchemaName::Events => schema_for!(Event).into(),
    };
    if let Ok(text) = serde_json::to_string_pretty(&schema) {
        Printer::data(&format!("{text}\n"));
    }
    Ok(exit::OK)
}
