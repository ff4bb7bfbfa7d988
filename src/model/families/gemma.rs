//! Gemma 2 (arXiv 2408.00118) and Gemma 3 (arXiv 2503.19786): norms that multiply by 1 + their weight, before and after
//! each sublayer; scaled embeddings; layers with a window. Gemma 2 caps scores and logits; Gemma 3 norms queries and
//! keys, and rotates them faster in the layers with a window.

use super::Family;
use super::layout::{HeadNormNames, Layout, NormNames};
use crate::model::architecture::{Architecture, Constants};
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::{Spelling, rotary};

pub(super) const GEMMA2: Family = Family { model_type: "gemma2", help: "Gemma 2", keys: KEYS2, build: gemma2 };
pub(super) const GEMMA3: Family =
    Family { model_type: "gemma3_text", help: "Gemma 3 270m, 1b", keys: KEYS3, build: gemma3 };

const KEYS2: &[Key] = &[
    key("vocab_size", Absent::Size(256_000)),
    key("hidden_size", Absent::Size(2304)),
    key("intermediate_size", Absent::Size(9216)),
    key("num_hidden_layers", Absent::Size(26)),
    key("num_attention_heads", Absent::Size(8)),
    key("num_key_value_heads", Absent::Size(4)),
    key("head_dim", Absent::Size(256)),
    key("hidden_activation", Absent::Text("gelu_pytorch_tanh")),
    key("max_position_embeddings", Absent::Size(8192)),
    key("rms_norm_eps", Absent::Number(1e-6)),
    key("attention_bias", Absent::Flag(false)),
    key("query_pre_attn_scalar", Absent::Number(256.0)),
    key("sliding_window", Absent::Size(4096)),
    key("attn_logit_softcapping", Absent::Number(50.0)),
    key("final_logit_softcapping", Absent::Number(30.0)),
    key("use_bidirectional_attention", Absent::Flag(false)),
    key("tie_word_embeddings", Absent::Flag(true)),
    key("rope_theta", Absent::Number(10_000.0)),
];

const KEYS3: &[Key] = &[
    key("vocab_size", Absent::Size(262_208)),
    key("hidden_size", Absent::Size(2304)),
    key("intermediate_size", Absent::Size(9216)),
    key("num_hidden_layers", Absent::Size(26)),
    key("num_attention_heads", Absent::Size(8)),
    key("num_key_value_heads", Absent::Size(4)),
    key("head_dim", Absent::Size(256)),
    key("hidden_activation", Absent::Text("gelu_pytorch_tanh")),
    key("max_position_embeddings", Absent::Size(131_072)),
    key("rms_norm_eps", Absent::Number(1e-6)),
    key("attention_bias", Absent::Flag(false)),
    key("query_pre_attn_scalar", Absent::Number(256.0)),
    key("sliding_window", Absent::Size(4096)),
    // As transformers 5 writes it, and as it was written before.
    Key { other: Some("_sliding_window_pattern"), ..key("sliding_window_pattern", Absent::Size(6)) },
    key("use_bidirectional_attention", Absent::Flag(false)),
    key("tie_word_embeddings", Absent::Flag(true)),
    key("rope_theta", Absent::Number(1_000_000.0)),
    key("rope_local_base_freq", Absent::Number(10_000.0)),
];

fn gemma2(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = common("gemma2", fields)?.rotated(fields, &Spelling::of("rope_theta"))?;
    layout.attention.cap = fields.cap("attn_logit_softcapping")?;
    layout.constants.logit_cap = fields.cap("final_logit_softcapping")?;
    let window = fields.size_or_null("sliding_window")?;
    Ok(layout.sliding(fields, window, |layer| layer.is_multiple_of(2))?.build())
}

fn gemma3(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = common("gemma3_text", fields)?;
    layout.head_norms = HeadNormNames::Shared;
    layout.attention.cap = fields.cap("attn_logit_softcapping")?;
    layout.constants.logit_cap = fields.cap("final_logit_softcapping")?;
    let (window, pattern) = (fields.size_or_null("sliding_window")?, fields.size("sliding_window_pattern")?);
    layout = layout.sliding(fields, window, |layer| !(layer + 1).is_multiple_of(pattern))?;
    let whole = Spelling { kind: Some("full_attention"), ..Spelling::of("rope_theta") };
    // The scaling is for long contexts, which layers with a window do not see.
    let local = Spelling { kind: Some("sliding_attention"), scaled: false, ..Spelling::of("rope_local_base_freq") };
    let (head_dim, positions) = (layout.attention.head_dim, layout.max_positions);
    layout.rotaries = vec![rotary(fields, &whole, head_dim, positions)?, rotary(fields, &local, head_dim, positions)?];
    layout.rotary_of = layout.windows.iter().map(|window| Some(usize::from(window.is_some()))).collect();
    Ok(layout.build())
}

fn common(family: &'static str, fields: &Fields<'_>) -> Result<Layout, ConfigError> {
    if fields.flag("use_bidirectional_attention")? {
        return Err(fields.unusable("use_bidirectional_attention", "`false`: a language model sees what is before"));
    }
    let mut layout = Layout::named(family, fields, "hidden_activation")?.rms(fields)?.attention_bias(fields)?;
    layout.attention.scale = fields.positive("query_pre_attn_scalar")?.powf(-0.5);
    layout.norms = NormNames {
        attention: Some("input_layernorm"),
        attention_added: Some("post_attention_layernorm"),
        mlp: Some("pre_feedforward_layernorm"),
        mlp_added: Some("post_feedforward_layernorm"),
    };
    let embedding = (layout.hidden as f64).sqrt();
    layout.constants = Constants { embedding, gains_less_one: true, ..Constants::default() };
    Ok(layout)
}
