//! Llama (arXiv 2302.13971), Mistral (arXiv 2310.06825) and Qwen2 (arXiv 2407.10671): RMS norms, rotary positions,
//! grouped keys and values, a gated feed-forward layer. They differ in which projections have biases and in how far
//! back a token sees.

use super::Family;
use super::layout::Layout;
use crate::model::architecture::Architecture;
use crate::model::defaults;
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::Spelling;

pub(super) const LLAMA: Family =
    Family { model_type: "llama", help: "Llama, SmolLM2, TinyLlama", keys: defaults::LLAMA, build: llama };
pub(super) const MISTRAL: Family =
    Family { model_type: "mistral", help: "Mistral", keys: defaults::MISTRAL, build: mistral };
pub(super) const QWEN2: Family =
    Family { model_type: "qwen2", help: "Qwen2, Qwen2.5", keys: defaults::QWEN2, build: qwen2 };

fn llama(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = begun("llama", fields)?.attention_bias(fields)?;
    layout.mlp_bias = fields.flag("mlp_bias")?;
    Ok(layout.build())
}

fn mistral(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = begun("mistral", fields)?;
    layout.windows = vec![fields.size_or_null("sliding_window")?; layout.layers];
    Ok(layout.build())
}

fn qwen2(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = begun("qwen2", fields)?;
    layout.qkv_bias = true;
    let window = if fields.flag("use_sliding_window")? { fields.optional_size("sliding_window")? } else { None };
    let first = if window.is_some() { fields.count("max_window_layers")? } else { 0 };
    Ok(layout.sliding(fields, window, |layer| layer >= first)?.build())
}

fn begun(family: &'static str, fields: &Fields<'_>) -> Result<Layout, ConfigError> {
    Layout::of(family, fields)?.rms(fields)?.rotated(fields, &Spelling::of("rope_theta"))
}
