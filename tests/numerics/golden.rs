//! The notebooks' work on three architectures: tokens, thresholds, counts, logits, arg-max, agreement.

use crate::{checkpoint, experiment, fixture, loader, sample_tokens};
use burn::backend::{Flex, NdArray};
use burn::tensor::DType;
use safetensors::SafeTensors;
use serde_json::Value;
use sparsify_exp::config::experiment::{Format, Method, NmPattern, Scope, Variant};
use sparsify_exp::execute::SparseBackend;
use sparsify_exp::measure::all_logits;
use sparsify_exp::model::{Decoder, DenseWeight, LinearWeight, Part};
use sparsify_exp::plan::Task;
use sparsify_exp::prune::{Layer, Request, prune};
use sparsify_exp::record::{CellResult, Record, Store};
use sparsify_exp::run::{Outcome, PrepareOptions, RunOptions, Watch, prepare, run};
use std::collections::HashMap;
use std::path::Path;

/// Every golden model: the folder of its reference, and each layout of its checkpoint.
const MODELS: [(&str, &[&str]); 3] = [
    ("golden/tiny-opt", &["golden/tiny-opt/model"]),
    ("golden/tiny-gptneox", &["golden/tiny-gptneox/model", "golden/tiny-gptneox-hub"]),
    ("golden/tiny-llama", &["golden/tiny-llama/model", "golden/tiny-llama-sharded"]),
];
/// Texts whose logits the reference holds.
const LOGIT_TEXTS: usize = 5;

fn each_layout(check: impl Fn(&Path, &Path)) {
    for (reference, layouts) in MODELS {
        for layout in layouts {
            check(&fixture(reference), &fixture(layout));
        }
    }
}

fn reference(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("nb1.json")).unwrap()).unwrap()
}

/// The reference's row of a setup, `Dense`, `MaskedNN` or `CSRNN`.
fn row<'a>(reference: &'a Value, setup: &str) -> &'a Value {
    reference["rows"].as_array().unwrap().iter().find(|row| row["setup"] == setup).unwrap()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// Tensors of a reference file as 32-bit words: `[texts, length, ..]`.
fn words(path: &Path) -> HashMap<String, (Vec<usize>, Vec<u32>)> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let word = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap());
    tensors
        .iter()
        .map(|(name, tensor)| (name.to_owned(), (tensor.shape().to_vec(), tensor.data().chunks(4).map(word).collect())))
        .collect()
}

/// Rows of a padded reference tensor that belong to tokens.
fn unpadded<'a>(shape: &[usize], words: &'a [u32], texts: &[Vec<u32>]) -> Vec<&'a [u32]> {
    let (length, width) = (shape[1], shape.get(2).copied().unwrap_or(1));
    let text_rows = |(text, ids): (usize, &Vec<u32>)| {
        (0..ids.len()).map(move |i| &words[(text * length + i) * width..][..width]).collect::<Vec<_>>()
    };
    texts.iter().take(shape[0]).enumerate().flat_map(text_rows).collect()
}

#[test]
fn tokens_are_the_references() {
    each_layout(|folder, layout| {
        let reference = reference(folder);
        let (ids, mask) = (reference["input_ids"].as_array().unwrap(), reference["attention_mask"].as_array().unwrap());
        let expected: Vec<Vec<u32>> = ids
            .iter()
            .zip(mask)
            .map(|(ids, mask)| {
                let pairs = ids.as_array().unwrap().iter().zip(mask.as_array().unwrap());
                pairs.filter(|(_, keep)| **keep == 1).map(|(id, _)| count(id) as u32).collect()
            })
            .collect();
        assert_eq!(sample_tokens(layout), expected, "{}", layout.display());
    });
}

#[test]
fn thresholds_and_counts_are_exact() {
    each_layout(|folder, layout| {
        let reference = reference(folder);
        let (_, checkpoint) = checkpoint(layout);
        let architecture = checkpoint.architecture().clone();
        let layers: Vec<Layer<'_>> = architecture
            .linears()
            .filter(|(_, module)| module.name != "lm_head")
            .map(|(index, module)| Layer {
                name: &module.name,
                rows: module.shape[0],
                cols: module.shape[1],
                weights: checkpoint.read(index, Part::Weight).unwrap(),
            })
            .collect();
        for percent in [30, 50, 70] {
            let expected = &row(&reference, &format!("Masked{percent}"))["prune"];
            let request = Request {
                method: Method::Magnitude,
                scope: Some(Scope::Global),
                pattern: NmPattern::Unstructured,
                sparsity: f64::from(percent) / 100.0,
                seed: 0,
                settings: Default::default(),
            };
            let patterns = prune(&layers, &request).unwrap();
            let kept: usize = patterns.iter().map(|pattern| pattern.kept()).sum();
            assert_eq!(kept as u64, count(&expected["kept"]), "kept, {} {percent}", layout.display());

            let magnitudes = || {
                layers.iter().zip(&patterns).flat_map(|(layer, pattern)| {
                    let kept = |i: usize| pattern.get(i / layer.cols, i % layer.cols);
                    layer.weights.iter().enumerate().map(move |(i, weight)| (kept(i), weight.abs()))
                })
            };
            let threshold = magnitudes().filter(|(kept, _)| !kept).map(|(_, w)| w).fold(0.0, f32::max);
            assert_eq!(f64::from(threshold), expected["threshold"].as_f64().unwrap(), "threshold at {percent}");
            let tied = magnitudes().filter(|&(_, w)| w == threshold).count();
            assert_eq!(tied as u64, count(&expected["ties_at_threshold"]), "ties at {percent}");
        }
    });
}

