//! Weights by the alternating direction method of multipliers: the best weights for a pattern that is found
//! step by step.
//!
//! Boža, "Fast and effective weight update for pruned large language models", arXiv 2401.02938, algorithms 1 and
//! 2. Every input feature is scaled to norm 1 and its weights by the norm, so that magnitudes are Wanda's scores.
//! With the scaled `A = X^T X + damping`, the pattern M and rho = 1, in every update
//!
//! ```text
//!   Z = M (W + U)     U = U + W - Z     W = (A + rho)^-1 (A W_0 + rho (Z - U))
//! ```
//!
//! Only `V = W + U` has to be kept: Z is V where M keeps and U is V elsewhere, so that Z - U is V with the sign
//! turned where M does not keep, and `W = W_0 + rho (A + rho)^-1 (Z - U - W_0)` needs one product an update.
//!
//! The pattern is chosen anew in the first three quarters of the updates: of an N:M pattern the largest magnitudes
//! of V of every group, else of the layer, with the sparsity rising as `s (1 - (1 - t / steps)^3)`. (The paper
//! describes this cubic rise; the code released with it takes the final sparsity at every step.)

use super::linalg::{Columns, add_product};
use super::{
    GramStatistics, Layer, MethodEntry, Needs, NmPattern, PruneError, Remaining, Request, Scope, Setting, SettingValue,
    magnitude, nm,
};
use crate::sparse::Pattern;
use rayon::prelude::*;

const DAMPING: Setting = Setting { default: SettingValue::Real(0.1), ..super::sparsegpt::DAMPING };
const ITERATIONS: Setting =
    Setting::count("iterations", "updates of the weights; the pattern is settled after three quarters of them", 20);

pub(super) const METHOD: MethodEntry = MethodEntry {
    settings: &[DAMPING, ITERATIONS],
    ..MethodEntry::calibrated(
        "admm",
        "the best weights for a pattern that becomes sparser step by step",
        &[Scope::Layer],
        Needs::Gram,
        prune,
    )
};

pub(super) fn prune(layer: &Layer<'_>, inputs: &GramStatistics, request: &Request) -> Result<Remaining, PruneError> {
    if let NmPattern::NofM { n, m } = request.pattern {
        nm::divides(layer, n, m)?;
    }
    let damping = request.settings.real(&DAMPING);
    let updates = request.settings.count(&ITERATIONS).max(1);
    let step = inputs.proximal(damping).map_err(|_| inputs.not_positive_definite(layer, damping))?;
    let norms = inputs.norms();
    let cols = layer.cols;
    let mut scaled = layer.weights.to_vec();
    by_row(&mut scaled, cols, |_, row| row.iter_mut().zip(&norms).for_each(|(weight, norm)| *weight *= norm));

    let all = Columns { start: 0, end: cols, of: cols };
    let steps = (3 * updates).div_ceil(4);
    let mut sum = scaled.clone();
    let mut change = vec![0.0; sum.len()];
    let mut pattern = Pattern::full(layer.rows, cols);
    for update in 1..=updates {
        if update <= steps {
            pattern = choose(layer, &sum, request, update as f64 / steps as f64)?;
        }
        next(&mut sum, &mut change, &scaled, &pattern);
        add_product(&mut sum, &change, &step, all, 1.0);
    }
    let mut weights = pattern.apply(&sum);
    let back = |weight: &mut f32, norm: f32| *weight = if norm > 0.0 { *weight / norm } else { 0.0 };
    by_row(&mut weights, cols, |_, row| row.iter_mut().zip(&norms).for_each(|(weight, &norm)| back(weight, norm)));
    Ok(Remaining { pattern, weights: Some(weights), ties: None })
}

/// The pattern of the largest magnitudes, at a part of the way to the sparsity asked for.
fn choose(layer: &Layer<'_>, sum: &[f32], request: &Request, way: f64) -> Result<Pattern, PruneError> {
    let view = Layer { name: layer.name, rows: layer.rows, cols: layer.cols, weights: sum.into() };
    let sparsity = request.sparsity * (1.0 - (1.0 - way).powi(3));
    let decided = magnitude::prune(&[view], 0, &Request { scope: Some(Scope::Layer), sparsity, ..*request })?;
    Ok(decided.patterns.into_iter().next().unwrap_or_else(|| unreachable!("one layer has one pattern")))
}

/// From V the change that is to be multiplied, `Z - U - W_0`, and what the product is added to, `W_0 + U`.
fn next(sum: &mut [f32], change: &mut [f32], scaled: &[f32], pattern: &Pattern) {
    let cols = pattern.cols();
    let rows = sum.par_chunks_mut(cols).zip(change.par_chunks_mut(cols)).zip(scaled.par_chunks(cols));
    rows.enumerate().for_each(|(row, ((sum, change), scaled))| {
        let words = pattern.row(row);
        for (col, ((v, change), &scaled)) in sum.iter_mut().zip(change).zip(scaled).enumerate() {
            let kept = words[col / 64] >> (col % 64) & 1 == 1;
            let (z, u) = if kept { (*v, 0.0) } else { (0.0, *v) };
            *change = z - u - scaled;
            *v = scaled + u;
        }
    });
}

