//! What ends the program early: a message, its causes, what to do about it, and an exit code.

use crate::config::ConfigError;
use crate::load::LoadError;
use crate::load::hub::HubError;
use crate::record::StoreError;
use crate::report::ReportError;
use crate::report::database::DatabaseError;
use crate::report::pivot::PivotError;
use crate::run::{ExportError, PrepareError, RunError, WorkerError};
use crate::shell;
use crate::verify::VerifyError;
use std::path::Path;

/// Exit codes, as the documentation lists them.
pub mod exit {
    /// All selected cells are there.
    pub const OK: u8 = 0;
    /// Something unexpected, or the results folder can't be written.
    pub const UNEXPECTED: u8 = 1;
    /// The command line or the experiment file.
    pub const USAGE: u8 = 2;
    /// A model, text or device is missing or unusable.
    pub const INPUT: u8 = 3;
    /// No cell is selected.
    pub const NOTHING: u8 = 4;
    /// A cell failed, an expectation was missed, or a folder's numbers are not what comes out.
    pub const FAILED: u8 = 100;
    /// Stopped by Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
}

/// An error as the user sees it.
#[derive(Debug)]
pub struct CliError {
    /// The program's exit code.
    pub code: u8,
    /// What is wrong, with its causes after colons. Empty where everything is said already.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl CliError {
    /// An error of the command line.
    pub fn usage(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { code: exit::USAGE, message: message.into(), hint }
    }

    /// With the experiment file, and what is set over its keys, in the place of `FILE` in what to do about it.
    #[must_use]
    pub fn about(mut self, file: &Path, set: &[String]) -> Self {
        let line = format!("sparsify-exp fetch {}", shell::experiment(file, set));
        self.hint = self.hint.map(|hint| hint.replace("sparsify-exp fetch FILE", &line));
        self
    }

    fn new(code: u8, error: &dyn std::error::Error, hint: Option<String>) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Transparent errors, and those that quote their cause, would say it twice.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self { code, message, hint }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let code = match error {
            ConfigError::Read { .. } | ConfigError::Base(_) => exit::INPUT,
            ConfigError::Invalid(_) => exit::USAGE,
        };
        Self::new(code, &error, error.hint())
    }
}

fn load_code(error: &LoadError) -> u8 {
    match error {
        LoadError::Context { .. }
        | LoadError::CalibrationLength { .. }
        | LoadError::Stride { .. }
        | LoadError::NoBos { .. } => exit::USAGE,
        LoadError::Hub(HubError::Interrupted { .. }) => exit::INTERRUPTED,
        _ => exit::INPUT,
    }
}

impl From<PrepareError> for CliError {
    fn from(error: PrepareError) -> Self {
        let code = match &error {
            PrepareError::Device(_) | PrepareError::TooLarge(_) => exit::INPUT,
            PrepareError::Load(error) => load_code(error),
            PrepareError::Dtype { .. }
            | PrepareError::KernelDtype { .. }
            | PrepareError::KernelFormat { .. }
            | PrepareError::KernelFile { .. }
            | PrepareError::KernelLaunch(_)
            | PrepareError::Variant { .. }
            | PrepareError::VariantDtype { .. }
            | PrepareError::Positions { .. }
            | PrepareError::Analysis { .. }
            | PrepareError::Expectation(_) => exit::USAGE,
            PrepareError::NothingSelected(_) => exit::NOTHING,
        };
        Self::new(code, &error, error.hint())
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        let code = match &error {
            RunError::Load(error) => load_code(error),
            RunError::Store(_) => exit::UNEXPECTED,
            RunError::Worker(WorkerError::Failed { code, .. }) => *code,
            RunError::Worker(WorkerError::Start(_) | WorkerError::Barren { .. }) => exit::UNEXPECTED,
        };
        Self::new(code, &error, error.hint())
    }
}

impl From<ExportError> for CliError {
    fn from(error: ExportError) -> Self {
        let code = match &error {
            ExportError::NoPoint => exit::NOTHING,
            ExportError::SeveralPoints(_)
            | ExportError::Synthetic(_)
            | ExportError::Exists(_)
            | ExportError::Occupied(_)
            | ExportError::Foreign { .. }
            | ExportError::Source(_)
            | ExportError::NoName(_) => exit::USAGE,
            ExportError::Load(error) => load_code(error),
            ExportError::Prune { .. } => exit::FAILED,
            ExportError::Write(_) => exit::UNEXPECTED,
            ExportError::Interrupted => exit::INTERRUPTED,
        };
        Self::new(code, &error, error.hint())
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self::new(exit::UNEXPECTED, &error, error.hint())
    }
}

impl From<ReportError> for CliError {
    fn from(error: ReportError) -> Self {
        let code = if matches!(error, ReportError::NoCells { .. }) { exit::INPUT } else { exit::UNEXPECTED };
        Self::new(code, &error, error.hint())
    }
}

impl From<&PivotError> for CliError {
    fn from(error: &PivotError) -> Self {
        Self::new(exit::USAGE, error, error.hint())
    }
}

impl From<VerifyError> for CliError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Missing { .. } | VerifyError::Nothing(_) => Self::new(exit::INPUT, &error, error.hint()),
            VerifyError::Room(_) => Self::new(exit::UNEXPECTED, &error, error.hint()),
            VerifyError::Store(error) => error.into(),
            VerifyError::Prepare(error) => error.into(),
            VerifyError::Run(error) => error.into(),
            VerifyError::Report(error) => error.into(),
        }
    }
}

impl From<&DatabaseError> for CliError {
    fn from(error: &DatabaseError) -> Self {
        let code = if error.is_of_the_program() { exit::INPUT } else { exit::FAILED };
        Self::new(code, error, error.hint())
    }
}
