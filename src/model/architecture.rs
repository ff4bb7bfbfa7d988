//! What a network is made of, as data: its modules, and how its blocks use them.

pub use crate::execute::decode::{Activation, NormKind};
pub use crate::execute::kernels::attention::Alibi;

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
    /// What chooses the experts of a token.
    Router,
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
            Self::Router => "router",
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
    /// A matrix product that chooses experts: it is never pruned.
    Router,
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
    /// Of how many modules like this a token passes how many: of experts not all of them.
    pub used: [usize; 2],
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

    /// The linear that chooses among `experts`.
    pub fn router(name: impl Into<String>, experts: usize, width: usize) -> Self {
        Self::new(name, Kind::Router, Group::Router, vec![experts, width], false)
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
        let (name, stored_name, transposed, tied_to, used) = (name.into(), None, false, None, [1, 1]);
        Self { name, stored_name, kind, group, shape, bias, transposed, tied_to, used }
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
    /// A norm of the token table's rows (BLOOM).
    pub embedding_norm: Option<usize>,
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
    /// Constants on the way.
    pub constants: Constants,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The tokens of a sequence that the model was made for.
    pub max_positions: usize,
    /// The most tokens of a sequence that are run: more where positions go on without an end, or stretch.
    pub longest: usize,
    /// Sizes that the configuration leaves out, and what was taken for them, for messages.
    pub assumed: Vec<String>,
}

/// What every family says of its network.
pub(super) struct Plan {
    /// The tokens of a sequence that the model was made for.
    pub max_positions: usize,
    /// How every norm computes.
    pub norm: NormKind,
    /// The nonlinearity of every feed-forward layer.
    pub activation: Activation,
    /// The attention's shape.
    pub attention: Attention,
}

/// What numbers are multiplied by or kept within on their way. The default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constants {
    /// Multiplies the token table's rows (Gemma, Granite).
    pub embedding: f64,
    /// Multiplies what a sublayer adds (Granite).
    pub residual: f64,
    /// Multiplies the logits (Granite, Command R).
    pub logits: f64,
    /// Logits become `cap * tanh(logit / cap)` (Gemma 2).
    pub logit_cap: Option<f64>,
    /// Norms multiply by 1 + their weight (Gemma).
    pub gains_less_one: bool,
}

impl Default for Constants {
    fn default() -> Self {
        Self { embedding: 1.0, residual: 1.0, logits: 1.0, logit_cap: None, gains_less_one: false }
    }
}

/// One decoder block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The norms.
    pub norms: Norms,
    /// Query, key and value projections.
    pub projections: Projections,
    /// Norms of queries and keys.
    pub head_norms: HeadNorms,
    /// How many tokens back a token sees, itself included; all where there is none.
    pub window: Option<usize>,
    /// Which of the network's rotary positions queries and keys have, if any.
    pub rotary: Option<usize>,
    /// The attention's output projection.
    pub output: usize,
    /// The feed-forward layer.
    pub mlp: Mlp,
}

impl Block {
    /// One that sees all tokens, and neither norms nor rotates queries and keys.
    pub(super) fn new(norms: Norms, projections: Projections, output: usize, mlp: Mlp) -> Self {
        Self { norms, projections, head_norms: HeadNorms::None, window: None, rotary: None, output, mlp }
    }
}

/// The norms of a block; see [`Residual`] for where the first two stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Norms {
    /// The norm of the attention's input.
    pub attention: Option<usize>,
    /// The norm of the feed-forward layer's input. None of a parallel block that has one norm for both.
    pub mlp: Option<usize>,
    /// A norm of what the attention adds (Gemma 2, OLMo 2).
    pub attention_added: Option<usize>,
    /// A norm of what the feed-forward layer adds.
    pub mlp_added: Option<usize>,
}

impl Norms {
    /// One norm in front of each sublayer.
    pub fn before(attention: usize, mlp: usize) -> Self {
        Self { attention: Some(attention), mlp: Some(mlp), ..Self::default() }
    }
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
    /// One linear: for every key-value head its queries, its key and its value (GPT-NeoX, BLOOM, Falcon).
    PerHead(usize),
    /// One linear: all queries, all keys, all values (GPT-2, Phi-3).
    Stacked(usize),
}

/// Norms of queries and keys, after the projection and before rotation. Only where projections are separate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HeadNorms {
    /// None.
    #[default]
    None,
    /// Over the features of a head, with one gain for all heads (Qwen 3, Gemma 3).
    Shared {
        /// Of queries, `[head_dim]`.
        q: usize,
        /// Of keys, `[head_dim]`.
        k: usize,
    },
    /// Over the features of a head, with a gain of its own for each (StableLM 2 12B).
    Own {
        /// Of queries, one a head.
        q: Vec<usize>,
        /// Of keys, one a key-value head.
        k: Vec<usize>,
    },
    /// Over the features of all heads together (OLMo 2).
    Whole {
        /// Of queries, `[heads * head_dim]`.
        q: usize,
        /// Of keys, `[kv_heads * head_dim]`.
        k: usize,
    },
}

/// A feed-forward layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `down(f(up(x)))`.
    Plain {
        /// To the wide side.
        up: usize,
        /// And back.
        down: usize,
    },
    /// `down(f(gate(x)) * up(x))`.
    Gated(Gated),
    /// The same, whose gate and up are one linear: rows of the gate, then of up (Phi-3).
    Fused {
        /// To the wide side, twice as wide.
        gate_up: usize,
        /// And back.
        down: usize,
    },
    /// Several feed-forward layers, of which each token passes a few.
    Experts(Experts),
}

