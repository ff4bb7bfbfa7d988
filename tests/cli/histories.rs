//! Histories that nobody has thought of: what `plan` says after each step is what an oracle says, and `run` does that.
//!
//! The oracle is written from the interface, not from the program: a missing file is an unfinished cell; a file that is not what
//! was written is measured again; failed cells are tried again unless `--rerun none`; what another version has made is
//! stale until `--rerun stale`; what is asked for besides is added. Clocks decide nothing.

use crate::support::{Lab, THREE_CELLS, list};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

/// Dense, and two variants of a pattern that fits the model and of one that does not.
const CELLS: usize = 5;
const BASE: [&str; 2] = ["structure", "agreement"];
const MORE: &str = "perplexity";

fn lab() -> Lab {
    let text = THREE_CELLS.replace("sparsity = 0.5", "pattern = [\"2:4\", \"2:3\"]");
    Lab::tiny(&text.replace("[data]\n", "[data]\nperplexity = \"file:texts.txt\"\ncontext = 4\n"))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Maker {
    This,
    Another,
}

/// What the oracle knows of a cell's file.
#[derive(Clone, Debug, PartialEq)]
enum File {
    Missing,
    NotAsWritten,
    There { has: BTreeMap<&'static str, Maker>, failed: BTreeSet<&'static str> },
}

#[derive(Clone, Debug)]
enum Step {
    /// `run`, with one metric more or not, up to a number of cells, of a variant.
    Run { rerun: &'static str, more: bool, limit: Option<usize>, only: Option<&'static str> },
    /// `run`, killed after so many milliseconds.
    Kill(u64),
    /// A digit of a cell's file is changed.
    Edit(usize),
    /// A cell's file is gone.
    Lose(usize),
    /// Another version has made a cell.
    Age(usize),
    /// The last measurement of a cell's agreement has failed.
    Fail(usize),
    /// All stamps are so many hours off: in records, and of files.
    Clock(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let rerun = prop::sample::select(vec!["none", "failed", "failed", "stale", "all"]);
    let only = prop::option::weighted(0.3, prop::sample::select(vec!["dense", "masked", "csr"]));
    let run = (rerun, any::<bool>(), prop::option::weighted(0.3, 1..4usize), only)
        .prop_map(|(rerun, more, limit, only)| Step::Run { rerun, more, limit, only });
    prop_oneof![
        4 => run,
        1 => (0..60u64).prop_map(Step::Kill),
        1 => (0..CELLS).prop_map(Step::Edit),
        1 => (0..CELLS).prop_map(Step::Lose),
        2 => (0..CELLS).prop_map(Step::Age),
        1 => (0..CELLS).prop_map(Step::Fail),
        1 => (-48..48i64).prop_map(Step::Clock),
    ]
}

/// What is to be done about a cell, and which groups are measured.
fn oracle(file: &File, wanted: &[&'static str], rerun: &str) -> (&'static str, BTreeSet<&'static str>) {
    let all = || wanted.iter().copied().collect();
    let (has, failed) = match file {
        File::Missing => return ("new", all()),
        File::NotAsWritten | File::There { .. } if rerun == "all" => return ("rerun", all()),
        File::NotAsWritten => return ("retry", all()),
        File::There { has, failed } => (has, failed),
    };
    let lacks: BTreeSet<_> = wanted.iter().copied().filter(|group| !has.contains_key(group)).collect();
    let old: BTreeSet<_> = wanted.iter().copied().filter(|group| has.get(group) == Some(&Maker::Another)).collect();
    let again = if rerun == "stale" { &lacks | &old } else { lacks.clone() };
    match () {
        () if lacks.iter().any(|group| failed.contains(group)) && rerun == "none" => ("failed", BTreeSet::new()),
        () if lacks.iter().any(|group| failed.contains(group)) => ("retry", again),
        () if !lacks.is_empty() => ("add", again),
        () if !old.is_empty() && rerun == "stale" => ("rerun", again),
        () if !old.is_empty() => ("stale", BTreeSet::new()),
        () => ("cached", BTreeSet::new()),
    }
}

/// The cells of an experiment, in order, and what the oracle knows of them.
struct World {
    lab: Lab,
    ids: Vec<String>,
    variants: Vec<String>,
    fails: Vec<bool>,
    files: Vec<File>,
}

fn groups(more: bool) -> Vec<&'static str> {
    if more { vec![BASE[0], BASE[1], MORE] } else { BASE.to_vec() }
}

fn metrics(more: bool) -> String {
    format!("measure.metrics={:?}", groups(more))
}

impl World {
    fn new() -> Self {
        let lab = lab();
        let plan = lab.run(["plan", "e.toml", "--output-format", "json"]).exits(0).json_lines();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let ids: Vec<String> = plan.iter().map(|line| word(&line["id"])).collect();
        assert_eq!(ids.len(), CELLS);
        let variants = plan.iter().map(|line| word(&line["cell"]["variant"])).collect();
        let fails = plan.iter().map(|line| line["cell"]["prune"]["pattern"] == "2:3").collect();
        Self { lab, ids, variants, fails, files: vec![File::Missing; CELLS] }
    }

    fn path(&self, cell: usize) -> String {
        format!("results/e/cells/{}.json", self.ids[cell])
    }

    fn cell(&self, cell: usize) -> Option<Value> {
        let bytes = std::fs::read(self.lab.path(self.path(cell))).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The cell has been run, for these groups.
    fn has_run(&mut self, cell: usize, due: &BTreeSet<&'static str>) {
        let mut has = match &self.files[cell] {
            File::There { has, .. } => has.clone(),
            File::Missing | File::NotAsWritten => BTreeMap::new(),
        };
        let mut failed = BTreeSet::new();
        if self.fails[cell] {
            has.retain(|group, _| !due.contains(group));
            failed = due.clone();
        } else {
            has.extend(due.iter().map(|group| (*group, Maker::This)));
        }
        self.files[cell] = File::There { has, failed };
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Run { rerun, more, limit, only } => self.run(rerun, more, limit, only),
            Step::Kill(after) => self.kill(after),
            Step::Edit(cell) => {
                if self.cell(cell).is_some() {
                    let text = self.lab.read(self.path(cell));
                    let at = text
                        .rfind("\"measure_seconds\": ")
                        .map(|at| at + 19)
                        .or_else(|| text.find(|c: char| c.is_ascii_digit()));
                    let at = at.unwrap();
                    let digit = if &text[at..=at] == "7" { "8" } else { "7" };
                    self.lab.write(&self.path(cell), format!("{}{digit}{}", &text[..at], &text[at + 1..]));
                    self.files[cell] = File::NotAsWritten;
                }
            }
            Step::Lose(cell) => {
                let _ = std::fs::remove_file(self.lab.path(self.path(cell)));
                self.files[cell] = File::Missing;
            }
            Step::Age(cell) => self.rewrite(cell, |value, file| {
                value["results"]
                    .as_array_mut()
                    .unwrap()
                    .iter_mut()
                    .for_each(|part| part["program"]["version"] = "0.0.1".into());
                let File::There { has, .. } = file else { unreachable!() };
                has.values_mut().for_each(|maker| *maker = Maker::Another);
            }),
            Step::Fail(cell) => self.rewrite(cell, |value, file| {
                let File::There { has, failed } = file else { unreachable!() };
                let parts = value["results"].as_array_mut().unwrap();
                let Some(at) = parts.iter().position(|part| part["result"].get(BASE[1]).is_some()) else { return };
                let id = parts.remove(at)["id"].clone();
                value["failure"] = serde_json::json!({ "kind": "other", "message": "m", "gate": null, "parts": [id] });
                has.remove(BASE[1]);
                *failed = BTreeSet::from([BASE[1]]);
            }),
            Step::Clock(hours) => self.clock(hours),
        }
    }

    /// Writes a cell anew that can be believed, as the program would have.
    fn rewrite(&mut self, cell: usize, change: impl Fn(&mut Value, &mut File)) {
        if !matches!(self.files[cell], File::There { .. }) {
            return;
        }
        let mut value = self.cell(cell).unwrap();
        change(&mut value, &mut self.files[cell]);
        self.lab.write_cell(&self.ids[cell], value);
    }

    fn clock(&mut self, hours: i64) {
        let stamp = format!("2026-11-{:02}T{:02}:00:00Z", 10 + hours.rem_euclid(15), hours.rem_euclid(24));
        for cell in 0..CELLS {
            self.rewrite(cell, |value, _| {
                value["finished"] = stamp.clone().into();
                value["results"]
                    .as_array_mut()
                    .unwrap()
                    .iter_mut()
                    .for_each(|part| part["finished"] = stamp.clone().into());
            });
        }
        for folder in ["cells", "runs", "tables"] {
            for path in list(&self.lab.path(format!("results/e/{folder}"))) {
                let shift = Duration::from_secs(hours.unsigned_abs() * 3600);
                let now = SystemTime::now();
                let time = if hours < 0 { now - shift } else { now + shift };
                std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
            }
        }
    }

    fn run(&mut self, rerun: &str, more: bool, limit: Option<usize>, only: Option<&str>) {
        let wanted = groups(more);
        let mut args =
            vec!["run".to_owned(), "e.toml".into(), "-s".into(), metrics(more), "--rerun".into(), rerun.into()];
        args.extend(limit.into_iter().flat_map(|limit| ["--limit".to_owned(), limit.to_string()]));
        args.extend(only.into_iter().flat_map(|only| ["--only".to_owned(), format!("variant={only}")]));
        let selected: Vec<usize> =
            (0..CELLS).filter(|cell| only.is_none_or(|only| self.variants[*cell] == only)).collect();
        let told: Vec<_> = selected.iter().map(|&cell| (cell, oracle(&self.files[cell], &wanted, rerun))).collect();
        let due = told.iter().filter(|(_, (_, due))| !due.is_empty());
        let due: Vec<_> = due.take(limit.unwrap_or(CELLS)).cloned().collect();
        let outcome = self.lab.run(args.iter().map(String::as_str));
        for (cell, (_, groups)) in &due {
            self.has_run(*cell, groups);
        }
        let kept_failed = told.iter().any(|(_, (word, _))| *word == "failed");
        let failed = kept_failed || due.iter().any(|(cell, _)| self.fails[*cell]);
        // Without any cell in the folder there is no report; it is no failure either.
        let noun = if due.len() == 1 { "cell" } else { "cells" };
        outcome.exits(if failed { 100 } else { 0 }).says(&[&format!("{} {noun} measured", due.len())]);
    }

    /// A run that is killed has done some cells wholly and the others not at all.
    fn kill(&mut self, after: u64) {
        let before: Vec<Option<Vec<u8>>> =
            (0..CELLS).map(|cell| std::fs::read(self.lab.path(self.path(cell))).ok()).collect();
        let told: Vec<_> = self.files.iter().map(|file| oracle(file, &groups(true), "failed")).collect();
        let mut child = self.lab.command(["run", "e.toml", "-s", &metrics(true)]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after));
        let _ = child.kill();
        child.wait().unwrap();
        for cell in 0..CELLS {
            let now = std::fs::read(self.lab.path(self.path(cell))).ok();
            if now != before[cell] {
                assert!(!told[cell].1.is_empty(), "cell {cell} was to be kept, and was written");
                self.has_run(cell, &told[cell].1);
            }
        }
    }

    /// What `plan` says is what the oracle says.
    fn check(&self, history: &[Step]) {
        for (rerun, more) in [("failed", false), ("stale", true), ("none", true)] {
            let set = metrics(more);
            let args = ["plan", "e.toml", "--output-format", "json", "-s", &set, "--rerun", rerun];
            let lines = self.lab.run(args).exits(0).json_lines();
            for (cell, line) in lines.iter().enumerate() {
                let due: BTreeSet<&str> =
                    line["due"].as_array().unwrap().iter().map(|group| group.as_str().unwrap()).collect();
                let (word, groups) = oracle(&self.files[cell], &groups(more), rerun);
                let file = &self.files[cell];
                assert_eq!(
                    (line["decision"].as_str().unwrap(), due),
                    (word, groups),
                    "cell {cell} {file:?}, --rerun {rerun}, after {history:#?}"
                );
                assert_eq!(line["runs"].as_bool().unwrap(), !groups_of(line).is_empty());
                assert!(line["reason"].as_str().unwrap().starts_with(word));
            }
        }
    }
}

fn groups_of(line: &Value) -> Vec<Value> {
    line["due"].as_array().unwrap().clone()
}

#[test]
fn any_history_leaves_what_the_oracle_says() {
    let config = Config { cases: 16, failure_persistence: None, max_shrink_iters: 40, ..Config::default() };
    // The same histories every time.
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let histories = prop::collection::vec(step(), 3..9);
    let result = runner.run(&histories, |history| {
        let mut world = World::new();
        for (index, step) in history.iter().enumerate() {
            world.take(step);
            world.check(&history[..=index]);
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_oracle_can_be_wrong() {
    let there = |maker| File::There { has: BASE.map(|group| (group, maker)).into(), failed: BTreeSet::new() };
    assert_eq!(oracle(&there(Maker::This), &BASE, "failed").0, "cached");
    assert_eq!(oracle(&there(Maker::Another), &BASE, "failed").0, "stale");
    assert_eq!(oracle(&there(Maker::Another), &BASE, "stale").0, "rerun");
    assert_eq!(oracle(&there(Maker::This), &groups(true), "none"), ("add", BTreeSet::from([MORE])));
}

#[test]
fn clocks_that_differ_by_an_hour_or_go_back_lose_nothing_and_make_nothing_stale() {
    for hours in [1, -1, -24 * 365] {
        let mut world = World::new();
        world.run("failed", true, Some(2), None);
        world.clock(hours);
        // What another host is writing just now, by its clock.
        let shift = Duration::from_secs(hours.unsigned_abs().min(2) * 3600);
        let now = SystemTime::now();
        let writing = world.lab.path("results/e/cells/.writing-abc");
        std::fs::write(&writing, "{").unwrap();
        let time = if hours < 0 { now - shift } else { now + shift };
        std::fs::File::options().write(true).open(&writing).unwrap().set_modified(time).unwrap();
        let cells = world.lab.files("results/e/cells");
        world.run("stale", true, None, None);
        assert!(writing.exists(), "{hours}");
        let after = world.lab.files("results/e/cells");
        assert!(cells.iter().all(|(name, bytes)| after[name] == *bytes), "{hours}");
        world.check(&[]);
        assert_eq!(world.lab.files("results/e/runs").len(), 2);
    }
}
