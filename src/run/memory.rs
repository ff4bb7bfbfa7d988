//! Whether there is memory enough for the cells that will run, by their estimates; knows no kind of work.

use crate::plan::Planned;
use crate::record::Machine;
use std::fmt;

/// A cell that will run, and may take more memory than its device has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    cell: String,
    needs: u64,
    /// Where the memory is.
    place: &'static str,
    has: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cell, needs, place, has } = self;
        write!(f, "`{cell}` may take {} of memory, and {place} has {}", gib(*needs), gib(*has))
    }
}

/// The largest cell of each device that may lack memory for cells that will run.
pub(super) fn too_large(cells: &[Planned], machine: &Machine, device_index: usize) -> Vec<TooLarge> {
    let mut all = Vec::new();
    for on_gpu in [false, true] {
        let has = if on_gpu { machine.gpu_memory(device_index) } else { Some(machine.memory_bytes) };
        let here = cells.iter().filter(|planned| planned.runs() && planned.task.kind().backend().is_cpu() != on_gpu);
        let (Some(largest), Some(has)) = (here.max_by_key(|planned| planned.memory_bytes), has) else { continue };
        let needs = largest.memory_bytes;
        // What the system does not say is 0.
        if has > 0 && needs > has {
            let place = if on_gpu { "the GPU" } else { "this machine" };
            all.push(TooLarge { cell: largest.task.to_string(), needs, place, has });
        }
    }
    all
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}
