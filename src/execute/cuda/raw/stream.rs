//! Burn's stream of the calling thread, and launches on it.
//!
//! CubeCL's server owns the stream and gives no name to it; the server's debug text has its address. The version of
//! CubeCL is pinned, the text is read once for a thread and device, and where it does not look as it should there is no
//! [`Gpu`], so that callers take other kernels. Work is handed to the server's thread, where it comes after whatever
//! the calling thread asked for before, and whose context is the device's.
//!
//! ```text
//!   … MultiStream { streams: StreamPool { streams: [None, Some(StreamWrapper { stream: Stream { sys: 0x7f.., …
//!                                                  └ by the thread's number, modulo how many there may be
//! ```

use super::capability::{self, Capability, attributes};
use super::page;
use super::source::{self, Kernel, Target};
use crate::execute::KERNEL_POLICY_VERSION;
use crate::execute::cuda::probe;
use burn::tensor::DType;
use cubecl::Runtime;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::device::Device;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::{ComputeServer, Handle};
use cubecl::stream_id::StreamId;
use cudarc::driver::{result, sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

pub(super) type Server = <CudaRuntime as Runtime>::Server;

/// Bytes of a buffer that is asked for so that a thread has a stream.
const ANY_BYTES: usize = 32;

/// A device and the calling thread's stream there.
#[derive(Clone)]
pub(in crate::execute::cuda) struct Gpu {
    pub(super) device: usize,
    pub(super) handle: DeviceHandle<Server>,
    /// A `CUstream`.
    pub(super) stream: usize,
    pub(super) id: StreamId,
    /// Whether the stream is another thread's: what comes behind on the calling thread's own would not wait for it.
    pub(super) borrowed: bool,
    capability: Capability,
    target: Arc<Target>,
    /// Bytes of shared memory that a block may have.
    pub shared: usize,
    pub processors: usize,
}

/// A launch, but for its buffers.
pub(super) struct Launch<'a> {
    pub kernel: &'a Kernel,
    pub blocks: usize,
    pub threads: usize,
    pub shared: usize,
    /// Whether it may begin before the launch in front of it has ended; it then waits for that one itself.
    pub early: bool,
    /// The first buffer as the tensor copy engine reads it, in place of its address.
    pub map: Option<Map>,
    pub passing: Passing,
    /// The struct that is the kernel's last parameter.
    pub params: Vec<u32>,
}

/// How a kernel takes its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// A parameter each.
    Apart,
    /// One struct of all addresses.
    Together,
}

/// A launch with the addresses of its buffers, which may be repeated while these are held.
struct Ready {
    function: usize,
    blocks: usize,
    threads: usize,
    shared: usize,
    early: bool,
    addresses: Vec<u64>,
    map: Option<sys::CUtensorMap>,
    passing: Passing,
    params: Vec<u32>,
}

impl Ready {
    /// Puts the launch on a stream; `may` says whether it may begin early, if it can.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// On a thread whose context is the device's; the kernel stays inside the buffers, which are there.
    unsafe fn put(&self, stream: usize, may: bool) -> Result<(), result::DriverError> {
        let pointer = |address: &u64| std::ptr::from_ref(address).cast_mut().cast::<c_void>();
        let mut arguments: Vec<*mut c_void> = match self.passing {
            Passing::Apart => self.addresses.iter().map(pointer).collect(),
            Passing::Together => vec![self.addresses.as_ptr().cast_mut().cast()],
        };
        if let Some(map) = &self.map {
            arguments[0] = std::ptr::from_ref(map).cast_mut().cast();
        }
        arguments.push(self.params.as_ptr().cast_mut().cast());
        // SAFETY: the arguments are the kernel's parameters in order and live until the call returns, which copies them
        // and writes none; the stream is this device's.
        unsafe {
            let mut attribute: sys::CUlaunchAttribute = std::mem::zeroed();
            attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            attribute.value.programmaticStreamSerializationAllowed = 1;
            let config = sys::CUlaunchConfig {
                gridDimX: self.blocks as u32,
                gridDimY: 1,
                gridDimZ: 1,
                blockDimX: self.threads as u32,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: self.shared as u32,
                hStream: stream as sys::CUstream,
                attrs: &mut attribute,
                numAttrs: u32::from(self.early && may),
            };
            let function = self.function as sys::CUfunction;
            sys::cuLaunchKernelEx(&config, function, arguments.as_mut_ptr(), std::ptr::null_mut()).result()
        }
    }
}

/// A matrix of 16-bit numbers as the tensor copy engine reads it: in boxes, with the pattern of 128 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    pub dtype: DType,
    pub lines: usize,
    pub length: usize,
    pub box_lines: usize,
    pub box_length: usize,
}

