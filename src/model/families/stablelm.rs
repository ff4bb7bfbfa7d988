//! StableLM 3B and StableLM 2 (arXiv 2402.17834): Llama's layout with layer norms and a part of each head rotated. The
//! 12B model norms every query and key by a layer norm of its head's own, and has parallel blocks.

use super::Family;
use super::layout::{HeadNormNames, Layout};
use crate::model::architecture::{Architecture, NormKind, Residual};
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::Spelling;

pub(super) const FAMILY: Family = Family { model_type: "stablelm", help: "StableLM", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(50_304)),
    key("hidden_size", Absent::Size(2560)),
    key("intermediate_size", Absent::Size(6912)),
    key("num_hidden_layers", Absent::Size(32)),
    key("num_attention_heads", Absent::Size(32)),
    Key { null: Some(Absent::As("num_attention_heads")), ..key("num_key_value_heads", Absent::Size(32)) },
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(4096)),
    key("layer_norm_eps", Absent::Number(1e-5)),
    key("use_qkv_bias", Absent::Flag(false)),
    key("qk_layernorm", Absent::Flag(false)),
    key("use_parallel_residual", Absent::Flag(false)),
    key("tie_word_embeddings", Absent::Flag(false)),
    key("rope_theta", Absent::Number(10_000.0)),
    key("partial_rotary_factor", Absent::Number(0.25)),
];

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let spelling = Spelling { fraction: Some("partial_rotary_factor"), ..Spelling::of("rope_theta") };
    let mut layout = Layout::of("stablelm", fields)?.rotated(fields, &spelling)?;
    fields.even_share(layout.hidden, layout.attention.heads)?;
    layout.norm = NormKind::Layer { eps: fields.number("layer_norm_eps")? };
    layout.norm_bias = true;
    layout.qkv_bias = fields.flag("use_qkv_bias")?;
    if fields.flag("qk_layernorm")? {
        layout.head_norms = HeadNormNames::Own;
    }
    if fields.flag("use_parallel_residual")? {
        layout.residual = Residual::Parallel;
        layout.norms.mlp = None;
    }
    Ok(layout.build())
}
