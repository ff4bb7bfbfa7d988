//! A worker as a process: started, told things, listened to, and never left behind.

use super::lines::{Told, line};
use crate::record::{WorkerRecord, now};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The most that is kept of what a worker says outside the protocol, a panic say.
const KEPT: usize = 2000;
/// How long a worker that is not wanted any more may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// How workers are started.
#[derive(Clone, Debug)]
pub struct Start {
    /// This program.
    pub program: PathBuf,
    /// Its arguments, but for those that differ from worker to worker.
    pub args: Vec<OsString>,
    /// The experiment file, which is its last argument.
    pub file: PathBuf,
}

/// Where a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which worker it is.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// Its GPU, if it has one.
    pub gpu: Option<usize>,
    /// Its CPU threads.
    pub threads: usize,
    /// The threads of all workers.
    pub all_threads: usize,
}

impl Place {
    fn args(&self) -> Vec<String> {
        let Self { number, of, gpu, threads, all_threads } = self;
        let mut args = vec![
            format!("--number={number}"),
            format!("--of={of}"),
            format!("--threads={threads}"),
            format!("--all-threads={all_threads}"),
        ];
        args.extend(gpu.map(|gpu| format!("--gpu={gpu}")));
        args
    }
}

/// What comes from a worker.
pub(super) enum Event {
    /// A line.
    Said(usize, String),
    /// It says nothing any more.
    Ended(usize),
}

/// A running worker. Dropped, it is killed: at any moment at most the cell that it has begun is lost.
pub(super) struct Process {
    child: Child,
    /// Closed, it tells the worker that it is not wanted any more.
    input: Option<ChildStdin>,
    noise: Option<JoinHandle<String>>,
    /// Lines that are no messages.
    pub stray: String,
    /// Cells that it has stored.
    pub cells: usize,
    gpu: Option<usize>,
    threads: usize,
    started: String,
}

impl Process {
    /// Starts a worker.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(start: &Start, place: Place, events: Sender<Event>) -> io::Result<Self> {
        let mut command = Command::new(&start.program);
        command.args(&start.args).args(place.args()).arg("--").arg(&start.file);
        // What the workers need is in the cache by now. The library under ndarray counts its threads by itself.
        command.env("HF_HUB_OFFLINE", "1").env("MATMUL_NUM_THREADS", place.threads.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        {
            // Ctrl-C is for the process that started them; it ends them.
            use std::os::unix::process::CommandExt;
            command.process_group(0);
        }
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    // Nobody listens any more.
                    if events.send(Event::Said(place.number, line)).is_err() {
                        return;
                    }
                }
                let _ = events.send(Event::Ended(place.number));
            });
        }
        let noise = child.stderr.take().map(|noise| std::thread::spawn(move || last_of(noise)));
        let Place { gpu, threads, .. } = place;
        Ok(Self { child, input, noise, stray: String::new(), cells: 0, gpu, threads, started: now() })
    }

    /// Tells it something. Where that fails the worker is dead, which is told by its own event.
    pub fn tell(&mut self, told: &Told) {
        if let Some(input) = &mut self.input {
            let _ = writeln!(input, "{}", line(told)).and_then(|()| input.flush());
        }
    }

    /// Keeps a line that is no message.
    pub fn keep(&mut self, line: &str) {
        self.stray.push_str(line);
        self.stray.push('\n');
        self.stray = end_of(std::mem::take(&mut self.stray));
    }

    /// Tells it that it is not wanted any more.
    pub fn dismiss(&mut self) {
        self.input = None;
    }

    /// Waits until a dismissed worker has ended, and ends it where it does not: how it ended, what it said last, and
    /// what is recorded of it.
    pub fn end(&mut self) -> (Option<ExitStatus>, String, WorkerRecord) {
        self.dismiss();
        let since = Instant::now();
        let mut status = self.child.try_wait().ok().flatten();
        while status.is_none() && since.elapsed() < GRACE {
            std::thread::sleep(POLL);
            status = self.child.try_wait().ok().flatten();
        }
        if status.is_none() {
            let _ = self.child.kill();
            status = self.child.wait().ok();
        }
        let noise = self.noise.take().and_then(|noise| noise.join().ok()).unwrap_or_default();
        let said = format!("{}{noise}", self.stray).trim().to_owned();
        let record = WorkerRecord {
            process: self.child.id(),
            gpu: self.gpu,
            threads: self.threads,
            started: self.started.clone(),
            ended: now(),
            cells: self.cells,
            end: status.map_or_else(|| "unknown".into(), |status| status.to_string()),
        };
        (status, said, record)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of what a stream says, read as it comes so that nobody waits for it.
fn last_of(mut stream: impl Read) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        kept.extend_from_slice(&piece[..read]);
        let surplus = kept.len().saturating_sub(2 * KEPT);
        kept.drain(..surplus);
    }
    end_of(String::from_utf8_lossy(&kept).into_owned())
}

/// The end of a text.
fn end_of(text: String) -> String {
    match text.char_indices().rev().nth(KEPT) {
        Some((at, _)) => text[at..].to_owned(),
        None => text,
    }
}
