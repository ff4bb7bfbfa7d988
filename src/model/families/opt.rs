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
    let hidden = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let ffn = fields.size("ffn_dim")?;
    let vocabulary = fields.size("vocab_size")?;
    let max_positions = fields.size("max_position_embeddings")?;
    let width = fields.size("word_embed_proj_dim")?;
    let bias = fields.flag("enable_bias")?;
    let gains = fields.flag("layer_norm_elementwise_affine")?;
    if !gains {
        return Err(fields.unusable("layer_norm_elementwise_affine", "`true`"));
    }
    let before = fields.flag("do_layer_norm_before")?;
    let tied = fields.flag("tie_word_embeddings")?;

    let mut modules = vec![
        Module::embedding("model.decoder.embed_tokens", vocabulary, width),
        Module::embedding("model.decoder.embed_positions", max_positions + POSITION_OFFSET, hidden),
    ];
    let mut add = |module: Module| {
        modules.push(module);
        modules.len() - 1
    };
    let other = |name: &str, out, inp| Module::linear(name, Group::OtherLinear, out, inp, false);
    let projected = width != hidden;
    let project_out = projected.then(|| add(other("model.decoder.project_out", width, hidden)));
    let project_in = projected.then(|| add(other("model.decoder.project_in", hidden, width)));
    let final_norm = before && !fields.flag("_remove_final_layer_norm")?;
    let final_norm = final_norm.then(|| add(Module::norm("model.decoder.final_layer_norm", hidden, true)));
    let mut blocks = Vec::new();
    for layer in 0..fields.size("num_hidden_layers")? {
        let name = |rest: &str| format!("model.decoder.layers.{layer}.{rest}");
        let mut attention = |rest| add(Module::linear(name(rest), Group::AttentionLinear, hidden, hidden, bias));
        let (k, v) = (attention("self_attn.k_proj"), attention("self_attn.v_proj"));
        let (q, output) = (attention("self_attn.q_proj"), attention("self_attn.out_proj"));
        let attention_norm = add(Module::norm(name("self_attn_layer_norm"), hidden, true));
        let up = add(Module::linear(name("fc1"), Group::MlpLinear, ffn, hidden, bias));
        let down = add(Module::linear(name("fc2"), Group::MlpLinear, hidden, ffn, bias));
        let mlp_norm = add(Module::norm(name("final_layer_norm"), hidden, true));
        let projections = Projections::Separate { q, k, v };
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
    let head = add(Module::head(vocabulary, width, tied.then_some(0)));
    Ok(Architecture {
        family: "opt",
        modules,
        blocks,
        tokens: 0,
        embedding_norm: None,
        positions: Positions::Learned { table: 1, offset: POSITION_OFFSET },
        project_in,
        project_out,
        final_norm,
        head,
        norm: NormKind::Layer { eps: 1e-5 },
        activation: fields.activation("activation_function")?,
        residual: if before { Residual::PreNorm } else { Residual::PostNorm },
        attention: Attention::new(heads, heads, fields.even_share(hidden, heads)?),
        constants: Constants::default(),
        vocabulary,
        max_positions,
        longest: max_positions,
        assumed: Vec::new(),
    })
}
