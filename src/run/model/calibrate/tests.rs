//! The engine against naive calibration, and against itself beside other points.

use super::super::session::tests::{fixture, session};
use super::*;
use crate::config::experiment::{Method, NmPattern, Owl};
use crate::plan::Task;
use crate::prune::prune_calibrated;
use crate::record::Record;
use burn::backend::Flex;
use std::cell::Cell;

/// A watch that stops the run after this many questions whether to.
struct Patience(Cell<usize>);

impl Watch for Patience {
    fn loading(&self, _: &str, _: &str) {}
    fn begins(&self, _: &Task) {}
    fn stage(&self, _: &str) {}
    fn done(&self, _: &Record) {}
    fn interrupted(&self) -> bool {
        self.0.set(self.0.get().saturating_sub(1));
        self.0.get() == 0
    }
}

/// Models of every family that differs in what its linears read.
fn sessions() -> impl Iterator<Item = Session<Flex>> {
    let golden = ["golden/tiny-llama/model", "golden/tiny-gptneox/model"].map(fixture);
    ["builtin:tiny-opt".to_owned()].into_iter().chain(golden).map(|model| session(&model))
}

fn windows(session: &Session<Flex>, count: usize, length: usize) -> Vec<Vec<u32>> {
    let vocabulary = session.decoder.architecture().vocabulary;
    let id = |i: usize| ((i * 7919 + 13) % vocabulary) as u32;
    (0..count).map(|window| (0..length).map(|i| id(window * 1000 + i * i)).collect()).collect()
}

fn point(method: Method, sparsity: f64, propagate: Propagate) -> PrunePoint {
    let scope = method.scopes().first().copied();
    let exclude = vec!["lm_head".into(), "embed_out".into()];
    let point = PrunePoint::new(method, scope, NmPattern::Unstructured, sparsity, exclude);
    PrunePoint { propagate: Some(propagate), ..point }
}

fn two_of_four(point: PrunePoint) -> PrunePoint {
    PrunePoint { pattern: NmPattern::NofM { n: 2, m: 4 }, scope: None, sparsity: 0.5, ..point }
}

fn methods() -> impl Iterator<Item = Method> {
    Method::ALL.iter().map(|word| word.value).filter(|method| method.calibrates())
}

fn results(
    session: &mut Session<Flex>,
    windows: &[Vec<u32>],
    points: &[PrunePoint],
) -> Vec<Result<Calibrated, CellError>> {
    let points: Vec<&PrunePoint> = points.iter().collect();
    match calibrate(session, windows, &points, Dtype::F32, &Patience(Cell::new(usize::MAX))) {
        Ok(results) => results,
        Err(Stopped::Interrupted) => panic!("nobody interrupted"),
        Err(Stopped::Failed(error)) => panic!("{error}"),
    }
}

fn layers(session: &mut Session<Flex>, windows: &[Vec<u32>], points: &[PrunePoint]) -> Vec<Vec<Pruned>> {
    let results = results(session, windows, points).into_iter();
    results.map(|result| result.unwrap_or_else(|error| panic!("{error}")).layers).collect()
}

#[test]
fn sums_are_those_of_all_inputs() {
    for mut session in sessions() {
        let windows = windows(&session, 50, 40);
        let batches = begin(&mut session, &windows).ok().unwrap();
        assert!(batches.len() > 1 && batches.len() < windows.len());
        let watch = Patience(Cell::new(usize::MAX));
        let engine = Engine { session: &session, dtype: Dtype::F32, watch: &watch, pruning: Duration::ZERO };
        let stage = Stage::Block(0);
        let batches = engine.advance(&session.decoder, Stage::Entry, batches);
        let groups = session.decoder.architecture().linears_of(stage);
        let mut needs = vec![Needs::Gram; groups.len()];
        needs[0] = Needs::Norms;
        let (statistics, _) = engine.look(stage, &groups, &needs, batches, false).ok().unwrap();

        // Every window by itself, and every number added in double precision.
        let mut expected: Vec<Vec<f64>> = vec![Vec::new(); groups.len()];
        for window in &windows {
            let alone = begin(&mut session, std::slice::from_ref(window)).ok().unwrap().remove(0);
            let entered = session.decoder.run_stage(Stage::Entry, alone, |_, _| {});
            session.decoder.run_stage(stage, entered, |linears, x| {
                let group = groups.iter().position(|group| group == linears).unwrap();
                let (cols, numbers) = (x.dims()[1], x.to_data().into_vec::<f32>().unwrap());
                let sums = &mut expected[group];
                sums.resize(cols, 0.0);
                let squares = |row: &[f32], sums: &mut [f64]| {
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
                };
                numbers.chunks(cols).for_each(|row| squares(row, sums));
            });
        }
        let grams = statistics.iter().filter(|s| s.as_ref().is_some_and(|s| s.gram().is_some())).count();
        assert_eq!(grams, groups.len() - 1);
        for (statistics, expected) in statistics.iter().zip(&expected) {
            let statistics = statistics.as_ref().unwrap();
            let gram = statistics.gram().map(|gram| gram.iter().step_by(expected.len() + 1));
            let same = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs();
            assert!(gram.is_none_or(|mut diagonal| diagonal.by_ref().zip(statistics.squares()).all(same)));
            assert_eq!(statistics.tokens(), 50 * 40);
            assert_eq!(statistics.cols(), expected.len());
            let close = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= 1e-4 * b.max(1e-3);
            assert!(statistics.squares().iter().zip(expected).all(close));
        }
    }
}

