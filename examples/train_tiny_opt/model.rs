//! The OPT decoder (arXiv 2205.01068) in Burn, as Hugging Face's `OPTForCausalLM` computes it: pre-LayerNorm,
//! learned positions after an offset of two, ReLU, biases everywhere, output projection tied to the embedding.
//! Knows nothing about texts, files or the optimiser.
//!
//! ```text
//! tokens [batch, length] ── embed_tokens + embed_positions ──► hidden [batch * length, hidden_size]
//!   layer (x num_hidden_layers):  hidden += out_proj(attention(norm(hidden)));  hidden += fc2(relu(fc1(norm(hidden))))
//! final_layer_norm ── embed_tokens.weightᵀ ──► logits [batch * length, vocab_size]
//! ```
//!
//! Fields carry the names of the checkpoint's tensors, so that a field's path is a tensor's name.

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig};
use burn::tensor::activation::{log_softmax, relu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Int, Tensor};

/// The first two rows of the position table are unused; OPT kept them from the padding scheme of its predecessors.
pub const POSITION_OFFSET: usize = 2;

/// Standard deviation of the initial weights (`init_std` of the OPT configuration).
pub const INIT_STD: f64 = 0.02;

/// Sizes of a model, named as in Hugging Face's `config.json`.
#[derive(Clone, Debug)]
pub struct OptConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads; must divide `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the MLP's inner layer.
    pub ffn_dim: usize,
    /// Longest input in tokens.
    pub max_position_embeddings: usize,
    /// Share of activations zeroed while training.
    pub dropout: f64,
}

impl OptConfig {
    /// A model with random weights, drawn from the backend's seeded stream.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Opt<B> {
        let positions = self.max_position_embeddings + POSITION_OFFSET;
        Opt {
            embed_tokens: Embedding::init(self.vocab_size, self.hidden_size, device),
            embed_positions: Embedding::init(positions, self.hidden_size, device),
            layers: (0..self.num_hidden_layers).map(|_| self.init_layer(device)).collect(),
            final_layer_norm: LayerNormConfig::new(self.hidden_size).init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
        }
    }

    fn init_layer<B: Backend>(&self, device: &B::Device) -> Layer<B> {
        let (hidden, ffn) = (self.hidden_size, self.ffn_dim);
        // Each layer adds twice to the residual stream; the scale keeps the stream's variance independent of depth.
        let residual_std = INIT_STD / (2.0 * self.num_hidden_layers as f64).sqrt();
        Layer {
            self_attn: Attention {
                q_proj: Linear::init(hidden, hidden, INIT_STD, device),
                k_proj: Linear::init(hidden, hidden, INIT_STD, device),
                v_proj: Linear::init(hidden, hidden, INIT_STD, device),
                out_proj: Linear::init(hidden, hidden, residual_std, device),
                heads: self.num_attention_heads,
            },
            self_attn_layer_norm: LayerNormConfig::new(hidden).init(device),
            fc1: Linear::init(hidden, ffn, INIT_STD, device),
            fc2: Linear::init(ffn, hidden, residual_std, device),
            final_layer_norm: LayerNormConfig::new(hidden).init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
        }
    }
}

/// The decoder with its tied output projection.
#[derive(Module, Debug)]
pub struct Opt<B: Backend> {
    embed_tokens: Embedding<B>,
    embed_positions: Embedding<B>,
    layers: Vec<Layer<B>>,
    final_layer_norm: LayerNorm<B>,
    dropout: Dropout,
}

impl<B: Backend> Opt<B> {
    /// Negative log-likelihood of each target in nats.
    ///
    /// # Shapes
    /// - `tokens`, `targets`: `[batch, length]`; `targets[b, i]` follows `tokens[b, i]`
    /// - output: `[batch * length]`
    pub fn token_nll(&self, tokens: Tensor<B, 2, Int>, targets: Tensor<B, 2, Int>) -> Tensor<B, 1> {
        let count = targets.shape().num_elements();
        let log_probs = log_softmax(self.logits(tokens), 1);
        log_probs.gather(1, targets.reshape([count, 1])).reshape([count]).neg()
    }

    /// Next-token logits.
    ///
    /// # Shapes
    /// - `tokens`: `[batch, length]`, `length` at most `max_position_embeddings`
    /// - output: `[batch * length, vocab_size]`
    fn logits(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        let table = self.embed_tokens.weight.val();
        let [_, width] = table.dims();
        let embedded = table.clone().select(0, tokens.reshape([batch * length])).reshape([batch, length, width]);
        let positions = self.embed_positions.weight.val().narrow(0, POSITION_OFFSET, length).unsqueeze::<3>();
        let mask = causal_mask(length, &embedded.device());
        // Rows of all sequences are stacked, so that every projection is one matrix product.
        let mut hidden = self.dropout.forward((embedded + positions).reshape([batch * length, width]));
        for layer in &self.layers {
            hidden = layer.forward(hidden, mask.clone());
        }
        self.final_layer_norm.forward(hidden).matmul(table.transpose())
    }
}

/// `[1, 1, length, length]`, zero where a query may look and a large negative number where the key lies ahead.
fn causal_mask<B: Backend>(length: usize, device: &B::Device) -> Tensor<B, 4> {
    let ahead = Tensor::<B, 2, burn::tensor::Bool>::tril_mask([length, length], 0, device);
    Tensor::<B, 2>::zeros([length, length], device).mask_fill(ahead, -1e9).unsqueeze()
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    self_attn: Attention<B>,
    self_attn_layer_norm: LayerNorm<B>,
    fc1: Linear<B>,
    fc2: Linear<B>,
    final_layer_norm: LayerNorm<B>,
    dropout: Dropout,
}

impl<B: Backend> Layer<B> {
    /// `hidden`: `[batch * length, hidden_size]`, `mask`: `[1, 1, length, length]`.
    fn forward(&self, hidden: Tensor<B, 2>, mask: Tensor<B, 4>) -> Tensor<B, 2> {
        let attended = self.self_attn.forward(self.self_attn_layer_norm.forward(hidden.clone()), mask);
        let hidden = hidden + self.dropout.forward(attended);
        let expanded = relu(self.fc1.forward(self.final_layer_norm.forward(hidden.clone())));
        hidden + self.dropout.forward(self.fc2.forward(expanded))
    }
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    out_proj: Linear<B>,
    heads: usize,
}

impl<B: Backend> Attention<B> {
    fn forward(&self, hidden: Tensor<B, 2>, mask: Tensor<B, 4>) -> Tensor<B, 2> {
        let [rows, width] = hidden.dims();
        let [_, _, length, _] = mask.dims();
        let head_dim = width / self.heads;
        let split = |x: Tensor<B, 2>| x.reshape([rows / length, length, self.heads, head_dim]).swap_dims(1, 2);
        let query = split(self.q_proj.forward(hidden.clone()) * (head_dim as f64).powf(-0.5));
        let key = split(self.k_proj.forward(hidden.clone()));
        let value = split(self.v_proj.forward(hidden));
        let weights = softmax(query.matmul(key.transpose()) + mask, 3);
        self.out_proj.forward(weights.matmul(value).swap_dims(1, 2).reshape([rows, width]))
    }
}

/// `y = x Wᵀ + b` with the weight kept as `[out, in]`, the checkpoint's layout.
#[derive(Module, Debug)]
struct Linear<B: Backend> {
    weight: Param<Tensor<B, 2>>,
    bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> Linear<B> {
    fn init(inputs: usize, outputs: usize, std: f64, device: &B::Device) -> Self {
        Self {
            weight: normal([outputs, inputs], std, device),
            bias: Param::from_tensor(Tensor::zeros([outputs], device)),
        }
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        x.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}

/// A table of row vectors, `[rows, width]`.
#[derive(Module, Debug)]
struct Embedding<B: Backend> {
    weight: Param<Tensor<B, 2>>,
}

impl<B: Backend> Embedding<B> {
    fn init(rows: usize, width: usize, device: &B::Device) -> Self {
        Self { weight: normal([rows, width], INIT_STD, device) }
    }
}

fn normal<B: Backend>(shape: [usize; 2], std: f64, device: &B::Device) -> Param<Tensor<B, 2>> {
    Param::from_tensor(Tensor::random(shape, Distribution::Normal(0.0, std), device))
}
