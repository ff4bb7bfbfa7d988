//! How the processes of a run share its cells: a process asks for cells before it begins them. Knows neither processes
//! nor how they talk to each other: crew/ does.
//!
//! ```text
//!   cells      ─ ─ ─ │ ─ ─ ─ │ ─ ─ ─ │ ─ ─ ─        points of a plan, in its order
//!   process 1  takes ─>       takes ─>              all go the same way, each takes what nobody has taken
//!   process 2          takes ─>       takes ─>      and loads a model where it takes the first of its points
//! ```

use crate::plan::CellId;

/// What a process may run.
pub(super) trait Share {
    /// Asks for cells that belong together, before any of them begins; for each, whether this process is to run it.
    fn take(&self, cells: &[&CellId]) -> Vec<bool>;
    /// Which of this many batches to look at first, so that processes load different models as long as there are some.
    fn first(&self, batches: usize) -> usize;
    /// Whether to go through the cells once more: another process may have died with some.
    fn again(&self) -> bool;
    /// Whether there is no other process: then what is still to come is this one's too.
    fn sole(&self) -> bool;
}

/// A process that runs all cells itself.
pub(super) struct Sole;

impl Share for Sole {
    fn take(&self, cells: &[&CellId]) -> Vec<bool> {
        vec![true; cells.len()]
    }

    fn first(&self, _batches: usize) -> usize {
        0
    }

    fn again(&self) -> bool {
        false
    }

    fn sole(&self) -> bool {
        true
    }
}
