//! Falcon (arXiv 2311.16867) in its three forms.
//!
//! ```text
//!   RW      rows of queries, keys and values per head; two norms, one sublayer after the other; linear biases
//!   7B      all query heads, one key head, one value head; one norm, both sublayers side by side
//!   40B     for each key-value head its queries, its key, its value; side by side with two norms, or with one (11B)
//! ```

use super::Family;
use crate::model::architecture::*;
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::{Spelling, rotary};

pub(super) const FAMILY: Family = Family { model_type: "falcon", help: "Falcon, Falcon 2", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(65_024)),
    key("hidden_size", Absent::Size(4544)),
    key("num_hidden_layers", Absent::Size(32)),
    key("num_attention_heads", Absent::Size(71)),
    key("num_kv_heads", Absent::As("num_attention_heads")),
    key("num_ln_in_parallel_attn", Absent::Size(2)),
    key("ffn_hidden_size", Absent::FourTimes("hidden_size")),
    key("activation", Absent::Text("gelu")),
    key("layer_norm_epsilon", Absent::Number(1e-5)),
    key("alibi", Absent::Flag(false)),
    key("new_decoder_architecture", Absent::Flag(false)),
    key("multi_query", Absent::Flag(true)),
    key("parallel_attn", Absent::Flag(true)),
    key("bias", Absent::Flag(false)),
    key("max_position_embeddings", Absent::Size(2048)),
    key("tie_word_embeddings", Absent::Flag(true)),
    key("rope_theta", Absent::Number(10_000.0)),
];

/// The names of the norms of a block: of the attention, and of the feed-forward layer if it has one of its own.
type NormNames = (&'static str, Option<&'static str>);

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let (hidden, heads) = (fields.size("hidden_size")?, fields.size("num_attention_heads")?);
    let (vocabulary, max_positions) = (fields.size("vocab_size")?, fields.size("max_position_embeddings")?);
    let (head_dim, ffn) = (fields.even_share(hidden, heads)?, fields.size("ffn_hidden_size")?);
    let (kv_heads, stacked) = match (fields.flag("new_decoder_architecture")?, fields.flag("multi_query")?) {
        (true, _) => (fields.size("num_kv_heads")?, false),
        (false, true) => (1, true),
        (false, false) => (heads, false),
    };
    let (residual, norm_names) = norms(fields)?;
    let bias = fields.flag("bias")?;

    let mut modules = vec![Module::embedding("transformer.word_embeddings", vocabulary, hidden)];
    let mut add = |module: Module| {
        modules.push(module);
        modules.len() - 1
    };
    let mut blocks = Vec::new();
    let rotated = !fields.flag("alibi")?;
    for layer in 0..fields.size("num_hidden_layers")? {
        let name = |rest: &str| format!("transformer.h.{layer}.{rest}");
        let (attention, mlp) = (Group::AttentionLinear, Group::MlpLinear);
        let mut linear = |rest: &str, group, out, inp| add(Module::linear(name(rest), group, out, inp, bias));
        let rows = (heads + 2 * kv_heads) * head_dim;
        let fused = linear("self_attention.query_key_value", attention, rows, hidden);
        let output = linear("self_attention.dense", attention, hidden, hidden);
        let up = linear("mlp.dense_h_to_4h", mlp, ffn, hidden);
        let down = linear("mlp.dense_4h_to_h", mlp, hidden, ffn);
        let mut norm = |rest: &str| add(Module::norm(name(rest), hidden, true));
        let attention = Some(norm(norm_names.0));
        blocks.push(Block {
            norms: Norms { attention, mlp: norm_names.1.map(norm), ..Norms::default() },
            projections: if stacked { Projections::Stacked(fused) } else { Projections::PerHead(fused) },
            head_norms: HeadNorms::None,
            window: None,
            rotary: rotated.then_some(0),
            output,
            mlp: Mlp::Plain { up, down },
        });
    }
    let final_norm = add(Module::norm("transformer.ln_f", hidden, true));
    let tied = fields.flag("tie_word_embeddings")?;
    let head = add(Module::head(vocabulary, hidden, tied.then_some(0)));
    let (positions, longest) = match rotated {
        false => (Positions::Alibi(Alibi::RoundedAndScaled), usize::MAX),
        true => {
            let rotary = rotary(fields, &Spelling::of("rope_theta"), head_dim, max_positions)?;
            let longest = rotary.longest(max_positions);
            (Positions::Rotary(vec![rotary]), longest)
        }
    };
    Ok(Architecture {
        family: "falcon",
        modules,
        blocks,
        tokens: 0,
        embedding_norm: None,
        positions,
        project_in: None,
        project_out: None,
        final_norm: Some(final_norm),
        head,
        norm: NormKind::Layer { eps: fields.number("layer_norm_epsilon")? },
        activation: fields.activation("activation")?,
        residual,
        attention: Attention::new(heads, kv_heads, head_dim),
        constants: Constants::default(),
        vocabulary,
        max_positions,
        longest,
        assumed: Vec::new(),
    })
}

/// How a block adds up, and its norms.
fn norms(fields: &Fields<'_>) -> Result<(Residual, NormNames), ConfigError> {
    let (new, beside) = (fields.flag("new_decoder_architecture")?, fields.flag("parallel_attn")?);
    let two = new && fields.size("num_ln_in_parallel_attn")? == 2;
    match (new, beside) {
        (true, false) => Err(fields.unusable("parallel_attn", "`true` with `new_decoder_architecture`")),
        (true, true) if two => Ok((Residual::Parallel, ("ln_attn", Some("ln_mlp")))),
        (_, true) => Ok((Residual::Parallel, ("input_layernorm", None))),
        (false, false) => Ok((Residual::PreNorm, ("input_layernorm", Some("post_attention_layernorm")))),
    }
}
