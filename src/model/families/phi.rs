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
    let (vocabulary, max_positions) = (fields.size("vocab_size")?, fields.size("max_position_embeddings")?);
    let head_dim = fields.even_share(hidden, heads)?;
    let normed_heads = fields.flag("qk_layernorm")?;

    let mut modules = vec![Module::embedding("model.embed_tokens", vocabulary, hidden)];
    let mut add = |module: Module| {
        modules.push(module);
        modules.len() - 1
    };
    let mut blocks = Vec::new();
    for layer in 0..fields.size("num_hidden_layers")? {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let (wide, narrow) = (heads * head_dim, kv_heads * head_dim);
        let mut linear = |rest: &str, group, out, inp| add(Module::linear(name(rest), group, out, inp, true));
        let mut projection = |rest: &str, out| linear(rest, Group::AttentionLinear, out, hidden);
        let (q, k) = (projection("self_attn.q_proj", wide), projection("self_attn.k_proj", narrow));
        let v = projection("self_attn.v_proj", narrow);
        let output = linear("self_attn.dense", Group::AttentionLinear, hidden, wide);
        let up = linear("mlp.fc1", Group::MlpLinear, ffn, hidden);
        let down = linear("mlp.fc2", Group::MlpLinear, hidden, ffn);
        let mut norm = |rest: &str, width| add(Module::norm(name(rest), width, true));
        let head_norms = match normed_heads {
            true => HeadNorms::Shared {
                q: norm("self_attn.q_layernorm", head_dim),
                k: norm("self_attn.k_layernorm", head_dim),
            },
            false => HeadNorms::None,
        };
        // One norm for both sublayers.
        let norms = Norms { attention: Some(norm("input_layernorm", hidden)), ..Norms::default() };
        blocks.push(Block {
            norms,
            projections: Projections::Separate { q, k, v },
            head_norms,
            window: None,
            rotary: Some(0),
            output,
            mlp: Mlp::Plain { up, down },
        });
    }
    let final_norm = add(Module::norm("model.final_layernorm", hidden, true));
    let tied = fields.flag("tie_word_embeddings")?;
    let head = add(Module { bias: true, ..Module::head(vocabulary, hidden, tied.then_some(0)) });
    let spelling = Spelling { fraction: Some("partial_rotary_factor"), ..Spelling::of("rope_theta") };
    let rotary = rotary(fields, &spelling, head_dim, max_positions)?;
    Ok(Architecture {
        family: "phi",
        modules,
        blocks,
        tokens: 0,
        embedding_norm: None,
        longest: rotary.longest(max_positions),
        positions: Positions::Rotary(vec![rotary]),
        project_in: None,
        project_out: None,
        final_norm: Some(final_norm),
        head,
        norm: NormKind::Layer { eps: fields.number("layer_norm_eps")? },
        activation: fields.activation("hidden_act")?,
        residual: Residual::Parallel,
        attention: Attention::new(heads, kv_heads, head_dim),
        constants: Constants::default(),
        vocabulary,
        max_positions,
        assumed: Vec::new(),
    })
}