/// A gated feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gated {
    /// Through the nonlinearity.
    pub gate: usize,
    /// To the wide side.
    pub up: usize,
    /// And back.
    pub down: usize,
}

/// A mixture of experts: `sum of weight(e) * expert(e)(x)` over the few of the largest weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experts {
    /// One logit an expert; their softmax over all experts is the weights.
    pub router: usize,
    /// The experts.
    pub experts: Vec<Gated>,
    /// How many a token passes.
    pub top: usize,
    /// Whether the weights of those are divided by their sum.
    pub renormalised: bool,
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
    /// Rotated queries and keys (arXiv 2104.09864); blocks say which of these they have.
    Rotary(Vec<Rotary>),
    /// What a head's scores grow by from key to key (arXiv 2108.12409).
    Alibi(Alibi),
}

/// Rotary positions: pairs of the first `dim` features of a head are rotated.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// How many features of a head are rotated; even.
    pub dim: usize,
    /// The base of the wavelengths.
    pub theta: f64,
    /// A rule that stretches them.
    pub scaling: RopeScaling,
    /// Pairs are `(2 i, 2 i + 1)` (Command R), not `(i, i + dim / 2)`.
    pub neighbours: bool,
}

/// How rotary wavelengths are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
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
    /// By a larger base, once a sequence is longer than the first training's.
    Dynamic {
        /// How much of the excess counts.
        factor: f64,
        /// The context of the first training.
        original: usize,
    },
    /// Long ones only, by a ramp over the features (arXiv 2309.00071).
    Yarn {
        /// The stretch of long wavelengths.
        factor: f64,
        /// From this many turns in the first training's context on, everything is kept.
        fast: f64,
        /// Up to this many, nothing.
        slow: f64,
        /// The context of the first training.
        original: f64,
        /// Whether the ramp begins and ends at whole features.
        whole: bool,
        /// Multiplies cosines and sines.
        attention: f64,
    },
    /// Each by a factor of its own, from one of two lists (arXiv 2402.13753).
    Long {
        /// Of sequences up to `original` tokens, one a pair of features.
        short: Vec<f64>,
        /// Of longer ones.
        long: Vec<f64>,
        /// The context of the first training.
        original: usize,
        /// Multiplies cosines and sines.
        attention: f64,
    },
}

/// How a block adds its parts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// `x += attention(norm(x)); x += mlp(norm(x))`.
    PreNorm,
    /// `x = norm(x + attention(x)); x = norm(x + mlp(x))` (OPT-350m).
    PostNorm,
    /// `x += attention(norm(x)) + mlp(norm'(x))` (GPT-NeoX), perhaps with one norm for both (Phi).
    Parallel,
}

/// The attention's shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Multiplies scores.
    pub scale: f64,
    /// Scores become `cap * tanh(score / cap)`.
    pub cap: Option<f64>,
    /// Queries, keys and values are kept within `-clip..=clip`.
    pub clip: Option<f64>,
}

impl Attention {
    /// Scores times `head_dim ^ -0.5`, and no bounds.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self { heads, kv_heads, head_dim, scale: (head_dim as f64).powf(-0.5), cap: None, clip: None }
    }
}

impl Architecture {
    /// A network without blocks as most are: no projections beside the table, one sublayer after the other, nothing
    /// scaled, and positions that a family sets. `modules` begin with the token table; the head is set when it is there.
    pub(super) fn begun(family: &'static str, modules: Vec<Module>, plan: Plan) -> Self {
        let Plan { max_positions, norm, activation, attention } = plan;
        let vocabulary = modules[0].shape[0];
        Self {
            family,
            modules,
            blocks: Vec::new(),
            tokens: 0,
            embedding_norm: None,
            positions: Positions::Rotary(Vec::new()),
            project_in: None,
            project_out: None,
            final_norm: None,
            head: 0,
            norm,
            activation,
            residual: Residual::PreNorm,
            attention,
            constants: Constants::default(),
            vocabulary,
            max_positions,
            longest: max_positions,
            assumed: Vec::new(),
        }
    }

    /// The place of a new module, which comes after all others.
    pub(super) fn add(&mut self, module: Module) -> usize {
        self.modules.push(module);
        self.modules.len() - 1
    }

    /// Rotated queries and keys; sequences are as long as the longest of them allows.
    pub(super) fn rotate(&mut self, rotaries: Vec<Rotary>) {
        let reach = |rotary: &Rotary| rotary.longest(self.max_positions);
        self.longest = rotaries.iter().map(reach).max().unwrap_or(self.max_positions);
        self.positions = Positions::Rotary(rotaries);
    }

    /// Linear biases, under which sequences have no longest.
    pub(super) fn bias_by(&mut self, alibi: Alibi) {
        self.longest = usize::MAX;
        self.positions = Positions::Alibi(alibi);
    }

    /// The linears whose weights are pruned unless a glob excludes them: all but tied ones and routers.
    pub fn linears(&self) -> impl Iterator<Item = (usize, &Module)> {
        self.modules.iter().enumerate().filter(|(_, module)| module.kind == Kind::Linear)
    }

    /// Parameters, each counted once.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(|m| m.biases() + if m.tied_to.is_none() { m.weights() } else { 0 }).sum()
    }
}
