//! Qwen 3 (arXiv 2505.09388): Llama's layout, heads of a size of their own, and RMS norms of every query and key.

use super::Family;
use super::layout::{HeadNormNames, Layout};
use crate::model::architecture::Architecture;
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::Spelling;

pub(super) const FAMILY: Family = Family { model_type: "qwen3", help: "Qwen3", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(151_936)),
    key("hidden_size", Absent::Size(4096)),
    key("intermediate_size", Absent::Size(22_016)),
    key("num_hidden_layers", Absent::Size(32)),
    key("num_attention_heads", Absent::Size(32)),
    Key { null: Some(Absent::As("num_attention_heads")), ..key("num_key_value_heads", Absent::Size(32)) },
    key("head_dim", Absent::Size(128)),
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(32_768)),
    key("rms_norm_eps", Absent::Number(1e-6)),
    key("attention_bias", Absent::Flag(false)),
    key("use_sliding_window", Absent::Flag(false)),
    key("max_window_layers", Absent::Size(28)),
    key("tie_word_embeddings", Absent::Flag(false)),
    key("rope_theta", Absent::Number(10_000.0)),
];

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = Layout::of("qwen3", fields)?.rms(fields)?.rotated(fields, &Spelling::of("rope_theta"))?;
    layout = layout.attention_bias(fields)?;
    layout.head_norms = HeadNormNames::Shared;
    let window = if fields.flag("use_sliding_window")? { fields.optional_size("sliding_window")? } else { None };
    let first = if window.is_some() { fields.count("max_window_layers")? } else { 0 };
    Ok(layout.sliding(fields, window, |layer| layer >= first)?.build())
}
