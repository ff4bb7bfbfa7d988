//! What a decoder does between its linears, and a slow way to do it on any backend.
//!
//! ```text
//!   ids ──> table rows ──> norm ──> .. attention .. ──> norm ──> .. activation .. ──> norm ──> .. arg-max
//!                           └ with the sums that precede it
//! ```
//!
//! Every method has a default in Burn's operations. A backend overrides those for which one kernel does
//! better than a chain of operations; the numbers are the same but for rounding.

use super::burn_ops;
use super::convert::Later;
use super::kernels::attention::Heads;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};

/// How norms compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// Mean and variance.
    Layer {
        /// Added to the variance.
        eps: f64,
    },
    /// Root mean square.
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
}

/// A nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x Φ(x), exact.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    /// Its approximation by x σ(1.702 x).
    QuickGelu,
    /// x σ(x).
    Silu,
}

/// A norm with its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a, B: Backend> {
    /// How it computes.
    pub kind: NormKind,
    /// `[width]`
    pub gain: &'a Tensor<B, 1>,
    /// `[width]`
    pub bias: Option<&'a Tensor<B, 1>>,
}

/// How queries, keys and values lie in what the projections gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Three tensors, each `[tokens, heads, head_dim]`.
    Separate,
    /// One, `[tokens, kv_heads, queries of the head + 2, head_dim]`.
    PerHead,
    /// One, `[tokens, heads + 2 * kv_heads, head_dim]`.
    Stacked,
}

/// Queries, keys and values as the linears leave them, `[tokens, ..]`.
#[derive(Clone, Debug)]
pub enum Projected<B: Backend> {
    /// Of three linears, each `[heads, head_dim]` a token.
    Separate([Tensor<B, 2>; 3]),
    /// Of one: for every key-value head its queries, its key and its value.
    PerHead(Tensor<B, 2>),
    /// Of one: all queries, all keys, all values.
    Stacked(Tensor<B, 2>),
}

/// The cosines and sines by which features of queries and keys are turned, pair by pair.
#[derive(Clone, Debug)]
pub struct Turns<B: Backend> {
    /// Pairs of a head's features: `i` and `i + pairs`; at least one.
    pub pairs: usize,
    /// Pairs are `2 i` and `2 i + 1` instead.
    pub neighbours: bool,
    /// `[positions * pairs * 2]`, f32: cosine and sine of each.
    pub table: Tensor<B, 1>,
    /// Where the position 0 of each sequence stands in the table, where sequences are turned in different ways.
    pub starts: Option<Vec<usize>>,
}

impl<B: Backend> Turns<B> {
    /// Where the position 0 of a sequence stands in the table.
    pub fn start(&self, sequence: usize) -> usize {
        self.starts.as_ref().map_or(0, |starts| starts[sequence])
    }
}

/// What one sequence of a batch has in a block's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Tokens seen before.
    pub past: usize,
    /// Tokens of the batch.
    pub new: usize,
    /// Room.
    pub capacity: usize,
}

/// Where the tokens of a batch are: in the vocabulary, in their sequences, and in a cache of keys and values.
///
/// ```text
///   cache, sequences of one capacity   [sequence][kv head][capacity][head_dim]
///          of different ones           [kv head][sequence after sequence, each its capacity][head_dim]
/// ```
#[derive(Clone, Debug)]
pub struct Places<B: Backend> {
    spans: Vec<Span>,
    tokens: usize,
    /// `[3 * tokens]`: ids, positions, and the row where key 0 of a sequence's first head is.
    numbers: Tensor<B, 1, Int>,
}

/// A number that each token has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Its id in the vocabulary.
    Id,
    /// Its position in the sequence.
    Position,
}

impl<B: Backend> Places<B> {
    /// The tokens `ids` of sequences that lie end to end.
    ///
    /// # Panics
    /// When the spans have another number of tokens.
    pub fn new(ids: &[u32], spans: Vec<Span>, kv_heads: usize, device: &B::Device) -> Self {
        let tokens = spans.iter().map(|span| span.new).sum();
        assert_eq!(ids.len(), tokens, "ids for every token");
        let data = TensorData::new(Self::numbers_of(ids, &spans, kv_heads), [3 * tokens]);
        Self { spans, tokens, numbers: Tensor::from_data(data, (device, DType::I32)) }
    }

