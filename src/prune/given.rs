//! Weights that are 0 already are pruned: the pattern of a checkpoint that was pruned elsewhere.
//!
//! Nothing is chosen here, so that there is no sparsity, scope or pattern to ask for.

use super::{Decided, Layer, MethodEntry, PruneError, Request};
use crate::sparse::Pattern;

pub(super) const METHOD: MethodEntry = MethodEntry::weights(
    "given",
    "the weights that are 0 in the checkpoint are pruned: a model that was pruned elsewhere",
    &[],
    prune,
);

pub(super) fn prune(layers: &[Layer<'_>], _first: usize, _request: &Request) -> Result<Decided, PruneError> {
    let nonzero =
        |layer: &Layer<'_>| Pattern::keep_where(layer.rows, layer.cols, &layer.weights, |_, weight| weight != 0.0);
    Ok(Decided { patterns: layers.iter().map(nonzero).collect(), ties: None })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{layer, request};
    use super::super::{Method, prune};

    #[test]
    fn four_by_four_by_hand() {
        #[rustfmt::skip]
        let weights = [
            0.1, 0.0, -0.0, 2.0,
            0.0, 0.0,  0.0, 0.0,
            1.0, 1.0,  1.0, 1.0,
            0.0, 1e-45, 0.0, -3.0,
        ];
        let patterns = prune(&[layer(4, 4, &weights)], &request(Method::Given, 0.0)).unwrap();
        let kept: Vec<Vec<usize>> = (0..4).map(|row| patterns[0].columns_of(row).collect()).collect();
        assert_eq!(kept, [vec![0, 3], vec![], vec![0, 1, 2, 3], vec![1, 3]]);
    }
}
