//! Whether a GPU answers, and which.

use crate::execute::device::DeviceError;
use cudarc::driver::{CudaContext, result};

/// How many GPUs answer.
///
/// # Errors
/// What was looked for and not found.
pub fn gpus() -> Result<usize, DeviceError> {
    // SAFETY: the calls look for shared libraries and have no other precondition.
    let (driver, compiler) =
        unsafe { (cudarc::driver::sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
    if !driver {
        return Err(DeviceError::NoDriver);
    }
    match CudaContext::device_count() {
        Ok(count) if count > 0 && compiler => Ok(count as usize),
        Ok(count) if count > 0 => Err(DeviceError::NoCompiler),
        Ok(_) => Err(DeviceError::NoGpu { reason: "the driver sees no GPU".into() }),
        Err(error) => Err(DeviceError::NoGpu { reason: format!("the driver answers {error:?}") }),
    }
}

/// The name of the GPU at an index, of those that answer.
pub fn name(index: usize) -> Option<String> {
    let device = result::device::get(i32::try_from(index).ok()?).ok()?;
    result::device::get_name(device).ok()
}
