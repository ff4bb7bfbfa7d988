//! `completions`: a script for a shell.

use super::args::Args;
use super::output::Printer;
use crate::error::exit;
use clap::CommandFactory;
use clap_complete::Shell;

pub(super) fn completions(shell: Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "sparsify-exp", &mut script);
    Printer::data(&String::from_utf8_lossy(&script));
    exit::OK
}
