//! A network on a device: its tensors, and the forward pass over a ragged batch of sequences.
//!
//! ```text
//!   tokens ─> table (+ positions) ─> blocks ─> final norm ─> head ─> logits [tokens of all sequences, vocabulary]
//!
//!   linears see the tokens of all sequences as one matrix; only attention sees sequences
//! ```
//!
//! A pass begins its sequences anew ([`Decoder::hidden`]), or continues those of a cache
//! ([`Decoder::extend`]): the same pass, whose attention begins at another place.

mod blocks;
mod experts;
mod ragged;
mod stages;
mod tree;

pub use stages::{Activations, Stage};
pub use tree::{Node, Tree};

use super::architecture::*;
use super::cache::{KvBlock, KvCache};
use super::clock::{Clock, Section, SectionTimes, Step, StepTime, role};
use super::halves::Numbers;
use super::linear::{DenseWeight, Linear, LinearWeight, tensor};
use super::rotary::RotaryTable;
use crate::execute::SparseBackend;
use crate::execute::decode::{Column, Places, Span};
use burn::tensor::{DType, Tensor};
use std::collections::BTreeMap;
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
    /// A batch does not continue the sequences of a cache.
    #[error("a cache of {sequences} sequences, but a batch of other sequences, or of different lengths")]
    OtherSequences {
        /// Sequences of the cache.
        sequences: usize,
    },
    /// A cache has no room for a batch.
    #[error("{needed} tokens of a sequence, but the cache has room for {capacity}")]
    CacheFull {
        /// Tokens with the batch's.
        needed: usize,
        /// The most that fit.
        capacity: usize,
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

    /// Sequences that begin here and are not continued.
    fn spans(&self) -> Vec<Span> {
        self.lengths.iter().map(|&length| Span { past: 0, new: length, capacity: length }).collect()
    }
}

/// A network on a device.
#[derive(Clone, Debug)]
pub struct Decoder<B: SparseBackend> {
    architecture: Arc<Architecture>,
    /// One entry a module of the architecture.
    modules: Vec<Loaded<B>>,
    /// Those of the last batch.
    rotaries: Rotaries<B>,
    dtype: DType,
    device: B::Device,
    /// Where time goes, if someone wants to know.
    clock: Option<Arc<Clock>>,
    /// Linears whose small inputs count as 0, and from which magnitude on they don't.
    thresholds: BTreeMap<usize, f32>,
}

#[derive(Clone, Debug)]
enum Loaded<B: SparseBackend> {
    Embedding(DenseWeight<B>),
    Linear(Linear<B>),
    Norm { gain: Tensor<B, 1>, bias: Option<Tensor<B, 1>> },
}

/// What runs through the blocks: a sum whose last terms wait for the norm that takes them all.
struct Residuals<B: SparseBackend> {
    x: Tensor<B, 2>,
    added: Vec<Tensor<B, 2>>,
}

/// Tables of angles, one for each rotary position of an architecture that rotates anything.
type Rotaries<B> = Vec<Option<RotaryTable<B>>>;

/// Where the tokens of a batch are, and how they are rotated there.
struct At<'a, B: SparseBackend> {
    places: &'a Places<B>,
    rotaries: &'a Rotaries<B>,
}

/// Told which linears read what.
type See<'a, B> = &'a mut dyn FnMut(&[usize], &Tensor<B, 2>);

impl<B: SparseBackend> Residuals<B> {
    fn sum(self) -> Tensor<B, 2> {
        self.added.into_iter().fold(self.x, |x, added| x + added)
    }
}

