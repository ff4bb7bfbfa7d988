//! Random pruning: a weight's score is a random number, the baseline that every method must beat.
//!
//! One ChaCha stream a layer, read at the weight's position: the scores depend on the seed, the
//! layer's place and the weight's place, and on nothing else.

use super::{Decided, Layer, MethodEntry, PruneError, Request, Scope, Scores, by_scores};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

pub(super) const METHOD: MethodEntry = MethodEntry {
    seeded: true,
    reads_weights: false,
    ..MethodEntry::weights(
        "random",
        "weights chosen at random go; the baseline of every other method",
        &[Scope::Global, Scope::Layer, Scope::Row],
        prune,
    )
};

struct Random {
    generator: ChaCha8Rng,
    /// The place of the first layer.
    first: usize,
}

pub(super) fn prune(layers: &[Layer<'_>], first: usize, request: &Request) -> Result<Decided, PruneError> {
    let key = Sha256::new().chain_update(b"random pruning").chain_update(request.seed.to_le_bytes()).finalize();
    by_scores(layers, &Random { generator: ChaCha8Rng::from_seed(key.into()), first }, request)
}

impl Scores for Random {
    fn fill(&self, layer: usize, start: usize, scores: &mut [u32]) {
        let mut stream = self.generator.clone();
        stream.set_stream((self.first + layer) as u64);
        stream.set_word_pos(start as u128);
        for score in scores {
            *score = stream.next_u32();
        }
    }
}
