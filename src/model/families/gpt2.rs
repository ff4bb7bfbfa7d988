//! GPT-2: learned positions, a fused projection, and Conv1D weights that lie `[in, out]`.

use super::Family;
use crate::model::architecture::*;
use crate::model::defaults;
use crate::model::error::ConfigError;
use crate::model::fields::Fields;

pub(super) const FAMILY: Family =
    Family { model_type: "gpt2", help: "GPT-2, DistilGPT-2", keys: defaults::GPT2, build };

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let hidden = fields.size("n_embd")?;
    let heads = fields.size("n_head")?;
    let ffn = fields.size("n_inner")?;
    let vocabulary = fields.size("vocab_size")?;
    let max_positions = fields.size("n_positions")?;
    for (key, usual) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
        if fields.flag(key)? != usual {
            return Err(fields.unusable(key, &format!("`{usual}`")));
        }
    }

    let mut modules = vec![
        Module::embedding("transformer.wte", vocabulary, hidden),
        Module::embedding("transformer.wpe", max_positions, hidden),
    ];
    let mut add = |module: Module| {
        modules.push(module);
        modules.len() - 1
    };
    let conv1d = |name, group, out, inp| Module { transposed: true, ..Module::linear(name, group, out, inp, true) };
    let mut blocks = Vec::new();
    for layer in 0..fields.size("n_layer")? {
        let name = |rest: &str| format!("transformer.h.{layer}.{rest}");
        let attention_norm = add(Module::norm(name("ln_1"), hidden, true));
        let fused = add(conv1d(name("attn.c_attn"), Group::AttentionLinear, 3 * hidden, hidden));
        let output = add(conv1d(name("attn.c_proj"), Group::AttentionLinear, hidden, hidden));
        let mlp_norm = add(Module::norm(name("ln_2"), hidden, true));
        let up = add(conv1d(name("mlp.c_fc"), Group::MlpLinear, ffn, hidden));
        let down = add(conv1d(name("mlp.c_proj"), Group::MlpLinear, hidden, ffn));
        let projections = Projections::Stacked(fused);
        blocks.push(Block {
            norms: Norms::before(attention_norm, mlp_norm),
            projections,
            head_norms: HeadNorms::None,
            window: None,
            rotary: None,
            output,
            mlp: Mlp::Plain { up, down },
        });
    }
    let final_norm = add(Module::norm("transformer.ln_f", hidden, true));
    let tied = fields.flag("tie_word_embeddings")?;
    let head = add(Module::head(vocabulary, hidden, tied.then_some(0)));
    Ok(Architecture {
        family: "gpt2",
        modules,
        blocks,
        tokens: 0,
        embedding_norm: None,
        positions: Positions::Learned { table: 1, offset: 0 },
        project_in: None,
        project_out: None,
        final_norm: Some(final_norm),
        head,
        norm: NormKind::Layer { eps: fields.number("layer_norm_epsilon")? },
        activation: fields.activation("activation_function")?,
        residual: Residual::PreNorm,
        attention: Attention::new(heads, heads, fields.even_share(hidden, heads)?),
        constants: Constants::default(),
        vocabulary,
        max_positions,
        longest: max_positions,
        assumed: Vec::new(),
    })
}
