//! What a model writes when it takes the most likely token every time.
//!
//! ```text
//!   prompts      [examples | question 0]   [examples | question 1]   ..     on the host, what all begin with is computed once
//!   a few are written at once; each place takes the next prompt when its text has ended
//!     place 0    question 0 ......|question 4 ...
//!     place 1    question 1 ..|question 3 ........
//!     place 2    question 2 ..........|              a step reads the weights once for all places
//! ```
//! On a device a step in which no prompt begins is repeated as it was written down, for all places: one without a text writes
//! what nobody reads.
//!
//! Which prompts share a step follows from the prompts alone, so that what is written depends on nothing else.

use super::forward::{ForwardError, PASS_TOKENS, here};
use crate::execute::SparseBackend;
use crate::model::{Architecture, Batch, Decoder, KvCache};
use burn::tensor::{DType, Int, Tensor, TensorData};

/// Fewer tokens than this, common to all prompts, are not worth keeping.
const COMMON: usize = 16;
/// Texts that are written at once: with more, arithmetic takes longer than reading the weights.
const PLACES: usize = 16;
/// Numbers of all keys and values that are kept at once, 2 GiB of f32, or a quarter of the model's own if these are more.
const KEPT: usize = 1 << 29;

/// What is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Writing<'a> {
    /// What stands before each text, at least one token.
    pub prompts: &'a [&'a [u32]],
    /// Tokens of a text, at most.
    pub most: usize,
}

impl Writing<'_> {
    /// Tokens of a prompt with its text, at most.
    fn capacity(&self, positions: usize) -> usize {
        let longest = self.prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        (longest + self.most).min(positions)
    }

    /// Whether a text may go on.
    fn goes_on(&self, prompt: usize, written: usize, positions: usize) -> bool {
        written < self.most && self.prompts[prompt].len() + written < positions
    }
}

/// Goes on from every prompt until `ends` says of what was written that it is enough, there are `most` tokens, or the
/// model has no position left. `done` is told how many prompts are done.
///
/// # Errors
/// When a prompt does not fit the model, or a logit is not finite: `NotFinite` names the prompt, from 0.
pub fn write_greedily<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    writing: Writing<'_>,
    ends: &dyn Fn(&[u32]) -> bool,
    done: &dyn Fn(usize),
) -> Result<Vec<Vec<u32>>, ForwardError> {
    let capacity = writing.capacity(decoder.architecture().max_positions);
    let common = if B::ON_HOST { common(writing.prompts) } else { 0 };
    match decoder.turns_alike(capacity) {
        true => at_once(decoder, writing, common, ends, done),
        false => one_by_one(decoder, writing, common, ends, done),
    }
}

/// How many texts are written at once, each with its prompt of at most `capacity` tokens.
pub fn places(architecture: &Architecture, prompts: usize, capacity: usize) -> usize {
    let attention = architecture.attention;
    let of_text = 2 * architecture.blocks.len() * attention.kv_heads * attention.head_dim * capacity;
    let kept = KEPT.max(architecture.parameters() / 4);
    (kept / of_text.max(1)).clamp(1, PLACES).min(prompts)
}

/// A text that is being written.
struct Text {
    prompt: usize,
    /// What the model has not seen yet.
    next: Vec<u32>,
    written: Vec<u32>,
}

fn at_once<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    writing: Writing<'_>,
    common: usize,
    ends: &dyn Fn(&[u32]) -> bool,
    done: &dyn Fn(usize),
) -> Result<Vec<Vec<u32>>, ForwardError> {
    let Writing { prompts, .. } = writing;
    let positions = decoder.architecture().max_positions;
    let capacity = writing.capacity(positions);
    let front = front(decoder, prompts, common, common)?;
    let mut cache =
        KvCache::new(decoder.architecture(), places(decoder.architecture(), prompts.len(), capacity), capacity);
    let mut texts: Vec<Option<Text>> = (0..cache.sequences()).map(|_| None).collect();
    let mut waiting = (0..prompts.len()).filter(|&prompt| writing.goes_on(prompt, 0, positions)).peekable();
    let mut all = vec![Vec::new(); prompts.len()];
    let mut last = vec![0; texts.len()];
    let mut finished = 0;
    loop {
        let mut begun = 0;
        for (place, text) in texts.iter_mut().enumerate().filter(|(_, text)| text.is_none()) {
            // A step's prompts are a pass, unless one alone is longer.
            let fits = |prompt: &usize| begun == 0 || begun + prompts[*prompt].len() - common <= here::<B>(PASS_TOKENS);
            let Some(prompt) = waiting.next_if(fits) else { break };
            let next = prompts[prompt][common..].to_vec();
            begun += next.len();
            cache.restart(place, &front);
            *text = Some(Text { prompt, next, written: Vec::new() });
        }
        if texts.iter().all(Option::is_none) {
            return Ok(all);
        }
        let tokens = step(decoder, &texts, &mut last, &mut cache)?;
        for (index, (place, token)) in texts.iter_mut().zip(tokens).enumerate() {
            let Some(text) = place else { continue };
            let token = token.ok_or(ForwardError::NotFinite { token: text.prompt })?;
            text.written.push(token);
            text.next = vec![token];
            if ends(&text.written) || !writing.goes_on(text.prompt, text.written.len(), positions) {
                all[text.prompt] = std::mem::take(&mut text.written);
                *place = None;
                if !B::ON_HOST {
                    // So that there is room for what it writes until the next text begins.
                    cache.restart(index, &front);
                }
                finished += 1;
                done(finished);
            }
        }
    }
}

