//! What holds for all methods.

use super::*;

/// A layer for the tests of this folder.
pub(super) fn layer(rows: usize, cols: usize, weights: &[f32]) -> Layer<'static> {
    assert_eq!(weights.len(), rows * cols);
    Layer { name: "layer", rows, cols, weights: weights.to_vec().into() }
}

/// A point without a pattern, in the method's own scope.
pub(super) fn request(method: Method, sparsity: f64) -> Request {
    let (scope, settings) = (method.scopes().first().copied(), method.settings(&MethodSettings::default()));
    Request { method, scope, pattern: NmPattern::Unstructured, sparsity, seed: 0, settings }
}

/// A point of an N:M pattern.
pub(super) fn nm(method: Method, n: u32, m: u32) -> Request {
    Request { scope: None, pattern: NmPattern::NofM { n, m }, ..request(method, f64::from(m - n) / f64::from(m)) }
}

/// The columns kept of every row.
pub(super) fn columns(pattern: &Pattern) -> Vec<Vec<usize>> {
    (0..pattern.rows()).map(|row| pattern.columns_of(row).collect()).collect()
}

/// Fails the test unless weights are as expected, to a share of the largest.
#[track_caller]
pub(super) fn close(weights: &[f32], expected: &[f32], share: f32) {
    let most = share * expected.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
    let near = weights.iter().zip(expected).all(|(a, b)| (a - b).abs() <= most);
    assert!(near && weights.len() == expected.len(), "{weights:?}\n{expected:?}");
}

/// The sum over outputs and tokens of the squared differences that pruning makes.
pub(super) fn loss(layer: &Layer<'_>, inputs: &GramStatistics, remaining: &Remaining) -> f64 {
    let masked = remaining.weights.clone().unwrap_or_else(|| remaining.pattern.apply(&layer.weights));
    let gram = inputs.gram().unwrap();
    let of_row = |(before, after): (&[f32], &[f32])| {
        let lost: Vec<f64> = before.iter().zip(after).map(|(a, b)| f64::from(a - b)).collect();
        let dot = |row: &[f32]| row.iter().zip(&lost).map(|(&g, d)| f64::from(g) * d).sum::<f64>();
        gram.chunks(layer.cols).zip(&lost).map(|(row, d)| d * dot(row)).sum::<f64>()
    };
    layer.weights.chunks(layer.cols).zip(masked.chunks(layer.cols)).map(of_row).sum()
}

fn methods(calibrated: bool) -> impl Iterator<Item = Method> {
    Method::ALL.iter().map(|word| word.value).filter(move |method| method.calibrates() == calibrated)
}

#[test]
fn a_method_that_looks_at_inputs_draws_windows_by_the_seed() {
    for method in Method::ALL.iter().map(|word| word.value) {
        let entry = method.entry();
        let calibrated = matches!(entry.rule, Rule::Calibrated(_));
        assert_eq!((calibrated, entry.inputs > Needs::Nothing), (method.calibrates(), calibrated));
        assert!(method.uses_seed() || !calibrated);
    }
}

#[test]
fn layers_may_be_pruned_one_at_a_time() {
    let weights = |layer: usize| (0..60).map(|i| ((i * 37 + layer * 11) % 61) as f32 - 30.0).collect::<Vec<f32>>();
    let layers: Vec<Layer<'_>> = (0..3).map(|index| layer(5, 12, &weights(index))).collect();
    let free = |scope| (Some(scope), NmPattern::Unstructured);
    for method in methods(false) {
        for (scope, pattern) in [free(Scope::Layer), free(Scope::Row), (None, NmPattern::NofM { n: 2, m: 4 })] {
            let request = Request { scope, pattern, seed: 5, ..request(method, 0.4) };
            assert!(request.within_layers());
            let all = prune(&layers, &request).unwrap();
            for (index, pattern) in all.iter().enumerate() {
                let one = decide(index, &layers[index..=index], &request).unwrap().patterns;
                assert_eq!(one[0], *pattern, "{method:?} {scope:?} {index}");
            }
            assert_ne!(all[0], all[1]);
        }
    }
}

