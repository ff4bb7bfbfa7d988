//! OLMo 2 (arXiv 2501.00656): Llama's layout with norms of what sublayers add in place of those before them, and norms
//! of all queries and all keys.

use super::Family;
use super::layout::{HeadNormNames, Layout, NormNames};
use crate::model::architecture::Architecture;
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::Spelling;

pub(super) const FAMILY: Family = Family { model_type: "olmo2", help: "OLMo 2", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(50_304)),
    key("hidden_size", Absent::Size(4096)),
    key("intermediate_size", Absent::Size(11_008)),
    key("num_hidden_layers", Absent::Size(32)),
    key("num_attention_heads", Absent::Size(32)),
    key("num_key_value_heads", Absent::As("num_attention_heads")),
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(2048)),
    key("rms_norm_eps", Absent::Number(1e-5)),
    key("attention_bias", Absent::Flag(false)),
    key("tie_word_embeddings", Absent::Flag(false)),
    key("rope_theta", Absent::Number(10_000.0)),
];

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = Layout::of("olmo2", fields)?.rms(fields)?.rotated(fields, &Spelling::of("rope_theta"))?;
    layout = layout.attention_bias(fields)?;
    layout.head_norms = HeadNormNames::Whole;
    layout.norms = NormNames {
        attention: None,
        mlp: None,
        attention_added: Some("post_attention_layernorm"),
        mlp_added: Some("post_feedforward_layernorm"),
    };
    Ok(layout.build())
}
