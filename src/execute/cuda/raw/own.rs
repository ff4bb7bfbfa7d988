//! A user's kernel: its text with what it may rely on in front, and its launches.

use super::stream::{Gpu, Server};
use crate::config::arena::ArenaLaunch;
use crate::execute::own::OwnSource;
use burn::tensor::DType;
use cubecl::server::{ComputeServer, Handle};
use cudarc::driver::sys;
use std::ffi::c_void;

/// A compiled kernel on the stream of the thread that compiled it.
#[derive(Clone)]
pub(in crate::execute::cuda) struct OwnFunction {
    gpu: Gpu,
    /// A `CUfunction`.
    function: usize,
    launch: ArenaLaunch,
}

impl OwnFunction {
    /// # Errors
    /// What compiler or driver say.
    pub fn compile(gpu: Gpu, source: &OwnSource, dtype: DType) -> Result<Self, String> {
        let shared = source.launch.shared as usize;
        if shared > gpu.shared {
            return Err(format!("`kernel.shared` is {shared}, and a block of this GPU has {} at most", gpu.shared));
        }
        let function = gpu.compile(&text(source, dtype), &source.entry, shared)?;
        Ok(Self { gpu, function, launch: source.launch })
    }

    /// Launches it; what comes of it is seen where something waits.
    ///
    /// # Panics
    /// On the server's thread where the driver refuses, so that whatever waits for the numbers fails.
    pub fn run(&self, buffers: Vec<Handle>, sizes: [u32; 4]) {
        let (own, buffers) = (self.clone(), bindings(buffers));
        self.gpu.submit(move |server: &mut Server| {
            // SAFETY: what the user's kernel does with its arguments is the user's matter.
            if let Err(error) = unsafe { own.launched(server, buffers, sizes, None) } {
                panic!("{error}");
            }
        });
    }

    /// Fills the last buffer of this many bytes with NaN, launches the kernel and waits for it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn checked(&self, buffers: Vec<Handle>, sizes: [u32; 4], bytes: usize) -> Result<(), String> {
        let (own, buffers) = (self.clone(), bindings(buffers));
        let ran = self.gpu.handle.submit_blocking(move |server: &mut Server| {
            // SAFETY: as in `run`; the last buffer has this many bytes.
            unsafe {
                own.launched(server, buffers, sizes, Some(bytes))?;
                let waited = cudarc::driver::result::stream::synchronize(own.gpu.stream as sys::CUstream);
                waited.map_err(|error| format!("it failed while it ran: {error:?}"))
            }
        });
        ran.map_err(|error| format!("{error:?}"))?
    }

    /// # Safety
    /// On the server's thread. The kernel takes these parameters; the last buffer has the bytes to be filled.
    unsafe fn launched(
        &self,
        server: &mut Server,
        buffers: Vec<cubecl::server::Binding>,
        mut sizes: [u32; 4],
        filled: Option<usize>,
    ) -> Result<(), String> {
        let resources: Vec<_> = buffers.into_iter().map(|binding| server.get_resource(binding, self.gpu.id)).collect();
        let mut addresses: Vec<u64> = Vec::with_capacity(resources.len());
        for resource in &resources {
            match resource {
                Ok(resource) => addresses.push(resource.resource().ptr),
                Err(error) => return Err(format!("a buffer is gone: {error:?}")),
            }
        }
        let stream = self.gpu.stream as sys::CUstream;
        let last = addresses.last().copied();
        let mut arguments: Vec<*mut c_void> =
            addresses.iter_mut().map(|address| std::ptr::from_mut(address).cast()).collect();
        arguments.extend(sizes.iter_mut().map(|size| std::ptr::from_mut(size).cast::<c_void>()));
        let ArenaLaunch { grid, block, shared } = self.launch;
        let config = sys::CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: block[0],
            blockDimY: block[1],
            blockDimZ: block[2],
            sharedMemBytes: shared,
            hStream: stream,
            attrs: std::ptr::null_mut(),
            numAttrs: 0,
        };
        // SAFETY: the function is of this thread's context; the arguments live until the call returns, which copies them;
        // the caller's promise.
        unsafe {
            if let (Some(bytes), Some(last)) = (filled, last) {
                let filled = sys::cuMemsetD8Async(last, 0xff, bytes, stream).result();
                filled.map_err(|error| format!("the output can't be filled: {error:?}"))?;
            }
            let function = self.function as sys::CUfunction;
            let launched = sys::cuLaunchKernelEx(&config, function, arguments.as_mut_ptr(), std::ptr::null_mut());
            launched.result().map_err(|error| format!("it can't be launched: {error:?}"))
        }
    }
}

fn bindings(buffers: Vec<Handle>) -> Vec<cubecl::server::Binding> {
    buffers.into_iter().map(Handle::binding).collect()
}

/// The user's text behind what every one may rely on; lines are counted as in the user's file.
fn text(source: &OwnSource, dtype: DType) -> String {
    let number = match dtype {
        DType::F32 => "float",
        DType::BF16 => "__nv_bfloat16",
        _ => "__half",
    };
    let name = source.name.replace(['\\', '"', '\n'], "_");
    let front = format!(
        "#include <cuda_fp16.h>\n#include <cuda_bf16.h>\ntypedef {number} number;\n#define NUMBER_BYTES {}\n",
        dtype.size()
    );
    format!("{front}#line 1 \"{name}\"\n{}\n", source.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_lines_are_counted_from_one() {
        let launch = ArenaLaunch { grid: [1; 3], block: [1; 3], shared: 0 };
        let source = OwnSource { name: "a\"b.cu".into(), text: "line one\nline two".into(), entry: "f".into(), launch };
        let text = text(&source, DType::BF16);
        assert!(text.contains("typedef __nv_bfloat16 number;\n#define NUMBER_BYTES 2\n#line 1 \"a_b.cu\"\nline one\n"));
        assert!(super::text(&source, DType::F32).contains("typedef float number;\n#define NUMBER_BYTES 4\n"));
    }
}
