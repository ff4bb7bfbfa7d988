//! Calibration windows: which tokens the calibrated pruning methods look at.
//!
//! ```text
//!   seed ──ChaCha──> stream 0: which document      stream 1: where its window starts
//! ```
//!
//! The field's procedure: draw a document until one is longer than a window, then cut the window out of it at
//! random; a text that is one document is cut at random places. The same seed, text and tokenizer give the same
//! windows on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// The calibration windows that a seed draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The seed.
    pub seed: u64,
    /// Windows of equal length, in the order of the draws.
    pub windows: Vec<Vec<u32>>,
}

/// Random whole numbers of one purpose.
pub(super) struct Stream(ChaCha8Rng);

impl Stream {
    /// The numbers that say where windows start.
    pub fn starts(seed: u64) -> Self {
        Self::new(seed, 1)
    }

    fn new(seed: u64, stream: u64) -> Self {
        let key = Sha256::new().chain_update(b"calibration windows").chain_update(seed.to_le_bytes()).finalize();
        let mut generator = ChaCha8Rng::from_seed(key.into());
        generator.set_stream(stream);
        Self(generator)
    }

    /// A number below `end`, which is not 0: the high half of a product, as no `end` is near 2^64.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.0.next_u64()) * end as u128) >> 64) as usize
    }

    /// A window of a document that has at least `length` tokens.
    pub fn window(&mut self, document: &[u32], length: usize) -> Vec<u32> {
        // As the field has it: the very last token is in no window, unless there is no other.
        let start = self.below((document.len() - length).max(1));
        document[start..start + length].to_vec()
    }
}

/// Windows of a single document, which has at least `length` tokens.
pub(super) fn of_document(document: &[u32], seed: u64, samples: usize, length: usize) -> Calibration {
    let mut starts = Stream::starts(seed);
    let windows = (0..samples).map(|_| starts.window(document, length)).collect();
    Calibration { seed, windows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_are_pieces_of_the_document(tokens in 1usize..200, length in 1usize..200, seed: u64) {
            prop_assume!(length <= tokens);
            let document: Vec<u32> = (0..tokens as u32).collect();
            let drawn = of_document(&document, seed, 20, length);
            prop_assert_eq!(drawn.windows.len(), 20);
            for window in &drawn.windows {
                let start = window[0] as usize;
                prop_assert_eq!(window.as_slice(), &document[start..start + length]);
            }
            prop_assert_eq!(&drawn, &of_document(&document, seed, 20, length));
            // More samples go on where fewer stopped.
            prop_assert_eq!(&drawn.windows[..7], &of_document(&document, seed, 7, length).windows);
        }
    }

    #[test]
    fn seeds_draw_different_windows_from_everywhere() {
        let document: Vec<u32> = (0..10_000).collect();
        let starts = |seed| {
            let drawn = of_document(&document, seed, 1000, 8);
            drawn.windows.iter().map(|window| window[0]).collect::<Vec<u32>>()
        };
        let (zero, one) = (starts(0), starts(1));
        assert_ne!(zero, one);
        for starts in [zero, one] {
            // A uniform draw of a thousand leaves none of ten parts below 60 or above 140.
            let counts = (0..10).map(|part| starts.iter().filter(|&&s| (s / 1000) == part).count());
            assert!(counts.clone().all(|count| (60..140).contains(&count)), "{:?}", counts.collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_stream_is_pinned() {
        // A change here changes every calibrated result: raise `NUMERICS_VERSION` with it.
        let mut starts = Stream::starts(0);
        assert_eq!([(); 4].map(|()| starts.below(1_000_000)), [601_235, 683_979, 405_140, 265_286]);
    }
}
