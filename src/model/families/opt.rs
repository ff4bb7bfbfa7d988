//! OPT (arXiv 2205.01068): learned positions from row 2, ReLU, biases everywhere, a tied head.

use super::Family;
use crate::model::architecture::*;
use crate::model::defaults;
use crate::model::error::ConfigError;
use crate::model::fields::Fields;

/// Rows of the position table before position 0.
const POSITION_OFFSET: usize = 2;

pub(super) const FAMILY: Family = Family { model_type: "opt", help: "OPT", keys: defaults::OPT, build };

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let (hidden, heads) = (fields.size("hidden_size")?, fields.size("num_attention_heads")?);
    let (vocabulary, ffn) = (fields.size("vocab_size")?, fields.size("ffn_dim")?);
    let width = fields.size("word_embed_proj_dim")?;
    let bias = fields.flag("enable_bias")?;
    if !fields.flag("layer_norm_elementwise_affine")? {
        return Err(fields.unusable("layer_norm_elementwise_affine", "`true`"));
    }
    let before = fields.flag("do_layer_norm_before")?;
    let plan = Plan {
        max_positions: fields.size("max_position_embeddings")?,
        norm: NormKind::Layer { eps: 1e-5 },
        activation: fields.activation("activation_function")?,
        attention: Attention::new(heads, heads, fields.even_share(hidden, heads)?),
    };

    let tables = vec![
        Module::embedding("model.decoder.embed_tokens", vocabulary, width),
        Module::embedding("model.decoder.embed_positions", plan.max_positions + POSITION_OFFSET, hidden),
    ];
    let mut network = Architecture::begun("opt", tables, plan);
    network.positions = Positions::Learned { table: 1, offset: POSITION_OFFSET };
    if width != hidden {
        let other = |name: &str, out, inp| Module::linear(name, Group::OtherLinear, out, inp, false);
        network.project_out = Some(network.add(other("model.decoder.project_out", width, hidden)));
        network.project_in = Some(network.add(other("model.decoder.project_in", hidden, width)));
    }
    if !before {
        network.residual = Residual::PostNorm;
    } else if !fields.flag("_remove_final_layer_norm")? {
        network.final_norm = Some(network.add(Module::norm("model.decoder.final_layer_norm", hidden, true)));
    }
    for layer in 0..fields.size("num_hidden_layers")? {
        let name = |rest: &str| format!("model.decoder.layers.{layer}.{rest}");
        let mut attention =
            |rest| network.add(Module::linear(name(rest), Group::AttentionLinear, hidden, hidden, bias));
        let (k, v) = (attention("self_attn.k_proj"), attention("self_attn.v_proj"));
        let (q, output) = (attention("self_attn.q_proj"), attention("self_attn.out_proj"));
        let attention_norm = network.add(Module::norm(name("self_attn_layer_norm"), hidden, true));
        let up = network.add(Module::linear(name("fc1"), Group::MlpLinear, ffn, hidden, bias));
        let down = network.add(Module::linear(name("fc2"), Group::MlpLinear, hidden, ffn, bias));
        let norms = Norms::before(attention_norm, network.add(Module::norm(name("final_layer_norm"), hidden, true)));
        network.blocks.push(Block::new(norms, Projections::Separate { q, k, v }, output, Mlp::Plain { up, down }));
    }
    let tied = fields.flag("tie_word_embeddings")?.then_some(0);
    network.head = network.add(Module::head(vocabulary, width, tied));
    Ok(network)
}