    /// What [`Places::numbers`] are of such tokens.
    pub fn numbers_of(ids: &[u32], spans: &[Span], kv_heads: usize) -> Vec<i32> {
        let each = if one_capacity(spans).is_some() { kv_heads } else { 1 };
        let positions = spans.iter().flat_map(|span| span.past..span.past + span.new);
        let numbers = ids.iter().map(|&id| id as i32).chain(positions.map(|position| position as i32));
        let mut numbers: Vec<i32> = numbers.collect();
        let mut row = 0;
        for span in spans {
            numbers.extend(std::iter::repeat_n(row as i32, span.new));
            row += span.capacity * each;
        }
        numbers
    }

    /// What each sequence has.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens for which a cache has room, in all sequences.
    pub fn capacity(&self) -> usize {
        self.spans.iter().map(|span| span.capacity).sum()
    }

    /// Rows of a cache from one head to the next.
    pub fn head_rows(&self) -> usize {
        one_capacity(&self.spans).unwrap_or_else(|| self.capacity())
    }

    /// Whether all sequences have the same span.
    pub fn is_even(&self) -> bool {
        self.spans.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// `[3 * tokens]`: ids, positions, and the row where key 0 of a sequence's first head is.
    pub fn numbers(&self) -> &Tensor<B, 1, Int> {
        &self.numbers
    }

    /// Where a column begins in [`Places::numbers`].
    pub fn column(&self, column: Column) -> usize {
        match column {
            Column::Id => 0,
            Column::Position => self.tokens,
        }
    }
}

/// The room that each sequence has, where it is the same.
fn one_capacity(spans: &[Span]) -> Option<usize> {
    let first = spans.first()?.capacity;
    spans.iter().all(|span| span.capacity == first).then_some(first)
}

/// A number of a row that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The row.
    pub row: usize,
    /// Its place in the row: a token of the vocabulary.
    pub id: u32,
}

/// What a row of logits says of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likely {
    /// The logarithm of how likely it is: its logit less the logarithm of the sum of all exponentials.
    pub log: f64,
    /// Whether it is the first of the largest.
    pub first: bool,
}

/// What a decoder does between its linears. Inference only.
pub trait DecodeOps: Backend {
    /// Rows of a table, by a number that each token has and `offset`, added to `x` if given.
    ///
    /// # Shapes
    /// - `x`, result: `[tokens, width]`
    /// - `table`: `[rows, width]`
    fn table_rows(
        x: Option<Tensor<Self, 2>>,
        table: &Tensor<Self, 2>,
        places: &Places<Self>,
        column: Column,
        offset: usize,
    ) -> Tensor<Self, 2> {
        burn_ops::table_rows(x, table, places, column, offset)
    }

    /// `x` with `added` added in order, and the norm of its rows; all are `[tokens, width]`.
    fn norm(x: Tensor<Self, 2>, added: Vec<Tensor<Self, 2>>, norm: Norm<'_, Self>) -> [Tensor<Self, 2>; 2] {
        burn_ops::norm(x, added, norm)
    }

    /// `f(x)`, element by element.
    fn activate(function: Activation, x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        burn_ops::activate(function, x)
    }

    /// `f(x) · up`, element by element.
    fn gate(function: Activation, x: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        burn_ops::activate(function, x) * up
    }

    /// Rotates queries and keys, puts keys and values into a cache, and gives what every token sees.
    ///
    /// # Shapes
    /// - `kv`: keys and values, each `[places.capacity() * kv_heads * head_dim]`, as [`Places`] draws them
    /// - returns `[tokens, heads * head_dim]`
    fn attend(
        shape: &Heads,
        projected: Projected<Self>,
        places: &Places<Self>,
        turns: Option<&Turns<Self>>,
        kv: &mut [Tensor<Self, 1>; 2],
    ) -> Tensor<Self, 2> {
        burn_ops::attend(shape, projected, places, turns, kv)
    }

