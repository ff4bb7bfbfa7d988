//! Mixtures of experts in Llama's layout: Mixtral (arXiv 2401.04088), OLMoE (arXiv 2409.02060) and Qwen 3's
//! (arXiv 2505.09388). They differ in names, in norms of queries and keys, and in which layers have experts.

use super::Family;
use super::layout::{ExpertNames, HeadNormNames, Layout};
use crate::model::architecture::Architecture;
use crate::model::defaults::{Absent, Key, key, named};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::Spelling;

pub(super) const MIXTRAL: Family =
    Family { model_type: "mixtral", help: "Mixtral", keys: MIXTRAL_KEYS, build: mixtral };
pub(super) const OLMOE: Family = Family { model_type: "olmoe", help: "OLMoE", keys: OLMOE_KEYS, build: olmoe };
pub(super) const QWEN3_MOE: Family =
    Family { model_type: "qwen3_moe", help: "Qwen3-30B-A3B", keys: QWEN3_KEYS, build: qwen3_moe };

const MIXTRAL_KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(32_000)),
    key("hidden_size", Absent::Size(4096)),
    key("intermediate_size", Absent::Size(14_336)),
    key("num_hidden_layers", Absent::Size(32)),
    key("num_attention_heads", Absent::Size(32)),
    Key { null: Some(Absent::As("num_attention_heads")), ..key("num_key_value_heads", Absent::Size(8)) },
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(131_072)),
    key("rms_norm_eps", Absent::Number(1e-5)),
    named("num_local_experts", "num_experts", Absent::Size(8)),
    key("num_experts_per_tok", Absent::Size(2)),
    key("tie_word_embeddings", Absent::Flag(false)),
    key("rope_theta", Absent::Number(1_000_000.0)),
];

const OLMOE_KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(50_304)),
    key("hidden_size", Absent::Size(2048)),
    key("intermediate_size", Absent::Size(2048)),
    key("num_hidden_layers", Absent::Size(16)),
    key("num_attention_heads", Absent::Size(16)),
    key("num_key_value_heads", Absent::As("num_attention_heads")),
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(4096)),
    key("rms_norm_eps", Absent::Number(1e-5)),
    key("attention_bias", Absent::Flag(false)),
    named("num_experts", "num_local_experts", Absent::Size(64)),
    key("num_experts_per_tok", Absent::Size(8)),
    key("norm_topk_prob", Absent::Flag(false)),
    key("tie_word_embeddings", Absent::Flag(false)),
    key("rope_theta", Absent::Number(10_000.0)),
];

const QWEN3_KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(151_936)),
    key("hidden_size", Absent::Size(2048)),
    key("intermediate_size", Absent::Size(6144)),
    key("num_hidden_layers", Absent::Size(24)),
    key("num_attention_heads", Absent::Size(32)),
    Key { null: Some(Absent::As("num_attention_heads")), ..key("num_key_value_heads", Absent::Size(4)) },
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(32_768)),
    key("rms_norm_eps", Absent::Number(1e-6)),
    key("attention_bias", Absent::Flag(false)),
    key("use_sliding_window", Absent::Flag(false)),
    key("decoder_sparse_step", Absent::Size(1)),
    key("moe_intermediate_size", Absent::Size(768)),
    named("num_experts", "num_local_experts", Absent::Size(128)),
    key("num_experts_per_tok", Absent::Size(8)),
    key("norm_topk_prob", Absent::Flag(false)),
    key("tie_word_embeddings", Absent::Flag(false)),
    key("rope_theta", Absent::Number(10_000.0)),
];

fn mixtral(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = begun("mixtral", fields)?;
    let window = fields.optional_size("sliding_window")?;
    layout.windows = vec![window; layout.layers];
    let names = ExpertNames {
        module: "block_sparse_moe",
        linears: ["w1", "w3", "w2"],
        renormalised: true,
        ..experts(fields, "num_local_experts", layout.ffn)?
    };
    layout.experts = vec![Some(names); layout.layers];
    Ok(layout.build())
}

fn olmoe(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = begun("olmoe", fields)?.attention_bias(fields)?;
    fields.even_share(layout.hidden, layout.attention.heads)?;
    layout.head_norms = HeadNormNames::Whole;
    layout.attention.clip = fields.cap("clip_qkv")?;
    let renormalised = fields.flag("norm_topk_prob")?;
    let names = ExpertNames { renormalised, ..experts(fields, "num_experts", layout.ffn)? };
    layout.experts = vec![Some(names); layout.layers];
    Ok(layout.build())
}

fn qwen3_moe(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut layout = begun("qwen3_moe", fields)?.attention_bias(fields)?;
    layout.head_norms = HeadNormNames::Shared;
    let window = if fields.flag("use_sliding_window")? { fields.optional_size("sliding_window")? } else { None };
    layout.windows = vec![window; layout.layers];
    let renormalised = fields.flag("norm_topk_prob")?;
    let names = ExpertNames { renormalised, ..experts(fields, "num_experts", fields.size("moe_intermediate_size")?)? };
    let (step, plain) = (fields.size("decoder_sparse_step")?, fields.numbers("mlp_only_layers")?);
    let has = |layer: usize| (layer + 1).is_multiple_of(step) && !plain.contains(&layer);
    layout.experts = (0..layout.layers).map(|layer| has(layer).then_some(names)).collect();
    Ok(layout.build())
}

fn begun(family: &'static str, fields: &Fields<'_>) -> Result<Layout, ConfigError> {
    Layout::of(family, fields)?.rms(fields)?.rotated(fields, &Spelling::of("rope_theta"))
}

fn experts(fields: &Fields<'_>, count: &str, width: usize) -> Result<ExpertNames, ConfigError> {
    let (count, top) = (fields.size(count)?, fields.size("num_experts_per_tok")?);
    if top > count {
        return Err(fields.unusable("num_experts_per_tok", &format!("at most the number of experts, {count}")));
    }
    let linears = ["gate_proj", "up_proj", "down_proj"];
    Ok(ExpertNames { module: "mlp", linears, count, top, width, renormalised: false })
}
