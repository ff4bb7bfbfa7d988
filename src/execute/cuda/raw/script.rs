//! Launches that are written down while they are made, and repeated as one CUDA graph.
//!
//! ```text
//!   record ──> work ──> launches on the stream ──> .. as ever
//!                          └── pen ──> the script: launch, launch, ..  ──> captured on a stream of its own ──> graph
//!                                      with the buffers, held for good        replay: one call
//! ```
//! What is written down, and how a thread says that something can't be, is `page.rs`; here it becomes a graph. A launch
//! waits for the one before it, or begins early and waits itself, as on the stream. What is not launched from here (a kernel
//! in CubeCL, a copy) can't be written down: whoever does such a thing says so by [`leave`], and there is no script.
//! Nothing here knows what the launches compute.

use super::page::{self, Closed, Page, Written};
use super::stream::{Gpu, Server};
use crate::execute::decode::TimedLaunch;
use cubecl::server::{ComputeServer, Handle};
use cudarc::driver::{result, sys};

pub(in crate::execute::cuda) use super::page::{aside, is_open, leave};
pub(super) use super::page::{later, taken};

/// Launches that can be repeated.
pub(in crate::execute::cuda) struct Script {
    gpu: Gpu,
    /// A `CUgraphExec`.
    graph: usize,
    page: Page,
    /// What the launches read and write.
    _held: Vec<Handle>,
}

/// Does `work`, and writes down what it launches; none where that is not all that it does, or no graph can be made.
pub(in crate::execute::cuda) fn record<T>(gpu: &Gpu, work: impl FnOnce() -> T) -> (T, Option<Script>) {
    if gpu.borrowed || is_open() {
        return (work(), None);
    }
    let (result, closed) = page::written(work);
    (result, closed.and_then(|closed| Script::new(gpu, closed)))
}

impl Script {
    fn new(gpu: &Gpu, Closed { page, held }: Closed) -> Option<Self> {
        let written = page.clone();
        // Behind the launches, so that all of them are written down.
        let made = gpu.handle.submit_blocking(move |_: &mut Server| {
            let launches = written.launches();
            // SAFETY: the thread's context is the device's.
            unsafe { graph(&launches, true, &[]).or_else(|_| graph(&launches, false, &[])) }
        });
        let graph = made.ok()?.ok()?;
        Some(Self { gpu: gpu.clone(), graph, page, _held: held })
    }

    /// The times of each launch, in order, `rounds` of each: all of it is repeated, with a mark between any two launches, so
    /// that none begins early. `before` is called before each round.
    ///
    /// # Errors
    /// What the driver says.
    pub(in crate::execute::cuda) fn timed(&self, rounds: usize, before: &dyn Fn()) -> Result<Vec<TimedLaunch>, String> {
        let told = |error: result::DriverError| format!("{error:?}");
        let gone = |error| format!("the device's thread is gone: {error:?}");
        let page = self.page.clone();
        let made = self.gpu.handle.submit_blocking(move |_: &mut Server| {
            let launches = page.launches();
            let event = |_| result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map(|event| event as usize);
            let marks: Vec<usize> = (0..=launches.len()).map(event).collect::<Result<_, _>>().map_err(told)?;
            // SAFETY: the thread's context is the device's, as is that of the events.
            let graph = unsafe { graph(&launches, false, &marks) }?;
            let names: Vec<[String; 2]> =
                launches.iter().map(|launch| [launch.stage.clone(), launch.kernel.clone()]).collect();
            Ok::<_, String>((graph, marks, names))
        });
        let (graph, marks, names) = made.map_err(|error| gone(format!("{error:?}")))??;
        let mut all: Vec<TimedLaunch> =
            names.into_iter().map(|[stage, kernel]| TimedLaunch { stage, kernel, seconds: Vec::new() }).collect();
        let stream = self.gpu.stream;
        // The first round warms up.
        let mut failed = None;
        for round in 0..=rounds {
            before();
            let of_round = marks.clone();
            let times = self.gpu.handle.submit_blocking(move |_: &mut Server| {
                // SAFETY: graph and events are destroyed below only; the stream is the server's.
                unsafe {
                    sys::cuGraphLaunch(graph as sys::CUgraphExec, stream as sys::CUstream).result()?;
                    result::stream::synchronize(stream as sys::CUstream)?;
                    let between = |pair: &[usize]| {
                        result::event::elapsed(pair[0] as sys::CUevent, pair[1] as sys::CUevent).map(f64::from)
                    };
                    of_round.windows(2).map(between).collect::<Result<Vec<f64>, result::DriverError>>()
                }
            });
            match times.map_err(|error| gone(format!("{error:?}"))).and_then(|times| times.map_err(told)) {
                Ok(times) if round > 0 => {
                    all.iter_mut().zip(times).for_each(|(launch, time)| launch.seconds.push(time * 1e-3));
                }
                Ok(_) => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        self.gpu.handle.submit(move |_: &mut Server| {
            // SAFETY: nothing else destroys them, and what was launched has ended. A failure leaves them to the context.
            unsafe {
                let _ = result::graph::exec_destroy(graph as sys::CUgraphExec);
                for event in marks {
                    let _ = result::event::destroy(event as sys::CUevent);
                }
            }
        });
        failed.map_or(Ok(all), Err)
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

/// A graph of launches, captured on a stream that is made for it. `marks` are none, or events: one before the first launch
/// and one after each.
///
/// # Safety
/// On a thread whose context is the device's, as is that of the events.
unsafe fn graph(launches: &[Written], early: bool, marks: &[usize]) -> Result<usize, String> {
    let told = |error: result::DriverError| format!("{error:?}");
    if launches.is_empty() {
        return Err("nothing was launched".into());
    }
    // SAFETY: stream and graph are made, used and destroyed here, each once; nobody else knows the stream.
    unsafe {
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(told)?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        let captured = result::stream::begin_capture(stream, mode).map_err(told).and_then(|()| {
            let mark = |at: usize| match marks.get(at) {
                // Without the flag it would stand for a dependency alone.
                Some(&event) => sys::cuEventRecordWithFlags(
                    event as sys::CUevent,
                    stream,
                    sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32,
                )
                .result()
                .map_err(told),
                None => Ok(()),
            };
            let put = mark(0).and_then(|()| {
                launches.iter().enumerate().try_for_each(|(at, Written { kernel, put, .. })| {
                    put(stream as usize, at == 0 || !early).map_err(|error| format!("{kernel}: {error}"))?;
                    mark(at + 1)
                })
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