#[test]
fn only_methods_that_say_so_look_at_weights() {
    for method in methods(false) {
        let of = |sign: f32| {
            let mut weights: Vec<f32> = (0..64).map(|i| sign * (i as f32 - 10.0) + 3.0 * sign).collect();
            weights[..32].fill(0.0);
            let weights = if method.entry().reads_weights { weights.into() } else { Cow::Borrowed(&[][..]) };
            prune(&[Layer { name: "layer", rows: 4, cols: 16, weights }], &request(method, 0.5)).unwrap()
        };
        assert_eq!(of(1.0)[0].kept(), 32, "{method}");
    }
}

#[test]
fn calibrated_methods_need_to_know_their_inputs() {
    let layer = layer(2, 4, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let squares = || vec![1.0, 2.0, 3.0, 4.0];
    let gram = |cols: usize| Some((0..cols * cols).map(|i| f32::from(u8::from(i % (cols + 1) == 0))).collect());
    for method in methods(true) {
        let request = request(method, 0.5);
        let lacking = PruneError::Inputs { layer: "layer".into(), method };
        assert_eq!(prune(std::slice::from_ref(&layer), &request).unwrap_err(), lacking);
        let pruned = |inputs: GramStatistics| prune_calibrated(&layer, &inputs, &request).map(drop);
        assert_eq!(pruned(GramStatistics::new(9, squares(), gram(4))), Ok(()));
        assert_eq!(pruned(GramStatistics::new(9, vec![1.0; 3], gram(3))), Err(lacking.clone()));
        let norms = pruned(GramStatistics::new(9, squares(), None));
        assert_eq!(norms.is_ok(), method.entry().inputs == Needs::Norms, "{method}");
        for bad in [f32::NAN, f32::INFINITY] {
            let inputs = GramStatistics::new(9, vec![1.0, 2.0, bad, 4.0], gram(4));
            assert_eq!(pruned(inputs), Err(PruneError::NotFinite { layer: "layer".into() }));
        }
    }
    let inputs = GramStatistics::new(9, squares(), None);
    assert!(prune_calibrated(&layer, &inputs, &request(Method::Magnitude, 0.5)).is_err());
}

#[test]
fn what_goes_is_zero_and_every_group_keeps_its_share() {
    let (rows, cols) = (7, 48);
    let inputs = gram::tests::correlated(cols, 100, 2);
    let weights: Vec<f32> = (0..rows * cols).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
    for method in methods(true) {
        for (n, m) in [(2, 4), (4, 8), (1, 4), (3, 6), (5, 16)] {
            let remaining = prune_calibrated(&layer(rows, cols, &weights), &inputs, &nm(method, n, m)).unwrap();
            let kept =
                |row: usize, group: usize| (0..m).filter(|i| remaining.pattern.get(row, group + *i as usize)).count();
            for (row, group) in (0..rows).flat_map(|row| (0..cols).step_by(m as usize).map(move |group| (row, group))) {
                assert_eq!(kept(row, group), n as usize, "{method} {n}:{m}");
            }
            if let Some(weights) = &remaining.weights {
                assert_eq!(*weights, remaining.pattern.apply(weights), "{method} {n}:{m}");
            }
        }
    }
}

#[test]
fn patterns_must_divide_the_inputs() {
    let layer = layer(1, 6, &[1.0; 6]);
    let gram = (0..36).map(|i| f32::from(u8::from(i % 7 == 0))).collect();
    let inputs = GramStatistics::new(9, vec![1.0; 6], Some(gram));
    for method in methods(true) {
        let error = prune_calibrated(&layer, &inputs, &nm(method, 2, 4)).unwrap_err();
        assert_eq!(error, PruneError::GroupWidth { layer: "layer".into(), cols: 6, n: 2, m: 4 });
        assert!(error.hint().is_some());
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (rows, cols) = (150, 300);
    let noise = |i: usize| ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
    let weights: Vec<f32> = (0..rows * cols).map(noise).collect();
    let layer = layer(rows, cols, &weights);
    let known = gram::tests::correlated(cols, cols, 1);
    // Without the factors that a thread before has made.
    let inputs = || GramStatistics::new(cols, known.squares().to_vec(), known.gram().map(<[f32]>::to_vec));
    for method in methods(true) {
        for request in [request(method, 0.6), nm(method, 2, 4)] {
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| prune_calibrated(&layer, &inputs(), &request).unwrap())
            };
            assert!(with(1) == with(2) && with(1) == with(3), "{request:?}");
        }
    }
}

