//! GPT-2: learned positions, a fused projection, and Conv1D weights that lie `[in, out]`.

use super::Family;
use crate::model::architecture::*;
use crate::model::defaults;
use crate::model::error::ConfigError;
use crate::model::fields::Fields;

pub(super) const FAMILY: Family =
    Family { model_type: "gpt2", help: "GPT-2, DistilGPT-2", keys: defaults::GPT2, build };

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let (hidden, heads) = (fields.size("n_embd")?, fields.size("n_head")?);
    let (vocabulary, ffn) = (fields.size("vocab_size")?, fields.size("n_inner")?);
    let plan = Plan {
        max_positions: fields.size("n_positions")?,
        norm: NormKind::Layer { eps: fields.number("layer_norm_epsilon")? },
        activation: fields.activation("activation_function")?,
        attention: Attention::new(heads, heads, fields.even_share(hidden, heads)?),
    };
    for (key, usual) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
        if fields.flag(key)? != usual {
            return Err(fields.unusable(key, &format!("`{usual}`")));
        }
    }

    let tables = vec![
        Module::embedding("transformer.wte", vocabulary, hidden),
        Module::embedding("transformer.wpe", plan.max_positions, hidden),
    ];
    let mut network = Architecture::begun("gpt2", tables, plan);
    network.positions = Positions::Learned { table: 1, offset: 0 };
    let conv1d = |name, group, out, inp| Module { transposed: true, ..Module::linear(name, group, out, inp, true) };
    for layer in 0..fields.size("n_layer")? {
        let name = |rest: &str| format!("transformer.h.{layer}.{rest}");
        let attention_norm = network.add(Module::norm(name("ln_1"), hidden, true));
        let fused = network.add(conv1d(name("attn.c_attn"), Group::AttentionLinear, 3 * hidden, hidden));
        let output = network.add(conv1d(name("attn.c_proj"), Group::AttentionLinear, hidden, hidden));
        let mlp_norm = network.add(Module::norm(name("ln_2"), hidden, true));
        let up = network.add(conv1d(name("mlp.c_fc"), Group::MlpLinear, ffn, hidden));
        let down = network.add(conv1d(name("mlp.c_proj"), Group::MlpLinear, hidden, ffn));
        let norms = Norms::before(attention_norm, mlp_norm);
        network.blocks.push(Block::new(norms, Projections::Stacked(fused), output, Mlp::Plain { up, down }));
    }
    network.final_norm = Some(network.add(Module::norm("transformer.ln_f", hidden, true)));
    let tied = fields.flag("tie_word_embeddings")?.then_some(0);
    network.head = network.add(Module::head(vocabulary, hidden, tied));
    Ok(network)
}