impl<B: SparseBackend> Decoder<B> {
    /// Builds the network, asking `read` for each tensor once, by module and part; a tied weight is not asked for.
    /// Matrices of 16 bits stay so, which is for backends in host memory at f32 alone.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn load<'a, E, N: Into<Numbers<'a>>>(
        architecture: Arc<Architecture>,
        dtype: DType,
        device: &B::Device,
        mut read: impl FnMut(usize, Part) -> Result<N, E>,
    ) -> Result<Self, E> {
        let mut read = |module, part| read(module, part).map(Into::<Numbers<'a>>::into);
        let mut modules: Vec<Loaded<B>> = Vec::with_capacity(architecture.modules.len());
        for (index, module) in architecture.modules.iter().enumerate() {
            let bias = match module.bias {
                true => {
                    let bias = read(index, Part::Bias)?;
                    Some(tensor(bias.wide(), [module.biases()], dtype, device))
                }
                false => None,
            };
            let loaded = match (module.kind, module.tied_to) {
                (Kind::Linear | Kind::Router, Some(table)) => {
                    let Loaded::Embedding(table) = &modules[table] else { unreachable!("heads are tied to tables") };
                    Loaded::Linear(Linear { weight: LinearWeight::Dense(table.clone()), bias })
                }
                (Kind::Linear | Kind::Router, None) => {
                    let weight = read(index, Part::Weight)?;
                    let weight = DenseWeight::of(weight, [module.shape[0], module.shape[1]], dtype, device);
                    Loaded::Linear(Linear { weight: LinearWeight::Dense(weight), bias })
                }
                (Kind::Embedding, _) => {
                    let table = read(index, Part::Weight)?;
                    Loaded::Embedding(DenseWeight::of(table, [module.shape[0], module.shape[1]], dtype, device))
                }
                (Kind::Norm, _) => {
                    let mut gain = read(index, Part::Weight)?.wide();
                    if architecture.constants.gains_less_one {
                        gain.to_mut().iter_mut().for_each(|gain| *gain += 1.0);
                    }
                    Loaded::Norm { gain: tensor(gain, [module.shape[0]], dtype, device), bias }
                }
            };
            modules.push(loaded);
            B::sent(device);
        }
        Ok(Self {
            architecture,
            modules,
            rotaries: Vec::new(),
            dtype,
            device: device.clone(),
            clock: None,
            thresholds: BTreeMap::new(),
        })
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
        let Loaded::Linear(linear) = &self.modules[module] else {
            unreachable!("`{}` is no linear", self.architecture.modules[module].name)
        };
        linear
    }

    /// Replaces a linear's weight.
    ///
    /// # Panics
    /// When that module is no linear.
    pub fn set_weight(&mut self, module: usize, weight: LinearWeight<B>) {
        let Loaded::Linear(linear) = &mut self.modules[module] else {
            unreachable!("`{}` is no linear", self.architecture.modules[module].name)
        };
        linear.weight = weight;
    }

    /// Sets the inputs of a linear to 0 whose magnitude is at most `threshold`, from now on.
    pub fn set_threshold(&mut self, module: usize, threshold: f64) {
        let nearest = threshold as f32;
        // No number of 32 bits lies between this one and the threshold, so that both leave out the same inputs.
        let below = if f64::from(nearest) > threshold { nearest.next_down() } else { nearest };
        self.thresholds.insert(module, below);
    }

    /// What the head reads, for every token: `[batch.tokens(), width]`.
    ///
    /// # Errors
    /// When a sequence is too long or a token unknown.
    pub fn hidden(&mut self, batch: &Batch) -> Result<Tensor<B, 2>, DecoderError> {
        self.pass(batch, batch.spans(), &mut [KvBlock::scratch()])
    }

    /// As [`Decoder::hidden`], for tokens that follow those in a cache, which takes them in. Every sequence
    /// continues by the same number of tokens.
    ///
    /// # Errors
    /// When the batch does not fit the cache or the model; the cache is as it was then.
    pub fn extend(&mut self, batch: &Batch, cache: &mut KvCache<B>) -> Result<Tensor<B, 2>, DecoderError> {
        let new = batch.lengths.first().copied().unwrap_or(0);
        let (sequences, capacity, past) = (cache.sequences(), cache.capacity(), cache.past());
        let alike = cache.is_even() && batch.lengths.iter().all(|&length| length == new);
        if batch.lengths.len() != sequences || !alike {
            return Err(DecoderError::OtherSequences { sequences });
        }
        if past + new > capacity {
            return Err(DecoderError::CacheFull { needed: past + new, capacity });
        }
        let hidden = match past > 0 && self.outgrown(past, past + new) {
            false => self.pass(batch, vec![Span { past, new, capacity }; sequences], &mut cache.blocks)?,
            true => self.pass_anew(batch, cache, new)?,
        };
        cache.grow(batch.ids.chunks(new.max(1)));
        Ok(hidden)
    }

    /// Whether what a cache holds of `before` tokens is wrong once there are `after`.
    fn outgrown(&self, before: usize, after: usize) -> bool {
        match &self.architecture.positions {
            Positions::Rotary(rotaries) => rotaries.iter().any(|rotary| rotary.scaling.outgrown(before, after)),
            Positions::Learned { .. } | Positions::Alibi(_) => false,
        }
    }

    /// Runs all tokens of a cache and those of the batch as if none had been seen; gives what the batch's give.
    fn pass_anew(&mut self, batch: &Batch, cache: &mut KvCache<B>, new: usize) -> Result<Tensor<B, 2>, DecoderError> {
        let whole: Vec<Vec<u32>> =
            cache.seen().iter().zip(batch.ids.chunks(new)).map(|(seen, new)| [seen, new].concat()).collect();
        let whole = Batch::new(whole.iter().map(Vec::as_slice));
        let length = cache.past() + new;
        let spans = vec![Span { past: 0, new: length, capacity: cache.capacity() }; cache.sequences()];
        let hidden = self.pass(&whole, spans, &mut cache.blocks)?;
        let last = |sequence| hidden.clone().narrow(0, sequence * length + length - new, new);
        Ok(Tensor::cat((0..cache.sequences()).map(last).collect(), 0))
    }

    /// Logits of rows of [`Decoder::hidden`]: `[rows, width]` → `[rows, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let constants = self.architecture.constants;
        let logits = scaled(self.product(self.architecture.head, hidden), constants.logits);
        match constants.logit_cap {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        }
    }

    /// Waits until the device has done what it was asked for.
    pub fn sync(&self) {
        // What fails here fails again, with a message, when the numbers are read.
        let _ = B::sync(&self.device);
    }

    /// Begins or ends adding up where time goes. Waiting for the device at every part makes the whole slower.
    pub fn watch_sections(&mut self, watch: bool) {
        self.clock = watch.then(|| Arc::new(Clock::of_kinds()));
    }

    /// Begins or ends adding up the time of every step, likewise.
    pub fn watch_steps(&mut self, watch: bool) {
        self.clock = watch.then(|| Arc::new(Clock::of_steps()));
    }

    /// The times of steps since the last call, while they are watched.
    pub fn step_times(&self) -> Vec<StepTime> {
        self.clock.as_ref().map(|clock| clock.take_steps()).unwrap_or_default()
    }

    /// The arg-max of each row of logits, as a step of a pass.
    ///
    /// # Errors
    /// When the device did not give the numbers back.
    pub fn arg_max(&self, logits: Tensor<B, 2>) -> Result<Vec<Option<u32>>, String> {
        self.timed(Section::Choice, || Step::named("arg_max"), || B::arg_max(logits))
    }

    /// The times since the last call, while they are watched.
    pub fn section_times(&self) -> SectionTimes {
        self.clock.as_ref().map(|clock| clock.take()).unwrap_or_default()
    }

    /// `blocks` has memory for each block, or one that they take in turn.
    fn pass(
        &mut self,
        batch: &Batch,
        spans: Vec<Span>,
        blocks: &mut [KvBlock<B>],
    ) -> Result<Tensor<B, 2>, DecoderError> {
        self.check(batch, &spans)?;
        let lengths: Vec<usize> = spans.iter().map(|span| span.past + span.new).collect();
        let capacity = spans.iter().map(|span| span.capacity).max().unwrap_or(0);
        self.prepare_rotary(&lengths, capacity.min(self.architecture.longest));
        let places = Places::new(&batch.ids, spans, self.architecture.attention.kv_heads, &self.device);
        let at = At { places: &places, rotaries: &self.rotaries };
        let x = self.enter(self.look_up(&places), &places, &mut |_, _| {});
        let mut x = Residuals { x, added: Vec::new() };
        let count = blocks.len();
        for (index, block) in self.architecture.blocks.iter().enumerate() {
            let unfinished = self.block(block, x, &at, &mut blocks[index % count], &mut |_, _| {});
            x = self.end_block(block, unfinished);
        }
        Ok(self.leave(x, &mut |_, _| {}))
    }

    fn check(&self, batch: &Batch, spans: &[Span]) -> Result<(), DecoderError> {
        if batch.ids.is_empty() {
            return Err(DecoderError::Empty);
        }
        let (positions, vocabulary) = (self.architecture.longest, self.architecture.vocabulary);
        if let Some(length) = spans.iter().map(|span| span.past + span.new).find(|&length| length > positions) {
            return Err(DecoderError::TooLong { length, positions });
        }
        match batch.ids.iter().find(|&&id| id as usize >= vocabulary) {
            Some(&id) => Err(DecoderError::UnknownToken { id, vocabulary }),
            None => Ok(()),
        }
    }

    /// Tables of angles for sequences of some lengths, in a cache with room for `capacity` tokens of each.
    fn prepare_rotary(&mut self, lengths: &[usize], capacity: usize) {
        let Positions::Rotary(rotaries) = &self.architecture.positions else { return };
        let longest = lengths.iter().copied().max().unwrap_or(0);
        self.rotaries.resize(rotaries.len(), None);
        for (rotary, table) in rotaries.iter().zip(&mut self.rotaries) {
            // The room of a cache, so that the table is not made again at every token, unless it has to be.
            let positions = if rotary.scaling.turned_as(longest) == longest { longest } else { capacity };
            match table {
                Some(table) if table.fits(rotary, lengths, positions) => table.begin(rotary, lengths),
                _ => *table = RotaryTable::new(rotary, lengths, positions, &self.device),
            }
        }
    }

    /// Rows of the token table.
    fn look_up(&self, places: &Places<B>) -> Tensor<B, 2> {
        let tokens = self.architecture.tokens;
        let look_up = || self.table(tokens).rows(None, places, Column::Id, 0);
        let x = self.timed(Section::Tables, || self.step(tokens), look_up);
        scaled(x, self.architecture.constants.embedding)
    }

    /// From the token table's rows to what the first block reads.
    fn enter(&self, mut x: Tensor<B, 2>, places: &Places<B>, see: See<'_, B>) -> Tensor<B, 2> {
        if let Some(norm) = self.architecture.embedding_norm {
            x = self.normed(norm, x);
        }
        if let Some(project) = self.architecture.project_in {
            see(&[project], &x);
            x = self.product(project, x);
        }
        if let Positions::Learned { table, offset } = self.architecture.positions {
            let add = || self.table(table).rows(Some(x), places, Column::Position, offset);
            x = self.timed(Section::Tables, || self.step(table), add);
        }
        x
    }

    /// From what the last block gives to what the head reads.
    fn leave(&self, x: Residuals<B>, see: See<'_, B>) -> Tensor<B, 2> {
        let mut x = match self.architecture.final_norm {
            Some(norm) => {
                let [_, normed] = self.norm(norm, x);
                normed
            }
            None => x.sum(),
        };
        if let Some(project) = self.architecture.project_out {
            see(&[project], &x);
            x = self.product(project, x);
        }
        see(&[self.architecture.head], &x);
        x
    }

    fn table(&self, module: usize) -> &DenseWeight<B> {
        let Loaded::Embedding(table) = &self.modules[module] else { unreachable!("tables are embeddings") };
        table
    }

    /// A linear of the network.
    fn product(&self, module: usize, mut x: Tensor<B, 2>) -> Tensor<B, 2> {
        if let Some(&threshold) = self.thresholds.get(&module) {
            let small = x.clone().abs().lower_equal_elem(threshold);
            x = x.mask_fill(small, 0.0);
        }
        let tokens = x.dims()[0];
        let step = || Step { kernel: self.linear(module).weight.kernel(tokens), ..self.step(module) };
        self.timed(Section::Linears, step, || self.linear(module).forward(x))
    }

    /// What a module's step is called.
    fn step(&self, module: usize) -> Step {
        Step::named(role(&self.architecture.modules[module].name))
    }

    fn timed<T>(&self, section: Section, step: impl FnOnce() -> Step, work: impl FnOnce() -> T) -> T {
        match &self.clock {
            Some(clock) => clock.time(section, step, || self.sync(), work),
            None => work(),
        }
    }
}

/// `x` times a constant of the network, which is 1 for most.
fn scaled<B: SparseBackend>(x: Tensor<B, 2>, constant: f64) -> Tensor<B, 2> {
    if constant == 1.0 { x } else { x.mul_scalar(constant) }
}
