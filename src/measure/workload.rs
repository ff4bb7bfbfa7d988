//! What is timed: prompts of one length, and tokens after them. Knows neither clocks nor models.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The seed of the prompts, which are the same for every model of a vocabulary.
const PROMPT_SEED: u64 = 0;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Sequences at a time.
    pub batch: usize,
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens generated after it.
    pub generate: usize,
    /// Runs before those that count.
    pub warmup: usize,
    /// Runs that count.
    pub repeats: usize,
}

/// Uniform random token ids: what they are does not matter, that they are the same for all variants does.
pub(super) fn prompts(batch: usize, length: usize, vocabulary: usize) -> Vec<Vec<u32>> {
    let sequence = |index: usize| {
        let mut generator = ChaCha8Rng::seed_from_u64(PROMPT_SEED);
        generator.set_stream(index as u64);
        // The high half of a 64-bit product is uniform enough, and always below the vocabulary.
        (0..length).map(|_| ((u64::from(generator.next_u32()) * vocabulary as u64) >> 32) as u32).collect()
    };
    (0..batch).map(sequence).collect()
}

/// The last row of every sequence.
pub(super) fn last_tokens<B: Backend>(hidden: Tensor<B, 2>, sequences: usize) -> Tensor<B, 2> {
    let [tokens, width] = hidden.dims();
    let length = tokens / sequences;
    if length == 1 {
        return hidden;
    }
    hidden.reshape([sequences, length, width]).narrow(1, length - 1, 1).reshape([sequences, width])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_the_same_at_every_call_and_differ_by_sequence() {
        let all = prompts(2, 1000, 50);
        assert_eq!(all, prompts(2, 1000, 50));
        assert_eq!(all[..1], prompts(1, 1000, 50));
        assert_ne!(all[0], all[1]);
        assert!(all.iter().flatten().all(|&id| id < 50) && all[0].contains(&49) && all[0].contains(&0));
    }
}
