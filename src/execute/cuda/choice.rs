//! Which of several kernels is fastest: timed once for a device and a shape, and kept.
//!
//! ```text
//!   ~/.cache/sparsify-exp/NVIDIA-H200/cuda/choices/DIGEST      the number of the fastest
//!                                                  └ of the candidates, the shape, and the library's version
//! ```
//! Nothing here knows what is chosen among. A choice holds for good, so that numbers do not change from run to run.

use super::hold;
use super::raw::{Gpu, keep, script};
use cubecl::cuda::CudaDevice;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// Each candidate is timed this often, after once that does not count.
const ROUNDS: usize = 8;
/// Calls of a round.
const CALLS: usize = 10;
/// How long the device is kept busy while the host launches a round's calls.
const HOLD: Duration = Duration::from_micros(400);
/// What another must gain over the first, which is the likeliest.
const MARGIN: f64 = 0.99;

/// By device and name.
static CHOSEN: LazyLock<Mutex<HashMap<(usize, String), usize>>> = LazyLock::new(Mutex::default);

/// The number of the fastest candidate of `count`, at least 1; `name` says what is chosen among and for which shape.
/// `prepare` is asked once if they must be timed, for what runs a candidate: its number, and the how-manieth call it is.
/// The first, where the device fails.
pub(super) fn fastest<R: Fn(usize, usize)>(
    gpu: &Gpu,
    device: &CudaDevice,
    name: &str,
    count: usize,
    prepare: impl FnOnce() -> R,
) -> usize {
    let key = (device.index, name.to_owned());
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = chosen.get(&key) {
        return *known;
    }
    let path = path(gpu, name);
    let kept = path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    let best = match kept {
        Some(kept) if kept < count => kept,
        _ if count <= 1 => 0,
        _ => {
            let best = script::aside(|| timed(gpu, device, count, prepare()));
            if let Some(path) = path {
                // Without it the next run times again.
                let _ = keep(&path, best.to_string().as_bytes());
            }
            best
        }
    };
    chosen.insert(key, best);
    best
}

/// The number that was chosen under a name in this process, if there was.
pub(super) fn known(device: &CudaDevice, name: &str) -> Option<usize> {
    let chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    chosen.get(&(device.index, name.to_owned())).copied()
}

fn timed(gpu: &Gpu, device: &CudaDevice, count: usize, run: impl Fn(usize, usize)) -> usize {
    let round = |candidate| {
        hold::hold(device, HOLD);
        let begin = gpu.mark()?;
        (0..CALLS).for_each(|call| run(candidate, call));
        begin.seconds_to(&gpu.mark()?)
    };
    let mut seconds = vec![Vec::with_capacity(ROUNDS); count];
    for at in 0..=ROUNDS {
        for (candidate, of_candidate) in seconds.iter_mut().enumerate() {
            match round(candidate) {
                Ok(taken) if at > 0 => of_candidate.push(taken),
                Ok(_) => {}
                Err::<f64, String>(_) => return 0,
            }
        }
    }
    best(&seconds)
}

/// The candidate with the least median, unless the first is about as fast.
fn best(seconds: &[Vec<f64>]) -> usize {
    let median = |of: &Vec<f64>| {
        let mut sorted = of.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let medians: Vec<f64> = seconds.iter().map(median).collect();
    let least = (0..medians.len()).min_by(|&a, &b| medians[a].total_cmp(&medians[b])).unwrap_or(0);
    if medians[least] < MARGIN * medians[0] { least } else { 0 }
}

fn path(gpu: &Gpu, name: &str) -> Option<PathBuf> {
    let folder = gpu.folder()?.join("choices");
    std::fs::create_dir_all(&folder).ok()?;
    let digest: String = Sha256::digest(name)[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    Some(folder.join(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stays_unless_another_gains() {
        let of = |all: &[&[f64]]| best(&all.iter().map(|of| of.to_vec()).collect::<Vec<_>>());
        assert_eq!(of(&[&[1.0, 1.0, 1.0], &[0.995, 0.995, 9.0]]), 0);
        assert_eq!(of(&[&[1.0, 1.0, 1.0], &[0.9, 0.9, 9.0], &[0.95, 0.2, 0.95]]), 1);
        assert_eq!(of(&[&[3.0]]), 0);
    }
}
