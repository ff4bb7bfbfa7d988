//! Every family and the switches of its configurations: logits and greedy tokens of small networks whose weights follow
//! from their names, against transformers 5.24 (tests/fixtures/families/kin.py).

use crate::fixture;
use burn::backend::{Flex, NdArray};
use burn::tensor::DType;
use serde::Deserialize;
use sparsify_exp::execute::SparseBackend;
use sparsify_exp::measure::all_logits;
use sparsify_exp::model::{Architecture, Batch, Decoder, KvCache, Part, architecture};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

/// A network of the reference.
#[derive(Deserialize)]
struct Case {
    name: String,
    config: serde_json::Value,
    ids: Vec<u32>,
    /// Where `logits` are from.
    positions: Vec<usize>,
    logits: Vec<Vec<f32>>,
    /// Tokens of `ids` before the greedy ones.
    prompt: usize,
    greedy: Vec<u32>,
    /// The tensors of its file.
    tensors: BTreeSet<String>,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(fixture("families/kin.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Numbers from -0.5 to 0.5 that depend on a name.
fn numbers(name: &str, count: usize) -> impl Iterator<Item = f64> {
    const WORD: u64 = 1 << 32;
    let start = name.bytes().fold(2_166_136_261u64, |state, byte| ((state ^ u64::from(byte)) * 16_777_619) % WORD);
    (1..=count as u64).map(move |i| {
        let mut x = (start + i * 2_654_435_761) % WORD;
        x ^= x >> 15;
        x = x * 0x2C1B_3C6D % WORD;
        x ^= x >> 12;
        x as f64 / WORD as f64 - 0.5
    })
}

fn tensor_name(network: &Architecture, module: usize, part: Part) -> String {
    let suffix = if part == Part::Weight { "weight" } else { "bias" };
    format!("{}.{suffix}", network.modules[module].name)
}

/// A tensor as kin.py makes it.
fn tensor(network: &Architecture, module: usize, part: Part) -> Vec<f32> {
    let described = &network.modules[module];
    let (count, scale, shift) = match (part, &described.shape[..]) {
        (Part::Bias, _) => (described.biases(), 0.4, 0.0),
        (Part::Weight, [_, inputs]) => (described.weights(), (12.0 / *inputs as f64).sqrt(), 0.0),
        (Part::Weight, _) => (described.weights(), 0.6, if network.constants.gains_less_one { 0.0 } else { 1.0 }),
    };
    let name = tensor_name(network, module, part);
    numbers(&name, count).map(|number| (number * scale + shift) as f32).collect()
}

fn decoder<B: SparseBackend>(network: &Arc<Architecture>) -> Decoder<B> {
    let read = |module, part| Ok::<Vec<f32>, Infallible>(tensor(network, module, part));
    let Ok(decoder) = Decoder::load(network.clone(), DType::F32, &Default::default(), read);
    decoder
}

/// Runs a prompt, and then its own most likely tokens one by one.
pub fn greedy<B: SparseBackend>(decoder: &mut Decoder<B>, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut cache = KvCache::new(decoder.architecture(), 1, prompt.len() + count);
    let (mut next, mut found): (Vec<u32>, Vec<u32>) = (prompt.to_vec(), Vec::new());
    while found.len() < count {
        let hidden = decoder.extend(&Batch::new([next.as_slice()]), &mut cache).unwrap();
        let rows = B::arg_max(decoder.logits(hidden)).unwrap();
        next = vec![rows.last().unwrap().unwrap()];
        found.extend(&next);
    }
    found
}

fn agrees<B: SparseBackend>(case: &Case, backend: &str) {
    let network = Arc::new(architecture(&case.config).unwrap());
    let mut decoder = decoder::<B>(&network);
    // Beside a shorter one: some rules turn sequences of different lengths in different ways.
    let logits = all_logits(&mut decoder, &[case.ids[..7].to_vec(), case.ids.clone()]).unwrap();
    for (&position, expected) in case.positions.iter().zip(&case.logits) {
        let found = &logits[(7 + position) * network.vocabulary..][..network.vocabulary];
        let furthest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 1e-4, "{} on {backend}: logits differ by {furthest} at {position}", case.name);
    }
    let found = greedy(&mut decoder, &case.ids[..case.prompt], case.greedy.len());
    assert_eq!(found, case.greedy, "{} on {backend}", case.name);
}

#[test]
fn logits_and_greedy_tokens_are_the_references() {
    let cases = cases();
    assert!(cases.len() > 30);
    for case in cases {
        agrees::<Flex>(&case, "flex");
        agrees::<NdArray<f32>>(&case, "ndarray");
    }
}

#[test]
fn every_tensor_of_a_file_is_read_and_no_other() {
    for case in cases() {
        let network = architecture(&case.config).unwrap();
        let mut names = BTreeSet::new();
        for (index, module) in network.modules.iter().enumerate() {
            if module.tied_to.is_none() {
                names.insert(tensor_name(&network, index, Part::Weight));
            }
            if module.bias {
                names.insert(tensor_name(&network, index, Part::Bias));
            }
        }
        assert_eq!(names, case.tensors, "{}", case.name);
    }
}
