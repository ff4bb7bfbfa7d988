//! The table and the figure of the steps of a generated token, where `run --profile` has looked.

use super::Cells;
use super::plots::{PAGE, labels};
use super::rows::{finished, keyed_table};
use crate::column::Column;
use crate::record::{CellResult, LatencyRecord, Profile, ProfiledStep};
use crate::report::figure::{Axis, BarSeries, Category, Figure, Marks, Panel, Value as Mark};
use crate::report::stats::median;
use crate::report::table::Table;

const MICRO: f64 = 1e6;
/// The most setups of a figure that stay legible.
const MOST_SETUPS: usize = 7;
/// The stage of a token as a whole.
const WHOLE: &str = "whole";

/// A row of `profile.csv`: the calls of a stage by one kernel in a token; times in seconds.
pub(super) struct ProfileRow {
    batch: u64,
    prompt: u64,
    clock: &'static str,
    stage: String,
    kernel: Option<String>,
    calls: f64,
    tokens: u64,
    median: f64,
    min: f64,
    share: Option<f64>,
}

/// The columns of `profile`.
pub(super) const PROFILE: &[Column<ProfileRow>] = &[
    Column { name: "batch", help: "sequences at a time", get: |p| p.batch.into() },
    Column { name: "prompt", help: "tokens of the prompt before", get: |p| p.prompt.into() },
    Column {
        name: "clock",
        help: "what measured the stages: `host` waits for each, which takes time of its own",
        get: |p| p.clock.into(),
    },
    Column {
        name: "stage",
        help: "a module without the number of its block, `attention`, `activation`, `arg_max`; `whole`: a token as a whole, when no stage was looked at",
        get: |p| p.stage.clone().into(),
    },
    Column { name: "kernel", help: "which code path ran, where there are several", get: |p| p.kernel.clone().into() },
    Column { name: "calls", help: "how often in a token", get: |p| p.calls.into() },
    Column { name: "tokens", help: "tokens that were looked at", get: |p| p.tokens.into() },
    Column {
        name: "median_us",
        help: "the median time of all its calls in a token",
        get: |p| (p.median * MICRO).into(),
    },
    Column { name: "min_us", help: "the shortest", get: |p| (p.min * MICRO).into() },
    Column { name: "time_share", help: "its share of what all stages take together", get: |p| p.share.into() },
];

/// What was profiled of a cell.
fn profiled(record: &CellResult) -> impl Iterator<Item = (&LatencyRecord, &Profile)> {
    let latencies = record.measured.iter().flat_map(|measured| measured.latency.iter().flatten());
    latencies.filter_map(|latency| Some((latency, latency.profile.as_ref()?)))
}

fn rows(latency: &LatencyRecord, profile: &Profile) -> Vec<ProfileRow> {
    let all: f64 = profile.steps.iter().map(|step| median(&step.seconds)).sum();
    let row = |stage: &str, kernel: &str, calls: f64, seconds: &[f64], share| ProfileRow {
        batch: latency.batch as u64,
        prompt: latency.prompt as u64,
        clock: profile.clock.name(),
        stage: stage.into(),
        kernel: (!kernel.is_empty()).then(|| kernel.into()),
        calls,
        tokens: seconds.len() as u64,
        median: median(seconds),
        min: seconds.iter().copied().fold(f64::INFINITY, f64::min),
        share,
    };
    let of_step = |step: &ProfiledStep| {
        let calls = step.calls as f64 / step.seconds.len().max(1) as f64;
        row(&step.stage, &step.kernel, calls, &step.seconds, Some(median(&step.seconds) / all))
    };
    let whole = row(WHOLE, "", 1.0, &profile.whole_seconds, None);
    profile.steps.iter().map(of_step).chain([whole]).collect()
}

/// `profile.csv`, where something was profiled.
pub(super) fn table(cells: &Cells) -> Option<Table> {
    let of = |record| profiled(record).flat_map(|(latency, profile)| rows(latency, profile));
    let all = finished(cells).flat_map(|(record, _)| of(record).map(move |row| (record, row)));
    let table = keyed_table("profile", PROFILE, all);
    (!table.rows.is_empty()).then_some(table)
}

