//! The open page of a thread: launches that are written down while they are made, and one that waits for the next.
//!
//! ```text
//!   Open { page ──> Written, Written, ..     by the server's thread, through a Pen
//!          held     the buffers of all that is launched
//!          left     something was done that can't be written down
//!          waiting  a launch that the next one may do along with its own }
//! ```
//! Knows neither devices nor streams, nor what launches compute: `stream.rs` and `blas.rs` write here, `script.rs` opens a
//! page and makes a graph of it.

use crate::execute::stage;
use cubecl::server::Handle;
use std::any::Any;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Puts a launch on a stream, the first of a graph or a later one.
pub(super) type Put = Box<dyn Fn(usize, bool) -> Result<(), String> + Send>;

/// A launch that was written down.
pub(super) struct Written {
    /// What it is for, and which kernel it is.
    pub stage: String,
    pub kernel: String,
    pub put: Put,
}

/// What the server's thread writes down.
#[derive(Clone, Default)]
pub(super) struct Page(Arc<Mutex<Vec<Written>>>);

impl Page {
    /// The launches, in order; whoever has them keeps pens off.
    pub fn launches(&self) -> MutexGuard<'_, Vec<Written>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes launches down, all for the same.
pub(super) struct Pen {
    page: Page,
    stage: String,
}

impl Pen {
    pub fn write(&self, kernel: String, put: impl Fn(usize, bool) -> Result<(), String> + Send + 'static) {
        let written = Written { stage: self.stage.clone(), kernel, put: Box::new(put) };
        self.page.launches().push(written);
    }
}

/// A page that is being written.
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

/// What [`written`] wrote down: the launches are on the page when the server's thread has come to them.
pub(super) struct Closed {
    pub page: Page,
    /// The buffers that the launches read and write.
    pub held: Vec<Handle>,
}

/// Does `work`, and has written down what it launched; none where that was not all that it did.
pub(super) fn written<T>(work: impl FnOnce() -> T) -> (T, Option<Closed>) {
    OPEN.with_borrow_mut(|open| *open = Some(Open::default()));
    let closing = Closing;
    let result = work();
    flush();
    let open = OPEN.with_borrow_mut(Option::take);
    drop(closing);
    let closed = open.filter(|open| !open.left).map(|Open { page, held, .. }| Closed { page, held });
    (result, closed)
}

/// Ends the writing where the work panics.
struct Closing;

impl Drop for Closing {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| *open = None);
    }
}

/// Where the calling thread's launches are written down, if they are.
pub(super) fn pen() -> Option<Pen> {
    OPEN.with_borrow(|open| open.as_ref().map(|open| Pen { page: open.page.clone(), stage: stage::current() }))
}

/// A launch begins: what waited for it is launched before, and its buffers are kept for as long as the page that is being
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

/// Lets a launch wait for the next one of this thread, which may do it along with its own: see [`taken`]. Without a page
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
        written(|| work(&later_of));
        all.borrow().clone()
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
    fn outside_of_a_page_nothing_waits_and_aside_of_it_nothing_is_written() {
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
        written(|| {
            stage::within("input_layernorm".into(), || later((), move || seen.borrow_mut().push(stage::current())));
            stage::within("attention".into(), flush);
        });
        assert_eq!(*stages.borrow(), ["input_layernorm"]);
    }

    #[test]
    fn a_page_has_what_pens_wrote_unless_something_was_left_out() {
        let write = |kernel: &str| {
            if let Some(pen) = pen() {
                pen.write(kernel.into(), |_, _| Ok(()));
            }
        };
        for (leaves, kernels) in [(false, Some(vec!["norm", "gate"])), (true, None)] {
            let ((), closed) = written(|| {
                write("norm");
                aside(|| write("timed"));
                if leaves {
                    leave();
                }
                write("gate");
            });
            let names = closed.map(|closed| closed.page.launches().iter().map(|all| all.kernel.clone()).collect());
            assert_eq!(names, kernels.map(|kernels| kernels.into_iter().map(String::from).collect::<Vec<_>>()));
            assert!(!is_open());
        }
        let panicked = std::panic::catch_unwind(|| written(|| panic!("a kernel can't be compiled")).0);
        assert!(panicked.is_err() && !is_open(), "a panic ends the writing");
    }
}
