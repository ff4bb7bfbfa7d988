//! The clock that kernels and forms are chosen by on a GPU, and what was chosen in this process.
//!
//! ```text
//!   ~/.cache/sparsify-exp/NVIDIA-H200/cuda/choices/DIGEST.json      as crate::choice says
//! ```
//! Nothing here knows what is chosen among. A choice holds for good, so that numbers do not change from run to run.

use super::hold;
use super::raw::{Gpu, script};
use crate::choice::{Choice, Question, choose};
use cubecl::cuda::CudaDevice;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// Calls of a round.
const CALLS: usize = 10;
/// Bytes of weights that a candidate is timed on, in turn: three times the largest second-level cache.
const TIMED_BYTES: usize = 3 * (64 << 20);
/// The most copies of a weight, where a candidate has one of its own.
pub(super) const MOST_COPIES: usize = 32;
/// How long the device is kept busy while the host launches a round's calls.
const HOLD: Duration = Duration::from_micros(400);

/// By device and question; none where the device failed.
type Chosen = HashMap<(usize, String), Option<Choice>>;

static CHOSEN: LazyLock<Mutex<Chosen>> = LazyLock::new(Mutex::default);

/// As many copies of a weight of so many bytes as exceed every cache, but not more than `most`.
pub(super) fn copies(bytes: usize, most: usize) -> usize {
    (TIMED_BYTES / bytes.max(1) + 1).min(most)
}

/// How fast the candidates are; `what` says what is chosen among and for which shape. `prepare` is asked once if they must be
/// timed, for what runs a candidate: its number, and the how-manieth call it is. None where the device fails, a candidate can't be
/// run, or there is nothing to choose.
pub(super) fn fastest<R: Fn(usize, usize)>(
    gpu: &Gpu,
    device: &CudaDevice,
    what: &str,
    candidates: Vec<String>,
    prepare: impl FnOnce() -> Option<R>,
) -> Option<Choice> {
    if let Some(known) = known(device, what) {
        return known;
    }
    if candidates.len() < 2 {
        return None;
    }
    let question = Question { what: what.into(), made_by: gpu.made_by(), candidates };
    let (mut prepare, mut run) = (Some(prepare), None);
    // Nothing is locked meanwhile: what is timed may choose, too.
    let choice = script::aside(|| {
        choose(gpu.folder(), &question, &mut |candidate| {
            if let Some(prepare) = prepare.take() {
                run = prepare();
            }
            let Some(run) = &run else { return Err("nothing was prepared".into()) };
            hold::hold(device, HOLD);
            let begin = gpu.mark()?;
            (0..CALLS).for_each(|call| run(candidate, call));
            begin.seconds_to(&gpu.mark()?)
        })
    });
    let choice = choice.ok();
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    chosen.entry((device.index, what.to_owned())).or_insert(choice).clone()
}

/// What was chosen in this process, if that was asked.
pub(super) fn known(device: &CudaDevice, what: &str) -> Option<Option<Choice>> {
    let chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    chosen.get(&(device.index, what.to_owned())).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_exceed_every_cache_but_are_not_many() {
        for bytes in [1, 1 << 20, 90 << 20, 1 << 30] {
            let copies = copies(bytes, MOST_COPIES);
            assert!(copies == MOST_COPIES || copies * bytes > TIMED_BYTES, "{bytes}");
        }
    }
}