/// Logits of the dense and the masked50 model on all texts.
fn dense_and_masked50<B: SparseBackend>(layout: &Path, texts: &[Vec<u32>]) -> [Vec<f32>; 2] {
    let (_, checkpoint) = checkpoint(layout);
    let device = Default::default();
    let read = |module, part| checkpoint.read(module, part);
    let mut dense = Decoder::<B>::load(checkpoint.architecture().clone(), DType::F32, &device, read).unwrap();
    let architecture = checkpoint.architecture().clone();
    let pruned: Vec<_> = architecture.linears().filter(|(_, module)| module.name != "lm_head").collect();
    let layers: Vec<Layer<'_>> = pruned
        .iter()
        .map(|(index, module)| Layer {
            name: &module.name,
            rows: module.shape[0],
            cols: module.shape[1],
            weights: checkpoint.read(*index, Part::Weight).unwrap(),
        })
        .collect();
    let request = Request {
        method: Method::Magnitude,
        scope: Some(Scope::Global),
        pattern: NmPattern::Unstructured,
        sparsity: 0.5,
        seed: 0,
        settings: Default::default(),
    };
    let mut masked = dense.clone();
    for (((index, module), layer), pattern) in pruned.iter().zip(&layers).zip(prune(&layers, &request).unwrap()) {
        let weights = pattern.apply(&layer.weights).into();
        let weight = DenseWeight::new(weights, [module.shape[0], module.shape[1]], DType::F32, &device);
        masked.set_weight(*index, LinearWeight::Dense(weight));
    }
    [all_logits(&mut dense, texts).unwrap(), all_logits(&mut masked, texts).unwrap()]
}

fn check_logits<B: SparseBackend>(folder: &Path, layout: &Path) {
    let texts = sample_tokens(layout);
    let logits = words(&folder.join("logits.safetensors"));
    let heads = words(&folder.join("argmax.safetensors"));
    for (setup, ours) in ["dense", "masked50"].into_iter().zip(dense_and_masked50::<B>(layout, &texts)) {
        let (shape, expected) = &logits[setup];
        assert!(shape[0] >= LOGIT_TEXTS);
        let vocabulary = shape[2];
        for (position, expected) in unpadded(shape, expected, &texts).into_iter().enumerate() {
            let ours = &ours[position * vocabulary..][..vocabulary];
            let furthest = ours.iter().zip(expected).map(|(a, b)| (a - f32::from_bits(*b)).abs()).fold(0.0, f32::max);
            assert!(furthest < 1e-4, "{setup}, {} position {position}: logits differ by {furthest}", layout.display());
        }
        let column = |name: &str| {
            let (shape, words) = &heads[&format!("{setup}.{name}")];
            unpadded(shape, words, &texts).into_iter().map(|row| row[0]).collect::<Vec<u32>>()
        };
        let (argmax, margin) = (column("argmax"), column("margin"));
        for (position, ours) in ours.chunks(vocabulary).enumerate() {
            let best = (0..vocabulary).rev().max_by(|&a, &b| ours[a].total_cmp(&ours[b])).unwrap();
            if f32::from_bits(margin[position]) > 1e-3 {
                assert_eq!(best as u32, argmax[position], "{setup}, {} position {position}", layout.display());
            }
        }
    }
}

#[test]
fn logits_and_arg_max_on_flex() {
    each_layout(check_logits::<Flex>);
}

#[test]
fn logits_and_arg_max_on_ndarray() {
    each_layout(check_logits::<NdArray<f32>>);
}

struct Silent;

impl Watch for Silent {
    fn loading(&self, _: &str, _: &str) {}
    fn begins(&self, _: &Task) {}
    fn stage(&self, _: &str) {}
    fn done(&self, _: &Record) {}
    fn interrupted(&self) -> bool {
        false
    }
}

