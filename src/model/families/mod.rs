//! The families: what each is, in a file of its own. A file turns a `config.json` into an [`Architecture`] and knows
//! nothing of tensors. What the kin of Llama share is in `layout.rs`.

mod bloom;
mod cohere2;
mod experts;
mod falcon;
mod gemma;
mod gpt2;
mod gpt_neox;
mod granite;
mod layout;
mod llama;
mod olmo2;
mod opt;
mod phi;
mod phi3;
mod qwen3;
mod smollm3;
mod stablelm;

use super::architecture::Architecture;
use super::defaults::Key;
use super::error::ConfigError;
use super::fields::Fields;

/// A family of networks, by `model_type`.
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// Models of that family.
    pub help: &'static str,
    /// What its configurations say, with what holds where they leave it out.
    pub(super) keys: &'static [Key],
    pub(super) build: fn(&Fields<'_>) -> Result<Architecture, ConfigError>,
}

/// Every family that can be loaded.
pub const FAMILIES: &[Family] = &[
    bloom::FAMILY,
    cohere2::FAMILY,
    falcon::FAMILY,
    gemma::GEMMA2,
    gemma::GEMMA3,
    gpt2::FAMILY,
    gpt_neox::FAMILY,
    granite::FAMILY,
    llama::LLAMA,
    llama::MISTRAL,
    experts::MIXTRAL,
    olmo2::FAMILY,
    experts::OLMOE,
    opt::FAMILY,
    phi::FAMILY,
    phi3::FAMILY,
    llama::QWEN2,
    qwen3::FAMILY,
    experts::QWEN3_MOE,
    smollm3::FAMILY,
    stablelm::FAMILY,
];
