//! `sparsify-exp`: parse, dispatch, and turn an error into a message and an exit code.

use clap::Parser;
use sparsify_exp::cli::{Args, Printer, dispatch};
use sparsify_exp::error::exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let code = dispatch(Args::parse()).unwrap_or_else(|error| {
        Printer::error(&error);
        error.code
    });
    match Printer::data_lost() {
        Some(reason) if code == exit::OK => {
            Printer::note(&format!("error: failed to write to stdout: {reason}"));
            ExitCode::from(exit::UNEXPECTED)
        }
        _ => ExitCode::from(code),
    }
}
