//! Ctrl-C and termination: the one module that knows signals.

use crate::error::exit;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long work may take to stop by itself: enough for a download to be put aside.
const GRACE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// Whether the user wants the program to stop.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Listens from now on. After a signal and a moment of grace, `last_words(exit_code)` is called and
    /// the program ends, also from the middle of a cell: files are whole or missing at any moment.
    pub fn listen(last_words: impl Fn(u8) + Send + 'static) -> Self {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // Without a handler the signal still ends the program, only without last words.
            let _ = signal_hook::flag::register_usize(signal, interrupt.0.clone(), signal as usize);
        }
        let watched = interrupt.clone();
        std::thread::spawn(move || {
            let code = loop {
                if let Some(code) = watched.code() {
                    break code;
                }
                std::thread::sleep(POLL);
            };
            std::thread::sleep(GRACE);
            last_words(code);
            std::process::exit(code.into());
        });
        interrupt
    }

    /// The exit code, once a signal has come.
    pub fn code(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) as i32 {
            0 => None,
            signal => Some(exit::INTERRUPTED - SIGINT as u8 + signal as u8),
        }
    }
}