/// Microseconds of every stage, a bar for each setup, in the workload that is first.
pub(super) fn figure(records: &[&CellResult]) -> Option<Figure> {
    let records: Vec<&CellResult> =
        records.iter().copied().filter(|record| profiled(record).next().is_some()).collect();
    let (work, first) = profiled(records.first()?).next()?;
    let (batch, prompt, clock) = (work.batch, work.prompt, first.clock);
    let shown: Vec<&CellResult> = records.iter().copied().take(MOST_SETUPS).collect();
    let of = |record: &CellResult| -> Option<Vec<(String, f64)>> {
        let same = |(latency, _): &(&LatencyRecord, &Profile)| (latency.batch, latency.prompt) == (batch, prompt);
        let (_, profile) = profiled(record).find(same)?;
        Some(profile.steps.iter().map(|step| (step.stage.clone(), median(&step.seconds))).collect())
    };
    let all: Vec<Vec<(String, f64)>> = shown.iter().map(|record| of(record).unwrap_or_default()).collect();
    let mut stages: Vec<&str> = Vec::new();
    for (stage, _) in all.iter().flatten() {
        if !stages.contains(&stage.as_str()) {
            stages.push(stage);
        }
    }
    // By several kernels in several blocks: a stage's time is that of all.
    let time = |times: &[(String, f64)], stage: &str| -> Option<f64> {
        let of_stage: Vec<f64> = times.iter().filter(|(name, _)| name == stage).map(|(_, time)| *time).collect();
        (!of_stage.is_empty()).then(|| of_stage.iter().sum::<f64>() * MICRO)
    };
    let series = labels(&shown).into_iter().zip(&all).enumerate().map(|(style, (name, times))| BarSeries {
        name,
        style,
        values: stages.iter().map(|stage| Mark::from(time(times, stage))).collect(),
    });
    let categories = stages.iter().map(|stage| Category::from(*stage)).collect();
    let axis = Axis { from_zero: true, ..Axis::linear("Time in a token (us)") };
    let marks = Marks::Bars { categories, series: series.collect() };
    let panel = Panel { legend: true, ..Panel::new(Axis::linear(""), axis, marks) };
    let mut notes = vec![format!("Batch {batch}, after {prompt} tokens; the {}'s clock", clock.name())];
    let left_out = records.len() - shown.len();
    if left_out > 0 {
        notes.push(format!("{left_out} more setups are in tables/profile.csv alone"));
    }
    Some(Figure { notes, ..Figure::new(vec![panel], PAGE, 330) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Format, Method, Variant};
    use crate::record::ProfileClock;
    use crate::report::model::tests::{cell, record};
    use crate::report::table::Value;

    fn step(stage: &str, kernel: &str, calls: usize, seconds: &[f64]) -> ProfiledStep {
        ProfiledStep { stage: stage.into(), kernel: kernel.into(), calls, seconds: seconds.into() }
    }

    fn with(variant: Variant, steps: Vec<ProfiledStep>) -> CellResult {
        let mut record = record(cell("m", Method::Magnitude, 0.5, variant, None), 1.0, &[]);
        let phase = crate::record::PhaseRecord { seconds: vec![1.0], parts: Default::default() };
        let profile = Profile { clock: ProfileClock::Host, whole_seconds: vec![5e-6, 4e-6, 9e-6], steps };
        let latency = LatencyRecord {
            batch: 1,
            prompt: 8,
            generate: 3,
            prefill: phase.clone(),
            decode: phase,
            peak_bytes: None,
            profile: Some(profile),
        };
        record.measured.as_mut().unwrap().latency = Some(vec![latency]);
        record
    }

    fn two() -> Vec<CellResult> {
        let masked = vec![step("fc1", "dense-a", 6, &[1e-6, 2e-6, 9e-6]), step("attention", "", 6, &[2e-6; 3])];
        let sparse = vec![step("fc1", "csr-a", 3, &[1e-6; 3]), step("fc1", "csr-b", 3, &[0.5e-6; 3])];
        vec![with(Variant::Masked, masked), with(Variant::Sparse(Format::Csr), sparse)]
    }

    #[test]
    fn a_row_has_the_calls_and_the_median_of_a_token() {
        let cells = Cells { records: two(), ..Default::default() };
        let table = table(&cells).unwrap();
        let at = |row: usize, column: &str| {
            table.rows[row][table.columns.iter().position(|name| name == column).unwrap()].clone()
        };
        assert_eq!(table.rows.len(), 6);
        assert_eq!((at(0, "stage"), at(0, "kernel")), ("fc1".into(), "dense-a".into()));
        assert_eq!((at(0, "calls"), at(0, "tokens")), (Value::Float(2.0), Value::Int(3)));
        assert_eq!((at(0, "median_us"), at(0, "min_us"), at(0, "time_share")), (2.0.into(), 1.0.into(), 0.5.into()));
        assert_eq!(
            (at(2, "stage"), at(2, "median_us"), at(2, "time_share")),
            ("whole".into(), 5.0.into(), Value::Missing)
        );
        assert_eq!((at(3, "kernel"), at(4, "kernel")), ("csr-a".into(), "csr-b".into()));
        let nothing = Cells {
            records: vec![record(cell("m", Method::Magnitude, 0.5, Variant::Masked, None), 1.0, &[])],
            ..Default::default()
        };
        assert!(super::table(&nothing).is_none());
    }

    #[test]
    fn a_bar_is_a_stage_whatever_its_kernels() {
        let records = two();
        let figure = figure(&records.iter().collect::<Vec<_>>()).unwrap();
        let csv = figure.csv();
        let value = |series: &str, stage: &str| -> f64 {
            let line = csv.lines().find(|line| line.contains(&format!(",{series},{stage},"))).unwrap();
            line.split(',').nth(3).unwrap().parse().unwrap()
        };
        assert!((value("Masked50", "fc1") - 2.0).abs() < 1e-9 && (value("CSR50", "fc1") - 1.5).abs() < 1e-9, "{csv}");
        assert!(csv.contains(",CSR50,attention,,"), "{csv}");
        assert!(super::figure(&[]).is_none());
    }
}