#[test]
fn points_get_what_each_gets_alone() {
    // The first has large matrices, on which some methods take long.
    for mut session in sessions().skip(1) {
        let windows = windows(&session, 30, 40);
        let mut points = Vec::new();
        for method in methods() {
            for propagate in [Propagate::Dense, Propagate::Pruned] {
                points.extend([0.3, 0.6].map(|sparsity| point(method, sparsity, propagate)));
                points.push(two_of_four(point(method, 0.5, propagate)));
                points.push(PrunePoint { budget: Some(Owl { m: 2.0, lambda: 0.1 }), ..point(method, 0.5, propagate) });
                // Some of the blocks' linears only, so that the point passes through stages.
                let exclude = vec!["*.0.*".into(), "*.2.*".into(), "lm_head".into(), "embed_out".into()];
                points.push(PrunePoint { exclude, ..point(method, 0.5, propagate) });
            }
        }
        let together = layers(&mut session, &windows, &points);
        for (point, together) in points.iter().zip(together) {
            let alone = layers(&mut session, &windows, std::slice::from_ref(point)).remove(0);
            assert!(together == alone, "{point:?}");
            assert!(alone.windows(2).all(|pair| pair[0].module < pair[1].module) && !alone.is_empty());
        }
    }
}

/// The same by full passes: for every block in turn, the model with the blocks before it pruned.
fn by_full_passes(session: &mut Session<Flex>, windows: &[Vec<u32>], point: &PrunePoint) -> Vec<Pruned> {
    let batches = begin(session, windows).ok().unwrap();
    let session = &*session;
    let mut decoder = session.decoder.clone();
    let mut all = Vec::new();
    for stage in decoder.architecture().stages() {
        let linears: Vec<_> = prunable(session, point).ok().unwrap();
        let groups = decoder.architecture().linears_of(stage);
        let gram = point.method.entry().inputs == Needs::Gram;
        let modules = &decoder.architecture().modules;
        let mut sums: Vec<_> = groups.iter().map(|g| GramSums::<Flex>::new(modules[g[0]].shape[1], gram)).collect();
        for batch in &batches {
            let mut activations = batch.clone();
            for before in decoder.architecture().stages().take_while(|before| *before < stage) {
                activations = decoder.run_stage(before, activations, |_, _| {});
            }
            decoder.run_stage(stage, activations, |linears, x| {
                sums[groups.iter().position(|group| group == linears).unwrap()].add(x);
            });
        }
        let mut pruned = Vec::new();
        for (group, sums) in groups.iter().zip(sums) {
            let totals = sums.finish().unwrap();
            let inputs = GramStatistics::new(totals.tokens, totals.squares, totals.gram);
            for linear in linears.iter().filter(|linear| group.contains(&linear.module)) {
                let request = point.request(None);
                let remaining = prune_calibrated(&linear.layer(point.method).unwrap(), &inputs, &request).unwrap();
                let (by_engine, ties) = prune_linear(linear, &inputs, &request, Dtype::F32).unwrap();
                assert_eq!(ties, remaining.ties);
                let weights = remaining
                    .weights
                    .unwrap_or_else(|| remaining.pattern.apply(&session.dense(linear.module).host().unwrap()));
                let shape = [linear.rows, linear.cols];
                let weight = crate::model::DenseWeight::new(
                    weights.clone().into(),
                    shape,
                    burn::tensor::DType::F32,
                    session.decoder.device(),
                );
                assert_eq!(by_engine.kept, weights.iter().filter(|weight| **weight != 0.0).count() as u64);
                let dense = session.dense(linear.module);
                let masked = by_engine.masked(dense, burn::tensor::DType::F32, session.decoder.device()).unwrap();
                assert!(masked.host() == weight.host());
                assert!(by_engine.pattern.apply(&by_engine.weights(dense).unwrap()) == weights);
                pruned.push((linear.module, weight));
                all.push(by_engine);
            }
        }
        for (module, weight) in pruned {
            decoder.set_weight(module, LinearWeight::Dense(weight));
        }
    }
    all.sort_by_key(|pruned| pruned.module);
    all
}

#[test]
fn pruned_propagation_equals_full_passes_through_pruned_blocks() {
    for mut session in sessions() {
        let windows = windows(&session, 30, 40);
        for method in methods() {
            let point = point(method, 0.6, Propagate::Pruned);
            let expected = by_full_passes(&mut session, &windows, &point);
            let ours = layers(&mut session, &windows, std::slice::from_ref(&point)).remove(0);
            assert!(ours == expected, "{method}");
            let dense = PrunePoint { propagate: Some(Propagate::Dense), ..point };
            assert!(layers(&mut session, &windows, &[dense]).remove(0) != expected, "{method}");
        }
    }
}

