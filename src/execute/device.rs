//! Which device answers, as data; and where a device's kernels are kept between runs.

use crate::config::experiment::{BackendChoice, Dtype};
use crate::plan::Backend;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a device can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DeviceError {
    /// The program was built without CUDA.
    #[error("`backend = \"cuda\"`, but this program was built without the `cuda` feature")]
    CudaNotBuiltIn,
    /// The driver's library can't be opened.
    #[error("`backend = \"cuda\"`, but no GPU answers: the driver's library (libcuda.so) was not found")]
    NoDriver,
    /// The library that compiles kernels can't be opened.
    #[error(
        "`backend = \"cuda\"`, but kernels can't be compiled: CUDA's run-time compiler (libnvrtc.so) was not found"
    )]
    NoCompiler,
    /// The headers that kernels include are not there.
    #[error(
        "`backend = \"cuda\"`, but kernels can't be compiled: `{HEADER}` was not found{}",
        .looked.as_ref().map(|folder| format!(" in `{}`", folder.display())).unwrap_or_default()
    )]
    NoHeaders {
        /// Where it was looked for; none where no folder of CUDA's was found.
        looked: Option<PathBuf>,
    },
    /// The driver sees no GPU, or does not work.
    #[error("`backend = \"cuda\"`, but no GPU answers: {reason}")]
    NoGpu {
        /// What the driver says.
        reason: String,
    },
    /// There are fewer GPUs than that.
    #[error("`device.index` is {index}, but {} there", if *.count == 1 { "only 1 GPU is".into() } else { format!("{count} GPUs are") })]
    NoSuchGpu {
        /// The index asked for.
        index: usize,
        /// GPUs that answer.
        count: usize,
    },
    /// The user's own settings of the kernels' runtime can't be read.
    #[error("`{}` can't be read: {reason}", .path.display())]
    Settings {
        /// The file: `cubecl.toml`, `burn.toml`.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl DeviceError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::CudaNotBuiltIn => "build with `cargo build --release --features cuda`, or take `backend = \"auto\"`",
            Self::NoDriver | Self::NoGpu { .. } => "check `nvidia-smi`, or take `backend = \"auto\"`",
            Self::NoCompiler => {
                "install CUDA's NVRTC (`pip install nvidia-cuda-nvrtc` has it too) and name its folder in \
                 `LD_LIBRARY_PATH`, or take `backend = \"auto\"`"
            }
            Self::NoHeaders { .. } => {
                "install CUDA's headers (`pip install nvidia-cuda-runtime` has them too) and set `CUDA_PATH` to the \
                 folder that has `include`, or take `backend = \"auto\"`"
            }
            Self::NoSuchGpu { .. } => "GPUs count from 0",
            Self::Settings { .. } => "mend the file, or run in a folder without one above it",
        };
        Some(hint.into())
    }
}

/// Decides `auto`, and checks that the backend can be used.
///
/// # Errors
/// When a GPU is asked for and none can be used.
pub fn resolve(choice: BackendChoice, index: usize) -> Result<Backend, DeviceError> {
    match choice {
        BackendChoice::NdArray => Ok(Backend::NdArray),
        BackendChoice::Flex => Ok(Backend::Flex),
        BackendChoice::Cuda => gpu(index).map(|()| Backend::Cuda),
        BackendChoice::Auto => Ok(if gpu(index).is_ok() { Backend::Cuda } else { Backend::Flex }),
    }
}

/// What a backend computes in, unless the experiment says otherwise; `checkpoint` is what its weights are.
pub fn default_dtype(backend: Backend, checkpoint: Dtype) -> Dtype {
    if backend.is_cpu() { Dtype::F32 } else { checkpoint }
}

/// The folder for compiled kernels and for what was found to be fastest; none where the user has no folder.
pub fn kernel_cache() -> Option<PathBuf> {
    crate::cache::folder()
}

/// What multiplies dense matrices of 16-bit numbers on the GPU.
pub fn dense_library() -> String {
    #[cfg(feature = "cuda")]
    if let Some(library) = super::cuda::dense_library() {
        return library;
    }
    "kernels of this program".into()
}

/// A header that every kernel with halves includes.
const HEADER: &str = "include/cuda_fp16.h";

