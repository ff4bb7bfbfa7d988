//! Texts as token ids: windows, what of them is scored, and calibration windows.

use crate::{checkpoint, experiment, fixture, loader};
use burn::backend::Flex;
use burn::tensor::DType;
use sparsify_exp::load::{LoadError, Texts, Tokens, Wanted};
use sparsify_exp::measure::{all_logits, likelihood};
use sparsify_exp::model::Decoder;
use std::path::Path;

/// The program's texts as a checkpoint's tokenizer sees them, with these lines under `[data]`.
fn tokens(folder: &Path, data: &str, seeds: &[u64]) -> Result<Tokens, LoadError> {
    let (files, checkpoint) = checkpoint(folder);
    let wanted = Wanted { perplexity: true, calibration: seeds.to_vec() };
    let data = experiment(folder, &format!("[data]\n{data}")).data;
    let architecture = checkpoint.architecture();
    let texts = Texts::read(&data, &wanted, &loader())?;
    texts.encode(&files.tokenizer()?, "m", architecture.max_positions, architecture.vocabulary)
}

/// -ln of the probability that the model gives each token but the first, given those before it.
fn losses(decoder: &mut Decoder<Flex>, window: &[u32]) -> Vec<f64> {
    let vocabulary = decoder.architecture().vocabulary;
    let logits = all_logits(decoder, &[window.to_vec()]).unwrap();
    let loss = |(logits, token): (&[f32], &u32)| {
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        sum.ln() - f64::from(logits[*token as usize])
    };
    logits.chunks(vocabulary).zip(&window[1..]).map(loss).collect()
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

#[test]
fn overlapping_windows_score_each_token_once() {
    let folder = fixture("golden/tiny-opt/model");
    let (_, checkpoint) = checkpoint(&folder);
    let read = |module, part| checkpoint.read(module, part);
    let load = || Decoder::<Flex>::load(checkpoint.architecture().clone(), DType::F32, &Default::default(), read);
    let mut decoder = load().unwrap();
    let measured = |tokens: &Tokens, decoder: &mut Decoder<Flex>| {
        let windows = tokens.perplexity.as_ref().unwrap();
        likelihood(decoder, &windows.tokens, windows.overlap, windows.bytes, |_| ()).unwrap().perplexity()
    };
    let keys = "context = 24\nperplexity_windows = 5\n";
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5 * b, "{a} {b}");

    let plain = tokens(&folder, keys, &[]).unwrap();
    let windows = plain.perplexity.clone().unwrap();
    let all: Vec<f64> = windows.tokens.iter().flat_map(|window| losses(&mut decoder, window)).collect();
    assert_eq!(all.len(), 5 * 23);
    near(measured(&plain, &mut decoder), mean(&all).exp());

    let strided = tokens(&folder, &format!("{keys}perplexity_stride = 10\n"), &[]).unwrap();
    let windows = strided.perplexity.clone().unwrap();
    assert_eq!((windows.tokens[1][..14].to_vec(), windows.overlap), (windows.tokens[0][10..].to_vec(), 14));
    let mut scored = losses(&mut decoder, &windows.tokens[0]);
    for window in &windows.tokens[1..] {
        scored.extend_from_slice(&losses(&mut decoder, window)[13..]);
    }
    assert_eq!(scored.len(), 23 + 4 * 10);
    near(measured(&strided, &mut decoder), mean(&scored).exp());

    let bos = tokens(&folder, &format!("{keys}perplexity_bos = 'windows'\n"), &[]).unwrap();
    let windows = bos.perplexity.clone().unwrap();
    let start = plain.perplexity.as_ref().unwrap().tokens[0][0];
    assert!(windows.tokens.iter().all(|window| window[0] == start && !window[1..].contains(&start)));
    // Tokens of the text are all there, in order.
    let text: Vec<u32> = windows.tokens.iter().flat_map(|window| window[1..].to_vec()).collect();
    let plain_text: Vec<u32> = plain.perplexity.as_ref().unwrap().tokens.concat()[1..].to_vec();
    assert_eq!(text, plain_text[..text.len()]);
    let all: Vec<f64> = windows.tokens.iter().flat_map(|window| losses(&mut decoder, window)).collect();
    near(measured(&bos, &mut decoder), mean(&all).exp());

    let digests = [&plain, &strided, &bos].map(|tokens| tokens.perplexity_digest().unwrap());
    assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
    // What is the default is not hashed.
    for same in ["perplexity_stride = 24\n", "perplexity_bos = 'start'\n"] {
        assert_eq!(tokens(&folder, &format!("{keys}{same}"), &[]).unwrap().perplexity_digest().unwrap(), digests[0]);
    }
}

