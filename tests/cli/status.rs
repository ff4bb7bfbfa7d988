//! What is told while a run goes on, at its end, and to others: lines, events, `--quiet`, `status`.

use crate::schema::{conforms, schema_of};
use crate::support::{Lab, THREE_CELLS};
use serde_json::Value;

/// Two points of which one fails in both of its variants.
fn two_of_five_fail() -> Lab {
    Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "pattern = [\"2:3\", \"2:4\"]"))
}

/// `status --output-format json` of experiment `e`.
#[track_caller]
fn status(lab: &Lab) -> Value {
    lab.run(["status", "results/e", "--output-format", "json"]).exits(0).json_lines().remove(0)
}

fn counts(status: &Value) -> [u64; 3] {
    ["done", "failed", "left"].map(|key| status[key].as_u64().unwrap())
}

#[test]
fn failures_are_told_when_they_happen_and_again_at_the_end() {
    let lab = two_of_five_fail();
    let reason = "5 columns, no multiple of 3";
    let first = lab.run(["run", "e.toml"]);
    first.exits(100);
    let reason =
        first.stderr.lines().find_map(|line| line.split_once("  failed: ")).map_or(reason, |(_, reason)| reason);
    let again = lab.run(["run", "e.toml", "--rerun", "none"]);
    for (outcome, announced) in [(&first, 2), (&again, 0)] {
        outcome.exits(100);
        let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains(reason)).collect();
        let (end, during): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(|line| line.starts_with("failed: "));
        assert!(during.len() == announced && during.iter().all(|line| line.starts_with('[')), "{}", outcome.stderr);
        // The same reason is told once.
        assert!(
            end.len() == 1 && end[0].contains("Masked2:3") && end[0].contains(" and 1 more: "),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn quiet_tells_errors_alone() {
    let good = Lab::tiny(THREE_CELLS).run(["run", "e.toml", "--quiet"]);
    good.exits(0);
    assert_eq!((good.stdout.as_str(), good.stderr.as_str()), ("", ""));
    let bad = two_of_five_fail().run(["run", "e.toml", "-q"]);
    bad.exits(100);
    assert!(bad.stdout.is_empty() && bad.stderr.lines().all(|line| line.contains("failed: ")), "{}", bad.stderr);
    assert_eq!(bad.stderr.lines().count(), 3);
    // What keeps it from beginning is told as ever, and data that another program reads comes as ever.
    Lab::with("name = \"e\"\nsede = 1").run(["run", "e.toml", "-q"]).exits(2).says(&["sede"]);
    let events = Lab::tiny(THREE_CELLS).run(["run", "e.toml", "-q", "--output-format", "json"]);
    assert_eq!(events.exits(0).json_lines().iter().filter(|event| event["event"] == "cell").count(), 3);
    assert!(events.stderr.is_empty(), "{}", events.stderr);
}

#[test]
fn events_tell_phases_and_what_is_left() {
    let text = "[data]\nperplexity = \"file:texts.txt\"\ncontext = 4\ncalibration = \"file:texts.txt\"\n\
                calibration_samples = 2\ncalibration_length = 4\n";
    let wanda = THREE_CELLS.replace("[data]\n", text).replace("\"agreement\"]", "\"agreement\", \"perplexity\"]");
    for (method, phase) in [("magnitude", "pruning"), ("wanda", "calibrating 1 of 2 blocks")] {
        let lab = Lab::tiny(&wanda.replace("magnitude", method));
        let outcome = lab.run(["run", "e.toml", "--output-format", "json"]);
        let events = outcome.exits(0).json_lines();
        let schema = schema_of("events");
        events.iter().for_each(|event| conforms(event, &schema));
        assert_eq!(
            (&events[0]["event"], &events[0]["cells"], &events[0]["kept"]),
            (&"start".into(), &3.into(), &0.into())
        );
        let phases: Vec<&str> = events.iter().filter_map(|event| event["phase"].as_str()).collect();
        assert!(phases.contains(&"loading") && phases.iter().any(|told| told.starts_with(&phase[..7])), "{phases:?}");
        assert!(phases.iter().any(|told| told.starts_with("perplexity, window ")), "{phases:?}");
        let cells: Vec<&Value> = events.iter().filter(|event| event["event"] == "cell").collect();
        let done: Vec<u64> = cells.iter().map(|event| event["done"].as_u64().unwrap()).collect();
        assert_eq!((done, cells[0]["of"].as_u64()), (vec![1, 2, 3], Some(3)));
        assert!(cells.iter().all(|event| event["seconds_left"].as_f64().is_some_and(|left| left >= 0.0)));
        // People see it too, but not of the last.
        let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with('[')).collect();
        let left: Vec<bool> = lines.iter().map(|line| line.ends_with(" left)")).collect();
        assert_eq!(left, [true, true, false], "{lines:?}");
    }
}

#[test]
fn status_counts_by_model_and_method() {
    let lab = two_of_five_fail();
    lab.run(["status", "results/e"]).exits(3).says(&["no experiment has begun in `results/e`", "hint: "]);
    lab.run(["run", "e.toml", "--only", "variant=dense"]).exits(0);
    assert_eq!(counts(&status(&lab)), [1, 0, 4]);
    lab.run(["run", "e.toml"]).exits(100);
    let outcome = lab.run(["status", "results/e"]);
    outcome.exits(0).prints(&["kind", "method", "done", "failed", "left", "dense", "1", "magnitude", "2", "2", "0"]);
    outcome.says(&["Masked2:3", "results/e: 3 of 5 cells done, 2 failed, 0 left"]);
    // A cell that is gone, one that is damaged, and one that lacks a result are still to do.
    let cells: Vec<(String, Value)> = lab.cells().into_iter().filter(|(_, cell)| cell["failure"].is_null()).collect();
    std::fs::remove_file(lab.path(format!("results/e/cells/{}.json", cells[0].0))).unwrap();
    lab.write(&format!("results/e/cells/{}.json", cells[1].0), "{\"format\": 2");
    let mut lacking = cells[2].1.clone();
    lacking["results"].as_array_mut().unwrap().remove(0);
    lab.write_cell(&cells[2].0, lacking);
    let found = status(&lab);
    assert_eq!(counts(&found), [0, 2, 3]);
    assert!(found["damaged"][0].as_str().unwrap().contains(&cells[1].0), "{found}");
    assert!(found["process_seconds_left"].is_null() && found["failures"].as_array().unwrap().len() == 2);
}

#[cfg(unix)]
#[test]
fn status_sees_who_runs_and_who_was_killed() {
    let sparsities: Vec<String> = (1..60).map(|i| (f64::from(i) / 64.0).to_string()).collect();
    let lab = Lab::with(&format!(
        "name = \"e\"\n[model]\nsource = \"builtin:tiny-opt\"\n[data]\ncontext = 16\n[measure]\nmetrics = [\"structure\"]\n\
         [[prune]]\nmethod = \"magnitude\"\nsparsity = [{}]\n",
        sparsities.join(", ")
    ));
    let mut child = lab.command(["run", "e.toml"]).spawn().unwrap();
    while lab.cells().len() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "the run was over before it could be looked at");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let found = status(&lab);
    let runner = &found["runners"][0];
    assert_eq!((&runner["running"], &runner["pid"]), (&true.into(), &u64::from(child.id()).into()), "{found}");
    assert!(
        counts(&found)[0] >= 1 && counts(&found)[2] > 0 && found["seconds_left"].as_f64().unwrap() > 0.0,
        "{found}"
    );
    child.kill().unwrap();
    // The signal takes its time.
    let dead = |found: &Value| found["runners"][0]["running"] == false;
    let begun = std::time::Instant::now();
    while !dead(&status(&lab)) && begun.elapsed().as_secs() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // It was killed, but its parent has not asked yet: that is no life either.
    for reaped in [false, true] {
        let found = status(&lab);
        assert_eq!(
            (&found["runners"][0]["running"], &found["seconds_left"]),
            (&false.into(), &Value::Null),
            "{reaped}"
        );
        child.wait().unwrap();
    }
    lab.run(["status", "results/e"]).exits(0).prints(&["no sign of life since 20"]).says(&["nobody is at it"]);
    // A process of another host is believed as long as its file is young.
    let (name, run) = lab.files("results/e/runs").pop_first().unwrap();
    let run: Value = serde_json::from_slice(&run).unwrap();
    let elsewhere =
        Value::Object(run.as_object().unwrap().clone().into_iter().chain([("host".into(), "far".into())]).collect());
    lab.write(&format!("results/e/runs/{name}"), elsewhere.to_string());
    assert_eq!(status(&lab)["runners"][0]["running"], true);
    let alone = status(&lab)["seconds_left"].as_f64().unwrap();
    let mut by_three = elsewhere.clone();
    by_three["at_once"] = 3.into();
    lab.write(&format!("results/e/runs/{name}"), by_three.to_string());
    let found = status(&lab);
    let ratio = alone / found["seconds_left"].as_f64().unwrap();
    assert!(found["runners"][0]["processes"] == 3 && (ratio - 3.0).abs() < 1e-9, "{found}");
    lab.run(["status", "results/e"]).exits(0).says(&["left for 3 processes"]);
    lab.write(&format!("results/e/runs/{name}"), elsewhere.to_string());
    lab.run(["status", "results/e"]).exits(0).prints(&["far", "running"]).says(&[" left\n"]);
}
