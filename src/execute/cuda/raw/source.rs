//! Sources and their macros, compiled by NVRTC for one architecture, and kept.
//!
//! A file holds machine code. Its name is a digest of everything that it was made of: source, macros, architecture,
//! compiler and driver. It is written beside and moved, so that nobody reads half of one.

use crate::execute::device::kernel_cache;
use crate::hex::hex;
use cubecl::cuda::install::{cccl_include_path, cuda_path, include_path};
use cudarc::nvrtc::{result as nvrtc, sys};
use sha2::{Digest, Sha256};
use std::ffi::{CStr, CString};
use std::io::Write;
use std::path::PathBuf;

/// What every source begins with.
const COMMON: [&str; 2] = [include_str!("common.cuh"), include_str!("elements.cuh")];

/// A kernel: an entry of a source that is compiled with some macros.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kernel {
    pub source: Source,
    pub entry: &'static str,
    /// In the order of their definition.
    pub macros: Vec<(&'static str, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Decode,
    Delta,
    Dense,
    Flash,
    Likely,
    Nm,
    Octets,
    Panels,
}

impl Source {
    fn text(self) -> &'static str {
        match self {
            Self::Decode => include_str!("decode.cu"),
            Self::Delta => include_str!("delta.cu"),
            Self::Dense => include_str!("dense.cu"),
            Self::Flash => include_str!("flash.cu"),
            Self::Likely => include_str!("likely.cu"),
            Self::Nm => include_str!("nm.cu"),
            Self::Octets => include_str!("octets.cu"),
            Self::Panels => include_str!("panels.cu"),
        }
    }
}

/// What machine code depends on beside its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `sm_90a`
    pub architecture: String,
    /// As the driver gives it: 13000.
    pub driver: i32,
    /// The folder of this GPU's kernels; none where nothing can be kept.
    pub folder: Option<PathBuf>,
    /// As what it runs our sources, where that is older: 80.
    pub older: Option<u32>,
}

impl Kernel {
    /// The machine code.
    ///
    /// # Errors
    /// What the compiler says.
    pub(super) fn compiled(&self, target: &Target) -> Result<Vec<u8>, String> {
        let older = target.older.map(|older| format!("#define ARCHITECTURE {older}0\n"));
        compiled(&[older.unwrap_or_default(), self.text()].concat(), target)
    }

    /// What it is called where launches are told apart: one that makes its inputs says so.
    pub(super) fn label(&self) -> String {
        let reads = self.macros.iter().find(|(name, _)| *name == "READS").map_or(0, |(_, value)| *value);
        let before = ["", "norm+", "gate+"].get(reads as usize).copied().unwrap_or_default();
        format!("{before}{}", self.entry)
    }

    fn text(&self) -> String {
        let macros: String = self.macros.iter().map(|(name, value)| format!("#define {name} {value}\n")).collect();
        [&macros, COMMON[0], COMMON[1], self.source.text()].concat()
    }
}

/// The machine code of a text, from the folder if it is there.
///
/// # Errors
/// What the compiler says.
pub(super) fn compiled(text: &str, target: &Target) -> Result<Vec<u8>, String> {
    let path = target.folder.as_ref().map(|folder| folder.join(format!("{}.cubin", digest(text, target))));
    if let Some(code) = path.as_ref().and_then(|path| std::fs::read(path).ok()).filter(|code| !code.is_empty()) {
        return Ok(code);
    }
    let code = compile(text, &target.architecture)?;
    if let Some(path) = path {
        // Without it the next run compiles again.
        let _ = keep(&path, &code);
    }
    Ok(code)
}

/// The folder of a GPU's kernels.
pub(super) fn folder(gpu: &str) -> Option<PathBuf> {
    let folder = kernel_cache()?.join(super::super::cache::folder_name(gpu)).join("cuda");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder)
}

fn digest(text: &str, target: &Target) -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two numbers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    let Target { architecture, driver, .. } = target;
    let digest = Sha256::digest(format!("{architecture} {driver} {major}.{minor}\n{text}"));
    hex(&digest[..16])
}

/// Writes a file beside its place and moves it there.
///
/// # Errors
/// What the system says.
fn keep(path: &std::path::Path, code: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(path))?;
    file.write_all(code)?;
    file.persist(path)?;
    Ok(())
}

fn compile(text: &str, architecture: &str) -> Result<Vec<u8>, String> {
    // CubeCL's path panics where there is no folder.
    cuda_path().ok_or("CUDA's headers were not found")?;
    let include = |path: PathBuf| format!("--include-path={}", path.display());
    let options = [
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".into(),
        include(include_path()),
        include(cccl_include_path()),
    ];
    let text = CString::new(text).map_err(|error| error.to_string())?;
    let failed = |error: nvrtc::NvrtcError| format!("{error:?}");
    let program = nvrtc::create_program(&text, None).map_err(failed)?;
    // SAFETY: `program` was just made and is destroyed once, after its last use; the buffers are as long as NVRTC says.
    unsafe {
        let compiled = nvrtc::compile_program(program, &options);
        let code = match compiled {
            Ok(()) => code_of(program).map_err(failed),
            Err(error) => {
                let log = nvrtc::get_program_log(program).map_err(failed)?;
                Err(format!("it can't be compiled: {}", told(&CStr::from_ptr(log.as_ptr()).to_string_lossy(), &error)))
            }
        };
        nvrtc::destroy_program(program).map_err(failed)?;
        code
    }
}

/// What the compiler says, or which error it gives where it says nothing.
fn told(log: &str, error: &nvrtc::NvrtcError) -> String {
    let log = log.trim();
    if log.is_empty() { format!("{error:?}") } else { log.to_owned() }
}

/// # Safety
/// The program was compiled.
unsafe fn code_of(program: sys::nvrtcProgram) -> Result<Vec<u8>, nvrtc::NvrtcError> {
    let mut length = 0;
    // SAFETY: the program was compiled, and the buffer is as long as the first call says.
    unsafe {
        sys::nvrtcGetCUBINSize(program, &mut length).result()?;
        let mut code = vec![0u8; length];
        sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result()?;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_come_before_what_uses_them() {
        let kernel = Kernel { source: Source::Delta, entry: "delta_rows", macros: vec![("TOKENS", 4)] };
        let text = kernel.text();
        assert_eq!(kernel.label(), "delta_rows");
        let reads = Kernel { macros: vec![("TOKENS", 1), ("READS", 2)], ..kernel };
        assert_eq!(reads.label(), "gate+delta_rows");
        assert!(text.starts_with("#define TOKENS 4\n") && text.contains("void __launch_bounds__"));
        assert!(text.find("typedef unsigned int u32").unwrap() < text.find("struct DeltaParams").unwrap());
        for (source, entries) in [
            (Source::Delta, ["delta_rows", "delta_expand"]),
            (Source::Octets, ["octets_rows", "octets_expand"]),
            (Source::Nm, ["nm_rows", "nm_expand"]),
        ] {
            assert!(entries.iter().all(|entry| source.text().contains(&format!("{entry}("))), "{source:?}");
        }
    }

    #[test]
    fn what_is_kept_is_whole_and_replaces_what_was_there() {
        let lab = tempfile::tempdir().unwrap();
        let path = lab.path().join("a.cubin");
        for code in [&b"one"[..], b"another"] {
            keep(&path, code).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), code);
        }
        assert_eq!(std::fs::read_dir(lab.path()).unwrap().count(), 1);
    }
}
