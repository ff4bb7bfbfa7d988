//! SmolLM3 (Hugging Face): Llama's layout, some of whose layers have no positions (arXiv 2501.18795).

use super::Family;
use super::layout::Layout;
use crate::model::architecture::Architecture;
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::Spelling;

pub(super) const FAMILY: Family = Family { model_type: "smollm3", help: "SmolLM3", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(128_256)),
    key("hidden_size", Absent::Size(2048)),
    key("intermediate_size", Absent::Size(11_008)),
    key("num_hidden_layers", Absent::Size(36)),
    key("num_attention_heads", Absent::Size(16)),
    Key { null: Some(Absent::As("num_attention_heads")), ..key("num_key_value_heads", Absent::Size(4)) },
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(32_768)),
    key("rms_norm_eps", Absent::Number(1e-6)),
    key("attention_bias", Absent::Flag(false)),
    key("mlp_bias", Absent::Flag(false)),
    key("use_sliding_window", Absent::Flag(false)),
    key("no_rope_layer_interval", Absent::Size(4)),
    key("tie_word_embeddings", Absent::Flag(true)),
    key("rope_theta", Absent::Number(2_000_000.0)),
];

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = Layout::of("smollm3", fields)?.rms(fields)?.rotated(fields, &Spelling::of("rope_theta"))?;
    layout = layout.attention_bias(fields)?;
    layout.mlp_bias = fields.flag("mlp_bias")?;
    // Despite its name the list has 1 where a layer is rotated.
    let interval = fields.size("no_rope_layer_interval")?;
    let rotated = fields.bits("no_rope_layers", layout.layers)?;
    let rotated = rotated.unwrap_or_else(|| (0..layout.layers).map(|l| !(l + 1).is_multiple_of(interval)).collect());
    layout.rotary_of = rotated.iter().map(|&rotated| rotated.then_some(0)).collect();
    let window = if fields.flag("use_sliding_window")? { fields.optional_size("sliding_window")? } else { None };
    Ok(layout.sliding(fields, window, |layer| !rotated[layer])?.build())
}
