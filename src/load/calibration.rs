//! Calibration windows: which tokens the calibrated pruning methods look at.
//!
//! ```text
//!   seed ──ChaCha──> stream 0: which document      stream 1: where its window starts
//! ```
//!
//! The field's procedure: draw a document until one is longer than a window, then cut the window out of it at
//! random; a text that is one document is cut at random places. The same seed, text and tokenizer give the same
//! windows on every machine.
//!
//! Most documents of C4 are too short, and those that are drawn are few, so that documents are tokenised once they
//! are drawn, some at a time; the windows do not depend on how many.

use super::LoadError;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};

/// Special tokens that a tokenizer may put in front of a text, at most: a document has no more tokens than bytes
/// and these.
const SPECIAL: usize = 8;

/// The calibration windows that a seed draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The seed.
    pub seed: u64,
    /// Windows of equal length, in the order of the draws.
    pub windows: Vec<Vec<u32>>,
}

impl Calibration {
    /// The windows with tokens in front of each.
    pub(super) fn behind(self, front: &[u32]) -> Self {
        if front.is_empty() {
            return self;
        }
        let windows = self.windows.into_iter().map(|window| [front, &window].concat()).collect();
        Self { windows, ..self }
    }
}

/// Documents that are read when they are needed.
pub(super) trait Documents {
    /// For each document a number of bytes that it has at most.
    fn sizes(&self) -> Result<Vec<usize>, LoadError>;

    /// Token ids of documents, each with its index; without those that turn out to have no text.
    fn tokens(&self, indices: &BTreeSet<usize>) -> Result<Vec<(usize, Vec<u32>)>, LoadError>;
}

/// Random whole numbers of one purpose.
#[derive(Clone)]
pub(super) struct Stream(ChaCha8Rng);

impl Stream {
    /// The numbers that say which documents are drawn.
    pub fn documents(seed: u64) -> Self {
        Self::new(seed, 0)
    }

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

/// Windows of documents that have more than `length` tokens, for each of the seeds; none where no document has.
///
/// # Errors
/// When documents can't be read.
pub(super) fn of_documents(
    documents: &dyn Documents,
    seeds: &[u64],
    samples: usize,
    length: usize,
) -> Result<Option<Vec<Calibration>>, LoadError> {
    let sizes = documents.sizes()?.into_iter().enumerate();
    let candidates: Vec<usize> = sizes.filter(|(_, size)| size + SPECIAL > length).map(|(index, _)| index).collect();
    let mut tested: Tested = HashMap::new();
    let mut draws: Vec<Draw> = seeds.iter().map(|&seed| Draw::new(seed)).collect();
    let mut ahead = samples.saturating_mul(16);
    loop {
        if tested.len() == candidates.len() && tested.values().all(Option::is_none) {
            return Ok(None);
        }
        for draw in &mut draws {
            draw.advance(&candidates, &tested, samples, length);
        }
        let unfinished: Vec<&Draw> = draws.iter().filter(|draw| draw.windows.len() < samples).collect();
        if unfinished.is_empty() {
            let done = |draw: Draw| Calibration { seed: draw.seed, windows: draw.windows };
            return Ok(Some(draws.into_iter().map(done).collect()));
        }
        // Few enough to look at all of them, which is the only way to know that there is none.
        let next: BTreeSet<usize> = match candidates.len() <= ahead {
            true => candidates.iter().copied().collect(),
            false => unfinished.iter().flat_map(|draw| draw.next(&candidates, ahead)).collect(),
        };
        let new: BTreeSet<usize> = next.into_iter().filter(|index| !tested.contains_key(index)).collect();
        tested.extend(new.iter().map(|index| (*index, None)));
        for (index, tokens) in documents.tokens(&new)? {
            tested.insert(index, Some(tokens).filter(|tokens| tokens.len() > length));
        }
        ahead = ahead.saturating_mul(2);
    }
}

/// The tokens of documents that are long enough, and which are not.
type Tested = HashMap<usize, Option<Vec<u32>>>;

/// The draws of a seed so far.
struct Draw {
    seed: u64,
    documents: Stream,
    starts: Stream,
    windows: Vec<Vec<u32>>,
}

impl Draw {
    fn new(seed: u64) -> Self {
        Self { seed, documents: Stream::documents(seed), starts: Stream::starts(seed), windows: Vec::new() }
    }