#[test]
fn the_same_windows_with_another_overlap_are_other_cells() {
    let folder = fixture("golden/tiny-opt/model");
    let digest = |stride: usize| {
        let keys = format!("context = 24\nperplexity_windows = 1\nperplexity_stride = {stride}\n");
        let tokens = tokens(&folder, &keys, &[]).unwrap();
        (tokens.perplexity.clone().unwrap().tokens, tokens.perplexity_digest().unwrap())
    };
    let ((one, a), (other, b)) = (digest(24), digest(8));
    assert!(one == other && a != b);
}

#[test]
fn calibration_windows_are_the_seeds() {
    let folder = fixture("golden/tiny-opt/model");
    let keys = "calibration_samples = 6\ncalibration_length = 16\n";
    let drawn = tokens(&folder, keys, &[3, 0]).unwrap();
    let [(_, seeds)] = &drawn.calibration[..] else { panic!() };
    assert_eq!(seeds.iter().map(|c| c.seed).collect::<Vec<_>>(), [3, 0]);
    for calibration in seeds {
        assert_eq!(calibration.windows.len(), 6);
        assert!(calibration.windows.iter().all(|window| window.len() == 16));
    }
    let again = tokens(&folder, keys, &[0]).unwrap();
    assert_eq!(again.calibration_of(None, 0), drawn.calibration_of(None, 0));
    assert_eq!(again.calibration_digest(None, 0), drawn.calibration_digest(None, 0));
    assert_ne!(drawn.calibration_digest(None, 0), drawn.calibration_digest(None, 3));
    assert_eq!((again.calibration_of(None, 3), again.calibration_digest(None, 3)), (None, None));
    // As long as the context, unless something else is said.
    let whole = tokens(&folder, "context = 24\ncalibration_samples = 1\n", &[0]).unwrap();
    assert_eq!(whole.calibration_of(None, 0).unwrap()[0].len(), 24);
    // Without a method that calibrates, nobody draws.
    assert!(tokens(&folder, keys, &[]).unwrap().calibration.is_empty());
}

#[test]
fn calibration_windows_may_begin_with_the_special_tokens() {
    let folder = fixture("golden/tiny-opt/model");
    let keys = "context = 24\ncalibration_samples = 6\ncalibration_length = 16\n";
    let plain = tokens(&folder, keys, &[3, 0]).unwrap();
    let bos = tokens(&folder, &format!("{keys}calibration_bos = true\n"), &[3, 0]).unwrap();
    let start = plain.perplexity.as_ref().unwrap().tokens[0][0];
    for seed in [3, 0] {
        let windows = bos.calibration_of(None, seed).unwrap();
        assert_eq!(windows.len(), 6);
        for window in windows {
            assert!(window.len() == 16 && window[0] == start && !window[1..].contains(&start), "{window:?}");
        }
        assert_ne!(bos.calibration_digest(None, seed), plain.calibration_digest(None, seed));
    }
    let off = tokens(&folder, &format!("{keys}calibration_bos = false\n"), &[3, 0]).unwrap();
    assert_eq!(off.calibration, plain.calibration);
    // GPT-NeoX's tokenizer has nothing to put there.
    let none = tokens(&fixture("golden/tiny-gptneox/model"), &format!("{keys}calibration_bos = true\n"), &[0]);
    let error = none.unwrap_err();
    assert_eq!(error.to_string(), "the tokenizer of `m` puts no special token in front of a text");
    assert_eq!(error.hint().as_deref(), Some("leave `data.calibration_bos` out"));
}

#[test]
fn windows_that_cannot_be_are_errors() {
    let folder = fixture("golden/tiny-opt/model");
    let error = |folder: &Path, keys: &str| tokens(folder, keys, &[0]).unwrap_err().to_string();
    let said = error(&folder, "calibration_length = 100000\n");
    assert!(said.starts_with("`data.calibration_length` is 100000, but `m` has "), "{said}");
    let said = error(&folder, "context = 24\nperplexity_bos = 'windows'\nperplexity_stride = 24\n");
    assert_eq!(said, "`data.perplexity_stride` is 24, but a window has 23 tokens of the text");
    // GPT-NeoX's tokenizer puts nothing in front.
    let said = error(&fixture("golden/tiny-gptneox/model"), "perplexity_bos = 'windows'\n");
    assert_eq!(said, "the tokenizer of `m` puts no special token in front of a text");
    let short = tempfile::tempdir().unwrap();
    std::fs::write(short.path().join("short.txt"), "a short text").unwrap();
    let path = short.path().join("short.txt");
    let said = error(&folder, &format!("calibration = \"file:{}\"\ncalibration_length = 64\n", path.display()));
    assert!(said.ends_with(" tokens, fewer than a calibration window of 64"), "{said}");
}
