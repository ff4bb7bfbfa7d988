//! Granite 3 (IBM): Llama's layout with four multipliers.

use super::Family;
use super::layout::Layout;
use crate::model::architecture::{Architecture, Constants};
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::Spelling;

pub(super) const FAMILY: Family = Family { model_type: "granite", help: "Granite 3", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(32_000)),
    key("hidden_size", Absent::Size(4096)),
    key("intermediate_size", Absent::Size(11_008)),
    key("num_hidden_layers", Absent::Size(32)),
    key("num_attention_heads", Absent::Size(32)),
    key("num_key_value_heads", Absent::As("num_attention_heads")),
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(2048)),
    key("rms_norm_eps", Absent::Number(1e-6)),
    key("attention_bias", Absent::Flag(false)),
    key("mlp_bias", Absent::Flag(false)),
    key("embedding_multiplier", Absent::Number(1.0)),
    key("attention_multiplier", Absent::Number(1.0)),
    key("residual_multiplier", Absent::Number(1.0)),
    key("logits_scaling", Absent::Number(1.0)),
    key("tie_word_embeddings", Absent::Flag(false)),
    key("rope_theta", Absent::Number(10_000.0)),
];

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = Layout::of("granite", fields)?.rms(fields)?.rotated(fields, &Spelling::of("rope_theta"))?;
    layout = layout.attention_bias(fields)?;
    layout.mlp_bias = fields.flag("mlp_bias")?;
    layout.attention.scale = fields.positive("attention_multiplier")?;
    layout.constants = Constants {
        embedding: fields.positive("embedding_multiplier")?,
        residual: fields.positive("residual_multiplier")?,
        logits: 1.0 / fields.positive("logits_scaling")?,
        ..Constants::default()
    };
    Ok(layout.build())
}
