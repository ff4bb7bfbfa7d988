//! Weights that stay as a checkpoint has them against the same weights widened at once: no number differs.

use super::tests::{fixture, session_with};
use super::*;
use crate::config::experiment::{Method, NmPattern, Propagate, Scope};
use crate::run::Watch;
use crate::run::model::{Pruned, Stopped, calibrate, patterns};
use burn::backend::Flex;
use safetensors::tensor::TensorView;
use safetensors::{Dtype as Stored16, SafeTensors};
use std::path::Path;

struct Nobody;

impl Watch for Nobody {
    fn loading(&self, _: &str, _: &str) {}
    fn begins(&self, _: &crate::plan::Task) {}
    fn stage(&self, _: &str) {}
    fn done(&self, _: &crate::record::Record) {}
    fn interrupted(&self) -> bool {
        false
    }
}

/// A fixture's checkpoint with its numbers rounded to 16 bits: the source of the copy.
fn rounded(name: &str, dtype: Stored16, folder: &Path) -> String {
    let from = fixture(name);
    let from = Path::new(from.strip_prefix("path:").unwrap());
    for file in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        std::fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            let halves = tensor.data().chunks(4).map(number).flat_map(|number| match dtype {
                Stored16::F16 => f16::from_f32(number).to_le_bytes(),
                _ => bf16::from_f32(number).to_le_bytes(),
            });
            (name, tensor.shape().to_vec(), halves.collect())
        })
        .collect();
    let views =
        tensors.iter().map(|(name, shape, halves)| (name, TensorView::new(dtype, shape.clone(), halves).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    format!("path:{}", folder.display())
}

/// What pruning makes of a session by every kind of method.
fn pruned(session: &mut Session<Flex>) -> Vec<Vec<Pruned>> {
    let point = |method: Method, scope: Option<Scope>, pattern| {
        let point = PrunePoint::new(method, scope, pattern, 0.5, vec!["lm_head".into()]);
        PrunePoint { propagate: method.calibrates().then_some(Propagate::Pruned), ..point }
    };
    let (all, pairs) = (NmPattern::Unstructured, NmPattern::NofM { n: 2, m: 4 });
    let scopes = [Scope::Global, Scope::Layer, Scope::Row].map(Some);
    let mut points: Vec<PrunePoint> = scopes.map(|scope| point(Method::Magnitude, scope, all)).into();
    points.push(point(Method::Magnitude, None, pairs));
    points.push(point(Method::Random, Some(Scope::Global), all));
    let mut found: Vec<Vec<Pruned>> =
        points.iter().map(|point| patterns(session, point, Some(3), Dtype::F32).unwrap().0).collect();
    let windows: Vec<Vec<u32>> = (0..6u32).map(|w| (0..20).map(|i| (w * 31 + i * i) % 90).collect()).collect();
    let methods = Method::ALL.iter().map(|word| word.value).filter(|method| method.calibrates());
    let points: Vec<PrunePoint> = methods.map(|method| point(method, method.scopes().first().copied(), all)).collect();
    let points: Vec<&PrunePoint> = points.iter().collect();
    match calibrate(session, &windows, &points, Dtype::F32, &Nobody) {
        Ok(results) => found.extend(results.into_iter().map(|result| result.unwrap().layers)),
        Err(Stopped::Failed(error)) => panic!("{error}"),
        Err(Stopped::Interrupted) => panic!("nobody interrupted"),
    }
    found
}

#[test]
fn nothing_differs_but_memory() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let models = [
        "builtin:tiny-opt".to_owned(),
        rounded("golden/tiny-llama/model", Stored16::BF16, folders[0].path()),
        // Its matrices lie across, and its head is the table.
        rounded("families/gpt2", Stored16::F16, folders[1].path()),
        rounded("families/olmoe", Stored16::BF16, folders[2].path()),
    ];
    for model in models {
        let [mut kept, mut widened] = [Keep::AsStored, Keep::Widened].map(|keep| session_with(&model, keep));
        assert!(kept.one_by_one() && !widened.one_by_one());
        let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
        assert!(bits(kept.reference().unwrap()) == bits(widened.reference().unwrap()), "{model}");
        assert_eq!(kept.stored, widened.stored, "{model}");
        let (ours, theirs) = (pruned(&mut kept), pruned(&mut widened));
        assert!(ours == theirs, "{model}");
        for pruned in ours.iter().flatten() {
            let masked = |session: &Session<Flex>| {
                let masked = pruned.masked(session.dense(pruned.module), DType::F32, &Default::default()).unwrap();
                bits(&masked.host().unwrap())
            };
            assert!(masked(&kept) == masked(&widened), "{model} {}", pruned.module);
        }
        // What was let go comes back as it was.
        (kept.lean, widened.lean) = (true, true);
        let modules: Vec<usize> = ours[0].iter().map(|pruned| pruned.module).collect();
        modules.iter().for_each(|&module| kept.let_go(module));
        kept.restore().unwrap();
        kept.forget_reference();
        assert!(bits(kept.reference().unwrap()) == bits(widened.reference().unwrap()), "{model}");
    }
}
