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
    let hidden = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let ffn = fields.size("intermediate_size")?;
    let vocabulary = fields.size("vocab_size")?;
    let max_positions = fields.size("max_position_embeddings")?;
    let head_dim = fields.even_share(hidden, heads)?;
    let bias = fields.flag("attention_bias")?;

    let mut modules = vec![Module::embedding("gpt_neox.embed_in", vocabulary, hidden)];
    let mut add = |module: Module| {
        modules.push(module);
        modules.len() - 1
    };
    let mut blocks = Vec::new();
    for layer in 0..fields.size("num_hidden_layers")? {
        let name = |rest: &str| format!("gpt_neox.layers.{layer}.{rest}");
        let attention = Group::AttentionLinear;
        let attention_norm = add(Module::norm(name("input_layernorm"), hidden, true));
        let mlp_norm = add(Module::norm(name("post_attention_layernorm"), hidden, true));
        let fused =
            add(Module::linear(name("attention.query_key_value"), attention, 3 * heads * head_dim, hidden, bias));
        let output = add(Module::linear(name("attention.dense"), attention, hidden, heads * head_dim, bias));
        let up = add(Module::linear(name("mlp.dense_h_to_4h"), Group::MlpLinear, ffn, hidden, true));
        let down = add(Module::linear(name("mlp.dense_4h_to_h"), Group::MlpLinear, hidden, ffn, true));
        let projections = Projections::PerHead(fused);
        blocks.push(Block {
            norms: Norms::before(attention_norm, mlp_norm),
            projections,
            head_norms: HeadNorms::None,
            window: None,
            rotary: Some(0),
            output,
            mlp: Mlp::Plain { up, down },
        });
    }
    let final_norm = add(Module::norm("gpt_neox.final_layer_norm", hidden, true));
    let tied = fields.flag("tie_word_embeddings")?;
    let head = add(Module { stored_name: Some("embed_out"), ..Module::head(vocabulary, hidden, tied.then_some(0)) });
    let parallel = fields.flag("use_parallel_residual")?;
    let spelling = Spelling { fraction: Some("rotary_pct"), ..Spelling::of("rotary_emb_base") };
    let rotary = rotary(fields, &spelling, head_dim, max_positions)?;
    Ok(Architecture {
        family: "gpt_neox",
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
        residual: if parallel { Residual::Parallel } else { Residual::PreNorm },
        attention: Attention::new(heads, heads, head_dim),
        constants: Constants::default(),
        vocabulary,
        max_positions,
        assumed: Vec::new(),
    })
}
