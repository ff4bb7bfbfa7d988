//! Several workers of one run: the same cells and tables as by one process, whoever dies, and nobody left behind; and
//! runs whose time is over.

use crate::support::{Lab, Model, THREE_CELLS};
use serde_json::Value;
use std::process::Child;
use std::time::{Duration, Instant};

/// Twenty-four cells of a quarter of a second or so; two calibrated points among twelve.
const SLOW: &str = r#"name = "e"
[model]
source = "builtin:tiny-opt"
[device]
backend = "flex"
threads = 3
[data]
context = 16
calibration_samples = 8
calibration_length = 64
[measure]
metrics = ["structure"]
[[prune]]
method = "magnitude"
sparsity = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]
[[prune]]
method = "wanda"
sparsity = [0.3, 0.5]
[execute]
variants = ["masked", "csr"]
"#;
const SLOW_CELLS: usize = 24;

/// Two models, cells of milliseconds.
fn quick() -> Lab {
    let lab = Lab::tiny(
        &THREE_CELLS.replace("path:model\"", "PLACE\"").replace("\"PLACE\"", "[\"path:model\", \"path:other\"]"),
    );
    let mut other = Model::tiny();
    other.tensors.values_mut().next().unwrap().1[0] = 0.25;
    other.save(&lab.path("other"));
    lab
}

fn runs(lab: &Lab) -> Vec<Value> {
    lab.files("results/e/runs").into_values().map(|bytes| serde_json::from_slice(&bytes).unwrap()).collect()
}

/// What the only run says of its workers.
fn workers(lab: &Lab) -> Vec<Value> {
    let [run] = &runs(lab)[..] else { panic!("one process has run") };
    run["workers"].as_array().cloned().unwrap_or_default()
}

fn by(workers: &str) -> Vec<String> {
    ["run", "e.toml", "-s", &format!("device.workers={workers}")].map(str::to_owned).to_vec()
}

fn start(lab: &Lab, workers: &str) -> Child {
    lab.command(by(workers).iter().map(String::as_str)).spawn().unwrap()
}

#[test]
fn any_number_of_workers_makes_the_same_cells_and_tables() {
    for (lab, alone, cells) in [(Lab::with(SLOW), Lab::with(SLOW), SLOW_CELLS), (quick(), quick(), 6)] {
        alone.run(["run", "e.toml"]).exits(0);
        let said = format!("{cells} cells measured, 0 cached, 0 failed");
        lab.run(by("3").iter().map(String::as_str)).exits(0).says(&[&format!("[{cells}/{cells}]"), &said]);
        assert!(lab.cells().keys().eq(alone.cells().keys()));
        assert!(lab.stable_report() == alone.stable_report());
        let measured: u64 = workers(&lab).iter().map(|worker| worker["cells"].as_u64().unwrap()).sum();
        assert_eq!(measured as usize, cells);
        // Everything is there: nobody is started.
        lab.run(by("3").iter().map(String::as_str)).exits(0).says(&[&format!("0 cells measured, {cells} cached")]);
        assert!(runs(&lab).iter().any(|run| run["workers"].is_null()));
    }
}

#[test]
fn workers_divide_the_threads_and_the_work() {
    let lab = Lab::with(SLOW);
    lab.run(by("2").iter().map(String::as_str)).exits(0);
    let mut threads: Vec<u64> = workers(&lab).iter().map(|worker| worker["threads"].as_u64().unwrap()).collect();
    threads.sort();
    assert_eq!(threads, [1, 2]);
    assert!(workers(&lab).iter().all(|worker| worker["cells"].as_u64() > Some(0) && worker["gpu"].is_null()));
    // `all` is a worker for each thread, but not more than there are points.
    let lab = quick();
    lab.run(["run", "e.toml", "-s", "device.workers=\"all\"", "-s", "device.threads=2"]).exits(0);
    assert_eq!(workers(&lab).len(), 2);
}

