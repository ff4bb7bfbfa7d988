//! Panics of threads that are not ours: a GPU kernel that can't be compiled stops its device's thread,
//! the launch succeeds all the same, and the output is whatever lay in memory.

use std::sync::{Mutex, Once};

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Collects the messages of all panics of the process from now on, instead of printing them.
pub(super) fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            if let Ok(mut messages) = MESSAGES.lock() {
                messages.push(panic.to_string());
            }
        }));
    });
}

/// The first message since the last call.
pub(super) fn take() -> Option<String> {
    let mut messages = MESSAGES.lock().ok()?;
    let all = std::mem::take(&mut *messages);
    all.into_iter().next()
}
