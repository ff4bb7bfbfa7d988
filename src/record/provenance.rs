//! Which program, on which machine.

use crate::hex::hex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// A build of this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// The commit that it was built from, where there was a repository.
    pub commit: Option<String>,
    /// Its cargo features.
    pub features: Vec<String>,
}

impl Program {
    /// The running program.
    pub fn current() -> Self {
        let features = [("x86-v4", cfg!(feature = "x86-v4")), ("cuda", cfg!(feature = "cuda"))];
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("SPARSIFY_EXP_COMMIT").map(Into::into),
            features: features.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).into()).collect(),
        }
    }
}

impl fmt::Display for Program {
    /// `0.1.0 (1a2b3c4)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.version)?;
        match &self.commit {
            Some(commit) => write!(f, " ({commit})"),
            None => Ok(()),
        }
    }
}

/// A machine, as far as it decides how fast things are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Operating system and its version.
    pub os: String,
    /// The processor's name.
    pub cpu: String,
    /// Logical processors that the process may use.
    pub cores: usize,
    /// The instruction set that the CPU kernels use.
    pub simd: String,
    /// Memory.
    pub memory_bytes: u64,
    /// The largest cache of a processor, where the system says so.
    #[serde(default)]
    pub last_cache_bytes: Option<u64>,
    /// GPUs with driver and memory, one a line of `nvidia-smi`; empty where there is none.
    pub gpus: Vec<String>,
}

impl Machine {
    /// This machine.
    pub fn current(simd: &str) -> Self {
        let mut system = sysinfo::System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_memory();
            system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
        }
        let cpu = system.as_ref().and_then(|system| Some(system.cpus().first()?.brand().trim().to_owned()));
        let cpu = cpu.filter(|brand| !brand.is_empty());
        let os = [sysinfo::System::name(), sysinfo::System::os_version()];
        Self {
            os: os.into_iter().flatten().collect::<Vec<_>>().join(" "),
            cpu: cpu.unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            simd: simd.into(),
            memory_bytes: system.map_or(0, |system| system.total_memory()),
            last_cache_bytes: last_cache_bytes(),
            gpus: gpus(),
        }
    }

    /// The name of the GPU at an index, without driver and memory.
    pub fn gpu(&self, index: usize) -> Option<&str> {
        Some(self.gpus.get(index)?.split(',').next()?.trim())
    }

    /// Bytes of memory of the GPU at an index.
    pub fn gpu_memory(&self, index: usize) -> Option<u64> {
        gpu_memory(self.gpus.get(index)?)
    }
}

/// What follows `, ` the last in `NAME, DRIVER, 143771 MiB`, in bytes.
fn gpu_memory(line: &str) -> Option<u64> {
    let memory = line.rsplit(',').next()?.trim().strip_suffix("MiB")?;
    memory.trim().parse::<u64>().ok()?.checked_mul(1 << 20)
}

/// The time, in UTC to the second.
pub fn now() -> String {
    jiff::Timestamp::now().round(jiff::Unit::Second).map_or_else(|_| String::new(), |now| now.to_string())
}

/// The SHA-256 of a text or file, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The largest cache of the first processor, where the system says so: Linux does.
pub fn last_cache_bytes() -> Option<u64> {
    let caches = std::fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let size = |cache: std::fs::DirEntry| cache_size(&std::fs::read_to_string(cache.path().join("size")).ok()?);
    caches.flatten().filter_map(size).max()
}

/// `107520K` in bytes.
fn cache_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// What `nvidia-smi` says: works for any build, and answers nothing where there is no driver.
fn gpus() -> Vec<String> {
    let query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"];
    let output = std::process::Command::new("nvidia-smi").args(query).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else { return Vec::new() };
    let lines = String::from_utf8_lossy(&output.stdout);
    lines.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_gpu_is_the_last_that_is_told() {
        assert_eq!(gpu_memory("NVIDIA H200, 580.95.05, 143771 MiB"), Some(143_771 << 20));
        assert_eq!([gpu_memory("NVIDIA H200, 580.95.05, [N/A]"), gpu_memory("")], [None; 2]);
    }

    #[test]
    fn cache_sizes_have_units() {
        assert_eq!(cache_size("107520K\n"), Some(107_520 << 10));
        assert_eq!(
            [cache_size("32M"), cache_size("512"), cache_size("1G")],
            [Some(32 << 20), Some(512), Some(1 << 30)]
        );
        assert_eq!([cache_size(""), cache_size("K"), cache_size("1 potato")], [None; 3]);
    }
}
