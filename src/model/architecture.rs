//! What a network is made of, as data: its modules, and how its blocks use them.

pub use crate::execute::decode::{Activation, NormKind};

/// A module group of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Token and position tables.
    Embedding,
    /// Projections of an attention.
    AttentionLinear,
    /// Projections of a feed-forward layer.
    MlpLinear,
    /// The output head.
    LmHead,
    /// Layer and RMS norms.
    Norm,
    /// Linears outside the blocks.
    OtherLinear,
    /// Everything else.
    Other,
}

impl Group {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::AttentionLinear => "attention_linear",
            Self::MlpLinear => "mlp_linear",
            Self::LmHead => "lm_head",
            Self::Norm => "norm",
            Self::OtherLinear => "other_linear",
            Self::Other => "other",
        }
    }
}

/// What a module computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A table of rows.
    Embedding,
    /// A matrix product.
    Linear,
    /// A normalisation.
    Norm,
}

/// One leaf module with parameters, under its Hugging Face name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The dotted name, for example `model.decoder.layers.0.fc1`.
    pub name: String,
    /// The name that checkpoints use, where it is another one.
    pub stored_name: Option<&'static str>,
    /// What it computes.
    pub kind: Kind,
    /// Its group in tables.
    pub group: Group,
    /// The weight's shape; `[out_features, in_features]` for a linear, however it is stored.
    pub shape: Vec<usize>,
    /// Whether it has a bias, as long as the first dimension of the weight.
    pub bias: bool,
    /// Stored as `[in_features, out_features]` (GPT-2's Conv1D).
    pub transposed: bool,
    /// The module whose weight this one shares.
    pub tied_to: Option<usize>,
}

impl Module {
    /// A table of `rows` rows.
    pub fn embedding(name: impl Into<String>, rows: usize, width: usize) -> Self {
        Self::new(name, Kind::Embedding, Group::Embedding, vec![rows, width], false)
    }

    /// A linear layer.
    pub fn linear(name: impl Into<String>, group: Group, out: usize, inp: usize, bias: bool) -> Self {
        Self::new(name, Kind::Linear, group, vec![out, inp], bias)
    }

    /// A norm over `width` features.
    pub fn norm(name: impl Into<String>, width: usize, bias: bool) -> Self {
        Self::new(name, Kind::Norm, Group::Norm, vec![width], bias)
    }

    /// The output head, sharing the weight of module `tied_to` if given.
    pub fn head(vocabulary: usize, width: usize, tied_to: Option<usize>) -> Self {
        Self { tied_to, ..Self::linear("lm_head", Group::LmHead, vocabulary, width, false) }
    }

    /// The number of elements of the weight.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// The number of elements of the bias.
    pub fn biases(&self) -> usize {
        if self.bias { self.shape[0] } else { 0 }
    }

    fn new(name: impl Into<String>, kind: Kind, group: Group, shape: Vec<usize>, bias: bool) -> Self {
        Self { name: name.into(), stored_name: None, kind, group, shape, bias, transposed: false, tied_to: None }
    }
}

/// A whole network. Indices point into `modules`, which are in Hugging Face's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// `model_type` of the configuration.
    pub family: &'static str,
    /// Every leaf module.
    pub modules: Vec<Module>,
    /// The blocks, from input to output.
    pub blocks: Vec<Block>,
    /// Token table.
    pub tokens: usize,
    /// How positions enter.
    pub positions: Positions,
    /// A projection from the token table's width to the blocks' (OPT-350m).
    pub project_in: Option<usize>,
    /// And back.
    pub project_out: Option<usize>,
    /// The norm after the last block.
    pub final_norm: Option<usize>,
    /// The output head.
    pub head: usize,
    /// How every norm computes.
    pub norm: NormKind,
    /// The nonlinearity of every feed-forward layer.
    pub activation: Activation,
    /// How a block adds its parts up.
    pub residual: Residual,
    /// The attention's shape.
    pub attention: Attention,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The most tokens of a sequence.
    pub max_positions: usize,
    /// Sizes that the configuration leaves out, and what was taken for them, for messages.
    pub assumed: Vec<String>,
}

/// One decoder block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The norm of the attention.
    pub attention_norm: usize,
    /// The norm of the feed-forward layer.
    pub mlp_norm: usize,
    /// Query, key and value projections.
    pub projections: Projections,
    /// The attention's output projection.
    pub output: usize,
    /// The feed-forward layer.
    pub mlp: Mlp,
}

/// How queries, keys and values are projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projections {
    /// Three linears.
    Separate {
        /// Queries.
        q: usize,
        /// Keys.
        k: usize,
        /// Values.
        v: usize,
    },
    /// One linear, `[heads, 3, head_dim]` (GPT-NeoX).
    PerHead(usize),
    /// One linear, `[3, heads, head_dim]` (GPT-2).
    Stacked(usize),
}

/// A feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `down(f(up(x)))`.
    Plain {
        /// To the wide side.
        up: usize,
        /// And back.
        down: usize,
    },
    /// `down(f(gate(x)) * up(x))`.
    Gated {
        /// Through the nonlinearity.
        gate: usize,
        /// To the wide side.
        up: usize,
        /// And back.
        down: usize,
    },
}

impl Mlp {
    /// The linear back from the wide side: the last of its block.
    pub fn down(&self) -> usize {
        match *self {
            Self::Plain { down, .. } | Self::Gated { down, .. } => down,
        }
    }
}

/// How positions enter the network.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// A learned table, `offset` rows of which come before position 0 (OPT: 2).
    Learned {
        /// The table.
        table: usize,
        /// Its first row in use.
        offset: usize,
    },
    /// Rotated queries and keys (arXiv 2104.09864).
    Rotary(Rotary),
}

/// Rotary positions: pairs `(i, i + dim / 2)` of the first `dim` features of a head are rotated.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// How many features of a head are rotated; even.
    pub dim: usize,
    /// The base of the wavelengths.
    pub theta: f64,
    /// A rule that stretches them.
    pub scaling: RopeScaling,
}

/// How rotary wavelengths are stretched for long contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All by one factor.
    Linear(f64),
    /// Long ones only, as Llama 3 does.
    Llama3 {
        /// The stretch of long wavelengths.
        factor: f64,
        /// Below `original / low` turns nothing is kept.
        low: f64,
        /// Above `original / high` turns everything is kept.
        high: f64,
        /// The context of the first training.
        original: f64,
    },
}

/// How a block adds its parts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// `x += attention(norm(x)); x += mlp(norm(x))`.
    PreNorm,
    /// `x = norm(x + attention(x)); x = norm(x + mlp(x))` (OPT-350m).
    PostNorm,
    /// `x += attention(norm(x)) + mlp(norm'(x))` (GPT-NeoX).
    Parallel,
}

/// The attention's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// How many tokens back a token sees, itself included (Mistral).
    pub window: Option<usize>,
}

impl Architecture {
    /// The linears whose weights are pruned unless a glob excludes them: all but tied ones.
    pub fn linears(&self) -> impl Iterator<Item = (usize, &Module)> {
        self.modules.iter().enumerate().filter(|(_, module)| module.kind == Kind::Linear)
    }

    /// Parameters, each counted once.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(|m| m.biases() + if m.tied_to.is_none() { m.weights() } else { 0 }).sum()
    }
}