fn by_row(weights: &mut [f32], cols: usize, each: impl Fn(usize, &mut [f32]) + Sync) {
    weights.par_chunks_mut(cols.max(1)).enumerate().for_each(|(row, weights)| each(row, weights));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, columns, layer, nm, request};
    use super::super::{GramStatistics, Method, MethodSettings, Remaining, Request, SettingValue, prune_calibrated};

    /// Two pairs of inputs that go together by a half, the norms being 1, 1, 2, 2.
    fn pruned(request: Request, updates: usize) -> Remaining {
        #[rustfmt::skip]
        let gram = vec![
            1.0, 0.5, 0.0, 0.0,
            0.5, 1.0, 0.0, 0.0,
            0.0, 0.0, 4.0, 2.0,
            0.0, 0.0, 2.0, 4.0,
        ];
        #[rustfmt::skip]
        let weights = [
            3.0,  1.5, 0.5,   4.0,
            0.2,  6.0, 2.0,  -3.0,
            7.0,  0.3, 0.25,  0.2,
            2.5, -5.0, 3.5,   1.0,
        ];
        let inputs = GramStatistics::new(9, vec![1.0, 1.0, 4.0, 4.0], Some(gram));
        let settings = MethodSettings::given(&[
            ("damping", SettingValue::Real(0.0)),
            ("iterations", SettingValue::Count(updates)),
        ]);
        prune_calibrated(&layer(4, 4, &weights), &inputs, &Request { settings, ..request }).unwrap()
    }

    #[test]
    fn four_by_four_by_hand() {
        // Scaled: 3 1.5 1 8 | 0.2 6 4 -6 | 7 0.3 0.5 0.4 | 2.5 -5 7 2. The eight lowest go, up to 2.5.
        // (A + 1)^-1 of a pair is (2 -1/2; -1/2 2) / 3.75. Where b of a pair goes, the change is -2 b there and 0
        // at a, so that a becomes a + 2 b / 2 / 3.75.
        let one = pruned(request(Method::Admm, 0.5), 1);
        let share = 1.0 / 3.75;
        #[rustfmt::skip]
        let expected = [
            3.0 + 1.5 * share,  0.0,                0.0,                     (8.0 + share) / 2.0,
            0.0,                6.0 + 0.2 * share,  2.0,                    -3.0,
            7.0 + 0.3 * share,  0.0,                0.0,                     0.0,
            0.0,               -5.0 + 2.5 * share, (7.0 + 2.0 * share) / 2.0, 0.0,
        ];
        close(one.weights.as_deref().unwrap(), &expected, 1e-5);
        assert_eq!(columns(&one.pattern), [vec![0, 3], vec![1, 2, 3], vec![0], vec![1, 2]]);

        // The best weight is a + b / 2.
        let many = pruned(request(Method::Admm, 0.5), 20);
        #[rustfmt::skip]
        let best = [
            3.75,  0.0,  0.0,   4.25,
            0.0,   6.1,  2.0,  -3.0,
            7.15,  0.0,  0.0,   0.0,
            0.0,  -3.75, 4.0,   0.0,
        ];
        close(many.weights.as_deref().unwrap(), &best, 0.02);
        assert_eq!(columns(&many.pattern), columns(&one.pattern));
    }

    #[test]
    fn groups_by_hand() {
        // Of every pair the larger stays, and ends at a + b / 2, scaled: 4 + 3 / 2 would be the other way around.
        let remaining = pruned(nm(Method::Admm, 1, 2), 20);
        #[rustfmt::skip]
        let best = [
            3.75,  0.0,   0.0,   4.25,
            0.0,   6.1,   0.0,  -2.0,
            7.15,  0.0,   0.35,  0.0,
            0.0,  -3.75,  4.0,   0.0,
        ];
        close(remaining.weights.as_deref().unwrap(), &best, 0.02);
        assert_eq!(columns(&remaining.pattern), [vec![0, 3], vec![1, 3], vec![0, 2], vec![1, 2]]);
    }

    #[test]
    fn inputs_that_are_always_zero_lose_their_weights() {
        let gram = vec![2.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0];
        let inputs = GramStatistics::new(4, vec![2.0, 0.0, 2.0], Some(gram));
        let weights = [1.0, 9.0, 2.0, 3.0, -9.0, 4.0];
        let remaining = prune_calibrated(&layer(2, 3, &weights), &inputs, &request(Method::Admm, 0.34)).unwrap();
        assert_eq!(columns(&remaining.pattern), [[0, 2], [0, 2]]);
        close(remaining.weights.as_deref().unwrap(), &[1.0, 0.0, 2.0, 3.0, 0.0, 4.0], 0.02);
    }
}
