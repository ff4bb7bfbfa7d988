//! Panics of any thread: a kernel that can't be compiled panics on the device's, leaves whatever lay in memory, and is
//! not heard of otherwise.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Counts from now on: a test before this one may have failed.
pub fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            COUNT.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
    });
    take();
}

/// How many there were since this was last asked.
pub fn take() -> usize {
    COUNT.swap(0, Ordering::SeqCst)
}
