//! Every architecture: logits of tiny random checkpoints (tests/fixtures/families/make.py).

use crate::{checkpoint, fixture, sample_tokens};
use burn::backend::{Flex, NdArray};
use burn::tensor::DType;
use safetensors::SafeTensors;
use sparsify_exp::execute::SparseBackend;
use sparsify_exp::measure::all_logits;
use sparsify_exp::model::Decoder;

/// Token ids and logits of the reference.
fn expected(folder: &str) -> Vec<(Vec<u32>, Vec<f32>)> {
    let bytes = std::fs::read(fixture(folder).join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: String| {
        let tensor = tensors.tensor(&name).unwrap();
        tensor.data().chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<u32>>()
    };
    let logits = |index| words(format!("logits.{index}")).into_iter().map(f32::from_bits).collect();
    (0..2).map(|index| (words(format!("ids.{index}")), logits(index))).collect()
}

fn logits<B: SparseBackend>(folder: &str, sequences: &[Vec<u32>]) -> Vec<f32> {
    let (_, checkpoint) = checkpoint(&fixture(folder));
    let read = |module, part| checkpoint.read(module, part);
    let mut decoder =
        Decoder::<B>::load(checkpoint.architecture().clone(), DType::F32, &Default::default(), read).unwrap();
    all_logits(&mut decoder, sequences).unwrap()
}

fn check(folder: &str) {
    let expected = expected(folder);
    let sequences: Vec<Vec<u32>> = expected.iter().map(|(ids, _)| ids.clone()).collect();
    let reference: Vec<f32> = expected.into_iter().flat_map(|(_, logits)| logits).collect();
    for (backend, logits) in
        [("flex", logits::<Flex>(folder, &sequences)), ("ndarray", logits::<NdArray<f32>>(folder, &sequences))]
    {
        assert_eq!(logits.len(), reference.len());
        let furthest = logits.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 1e-4, "{folder} on {backend}: logits differ by {furthest}");
    }
}

#[test]
fn gpt2() {
    check("families/gpt2");
}

#[test]
fn qwen2() {
    check("families/qwen2");
}

#[test]
fn mistral_with_a_sliding_window() {
    check("families/mistral-window");
}

#[test]
fn llama3_rope_and_biases() {
    check("families/llama3-rope");
}

#[test]
fn opt_post_norm_with_projections() {
    check("families/opt-post-norm");
}

#[test]
fn olmoe_with_eight_experts() {
    check("families/olmoe");
}

#[test]
fn phi3_with_fused_projections() {
    check("families/phi3");
}

/// float16 weights in a pickle under the inner names, `vocab.json` and `merges.txt`: as facebook/opt-125m is.
#[test]
fn opt_as_the_hub_has_it() {
    check("families/opt-hub");
    let ids: Vec<Vec<u32>> = expected("families/opt-hub").into_iter().map(|(ids, _)| ids).collect();
    assert_eq!(sample_tokens(&fixture("families/opt-hub"))[..2], ids);
}
