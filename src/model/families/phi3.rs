//! Phi-3 (arXiv 2404.14219), Phi-3.5 and Phi-4: Llama's layout with two fused linears, a window in every layer of some,
//! and long contexts by two lists of factors.

use super::Family;
use super::layout::Layout;
use crate::model::architecture::{Architecture, RopeScaling};
use crate::model::defaults::{Absent, Key, key};
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::Spelling;

pub(super) const FAMILY: Family = Family { model_type: "phi3", help: "Phi-3, Phi-3.5, Phi-4", keys: KEYS, build };

const KEYS: &[Key] = &[
    key("vocab_size", Absent::Size(32_064)),
    key("hidden_size", Absent::Size(3072)),
    key("intermediate_size", Absent::Size(8192)),
    key("num_hidden_layers", Absent::Size(32)),
    key("num_attention_heads", Absent::Size(32)),
    key("num_key_value_heads", Absent::As("num_attention_heads")),
    key("hidden_act", Absent::Text("silu")),
    key("max_position_embeddings", Absent::Size(4096)),
    key("rms_norm_eps", Absent::Number(1e-5)),
    key("tie_word_embeddings", Absent::Flag(false)),
    key("rope_theta", Absent::Number(10_000.0)),
    key("partial_rotary_factor", Absent::Number(1.0)),
];

fn build(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let spelling = Spelling { fraction: Some("partial_rotary_factor"), ..Spelling::of("rope_theta") };
    let mut layout = Layout::of("phi3", fields)?.rms(fields)?.rotated(fields, &spelling)?;
    match layout.rotaries[0].scaling {
        RopeScaling::None | RopeScaling::Long { .. } => {}
        // Its library reads `yarn` as `longrope`, and refuses the others.
        RopeScaling::Linear(_)
        | RopeScaling::Llama3 { .. }
        | RopeScaling::Dynamic { .. }
        | RopeScaling::Yarn { .. } => {
            return Err(fields.unusable("rope_scaling", "the rule `longrope`, the only one of this family"));
        }
    }
    layout.fused = true;
    let window = fields.optional_size("sliding_window")?;
    layout.windows = vec![window; layout.layers];
    Ok(layout.build())
}
