//! A network on a device: its tensors, and the forward pass over a ragged batch of sequences.
//!
//! ```text
//!   tokens ─> table (+ positions) ─> blocks ─> final norm ─> head ─> logits [tokens of all sequences, vocabulary]
//!
//!   linears see the tokens of all sequences as one matrix; only attention sees sequences
//! ```

use super::architecture::*;
use super::linear::{DenseWeight, Linear, LinearWeight, tensor};
use super::rotary::RotaryTable;
use crate::execute::SparseBackend;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData, activation};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::Arc;
use thiserror::Error;

/// One of a module's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The weight; for a linear `[out_features, in_features]`.
    Weight,
    /// The bias.
    Bias,
}

/// Why a batch can't be run.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecoderError {
    /// There are no tokens.
    #[error("a batch without tokens")]
    Empty,
    /// A sequence is longer than the position table.
    #[error("a sequence of {length} tokens, but the model has {positions} positions")]
    TooLong {
        /// Tokens of the sequence.
        length: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// A token id is outside the vocabulary.
    #[error("token id {id}, but the model's vocabulary has {vocabulary} entries")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Entries of the vocabulary.
        vocabulary: usize,
    },
}

/// Sequences laid end to end, without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    ids: Vec<u32>,
    lengths: Vec<usize>,
}

impl Batch {
    /// Lays sequences end to end; empty ones are left out.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Self::default();
        for sequence in sequences.into_iter().filter(|s| !s.is_empty()) {
            batch.ids.extend_from_slice(sequence);
            batch.lengths.push(sequence.len());
        }
        batch
    }

    /// The tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }
}

/// A network on a device.
#[derive(Clone, Debug)]
pub struct Decoder<B: SparseBackend> {
    architecture: Arc<Architecture>,
    /// One entry a module of the architecture.
    modules: Vec<Loaded<B>>,
    rotary: Option<RotaryTable<B>>,
    dtype: DType,
    device: B::Device,
}

#[derive(Clone, Debug)]
enum Loaded<B: SparseBackend> {
    Embedding(Tensor<B, 2>),
    Linear(Linear<B>),
    Norm { gain: Tensor<B, 1>, bias: Option<Tensor<B, 1>> },
}

