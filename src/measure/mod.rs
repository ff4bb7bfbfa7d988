//! What we learn about a model: how large it is, how well it predicts, how closely it follows the
//! dense one, how long it takes.
//!
//! ```text
//!   Decoder ──forward.rs──> logits, a few rows at a time ─┬─> agreement.rs   with the dense model's
//!                                                         ├─> gate.rs        csr with masked
//!                                                         └─> perplexity.rs  with the text itself
//!   Decoder ──tasks.rs──> log-likelihoods of choices, answers.rs; written.rs: what it writes
//!   Decoder + KvCache ──latency.rs──> times of prefill and decode; profile.rs: of the steps of a token
//!   Architecture + what is stored ──structure.rs──> layers, totals
//!   product, many copies ──kernel.rs──> seconds a call, error of the output
//! ```
//!
//! This module knows models. It does not know pruning, cells or files.

mod agreement;
mod answers;
mod forward;
mod gate;
mod kernel;
mod latency;
mod likelihood;
mod memory;
mod profile;
mod stats;
mod structure;
mod tasks;
mod workload;
mod written;

pub use agreement::{Agreement, agreement};
pub use answers::{
    end_of_answer, last_number, likeliest, likeliest_by_length, mean_and_error, same_number, strict_number,
};
pub use forward::{ForwardError, PASS_TOKENS, WINDOW_TOKENS, all_logits, decoded_logits};
pub use gate::{Gate, GateMiss, gate};
pub use kernel::{
    BackToBack, CallTimes, Compared, KernelError, MaskedInput, Product, Traffic, input_threshold, masked_input,
    max_rel_err, rotated_copies, time_calls,
};
pub use latency::{Latency, Parts, Phase, Spread, latency};
pub use likelihood::{Likelihood, likelihood};
pub use memory::PeakRss;
pub use profile::{Profile, ProfileClock, ProfiledStep, profile};
pub use stats::{mean, quantile, sd};
pub use structure::{LayerRow, Stored, Structure, structure};
pub use tasks::{Asked, Scored, score};
pub use workload::Workload;
pub use written::{Writing, places, write_greedily};
