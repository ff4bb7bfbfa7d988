//! Exported checkpoints, read back: every architecture and layout, with zeros in place and without.

use crate::{checkpoint, experiment, fixture, loader};
use burn::backend::Flex;
use burn::tensor::DType;
use sparsify_exp::load::Checkpoint;
use sparsify_exp::measure::all_logits;
use sparsify_exp::model::{Decoder, DenseWeight, Kind, LinearWeight, Part};
use sparsify_exp::plan::Task;
use sparsify_exp::record::{Record, Store};
use sparsify_exp::run::{ExportFormat, ExportOptions, PrepareOptions, Watch, export, prepare};
use sparsify_exp::sparse::Pattern;
use std::path::Path;

/// Separate, fused and transposed projections; experts; tied heads and heads of their own; f32 and f16; a pickle, shards.
const LAYOUTS: [&str; 11] = [
    "families/gpt2",
    "families/qwen2",
    "families/mistral-window",
    "families/llama3-rope",
    "families/opt-post-norm",
    "families/opt-hub",
    "families/olmoe",
    "families/phi3",
    "golden/tiny-gptneox/model",
    "golden/tiny-gptneox-hub",
    "golden/tiny-llama-sharded",
];

struct Quiet;

impl Watch for Quiet {
    fn loading(&self, _: &str, _: &str) {}
    fn begins(&self, _: &Task) {}
    fn stage(&self, _: &str) {}
    fn done(&self, _: &Record) {}
    fn interrupted(&self) -> bool {
        false
    }
}

fn exported(source: &Path, to: &Path, format: ExportFormat) -> Checkpoint {
    // A text whose token ids the smallest vocabulary has.
    let text = to.join("text.txt");
    std::fs::write(&text, "!!!\n").unwrap();
    let rest = format!(
        "[data]\nagreement = 'file:{}'\n[[prune]]\nmethod = 'magnitude'\nscope = 'layer'\nsparsity = 0.6\n",
        text.display()
    );
    let store = Store::at(to.join("results"));
    let prepared = prepare(experiment(source, &rest), &loader(), &store, &PrepareOptions::default()).unwrap();
    let options = ExportOptions { to: to.join("out"), format, overwrite: true };
    export(&prepared, &loader(), &options, &Quiet).unwrap();
    checkpoint(&to.join("out")).1
}

/// Logits of the checkpoint, pruned here if asked for.
fn logits(checkpoint: &Checkpoint, pruned: bool) -> Vec<f32> {
    let read = |module, part| checkpoint.read(module, part);
    let architecture = checkpoint.architecture().clone();
    let mut decoder = Decoder::<Flex>::load(architecture.clone(), DType::F32, &Default::default(), read).unwrap();
    for (index, module) in architecture.linears().filter(|(_, module)| pruned && module.name != "lm_head") {
        let weights = checkpoint.read(index, Part::Weight).unwrap();
        let mut magnitudes: Vec<f32> = weights.iter().map(|weight| weight.abs()).collect();
        magnitudes.sort_by(f32::total_cmp);
        let threshold = magnitudes[weights.len() * 3 / 5 - 1];
        let (rows, cols) = (module.shape[0], module.shape[1]);
        let kept = Pattern::keep_where(rows, cols, &weights, |_, weight| weight.abs() > threshold);
        let shape = [rows, cols];
        let weight = DenseWeight::new(kept.apply(&weights).into(), shape, DType::F32, &Default::default());
        decoder.set_weight(index, LinearWeight::Dense(weight));
    }
    all_logits(&mut decoder, &[(0..8).collect(), vec![3, 1, 4, 1, 5]]).unwrap()
}

#[test]
fn every_layout_comes_back() {
    for layout in LAYOUTS {
        let original = checkpoint(&fixture(layout)).1;
        let expected = logits(&original, true);
        assert!(expected != logits(&original, false), "{layout}: pruning changes something");
        for format in [ExportFormat::Dense, ExportFormat::Sparse] {
            let folder = tempfile::tempdir().unwrap();
            let copy = exported(&fixture(layout), folder.path(), format);
            assert!(logits(&copy, false) == expected, "{layout} {format:?}");
            let names = |checkpoint: &Checkpoint| {
                let tensors = checkpoint.stored().into_iter();
                tensors.map(|t| (t.name.to_owned(), t.info.clone())).collect::<Vec<_>>()
            };
            assert_eq!(names(&copy), names(&original), "{layout} {format:?}");
            let modules = &original.architecture().modules;
            for (index, module) in modules.iter().enumerate().filter(|(_, module)| module.kind != Kind::Linear) {
                if module.tied_to.is_none() {
                    let read = |from: &Checkpoint| from.read(index, Part::Weight).unwrap().into_owned();
                    assert!(read(&copy) == read(&original), "{layout} {}", module.name);
                }
            }
        }
    }
}
