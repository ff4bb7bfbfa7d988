//! `export`: one pruned model as a checkpoint.

use super::args::{ExportArgs, SelectionArgs, WeightsForm};
use super::interrupt::Interrupt;
use super::output::Printer;
use super::progress::{Progress, download_observer};
use super::run::{counted, limit_threads, load_experiment, prepare_selection, store_of, warn_of_memory};
use crate::error::{CliError, exit};
use crate::load::Loader;
use crate::plan::Rerun;
use crate::run::{self, ExportFormat, ExportOptions, Exported};
use indicatif::HumanBytes;

pub(super) fn export(args: &ExportArgs) -> Result<u8, CliError> {
    let selection = selection(args);
    let experiment = load_experiment(&selection)?;
    limit_threads(&experiment)?;
    let store = store_of(&selection, &experiment);
    let interrupt = Interrupt::listen(|_| Printer::note("interrupted: nothing was written"));
    let prepared = prepare_selection(experiment, &selection, &store, &interrupt, false)?;
    warn_of_memory(&prepared, "the export may fail for lack of it");
    let loader = Loader::new(args.offline, download_observer(interrupt.clone(), false));
    let format = match args.format {
        WeightsForm::Dense => ExportFormat::Dense,
        WeightsForm::Sparse => ExportFormat::Sparse,
    };
    let options = ExportOptions { to: args.to.clone(), format, overwrite: args.overwrite };
    let progress = Progress::counting(1, interrupt.clone());
    let exported = run::export(&prepared, &loader, &options, &progress);
    progress.finish();
    if let Some(code) = interrupt.code().filter(|_| exported.is_err()) {
        Printer::note("interrupted: nothing was written");
        return Ok(code);
    }
    say(&exported?, args);
    Ok(exit::OK)
}

/// All cells of the plan are looked at, whether or not they have been measured.
fn selection(args: &ExportArgs) -> SelectionArgs {
    SelectionArgs {
        file: args.file.clone(),
        set: args.set.clone(),
        only: args.only.clone(),
        partition: None,
        rerun: Rerun::default(),
        limit: None,
        offline: args.offline,
        results: None,
    }
}

fn say(exported: &Exported, args: &ExportArgs) {
    let Exported { point, pruned, bytes, dense_bytes, rounded } = exported;
    let size = match args.format {
        WeightsForm::Dense => HumanBytes(*bytes).to_string(),
        WeightsForm::Sparse => format!(
            "{} instead of {}, {:.1} %",
            HumanBytes(*bytes),
            HumanBytes(*dense_bytes),
            *bytes as f64 / *dense_bytes as f64 * 100.0
        ),
    };
    Printer::note(&format!("{point}: {} pruned, {size}: {}", counted(*pruned, "linear"), args.to.display()));
    if let Some(dtype) = rounded {
        Printer::note(&format!("updated weights are rounded to {dtype}, the checkpoint's own dtype"));
    }
}
