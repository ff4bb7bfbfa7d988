//! `worker`: a process that measures for the one that has started it. Nobody types this.

use super::args::WorkerArgs;
use super::output::Printer;
use super::run::{build_threads, prepare_quietly, read_experiment};
use crate::error::{CliError, exit};
use crate::load::Loader;
use crate::record::Store;
use crate::run::{RunOptions, Talk, failed, work};
use std::io::BufRead;
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};

pub(super) fn worker(args: &WorkerArgs) -> u8 {
    let (sender, lines) = mpsc::channel();
    // Who started it closes its input, or is gone: then nobody wants what it measures.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        std::process::exit(exit::OK.into());
    });
    let say = |line: &str| Printer::data(&format!("{line}\n"));
    // The thread above ends the process before it lets go of its end.
    let hear = || lines.recv().unwrap_or_default();
    let talk = Talk { say: &say, hear: &hear, place: (args.number, args.of) };
    match measure(args, &talk) {
        Ok(()) => exit::OK,
        Err(CliError { code, message, hint }) => {
            say(&failed(code, message, hint));
            code
        }
    }
}

fn measure(args: &WorkerArgs, talk: &Talk<'_>) -> Result<(), CliError> {
    let mut experiment = read_experiment(&args.file, &args.set)?;
    let store = Store::at(&args.folder);
    build_threads(args.threads)?;
    // Names of timed cells hash these; the cells themselves are not a worker's.
    experiment.threads = args.all_threads;
    experiment.device_index = args.gpu.unwrap_or(experiment.device_index);
    let loader = Loader::new(true, Arc::new(|_: &str, _, _| ControlFlow::Continue(())));
    let prepared = prepare_quietly(experiment, &loader, &store)?;
    let options = RunOptions {
        fail_fast: args.fail_fast,
        until: args.until.map(super::until::Until::instant),
        // What is timed is the business of who started this one.
        profile: false,
    };
    Ok(work(prepared, &store, options, talk)?)
}
