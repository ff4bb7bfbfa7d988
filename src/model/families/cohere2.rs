//! Command R7B and Command A (Cohere 2): parallel blocks with one layer norm without a bias, neighbouring features
//! rotated in layers with a window, no positions in the others, scaled logits.

use super::Family;
use super::layout::Layout;
use crate::model::architecture::{Architecture, NormKind, Residual};
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::Spelling;

pub(super) const FAMILY: Family = Family { model_type: "cohere2", help: "Command R7B, Command A", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(256_000)),
    key("hidden_size", Absent::Size(8192)),
    key("intermediate_size", Absent::Size(22_528)),
    key("num_hidden_layers", Absent::Size(40)),
    key("num_attention_heads", Absent::Size(64)),
    key("num_key_value_heads", Absent::As("num_attention_heads")),
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(8192)),
    key("layer_norm_eps", Absent::Number(1e-5)),
    key("attention_bias", Absent::Flag(false)),
    key("logit_scale", Absent::Number(0.0625)),
    key("sliding_window", Absent::Size(4096)),
    key("sliding_window_pattern", Absent::Size(4)),
    key("use_parallel_block", Absent::Flag(true)),
    key("use_gated_activation", Absent::Flag(true)),
    key("tie_word_embeddings", Absent::Flag(true)),
    key("rope_theta", Absent::Number(10_000.0)),
];

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    for key in ["use_parallel_block", "use_gated_activation"] {
        if !fields.flag(key)? {
            return Err(fields.unusable(key, "`true`"));
        }
    }
    let mut layout = Layout::of("cohere2", fields)?.rotated(fields, &Spelling::of("rope_theta"))?;
    fields.even_share(layout.hidden, layout.attention.heads)?;
    layout.rotaries[0].neighbours = true;
    layout = layout.attention_bias(fields)?;
    layout.norm = NormKind::Layer { eps: fields.number("layer_norm_eps")? };
    layout.residual = Residual::Parallel;
    layout.norms.mlp = None;
    layout.constants.logits = fields.positive("logit_scale")?;
    let (window, pattern) = (fields.size_or_null("sliding_window")?, fields.size("sliding_window_pattern")?);
    layout = layout.sliding(fields, window, |layer| !(layer + 1).is_multiple_of(pattern))?;
    layout.rotary_of = layout.windows.iter().map(|window| window.map(|_| 0)).collect();
    Ok(layout.build())
}
