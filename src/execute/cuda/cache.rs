//! Compiled kernels, and which of several were found to be fastest, kept between runs.
//!
//! ```text
//!   ~/.cache/sparsify-exp/NVIDIA-H200/autotune/...            the fastest ones
//!                                    /kernels-BUILD/...       machine code of kernels in CubeCL
//!                                    /cuda/DIGEST.cubin       machine code of kernels in CUDA C++ (raw/source.rs)
//! ```
//! CubeCL keeps machine code by a kernel's name and parameters: neither the GPU nor the kernel's source is part of
//! that, so both are part of the folder. A `cubecl.toml` of the user's wins.

use super::probe;
use crate::execute::device::{DeviceError, kernel_cache};
use crate::hex::hex;
use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::UNIX_EPOCH;

/// Sets the caches, unless CubeCL has read its settings already; a folder that can't be written is left out.
/// To be called before the first use of a GPU.
pub fn install(index: usize) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if CubeClRuntimeConfig::storage().lock().is_none() {
            CubeClRuntimeConfig::set(settings(index));
        }
    });
}

/// Checks that the user's own settings can be read, if there are any.
///
/// # Errors
/// When they can't: CubeCL would panic.
pub fn check_settings() -> Result<(), DeviceError> {
    let here = std::env::current_dir().unwrap_or_default();
    users_settings(&here).map(drop)
}

fn settings(index: usize) -> CubeClRuntimeConfig {
    let here = std::env::current_dir().unwrap_or_default();
    let users = users_settings(&here).ok().flatten();
    let own = users.is_some();
    let mut settings = users.unwrap_or_default().override_from_env();
    let Some(folder) = probe::name(index).and_then(|gpu| writable(kernel_cache()?.join(folder_name(&gpu)))) else {
        return settings;
    };
    if settings.compilation.cache.is_none() {
        settings.compilation.cache = build().map(|build| CacheConfig::File(folder.join(format!("kernels-{build}"))));
    }
    if !own {
        settings.autotune.cache = CacheConfig::File(folder);
    }
    settings
}

/// The settings in the nearest file that CubeCL would find from a folder.
fn users_settings(from: &Path) -> Result<Option<CubeClRuntimeConfig>, DeviceError> {
    for folder in from.ancestors() {
        for name in CubeClRuntimeConfig::file_names() {
            let path = folder.join(name);
            if let Ok(text) = std::fs::read_to_string(&path) {
                return toml::from_str(&text).map(Some).map_err(|error| unreadable(path, &error));
            }
        }
        for (name, section) in CubeClRuntimeConfig::section_file_names() {
            let path = folder.join(name);
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let mut table: toml::Table = toml::from_str(&text).map_err(|error| unreadable(path.clone(), &error))?;
            if let Some(value) = table.remove(*section) {
                return value.try_into().map(Some).map_err(|error| unreadable(path, &error));
            }
        }
    }
    Ok(None)
}

fn unreadable(path: PathBuf, error: &toml::de::Error) -> DeviceError {
    DeviceError::Settings { path, reason: error.message().to_owned() }
}

/// The folder, made if need be, if a file can be made in it.
fn writable(folder: PathBuf) -> Option<PathBuf> {
    std::fs::create_dir_all(&folder).ok()?;
    tempfile::tempfile_in(&folder).ok()?;
    Some(folder)
}

/// `NVIDIA H200` as a folder.
pub(super) fn folder_name(gpu: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    gpu.chars().map(plain).collect()
}

/// What tells this build of the program from others, whose kernels may have other sources.
fn build() -> Option<String> {
    let file = std::env::current_exe().and_then(std::fs::metadata).ok()?;
    let written = file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let digest = Sha256::digest(format!("{} bytes, {} ns", file.len(), written.as_nanos()));
    Some(hex(&digest[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_settings_win_and_mistakes_are_told() {
        let lab = tempfile::tempdir().unwrap();
        let below = lab.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        let write = |name: &str, text: &str| std::fs::write(lab.path().join(name), text).unwrap();
        write("burn.toml", "[cubecl.compilation]\ncache = \"local\"\n");
        let found = users_settings(&below).unwrap().unwrap();
        assert!(matches!(found.compilation.cache, Some(CacheConfig::Local)));
        write("cubecl.toml", "[compilation]\ncache = \"global\"\n");
        let found = users_settings(&below).unwrap().unwrap();
        assert!(matches!(found.compilation.cache, Some(CacheConfig::Global)));
        write("cubecl.toml", "compilation = 3");
        let error = users_settings(&below).unwrap_err();
        assert!(error.to_string().contains("cubecl.toml` can't be read: invalid type"), "{error}");
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_left_out() {
        let lab = tempfile::tempdir().unwrap();
        std::fs::write(lab.path().join("file"), "").unwrap();
        assert_eq!(writable(lab.path().join("file/below")), None);
        let made = lab.path().join("x/y");
        assert_eq!(writable(made.clone()), Some(made));
        assert_eq!(folder_name("NVIDIA H200 NVL/2"), "NVIDIA-H200-NVL-2");
        assert_eq!(build().unwrap().len(), 16);
    }
}
