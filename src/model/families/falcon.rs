//! Falcon (arXiv 2311.16867) in its three forms.
//!
//! ```text
//!   RW      rows of queries, keys and values per head; two norms, one sublayer after the other; linear biases
//!   7B      all query heads, one key head, one value head; one norm, both sublayers side by side
//!   40B     for each key-value head its queries, its key, its value; side by side with two norms, or with one (11B)
//! ```

use super::Family;
use crate::model::architecture::*;
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::{Spelling, rotary};

pub(super) const FAMILY: Family = Family { model_type: "falcon", help: "Falcon, Falcon 2", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(65_024)),
    key("hidden_size", Absent::Size(4544)),
    key("num_hidden_layers", Absent::Size(32)),
    key("num_attention_heads", Absent::Size(71)),
    key("num_kv_heads", Absent::As("num_attention_heads")),
    key("num_ln_in_parallel_attn", Absent::Size(2)),
    key("ffn_hidden_size", Absent::FourTimes("hidden_size")),
    key("activation", Absent::Text("gelu")),
    key("layer_norm_epsilon", Absent::Number(1e-5)),
    key("alibi", Absent::Flag(false)),
    key("new_decoder_architecture", Absent::Flag(false)),
    key("multi_query", Absent::Flag(true)),
    key("parallel_attn", Absent::Flag(true)),
    key("bias", Absent::Flag(false)),
    key("max_position_embeddings", Absent::Size(2048)),
    key("tie_word_embeddings", Absent::Flag(true)),
    key("rope_theta", Absent::Number(10_000.0)),
];

/// The names of the norms of a block: of the attention, and of the feed-forward layer if it has one of its own.
type NormNames = (&'static str, Option<&'static str>);

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let (hidden, heads) = (fields.size("hidden_size")?, fields.size("num_attention_heads")?);
    let (vocabulary, ffn) = (fields.size("vocab_size")?, fields.size("ffn_hidden_size")?);
    let head_dim = fields.even_share(hidden, heads)?;
    let (kv_heads, stacked) = match (fields.flag("new_decoder_architecture")?, fields.flag("multi_query")?) {
        (true, _) => (fields.size("num_kv_heads")?, false),
        (false, true) => (1, true),
        (false, false) => (heads, false),
    };
    let (residual, norm_names) = norms(fields)?;
    let bias = fields.flag("bias")?;

    let plan = Plan {
        max_positions: fields.size("max_position_embeddings")?,
        norm: NormKind::Layer { eps: fields.number("layer_norm_epsilon")? },
        activation: fields.activation("activation")?,
        attention: Attention::new(heads, kv_heads, head_dim),
    };
    let rotary = match fields.flag("alibi")? {
        true => None,
        false => Some(rotary(fields, &Spelling::of("rope_theta"), head_dim, plan.max_positions)?),
    };

    let table = Module::embedding("transformer.word_embeddings", vocabulary, hidden);
    let mut network = Architecture::begun("falcon", vec![table], plan);
    network.residual = residual;
    let turned = rotary.is_some().then_some(0);
    match rotary {
        Some(rotary) => network.rotate(vec![rotary]),
        None => network.bias_by(Alibi::RoundedAndScaled),
    }
    for layer in 0..fields.size("num_hidden_layers")? {
        let name = |rest: &str| format!("transformer.h.{layer}.{rest}");
        let (attention, mlp) = (Group::AttentionLinear, Group::MlpLinear);
        let mut linear = |rest: &str, group, out, inp| network.add(Module::linear(name(rest), group, out, inp, bias));
        let rows = (heads + 2 * kv_heads) * head_dim;
        let fused = linear("self_attention.query_key_value", attention, rows, hidden);
        let output = linear("self_attention.dense", attention, hidden, hidden);
        let up = linear("mlp.dense_h_to_4h", mlp, ffn, hidden);
        let down = linear("mlp.dense_4h_to_h", mlp, hidden, ffn);
        let mut norm = |rest: &str| network.add(Module::norm(name(rest), hidden, true));
        let norms = Norms { attention: Some(norm(norm_names.0)), mlp: norm_names.1.map(norm), ..Norms::default() };
        let projections = if stacked { Projections::Stacked(fused) } else { Projections::PerHead(fused) };
        let block = Block::new(norms, projections, output, Mlp::Plain { up, down });
        network.blocks.push(Block { rotary: turned, ..block });
    }
    network.final_norm = Some(network.add(Module::norm("transformer.ln_f", hidden, true)));
    let tied = fields.flag("tie_word_embeddings")?.then_some(0);
    network.head = network.add(Module::head(vocabulary, hidden, tied));
    Ok(network)
}

/// How a block adds up, and its norms.
fn norms(fields: &Fields<'_>) -> Result<(Residual, NormNames), ConfigError> {
    let (new, beside) = (fields.flag("new_decoder_architecture")?, fields.flag("parallel_attn")?);
    let two = new && fields.size("num_ln_in_parallel_attn")? == 2;
    match (new, beside) {
        (true, false) => Err(fields.unusable("parallel_attn", "`true` with `new_decoder_architecture`")),
        (true, true) if two => Ok((Residual::Parallel, ("ln_attn", Some("ln_mlp")))),
        (_, true) => Ok((Residual::Parallel, ("input_layernorm", None))),
        (false, false) => Ok((Residual::PreNorm, ("input_layernorm", Some("post_attention_layernorm")))),
    }
}