impl Map {
    /// # Errors
    /// What the driver says: a line has no multiple of 16 bytes, say.
    fn encoded(self, address: u64) -> Result<sys::CUtensorMap, result::DriverError> {
        let number = match self.dtype {
            DType::BF16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        };
        let sizes = [self.length as u64, self.lines as u64];
        let strides = [self.length as u64 * 2];
        let box_sizes = [self.box_length as u32, self.box_lines as u32];
        let steps = [1, 1];
        let mut map = MaybeUninit::uninit();
        // SAFETY: the arrays have as many numbers as there are dimensions, the strides one less; a map is only read if
        // it was written.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                number,
                2,
                address as *mut c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                box_sizes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
            .result()?;
            Ok(map.assume_init())
        }
    }
}

thread_local! {
    static GPUS: RefCell<HashMap<usize, Gpu>> = RefCell::new(HashMap::new());
}

/// By device: that of the first thread whose stream was found.
static FIRST: LazyLock<Mutex<HashMap<usize, Gpu>>> = LazyLock::new(Mutex::default);

/// A kernel's address, by device; or why there is none.
type Functions = HashMap<(usize, Kernel), Result<usize, String>>;

static FUNCTIONS: LazyLock<Mutex<Functions>> = LazyLock::new(Mutex::default);

impl Gpu {
    /// None where the kernels are not known to be right on the device, or no stream can be found.
    pub(in crate::execute::cuda) fn of(device: &CudaDevice) -> Option<Self> {
        // A test that names an older GPU and asks nothing first compares the kernels itself.
        let is_tested = |gpu: &Self| gpu.capability.older().is_some();
        // Every launch comes here: what is known of others is behind a lock.
        let is_right = |gpu: &Self| {
            gpu.capability.is_measured() || capability::trusted(gpu.device).unwrap_or_else(|| is_tested(gpu))
        };
        Self::any(device).filter(is_right)
    }

    /// Any device; none where no thread's stream can be found. A thread whose own can't be found borrows one, and waits
    /// for each of its launches.
    pub(in crate::execute::cuda) fn any(device: &CudaDevice) -> Option<Self> {
        if let Some(known) = GPUS.with_borrow(|gpus| gpus.get(&device.index).cloned()) {
            return Some(known);
        }
        let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
        let found = own_or_borrowed(Self::find(device), first.get(&device.index))?;
        first.entry(device.index).or_insert_with(|| found.clone());
        GPUS.with_borrow_mut(|gpus| gpus.insert(device.index, found.clone()));
        Some(found)
    }

    fn find(device: &CudaDevice) -> Option<Self> {
        // Makes the stream, where the thread has none yet.
        let _buffer = CudaRuntime::client(device).empty(ANY_BYTES);
        let handle = DeviceHandle::<Server>::new(device.to_id());
        let id = StreamId::current();
        let most = usize::from(CubeClRuntimeConfig::get().streaming.max_streams);
        let text = handle.submit_blocking(|server| format!("{server:?}")).ok()?;
        let stream = stream_in(&text, id.value as usize % most)?;
        let [shared, processors] = attributes(device.index, SHARED)?;
        let capability = Capability::of(device.index)?;
        let target = Target {
            architecture: capability.architecture(),
            older: capability.older(),
            driver: driver()?,
            folder: probe::name(device.index).and_then(|gpu| source::folder(&gpu)),
        };
        let [shared, processors] = [usize::try_from(shared).ok()?, usize::try_from(processors).ok()?];
        let shared = capability.shared(shared);
        let target = Arc::new(target);
        Some(Self { device: device.index, handle, stream, id, borrowed: false, capability, target, shared, processors })
    }

    /// Has the server's thread work after what was asked for before; on a borrowed stream, waits until that has run.
    pub(super) fn submit(&self, work: impl FnOnce(&mut Server) + Send + 'static) {
        self.handle.submit(work);
        if self.borrowed {
            let stream = self.stream;
            // What fails here fails again where the numbers are read.
            let _ = self.handle.submit_blocking(move |_: &mut Server| {
                // SAFETY: the stream is the server's, which lives as long as the program.
                unsafe { result::stream::synchronize(stream as sys::CUstream) }
            });
        }
    }

