//! Which cells are whose. Knows no processes: a worker is a number.
//!
//! ```text
//!   unit    cells of one point, in order      Open ──take──> Taken(worker) ──all done──> Done
//!                                               ^                │ the worker dies
//!                                               └────────────────┘ once; the second time the cell that it had begun
//!                                                                  fails, and the rest is open again
//! ```
//! What a worker died with goes to another one, which may have another device.

use crate::plan::CellId;
use std::collections::HashMap;

/// How many workers a cell may take with it before it counts as failed.
const DEATHS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Taken(usize),
    Done,
}

#[derive(Clone, Debug)]
struct Unit {
    /// Those that are not done.
    cells: Vec<CellId>,
    state: State,
    /// The cell that was begun last, until it is done.
    begun: Option<CellId>,
    /// Workers that died with the same cell.
    deaths: usize,
    /// The last of them.
    died: Option<usize>,
}

/// What follows from a worker's death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// It had no cells.
    WithoutCells,
    /// Its cells are another's now.
    WithCells,
    /// Its cell counts as failed; the others of its point are another's now.
    OfCell(CellId),
}

/// Whose cells are whose.
pub(super) struct Ledger {
    units: Vec<Unit>,
    unit_of: HashMap<CellId, usize>,
}

impl Ledger {
    /// Units of cells that nobody has; the order is that of the plan.
    pub fn new(units: Vec<Vec<CellId>>) -> Self {
        let of = |(index, cells): (usize, &Vec<CellId>)| cells.iter().map(|id| (id.clone(), index)).collect::<Vec<_>>();
        let unit_of = units.iter().enumerate().flat_map(of).collect();
        let unit = |cells| Unit { cells, state: State::Open, begun: None, deaths: 0, died: None };
        Self { units: units.into_iter().map(unit).collect(), unit_of }
    }

    /// Gives a worker the open cells of the unit that one of them is of; none where it is another's, or done.
    pub fn take(&mut self, worker: usize, of: &CellId) -> Vec<CellId> {
        self.settle(worker);
        let Some(&index) = self.unit_of.get(of) else { return Vec::new() };
        if !self.units[index].is_open_for(worker) {
            return Vec::new();
        }
        self.units[index].state = State::Taken(worker);
        self.units[index].cells.clone()
    }

    /// A worker has begun a cell.
    pub fn begins(&mut self, worker: usize, cell: &CellId) {
        if let Some(unit) = self.taken_by(worker)
            && unit.cells.contains(cell)
        {
            unit.begun = Some(cell.clone());
        }
    }

    /// A worker has stored a cell; whether it is the first to do so.
    pub fn done(&mut self, worker: usize, cell: &CellId) -> bool {
        let Some(unit) = self.taken_by(worker) else { return false };
        let Some(at) = unit.cells.iter().position(|id| id == cell) else { return false };
        unit.cells.remove(at);
        // Whatever killed a worker before, it was not what follows.
        (unit.begun, unit.deaths) = (None, 0);
        if unit.cells.is_empty() {
            unit.state = State::Done;
        }
        true
    }

    /// A worker has gone through all cells: what it took and did not do, it will not do.
    pub fn settle(&mut self, worker: usize) {
        if let Some(unit) = self.taken_by(worker) {
            unit.state = State::Done;
        }
    }

    /// A worker has died.
    pub fn died(&mut self, worker: usize) -> Death {
        let Some(unit) = self.taken_by(worker) else { return Death::WithoutCells };
        unit.deaths += 1;
        unit.died = Some(worker);
        unit.state = State::Open;
        let suspect = unit.begun.take().or_else(|| unit.cells.first().cloned());
        match suspect {
            Some(cell) if unit.deaths >= DEATHS => {
                unit.cells.retain(|id| *id != cell);
                (unit.deaths, unit.died) = (0, None);
                if unit.cells.is_empty() {
                    unit.state = State::Done;
                }
                Death::OfCell(cell)
            }
            Some(_) | None => Death::WithCells,
        }
    }

    /// Whether there is something that this worker may take.
    pub fn has_for(&self, worker: usize) -> bool {
        self.units.iter().any(|unit| unit.is_open_for(worker))
    }

    /// Whether any worker has cells that are not done.
    pub fn is_busy(&self) -> bool {
        self.units.iter().any(|unit| matches!(unit.state, State::Taken(_)))
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.units.iter().all(|unit| unit.state == State::Done)
    }

    fn taken_by(&mut self, worker: usize) -> Option<&mut Unit> {
        self.units.iter_mut().find(|unit| unit.state == State::Taken(worker))
    }
}

