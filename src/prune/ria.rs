//! Relative importance and activations: Wanda's score with every weight taken relative to its row and column.
//!
//! Zhang et al., "Plug-and-play: an efficient post-training pruning method for large language models",
//! ICLR 2024, equations 3 and 4: `(|W_ij| / sum of column j + |W_ij| / sum of row i) * ||X_j||^a`. A channel whose
//! weights are all small keeps the largest of them. A sum of 0 has only weights of 0, whose score is 0.

use super::{
    GramStatistics, Layer, Least, MethodEntry, Needs, PruneError, Remaining, Request, Scope, Scores, Setting,
    by_scores_of,
};
use rayon::prelude::*;

const ALPHA: Setting = Setting::real("alpha", "the exponent of the inputs' norms", 0.5, Least::At(0.0));

pub(super) const METHOD: MethodEntry = MethodEntry {
    settings: &[ALPHA],
    ..MethodEntry::calibrated(
        "ria",
        "wanda with every weight taken relative to the sums of its row and its column",
        &[Scope::Layer, Scope::Row],
        Needs::Norms,
        prune,
    )
};

/// Scores of one layer.
struct Ria<'a> {
    weights: &'a [f32],
    /// 1 / the sum of magnitudes of every row.
    by_row: Vec<f32>,
    /// 1 / the sum of magnitudes of every column.
    by_column: Vec<f32>,
    /// The norm of every input to the power of `alpha`.
    norms: Vec<f32>,
}

pub(super) fn prune(layer: &Layer<'_>, inputs: &GramStatistics, request: &Request) -> Result<Remaining, PruneError> {
    let alpha = request.settings.real(&ALPHA) as f32;
    let norms = inputs.norms().into_iter().map(|norm| norm.powf(alpha)).collect();
    let (by_row, by_column) = reciprocal_sums(&layer.weights, layer.cols);
    by_scores_of(layer, &Ria { weights: &layer.weights, by_row, by_column, norms }, request)
}

/// Summed in double precision, row after row, whatever the number of threads.
fn reciprocal_sums(weights: &[f32], cols: usize) -> (Vec<f32>, Vec<f32>) {
    let reciprocal = |sum: f64| if sum > 0.0 { (1.0 / sum) as f32 } else { 0.0 };
    let magnitude = |weight: &f32| f64::from(weight.abs());
    let rows = weights.par_chunks(cols.max(1)).map(|row| reciprocal(row.iter().map(magnitude).sum()));
    let by_row = rows.collect();
    let mut sums = vec![0.0; cols];
    for row in weights.chunks(cols.max(1)) {
        for (sum, weight) in sums.iter_mut().zip(row) {
            *sum += magnitude(weight);
        }
    }
    (by_row, sums.into_iter().map(reciprocal).collect())
}

impl Scores for Ria<'_> {
    fn fill(&self, _layer: usize, start: usize, scores: &mut [u32]) {
        let cols = self.norms.len();
        super::fill_by_column(cols, start, scores, |index, col| {
            let magnitude = self.weights[index].abs();
            (magnitude * self.by_column[col] + magnitude * self.by_row[index / cols]) * self.norms[col]
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{columns, layer, nm, request};
    use super::super::{GramStatistics, Method, MethodSettings, Request, Scope, SettingValue, prune_calibrated};

    #[test]
    fn four_by_four_by_hand() {
        // Sums of rows 8, 4, 16, 4; of columns 8, 8, 8, 8. Norms 16, 16, 1, 1, their roots 4, 4, 1, 1.
        #[rustfmt::skip]
        let weights = [
             4.0, 2.0, -1.0, 1.0,
             0.0, 1.0,  1.0, 2.0,
            -4.0, 4.0,  4.0, 4.0,
             0.0, 1.0,  2.0, 1.0,
        ];
        // Relative, as |w|/column + |w|/row, in sixteenths, then times the root:
        //   16  8  4  4      64 32  4  4
        //    0  6  6 12       0 24  6 12
        //   12 12 12 12      48 48 12 12
        //    0  6 12  6       0 24 12  6
        let layer = layer(4, 4, &weights);
        let inputs = GramStatistics::new(3, vec![256.0, 256.0, 1.0, 1.0], None);
        let kept = |request: Request| columns(&prune_calibrated(&layer, &inputs, &request).unwrap().pattern);
        // Six go, the sixth lowest being one of two scores of 6; then the scores of 12 tie.
        let layer_scope = |sparsity| Request { scope: Some(Scope::Layer), ..request(Method::Ria, sparsity) };
        assert_eq!(kept(layer_scope(0.375)), [vec![0, 1], vec![1, 3], vec![0, 1, 2, 3], vec![1, 2]]);
        assert_eq!(kept(layer_scope(0.5)), [vec![0, 1], vec![1], vec![0, 1], vec![1]]);
        let rows = Request { scope: Some(Scope::Row), ..request(Method::Ria, 0.5) };
        assert_eq!(kept(rows), [vec![0, 1], vec![1, 3], vec![0, 1], vec![1, 2]]);
        assert_eq!(kept(nm(Method::Ria, 1, 2)), [vec![0, 3], vec![1, 3], vec![1, 3], vec![1, 2]]);
        // Without the norms, of the last row's 0 6 12 6 the first two go.
        let settings = MethodSettings::given(&[("alpha", SettingValue::Real(0.0))]);
        assert_eq!(kept(Request { settings, ..rows })[3], [2, 3]);
    }

    #[test]
    fn rows_and_columns_of_zeros_go() {
        let layer = layer(2, 4, &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0]);
        let inputs = GramStatistics::new(1, vec![1.0; 4], None);
        let request = Request { scope: Some(Scope::Layer), ..request(Method::Ria, 0.625) };
        assert_eq!(columns(&prune_calibrated(&layer, &inputs, &request).unwrap().pattern), [vec![], vec![1, 2, 3]]);
    }
}
