//! Whether a process that began a run still runs.
//!
//! ```text
//!   runs/*.json   has an end ──> over
//!                 of this host ──> is there a process of this number, as old as that run?   running | silent
//!                 of another   ──> was the file written in the last minutes?                running | silent
//! ```
//! A process writes its file anew every half minute. Only the file system's clock says when that was: those of two hosts
//! need not agree. Owns this judgement, which nothing but `status` depends on: no cell is ever left out because of it.

use super::formats::RunRecord;
use std::time::{Duration, SystemTime};
use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};

/// How long a process of another host may be silent: it writes four times as often.
pub const SILENCE: Duration = Duration::from_secs(120);
/// How much later than its own record a process may seem to have begun, by clocks of different make.
const SLACK: u64 = 60;

/// What is known of a process that began a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It has ended.
    Over,
    /// It runs.
    Running,
    /// It gave no end, and no sign of life since.
    Silent,
}

/// The name of this host.
pub fn host() -> String {
    System::host_name().unwrap_or_default()
}

/// What is known of the process of a run whose file was last written at some time.
pub fn life(run: &RunRecord, written: Option<SystemTime>, here: &str) -> Life {
    if run.ended.is_some() {
        return Life::Over;
    }
    let runs = match run.host == here && run.pid != 0 {
        true => exists(run),
        // What was written in the future was written just now, by a clock that is ahead.
        false => written
            .is_some_and(|written| written.elapsed().is_ok_and(|ago| ago < SILENCE) || written > SystemTime::now()),
    };
    if runs { Life::Running } else { Life::Silent }
}

/// Whether a process of this host has the run's number, and is not a later one.
fn exists(run: &RunRecord) -> bool {
    let pid = Pid::from_u32(run.pid);
    let Ok(mut system) = System::new() else { return false };
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, ProcessRefreshKind::nothing());
    let Some(process) = system.process(pid) else { return false };
    let seen: Option<jiff::Timestamp> = run.seen.as_ref().and_then(|seen| seen.parse().ok());
    let seen = seen.and_then(|seen| u64::try_from(seen.as_second()).ok());
    let later = seen.is_some_and(|seen| process.start_time() > seen.saturating_add(SLACK));
    !later && !matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Machine, now};

    fn run(host: &str, pid: u32) -> RunRecord {
        let run = RunRecord::new(Vec::new(), Machine::current("scalar"), host.into(), pid);
        RunRecord { seen: Some(now()), ..run }
    }

    #[test]
    fn of_this_host_the_process_itself_tells() {
        let mine = run("here", std::process::id());
        assert_eq!(life(&mine, None, "here"), Life::Running);
        assert_eq!(life(&RunRecord { ended: Some(now()), ..mine.clone() }, None, "here"), Life::Over);
        // Another process got the number of one that was last seen a year before.
        let reused = RunRecord { seen: Some("2001-01-01T00:00:00Z".into()), ..mine };
        assert_eq!(life(&reused, Some(SystemTime::now()), "here"), Life::Silent);
        assert_eq!(life(&run("here", u32::MAX - 7), Some(SystemTime::now()), "here"), Life::Silent);
    }

    #[test]
    fn of_another_host_the_file_tells_whatever_its_clock_says() {
        let ago = |seconds| SystemTime::now().checked_sub(Duration::from_secs(seconds));
        let hour_ahead = RunRecord { seen: Some("2999-01-01T00:00:00Z".into()), ..run("there", 1) };
        assert_eq!(
            [ago(1), ago(100), ago(150)].map(|at| life(&hour_ahead, at, "here")),
            [Life::Running, Life::Running, Life::Silent]
        );
        assert_eq!(
            life(&run("there", 1), SystemTime::now().checked_add(Duration::from_secs(3000)), "here"),
            Life::Running
        );
        assert_eq!(life(&run("there", 1), None, "here"), Life::Silent);
    }
}
