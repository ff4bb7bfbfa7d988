//! What is between linears on a GPU, against Burn's operations on the CPU, and whole decoders against themselves.
//!
//! `cargo test --release --features cuda --test cuda -- --ignored --test-threads=1`, in the repository.

use crate::panics;
use burn::backend::Flex;
use burn::tensor::{DType, Int, Tensor, TensorData};
use half::{bf16, f16};
use sparsify_exp::config;
use sparsify_exp::execute::decode::{Activation, Column, DecodeOps, Likely, Norm, NormKind, Places, Span, Target};
use sparsify_exp::execute::{Cuda, Format, SparseBackend, SparseWeight};
use sparsify_exp::load::{Checkpoint, Loader};
use sparsify_exp::measure::{Writing, all_logits, write_greedily};
use sparsify_exp::model::{Batch, Decoder, KvCache, LinearWeight, Part, architecture};
use sparsify_exp::sparse::Pattern;
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// What is wrong, told at once: a run on a GPU is dear.
pub struct Findings(Vec<String>);

impl Findings {
    pub fn new() -> Self {
        panics::watch();
        Self(Vec::new())
    }

    /// Numbers that differ by more than `tolerance`, as a share of the larger of 1 and what is expected.
    pub fn compare(&mut self, what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
        if panics::take() > 0 {
            self.0.push(format!("{what}: a kernel panicked"));
        }
        if found.len() != expected.len() {
            self.0.push(format!("{what}: {} numbers, not {}", found.len(), expected.len()));
            return;
        }
        let error = |(a, b): (&f32, &f32)| (a - b).abs() / b.abs().max(1.0);
        let worst = found.iter().zip(expected).map(error).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((at, error)) = worst
            && (error > tolerance || error.is_nan())
        {
            self.0.push(format!("{what}: off by {error:e} at {at}: {} is not {}", found[at], expected[at]));
        }
    }
}

impl Drop for Findings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} differences:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

/// Numbers between -1.5 and 1.5 that a dtype can hold.
pub fn numbers(seed: usize, count: usize, dtype: DType) -> Vec<f32> {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let number = (state >> 40) as f32 / (1u64 << 24) as f32 * 3.0 - 1.5;
        match dtype {
            DType::F16 => f16::from_f32(number).to_f32(),
            DType::BF16 => bf16::from_f32(number).to_f32(),
            _ => number,
        }
    };
    (0..count).map(|_| next()).collect()
}

/// Of a few roundings to a dtype, of sums up to 4.5.
pub fn tolerance(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => 5e-3,
        DType::BF16 => 4e-2,
        _ => 2e-5,
    }
}

pub fn tensor<B: SparseBackend, const D: usize>(numbers: &[f32], shape: [usize; D], dtype: DType) -> Tensor<B, D> {
    let data = TensorData::new(numbers.to_vec(), shape).convert_dtype(dtype);
    Tensor::from_data(data, (&B::Device::default(), dtype))
}

pub fn read<B: SparseBackend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().unwrap()
}

