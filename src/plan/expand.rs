//! Experiment → cells: the product of every block's axes, the union of the blocks.

use super::model::{Backend, Cell, PrunePoint};
use crate::config::Experiment;
use crate::config::experiment::{Dtype, NmPattern, Point, PruneBlock, Variant};
use serde_json::json;
use std::collections::HashSet;

/// Every cell of an experiment, each once.
///
/// `backends` are the experiment's, with `auto` decided; `dtype` is the default of each backend for
/// the checkpoint at hand, asked for by model and backend; `tokens` is how many a model sees at once when it matters
/// most.
///
/// Order: model, backend; then `dense`; then block by block, the axes of a block as they are
/// written, seeds and variants innermost, so that the cells of a prune point follow each other.
pub fn expand(
    experiment: &Experiment,
    backends: &[Backend],
    dtype: impl Fn(&str, Backend) -> Dtype,
    tokens: impl Fn(&str) -> usize,
) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    let points = points(experiment);
    let mut seen = HashSet::new();
    for model in experiment.models.iter().map(ToString::to_string) {
        for &backend in backends {
            if !seen.insert((model.clone(), backend)) {
                continue;
            }
            let dtype = experiment.dtype.unwrap_or_else(|| dtype(&model, backend));
            let decisive = tokens(&model);
            let cell = |prune, seed, variant| {
                let tokens = Cell::form_tokens(variant, backend, decisive);
                Cell { model: model.clone(), backend, dtype, prune, seed, variant, tokens }
            };
            if experiment.variants.contains(&Variant::Dense) {
                cells.push(cell(None, None, Variant::Dense));
            }
            for (point, seed) in &points {
                let pruned = experiment.variants.iter().filter(|variant| variant.needs_pruning());
                cells.extend(pruned.map(|&variant| cell(Some(point.clone()), *seed, variant)));
            }
        }
    }
    cells
}

/// The prune points of all blocks, each once, with the seeds that its result depends on.
pub fn points(experiment: &Experiment) -> Vec<(PrunePoint, Option<u64>)> {
    let mut points = Vec::new();
    // A point as its file has it can be hashed, which its numbers can't.
    let mut seen = HashSet::new();
    for block in &experiment.prune {
        for point in block.points() {
            if block.skip.iter().any(|skip| skip.hold(Point::KEY, &point)) {
                continue;
            }
            let method = point.method;
            let choices = if method.calibrates() { experiment.data.choices() } else { vec![None] };
            for calibration in choices {
                let point = PrunePoint { calibration, ..prune_point(block, point) };
                if !seen.insert(json!(point).to_string()) {
                    continue;
                }
                if method.uses_seed() {
                    points.extend(experiment.seeds.iter().map(|&seed| (point.clone(), Some(seed))));
                } else {
                    points.push((point, None));
                }
            }
        }
    }
    points
}

