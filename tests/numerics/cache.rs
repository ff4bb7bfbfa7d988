//! Generation with a cache: the reference's tokens, and the logits of full passes.

use crate::{checkpoint, fixture};
use burn::backend::{Flex, NdArray};
use burn::tensor::{DType, Tensor};
use serde_json::Value;
use sparsify_exp::execute::SparseBackend;
use sparsify_exp::model::{Batch, Decoder, DecoderError, KvCache};

const FAMILIES: [&str; 9] = [
    "families/gpt2",
    "families/qwen2",
    "families/mistral-window",
    "families/llama3-rope",
    "families/opt-post-norm",
    "families/opt-hub",
    "golden/tiny-opt/model",
    "golden/tiny-gptneox/model",
    "golden/tiny-llama/model",
];

fn decoder<B: SparseBackend>(folder: &str) -> Decoder<B> {
    let (_, checkpoint) = checkpoint(&fixture(folder));
    let read = |module, part| checkpoint.read(module, part);
    Decoder::load(checkpoint.architecture().clone(), DType::F32, &Default::default(), read).unwrap()
}

fn numbers<B: SparseBackend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    tensor.into_data().into_vec().unwrap()
}

/// The arg-max of the last token's logits.
fn next<B: SparseBackend>(decoder: &Decoder<B>, hidden: Tensor<B, 2>) -> u32 {
    let last = hidden.dims()[0] - 1;
    let logits = numbers(decoder.logits(hidden.narrow(0, last, 1)));
    (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

fn generate<B: SparseBackend>(decoder: &mut Decoder<B>, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut cache = KvCache::new(decoder.architecture(), 1, prompt.len() + count);
    let mut generated = Vec::new();
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        let hidden = decoder.extend(&Batch::new([&tokens[..]]), &mut cache).unwrap();
        tokens = vec![next(decoder, hidden)];
        generated.push(tokens[0]);
    }
    generated
}

#[test]
fn greedy_tokens_are_the_references() {
    let path = fixture("golden/greedy.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (model, prompts) in reference.as_object().unwrap() {
        let folder = format!("golden/{model}/model");
        let (mut flex, mut ndarray) = (decoder::<Flex>(&folder), decoder::<NdArray<f32>>(&folder));
        for prompt in prompts.as_array().unwrap() {
            let ids = |key: &str| -> Vec<u32> {
                prompt[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
            };
            let (start, expected) = (ids("prompt_ids"), ids("new_ids"));
            assert_eq!(generate(&mut flex, &start, expected.len()), expected, "{model} on flex: {}", prompt["prompt"]);
            assert_eq!(generate(&mut ndarray, &start, expected.len()), expected, "{model} on ndarray");
        }
    }
}

/// Logits of two sequences, run in pieces that end at `cuts`: `[sequence][token, vocabulary]`.
fn in_pieces<B: SparseBackend>(decoder: &mut Decoder<B>, sequences: [&[u32]; 2], cuts: &[usize]) -> [Vec<f32>; 2] {
    let vocabulary = decoder.architecture().vocabulary;
    let mut cache = KvCache::new(decoder.architecture(), 2, sequences[0].len());
    let mut logits = [Vec::new(), Vec::new()];
    for &cut in cuts {
        let batch = Batch::new(sequences.map(|ids| &ids[cache.past()..cut]));
        let hidden = decoder.extend(&batch, &mut cache).unwrap();
        assert_eq!(cache.past(), cut);
        let piece = numbers(decoder.logits(hidden));
        for (all, new) in logits.iter_mut().zip(piece.chunks(batch.tokens() / 2 * vocabulary)) {
            all.extend_from_slice(new);
        }
    }
    logits
}

fn check_pieces<B: SparseBackend>(folder: &str) {
    let mut decoder = decoder::<B>(folder);
    let (length, vocabulary) = (24, decoder.architecture().vocabulary);
    let ids = |seed: usize| -> Vec<u32> { (0..length).map(|i| ((i * 31 + seed) % vocabulary) as u32).collect() };
    let sequences = [ids(3), ids(101)];
    // One at a time and without a cache: neither the batch nor the cache may change anything.
    let full = sequences.each_ref().map(|ids| {
        let hidden = decoder.hidden(&Batch::new([&ids[..]])).unwrap();
        numbers(decoder.logits(hidden))
    });
    let one_by_one: Vec<usize> = (1..=length).collect();
    let cuts: [&[usize]; 5] = [&[length], &[1, length], &[length / 2, length], &[7, 8, 9, length], &one_by_one];
    for cuts in cuts {
        let pieces = in_pieces(&mut decoder, sequences.each_ref().map(Vec::as_slice), cuts);
        for (full, pieces) in full.iter().zip(&pieces) {
            assert_eq!(full.len(), pieces.len());
            let furthest = full.iter().zip(pieces).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(furthest < 1e-4, "{folder} in pieces to {cuts:?}: logits differ by {furthest}");
        }
    }
}

#[test]
fn a_cache_changes_no_logits() {
    for folder in FAMILIES {
        check_pieces::<Flex>(folder);
        check_pieces::<NdArray<f32>>(folder);
    }
}

#[test]
fn a_cleared_cache_is_a_new_one() {
    let mut decoder = decoder::<Flex>("families/qwen2");
    let mut cache = KvCache::new(decoder.architecture(), 1, 8);
    let first = numbers(decoder.extend(&Batch::new([&[1, 2, 3][..]]), &mut cache).unwrap());
    decoder.extend(&Batch::new([&[9][..]]), &mut cache).unwrap();
    cache.clear();
    assert_eq!(cache.past(), 0);
    assert_eq!(numbers(decoder.extend(&Batch::new([&[1, 2, 3][..]]), &mut cache).unwrap()), first);
}

#[test]
fn what_does_not_fit_a_cache_is_an_error() {
    let mut decoder = decoder::<Flex>("families/gpt2");
    let mut cache = KvCache::new(decoder.architecture(), 2, 4);
    let mut extend =
        |sequences: &[&[u32]]| decoder.extend(&Batch::new(sequences.iter().copied()), &mut cache).map(|_| ());
    let other = Err(DecoderError::OtherSequences { sequences: 2 });
    assert_eq!(extend(&[&[1]]), other);
    assert_eq!(extend(&[&[1, 2], &[1]]), other);
    assert_eq!(extend(&[]), other);
    assert_eq!(extend(&[&[1, 2, 3], &[1, 2, 3]]), Ok(()));
    assert_eq!(extend(&[&[4, 5], &[4, 5]]), Err(DecoderError::CacheFull { needed: 5, capacity: 4 }));
    let vocabulary = decoder.architecture().vocabulary;
    let unknown = DecoderError::UnknownToken { id: vocabulary as u32, vocabulary };
    let batch = Batch::new([&[1][..], &[vocabulary as u32]]);
    assert_eq!(decoder.extend(&batch, &mut cache).map(|_| ()), Err(unknown));
    assert_eq!(cache.past(), 3, "an error changes nothing");
    let positions = decoder.architecture().max_positions;
    let mut cache = KvCache::new(decoder.architecture(), 1, 2 * positions);
    let batch = Batch::new([&vec![1; positions][..]]);
    decoder.extend(&batch, &mut cache).unwrap();
    let long = decoder.extend(&Batch::new([&[1][..]]), &mut cache).map(|_| ());
    assert_eq!(long, Err(DecoderError::TooLong { length: positions + 1, positions }));
}

/// Sequences that go on each by itself, of which some wait and one begins anew, give what each gives alone.
#[test]
fn sequences_go_on_by_themselves() {
    for name in ["families/mistral-window", "families/llama3-rope", "golden/tiny-opt/model"] {
        let mut decoder: Decoder<Flex> = decoder(name);
        let ids = |start: u32, count: u32| (start..start + count).map(|i| 5 + i * 7 % 150).collect::<Vec<u32>>();
        let front = ids(9, 6);
        let mut beginning = KvCache::new(decoder.architecture(), 1, front.len());
        decoder.extend(&Batch::new([&front[..]]), &mut beginning).unwrap();
        let mut cache = KvCache::new(decoder.architecture(), 3, 30);
        let mut whole = vec![front.clone(); 3];
        (0..3).for_each(|sequence| cache.restart(sequence, &beginning));
        // What each gets in turn: prompts, single tokens, nothing, and a new prompt after the second has ended.
        let steps = [[9, 0, 2], [1, 5, 1], [0, 1, 1], [1, 1, 0], [1, 4, 1]];
        for (step, counts) in steps.iter().enumerate() {
            if step == 4 {
                cache.restart(1, &beginning);
                whole[1].clone_from(&front);
            }
            let new = [0, 1, 2].map(|sequence| ids(30 * step as u32 + 11 * sequence as u32, counts[sequence]));
            let hidden = decoder.extend_each(&new, &mut cache).unwrap();
            let mut start = 0;
            for (sequence, new) in new.iter().enumerate().filter(|(_, new)| !new.is_empty()) {
                whole[sequence].extend(new);
                let alone = decoder.hidden(&Batch::new([&whole[sequence][..]])).unwrap();
                let alone = alone.narrow(0, whole[sequence].len() - new.len(), new.len());
                let got = numbers(hidden.clone().narrow(0, start, new.len()));
                let apart = numbers(alone).iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart < 1e-4, "{name}, step {step}, sequence {sequence}: {apart}");
                start += new.len();
            }
        }
        let full = decoder.extend_each(&[vec![1], vec![2; 30], vec![]], &mut cache).unwrap_err();
        assert!(matches!(full, DecoderError::CacheFull { capacity: 30, .. }), "{full}");
        let two = decoder.extend_each(&[vec![1], vec![2]], &mut cache).unwrap_err();
        assert_eq!(two, DecoderError::OtherSequences { sequences: 3 });
        // Sequences of different lengths do not go on as equals.
        let uneven = decoder.extend(&Batch::new([&[1][..], &[2], &[3]]), &mut cache).unwrap_err();
        assert_eq!(uneven, DecoderError::OtherSequences { sequences: 3 });
    }
}
