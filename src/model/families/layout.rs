//! The layout that Llama's kin share: separate projections, a gated feed-forward layer, rotary positions. What differs
//! between them is data here, which each family's file fills in.
//!
//! ```text
//!   Layout::of(fields) ── a family changes what is different ──> build ──> Architecture
//! ```

use crate::model::architecture::*;
use crate::model::error::ConfigError;
use crate::model::fields::Fields;
use crate::model::rope::{Spelling, rotary};

/// A network of the kind of Llama's; [`Layout::of`] is Llama itself.
pub(super) struct Layout {
    pub family: &'static str,
    pub hidden: usize,
    pub layers: usize,
    pub ffn: usize,
    pub vocabulary: usize,
    pub max_positions: usize,
    pub attention: Attention,
    /// Biases of queries, keys and values.
    pub qkv_bias: bool,
    /// Of the attention's output.
    pub output_bias: bool,
    /// Of the feed-forward layer.
    pub mlp_bias: bool,
    pub norm: NormKind,
    /// Biases of norms, but for those of heads.
    pub norm_bias: bool,
    pub norms: NormNames,
    pub head_norms: HeadNormNames,
    pub residual: Residual,
    pub rotaries: Vec<Rotary>,
    /// Which of those each layer has.
    pub rotary_of: Vec<Option<usize>>,
    /// The window of each layer.
    pub windows: Vec<Option<usize>>,
    /// The experts of each layer that has some.
    pub experts: Vec<Option<ExpertNames>>,
    /// Queries, keys and values are one linear, and so are gate and up (Phi-3).
    pub fused: bool,
    pub activation: Activation,
    pub tied: bool,
    pub constants: Constants,
}

/// The names of a block's norms, where it has them.
pub(super) struct NormNames {
    pub attention: Option<&'static str>,
    pub mlp: Option<&'static str>,
    pub attention_added: Option<&'static str>,
    pub mlp_added: Option<&'static str>,
}

/// The norms of queries and keys.
#[derive(Clone, Copy)]
pub(super) enum HeadNormNames {
    None,
    /// `q_norm`, `k_norm`, with one gain for all heads.
    Shared,
    /// `q_norm`, `k_norm`, over all heads together.
    Whole,
    /// `q_layernorm.norms.N`, `k_layernorm.norms.N`.
    Own,
}

/// What the experts of a layer are called.
#[derive(Clone, Copy)]
pub(super) struct ExpertNames {
    /// The module that holds router and experts.
    pub module: &'static str,
    /// Gate, up, down.
    pub linears: [&'static str; 3],
    pub count: usize,
    pub top: usize,
    pub width: usize,
    pub renormalised: bool,
}

impl Layout {
    /// Llama's.
    ///
    /// # Errors
    /// When a key is missing or unusable.
    pub fn of(family: &'static str, fields: &Fields<'_>) -> Result<Self, ConfigError> {
        Self::named(family, fields, "hidden_act")
    }

    /// The same, whose nonlinearity is named at another key.
    ///
    /// # Errors
    /// When a key is missing or unusable.
    pub fn named(family: &'static str, fields: &Fields<'_>, activation: &str) -> Result<Self, ConfigError> {
        let (hidden, heads) = (fields.size("hidden_size")?, fields.size("num_attention_heads")?);
        let kv_heads = fields.size("num_key_value_heads")?;
        let layers = fields.size("num_hidden_layers")?;
        let head_dim = fields.head_dim(hidden, heads)?;
        Ok(Self {
            family,
            hidden,
            layers,
            ffn: fields.size("intermediate_size")?,
            vocabulary: fields.size("vocab_size")?,
            max_positions: fields.size("max_position_embeddings")?,
            attention: Attention::new(heads, kv_heads, head_dim),
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            norm: NormKind::Rms { eps: 0.0 },
            norm_bias: false,
            norms: NormNames {
                attention: Some("input_layernorm"),
                mlp: Some("post_attention_layernorm"),
                attention_added: None,
                mlp_added: None,
            },
            head_norms: HeadNormNames::None,
            residual: Residual::PreNorm,
            rotaries: Vec::new(),
            rotary_of: vec![Some(0); layers],
            windows: vec![None; layers],
            experts: vec![None; layers],
            fused: false,
            activation: fields.activation(activation)?,
            tied: fields.flag("tie_word_embeddings")?,
            constants: Constants::default(),
        })
    }

    /// RMS norms with the epsilon that the configuration says.
    pub fn rms(mut self, fields: &Fields<'_>) -> Result<Self, ConfigError> {
        self.norm = NormKind::Rms { eps: fields.number("rms_norm_eps")? };
        Ok(self)
    }

    /// The rotary positions that the configuration says, for every layer.
    pub fn rotated(mut self, fields: &Fields<'_>, spelling: &Spelling) -> Result<Self, ConfigError> {
        self.rotaries = vec![rotary(fields, spelling, self.attention.head_dim, self.max_positions)?];
        Ok(self)
    }

    /// Biases of all projections of the attention, as `attention_bias` says.
    pub fn attention_bias(mut self, fields: &Fields<'_>) -> Result<Self, ConfigError> {
        self.qkv_bias = fields.flag("attention_bias")?;
        self.output_bias = self.qkv_bias;
        Ok(self)
    }

