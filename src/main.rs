//! `sparsify-exp`: parse, dispatch, and turn an error into a message and an exit code.

use clap::Parser;
use sparsify_exp::cli::{Args, Printer, dispatch};
use std::process::ExitCode;

fn main() -> ExitCode {
    let code = dispatch(Args::parse()).unwrap_or_else(|error| {
        Printer::error(&error);
        error.code
    });
    ExitCode::from(code)
}