    /// A time on the stream, after what was asked for before.
    ///
    /// # Errors
    /// What the driver says.
    pub(in crate::execute::cuda) fn mark(&self) -> Result<Mark, String> {
        let stream = self.stream;
        let recorded = self.handle.submit_blocking(move |_: &mut Server| {
            let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)?;
            // SAFETY: event and stream are of the context of the server's thread.
            unsafe { result::event::record(event, stream as sys::CUstream) }.map(|()| event as usize)
        });
        let event = recorded.map_err(|error| format!("{error:?}"))?.map_err(|error| format!("{error:?}"))?;
        Ok(Mark { handle: self.handle.clone(), event })
    }

    /// The folder of this GPU's machine code and choices; none where nothing can be kept.
    pub(in crate::execute::cuda) fn folder(&self) -> Option<&std::path::Path> {
        self.target.folder.as_deref()
    }

    /// What a choice depends on beside what is chosen among.
    pub(in crate::execute::cuda) fn made_by(&self) -> String {
        let Target { architecture, driver, older, .. } = &*self.target;
        let gpu = probe::name(self.device).unwrap_or_default();
        let older = older.map_or_else(String::new, |older| format!(" as {older}"));
        format!("{gpu}, {architecture}{older}, driver {driver}, kernels {KERNEL_POLICY_VERSION}")
    }

    /// Whether a kernel can be launched, which compiles it.
    pub(super) fn has(&self, kernel: &Kernel) -> bool {
        self.function(kernel).is_ok()
    }

    /// Launches a kernel with buffers and the parameters after them.
    ///
    /// # Panics
    /// On the server's thread where the driver refuses, so that whatever waits for the numbers fails.
    ///
    /// # Safety
    /// The kernel writes and reads inside the buffers, given these parameters.
    pub(super) unsafe fn launch(&self, launch: Launch<'_>, buffers: Vec<Handle>) {
        let function = match self.function(launch.kernel) {
            Ok(function) => function,
            Err(error) => panic!("{}: {error}", launch.kernel.entry),
        };
        let (stream, id, entry, label) = (self.stream, self.id, launch.kernel.entry, launch.kernel.label());
        let Launch { blocks, threads, shared, early, map, passing, params, .. } = launch;
        let early = early && self.capability.launches_early();
        page::hold(&buffers);
        let pen = page::pen();
        let bindings: Vec<_> = buffers.into_iter().map(Handle::binding).collect();
        self.submit(move |server: &mut Server| {
            // Also waits for the streams of other threads that wrote the buffers. They are held until the launch.
            let resources: Vec<_> = bindings.into_iter().map(|binding| server.get_resource(binding, id)).collect();
            let mut addresses: Vec<u64> = Vec::with_capacity(resources.len());
            for resource in &resources {
                match resource {
                    Ok(resource) => addresses.push(resource.resource().ptr),
                    Err(error) => panic!("{entry}: a buffer is gone: {error:?}"),
                }
            }
            let map = match map.map(|map| map.encoded(addresses[0])).transpose() {
                Ok(map) => map,
                Err(error) => panic!("{entry}: the inputs can't be mapped: {error:?}"),
            };
            let ready = Ready { function, blocks, threads, shared, early, addresses, map, passing, params };
            // SAFETY: the function is the kernel's of this device, whose context is this thread's; the caller's promise.
            if let Err(error) = unsafe { ready.put(stream, true) } {
                panic!("{entry}: the launch failed: {error:?}");
            }
            if let Some(pen) = pen {
                // SAFETY: as above; the script holds the buffers.
                pen.write(label, move |stream, first| {
                    unsafe { ready.put(stream, !first) }.map_err(|e| format!("{e:?}"))
                });
            }
        });
    }

    fn function(&self, kernel: &Kernel) -> Result<usize, String> {
        let key = (self.device, kernel.clone());
        let mut functions = FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(&key) {
            return function.clone();
        }
        let function = self.load(kernel);
        functions.entry(key).or_insert(function).clone()
    }

    fn load(&self, kernel: &Kernel) -> Result<usize, String> {
        self.function_of(kernel.compiled(&self.target)?, kernel.entry, None)
    }

    /// Compiles a text that is no kernel of ours, and gives its function's address.
    ///
    /// # Errors
    /// What compiler or driver say.
    pub(super) fn compile(&self, text: &str, entry: &str, shared: usize) -> Result<usize, String> {
        self.function_of(source::compiled(text, &self.target)?, entry, Some(shared))
    }

    /// A function of machine code, which may be launched with this much shared memory, or as much as there is.
    fn function_of(&self, code: Vec<u8>, entry: &str, shared: Option<usize>) -> Result<usize, String> {
        let name = CString::new(entry).map_err(|error| error.to_string())?;
        let all = self.shared as i32;
        let loaded = self.handle.submit_blocking(move |_| {
            // SAFETY: the thread's context is the device's, for which the code was compiled; the module is never
            // unloaded, so the function lives as long as the program.
            unsafe {
                let module = result::module::load_data(code.as_ptr().cast())?;
                let function = result::module::get_function(module, name)?;
                // What the function has of its own counts, too.
                let own = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
                let own = result::function::get_function_attribute(function, own)?;
                let shared = shared.map_or(all - own, |shared| shared as i32);
                let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                result::function::set_function_attribute(function, most, shared)?;
                Ok(function as usize)
            }
        });
        let failed = |error: result::DriverError| match error.0 {
            sys::CUresult::CUDA_ERROR_NOT_FOUND => {
                format!("it has no function `{entry}`: it must be `extern \"C\" __global__`")
            }
            sys::CUresult::CUDA_ERROR_INVALID_VALUE => {
                format!("`{entry}` can't have {} bytes of shared memory", shared.unwrap_or(self.shared))
            }
            _ => format!("the driver answers {error:?}"),
        };
        loaded.map_err(|error| format!("{error:?}"))?.map_err(failed)
    }
}