    /// Draws until there are enough windows, or a document is drawn that nobody has looked at.
    fn advance(&mut self, candidates: &[usize], tested: &Tested, samples: usize, length: usize) {
        while self.windows.len() < samples {
            let mut documents = self.documents.clone();
            let Some(tokens) = tested.get(&candidates[documents.below(candidates.len())]) else { return };
            self.documents = documents;
            if let Some(tokens) = tokens {
                self.windows.push(self.starts.window(tokens, length));
            }
        }
    }

    /// The next documents that it will draw.
    fn next(&self, candidates: &[usize], count: usize) -> impl Iterator<Item = usize> {
        let mut documents = self.documents.clone();
        (0..count).map(move |_| candidates[documents.below(candidates.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Documents of this many tokens; a token says which document it is of and where it stands.
    struct Lengths(Vec<usize>);

    impl Documents for Lengths {
        fn sizes(&self) -> Result<Vec<usize>, LoadError> {
            Ok(self.0.iter().map(|length| length * 3).collect())
        }

        fn tokens(&self, indices: &BTreeSet<usize>) -> Result<Vec<(usize, Vec<u32>)>, LoadError> {
            let document = |&index: &usize| (0..self.0[index]).map(|at| (index * 1000 + at) as u32).collect();
            Ok(indices.iter().map(|index| (*index, document(index))).collect())
        }
    }

    /// The procedure as it is told: one draw after the other, each document looked at when it is drawn.
    fn one_by_one(lengths: &[usize], seed: u64, samples: usize, length: usize) -> Vec<Vec<u32>> {
        let candidates: Vec<usize> =
            (0..lengths.len()).filter(|&index| lengths[index] * 3 + SPECIAL > length).collect();
        let (mut documents, mut starts) = (Stream::documents(seed), Stream::starts(seed));
        let mut windows = Vec::new();
        while windows.len() < samples {
            let index = candidates[documents.below(candidates.len())];
            if lengths[index] > length {
                let start = starts.below(lengths[index] - length);
                windows.push((start..start + length).map(|at| (index * 1000 + at) as u32).collect());
            }
        }
        windows
    }

    #[test]
    fn documents_that_are_all_too_short_are_none() {
        for lengths in [vec![], vec![1, 2], vec![8; 500]] {
            assert_eq!(of_documents(&Lengths(lengths), &[0, 1], 3, 8).unwrap(), None);
        }
    }

    #[test]
    fn a_long_document_among_many_is_found() {
        let mut lengths = vec![7; 5000];
        lengths[3210] = 9;
        let drawn = of_documents(&Lengths(lengths), &[5], 2, 8).unwrap().unwrap();
        let only: Vec<u32> = (3_210_000..3_210_008).collect();
        assert_eq!(drawn, [Calibration { seed: 5, windows: vec![only.clone(), only] }]);
    }

    proptest! {
        #[test]
        fn documents_are_drawn_as_one_by_one(
            lengths in proptest::collection::vec(0usize..40, 1..300), seed: u64, samples in 1usize..20, length in 1usize..38,
        ) {
            let drawn = of_documents(&Lengths(lengths.clone()), &[seed, 1], samples, length).unwrap();
            if lengths.iter().all(|tokens| *tokens <= length) {
                prop_assert_eq!(drawn, None);
            } else {
                let windows = |seed| one_by_one(&lengths, seed, samples, length);
                let expected = [seed, 1].map(|seed| Calibration { seed, windows: windows(seed) });
                prop_assert_eq!(drawn.unwrap(), expected);
            }
        }

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