/// The most likely token behind each text; where there is none, anything. `last` has the tokens that came last, which stand
/// on a device where the next ones are made of them.
fn step<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    texts: &[Option<Text>],
    last: &mut [u32],
    cache: &mut KvCache<B>,
) -> Result<Vec<Option<u32>>, ForwardError> {
    if !B::ON_HOST && texts.iter().flatten().all(|text| text.next.len() == 1) {
        for (last, text) in last.iter_mut().zip(texts) {
            *last = text.as_ref().map_or(*last, |text| text.next[0]);
        }
        let tokens = decoder.next(last, cache)?;
        last.iter_mut().zip(&tokens).for_each(|(last, token)| *last = token.unwrap_or(0));
        return Ok(tokens);
    }
    let next: Vec<Vec<u32>> =
        texts.iter().map(|text| text.as_ref().map_or_else(Vec::new, |text| text.next.clone())).collect();
    let hidden = decoder.extend_each(&next, cache)?;
    let mut tokens = likeliest_of_last(decoder, hidden, &next)?.into_iter();
    Ok(texts.iter().map(|text| text.as_ref().and_then(|_| tokens.next().flatten())).collect())
}

/// The most likely token behind each sequence that has new tokens.
fn likeliest_of_last<B: SparseBackend>(
    decoder: &Decoder<B>,
    hidden: Tensor<B, 2>,
    next: &[Vec<u32>],
) -> Result<Vec<Option<u32>>, ForwardError> {
    let ends = next.iter().filter(|next| !next.is_empty()).scan(0, |end, next| {
        *end += next.len();
        Some(*end as i32 - 1)
    });
    let ends: Vec<i32> = ends.collect();
    let count = ends.len();
    let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(ends, [count]), (decoder.device(), DType::I32));
    B::arg_max(decoder.logits(hidden.select(0, rows))).map_err(ForwardError::Read)
}

fn one_by_one<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    writing: Writing<'_>,
    common: usize,
    ends: &dyn Fn(&[u32]) -> bool,
    done: &dyn Fn(usize),
) -> Result<Vec<Vec<u32>>, ForwardError> {
    let Writing { prompts, .. } = writing;
    let positions = decoder.architecture().max_positions;
    let front = front(decoder, prompts, common, writing.capacity(positions))?;
    let mut all = Vec::with_capacity(prompts.len());
    for (index, prompt) in prompts.iter().enumerate() {
        let mut cache = front.clone();
        let mut next = vec![prompt[common..].to_vec()];
        let mut written = Vec::new();
        while writing.goes_on(index, written.len(), positions) {
            let hidden = decoder.extend(&Batch::new([&next[0][..]]), &mut cache)?;
            let token = likeliest_of_last(decoder, hidden, &next)?.first().copied().flatten();
            let token = token.ok_or(ForwardError::NotFinite { token: index })?;
            written.push(token);
            if ends(&written) {
                break;
            }
            next = vec![vec![token]];
        }
        all.push(written);
        done(index + 1);
    }
    Ok(all)
}

/// A cache with the tokens that all prompts begin with.
fn front<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    prompts: &[&[u32]],
    common: usize,
    capacity: usize,
) -> Result<KvCache<B>, ForwardError> {
    let mut front = KvCache::new(decoder.architecture(), 1, capacity);
    if common > 0 {
        decoder.extend(&Batch::new([&prompts[0][..common]]), &mut front)?;
    }
    Ok(front)
}

/// Tokens that all prompts begin with, where there is more than one prompt; at least one token of each is left.
fn common(prompts: &[&[u32]]) -> usize {
    let [first, others @ ..] = prompts else { return 0 };
    let with = |other: &&[u32]| first.iter().zip(other.iter()).take_while(|(a, b)| a == b).count().min(other.len() - 1);
    let common = others.iter().map(with).min().unwrap_or(0).min(first.len() - 1);
    if common < COMMON { 0 } else { common }
}