impl<B: SparseBackend> Decoder<B> {
    /// Builds the network, asking `read` for each tensor once, by module and part; a tied weight is not asked for.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn load<'a, E>(
        architecture: Arc<Architecture>,
        dtype: DType,
        device: &B::Device,
        mut read: impl FnMut(usize, Part) -> Result<Cow<'a, [f32]>, E>,
    ) -> Result<Self, E> {
        let mut modules: Vec<Loaded<B>> = Vec::with_capacity(architecture.modules.len());
        for (index, module) in architecture.modules.iter().enumerate() {
            let bias = match module.bias {
                true => {
                    let bias = read(index, Part::Bias)?.into_owned();
                    Some(tensor(bias, [module.biases()], dtype, device))
                }
                false => None,
            };
            let loaded = match (module.kind, module.tied_to) {
                (Kind::Linear, Some(table)) => {
                    let Loaded::Embedding(table) = &modules[table] else { unreachable!("heads are tied to tables") };
                    Loaded::Linear(Linear { weight: LinearWeight::Dense(DenseWeight::shared(table)), bias })
                }
                (Kind::Linear, None) => {
                    let weight = read(index, Part::Weight)?;
                    let weight = DenseWeight::new(weight, [module.shape[0], module.shape[1]], dtype, device);
                    Loaded::Linear(Linear { weight: LinearWeight::Dense(weight), bias })
                }
                (Kind::Embedding, _) => {
                    let table = read(index, Part::Weight)?.into_owned();
                    Loaded::Embedding(tensor(table, [module.shape[0], module.shape[1]], dtype, device))
                }
                (Kind::Norm, _) => {
                    let gain = read(index, Part::Weight)?.into_owned();
                    Loaded::Norm { gain: tensor(gain, [module.shape[0]], dtype, device), bias }
                }
            };
            modules.push(loaded);
        }
        Ok(Self { architecture, modules, rotary: None, dtype, device: device.clone() })
    }

    /// What the network is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Where its tensors live.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// What its tensors are made of.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The linear at a module index.
    ///
    /// # Panics
    /// When that module is no linear.
    pub fn linear(&self, module: usize) -> &Linear<B> {
        match &self.modules[module] {
            Loaded::Linear(linear) => linear,
            _ => unreachable!("`{}` is no linear", self.architecture.modules[module].name),
        }
    }

    /// Replaces a linear's weight.
    ///
    /// # Panics
    /// When that module is no linear.
    pub fn set_weight(&mut self, module: usize, weight: LinearWeight<B>) {
        match &mut self.modules[module] {
            Loaded::Linear(linear) => linear.weight = weight,
            _ => unreachable!("`{}` is no linear", self.architecture.modules[module].name),
        }
    }

    /// What the head reads, for every token: `[batch.tokens(), width]`.
    ///
    /// # Errors
    /// When a sequence is too long or a token unknown.
    pub fn hidden(&mut self, batch: &Batch) -> Result<Tensor<B, 2>, DecoderError> {
        self.check(batch)?;
        let longest = batch.lengths.iter().copied().max().unwrap_or(0);
        self.prepare_rotary(longest);
        let mut x = self.embed(batch);
        for block in &self.architecture.blocks {
            x = self.block(block, x, &batch.lengths);
        }
        if let Some(norm) = self.architecture.final_norm {
            x = self.norm(norm, x);
        }
        Ok(match self.architecture.project_out {
            Some(project) => self.linear(project).forward(x),
            None => x,
        })
    }

    /// Logits of rows of [`Decoder::hidden`]: `[rows, width]` → `[rows, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        self.linear(self.architecture.head).forward(hidden)
    }

    fn check(&self, batch: &Batch) -> Result<(), DecoderError> {
        if batch.ids.is_empty() {
            return Err(DecoderError::Empty);
        }
        let (positions, vocabulary) = (self.architecture.max_positions, self.architecture.vocabulary);
        if let Some(&length) = batch.lengths.iter().find(|&&length| length > positions) {
            return Err(DecoderError::TooLong { length, positions });
        }
        match batch.ids.iter().find(|&&id| id as usize >= vocabulary) {
            Some(&id) => Err(DecoderError::UnknownToken { id, vocabulary }),
            None => Ok(()),
        }
    }

    fn prepare_rotary(&mut self, positions: usize) {
        if let Positions::Rotary(rotary) = &self.architecture.positions
            && self.rotary.as_ref().is_none_or(|table| table.positions() < positions)
        {
            self.rotary = Some(RotaryTable::new(rotary, positions, self.dtype, &self.device));
        }
    }

    fn embed(&self, batch: &Batch) -> Tensor<B, 2> {
        let rows = |module: usize, ids: Vec<i32>| {
            let Loaded::Embedding(table) = &self.modules[module] else { unreachable!("tables are embeddings") };
            let count = ids.len();
            let ids = Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [count]), (&self.device, DType::I32));
            table.clone().select(0, ids)
        };
        let mut x = rows(self.architecture.tokens, batch.ids.iter().map(|&id| id as i32).collect());
        if let Some(project) = self.architecture.project_in {
            x = self.linear(project).forward(x);
        }
        if let Positions::Learned { table, offset } = self.architecture.positions {
            let positions = batch.lengths.iter().flat_map(|&length| (offset..offset + length).map(|p| p as i32));
            x = x + rows(table, positions.collect());
        }
        x
    }

    fn block(&self, block: &Block, x: Tensor<B, 2>, lengths: &[usize]) -> Tensor<B, 2> {
        match self.architecture.residual {
            Residual::PreNorm => {
                let x = x.clone() + self.attend(block, self.norm(block.attention_norm, x), lengths);
                x.clone() + self.feed_forward(&block.mlp, self.norm(block.mlp_norm, x))
            }
            Residual::PostNorm => {
                let x = self.norm(block.attention_norm, x.clone() + self.attend(block, x, lengths));
                self.norm(block.mlp_norm, x.clone() + self.feed_forward(&block.mlp, x))
            }
            Residual::Parallel => {
                let attended = self.attend(block, self.norm(block.attention_norm, x.clone()), lengths);
                x.clone() + attended + self.feed_forward(&block.mlp, self.norm(block.mlp_norm, x))
            }
        }
    }

    fn norm(&self, module: usize, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let Loaded::Norm { gain, bias } = &self.modules[module] else { unreachable!("norms are norms") };
        // Squares of 16-bit numbers overflow; the references compute norms in f32 too.
        let x = if self.dtype == DType::F32 { x } else { x.cast(DType::F32) };
        let normed = match self.architecture.norm {
            NormKind::Layer { eps } => {
                let centred = x.clone() - x.mean_dim(1);
                let variance = centred.clone().square().mean_dim(1);
                centred / (variance + eps).sqrt()
            }
            NormKind::Rms { eps } => x.clone() / (x.square().mean_dim(1) + eps).sqrt(),
        };
        let normed = if self.dtype == DType::F32 { normed } else { normed.cast(self.dtype) };
        let scaled = normed * gain.clone().unsqueeze();
        match bias {
            Some(bias) => scaled + bias.clone().unsqueeze(),
            None => scaled,
        }
    }

    fn feed_forward(&self, mlp: &Mlp, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match *mlp {
            Mlp::Plain { up, down } => {
                self.linear(down).forward(activate(self.architecture.activation, self.linear(up).forward(x)))
            }
            Mlp::Gated { gate, up, down } => {
                let gated = activate(self.architecture.activation, self.linear(gate).forward(x.clone()));
                self.linear(down).forward(gated * self.linear(up).forward(x))
            }
        }
    }

    fn attend(&self, block: &Block, x: Tensor<B, 2>, lengths: &[usize]) -> Tensor<B, 2> {
        let [q, k, v] = self.project(&block.projections, x);
        let width = self.architecture.attention.heads * self.architecture.attention.head_dim;
        let even = lengths.windows(2).all(|pair| pair[0] == pair[1]);
        let attended = if even {
            self.attend_even(q, k, v, lengths.len(), lengths[0])
        } else {
            let mut parts = Vec::with_capacity(lengths.len());
            let mut start = 0;
            for &length in lengths {
                let rows = |t: &Tensor<B, 3>| t.clone().narrow(0, start, length);
                parts.push(self.attend_even(rows(&q), rows(&k), rows(&v), 1, length));
                start += length;
            }
            Tensor::cat(parts, 0)
        };
        let tokens = attended.dims()[0];
        self.linear(block.output).forward(attended.reshape([tokens, width]))
    }

    /// Queries, keys and values, each `[tokens, heads, head_dim]`.
    fn project(&self, projections: &Projections, x: Tensor<B, 2>) -> [Tensor<B, 3>; 3] {
        let Attention { heads, kv_heads, head_dim, .. } = self.architecture.attention;
        let tokens = x.dims()[0];
        match *projections {
            Projections::Separate { q, k, v } => {
                let project = |module: usize, heads: usize, x: Tensor<B, 2>| {
                    self.linear(module).forward(x).reshape([tokens, heads, head_dim])
                };
                [project(q, heads, x.clone()), project(k, kv_heads, x.clone()), project(v, kv_heads, x)]
            }
            Projections::PerHead(fused) => {
                let all = self.linear(fused).forward(x).reshape([tokens, heads, 3, head_dim]);
                [0, 1, 2].map(|part| all.clone().narrow(2, part, 1).reshape([tokens, heads, head_dim]))
            }
            Projections::Stacked(fused) => {
                let all = self.linear(fused).forward(x).reshape([tokens, 3, heads, head_dim]);
                [0, 1, 2].map(|part| all.clone().narrow(1, part, 1).reshape([tokens, heads, head_dim]))
            }
        }
    }

    /// Attention within `sequences` sequences of `length` tokens; all are `[tokens, heads, head_dim]`.
    fn attend_even(
        &self,
        q: Tensor<B, 3>,
        k: Tensor<B, 3>,
        v: Tensor<B, 3>,
        sequences: usize,
        length: usize,
    ) -> Tensor<B, 3> {
        let Attention { heads, kv_heads, head_dim, window } = self.architecture.attention;
        let split = |t: Tensor<B, 3>, heads: usize| t.reshape([sequences, length, heads, head_dim]).swap_dims(1, 2);
        let (mut q, mut k, v) = (split(q, heads), split(k, kv_heads), split(v, kv_heads));
        if let Some(rotary) = &self.rotary {
            (q, k) = (rotary.apply(q), rotary.apply(k));
        }
        let mask = window.filter(|&window| length > window).map(|window| self.window_mask(length, window));
        attention_by_head(q, k, v, mask).swap_dims(1, 2).reshape([sequences * length, heads, head_dim])
    }

    /// True where a key is too far back to be seen: `[1, 1, length, length]`.
    fn window_mask(&self, length: usize, window: usize) -> Tensor<B, 4, Bool> {
        let far = (0..length).flat_map(|query| (0..length).map(move |key| key + window <= query));
        let data = TensorData::new(far.collect::<Vec<bool>>(), [1, 1, length, length]);
        Tensor::from_data(data, &self.device)
    }
}

