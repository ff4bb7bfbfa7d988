//! GPT-NeoX and Pythia (arXiv 2204.06745): one fused projection interleaved per head, rotary positions
//! on part of a head, attention and feed-forward side by side.

use super::Family;
use crate::model::architecture::*;
use crate::model::defaults;
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::{Spelling, rotary};

pub(super) const FAMILY: Family =
    Family { model_type: "gpt_neox", help: "Pythia, GPT-NeoX", keys: defaults::GPT_NEOX, build };

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let (hidden, heads) = (fields.size("hidden_size")?, fields.size("num_attention_heads")?);
    let (vocabulary, ffn) = (fields.size("vocab_size")?, fields.size("intermediate_size")?);
    let head_dim = fields.even_share(hidden, heads)?;
    let bias = fields.flag("attention_bias")?;
    let plan = Plan {
        max_positions: fields.size("max_position_embeddings")?,
        norm: NormKind::Layer { eps: fields.number("layer_norm_eps")? },
        activation: fields.activation("hidden_act")?,
        attention: Attention::new(heads, heads, head_dim),
    };
    let spelling = Spelling { fraction: Some("rotary_pct"), ..Spelling::of("rotary_emb_base") };
    let rotary = rotary(fields, &spelling, head_dim, plan.max_positions)?;

    let table = Module::embedding("gpt_neox.embed_in", vocabulary, hidden);
    let mut network = Architecture::begun("gpt_neox", vec![table], plan);
    network.rotate(vec![rotary]);
    for layer in 0..fields.size("num_hidden_layers")? {
        let name = |rest: &str| format!("gpt_neox.layers.{layer}.{rest}");
        let mut norm = |rest: &str| network.add(Module::norm(name(rest), hidden, true));
        let norms = Norms::before(norm("input_layernorm"), norm("post_attention_layernorm"));
        let mut attention =
            |rest: &str, out, inp| network.add(Module::linear(name(rest), Group::AttentionLinear, out, inp, bias));
        let fused = attention("attention.query_key_value", 3 * heads * head_dim, hidden);
        let output = attention("attention.dense", hidden, heads * head_dim);
        let mut mlp = |rest: &str, out, inp| network.add(Module::linear(name(rest), Group::MlpLinear, out, inp, true));
        let (up, down) = (mlp("mlp.dense_h_to_4h", ffn, hidden), mlp("mlp.dense_4h_to_h", hidden, ffn));
        let block = Block::new(norms, Projections::PerHead(fused), output, Mlp::Plain { up, down });
        network.blocks.push(Block { rotary: Some(0), ..block });
    }
    network.final_norm = Some(network.add(Module::norm("gpt_neox.final_layer_norm", hidden, true)));
    let tied = fields.flag("tie_word_embeddings")?.then_some(0);
    network.head = network.add(Module { stored_name: Some("embed_out"), ..Module::head(vocabulary, hidden, tied) });
    if fields.flag("use_parallel_residual")? {
        network.residual = Residual::Parallel;
    }
    Ok(network)
}
