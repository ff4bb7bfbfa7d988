//! SparseGPT: weights go column by column, and the columns after them make up for what is lost.
//!
//! Frantar and Alistarh, "SparseGPT: massive language models can be accurately pruned in one-shot",
//! arXiv 2301.00774, algorithm 1. With the Hessian `H = 2 X^T X / tokens` and U, the upper Cholesky factor of its
//! inverse, removing `w_ij` costs `(w_ij / U_jj)^2`, and the columns after j take `w_ij / U_jj` times row j of U.
//!
//! ```text
//!   columns   0 .. start | start .. end           | end ..
//!             settled    | the block: rows settle | take the errors of the block at once:
//!                        | apart from each other  | W -= errors [rows, width] U [width, rest]
//! ```
//!
//! Without an N:M pattern the weights of a block that go are chosen when the block begins: of `rows * width` costs
//! those at most as large as the one at place `floor(rows * width * sparsity)`, counted from 0. An N:M pattern is
//! chosen at every M-th column, row by row. Input features that were always 0 lose their weights first.

use super::linalg::{Columns, add_product};
use super::{
    GramStatistics, Layer, Least, MethodEntry, Needs, NmPattern, PruneError, Remaining, Request, Scope, Setting, nm,
    select,
};
use crate::sparse::Pattern;
use rayon::prelude::*;
use std::ops::Range;

/// Shared with `admm`, which damps more.
pub(super) const DAMPING: Setting = Setting::real(
    "damping",
    "what is added to the diagonal of the Hessian, as a share of the diagonal's mean",
    0.01,
    Least::Above(0.0),
);
const BLOCKSIZE: Setting = Setting::count(
    "blocksize",
    "columns whose weights are chosen together, between two updates of the columns after them",
    128,
);

pub(super) const METHOD: MethodEntry = MethodEntry {
    settings: &[DAMPING, BLOCKSIZE],
    ..MethodEntry::calibrated(
        "sparsegpt",
        "the weights that cost least go, column by column, and the columns after them make up for it",
        &[Scope::Layer],
        Needs::Gram,
        prune,
    )
};

pub(super) fn prune(layer: &Layer<'_>, inputs: &GramStatistics, request: &Request) -> Result<Remaining, PruneError> {
    let width = request.settings.count(&BLOCKSIZE).max(1);
    let width = match request.pattern {
        NmPattern::Unstructured => width,
        NmPattern::NofM { n, m } => {
            nm::divides(layer, n, m)?;
            width.next_multiple_of(m as usize)
        }
    };
    let damping = request.settings.real(&DAMPING);
    let root = inputs.inverse_root(damping).map_err(|_| inputs.not_positive_definite(layer, damping))?;
    let mut work = Work::new(layer, inputs, &root);
    for start in (0..layer.cols).step_by(width) {
        let block = start..layer.cols.min(start + width);
        let errors = match request.pattern {
            NmPattern::Unstructured => work.settle_cheapest(&block, request.sparsity),
            NmPattern::NofM { n, m } => work.settle_groups(&block, n as usize, m as usize),
        };
        let of_block = &root[start * layer.cols..block.end * layer.cols];
        let behind = Columns { start: block.end, end: layer.cols, of: layer.cols };
        add_product(&mut work.weights, &errors, of_block, behind, -1.0);
    }
    Ok(work.remaining(layer))
}

/// A layer that is being pruned.
struct Work<'a> {
    cols: usize,
    /// `[rows, cols]`; settled where a block is done.
    weights: Vec<f32>,
    /// The bits of a [`Pattern`]: which weights are kept.
    kept: Vec<u64>,
    /// U, `[cols, cols]`.
    root: &'a [f32],
}

impl<'a> Work<'a> {
    fn new(layer: &Layer<'_>, inputs: &GramStatistics, root: &'a [f32]) -> Self {
        let cols = layer.cols;
        let mut weights = layer.weights.to_vec();
        for col in (0..cols).filter(|&col| inputs.squares()[col] == 0.0) {
            weights[col..].iter_mut().step_by(cols).for_each(|weight| *weight = 0.0);
        }
        Self { cols, weights, kept: vec![u64::MAX; layer.rows * cols.div_ceil(64)], root }
    }

    /// Removes the cheapest weights of a block; returns the errors `[rows, width]`.
    fn settle_cheapest(&mut self, block: &Range<usize>, sparsity: f64) -> Vec<f32> {
        let (cols, root, width) = (self.cols, self.root, block.len());
        let mut costs = vec![0; self.weights.len() / cols * width];
        costs.par_chunks_mut(width).zip(self.weights.par_chunks(cols)).for_each(|(costs, row)| {
            for (cost, col) in costs.iter_mut().zip(block.clone()) {
                *cost = cost_of(row[col], root[col * cols + col]);
            }
        });
        let place = super::to_prune(costs.len(), sparsity);
        let most = match sparsity > 0.0 {
            true => select::kth_smallest(
                &[costs.len()],
                |_, start, out| out.copy_from_slice(&costs[start..start + out.len()]),
                (place + 1).min(costs.len()),
            ),
            false => None,
        };
        self.settle(block, |row| {
            let costs = &costs[row * width..(row + 1) * width];
            move |i, _: &[f32]| most.is_some_and(|most| costs[i] <= most)
        })
    }

