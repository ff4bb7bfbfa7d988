//! BLOOM (arXiv 2211.05100): linear biases in place of positions, a norm of the embeddings, one fused projection
//! interleaved per head, biases everywhere. Files leave out `transformer.` in front of names.

use super::Family;
use crate::model::architecture::*;
use crate::model::defaults::{Absent, Key, key, named};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;

pub(super) const FAMILY: Family = Family { model_type: "bloom", help: "BLOOM, BLOOMZ", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(250_880)),
    named("hidden_size", "n_embed", Absent::Size(64)),
    named("n_layer", "num_hidden_layers", Absent::Size(2)),
    named("n_head", "num_attention_heads", Absent::Size(8)),
    key("n_inner", Absent::FourTimes("hidden_size")),
    key("layer_norm_epsilon", Absent::Number(1e-5)),
    key("apply_residual_connection_post_layernorm", Absent::Flag(false)),
    // What it was trained on: no length is its limit.
    key("seq_length", Absent::Size(2048)),
    key("tie_word_embeddings", Absent::Flag(true)),
];

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let (hidden, heads) = (fields.size("hidden_size")?, fields.size("n_head")?);
    let (vocabulary, head_dim) = (fields.size("vocab_size")?, fields.even_share(hidden, heads)?);
    let ffn = fields.size("n_inner")?;
    if ffn != 4 * hidden {
        return Err(fields.unusable("n_inner", "null: the library takes four times the width"));
    }
    if fields.flag("apply_residual_connection_post_layernorm")? {
        return Err(fields.unusable("apply_residual_connection_post_layernorm", "`false`"));
    }

    let plan = Plan {
        max_positions: fields.size("seq_length")?,
        norm: NormKind::Layer { eps: fields.number("layer_norm_epsilon")? },
        activation: Activation::GeluTanh,
        attention: Attention::new(heads, heads, head_dim),
    };

    let table = Module::embedding("transformer.word_embeddings", vocabulary, hidden);
    let mut network = Architecture::begun("bloom", vec![table], plan);
    network.bias_by(Alibi::Plain);
    network.embedding_norm = Some(network.add(Module::norm("transformer.word_embeddings_layernorm", hidden, true)));
    for layer in 0..fields.size("n_layer")? {
        let name = |rest: &str| format!("transformer.h.{layer}.{rest}");
        let (attention, mlp) = (Group::AttentionLinear, Group::MlpLinear);
        let before = network.add(Module::norm(name("input_layernorm"), hidden, true));
        let mut linear = |rest: &str, group, out, inp| network.add(Module::linear(name(rest), group, out, inp, true));
        let fused = linear("self_attention.query_key_value", attention, 3 * hidden, hidden);
        let output = linear("self_attention.dense", attention, hidden, hidden);
        let up = linear("mlp.dense_h_to_4h", mlp, ffn, hidden);
        let down = linear("mlp.dense_4h_to_h", mlp, hidden, ffn);
        let between = network.add(Module::norm(name("post_attention_layernorm"), hidden, true));
        let norms = Norms::before(before, between);
        network.blocks.push(Block::new(norms, Projections::PerHead(fused), output, Mlp::Plain { up, down }));
    }
    network.final_norm = Some(network.add(Module::norm("transformer.ln_f", hidden, true)));
    let tied = fields.flag("tie_word_embeddings")?.then_some(0);
    network.head = network.add(Module::head(vocabulary, hidden, tied));
    Ok(network)
}
