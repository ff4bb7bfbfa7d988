//! Panics that are expected: those of libraries on input that they don't understand, and those of threads that are
//! not ours.
//!
//! ```text
//!                    ┌ inside `caught`        kept back: the caller gets it as an error
//!   panic ──hook──>  ┼ after `collect`        kept for `take`
//!                    └ anywhere else          printed, as ever
//! ```
//!
//! A process has one hook for all of its threads, so that it is set here and nowhere else.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};

static COLLECTS: AtomicBool = AtomicBool::new(false);
static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// How many calls of [`caught`] this thread is inside of.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work` and gives the message of its panic, of which nothing is printed. What other threads do for it is not
/// covered.
///
/// # Errors
/// The panic's message.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    set_hook();
    INSIDE.set(INSIDE.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(INSIDE.get() - 1);
    result.map_err(|panic| message(panic.as_ref()))
}

/// Collects the messages of all panics of the process from now on, instead of printing them.
pub fn collect() {
    set_hook();
    COLLECTS.store(true, Ordering::Relaxed);
}

/// The first message that was collected since the last call.
pub fn take() -> Option<String> {
    let mut messages = MESSAGES.lock().ok()?;
    let all = std::mem::take(&mut *messages);
    all.into_iter().next()
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it stopped without a message".into())
}

fn set_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A thread that ends has no counter any more, and is in no call.
            if INSIDE.try_with(Cell::get).unwrap_or(0) > 0 {
                return;
            }
            if !COLLECTS.load(Ordering::Relaxed) {
                before(panic);
            } else if let Ok(mut messages) = MESSAGES.lock() {
                messages.push(panic.to_string());
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 1), Ok(1));
        let empty: [u8; 0] = [];
        let index = std::hint::black_box(3);
        assert_eq!(caught(|| empty[index]), Err("index out of bounds: the len is 0 but the index is 3".to_owned()));
        assert_eq!(caught(|| -> u8 { panic!("a text") }), Err("a text".to_owned()));
        assert_eq!(caught(|| std::panic::panic_any(1_u8)), Err::<(), _>("it stopped without a message".to_owned()));
        let inside = caught(|| {
            let inner = caught(|| -> u8 { panic!("inner") });
            assert_eq!(INSIDE.get(), 1);
            inner
        });
        assert_eq!(inside, Ok(Err("inner".to_owned())));
        assert_eq!(INSIDE.get(), 0);
    }
}