#[test]
#[ignore = "needs a GPU"]
fn norms() {
    let mut findings = Findings::new();
    let kinds = [NormKind::Layer { eps: 1e-5 }, NormKind::Rms { eps: 1e-6 }];
    for dtype in DTYPES {
        for (rows, width) in [(1, 4096), (3, 24), (2, 7), (257, 100), (1, 8192), (2, 5120), (1, 50)] {
            for kind in kinds {
                for added in 0..3 {
                    let biased = matches!(kind, NormKind::Layer { .. }) && added != 1;
                    let input = |seed| numbers(seed + width, rows * width, dtype);
                    fn run<B: SparseBackend>(
                        inputs: &[Vec<f32>],
                        shape: [usize; 2],
                        kind: NormKind,
                        biased: bool,
                        dtype: DType,
                    ) -> [Vec<f32>; 2] {
                        let gain = tensor::<B, 1>(&numbers(90, shape[1], dtype), [shape[1]], dtype);
                        let bias = tensor::<B, 1>(&numbers(91, shape[1], dtype), [shape[1]], dtype);
                        let mut inputs = inputs.iter().map(|input| tensor::<B, 2>(input, shape, dtype));
                        let x = inputs.next().unwrap();
                        let norm = Norm { kind, gain: &gain, bias: biased.then_some(&bias) };
                        B::norm(x, inputs.collect(), norm).map(read)
                    }
                    let inputs: Vec<Vec<f32>> = (0..=added).map(input).collect();
                    let found = run::<Cuda>(&inputs, [rows, width], kind, biased, dtype);
                    let expected = run::<Flex>(&inputs, [rows, width], kind, biased, DType::F32);
                    for (what, found, expected) in [("sum", &found[0], &expected[0]), ("norm", &found[1], &expected[1])]
                    {
                        let what = format!("{what} {dtype:?} {rows} {width} {kind:?} {added}");
                        findings.compare(&what, found, expected, tolerance(dtype));
                    }
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn activations_and_gates() {
    let mut findings = Findings::new();
    for dtype in DTYPES {
        let functions =
            [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu];
        for function in functions {
            for shape in [[1, 11008], [3, 7], [130, 24]] {
                let x: Vec<f32> = numbers(1, shape[0] * shape[1], dtype).iter().map(|x| x * 4.0).collect();
                let up = numbers(2, shape[0] * shape[1], dtype);
                fn run<B: SparseBackend>(
                    function: Activation,
                    [x, up]: [&[f32]; 2],
                    shape: [usize; 2],
                    dtype: DType,
                ) -> [Vec<f32>; 2] {
                    let [x, up] = [x, up].map(|numbers| tensor::<B, 2>(numbers, shape, dtype));
                    [read(B::activate(function, x.clone())), read(B::gate(function, x, up))]
                }
                let found = run::<Cuda>(function, [&x, &up], shape, dtype);
                let expected = run::<Flex>(function, [&x, &up], shape, DType::F32);
                for (found, expected) in found.iter().zip(&expected) {
                    let what = format!("{function:?} {dtype:?} {shape:?}");
                    findings.compare(&what, found, expected, tolerance(dtype));
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn rows_of_tables() {
    let mut findings = Findings::new();
    let spans = vec![Span { past: 4, new: 3, capacity: 9 }; 2];
    for dtype in DTYPES {
        for width in [4096, 24, 7, 50] {
            let table = numbers(width, 40 * width, dtype);
            let x = numbers(5, 6 * width, dtype);
            let spans = spans.clone();
            fn run<B: SparseBackend>(
                table: &[f32],
                x: &[f32],
                width: usize,
                spans: Vec<Span>,
                dtype: DType,
            ) -> Vec<f32> {
                let places = Places::<B>::new(&[3, 39, 0, 7, 7, 12], spans, 2, &Default::default());
                let table = tensor::<B, 2>(table, [40, width], dtype);
                let ids = B::table_rows(None, &table, &places, Column::Id, 0);
                let x = tensor::<B, 2>(x, [6, width], dtype);
                let positions = B::table_rows(Some(x), &table, &places, Column::Position, 2);
                [read(ids), read(positions)].concat()
            }
            let found = run::<Cuda>(&table, &x, width, spans.clone(), dtype);
            let expected = run::<Flex>(&table, &x, width, spans, DType::F32);
            findings.compare(&format!("rows {dtype:?} {width}"), &found, &expected, tolerance(dtype));
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn the_largest_logits() {
    let mut wrong = Vec::new();
    for dtype in DTYPES {
        for width in [1, 7, 24, 320, 32_000, 50_257, 152_064] {
            let mut rows: Vec<Vec<f32>> = (0..6).map(|row| numbers(row + width, width, dtype)).collect();
            // Ties, at both ends too; all the same; what is not finite.
            rows[1][width / 2] = 2.0;
            rows[1][width - 1] = 2.0;
            rows[2].fill(-3.0);
            rows[3][width - 1] = f32::NAN;
            rows[4][width / 3] = f32::NEG_INFINITY;
            rows[5][0] = f32::INFINITY;
            let all = rows.concat();
            let found = Cuda::arg_max(tensor(&all, [6, width], dtype)).unwrap();
            let expected = Flex::arg_max(tensor(&all, [6, width], DType::F32)).unwrap();
            if found != expected || expected[3..] != [None; 3] {
                wrong.push(format!("{dtype:?} {width}: {found:?} is not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
#[ignore = "needs a GPU"]
fn how_likely_tokens_are() {
    let mut wrong = Vec::new();
    for dtype in DTYPES {
        for width in [1, 7, 24, 513, 32_000, 50_257, 152_064] {
            let mut rows: Vec<Vec<f32>> = (0..7).map(|row| numbers(row + width, width, dtype)).collect();
            // Ties, at both ends too; all the same; one far above the others; nothing asked; what is not finite.
            rows[1][width / 2] = 2.0;
            rows[1][width - 1] = 2.0;
            rows[2].fill(-3.0);
            rows[3][width / 3] = 200.0;
            rows[5][width - 1] = f32::NAN;
            rows[6][width / 2] = f32::INFINITY;
            let ids = [0, width / 3, width / 2, width - 1].map(|id| id as u32);
            let targets: Vec<Target> =
                [0, 1, 2, 3, 5, 6].iter().flat_map(|&row| ids.map(|id| Target { row, id })).collect();
            let all = rows.concat();
            let found = Cuda::likely(tensor(&all, [7, width], dtype), targets.clone())().unwrap();
            let expected = Flex::likely(tensor(&all, [7, width], DType::F32), targets)().unwrap();
            let same = |a: &Option<Likely>, b: &Option<Likely>| match (a, b) {
                (Some(a), Some(b)) => a.first == b.first && (a.log - b.log).abs() <= 1e-6 * (1.0 + b.log.abs()),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            let finite = expected[..16].iter().all(Option::is_some) && expected[16..].iter().all(Option::is_none);
            if !finite || found.len() != 24 || !found.iter().zip(&expected).all(|(a, b)| same(a, b)) {
                wrong.push(format!("{dtype:?} {width}: {found:?} is not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(Cuda::likely(tensor(&[1.0; 6], [2, 3], DType::F16), Vec::new())().unwrap(), []);
}

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

fn decoder<B: SparseBackend>(folder: &str, dtype: DType) -> Decoder<B> {
    // Below the working folder, which is the repository: the test may have been built elsewhere.
    let folder = Path::new("tests/fixtures").join(folder);
    let text = format!("name = 'test'\n[model]\nsource = \"path:{}\"\n", folder.display());
    let experiment = config::parse(Path::new("test.toml"), &text, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let loader = Loader::new(true, Arc::new(|_: &str, _, _| ControlFlow::Continue(())));
    let checkpoint = Checkpoint::open(loader.find(&experiment.models[0]).unwrap()).unwrap();
    let read = |module, part| checkpoint.read(module, part);
    Decoder::load(checkpoint.architecture().clone(), dtype, &Default::default(), read).unwrap()
}

fn ids(seed: usize, length: usize, vocabulary: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 31 + seed * 17) % vocabulary) as u32).collect()
}

/// Logits of sequences of 24 tokens, in pieces that end at `cuts`: `[piece][sequence][token][vocabulary]`.
fn in_pieces<B: SparseBackend>(decoder: &mut Decoder<B>, sequences: usize, cuts: &[usize]) -> Vec<f32> {
    let vocabulary = decoder.architecture().vocabulary;
    let mut cache = KvCache::new(decoder.architecture(), sequences, 24);
    let mut logits = Vec::new();
    // Twice, since what was there is forgotten.
    for _ in 0..2 {
        cache.clear();
        logits.clear();
        for &cut in cuts {
            let past = cache.past();
            let new: Vec<Vec<u32>> = (0..sequences).map(|seed| ids(seed, 24, vocabulary)[past..cut].to_vec()).collect();
            let hidden = decoder.extend(&Batch::new(new.iter().map(Vec::as_slice)), &mut cache).unwrap();
            logits.extend(read(decoder.logits(hidden)));
        }
    }
    logits
}

fn ragged<B: SparseBackend>(decoder: &mut Decoder<B>) -> Vec<f32> {
    let vocabulary = decoder.architecture().vocabulary;
    let sequences = [9, 1, 24].map(|length| ids(length, length, vocabulary));
    let hidden = decoder.hidden(&Batch::new(sequences.iter().map(Vec::as_slice))).unwrap();
    read(decoder.logits(hidden))
}

#[test]
#[ignore = "needs a GPU"]
fn decoders() {
    let mut findings = Findings::new();
    for folder in FAMILIES {
        let mut reference = decoder::<Flex>(folder, DType::F32);
        for (dtype, share) in [(DType::F32, 1e-4), (DType::F16, 1e-2), (DType::BF16, 8e-2)] {
            let mut cuda = decoder::<Cuda>(folder, dtype);
            let mut compare = |what: &str, found: Vec<f32>, expected: Vec<f32>| {
                let largest = expected.iter().fold(1.0f32, |most, logit| most.max(logit.abs()));
                findings.compare(&format!("{folder} {dtype:?} {what}"), &found, &expected, share * largest);
            };
            compare("ragged", ragged(&mut cuda), ragged(&mut reference));
            for sequences in [1, 3] {
                let each: Vec<usize> = (1..=24).collect();
                for cuts in [&[24][..], &[10, 11, 12, 20, 24], &each] {
                    let expected = in_pieces(&mut reference, sequences, cuts);
                    compare(&format!("{sequences} {cuts:?}"), in_pieces(&mut cuda, sequences, cuts), expected);
                }
            }
        }
    }
}

/// An int tensor of a number a token is what the kernels read; its layout must be plain.
#[test]
#[ignore = "needs a GPU"]
fn numbers_of_places_are_contiguous() {
    let places = Places::<Cuda>::new(&[5, 6, 7], vec![Span { past: 1, new: 3, capacity: 9 }], 4, &Default::default());
    let numbers: Tensor<Cuda, 1, Int> = places.numbers().clone();
    let numbers: Vec<i32> = numbers.into_data().convert::<i32>().into_vec().unwrap();
    assert_eq!(numbers, [5, 6, 7, 1, 2, 3, 0, 0, 0]);
}

/// By how much a token is less likely than the likeliest, as a share of the largest logit.
fn short(logits: &[f32], token: u32) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let size = logits.iter().fold(0.0f32, |size, logit| size.max(logit.abs()));
    (most - logits[token as usize]) / size
}

/// Tokens that follow two prompts, one after the other in the same cache, by passes that are repeated if they can be: how
/// short each is of the likeliest by a pass of its own, and whether passes were repeated.
fn generated<B: SparseBackend>(decoder: &mut Decoder<B>, sequences: usize) -> (Vec<f32>, bool) {
    let vocabulary = decoder.architecture().vocabulary;
    let [mut cache, mut plain] = [0, 1].map(|_| KvCache::new(decoder.architecture(), sequences, 24));
    let mut all = Vec::new();
    for length in [5, 3] {
        let prompts: Vec<Vec<u32>> = (0..sequences).map(|seed| ids(seed + length, length, vocabulary)).collect();
        for cache in [&mut cache, &mut plain] {
            cache.clear();
            decoder.extend(&Batch::new(prompts.iter().map(Vec::as_slice)), cache).unwrap();
        }
        let mut tokens: Vec<u32> = (0..sequences).map(|seed| (seed * 7 + length) as u32).collect();
        for at in 0..12 {
            let hidden = decoder.extend(&Batch::new(tokens.iter().map(std::slice::from_ref)), &mut plain).unwrap();
            let logits = read(decoder.logits(hidden));
            tokens = decoder.next(&tokens, &mut cache).unwrap().into_iter().map(Option::unwrap).collect();
            all.extend(logits.chunks(vocabulary).zip(&tokens).map(|(logits, &token)| short(logits, token)));
            if at == 7 {
                // Other tokens than those that were found.
                tokens.iter_mut().for_each(|token| *token = (*token + 1) % vocabulary as u32);
            }
        }
    }
    (all, cache.is_repeated())
}

#[test]
#[ignore = "needs a GPU"]
fn tokens_of_repeated_passes() {
    let mut findings = Findings::new();
    for folder in FAMILIES {
        for dtype in [DType::F16, DType::BF16] {
            for sequences in [1, 3] {
                let mut cuda = decoder::<Cuda>(folder, dtype);
                let (short, repeated) = generated(&mut cuda, sequences);
                println!("{folder} {dtype:?} {sequences}: repeated {repeated}");
                findings.compare(
                    &format!("{folder} {dtype:?} {sequences}"),
                    &short,
                    &vec![0.0; short.len()],
                    tolerance(dtype),
                );
                if folder.contains("llama") && dtype == DType::F16 {
                    findings.compare(&format!("{folder} is repeated"), &[f32::from(repeated as u8)], &[1.0], 0.0);
                }
            }
        }
    }
}

/// A decoder whose matrices the kernels for one token of dense and sparse rows take, several of them at once.
fn wide(dtype: DType, sparse: bool) -> Decoder<Cuda> {
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 512, "intermediate_size": 768, "num_hidden_layers": 3,
        "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
    });
    let architecture = Arc::new(architecture(&config).unwrap());
    let modules = architecture.clone();
    let mut decoder = Decoder::<Cuda>::load(architecture.clone(), dtype, &Default::default(), |module, part| {
        let described = &modules.modules[module];
        let count = if part == Part::Weight { described.weights() } else { described.biases() };
        Ok::<_, ()>(Cow::Owned(numbers(module, count, dtype).iter().map(|number| number * 0.05).collect()))
    })
    .unwrap();
    for (module, described) in architecture.linears().filter(|_| sparse) {
        let [rows, cols] = [described.shape[0], described.shape[1]];
        let pattern = Pattern::random(rows, cols, 0.6, module as u64);
        let weights = numbers(module, rows * cols, dtype);
        let weight = SparseWeight::new(Format::Csr, &weights, &pattern, None, dtype, 1, &Default::default()).unwrap();
        decoder.set_weight(module, LinearWeight::Sparse(weight));
    }
    decoder
}

#[test]
#[ignore = "needs a GPU"]
fn tokens_of_repeated_passes_by_wide_matrices() {
    let mut findings = Findings::new();
    for (dtype, sparse) in [(DType::F16, false), (DType::F16, true), (DType::BF16, false), (DType::BF16, true)] {
        for sequences in [1, 3] {
            let mut cuda = wide(dtype, sparse);
            let (short, repeated) = generated(&mut cuda, sequences);
            let what = format!("wide {dtype:?} sparse {sparse} {sequences}");
            println!("{what}: repeated {repeated}");
            findings.compare(&what, &short, &vec![0.0; short.len()], tolerance(dtype));
            findings.compare(&format!("{what} is repeated"), &[f32::from(repeated as u8)], &[1.0], 0.0);
        }
    }
}

/// Texts that end at different times, each beside others, are those that a model writes alone: to the last token on the CPU
/// in f32; in 16 bits every token is as likely as any, by one pass over the whole text.
#[test]
#[ignore = "needs a GPU"]
fn tokens_of_texts_written_at_once() {
    const MOST: usize = 9;
    let ends = |written: &[u32]| written.last().is_some_and(|token| token % 5 == 0);
    let mut findings = Findings::new();
    for folder in FAMILIES {
        for dtype in DTYPES {
            let mut cuda = decoder::<Cuda>(folder, dtype);
            let vocabulary = cuda.architecture().vocabulary;
            let prompts: Vec<Vec<u32>> = (0..37).map(|seed| ids(seed, 1 + seed * 5 % 11, vocabulary)).collect();
            let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let writing = Writing { prompts: &prompts, most: MOST };
            let texts = write_greedily(&mut cuda, writing, &ends, &|_| {}).unwrap();
            if dtype == DType::F32 {
                let expected = write_greedily(&mut decoder::<Flex>(folder, dtype), writing, &ends, &|_| {}).unwrap();
                let wide = |texts: &[Vec<u32>]| texts.concat().iter().map(|&token| token as f32).collect::<Vec<f32>>();
                findings.compare(&format!("{folder} {dtype:?}"), &wide(&texts), &wide(&expected), 0.0);
            }
            let mut all = Vec::new();
            for (prompt, text) in prompts.iter().zip(&texts) {
                assert!(text.len() == MOST || ends(text), "{folder} {dtype:?}: {text:?}");
                let whole = [prompt, &text[..text.len() - 1]].concat();
                let logits = all_logits(&mut cuda, &[whole]).unwrap();
                let rows = logits.chunks(vocabulary).skip(prompt.len() - 1);
                all.extend(rows.zip(text).map(|(row, &token)| short(row, token)));
            }
            println!("{folder} {dtype:?}: {:?}", all.iter().copied().fold(0.0, f32::max));
            findings.compare(&format!("{folder} {dtype:?} short"), &all, &vec![0.0; all.len()], tolerance(dtype));
        }
    }
}
