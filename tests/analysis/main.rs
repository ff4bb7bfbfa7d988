//! The numbers of the analyses against a reference that NumPy, SciPy and scikit-learn computed.
//!
//! `tests/fixtures/analysis` holds a part of the reference. `ANALYSIS_REFERENCE=FOLDER` names a folder of the same
//! form with more of it; the fixture's README says how one is made. Each test prints how many values it compared and
//! the largest difference: `cargo test --test analysis -- --nocapture`.

mod activation;
mod clusters;
mod degenerate;
mod groups;
mod nulls;
mod pairs;
mod reference;
mod structure;