    /// The first of the largest of each row; none where one is NaN or infinite.
    ///
    /// # Errors
    /// When the device could not give the numbers back.
    fn arg_max(rows: Tensor<Self, 2>) -> Result<Vec<Option<u32>>, String> {
        burn_ops::arg_max(rows)
    }

    /// How likely targets are by rows of logits, in f64 of f32 exponentials whatever the rows' dtype; none where a row
    /// has a number that is NaN or infinite. A device has been asked for them when this returns.
    ///
    /// # Shapes
    /// - `logits`: `[rows, vocabulary]`
    /// - `targets`: in the order of their rows
    ///
    /// # Panics
    /// When a target is outside the logits.
    fn likely(logits: Tensor<Self, 2>, targets: Vec<Target>) -> Later<Vec<Option<Likely>>> {
        burn_ops::likely(logits, &targets)
    }

    /// Does `work`, which makes the logits of one token of each sequence, and writes it down, such that it can be done
    /// again for the tokens that come after: those of the largest logits, whose ids and positions then stand in `places`.
    /// None where a backend can't, though the work was done, or not all of it can be written down.
    fn record(
        device: &Self::Device,
        places: &Places<Self>,
        work: impl FnOnce() -> Tensor<Self, 2>,
    ) -> Option<Box<dyn Recorded<Self>>> {
        let _ = (device, places, work);
        None
    }
}

/// A token of each sequence, written down by [`DecodeOps::record`].
pub trait Recorded<B: Backend>: Send + Sync {
    /// Computes the next token of each sequence: the arg-max of the logits, none where one is NaN or infinite.
    ///
    /// # Errors
    /// When the device could not give the numbers back.
    fn replay(&self) -> Result<Vec<Option<u32>>, String>;

    /// Other tokens than those that came last: the numbers of the places that it was written down with.
    fn place(&self, places: &Places<B>, numbers: Vec<i32>);

    /// What the last token of each sequence came to, as [`Recorded::replay`] returned it.
    ///
    /// # Errors
    /// When the device could not give the numbers back.
    fn largest(&self) -> Result<Vec<Option<u32>>, String>;

    /// The logits of the last tokens, until the next ones take their place.
    fn logits(&self) -> Tensor<B, 2>;

    /// The times of each launch when the same tokens are computed `rounds` times, those that `numbers` place.
    ///
    /// # Errors
    /// What the device says.
    fn timed(&self, places: &Places<B>, numbers: &[i32], rounds: usize) -> Result<Vec<TimedLaunch>, String>;
}

/// A launch of a pass, and how long it took on the device.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedLaunch {
    /// What it is for: see [`super::stage`].
    pub stage: String,
    /// Which kernel it is.
    pub kernel: String,
    /// Of each round.
    pub seconds: Vec<f64>,
}

impl DecodeOps for burn::backend::NdArray<f32> {}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use std::collections::HashSet;

    #[test]
    fn every_token_has_a_row_of_its_own_in_every_head() {
        let span = |past, new, capacity| Span { past, new, capacity };
        let batches = [
            vec![span(3, 2, 8); 3],
            vec![span(0, 4, 4), span(0, 1, 1), span(0, 7, 7)],
            vec![span(0, 5, 5)],
            vec![span(4, 1, 9), span(0, 9, 9), span(2, 0, 9), span(8, 1, 9)],
        ];
        for spans in batches {
            for kv_heads in [1, 3] {
                let ids: Vec<u32> = (0..spans.iter().map(|span| span.new as u32).sum()).collect();
                let places = Places::<Flex>::new(&ids, spans.clone(), kv_heads, &Default::default());
                let numbers = places.numbers().to_data().convert::<i32>().into_vec::<i32>().unwrap();
                let [position, row] = [places.column(Column::Position), 2 * places.tokens()];
                let mut seen = HashSet::new();
                for token in 0..places.tokens() {
                    assert_eq!(numbers[token] as usize, token);
                    for head in 0..kv_heads {
                        let at = numbers[row + token] as usize + head * places.head_rows();
                        let at = at + numbers[position + token] as usize;
                        assert!(at < places.capacity() * kv_heads, "{spans:?} {kv_heads} {at}");
                        assert!(seen.insert(at), "{spans:?} {kv_heads} {at}");
                    }
                }
            }
        }
    }
}
