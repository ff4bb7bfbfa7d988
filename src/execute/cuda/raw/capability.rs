//! What a GPU is to these kernels: which code of the sources it runs, and whether it is known to run it right.
//!
//! ```text
//!   Hopper                         measured and tested
//!   any other, from Turing on      asked once a process, by a few products (`cuda/trial.rs`): nobody has run them there
//!   SPARSIFY_EXP_KERNELS_OF=80     a test: a newer GPU runs what one of that compute capability would
//! ```

use cudarc::driver::{result, sys};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// The variable that names an older compute capability, as 75, 80, 86 or 89.
const AS_OLDER: &str = "SPARSIFY_EXP_KERNELS_OF";
/// H100 and H200, which the kernels were measured on.
const HOPPER: u32 = 90;
/// The oldest that the sources are written for.
const OLDEST: u32 = 75;

/// A compute capability: 90 is 9.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    own: u32,
    /// Whose code it runs.
    runs: u32,
}

impl Capability {
    /// None where the driver does not say.
    pub fn of(device: usize) -> Option<Self> {
        let [major, minor] = attributes(
            device,
            [
                sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            ],
        )?;
        let own = u32::try_from(10 * major + minor).ok()?;
        Some(Self::new(own, std::env::var(AS_OLDER).ok().as_deref()))
    }

    fn new(own: u32, older: Option<&str>) -> Self {
        let older = older.and_then(|older| older.parse().ok()).filter(|older| (OLDEST..own).contains(older));
        Self { own, runs: older.unwrap_or(own) }
    }

    /// Whether the kernels were measured on such a GPU.
    pub fn is_measured(self) -> bool {
        [self.own, self.runs] == [HOPPER; 2]
    }

    pub fn is_old_enough(self) -> bool {
        self.runs >= OLDEST
    }

    /// What is compiled for.
    pub fn architecture(self) -> String {
        // What Hopper alone has.
        format!("sm_{}{}", self.own, if self.own == HOPPER { "a" } else { "" })
    }

    /// Whose code it runs, where that is not its own.
    pub fn older(self) -> Option<u32> {
        Some(self.runs).filter(|&runs| runs != self.own)
    }

    /// Whether launches may begin before those in front of them have ended.
    pub fn launches_early(self) -> bool {
        self.runs >= HOPPER
    }

    /// Bytes of shared memory that a block may have, of those that the GPU has for it: CUDA C++ Programming Guide, table
    /// "Technical Specifications per Compute Capability".
    pub fn shared(self, own: usize) -> usize {
        let kilobytes = match self.runs {
            ..80 => 64,
            80 | 87 => 163,
            81..90 => 99,
            90.. => 227,
        };
        if self.older().is_some() { own.min(kilobytes << 10) } else { own }
    }
}

/// Two properties of a device.
pub(super) fn attributes(device: usize, names: [sys::CUdevice_attribute; 2]) -> Option<[i32; 2]> {
    let device = result::device::get(i32::try_from(device).ok()?).ok()?;
    // SAFETY: the device is one of the driver's.
    let value = |name| unsafe { result::device::get_attribute(device, name) }.ok();
    Some([value(names[0])?, value(names[1])?])
}

/// Whether the kernels are right on a device, where that was asked.
static TRUSTED: LazyLock<Mutex<HashMap<usize, bool>>> = LazyLock::new(Mutex::default);

/// What is known of a device that the kernels were not measured on.
pub(in crate::execute::cuda) fn trusted(device: usize) -> Option<bool> {
    TRUSTED.lock().unwrap_or_else(PoisonError::into_inner).get(&device).copied()
}

/// Notes whether the kernels may be used.
pub(in crate::execute::cuda) fn trust(device: usize, right: bool) {
    TRUSTED.lock().unwrap_or_else(PoisonError::into_inner).insert(device, right);
}

/// Whether a device runs the code of an older one, for a test.
pub(in crate::execute::cuda) fn is_older(device: usize) -> bool {
    Capability::of(device).is_some_and(|capability| capability.older().is_some())
}

/// Whether a device's code has tensor cores for bf16.
pub(in crate::execute::cuda) fn has_bf16(device: usize) -> bool {
    Capability::of(device).is_some_and(|capability| capability.runs >= 80)
}

/// Whether a device has to be asked: the kernels can run there, were not measured, and nothing is known.
pub(in crate::execute::cuda) fn is_unknown(device: usize) -> bool {
    let capability = Capability::of(device);
    capability.is_some_and(|capability| !capability.is_measured() && capability.is_old_enough())
        && trusted(device).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_runs_its_own_code_or_that_of_an_older_one() {
        let hopper = Capability::new(90, None);
        assert!(hopper.is_measured() && hopper.launches_early());
        assert_eq!((hopper.architecture().as_str(), hopper.older(), hopper.shared(9)), ("sm_90a", None, 9));
        let as_turing = Capability::new(90, Some("75"));
        assert!(!as_turing.is_measured() && !as_turing.launches_early());
        assert_eq!((as_turing.architecture().as_str(), as_turing.older()), ("sm_90a", Some(75)));
        assert_eq!(
            [75, 80, 86].map(|of| Capability::new(90, Some(&of.to_string())).shared(227 << 10) >> 10),
            [64, 163, 99]
        );
        // No newer code than its own, none that is too old, and nothing that is no number.
        for (own, other) in [(80, "90"), (90, "61"), (80, "80"), (90, "x")] {
            assert_eq!(Capability::new(own, Some(other)), Capability::new(own, None));
        }
        let turing = Capability::new(75, None);
        assert!(!turing.is_measured() && turing.is_old_enough() && !Capability::new(61, None).is_old_enough());
        assert_eq!(turing.architecture(), "sm_75");
        assert!(Capability::new(120, None).launches_early() && !Capability::new(120, None).is_measured());
    }
}
