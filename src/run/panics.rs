//! Panics of threads that are not ours: a GPU kernel that can't be compiled stops its device's thread,
//! the launch succeeds all the same, and the output is whatever lay in memory. And what a backend says
//! when it fails, which may be a kernel's whole source, in a few lines.

use std::sync::Mutex;

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The most parts of a message that are kept, and the most characters of one.
const KEPT: [usize; 2] = [8, 300];

/// Collects the messages of all panics of the process from now on, instead of printing them.
#[cfg(feature = "cuda")]
pub(super) fn collect() {
    static ONCE: std::sync::Once = std::sync::Once::new();
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

/// What a backend's message is about, in one line: of a kernel that can't be compiled the compiler's first
/// errors, without the source and the stack.
pub(super) fn brief(message: &str) -> String {
    // Nested errors are quoted.
    let message = message.replace("\\n", "\n");
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("[Source]") && !is_stack(line)).collect();
    let told: Vec<&str> = match lines.iter().position(|line| line.contains("[Compilation Error]")) {
        // The compiler's own lines follow; `Caused by:` and the like are in front of them.
        Some(at) => {
            let errors = lines[at + 1..].iter().filter(|line| line.contains("error")).copied();
            std::iter::once("a kernel can't be compiled").chain(errors).collect()
        }
        None => lines,
    };
    let shortened = |line: &str| match line.char_indices().nth(KEPT[1]) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.to_owned(),
    };
    let more = if told.len() > KEPT[0] { "; …" } else { "" };
    told.iter().take(KEPT[0]).map(|line| shortened(line)).collect::<Vec<_>>().join("; ") + more
}

fn is_stack(line: &str) -> bool {
    ["Backtrace", "BackTrace", "stack backtrace", "0: "].iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_failed_build_the_compilers_errors_are_told() {
        let source = "extern \"C\" __global__ void kernel() { error; }\n".repeat(10_000);
        let message = format!(
            "The server is in an invalid state\nCaused by:\n  A compilation error happened during launch\nCaused by:\n  \
             [Compilation Error] \n    default_program(11): error: identifier \"x\" is undefined\n      int y = x;\n\
             \n    1 error detected in the compilation\n[Source]  \n{source}\nBacktrace:\n0: a\n1: b"
        );
        let expected = "a kernel can't be compiled; default_program(11): error: identifier \"x\" is undefined; \
                        1 error detected in the compilation";
        assert_eq!(brief(&message), expected);
        assert_eq!(brief(&message.replace('\n', "\\n")), expected, "quoted by an error around it");
    }

    #[test]
    fn short_messages_stay() {
        assert_eq!(brief("gate missed: 1e-3"), "gate missed: 1e-3");
        assert_eq!(
            brief("panicked at a.rs:1:2:\nout of memory\nBacktrace:\n0: main"),
            "panicked at a.rs:1:2:; out of memory"
        );
        assert_eq!(brief(""), "");
    }

    #[test]
    fn long_ones_do_not() {
        let long = brief(&"é".repeat(5000));
        assert_eq!(long, format!("{} …", "é".repeat(300)));
        let many = brief(&"line\n".repeat(100));
        assert_eq!(many, format!("{}; …", ["line"; 8].join("; ")));
    }
}