#[test]
fn linears_outside_the_blocks_are_pruned_where_nobody_excludes_them() {
    let mut session = session(&fixture("golden/tiny-gptneox/model"));
    let windows = windows(&session, 10, 20);
    let point = PrunePoint { exclude: Vec::new(), ..point(Method::Wanda, 0.5, Propagate::Pruned) };
    let expected: Vec<usize> = prunable(&session, &point).ok().unwrap().iter().map(|linear| linear.module).collect();
    assert!(expected.contains(&session.decoder.architecture().head));
    let ours = layers(&mut session, &windows, &[point]).remove(0);
    assert_eq!(ours.iter().map(|pruned| pruned.module).collect::<Vec<_>>(), expected);
}

#[test]
fn a_budget_spreads_the_sparsity_over_blocks() {
    let mut session = session("builtin:tiny-opt");
    let windows = windows(&session, 20, 40);
    let budget = |m| PrunePoint { budget: Some(Owl { m, lambda: 0.1 }), ..point(Method::Wanda, 0.5, Propagate::Dense) };
    let layers = layers(&mut session, &windows, &[budget(3.0), point(Method::Wanda, 0.5, Propagate::Dense)]);
    let share = |pruned: &Pruned| pruned.pattern.kept() as f64 / (pruned.pattern.rows() * pruned.pattern.cols()) as f64;
    let shares: Vec<f64> = layers[0].iter().map(share).collect();
    let (least, most) = shares.iter().fold((1.0f64, 0.0f64), |(low, high), &s| (low.min(s), high.max(s)));
    // Twice lambda apart, but for whole weights of a row.
    assert!((most - least - 0.2).abs() < 0.02, "{shares:?}");
    assert!((shares.iter().sum::<f64>() / shares.len() as f64 - 0.5).abs() < 0.01);
    assert!(layers[1].iter().all(|pruned| (share(pruned) - 0.5).abs() < 0.01));
}

#[test]
fn a_point_that_fails_fails_alone() {
    let mut session = session("builtin:tiny-opt");
    let windows = windows(&session, 4, 20);
    let good = point(Method::Wanda, 0.5, Propagate::Pruned);
    let bad = PrunePoint { pattern: NmPattern::NofM { n: 3, m: 7 }, scope: None, ..good.clone() };
    let nothing = PrunePoint { exclude: vec!["*".into()], ..good.clone() };
    let too_much = PrunePoint { budget: Some(Owl { m: 2.0, lambda: 0.9 }), ..good.clone() };
    let results = results(&mut session, &windows, &[bad, good.clone(), nothing, too_much]);
    let failed: Vec<bool> = results.iter().map(Result::is_err).collect();
    assert_eq!(failed, [true, false, true, true]);
    let alone = layers(&mut session, &windows, &[good]).remove(0);
    assert!(results.into_iter().nth(1).unwrap().is_ok_and(|calibrated| calibrated.layers == alone));
}

#[test]
fn it_stops_when_it_is_told_to() {
    let mut session = session("builtin:tiny-opt");
    let windows = windows(&session, 4, 20);
    let points = [point(Method::Wanda, 0.5, Propagate::Pruned)];
    for patience in 1..12 {
        let watch = Patience(Cell::new(patience));
        let result = calibrate(&mut session, &windows, &[&points[0]], Dtype::F32, &watch);
        assert!(matches!(result, Err(Stopped::Interrupted)), "{patience}");
    }
}

#[test]
fn windows_longer_than_the_model_are_an_error() {
    let mut session = session("builtin:tiny-opt");
    let windows = windows(&session, 1, 513);
    let point = point(Method::Wanda, 0.5, Propagate::Pruned);
    let result = calibrate(&mut session, &windows, &[&point], Dtype::F32, &Patience(Cell::new(usize::MAX)));
    assert!(matches!(result, Err(Stopped::Failed(CellError::Forward(_)))));
}

/// Two tokens reach at most four of eight experts.
#[test]
fn experts_that_few_tokens_reach_are_counted() {
    let mut session = session(&fixture("families/olmoe"));
    let many = windows(&session, 60, 40);
    for method in methods() {
        for (windows, some_missed) in [(vec![vec![3u32, 90]], true), (many.clone(), false)] {
            let points = [point(method, 0.5, Propagate::Dense)];
            let calibrated = results(&mut session, &windows, &points).remove(0);
            let calibrated = calibrated.unwrap_or_else(|error| panic!("{method}: {error}"));
            let unreached = calibrated.scarce.map_or(0, |scarce| scarce.unreached);
            assert_eq!(unreached >= 4 * 3, some_missed, "{method}: {:?}", calibrated.scarce);
            for pruned in &calibrated.layers {
                let all = pruned.pattern.rows() * pruned.pattern.cols();
                // The rule of SparseGPT takes the weight at the boundary, too.
                let least = if method == Method::SparseGpt { all / 2 - 1 } else { all / 2 };
                assert_eq!(pruned.pattern.kept(), least, "{method} {}", pruned.module);
                let values = pruned.updated().unwrap_or_default();
                assert!(values.iter().all(|value| value.is_finite()), "{method} {}", pruned.module);
            }
        }
    }
}