/// A point of a block, with those of the block's settings that its method uses.
fn prune_point(block: &PruneBlock, point: Point) -> PrunePoint {
    let Point { method, scope, pattern, sparsity } = point;
    let settings = method.settings(&block.settings);
    // An N:M pattern fixes the sparsity of every block of the model.
    let budget = block.owl.filter(|_| method.uses("budget") && pattern == NmPattern::Unstructured);
    let propagate = method.calibrates().then_some(block.propagate);
    let exclude = block.exclude.clone();
    let reference = block.reference.as_ref().filter(|_| method.uses("reference")).map(ToString::to_string);
    PrunePoint { method, scope, pattern, sparsity, exclude, settings, budget, propagate, calibration: None, reference }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::experiment::{Method, Owl, Propagate, Scope, SettingValue};
    use proptest::prelude::*;
    use std::path::Path;

    fn cells(text: &str) -> Vec<Cell> {
        let experiment = config::parse(Path::new("x.toml"), text, &[]).unwrap();
        expand(&experiment, &[Backend::Flex], |_, _| Dtype::F32, |_| 7)
    }

    #[test]
    fn dense_is_one_cell_whatever_the_grid() {
        let cells = cells(
            "name = 'x'\nseed = [0, 1]\n[model]\nsource = 'builtin:tiny-opt'\n\
             [[prune]]\nmethod = ['magnitude', 'random']\nsparsity = [0.3, 0.5]\nskip = [{ method = 'random', sparsity = 0.5 }]\n\
             [[prune]]\nmethod = 'magnitude'\nsparsity = 0.3\n",
        );
        let setups: Vec<String> = cells.iter().map(|c| format!("{} {:?}", c.setup(), c.seed)).collect();
        // Magnitude does not depend on the seed; the second block's point is already there.
        let expected = [
            "Dense None",
            "Masked30 None",
            "CSR30 None",
            "Masked50 None",
            "CSR50 None",
            "Masked30 Some(0)",
            "CSR30 Some(0)",
            "Masked30 Some(1)",
            "CSR30 Some(1)",
        ];
        assert_eq!(setups, expected);
    }

    #[test]
    fn a_point_has_what_its_method_uses() {
        let cells = cells(
            "name = 'x'\nseed = [0, 1]\n[model]\nsource = 'builtin:tiny-opt'\n[execute]\nvariants = 'masked'\n\
             [[prune]]\nmethod = ['magnitude', 'wanda', 'ria', 'given']\nsparsity = 0.5\npattern = ['unstructured', '2:4']\n\
             alpha = 1\nbudget = 'owl'\npropagate = 'dense'\n",
        );
        let points: Vec<(PrunePoint, Option<u64>)> = cells.into_iter().map(|c| (c.prune.unwrap(), c.seed)).collect();
        // Calibrated methods draw their calibration windows: a point a seed.
        assert_eq!(points.iter().map(|p| p.1.is_some()).collect::<Vec<_>>()[..3], [false, false, true]);
        assert_eq!(points.len(), 2 + 4 + 4 + 1);
        let of = |method| points.iter().map(|p| &p.0).filter(move |p| p.method == method);
        assert!(of(Method::Magnitude).all(|p| (p.settings.get("alpha"), p.budget, p.propagate) == (None, None, None)));
        let (wanda, ria) = (of(Method::Wanda).next().unwrap(), of(Method::Ria).next().unwrap());
        assert_eq!(
            (wanda.settings.get("alpha"), wanda.budget, wanda.propagate),
            (None, Some(Owl::default()), Some(Propagate::Dense))
        );
        assert_eq!((ria.settings.get("alpha"), ria.scope), (Some(SettingValue::Real(1.0)), Some(Scope::Layer)));
        let fixed = of(Method::Wanda).find(|p| p.scope.is_none()).unwrap();
        assert_eq!((fixed.pattern, fixed.budget), (NmPattern::NofM { n: 2, m: 4 }, None));
        assert_eq!(of(Method::Given).next().unwrap().target(), None);
    }

    #[test]
    fn points_that_blocks_share_are_there_once_however_many() {
        let list = |from: usize| (from..from + 20_000).map(|i| format!("{}", i as f64 / 40_000.0)).collect::<Vec<_>>();
        let block = |from| format!("[[prune]]\nmethod = 'magnitude'\nsparsity = [{}]\n", list(from).join(", "));
        let head = "name = 'x'\n[model]\nsource = 'builtin:tiny-opt'\n[execute]\nvariants = ['dense', 'masked']\n";
        let cells = cells(&[head.to_owned(), block(0), block(10_000)].concat());
        assert_eq!(cells.len(), 1 + 30_000);
        // Settings tell points apart: of alpha and of exclude.
        let block = |more: &str| format!("[[prune]]\nmethod = 'ria'\nsparsity = 0.5\n{more}\n");
        let text = [head, &block(""), &block("alpha = 1.0"), &block("exclude = []"), &block("alpha = 0.5")].concat();
        assert_eq!(self::cells(&text).len(), 1 + 3);
    }

    #[test]
    fn only_auto_is_chosen_for_tokens() {
        let text = "name = 'x'\n[model]\nsource = 'builtin:tiny-opt'\n[[prune]]\nmethod = 'magnitude'\nsparsity = 0.5\n\
                    [execute]\nvariants = ['masked', 'csr', 'auto']\n";
        assert_eq!(cells(text).iter().map(|cell| cell.tokens).collect::<Vec<_>>(), [None, None, Some(7)]);
    }

    proptest! {
        #[test]
        fn the_grid_is_the_product_of_its_axes(sparsities in 1usize..9, seeds in 1usize..4, masked in any::<bool>()) {
            let list = |n: usize, f: &dyn Fn(usize) -> String| (0..n).map(f).collect::<Vec<_>>().join(", ");
            let text = format!(
                "name = 'x'\nseed = [{}]\n[model]\nsource = 'builtin:tiny-opt'\n[execute]\nvariants = ['dense'{}, 'csr']\n\
                 [[prune]]\nmethod = 'random'\nscope = ['global', 'row']\nsparsity = [{}]\n",
                list(seeds, &|i| i.to_string()),
                if masked { ", 'masked'" } else { "" },
                list(sparsities, &|i| format!("0.{}", i + 1)),
            );
            let variants = if masked { 2 } else { 1 };
            prop_assert_eq!(cells(&text).len(), 1 + seeds * sparsities * 2 * variants);
        }
    }
}
