//! Wanda: a weight's score is its magnitude times the norm of the input that it multiplies.
//!
//! Sun et al., "A simple and effective pruning approach for large language models", arXiv 2306.11695,
//! equation 1: `|W_ij| * ||X_j||`. Of every row exactly `floor(cols * sparsity)` weights go. The norm is over all
//! tokens; a mean over tokens instead would scale all scores alike.

use super::{GramStatistics, Layer, MethodEntry, Needs, PruneError, Remaining, Request, Scope, Scores, by_scores_of};

pub(super) const METHOD: MethodEntry = MethodEntry::calibrated(
    "wanda",
    "the smallest products of a weight and the norm of its input go, the same share of every row",
    &[Scope::Row],
    Needs::Norms,
    prune,
);

/// Scores of one layer.
pub(super) struct Wanda<'a> {
    weights: &'a [f32],
    norms: Vec<f32>,
}

impl<'a> Wanda<'a> {
    pub fn new(layer: &'a Layer<'_>, inputs: &GramStatistics) -> Self {
        Self { weights: &layer.weights, norms: inputs.norms() }
    }

    /// The scores of one row.
    pub fn row(&self, row: usize) -> impl Iterator<Item = f32> + '_ {
        let cols = self.norms.len();
        let weights = &self.weights[row * cols..(row + 1) * cols];
        weights.iter().zip(&self.norms).map(|(weight, norm)| weight.abs() * norm)
    }
}

pub(super) fn prune(layer: &Layer<'_>, inputs: &GramStatistics, request: &Request) -> Result<Remaining, PruneError> {
    by_scores_of(layer, &Wanda::new(layer, inputs), request)
}

impl Scores for Wanda<'_> {
    fn fill(&self, _layer: usize, start: usize, scores: &mut [u32]) {
        super::fill_by_column(self.norms.len(), start, scores, |index, col| {
            self.weights[index].abs() * self.norms[col]
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{columns, layer, nm, request};
    use super::super::{GramStatistics, Method, prune_calibrated};
    use proptest::prelude::*;

    /// Norms 1, 2, 3, 4.
    fn inputs() -> GramStatistics {
        GramStatistics::new(2, vec![1.0, 4.0, 9.0, 16.0], None)
    }

    #[test]
    fn four_by_four_by_hand() {
        // Scores:   4   6   6   4 |  8  2  3  4 |  1  2  3  4 |  0  8  6  4
        #[rustfmt::skip]
        let weights = [
             4.0, 3.0, -2.0,  1.0,
            -8.0, 1.0,  1.0,  1.0,
             1.0, 1.0,  1.0, -1.0,
             0.0, 4.0, -2.0,  1.0,
        ];
        let layer = layer(4, 4, &weights);
        let kept = |request| columns(&prune_calibrated(&layer, &inputs(), &request).unwrap().pattern);
        let half = [vec![1, 2], vec![0, 3], vec![2, 3], vec![1, 2]];
        assert_eq!(kept(request(Method::Wanda, 0.5)), half);
        // floor(4 * 0.7) = 2 go; of the first row's two scores of 6 neither has to.
        assert_eq!(kept(request(Method::Wanda, 0.7)), half);
        // Three go: of the first row's scores of 6 the one of the lower column.
        assert_eq!(kept(request(Method::Wanda, 0.75)), [vec![2], vec![0], vec![3], vec![1]]);
        assert_eq!(kept(request(Method::Wanda, 0.0)), vec![vec![0, 1, 2, 3]; 4]);
        // Of every pair the higher score: 6 and 6, 8 and 4, 2 and 4, 8 and 6.
        assert_eq!(kept(nm(Method::Wanda, 1, 2)), [vec![1, 2], vec![0, 3], vec![1, 3], vec![1, 2]]);
    }

    proptest! {
        #[test]
        fn of_every_row_exactly_its_share_goes_the_lowest_first(
            (rows, cols) in (1usize..7, 1usize..90),
            quarters in prop::collection::vec(-6i8..6, 6 * 90),
            sparsity in 0.0f64..1.0,
        ) {
            // Few values, so that many scores tie.
            let weights: Vec<f32> = quarters[..rows * cols].iter().map(|&q| f32::from(q) / 4.0).collect();
            let squares: Vec<f32> = (0..cols).map(|col| [1.0, 0.0, 4.0][col % 3]).collect();
            let score = |row: usize, col: usize| weights[row * cols + col].abs() * squares[col].sqrt();
            let inputs = GramStatistics::new(1, squares.clone(), None);
            let pattern = prune_calibrated(&layer(rows, cols, &weights), &inputs, &request(Method::Wanda, sparsity)).unwrap().pattern;
            for row in 0..rows {
                let mut order: Vec<usize> = (0..cols).collect();
                order.sort_by(|&a, &b| score(row, a).total_cmp(&score(row, b)));
                let mut expected = order.split_off((cols as f64 * sparsity) as usize);
                expected.sort_unstable();
                prop_assert_eq!(pattern.columns_of(row).collect::<Vec<_>>(), expected);
            }
        }
    }
}
