//! Phi-1, Phi-1.5 and Phi-2 (arXiv 2306.11644): parallel blocks with one layer norm, a part of each head rotated, biases
//! everywhere, the head's included.

use super::Family;
use crate::model::architecture::*;
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::{Spelling, rotary};

pub(super) const FAMILY: Family = Family { model_type: "phi", help: "Phi-1, Phi-1.5, Phi-2", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(51_200)),
    key("hidden_size", Absent::Size(2048)),
    key("intermediate_size", Absent::Size(8192)),
    key("num_hidden_layers", Absent::Size(24)),
    key("num_attention_heads", Absent::Size(32)),
    key("num_key_value_heads", Absent::As("num_attention_heads")),
    key("hidden_act", Absent::Text("gelu_new")),
    key("max_position_embeddings", Absent::Size(2048)),
    key("layer_norm_eps", Absent::Number(1e-5)),
    key("qk_layernorm", Absent::Flag(false)),
    key("tie_word_embeddings", Absent::Flag(false)),
    key("rope_theta", Absent::Number(10_000.0)),
    key("partial_rotary_factor", Absent::Number(0.5)),
];

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let (hidden, heads) = (fields.size("hidden_size")?, fields.size("num_attention_heads")?);
    let (kv_heads, ffn) = (fields.size("num_key_value_heads")?, fields.size("intermediate_size")?);
    let (vocabulary, head_dim) = (fields.size("vocab_size")?, fields.even_share(hidden, heads)?);
    let normed_heads = fields.flag("qk_layernorm")?;
    let plan = Plan {
        max_positions: fields.size("max_position_embeddings")?,
        norm: NormKind::Layer { eps: fields.number("layer_norm_eps")? },
        activation: fields.activation("hidden_act")?,
        attention: Attention::new(heads, kv_heads, head_dim),
    };
    let spelling = Spelling { fraction: Some("partial_rotary_factor"), ..Spelling::of("rope_theta") };
    let rotary = rotary(fields, &spelling, head_dim, plan.max_positions)?;

    let table = Module::embedding("model.embed_tokens", vocabulary, hidden);
    let mut network = Architecture::begun("phi", vec![table], plan);
    network.rotate(vec![rotary]);
    network.residual = Residual::Parallel;
    for layer in 0..fields.size("num_hidden_layers")? {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let (wide, narrow) = (heads * head_dim, kv_heads * head_dim);
        let mut linear = |rest: &str, group, out, inp| network.add(Module::linear(name(rest), group, out, inp, true));
        let mut projection = |rest: &str, out| linear(rest, Group::AttentionLinear, out, hidden);
        let (q, k) = (projection("self_attn.q_proj", wide), projection("self_attn.k_proj", narrow));
        let v = projection("self_attn.v_proj", narrow);
        let output = linear("self_attn.dense", Group::AttentionLinear, hidden, wide);
        let up = linear("mlp.fc1", Group::MlpLinear, ffn, hidden);
        let down = linear("mlp.fc2", Group::MlpLinear, hidden, ffn);
        let mut norm = |rest: &str, width| network.add(Module::norm(name(rest), width, true));
        let head_norms = match normed_heads {
            true => HeadNorms::Shared {
                q: norm("self_attn.q_layernorm", head_dim),
                k: norm("self_attn.k_layernorm", head_dim),
            },
            false => HeadNorms::None,
        };
        // One norm for both sublayers.
        let norms = Norms { attention: Some(norm("input_layernorm", hidden)), ..Norms::default() };
        let block = Block::new(norms, Projections::Separate { q, k, v }, output, Mlp::Plain { up, down });
        network.blocks.push(Block { head_norms, rotary: Some(0), ..block });
    }
    network.final_norm = Some(network.add(Module::norm("model.final_layernorm", hidden, true)));
    let tied = fields.flag("tie_word_embeddings")?.then_some(0);
    network.head = network.add(Module { bias: true, ..Module::head(vocabulary, hidden, tied) });
    Ok(network)
}
