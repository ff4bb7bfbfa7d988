//! What runs on a GPU only; ignored elsewhere.
//!
//! `cargo test --release --features cuda --test cuda -- --ignored --test-threads 1`, in the repository.
#![cfg(feature = "cuda")]

mod attention;
mod decode;
mod linear;
mod panics;
mod prune;
mod speed;
