//! Panics of threads that are not ours: a GPU kernel that can't be compiled stops its device's thread,
//! the launch succeeds all the same, and the output is whatever lay in memory. And what a backend says
//! when it fails, which may be a kernel's whole source, in a few lines.

use crate::record::{Failure, FailureKind};

#[cfg(feature = "cuda")]
pub(super) use crate::panics::collect;
pub(super) use crate::panics::{caught, take};

/// The most parts of a message that are kept, and the most characters of one.
const KEPT: [usize; 2] = [8, 300];

/// Whether a thread of the device has panicked meanwhile: then the result is that failure, and nothing that was
/// made on the device since can be relied upon.
pub(super) fn panicked<T>(result: &mut Result<T, Failure>) -> bool {
    let Some(message) = take() else { return false };
    *result = Err(Failure::new(FailureKind::Other, message));
    true
}

/// What a backend's message is about, in one line: of a kernel that can't be compiled the compiler's first
/// errors, without the source and the stack.
pub(super) fn brief(message: &str) -> String {
    if let Some(brief) = out_of_memory(message) {
        return brief;
    }
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

/// Of memory that could not be had: how much it was. Drivers and pools word it in several ways.
fn out_of_memory(message: &str) -> Option<String> {
    const SIZES: [&str; 2] = ["BufferTooBig { size: ", "can't allocate buffer of size: "];
    if !["BufferTooBig", SIZES[1], "OutOfMemory", "OUT_OF_MEMORY", "out of memory"]
        .iter()
        .any(|words| message.contains(words))
    {
        return None;
    }
    let size = SIZES.iter().find_map(|words| message.split_once(words));
    let size = size.map(|(_, size)| size.chars().take_while(char::is_ascii_digit).collect::<String>());
    let size: Option<u64> = size.and_then(|size| size.parse().ok());
    // What was being done is told in front of the device's own words.
    let doing = message.split_once("` failed: ").filter(|(doing, _)| doing.starts_with("loading `"));
    let doing = doing.map_or(String::new(), |(doing, _)| format!("{doing}` failed: "));
    let asked = size.map_or(String::new(), |size| format!(", {} MiB more were needed", size.div_ceil(1 << 20)));
    Some(format!("{doing}out of memory on the device{asked}"))
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
            brief("panicked at a.rs:1:2:\nno such device\nBacktrace:\n0: main"),
            "panicked at a.rs:1:2:; no such device"
        );
        assert_eq!(brief(""), "");
    }

    #[test]
    fn of_memory_that_could_not_be_had_the_size_is_told() {
        let message = "panicked at a.rs:124:49:\ncalled `Result::unwrap()` on an `Err` value: BufferTooBig { size: \
                       9000000, backtrace: BackTrace { } }";
        assert_eq!(brief(message), "out of memory on the device, 9 MiB more were needed");
        assert_eq!(
            brief(&format!("loading `synthetic:llama-2-7b` failed: {message}")),
            "loading `synthetic:llama-2-7b` failed: out of memory on the device, 9 MiB more were needed"
        );
        assert_eq!(brief("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"x\")"), "out of memory on the device");
    }

    #[test]
    fn long_ones_do_not() {
        let long = brief(&"é".repeat(5000));
        assert_eq!(long, format!("{} …", "é".repeat(300)));
        let many = brief(&"line\n".repeat(100));
        assert_eq!(many, format!("{}; …", ["line"; 8].join("; ")));
    }
}