    /// Keeps the n dearest of every m weights of a row; returns the errors `[rows, width]`.
    fn settle_groups(&mut self, block: &Range<usize>, n: usize, m: usize) -> Vec<f32> {
        let (cols, root, start) = (self.cols, self.root, block.start);
        self.settle(block, |_| {
            let mut goes = 0u64;
            move |i, weights: &[f32]| {
                if i % m == 0 {
                    let mut costs = [0; NmPattern::MAX_M as usize];
                    for (cost, j) in costs[..m].iter_mut().zip(i..) {
                        *cost = cost_of(weights[j], root[(start + j) * (cols + 1)]);
                    }
                    goes = nm::lowest(m - n, &costs[..m]);
                }
                goes >> (i % m) & 1 == 1
            }
        })
    }

    /// Settles the columns of a block from left to right, the rows apart from each other. `chooser(row)` makes
    /// what says whether the weight at a place of the block goes, asked in order and given the block's weights.
    fn settle<C: FnMut(usize, &[f32]) -> bool>(
        &mut self,
        block: &Range<usize>,
        chooser: impl Fn(usize) -> C + Sync,
    ) -> Vec<f32> {
        let (cols, root) = (self.cols, self.root);
        let mut errors = vec![0.0; self.weights.len() / cols * block.len()];
        let rows = self.weights.par_chunks_mut(cols).zip(self.kept.par_chunks_mut(cols.div_ceil(64)));
        rows.zip(errors.par_chunks_mut(block.len())).enumerate().for_each(|(row, ((weights, kept), errors))| {
            let weights = &mut weights[block.clone()];
            let mut goes = chooser(row);
            for i in 0..weights.len() {
                if !goes(i, weights) {
                    continue;
                }
                let col = block.start + i;
                kept[col / 64] &= !(1 << (col % 64));
                let error = weights[i] / root[col * cols + col];
                errors[i] = error;
                weights[i] = 0.0;
                let behind = &root[col * cols + col + 1..col * cols + block.end];
                for (weight, u) in weights[i + 1..].iter_mut().zip(behind) {
                    *weight -= error * u;
                }
            }
        });
        errors
    }

    fn remaining(self, layer: &Layer<'_>) -> Remaining {
        let pattern = Pattern::from_words(layer.rows, layer.cols, self.kept);
        let pattern = pattern.unwrap_or_else(|| unreachable!("there are as many words as a pattern has"));
        Remaining { pattern, weights: Some(self.weights), ties: None }
    }
}

