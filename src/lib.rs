//! Declarative, fast and reproducible experiments on sparse language models.
//!
//! An experiment file names models, devices, prune points and variants. It is turned into cells, every
//! cell is measured once and kept in a file of its own, and tables and plots are made from those files.
//! Data takes one way through the modules, and this is the order to read them in:
//!
//! ```text
//!   config    what the user wrote             TOML ──> Experiment
//!   plan      what will run, and why          Experiment ──> cells with names
//!   load      bytes in                        hub, folders, tokenizers ──> tensors, token ids
//!   model     the networks                    config.json ──> Decoder
//!   sparse    which weights, how stored       Pattern, Sell, Bitmap
//!   prune     which weights go                weights, sums over inputs ──> Pattern, weights
//!   analysis  what masks look like            Pattern, inputs ──> densities, distances, clusters, groups
//!   execute   how a layer runs                SparseBackend, kernels
//!   measure   what we learn                   logits ──> agreement, perplexity, gate; sizes; times
//!   record    what is kept                    cells/ID.json, manifest
//!   run       brings these together           cells ──> records
//!   report    what others see                 records ──> tables, plots
//!   verify    is it still so                  results folder ──> run again, number by number
//!   cli       what the user types and sees
//! ```
//!
//! `tests/cli/architecture.rs` holds the modules to what each may know.
#![recursion_limit = "256"]

mod cache;
pub mod choice;
pub mod column;
pub mod config;
pub mod diagnostic;
pub mod dtype;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
mod hex;
pub mod input;
pub mod keyword;
pub mod panics;
pub mod plan;
pub mod shell;

pub mod load;
pub mod model;
pub mod prune;
pub mod sparse;

pub mod analysis;

pub mod execute;
pub mod measure;
pub mod record;
pub mod run;

pub mod report;
pub mod verify;

pub mod cli;