impl Unit {
    fn is_open_for(&self, worker: usize) -> bool {
        self.state == State::Open && self.died != Some(worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: usize) -> CellId {
        CellId::named(format!("{number:04x}"))
    }

    /// Units of these many cells, numbered through.
    fn ledger(sizes: &[usize]) -> (Ledger, Vec<Vec<CellId>>) {
        let mut next = 0..;
        let units: Vec<Vec<CellId>> = sizes.iter().map(|size| next.by_ref().take(*size).map(id).collect()).collect();
        (Ledger::new(units.clone()), units)
    }

    #[test]
    fn a_point_is_one_workers() {
        let (mut ledger, units) = ledger(&[2, 1]);
        assert_eq!(ledger.take(0, &id(0)), units[0]);
        assert!(ledger.take(1, &id(1)).is_empty());
        assert_eq!(ledger.take(1, &id(2)), units[1]);
        assert!(!ledger.has_for(2) && ledger.is_busy());
        assert!(ledger.done(0, &id(0)) && !ledger.done(0, &id(0)) && !ledger.done(1, &id(1)));
        assert!(ledger.done(0, &id(1)) && ledger.done(1, &id(2)) && ledger.is_done());
    }

    #[test]
    fn what_a_worker_died_with_goes_to_another_without_what_is_done() {
        let (mut ledger, _) = ledger(&[3]);
        ledger.take(0, &id(0));
        ledger.begins(0, &id(0));
        ledger.done(0, &id(0));
        ledger.begins(0, &id(1));
        assert_eq!(ledger.died(0), Death::WithCells);
        assert!(!ledger.has_for(0) && ledger.take(0, &id(0)).is_empty());
        assert_eq!(ledger.take(1, &id(0)), [id(1), id(2)]);
        assert_eq!(ledger.died(2), Death::WithoutCells);
    }

    #[test]
    fn a_cell_that_kills_two_workers_fails_and_the_rest_goes_on() {
        let (mut ledger, _) = ledger(&[3]);
        for worker in [0, 1] {
            ledger.take(worker, &id(0));
            ledger.begins(worker, &id(0));
            if worker == 0 {
                assert_eq!(ledger.died(worker), Death::WithCells);
            }
        }
        assert_eq!(ledger.died(1), Death::OfCell(id(0)));
        // Anybody may take the rest, also the one that died last; the next cell has two tries again.
        assert_eq!(ledger.take(1, &id(0)), [id(1), id(2)]);
        ledger.begins(1, &id(1));
        assert_eq!(ledger.died(1), Death::WithCells);
        assert_eq!(ledger.take(0, &id(0)), [id(1), id(2)]);
        assert!(ledger.done(0, &id(1)) && ledger.done(0, &id(2)) && ledger.is_done());
    }

    #[test]
    fn a_worker_that_dies_before_its_first_cell_is_held_against_that_cell() {
        let (mut ledger, _) = ledger(&[1]);
        ledger.take(0, &id(0));
        assert_eq!(ledger.died(0), Death::WithCells);
        ledger.take(1, &id(0));
        assert_eq!(ledger.died(1), Death::OfCell(id(0)));
        assert!(ledger.is_done());
    }

    proptest! {
        /// Whatever workers do and whoever dies, every cell is done or fails exactly once, and the work ends.
        #[test]
        fn no_cell_is_lost_and_none_is_done_twice(
            sizes in proptest::collection::vec(1..4usize, 1..8),
            dice in proptest::collection::vec((0..3usize, 0..10u8), 0..400),
        ) {
            let (mut ledger, units) = ledger(&sizes);
            let all: Vec<CellId> = units.into_iter().flatten().collect();
            let mut hands: Vec<Vec<CellId>> = vec![Vec::new(); 3];
            let mut ended: Vec<CellId> = Vec::new();
            // The dice first, then everybody works quietly.
            let quiet = (0..1000).map(|step| (step % 3, 9));
            for (worker, luck) in dice.into_iter().chain(quiet) {
                match hands[worker].first().cloned() {
                    None => hands[worker] = all.iter().map(|id| ledger.take(worker, id)).find(|c| !c.is_empty()).unwrap_or_default(),
                    Some(cell) if luck == 0 => {
                        ledger.begins(worker, &cell);
                        hands[worker].clear();
                        match ledger.died(worker) {
                            Death::OfCell(cell) => ended.push(cell),
                            Death::WithCells => {}
                            Death::WithoutCells => prop_assert!(false, "it had cells"),
                        }
                    }
                    Some(cell) => {
                        ledger.begins(worker, &cell);
                        prop_assert!(ledger.done(worker, &cell));
                        hands[worker].remove(0);
                        ended.push(cell);
                    }
                }
            }
            prop_assert!(ledger.is_done() && !ledger.is_busy());
            ended.sort();
            prop_assert_eq!(ended, all);
        }
    }
}
