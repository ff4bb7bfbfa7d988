//! The program as its users see it: what it prints, which exit code it gives, which files it leaves.
//!
//! One test binary for all of it, since each links the whole program.

mod accept;
mod analyses;
mod architecture;
mod arena;
mod calibration;
mod checkpoints;
mod circles;
mod compare;
mod documents;
mod errors;
mod export;
mod fuzz_corpus;
mod guards;
mod histories;
mod kept;
mod kernels;
mod latency;
mod output;
mod page;
mod profile;
mod queries;
mod reference;
mod resume;
mod schema;
mod slurm;
mod snapshots;
mod status;
mod support;
mod tables;
mod tasks;
mod texts;
mod verbs;
mod verify;
mod workers;
