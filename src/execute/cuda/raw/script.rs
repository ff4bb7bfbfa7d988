//! Launches that are written down while they are made, and repeated as one CUDA graph.
//!
//! ```text
//!   record ──> work ──> launches on the stream ──> .. as ever
//!                          └── pen ──> the script: launch, launch, ..  ──> captured on a stream of its own ──> graph
//!                                      with the buffers, held for good        replay: one call
//! ```
//! A launch waits for the one before it, or begins early and waits itself, as on the stream. What is not launched from
//! here (a kernel in CubeCL, a copy) can't be written down: whoever does such a thing says so by [`leave`], and the script
//! is thrown away. Nothing here knows what the launches compute.

use super::stream::{Gpu, Server};
use cubecl::server::{ComputeServer, Handle};
use cudarc::driver::{result, sys};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

/// Puts a launch on a stream, the first of a graph or a later one.
type Put = Box<dyn Fn(usize, bool) -> Result<(), String> + Send>;

/// What the server's thread writes down.
#[derive(Clone, Default)]
pub(super) struct Pen(Arc<Mutex<Vec<(&'static str, Put)>>>);

impl Pen {
    pub fn write(&self, entry: &'static str, put: impl Fn(usize, bool) -> Result<(), String> + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((entry, Box::new(put)));
    }
}

/// A script that is being written.
#[derive(Default)]
struct Open {
    pen: Pen,
    held: Vec<Handle>,
    left: bool,
}

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// Where the calling thread's launches are written down, if they are.
pub(super) fn pen() -> Option<Pen> {
    OPEN.with_borrow(|open| open.as_ref().map(|open| open.pen.clone()))
}

/// Keeps buffers for as long as the script that is being written.
pub(super) fn hold(buffers: &[Handle]) {
    OPEN.with_borrow_mut(|open| {
        if let Some(open) = open {
            open.held.extend_from_slice(buffers);
        }
    });
}

/// Whether launches are written down: what is launched then comes after everything else has ended.
pub(in crate::execute::cuda) fn is_open() -> bool {
    OPEN.with_borrow(Option::is_some)
}

/// Something is done that can't be written down.
pub(in crate::execute::cuda) fn leave() {
    OPEN.with_borrow_mut(|open| {
        if let Some(open) = open {
            open.left = true;
        }
    });
}

/// Does `work` without writing it down: it is done once for all.
pub(in crate::execute::cuda) fn aside<T>(work: impl FnOnce() -> T) -> T {
    let open = OPEN.with_borrow_mut(Option::take);
    let result = work();
    OPEN.with_borrow_mut(|now| *now = open);
    result
}

/// Launches that can be repeated.
pub(in crate::execute::cuda) struct Script {
    gpu: Gpu,
    /// A `CUgraphExec`.
    graph: usize,
    /// What the launches read and write.
    _held: Vec<Handle>,
}

/// Does `work`, and writes down what it launches; none where that is not all that it does, or no graph can be made.
pub(in crate::execute::cuda) fn record<T>(gpu: &Gpu, work: impl FnOnce() -> T) -> (T, Option<Script>) {
    if gpu.borrowed || is_open() {
        return (work(), None);
    }
    OPEN.with_borrow_mut(|open| *open = Some(Open::default()));
    let closing = Closing;
    let result = work();
    let open = OPEN.with_borrow_mut(Option::take);
    drop(closing);
    let script = open.filter(|open| !open.left).and_then(|open| Script::new(gpu, open));
    (result, script)
}

/// Ends the writing where the work panics.
struct Closing;

impl Drop for Closing {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| *open = None);
    }
}

impl Script {
    fn new(gpu: &Gpu, open: Open) -> Option<Self> {
        let Open { pen, held, .. } = open;
        // Behind the launches, so that all of them are written down.
        let made = gpu.handle.submit_blocking(move |_: &mut Server| {
            let launches = std::mem::take(&mut *pen.0.lock().unwrap_or_else(PoisonError::into_inner));
            // SAFETY: the thread's context is the device's.
            unsafe { graph(&launches, true).or_else(|_| graph(&launches, false)) }
        });
        let graph = made.ok()?.ok()?;
        Some(Self { gpu: gpu.clone(), graph, _held: held })
    }

    /// Writes numbers where one of its buffers begins, which has room for them.
    pub(in crate::execute::cuda) fn write(&self, buffer: &Handle, numbers: Vec<i32>) {
        let (id, stream, binding) = (self.gpu.id, self.gpu.stream, buffer.clone().binding());
        self.gpu.submit(move |server: &mut Server| {
            let written = server.get_resource(binding, id).map_err(|error| format!("{error:?}")).and_then(|buffer| {
                // SAFETY: the buffer has room; the driver has read the numbers when the call returns, since they are not
                // in pinned memory.
                unsafe { result::memcpy_htod_async(buffer.resource().ptr, &numbers, stream as sys::CUstream) }
                    .map_err(|error| format!("{error:?}"))
            });
            if let Err(error) = written {
                panic!("numbers can't be written: {error}");
            }
        });
    }

    /// Launches all of it again.
    pub(in crate::execute::cuda) fn replay(&self) {
        let (graph, stream) = (self.graph, self.gpu.stream);
        self.gpu.submit(move |_: &mut Server| {
            // SAFETY: the graph is destroyed behind its last launch only; the stream is the server's.
            let launched = unsafe { sys::cuGraphLaunch(graph as sys::CUgraphExec, stream as sys::CUstream) };
            if let Err(error) = launched.result() {
                panic!("a graph's launch failed: {error:?}");
            }
        });
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let (graph, stream) = (self.graph, self.gpu.stream);
        self.gpu.handle.submit(move |_: &mut Server| {
            // SAFETY: nothing else destroys it, and its launches have ended. A failure leaves it to the context.
            unsafe {
                let _ = result::stream::synchronize(stream as sys::CUstream);
                let _ = result::graph::exec_destroy(graph as sys::CUgraphExec);
            }
        });
    }
}

/// A graph of launches, captured on a stream that is made for it.
///
/// # Safety
/// On a thread whose context is the device's.
unsafe fn graph(launches: &[(&'static str, Put)], early: bool) -> Result<usize, String> {
    let told = |error: result::DriverError| format!("{error:?}");
    if launches.is_empty() {
        return Err("nothing was launched".into());
    }
    // SAFETY: stream and graph are made, used and destroyed here, each once; nobody else knows the stream.
    unsafe {
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(told)?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        let captured = result::stream::begin_capture(stream, mode).map_err(told).and_then(|()| {
            let put = launches.iter().enumerate().try_for_each(|(at, (entry, put))| {
                put(stream as usize, at == 0 || !early).map_err(|error| format!("{entry}: {error}"))
            });
            // A capture is ended whatever happened.
            let graph = result::stream::end_capture(stream).map_err(told);
            put.and(graph)
        });
        let made = captured.and_then(|graph| {
            let mut exec = std::mem::MaybeUninit::uninit();
            let made = sys::cuGraphInstantiateWithFlags(exec.as_mut_ptr(), graph, 0).result();
            let destroyed = result::graph::destroy(graph);
            made.and(destroyed).map_err(told)?;
            Ok(exec.assume_init() as usize)
        });
        result::stream::destroy(stream).map_err(told)?;
        made
    }
}