/// Runs notebook 1's experiment on a layout, all variants at three sparsities.
fn run_experiment(layout: &Path, backend: &str) -> Vec<CellResult> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path());
    store.create().unwrap();
    let rest =
        format!("[device]\nbackend = '{backend}'\n[[prune]]\nmethod = 'magnitude'\nsparsity = [0.3, 0.5, 0.7]\n");
    let prepared = prepare(experiment(layout, &rest), &loader(), &store, &PrepareOptions::default()).unwrap();
    let outcome = run(&prepared, &store, RunOptions::default(), &Silent).unwrap();
    assert_eq!(outcome, Outcome { ran: 7, ..Default::default() });
    let model = |record: Result<Record, _>| CellResult::of(record.unwrap()).expect("no kernel was asked for");
    store.cells().unwrap().into_iter().map(model).collect()
}

fn check_records(folder: &Path, layout: &Path, backend: &str) {
    let reference = reference(folder);
    for record in run_experiment(layout, backend) {
        let setup = record.cell.setup();
        // The notebooks' CSR rows leave out every CSR weight: ours must equal the masked ones.
        let expected = row(&reference, &setup.replace("CSR", "Masked"));
        let what = format!("{setup} of {} on {backend}", layout.display());
        let measured = record.measured.unwrap_or_else(|| panic!("{what}: {:?}", record.failure));
        assert_eq!(measured.structure.nonzero, count(&expected["nonzero"]), "nonzero, {what}");
        assert_eq!(measured.structure.total, count(&expected["total"]), "total, {what}");
        assert_eq!(measured.structure.sparsity(), expected["sparsity"].as_f64().unwrap(), "sparsity, {what}");
        let top1 = measured.agreement.unwrap().top1_match;
        // The reference averages in float32.
        assert!((top1 - expected["top1_match"].as_f64().unwrap()).abs() < 1e-6, "top-1, {what}: {top1}");
        if record.cell.variant == Variant::Sparse(Format::Csr) {
            // Five bytes an entry, padding included, against the reference's six without: packing 30 % and
            // more away it is smaller, and the index of small layers costs little.
            let sparse = || measured.structure.layers.iter().filter(|l| &*l.format == "csr-sliced");
            let weights: u64 =
                sparse().map(|l| l.bytes - 4 * (l.total - l.shape.map_or(0, |[r, c]| (r * c) as u64))).sum();
            let entries: u64 = sparse().map(|l| l.flops_per_token / 2).sum();
            assert!(sparse().count() > 0 && weights >= 5 * entries, "bytes, {what}");
            assert!(weights < count(&row(&reference, &setup)["true_weight_bytes_i16"]) * 3 / 2, "bytes, {what}");
        } else {
            let mib = measured.structure.bytes as f64 / f64::from(1 << 20);
            assert_eq!(mib, expected["size_mb"].as_f64().unwrap(), "size, {what}");
        }
    }
}

#[test]
fn the_first_notebook_on_flex() {
    each_layout(|folder, layout| check_records(folder, layout, "flex"));
}

#[test]
fn the_first_notebook_on_ndarray() {
    for (folder, layouts) in MODELS {
        check_records(&fixture(folder), &fixture(layouts[0]), "ndarray");
    }
}

/// Notebook 2's rows; where experiment.md departs from them (FLOPs of look-ups, shares) it says so.
#[test]
fn the_second_notebook() {
    for (folder, layouts) in MODELS {
        let records = run_experiment(&fixture(layouts[0]), "flex");
        for record in records.iter().filter(|record| record.cell.variant != Variant::Sparse(Format::Csr)) {
            let name = format!("layers_{}.csv", record.cell.setup().to_lowercase());
            let mut reader = csv::Reader::from_path(fixture(folder).join(&name)).unwrap();
            let expected: Vec<HashMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
            let layers = &record.measured.as_ref().unwrap().structure.layers;
            assert_eq!(layers.len(), expected.len(), "{folder} {name}");
            for (layer, expected) in layers.iter().zip(&expected) {
                let what = format!("{folder} {name} {}", layer.module_name);
                assert_eq!(*layer.module_name, *expected["module_name"], "{what}");
                assert_eq!(*layer.group, *expected["group"], "{what}");
                assert_eq!(layer.nonzero.to_string(), expected["nonzero"], "{what}");
                assert_eq!(layer.total.to_string(), expected["total"], "{what}");
                if layer.group.ends_with("linear") || &*layer.group == "lm_head" {
                    assert_eq!(layer.flops_per_token.to_string(), expected["flops_per_token"], "{what}");
                } else {
                    assert_eq!(layer.flops_per_token, 0, "{what}");
                }
            }
        }
    }
}