/// What removing a weight costs: `(w / U_jj)^2`, as bits that compare alike.
fn cost_of(weight: f32, root: f32) -> u32 {
    (weight * weight / (root * root)).to_bits()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, columns, layer, loss, nm, request};
    use super::super::{
        GramStatistics, Method, MethodSettings, PruneError, Remaining, Request, SettingValue, gram, prune_calibrated,
    };

    #[rustfmt::skip]
    const WEIGHTS: [f32; 16] = [
         1.0,  4.0,  2.0, 3.0,
         3.0, -2.0,  1.0, 1.0,
         5.0,  0.5, -2.0, 4.0,
        -6.0,  7.0,  1.0, 2.0,
    ];

    /// With R = 1 with 0.5 right of the diagonal, H = R R^T and two tokens: U = R^-1 has the rows
    /// `1 -1/2 1/4 -1/8`, `0 1 -1/2 1/4`, `0 0 1 -1/2`, `0 0 0 1`, so that a weight costs its square.
    fn inputs() -> GramStatistics {
        #[rustfmt::skip]
        let gram = vec![
            1.25, 0.5,  0.0,  0.0,
            0.5,  1.25, 0.5,  0.0,
            0.0,  0.5,  1.25, 0.5,
            0.0,  0.0,  0.5,  1.0,
        ];
        GramStatistics::new(2, vec![1.25, 1.25, 1.25, 1.0], Some(gram))
    }

    /// Without damping, in blocks of two columns.
    fn pruned(request: Request) -> Remaining {
        let settings =
            MethodSettings::given(&[("damping", SettingValue::Real(0.0)), ("blocksize", SettingValue::Count(2))]);
        prune_calibrated(&layer(4, 4, &WEIGHTS), &inputs(), &Request { settings, ..request }).unwrap()
    }

    #[test]
    fn four_by_four_by_hand() {
        // Costs of the first block: 1 16 | 9 4 | 25 1/4 | 36 49. At place floor(8 * 0.5) = 4 is 16: five go.
        //   row 0: error 1, the next weight is 4.5, error 4.5; the others: (2 3) - 1 (1/4 -1/8) - 4.5 (-1/2 1/4) = (4 2)
        //   row 1: error 3, the next weight is -0.5, error -0.5; the others: (1 1) - (3/4 -3/8) - (1/4 -1/8) = (0 1.5)
        //   row 2: error 0.5; the others: (-2 4) - 0.5 (-1/2 1/4) = (-1.75 3.875)
        // Costs of the second block: 16 4 | 0 2.25 | 3.06 15.02 | 1 4. At place 4 is 4: six go, one tied.
        //   row 2: error -1.75, the next weight is 3.875 - 0.875 = 3
        let remaining = pruned(request(Method::SparseGpt, 0.5));
        #[rustfmt::skip]
        let expected = [
             0.0, 0.0, 4.0, 0.0,
             0.0, 0.0, 0.0, 0.0,
             5.0, 0.0, 0.0, 3.0,
            -6.0, 7.0, 0.0, 0.0,
        ];
        close(remaining.weights.as_deref().unwrap(), &expected, 1e-6);
        assert_eq!(columns(&remaining.pattern), [vec![2], vec![], vec![0, 3], vec![0, 1]]);
        assert_eq!(pruned(request(Method::SparseGpt, 0.0)).weights.unwrap(), WEIGHTS);
    }

    #[test]
    fn groups_by_hand() {
        // Of every pair the cheaper goes, after the errors of the pair before:
        //   row 0: error 1,  weights . 4.5 1.75 3.125; error 1.75, the last weight is 4
        //   row 1: error -2, weights 3 . 0 1.5; error 0
        //   row 2: error 0.5, weights 5 . -1.75 3.875; error -1.75, the last weight is 3
        //   row 3: error -6, weights . 4 2.5 1.25; the last one goes
        let remaining = pruned(nm(Method::SparseGpt, 1, 2));
        #[rustfmt::skip]
        let expected = [
            0.0, 4.5, 0.0, 4.0,
            3.0, 0.0, 0.0, 1.5,
            5.0, 0.0, 0.0, 3.0,
            0.0, 4.0, 2.5, 0.0,
        ];
        close(remaining.weights.as_deref().unwrap(), &expected, 1e-6);
        assert_eq!(columns(&remaining.pattern), [vec![1, 3], vec![0, 3], vec![0, 3], vec![1, 2]]);
    }

    #[test]
    fn a_group_is_never_cut_by_a_block() {
        let inputs = gram::tests::correlated(24, 100, 3);
        let weights: Vec<f32> = (0..72).map(|i| ((i * 29) % 31) as f32 - 15.0).collect();
        let of = |blocksize| {
            let settings = MethodSettings::given(&[("blocksize", SettingValue::Count(blocksize))]);
            let request = Request { settings, ..nm(Method::SparseGpt, 3, 8) };
            prune_calibrated(&layer(3, 24, &weights), &inputs, &request).unwrap().pattern
        };
        // Blocks of 3 and 5 become blocks of 8; whether errors wait for a block's end changes roundings alone.
        assert_eq!(of(3), of(8));
        assert_eq!(of(5), of(24));
    }

    #[test]
    fn inputs_that_are_always_zero_cost_nothing() {
        let gram = vec![2.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0];
        let inputs = GramStatistics::new(4, vec![2.0, 0.0, 2.0], Some(gram));
        let weights = [1.0, 9.0, 2.0, 3.0, -9.0, 4.0];
        let remaining = prune_calibrated(&layer(2, 3, &weights), &inputs, &request(Method::SparseGpt, 0.2)).unwrap();
        assert_eq!(columns(&remaining.pattern), [[0, 2], [0, 2]]);
        assert_eq!(remaining.weights.unwrap(), [1.0, 0.0, 2.0, 3.0, 0.0, 4.0]);
    }

    #[test]
    fn hessians_that_say_nothing_are_refused() {
        let inputs = GramStatistics::new(7, vec![1.0, 1.0], Some(vec![1.0, 2.0, 2.0, 1.0]));
        let error = prune_calibrated(&layer(1, 2, &[1.0, 2.0]), &inputs, &request(Method::SparseGpt, 0.5)).unwrap_err();
        assert!(matches!(&error, PruneError::NotPositiveDefinite { tokens: 7, cols: 2, .. }), "{error:?}");
        assert!(error.to_string().contains("`layer`") && error.hint().unwrap().contains("raise `damping`"), "{error}");
    }

    #[test]
    fn what_is_made_up_for_is_lost_less_than_by_wanda() {
        for seed in 0..4 {
            let (rows, cols) = (24, 160);
            let inputs = gram::tests::correlated(cols, 2 * cols, seed);
            let mut noise = gram::tests::noise(seed + 100);
            let weights: Vec<f32> = (0..rows * cols).map(|_| noise()).collect();
            let layer = layer(rows, cols, &weights);
            for of in [|method| request(method, 0.5), |method| nm(method, 2, 4)] {
                let lost = |method| loss(&layer, &inputs, &prune_calibrated(&layer, &inputs, &of(method)).unwrap());
                let (wanda, sparsegpt, admm) = (lost(Method::Wanda), lost(Method::SparseGpt), lost(Method::Admm));
                assert!(admm < sparsegpt && sparsegpt < 0.9 * wanda, "{seed}: {wanda} {sparsegpt} {admm}");
            }
        }
    }
}