/// Eight inputs of forty tokens, each with half of the one before, and weights for four outputs.
fn small() -> (Vec<f32>, GramStatistics) {
    let mut gram = vec![0.0f64; 64];
    for token in 0..40 {
        let mut x: Vec<f32> =
            (0..8).map(|col| ((token * 7 + col * 13 + token * col * 3) % 17) as f32 / 4.0 - 2.0).collect();
        for col in 1..8 {
            x[col] += 0.5 * x[col - 1];
        }
        for (row, a) in gram.chunks_mut(8).zip(&x) {
            row.iter_mut().zip(&x).for_each(|(sum, b)| *sum += f64::from(*a) * f64::from(*b));
        }
    }
    let gram: Vec<f32> = gram.into_iter().map(|sum| sum as f32).collect();
    let weights = (0..32).map(|i| (i * 11 % 23) as f32 / 8.0 - 1.375).collect();
    (weights, GramStatistics::new(40, gram.iter().step_by(9).copied().collect(), Some(gram)))
}

#[test]
fn the_numbers_of_an_independent_program() {
    // Computed with PyTorch 2 from the papers' algorithms; ADMM with the cubic schedule.
    #[rustfmt::skip]
    let expected: [(Method, bool, [f32; 32]); 4] = [
        (Method::SparseGpt, false, [
            -1.37500, 0.00000, 1.37500, 0.00000, 1.19546, 0.00000, 0.94753, 0.00000,
            1.00000, 0.00000, 0.00000, 0.00000, 0.00000, -0.49324, 0.00000, 0.00000,
            0.00000, -0.81383, 0.00000, -0.85106, 0.00000, -1.11215, 0.00000, -1.22282,
            0.00000, 1.37500, 0.00000, 1.18582, 0.00000, 1.00498, 0.00000, 0.70332,
        ]),
        (Method::SparseGpt, true, [
            -1.37500, 0.00000, 1.37500, 0.00000, 1.19546, 0.00000, 0.94753, 0.00000,
            1.00000, 0.00000, 0.63728, 0.00000, 0.00000, -0.58881, 0.00000, -0.42023,
            0.00000, -0.81383, 0.00000, -0.85106, 0.00000, -1.11215, 0.00000, -1.22282,
            0.00000, 1.37500, 0.00000, 1.18582, 0.00000, 1.00498, 0.00000, 0.70332,
        ]),
        (Method::Admm, false, [
            -1.39114, 0.00000, 1.25895, 0.00000, 1.05729, 0.00000, 0.78121, 0.00000,
            0.77443, 0.00000, 0.00000, 0.00000, 0.83464, -0.78653, 0.00000, -0.52141,
            0.00000, -0.75498, 0.00000, -0.77311, 0.00000, -1.17407, 0.00000, -1.23452,
            0.00000, 1.31916, 0.00000, 1.08852, 0.00000, 0.94721, 0.00000, 0.77181,
        ]),
        (Method::Admm, true, [
            -1.39116, 0.00000, 1.25896, 0.00000, 1.05734, 0.00000, 0.78118, 0.00000,
            0.92306, 0.00000, 0.49127, 0.00000, 0.00000, -0.44339, 0.00000, -0.47407,
            0.00000, -0.75584, 0.00000, -0.77165, 0.00000, -1.17704, 0.00000, -1.23578,
            0.00000, 1.31916, 0.00000, 1.08852, 0.00000, 0.94722, 0.00000, 0.77181,
        ]),
    ];
    let (weights, inputs) = small();
    for (method, groups, expected) in expected {
        let request = if groups { nm(method, 2, 4) } else { request(method, 0.5) };
        let settings = request.method.settings(&MethodSettings::given(&[("blocksize", SettingValue::Count(4))]));
        let remaining = prune_calibrated(&layer(4, 8, &weights), &inputs, &Request { settings, ..request }).unwrap();
        close(remaining.weights.as_deref().unwrap(), &expected, 2e-5);
    }
}
