//! Pruned models that one kind of work makes and another will ask for, so that none is calibrated twice in a run.

use super::model::Pruned;
use crate::plan::{AnalysisCell, Backend, MatrixFrom, Of, Planned, PrunePoint};
use std::cell::RefCell;

/// The most bytes that lie there: what has no room is pruned again.
const MOST: usize = 2 << 30;

/// Pruned linears of a model on a backend, at a point and a seed.
struct Lying {
    model: (String, Backend),
    point: PrunePoint,
    seed: Option<u64>,
    layers: Vec<Pruned>,
}

/// Pruned linears by model, point and seed.
#[derive(Default)]
pub(super) struct Shelf(RefCell<Vec<Lying>>);

impl Shelf {
    /// Puts linears there if a cell that is to run asks for them.
    pub fn put(
        &self,
        cells: &[Planned],
        (model, backend): (&str, Backend),
        point: &PrunePoint,
        seed: Option<u64>,
        layers: &[Pruned],
    ) {
        let asks = |cell: &AnalysisCell| {
            let own = |from: &MatrixFrom| matches!(from, MatrixFrom::Point(other) if other == point);
            (cell.model.as_deref(), cell.backend) == (Some(model), backend)
                && cell.sources.iter().any(|source| own(&source.from) && source.seed == seed)
        };
        let mut asking = cells.iter().filter(|planned| planned.runs()).filter_map(|p| AnalysisCell::of(&p.task));
        let mut shelf = self.0.borrow_mut();
        let held: usize = shelf.iter().flat_map(|lying| &lying.layers).map(Pruned::bytes).sum();
        let more: usize = layers.iter().map(Pruned::bytes).sum();
        let known = shelf.iter().any(|lying| lying.is((model, backend), point, seed));
        if held + more <= MOST && !known && asking.any(asks) {
            let (model, point) = ((model.to_owned(), backend), point.clone());
            shelf.push(Lying { model, point, seed, layers: layers.to_vec() });
        }
    }

    /// Takes them from there, if they are there.
    pub fn take(&self, model: (&str, Backend), point: &PrunePoint, seed: Option<u64>) -> Option<Vec<Pruned>> {
        let mut shelf = self.0.borrow_mut();
        let at = shelf.iter().position(|lying| lying.is(model, point, seed))?;
        Some(shelf.swap_remove(at).layers)
    }
}

impl Lying {
    fn is(&self, (model, backend): (&str, Backend), point: &PrunePoint, seed: Option<u64>) -> bool {
        (self.model.0.as_str(), self.model.1, &self.point, self.seed) == (model, backend, point, seed)
    }
}