/// The thread's own stream, or another's.
fn own_or_borrowed(own: Option<Gpu>, first: Option<&Gpu>) -> Option<Gpu> {
    own.or_else(|| first.map(|first| Gpu { borrowed: true, ..first.clone() }))
}

/// A time on a stream.
pub(in crate::execute::cuda) struct Mark {
    handle: DeviceHandle<Server>,
    /// A `CUevent`.
    event: usize,
}

impl Mark {
    /// Seconds from this mark to a later one, for which it waits.
    ///
    /// # Errors
    /// What the driver says, of work between them too.
    pub(in crate::execute::cuda) fn seconds_to(&self, later: &Mark) -> Result<f64, String> {
        let [begin, end] = [self.event, later.event];
        let elapsed = self.handle.submit_blocking(move |_: &mut Server| {
            let [begin, end] = [begin as sys::CUevent, end as sys::CUevent];
            // SAFETY: both events were recorded, and are destroyed by their owners only.
            unsafe {
                result::event::synchronize(end)?;
                result::event::elapsed(begin, end)
            }
        });
        let milliseconds = elapsed.map_err(|error| format!("{error:?}"))?.map_err(|error| format!("{error:?}"))?;
        Ok(f64::from(milliseconds) * 1e-3)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let event = self.event;
        self.handle.submit(move |_: &mut Server| {
            // SAFETY: the event was made once and is destroyed here only. A failure leaves it to the context.
            let _ = unsafe { result::event::destroy(event as sys::CUevent) };
        });
    }
}

const SHARED: [sys::CUdevice_attribute; 2] = [
    sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
    sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
];

fn driver() -> Option<i32> {
    let mut version = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().ok()?;
    Some(version)
}

/// The address of a stream by its place in the server's debug text.
fn stream_in(text: &str, place: usize) -> Option<usize> {
    let list = text.split_once("StreamPool { streams: [")?.1;
    let (mut depth, mut begin, mut entry) = (0, 0, 0);
    for (at, sign) in list.char_indices() {
        match sign {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' if depth > 0 => depth -= 1,
            ',' | ']' if depth == 0 => {
                if entry == place {
                    return address(&list[begin..at]);
                }
                if sign == ']' {
                    return None;
                }
                (entry, begin) = (entry + 1, at + 1);
            }
            _ => {}
        }
    }
    None
}

fn address(entry: &str) -> Option<usize> {
    let digits = entry.trim_start().strip_prefix("Some(StreamWrapper { stream: Stream { sys: 0x")?;
    let end = digits.find(|sign: char| !sign.is_ascii_hexdigit())?;
    usize::from_str_radix(&digits[..end], 16).ok().filter(|&address| address != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_found_by_its_place() {
        let stream = |sys: &str| {
            format!("Some(StreamWrapper {{ stream: Stream {{ sys: {sys}, memory: [1, (2)] }}, cursor: 3 }})")
        };
        let text = format!(
            "CudaServer {{ ctx: C {{ a: [1, 2] }}, streams: MultiStream {{ streams: StreamPool {{ streams: [None, {}, None, {}], \
             factory: X }}, max_streams: 4 }} }}",
            stream("0x7f9adcc5b160"),
            stream("0x10")
        );
        assert_eq!(
            [0, 1, 2, 3, 4].map(|place| stream_in(&text, place)),
            [None, Some(0x7f9a_dcc5_b160), None, Some(16), None]
        );
        // Anything else is no stream.
        let other = |sys: &str| format!("StreamPool {{ streams: [{sys}] }}");
        for text in [
            "",
            "streams: [None]",
            &other(&stream("null")),
            &other("Some(Other { sys: 0x12 })"),
            &other(&stream("0x0")),
        ] {
            assert_eq!(stream_in(text, 0), None, "{text}");
        }
    }
}