#[test]
fn each_worker_is_told_of_by_itself() {
    for count in [2_u64, 3] {
        let lab = Lab::with(SLOW);
        let text = count.to_string();
        let mut command = by(&text);
        command.extend(["--output-format".into(), "json".into()]);
        let events = lab.run(command.iter().map(String::as_str)).exits(0).json_lines();
        let phases: Vec<&Value> = events.iter().filter(|event| event["event"] == "phase").collect();
        let by_worker = |worker: u64| phases.iter().filter(|phase| phase["worker"] == worker).count();
        assert!((0..count).all(|worker| by_worker(worker) > 0), "{phases:?}");
    }
    let alone = Lab::with(SLOW).run(["run", "e.toml", "--output-format", "json"]).exits(0).json_lines();
    assert!(alone.iter().all(|event| event["worker"].is_null()));
}

#[test]
fn timed_cells_are_measured_once_all_workers_have_ended() {
    let kernels = "[[kernel]]\nshape = [[64, 96], [32, 32]]\nsparsity = 0.5\nformat = [\"dense\", \"csr\"]\ntokens = 1\n\
                   warmup = 1\nrepeats = 3\n";
    let text = format!("{SLOW}{kernels}");
    let (lab, alone) = (Lab::with(&text), Lab::with(&text));
    lab.run(by("2").iter().map(String::as_str)).exits(0).says(&[&format!("{} cells measured", SLOW_CELLS + 4)]);
    alone.run(["run", "e.toml", "--only", "format=csr"]).exits(0);
    let of_kernels = |lab: &Lab| {
        let cells = lab.cells();
        cells.into_iter().filter(|(_, cell)| cell["cell"]["kind"] == "kernel").collect::<Vec<_>>()
    };
    // Names hash the threads: these got all of them.
    assert_eq!(of_kernels(&lab).len(), 4);
    assert!(of_kernels(&lab).iter().map(|(id, _)| id).eq(of_kernels(&alone).iter().map(|(id, _)| id)));
    let ended = workers(&lab).iter().map(|worker| worker["ended"].as_str().unwrap().to_owned()).max().unwrap();
    let models = lab.cells().into_values().filter(|cell| cell["cell"]["kind"] == "model");
    assert!(models.map(|cell| cell["finished"].as_str().unwrap().to_owned()).all(|finished| finished <= ended));
    assert!(of_kernels(&lab).iter().all(|(_, cell)| cell["finished"].as_str().unwrap() >= ended.as_str()));
    // Where all cells are timed, no worker is started.
    let timed = quick();
    let latency = ["-s", "measure.metrics=[\"latency\"]", "-s", "measure.prompt=4", "-s", "measure.generate=2"];
    let command = by("2").into_iter().chain(latency.map(str::to_owned)).collect::<Vec<_>>();
    timed.run(command.iter().map(String::as_str)).exits(0).says(&["6 cells measured"]);
    assert!(workers(&timed).is_empty());
}

#[test]
fn what_ends_a_run_ends_it_with_workers_too() {
    let lab = quick();
    let mut broken = Model::tiny();
    broken.tensors.values_mut().next().unwrap().1[1] = f32::NAN;
    broken.save(&lab.path("other"));
    let alone = lab.run(by("1").iter().map(String::as_str));
    let outcome = lab.run(by("2").iter().map(String::as_str));
    assert_eq!((alone.code, outcome.code), (Some(3), Some(3)), "{}", outcome.stderr);
    assert!(alone.stderr.contains("NaN or infinite, the first at index 1"), "{}", alone.stderr);
    outcome.says(&["`path:other` has", "NaN or infinite, the first at index 1", "hint: the checkpoint is damaged"]);
    lab.run(by("2000").iter().map(String::as_str)).exits(2).says(&["`device.workers` is 2000, more than 1024"]);
}

#[test]
fn failed_cells_are_counted_and_stop_a_run_that_is_to_fail_fast() {
    let text = THREE_CELLS.replace("sparsity = 0.5", "pattern = [\"2:3\", \"2:4\"]");
    let lab = Lab::tiny(&text);
    lab.run(by("2").iter().map(String::as_str)).exits(100).says(&["2 failed"]);
    let lab = Lab::tiny(&text);
    let outcome = lab.run(by("2").iter().map(String::as_str).chain(["--fail-fast"]));
    outcome.exits(100);
    assert!(outcome.stderr.contains(" failed, ") || outcome.stderr.contains(" failed: "), "{}", outcome.stderr);
}

