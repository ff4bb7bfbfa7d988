//! `compare`: two sides side by side.

use super::args::{CompareArgs, OutputFormat};
use super::output::Printer;
use super::run::counted;
use crate::error::{CliError, exit};
use crate::plan::Only;
use crate::record::Store;
use crate::report::compare::{Comparison, Sides, compare as put_side_by_side};
use crate::report::table::{Table, Value};
use serde_json::{Map, Value as Json, json};
use std::path::Path;

pub(super) fn compare(args: &CompareArgs) -> Result<u8, CliError> {
    let (sides, names) = sides(args)?;
    let write = args.output.as_deref().map(|path| Ok::<_, CliError>((path, form(path)?))).transpose()?;
    let Comparison { table, points, alone, damaged } = put_side_by_side(&sides, &args.only)?;
    damaged.iter().for_each(|message| Printer::warning(&format!("{message}: left out")));
    if points == 0 {
        return Err(CliError {
            code: exit::NOTHING,
            message: format!("no cell of {} has one of {} to stand beside", names[0], names[1]),
            hint: Some("`sparsify-exp plan FILE` lists the cells and their columns".into()),
        });
    }
    if let Some((path, form)) = write {
        std::fs::write(path, form(&table)).map_err(|error| CliError {
            code: exit::UNEXPECTED,
            message: format!("failed to write `{}`: {error}", path.display()),
            hint: Some("give a file in a folder that is there and can be written to".into()),
        })?;
    }
    match args.output_format {
        OutputFormat::Json => table.rows.iter().for_each(|row| Printer::json(&object(&table, row))),
        OutputFormat::Human => {
            Printer::data(&table.without_constant_columns(&["metric", "verdict"]).terminal());
        }
    }
    say(points, alone, &names);
    Ok(exit::OK)
}

/// What is compared, and what both sides are called.
fn sides(args: &CompareArgs) -> Result<(Sides, [String; 2]), CliError> {
    let store = folder(&args.folder)?;
    match &args.with[..] {
        [other] => {
            let other = Path::new(other);
            if !other.is_dir() && other.to_string_lossy().parse::<Only>().is_ok() {
                let message = format!("`{}` is one condition, and two sides need two", other.display());
                let hint = "for example `compare results/s1 'variant=csr' 'variant=bitmap'`";
                return Err(CliError::usage(message, Some(hint.into())));
            }
            let names = [&args.folder, &other.to_owned()].map(|folder| format!("`{}`", folder.display()));
            Ok((Sides::Folders(store, folder(other)?), names))
        }
        conditions => {
            let parse = |text: &String| {
                let usage = |error: crate::plan::SelectError| CliError::usage(error.to_string(), None);
                text.parse::<Only>().map_err(usage)
            };
            let names = [0, 1].map(|side| format!("`{}`", conditions[side]));
            Ok((Sides::Setups(store, parse(&conditions[0])?, parse(&conditions[1])?), names))
        }
    }
}

/// The results folder at a path.
fn folder(path: &Path) -> Result<Store, CliError> {
    if path.join("cells").is_dir() {
        return Ok(Store::at(path));
    }
    Err(CliError {
        code: exit::INPUT,
        message: format!("no cells in `{}`", path.display()),
        hint: Some("give the folder of an experiment, `results/NAME`, after `sparsify-exp run`".into()),
    })
}

/// How a file is written, by its extension.
fn form(path: &Path) -> Result<fn(&Table) -> String, CliError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Ok(Table::csv),
        Some("md") => Ok(Table::markdown),
        Some("tex") => Ok(Table::latex),
        Some(_) | None => Err(CliError::usage(
            format!("`{}` ends with none of `.csv`, `.md`, `.tex`", path.display()),
            Some("`--output comparison.csv` has every digit".into()),
        )),
    }
}

/// A row as an object; what is missing is `null`.
fn object(table: &Table, row: &[Value]) -> Map<String, Json> {
    let json = |value: &Value| match value {
        Value::Missing => Json::Null,
        Value::Text(text) => json!(text),
        Value::Int(count) => json!(count),
        Value::Float(number) => json!(number),
    };
    table.columns.iter().zip(row).map(|(column, value)| (column.clone(), json(value))).collect()
}

fn say(points: usize, alone: [usize; 2], names: &[String; 2]) {
    Printer::note(&format!("a: {}, b: {}; difference is b - a, ratio is b / a", names[0], names[1]));
    let left_over: Vec<String> = (0..2)
        .filter(|side| alone[*side] > 0)
        .map(|side| format!("; {} of {} alone", counted(alone[side], "cell"), names[side]))
        .collect();
    Printer::note(&format!("{} compared{}", counted(points, "point"), left_over.concat()));
}
