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
    /// How many processes share that memory.
    workers: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cell, needs, place, has, workers } = self;
        write!(f, "`{cell}` may take {} of memory, and {place} has {}", gib(*needs), gib(*has))?;
        if *workers > 1 { write!(f, " for {workers} workers") } else { Ok(()) }
    }
}

/// The largest cell of each device that may lack memory for cells that will run. Workers have a GPU each, and share the
/// machine's memory.
pub(super) fn too_large(cells: &[Planned], machine: &Machine, device_index: usize, workers: usize) -> Vec<TooLarge> {
    let mut all = Vec::new();
    for on_gpu in [false, true] {
        let workers = if on_gpu { 1 } else { workers.max(1) as u64 };
        let has = if on_gpu { machine.gpu_memory(device_index) } else { Some(machine.memory_bytes) };
        let here = cells.iter().filter(|planned| planned.runs() && planned.task.kind().backend().is_cpu() != on_gpu);
        let (Some(largest), Some(has)) = (here.max_by_key(|planned| planned.memory_bytes), has) else { continue };
        let needs = largest.memory_bytes;
        // What the system does not say is 0.
        if has > 0 && needs.saturating_mul(workers) > has {
            let place = if on_gpu { "the GPU" } else { "this machine" };
            all.push(TooLarge { cell: largest.task.to_string(), needs, place, has, workers });
        }
    }
    all
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Dtype, Method, NmPattern, Scope, Variant};
    use crate::plan::{Backend, Cell, Inputs, PrunePoint};

    fn planned(backend: Backend, memory_bytes: u64) -> Planned {
        let point = PrunePoint::new(Method::Magnitude, Some(Scope::Global), NmPattern::Unstructured, 0.5, Vec::new());
        let cell = Cell {
            model: "synthetic:llama-2-7b".into(),
            prune: Some(point),
            seed: None,
            variant: Variant::Masked,
            backend,
            dtype: Dtype::F16,
            tokens: None,
        };
        Planned::new(cell, Inputs::default(), |_| Vec::new(), memory_bytes)
    }

    #[test]
    fn what_needs_more_than_there_is_is_said_for_each_device() {
        let gib = |n: u64| n << 30;
        let machine =
            Machine { memory_bytes: gib(8), gpus: vec!["NVIDIA X, 1.2, 16384 MiB".into()], ..Machine::current("") };
        let said = |cells: &[Planned]| -> Vec<String> {
            too_large(cells, &machine, 0, 1).iter().map(ToString::to_string).collect()
        };
        assert!(said(&[planned(Backend::Flex, gib(8)), planned(Backend::Cuda, gib(16))]).is_empty());
        let cells = [planned(Backend::Flex, gib(9)), planned(Backend::Flex, gib(12)), planned(Backend::Cuda, gib(17))];
        assert_eq!(
            said(&cells),
            [
                "`synthetic:llama-2-7b magnitude global Masked50 flex f16` may take 12.0 GiB of memory, and this \
                 machine has 8.0 GiB",
                "`synthetic:llama-2-7b magnitude global Masked50 cuda f16` may take 17.0 GiB of memory, and the GPU has \
                 16.0 GiB",
            ]
        );
        // Workers share what the machine has, and have a GPU each.
        let cells = [planned(Backend::Flex, gib(3)), planned(Backend::Cuda, gib(16))];
        assert!(too_large(&cells, &machine, 0, 2).is_empty());
        let [shared] = &too_large(&cells, &machine, 0, 3)[..] else { panic!("the CPU's cell alone is too large") };
        assert!(shared.to_string().ends_with("may take 3.0 GiB of memory, and this machine has 8.0 GiB for 3 workers"));
        // What does not run needs nothing, and a machine that does not say what it has is not held against it.
        let kept = Planned { selected: false, ..planned(Backend::Flex, gib(12)) };
        assert!(said(&[kept]).is_empty());
        let silent = Machine { memory_bytes: 0, gpus: Vec::new(), ..machine.clone() };
        assert!(too_large(&cells, &silent, 0, 1).is_empty());
    }
}