/// Processes that were started by another one.
#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<u32> {
    let stat = |process: u32| std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // `PID (NAME) STATE PARENT`; a name may have any letters.
    let parent_of = |process| stat(process).rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok();
    let alive = |process| !stat(process).rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|&process| parent_of(process) == Some(parent) && alive(process)).collect()
}

#[cfg(target_os = "linux")]
fn is_alive(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn kill(signal: &str, process: u32) {
    let status = std::process::Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status();
    // One that was seen a moment ago may have ended since.
    let gone = cfg!(target_os = "linux") && !std::path::Path::new(&format!("/proc/{process}")).exists();
    assert!(status.unwrap().success() || gone);
}

/// Waits until something holds, for half a minute at most.
#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_cells_of_a_killed_worker_are_measured_by_another() {
    let (lab, alone) = (Lab::with(SLOW), Lab::with(SLOW));
    let run = start(&lab, "2");
    for cells in [2, 8] {
        wait_until("cells are measured", || lab.cells().len() >= cells);
        if let Some(&child) = children(run.id()).first() {
            kill("KILL", child);
        }
    }
    lab.outcome(run.wait_with_output().unwrap())
        .exits(0)
        .says(&[&format!("{SLOW_CELLS} cells measured, 0 cached, 0 failed")]);
    alone.run(["run", "e.toml"]).exits(0);
    assert!(lab.stable_report() == alone.stable_report() && lab.cells().keys().eq(alone.cells().keys()));
    let ends: Vec<String> = workers(&lab).iter().map(|worker| worker["end"].to_string()).collect();
    assert_eq!(ends.iter().filter(|end| end.contains("signal: 9")).count(), 2, "{ends:?}");
    assert!(ends.len() == 4 || ends.len() == 3, "{ends:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn workers_that_die_all_the_time_end_the_run_with_a_reason() {
    let lab = Lab::with(SLOW);
    let mut run = start(&lab, "2");
    while run.try_wait().unwrap().is_none() {
        children(run.id()).into_iter().for_each(|child| kill("KILL", child));
        std::thread::sleep(Duration::from_millis(5));
    }
    let outcome = lab.outcome(run.wait_with_output().unwrap());
    outcome.exits(1).says(&["a worker ended before it measured anything (signal: 9", "hint:", "device.workers=1"]);
}

#[test]
#[cfg(target_os = "linux")]
fn nobody_is_left_behind() {
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let lab = Lab::with(SLOW);
        let run = start(&lab, "3");
        wait_until("cells are measured", || lab.cells().len() >= 2);
        let children = children(run.id());
        assert_eq!(children.len(), 3);
        kill(signal, run.id());
        let outcome = lab.outcome(run.wait_with_output().unwrap());
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        wait_until("the workers have ended", || !children.iter().any(|&child| is_alive(child)));
        // What was there is kept, and the rest can be measured.
        let kept = lab.cells().len();
        assert!(kept < SLOW_CELLS);
        lab.run(by("2").iter().map(String::as_str)).exits(0).says(&[&format!("measured, {kept} cached, 0 failed")]);
    }
}

#[test]
fn no_cell_begins_once_the_time_is_over() {
    for number in ["1", "2"] {
        let lab = Lab::with(SLOW);
        let over = |until: &str| {
            let command: Vec<String> = by(number).into_iter().chain([format!("--until={until}")]).collect();
            lab.run(command.iter().map(String::as_str))
        };
        over("1000000000").exits(130).says(&[&format!("the time is over and {SLOW_CELLS} cells did not begin")]);
        assert!(lab.cells().is_empty());
        let soon = std::time::SystemTime::now() + Duration::from_secs(2);
        let soon = soon.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let outcome = over(&soon.to_string());
        let some = lab.cells().len();
        assert_eq!(outcome.code, Some(if some < SLOW_CELLS { 130 } else { 0 }), "{some} cells: {}", outcome.stderr);
        over("4000000000").exits(0).says(&[&format!("{some} cached, 0 failed")]);
        assert_eq!(lab.cells().len(), SLOW_CELLS);
        let outcome = over("tomorrow");
        outcome.exits(2).says(&["`tomorrow` is no time"]);
    }
}
