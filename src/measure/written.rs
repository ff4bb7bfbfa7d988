//! What a model writes when it takes the most likely token every time.

use super::forward::ForwardError;
use crate::execute::SparseBackend;
use crate::model::{Batch, Decoder, KvCache};

/// Fewer tokens than this, common to all prompts, are not worth keeping.
const COMMON: usize = 16;

/// Goes on from every prompt by at most `most` tokens, until `ends` says of what was written that it is enough, or the
/// model has no position left. What all prompts begin with is computed once. `done` is told the prompts that are done.
///
/// # Errors
/// When a prompt does not fit the model, or a logit is not finite: `NotFinite` names the prompt, from 0.
pub fn write_greedily<B: SparseBackend>(
    decoder: &mut Decoder<B>,
    prompts: &[&[u32]],
    most: usize,
    ends: &dyn Fn(&[u32]) -> bool,
    done: &dyn Fn(usize),
) -> Result<Vec<Vec<u32>>, ForwardError> {
    let positions = decoder.architecture().max_positions;
    let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    let capacity = (longest + most).min(positions);
    let common = common(prompts);
    let mut front = KvCache::new(decoder.architecture(), 1, capacity);
    if common > 0 {
        decoder.extend(&Batch::new([&prompts[0][..common]]), &mut front)?;
    }
    let mut all = Vec::with_capacity(prompts.len());
    for (index, prompt) in prompts.iter().enumerate() {
        let mut cache = front.clone();
        let mut next = prompt[common..].to_vec();
        let mut written = Vec::new();
        while written.len() < most && prompt.len() + written.len() < positions {
            let hidden = decoder.extend(&Batch::new([&next[..]]), &mut cache)?;
            let last = hidden.narrow(0, next.len() - 1, 1);
            let token = B::arg_max(decoder.logits(last)).map_err(ForwardError::Read)?;
            let token = token.first().copied().flatten().ok_or(ForwardError::NotFinite { token: index })?;
            written.push(token);
            if ends(&written) {
                break;
            }
            next = vec![token];
        }
        all.push(written);
        done(index + 1);
    }
    Ok(all)
}

/// Tokens that all prompts begin with, where there is more than one prompt; at least one token of each is left.
fn common(prompts: &[&[u32]]) -> usize {
    let [first, others @ ..] = prompts else { return 0 };
    let with = |other: &&[u32]| first.iter().zip(other.iter()).take_while(|(a, b)| a == b).count().min(other.len() - 1);
    let common = others.iter().map(with).min().unwrap_or(0).min(first.len() - 1);
    if common < COMMON { 0 } else { common }
}