/// Causal attention; `mask` `[1, 1, length, length]` hides more.
///
/// # Shapes
/// - `q`: `[sequences, heads, length, head_dim]`
/// - `k`, `v`: `[sequences, kv_heads, length, head_dim]`
/// - returns the shape of `q`
fn attention_by_head<B: SparseBackend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Option<Tensor<B, 4, Bool>>,
) -> Tensor<B, 4> {
    let [sequences, heads, length, _] = q.dims();
    let group = heads / k.dims()[1];
    let attend = |q: Tensor<B, 4>, k, v| {
        let shape = [sequences, q.dims()[1], length, length];
        let mask = mask.clone().map(|mask| mask.expand(shape));
        attention(q, k, v, mask, None, AttentionModuleOptions { is_causal: true, ..Default::default() })
    };
    if !B::ON_HOST {
        return attend(q, spread(k, group), spread(v, group));
    }
    // The CPU backends attend with one thread; heads are independent, so they are shared out here.
    let one = |head: usize| {
        let kv = |t: &Tensor<B, 4>| t.clone().narrow(1, head / group, 1);
        attend(q.clone().narrow(1, head, 1), kv(&k), kv(&v))
    };
    Tensor::cat((0..heads).into_par_iter().map(one).collect(), 1)
}

/// Repeats each key or value head `[sequences, kv_heads, length, head_dim]` for its group of query heads.
fn spread<B: SparseBackend>(t: Tensor<B, 4>, group: usize) -> Tensor<B, 4> {
    let [sequences, kv_heads, length, head_dim] = t.dims();
    if group == 1 {
        return t;
    }
    let t: Tensor<B, 5> = t.reshape([sequences, kv_heads, 1, length, head_dim]);
    t.expand([sequences, kv_heads, group, length, head_dim]).reshape([sequences, kv_heads * group, length, head_dim])
}

fn activate<B: SparseBackend>(function: Activation, x: Tensor<B, 2>) -> Tensor<B, 2> {
    match function {
        Activation::Relu => activation::relu(x),
        Activation::Gelu => activation::gelu(x),
        // Hendrycks and Gimpel, arXiv 1606.08415, section 2.
        Activation::GeluTanh => {
            let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
            x * 0.5 * (inner.tanh() + 1.0)
        }
        Activation::Silu => activation::silu(x),
    }
}
