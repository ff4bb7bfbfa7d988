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
use crate::execute::decode::TimedLaunch;
use crate::execute::stage;
use cubecl::server::{ComputeServer, Handle};
use cudarc::driver::{result, sys};
use std::any::Any;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

/// Puts a launch on a stream, the first of a graph or a later one.
type Put = Box<dyn Fn(usize, bool) -> Result<(), String> + Send>;

/// A launch that was written down.
struct Written {
    /// What it is for, and which kernel it is.
    stage: String,
    kernel: String,
    put: Put,
}

/// What the server's thread writes down.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<Written>>>);

/// Writes launches down, all for the same.
pub(super) struct Pen {
    page: Page,
    stage: String,
}

impl Pen {
    pub fn write(&self, kernel: String, put: impl Fn(usize, bool) -> Result<(), String> + Send + 'static) {
        let written = Written { stage: self.stage.clone(), kernel, put: Box::new(put) };
        self.page.0.lock().unwrap_or_else(PoisonError::into_inner).push(written);
    }
}

/// A script that is being written.
#[derive(Default)]
struct Open {
    page: Page,
    held: Vec<Handle>,
    left: bool,
    /// A launch that is not made yet.
    waiting: Option<Waiting>,
}

/// A launch, which whatever comes after may do along with its own.
struct Waiting {
    what: Box<dyn Any>,
    launch: Box<dyn FnOnce()>,
    /// What it is for.
    stage: String,
}

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// Where the calling thread's launches are written down, if they are.
pub(super) fn pen() -> Option<Pen> {
    OPEN.with_borrow(|open| open.as_ref().map(|open| Pen { page: open.page.clone(), stage: stage::current() }))
}

/// A launch begins: what waited for it is launched before, and its buffers are kept for as long as the script that is being
/// written.
pub(super) fn hold(buffers: &[Handle]) {
    flush();
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

/// Lets a launch wait for the next one of this thread, which may do it along with its own: see [`taken`]. Without a script
/// that is being written it is launched at once.
pub(super) fn later(what: impl Any, launch: impl FnOnce() + 'static) {
    flush();
    if !is_open() {
        return launch();
    }
    let waiting = Waiting { what: Box::new(what), launch: Box::new(launch), stage: stage::current() };
    wait(waiting);
}

fn wait(waiting: Waiting) {
    OPEN.with_borrow_mut(|open| {
        if let Some(open) = open {
            open.waiting = Some(waiting);
        }
    });
}

/// What waits, if it is of this type and `fits`; whoever takes it does it.
pub(super) fn taken<T: Any>(fits: impl FnOnce(&T) -> bool) -> Option<T> {
    let waiting = OPEN.with_borrow_mut(|open| open.as_mut().and_then(|open| open.waiting.take()))?;
    if waiting.what.downcast_ref::<T>().is_some_and(fits) {
        return waiting.what.downcast().ok().map(|what| *what);
    }
    wait(waiting);
    None
}

/// Launches what waits.
pub(in crate::execute::cuda) fn flush() {
    let waiting = OPEN.with_borrow_mut(|open| open.as_mut().and_then(|open| open.waiting.take()));
    if let Some(Waiting { launch, stage, .. }) = waiting {
        stage::within(stage, launch);
    }
}

/// Something is done that can't be written down.
pub(in crate::execute::cuda) fn leave() {
    flush();
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
    page: Page,
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
    flush();
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
        let Open { page, held, left: _, waiting: _ } = open;
        let written = page.clone();
        // Behind the launches, so that all of them are written down.
        let made = gpu.handle.submit_blocking(move |_: &mut Server| {
            let launches = written.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            let launches = page.0.lock().unwrap_or_else(PoisonError::into_inner);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// What was launched, in order, when `work` is written down.
    fn launched(work: impl FnOnce(&dyn Fn(&'static str))) -> Vec<&'static str> {
        let all: Rc<RefCell<Vec<&'static str>>> = Rc::default();
        let kept = all.clone();
        let later_of = move |name: &'static str| {
            let kept = kept.clone();
            later(name, move || kept.borrow_mut().push(name));
        };
        OPEN.set(Some(Open::default()));
        work(&later_of);
        flush();
        OPEN.set(None);
        let all = all.borrow().clone();
        all
    }

    #[test]
    fn what_waits_is_launched_before_whatever_comes() {
        assert_eq!(launched(|later| later("norm")), ["norm"]);
        assert_eq!(launched(|later| (later("norm"), later("gate"), hold(&[])).0), ["norm", "gate"]);
        let after_leaving = launched(|later| {
            later("norm");
            leave();
            assert_eq!(taken(|_: &&str| true), None);
        });
        assert_eq!(after_leaving, ["norm"]);
    }

    #[test]
    fn what_is_taken_is_launched_by_who_takes_it() {
        let all = launched(|later| {
            later("norm");
            assert_eq!(taken(|_: &u32| true), None, "of another type");
            assert_eq!(taken(|name: &&str| *name == "gate"), None);
            assert_eq!(taken(|name: &&str| *name == "norm"), Some("norm"));
            assert_eq!(taken(|_: &&str| true), None, "it was taken");
            later("gate");
        });
        assert_eq!(all, ["gate"]);
    }

    #[test]
    fn outside_of_a_script_nothing_waits_and_aside_of_it_nothing_is_written() {
        let at_once = Rc::new(RefCell::new(0));
        let count = at_once.clone();
        later("norm", move || *count.borrow_mut() += 1);
        assert_eq!((*at_once.borrow(), taken(|_: &&str| true)), (1, None));
        let all = launched(|later| {
            later("norm");
            aside(|| {
                assert!(!is_open() && pen().is_none());
                flush();
            });
            assert_eq!(taken(|_: &&str| true), Some("norm"));
        });
        assert!(all.is_empty());
    }

    #[test]
    fn a_launch_that_waited_is_for_what_it_was_asked_for() {
        let stages: Rc<RefCell<Vec<String>>> = Rc::default();
        let seen = stages.clone();
        OPEN.set(Some(Open::default()));
        stage::within("input_layernorm".into(), || later((), move || seen.borrow_mut().push(stage::current())));
        stage::within("attention".into(), flush);
        OPEN.set(None);
        assert_eq!(*stages.borrow(), ["input_layernorm"]);
    }
}
