//! The process's own peak memory.

use std::fs;

/// A stretch of the process's life, of which the peak is asked.
#[derive(Debug)]
pub struct PeakRss {
    /// Whether the system forgot the peak of before.
    begun: bool,
}

impl PeakRss {
    /// Begins a stretch: the system forgets the peak, where it knows how to (Linux, `man 5 proc_pid_clear_refs`).
    pub fn begin() -> Self {
        Self { begun: fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// The most memory that the process has held since; none where only that of its whole life is known.
    pub fn bytes(&self) -> Option<u64> {
        if self.begun { peak_rss_bytes() } else { None }
    }
}

/// The most memory that the process has held at once since the last [`PeakRss::begin`], where the system says so.
pub(super) fn peak_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_of_before_is_forgotten() {
        const LARGE: usize = 256 << 20;
        let before = PeakRss::begin();
        drop(std::hint::black_box(vec![1u8; LARGE]));
        let with = before.bytes();
        let after = PeakRss::begin().bytes();
        if let (Some(with), Some(after)) = (with, after) {
            assert!(with > after, "{with} and {after}");
        }
    }
}