    /// Windows as `layer_types` says, or else in the layers that `slides` names.
    pub fn sliding(
        mut self,
        fields: &Fields<'_>,
        window: Option<usize>,
        slides: impl Fn(usize) -> bool,
    ) -> Result<Self, ConfigError> {
        let named = fields.sliding_layers(self.layers)?;
        let has = |layer: usize| named.as_ref().map_or_else(|| slides(layer), |named| named[layer]);
        self.windows = (0..self.layers).map(|layer| window.filter(|_| has(layer))).collect();
        Ok(self)
    }

    /// The network.
    pub fn build(self) -> Architecture {
        let table = Module::embedding("model.embed_tokens", self.vocabulary, self.hidden);
        let Self { max_positions, norm, activation, attention, .. } = self;
        let mut network =
            Architecture::begun(self.family, vec![table], Plan { max_positions, norm, activation, attention });
        for layer in 0..self.layers {
            let block = self.block(layer, &mut |module| network.add(module));
            network.blocks.push(block);
        }
        network.final_norm = Some(network.add(Module::norm("model.norm", self.hidden, self.norm_bias)));
        network.head = network.add(Module::head(self.vocabulary, self.hidden, self.tied.then_some(0)));
        network.rotate(self.rotaries);
        network.residual = self.residual;
        network.constants = self.constants;
        network
    }

    fn block(&self, layer: usize, add: &mut impl FnMut(Module) -> usize) -> Block {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let Attention { heads, kv_heads, head_dim, .. } = self.attention;
        let (wide, narrow) = (heads * head_dim, kv_heads * head_dim);
        let mut attention = |rest: &str, out, inp, bias| {
            add(Module::linear(name(&format!("self_attn.{rest}")), Group::AttentionLinear, out, inp, bias))
        };
        let projections = match self.fused {
            true => Projections::Stacked(attention("qkv_proj", wide + 2 * narrow, self.hidden, self.qkv_bias)),
            false => Projections::Separate {
                q: attention("q_proj", wide, self.hidden, self.qkv_bias),
                k: attention("k_proj", narrow, self.hidden, self.qkv_bias),
                v: attention("v_proj", narrow, self.hidden, self.qkv_bias),
            },
        };
        let output = attention("o_proj", self.hidden, wide, self.output_bias);
        let head_norms = self.block_head_norms(&name, add);
        let mlp = self.mlp(layer, &name, add);
        let mut norm = |rest: Option<&str>| rest.map(|rest| add(Module::norm(name(rest), self.hidden, self.norm_bias)));
        let norms = Norms {
            attention: norm(self.norms.attention),
            mlp: norm(self.norms.mlp),
            attention_added: norm(self.norms.attention_added),
            mlp_added: norm(self.norms.mlp_added),
        };
        let (window, rotary) = (self.windows[layer], self.rotary_of[layer]);
        Block { head_norms, window, rotary, ..Block::new(norms, projections, output, mlp) }
    }

    fn block_head_norms(&self, name: &impl Fn(&str) -> String, add: &mut impl FnMut(Module) -> usize) -> HeadNorms {
        let Attention { heads, kv_heads, head_dim, .. } = self.attention;
        let mut norm = |rest: &str, width| add(Module::norm(name(&format!("self_attn.{rest}")), width, false));
        match self.head_norms {
            HeadNormNames::None => HeadNorms::None,
            HeadNormNames::Shared => HeadNorms::Shared { q: norm("q_norm", head_dim), k: norm("k_norm", head_dim) },
            HeadNormNames::Whole => {
                HeadNorms::Whole { q: norm("q_norm", heads * head_dim), k: norm("k_norm", kv_heads * head_dim) }
            }
            HeadNormNames::Own => {
                let mut all = |of: &str, count: usize| {
                    (0..count).map(|head| norm(&format!("{of}_layernorm.norms.{head}"), head_dim)).collect()
                };
                HeadNorms::Own { q: all("q", heads), k: all("k", kv_heads) }
            }
        }
    }

    fn mlp(&self, layer: usize, name: &impl Fn(&str) -> String, add: &mut impl FnMut(Module) -> usize) -> Mlp {
        let (hidden, bias) = (self.hidden, self.mlp_bias);
        let linear = |rest: &str, out, inp| Module::linear(name(rest), Group::MlpLinear, out, inp, bias);
        let Some(names) = self.experts[layer] else {
            return match self.fused {
                true => Mlp::Fused {
                    gate_up: add(linear("mlp.gate_up_proj", 2 * self.ffn, hidden)),
                    down: add(linear("mlp.down_proj", hidden, self.ffn)),
                },
                false => Mlp::Gated(Gated {
                    gate: add(linear("mlp.gate_proj", self.ffn, hidden)),
                    up: add(linear("mlp.up_proj", self.ffn, hidden)),
                    down: add(linear("mlp.down_proj", hidden, self.ffn)),
                }),
            };
        };
        let ExpertNames { module, linears, count, top, width, renormalised } = names;
        let router = add(Module::router(name(&format!("{module}.gate")), count, hidden));
        let mut expert = |expert: usize| {
            let [gate, up, down] = linears.map(|rest| format!("{module}.experts.{expert}.{rest}"));
            let mut one = |rest: &str, out, inp| add(Module { used: [top, count], ..linear(rest, out, inp) });
            Gated { gate: one(&gate, width, hidden), up: one(&up, width, hidden), down: one(&down, hidden, width) }
        };
        let experts = (0..count).map(&mut expert).collect();
        Mlp::Experts(Experts { router, experts, top, renormalised })
    }
}
