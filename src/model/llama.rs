//! Llama (arXiv 2302.13971) and its kin, Mistral (arXiv 2310.06825) and Qwen2 (arXiv 2407.10671):
//! RMS norms, rotary positions, grouped keys and values, a gated feed-forward layer. They differ in
//! which projections have biases and in how far back a token sees.

use super::architecture::*;
use super::error::ConfigError;
use super::fields::Fields;
use super::rope::{Spelling, rotary};

/// What differs between the kin.
struct Kin {
    family: &'static str,
    qkv_bias: bool,
    output_bias: bool,
    mlp_bias: bool,
    window: Option<usize>,
}

pub(super) fn llama(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let bias = fields.flag("attention_bias")?;
    let mlp_bias = fields.flag("mlp_bias")?;
    build(fields, Kin { family: "llama", qkv_bias: bias, output_bias: bias, mlp_bias, window: None })
}

pub(super) fn mistral(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    // Here `null` says something else than nothing: that every token sees all before it.
    let window = if fields.is_null("sliding_window") { None } else { Some(fields.size("sliding_window")?) };
    build(fields, Kin { family: "mistral", qkv_bias: false, output_bias: false, mlp_bias: false, window })
}

pub(super) fn qwen2(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    if fields.flag("use_sliding_window")? {
        // Its first `max_window_layers` blocks see everything: a mix that no released model uses.
        return Err(fields.unusable("use_sliding_window", "`false`"));
    }
    build(fields, Kin { family: "qwen2", qkv_bias: true, output_bias: false, mlp_bias: false, window: None })
}

fn build(fields: &Fields<'_>, kin: Kin) -> Result<Architecture, ConfigError> {
    let hidden = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let kv_heads = fields.size("num_key_value_heads")?;
    let ffn = fields.size("intermediate_size")?;
    let vocabulary = fields.size("vocab_size")?;
    let max_positions = fields.size("max_position_embeddings")?;
    let head_dim = fields.head_dim(hidden, heads)?;

    let mut modules = vec![Module::embedding("model.embed_tokens", vocabulary, hidden)];
    let mut add = |module: Module| {
        modules.push(module);
        modules.len() - 1
    };
    let mut blocks = Vec::new();
    for layer in 0..fields.size("num_hidden_layers")? {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let (attention, mlp) = (Group::AttentionLinear, Group::MlpLinear);
        let (wide, narrow) = (heads * head_dim, kv_heads * head_dim);
        let q = add(Module::linear(name("self_attn.q_proj"), attention, wide, hidden, kin.qkv_bias));
        let k = add(Module::linear(name("self_attn.k_proj"), attention, narrow, hidden, kin.qkv_bias));
        let v = add(Module::linear(name("self_attn.v_proj"), attention, narrow, hidden, kin.qkv_bias));
        let output = add(Module::linear(name("self_attn.o_proj"), attention, hidden, wide, kin.output_bias));
        let gate = add(Module::linear(name("mlp.gate_proj"), mlp, ffn, hidden, kin.mlp_bias));
        let up = add(Module::linear(name("mlp.up_proj"), mlp, ffn, hidden, kin.mlp_bias));
        let down = add(Module::linear(name("mlp.down_proj"), mlp, hidden, ffn, kin.mlp_bias));
        let attention_norm = add(Module::norm(name("input_layernorm"), hidden, false));
        let mlp_norm = add(Module::norm(name("post_attention_layernorm"), hidden, false));
        let projections = Projections::Separate { q, k, v };
        blocks.push(Block { attention_norm, mlp_norm, projections, output, mlp: Mlp::Gated { gate, up, down } });
    }
    let final_norm = add(Module::norm("model.norm", hidden, false));
    let tied = fields.flag("tie_word_embeddings")?;
    let head = add(Module::head(vocabulary, hidden, tied.then_some(0)));
    let spelling = Spelling { theta: "rope_theta", fraction: None };
    Ok(Architecture {
        family: kin.family,
        modules,
        blocks,
        tokens: 0,
        positions: Positions::Rotary(rotary(fields, &spelling, head_dim, max_positions)?),
        project_in: None,
        project_out: None,
        final_norm: Some(final_norm),
        head,
        norm: NormKind::Rms { eps: fields.number("rms_norm_eps")? },
        activation: fields.activation("hidden_act")?,
        residual: Residual::PreNorm,
        attention: Attention { heads, kv_heads, head_dim, window: kin.window },
        vocabulary,
        max_positions,
        assumed: Vec::new(),
    })
}