/// Checks that the headers are where CubeCL looks for them: `$CUDA_PATH` alone if it is set, else the first of
/// the usual folders.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
fn headers(cuda_path: Option<OsString>, exists: impl Fn(&Path) -> bool) -> Result<(), DeviceError> {
    // The second one tells that a folder is CUDA's.
    let usual = [("/usr/local/cuda", "/usr/local/cuda"), ("/opt/cuda", "/opt/cuda"), ("/usr", "/usr/bin/nvcc")];
    let installed = || usual.iter().find(|(_, sign)| exists(Path::new(sign))).map(|(folder, _)| PathBuf::from(folder));
    let folder = match cuda_path {
        Some(path) => Some(PathBuf::from(path)),
        None if cfg!(windows) => return Ok(()),
        None => installed(),
    };
    match folder {
        Some(folder) if exists(&folder.join(HEADER)) => Ok(()),
        looked => Err(DeviceError::NoHeaders { looked }),
    }
}

/// How many GPUs answer.
///
/// # Errors
/// When none can be used.
pub fn gpus() -> Result<usize, DeviceError> {
    #[cfg(feature = "cuda")]
    return super::cuda::probe::gpus();
    #[cfg(not(feature = "cuda"))]
    Err(DeviceError::CudaNotBuiltIn)
}

#[cfg(not(feature = "cuda"))]
fn gpu(_index: usize) -> Result<(), DeviceError> {
    Err(DeviceError::CudaNotBuiltIn)
}

#[cfg(feature = "cuda")]
fn gpu(index: usize) -> Result<(), DeviceError> {
    use super::cuda::{cache, probe};
    let count = probe::gpus()?;
    if index >= count {
        return Err(DeviceError::NoSuchGpu { index, count });
    }
    headers(std::env::var_os("CUDA_PATH"), Path::exists)?;
    cache::check_settings()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(cuda_path: Option<&str>, files: &[&str]) -> Result<(), DeviceError> {
        headers(cuda_path.map(OsString::from), |path| files.iter().any(|file| Path::new(file).starts_with(path)))
    }

    #[test]
    #[cfg(unix)]
    fn headers_are_looked_for_where_the_compiler_does() {
        assert_eq!(looked(None, &["/usr/local/cuda/include/cuda_fp16.h"]), Ok(()));
        assert_eq!(looked(None, &["/opt/cuda/include/cuda_fp16.h"]), Ok(()));
        assert_eq!(looked(None, &["/usr/bin/nvcc", "/usr/include/cuda_fp16.h"]), Ok(()));
        assert_eq!(looked(Some("/venv/cu13"), &["/venv/cu13/include/cuda_fp16.h"]), Ok(()));
        let missing = |cuda_path, files: &[&str]| match looked(cuda_path, files) {
            Err(error @ DeviceError::NoHeaders { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        let told = "`backend = \"cuda\"`, but kernels can't be compiled: `include/cuda_fp16.h` was not found";
        assert_eq!(missing(None, &["/usr/include/cuda_fp16.h"]), told);
        // The first folder counts, as for the compiler, also where the next one has them.
        let files = ["/usr/local/cuda/lib64/libcudart.so", "/opt/cuda/include/cuda_fp16.h"];
        assert_eq!(missing(None, &files), format!("{told} in `/usr/local/cuda`"));
        assert_eq!(missing(Some("/nowhere"), &files[1..]), format!("{told} in `/nowhere`"));
    }

    #[test]
    fn every_reason_has_a_hint() {
        let reasons = [
            DeviceError::CudaNotBuiltIn,
            DeviceError::NoDriver,
            DeviceError::NoCompiler,
            DeviceError::NoHeaders { looked: None },
            DeviceError::NoGpu { reason: "the driver sees no GPU".into() },
            DeviceError::NoSuchGpu { index: 2, count: 1 },
            DeviceError::Settings { path: "cubecl.toml".into(), reason: "no table".into() },
        ];
        for reason in &reasons {
            let (text, hint) = (reason.to_string(), reason.hint().unwrap());
            assert!(!text.ends_with('.') && !hint.ends_with('.') && hint.len() > 10, "{text}: {hint}");
        }
        assert_eq!(reasons[5].to_string(), "`device.index` is 2, but only 1 GPU is there");
        assert_eq!(
            DeviceError::NoSuchGpu { index: 2, count: 2 }.to_string(),
            "`device.index` is 2, but 2 GPUs are there"
        );
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn auto_is_flex_where_no_gpu_can_be_used() {
        assert_eq!(resolve(BackendChoice::Auto, 0), Ok(Backend::Flex));
        assert_eq!(resolve(BackendChoice::Cuda, 0), Err(DeviceError::CudaNotBuiltIn));
    }
}
