//! The networks: one decoder, described by data, for every family it covers.
//!
//! ```text
//!   config.json ──> families/: a file each ──> Architecture
//!     read by fields.rs, rope.rs; what it leaves out: defaults.rs    │
//!                                                                    │  which modules, of what shape,
//!                                                                    │  and how a block uses them
//!   weights ────────────────────────────────────────────────────> Decoder<B>: forward
//!                                                                    │
//!                                                ├─ linear.rs: Dense | Sparse, the one swap point (halves.rs: 16 bits)
//!                                                └─ attention.rs, on what cache.rs remembers
//! ```
//!
//! A family file turns a configuration into an [`Architecture`] and knows nothing of tensors; the
//! decoder runs an architecture and knows no family. Neither knows pruning or measurements.

mod architecture;
mod attention;
mod cache;
mod clock;
mod config;
mod decoder;
mod defaults;
mod error;
mod families;
mod fields;
mod halves;
mod host;
mod linear;
mod presets;
mod rope;
mod rotary;
mod transpose;

pub use architecture::{
    Activation, Alibi, Architecture, Attention, Block, Constants, Experts, Gated, Group, HeadNorms, Kind, Mlp, Module,
    NormKind, Norms, Positions, Projections, Residual, RopeScaling, Rotary,
};
pub use cache::KvCache;
pub use clock::{SectionTimes, StepTime};
pub use config::architecture;
pub use decoder::{Activations, Batch, Decoder, DecoderError, Node, Part, Stage, Tree};
pub use error::ConfigError;
pub use families::{FAMILIES, Family};
pub use halves::{Halves, Numbers};
pub use linear::{DenseWeight, Linear, LinearWeight};
pub use presets::published;
pub(crate) use transpose::transpose;
