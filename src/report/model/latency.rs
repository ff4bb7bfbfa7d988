//! The tables and the plot of what was timed.

use super::Cells;
use super::plots::{MOST_BARS, PAGE, labels, variant_style};
use super::quality::speed_panel;
use super::rows::{finished, keyed_table};
use crate::column::Column;
use crate::config::experiment::Variant;
use crate::plan::Cell;
use crate::record::{CellResult, LatencyRecord, PhaseRecord};
use crate::report::figure::{Axis, BarSeries, Category, Figure, Marks, Panel, Value as Mark};
use crate::report::stats::{median, median_bounds};
use crate::report::table::Table;

const MILLI: f64 = 1e3;

/// A phase of what was timed in a cell.
struct Timed<'a> {
    name: &'static str,
    batch: usize,
    prompt: usize,
    /// Tokens of the prompt, or generated.
    tokens: usize,
    /// Tokens that a sample takes in: of the prompts, or one a sequence.
    tokens_per_sample: usize,
    phase: &'a PhaseRecord,
    /// Runs that counted.
    repeats: usize,
    peak_bytes: Option<u64>,
}

impl<'a> Timed<'a> {
    fn phases(latency: &'a LatencyRecord) -> [Self; 2] {
        let LatencyRecord { batch, prompt, generate, prefill, decode, peak_bytes, profile: _ } = latency;
        let repeats = prefill.seconds.len();
        let timed = |name, tokens, tokens_per_sample, phase| Timed {
            name,
            batch: *batch,
            prompt: *prompt,
            tokens,
            tokens_per_sample,
            phase,
            repeats,
            peak_bytes: *peak_bytes,
        };
        [timed("prefill", *prompt, batch * prompt, prefill), timed("decode", *generate, *batch, decode)]
    }

    fn median(&self) -> f64 {
        self.phase.spread().median
    }

    /// The interval of the median, at 90 %, from the runs: tokens of one run share its luck, so each run counts once.
    fn bounds(&self) -> Option<(f64, f64)> {
        let of_run = self.phase.seconds.len() / self.repeats.max(1);
        let runs: Vec<f64> = self.phase.seconds.chunks(of_run.max(1)).map(median).collect();
        median_bounds(&runs)
    }

    fn tokens_per_second(&self) -> f64 {
        self.tokens_per_sample as f64 / self.median()
    }

    /// What tells it apart from others of its phase.
    fn label(&self) -> String {
        format!("batch {}, prompt {}", self.batch, self.prompt)
    }

    /// Whether the same work was timed.
    fn same_work(&self, other: &Timed<'_>) -> bool {
        (self.name, self.batch, self.prompt, self.tokens) == (other.name, other.batch, other.prompt, other.tokens)
    }
}

/// What was timed in a cell, in the order of the axes.
fn timed(record: &CellResult) -> impl Iterator<Item = Timed<'_>> {
    let latencies = record.measured.iter().flat_map(|measured| measured.latency.iter().flatten());
    latencies.flat_map(Timed::phases)
}

/// `latency.csv` and `latency_parts.csv`, where something was timed.
pub(super) fn tables(cells: &Cells) -> Vec<Table> {
    if finished(cells).any(|(_, measured)| measured.latency.is_some()) {
        vec![latency(cells), parts(cells)]
    } else {
        Vec::new()
    }
}

/// A row of `latency.csv`; times in seconds.
pub(super) struct LatencyRow {
    name: &'static str,
    batch: u64,
    tokens: u64,
    repeats: u64,
    mean: f64,
    sd: f64,
    median: f64,
    p95: f64,
    min: f64,
    tokens_per_s: f64,
    /// The dense model's median.
    dense: Option<f64>,
    peak_bytes: Option<u64>,
    bounds: Option<(f64, f64)>,
    speedup: Option<(f64, f64)>,
    same_kernels_as: Option<String>,
}

/// The columns of `latency`.
pub(super) const LATENCY: &[Column<LatencyRow>] = &[
    Column { name: "phase", help: "`prefill` or `decode`", get: |t| t.name.into() },
    Column { name: "batch", help: "sequences at a time", get: |t| t.batch.into() },
    Column { name: "tokens", help: "tokens of the prompt, or that were generated", get: |t| t.tokens.into() },
    Column { name: "repeats", help: "runs that were timed", get: |t| t.repeats.into() },
    Column {
        name: "mean_ms",
        help: "the mean time, of a prompt or of a generated token",
        get: |t| (t.mean * MILLI).into(),
    },
    Column { name: "sd_ms", help: "its standard deviation", get: |t| (t.sd * MILLI).into() },
    Column { name: "median_ms", help: "the median time", get: |t| (t.median * MILLI).into() },
    Column { name: "p95_ms", help: "95 % of the times are below", get: |t| (t.p95 * MILLI).into() },
    Column { name: "min_ms", help: "the shortest time", get: |t| (t.min * MILLI).into() },
    Column {
        name: "tokens_per_s",
        help: "tokens of all sequences a second, by the median",
        get: |t| t.tokens_per_s.into(),
    },
    Column {
        name: "speedup_vs_dense",
        help: "the dense model's median over this one",
        get: |t| t.dense.map(|dense| dense / t.median).into(),
    },
    Column { name: "peak_bytes", help: "the most memory in use meanwhile", get: |t| t.peak_bytes.into() },
    Column {
        name: "median_low_ms",
        help: "from where the median may lie, at 90 %",
        get: |t| t.bounds.map(|(low, _)| low * MILLI).into(),
    },
    Column { name: "median_high_ms", help: "to where", get: |t| t.bounds.map(|(_, high)| high * MILLI).into() },
    Column {
        name: "speedup_low",
        help: "from where the speed-up may lie, by both medians' intervals",
        get: |t| t.speedup.map(|(low, _)| low).into(),
    },
    Column { name: "speedup_high", help: "to where", get: |t| t.speedup.map(|(_, high)| high).into() },
    Column {
        name: "same_kernels_as",
        help: "an earlier setup of the point that ran the same kernels: their times differ by chance alone",
        get: |t| t.same_kernels_as.clone().into(),
    },
];

fn latency(cells: &Cells) -> Table {
    let row = |record: &CellResult, timed: Timed<'_>| {
        let spread = timed.phase.spread();
        let (bounds, dense) = (timed.bounds(), dense_of(cells, record, &timed));
        let speedup = bounds.zip(dense.as_ref().and_then(Timed::bounds));
        LatencyRow {
            name: timed.name,
            batch: timed.batch as u64,
            tokens: timed.tokens as u64,
            repeats: timed.repeats as u64,
            mean: spread.mean,
            sd: spread.sd,
            median: spread.median,
            p95: spread.p95,
            min: spread.min,
            tokens_per_s: timed.tokens_per_second(),
            dense: dense.map(|dense| dense.median()),
            peak_bytes: timed.peak_bytes,
            bounds,
            speedup: speedup.map(|(own, dense)| (dense.0 / own.1, dense.1 / own.0)),
            same_kernels_as: same_kernels(cells, record).map(|other| other.cell.setup()),
        }
    };
    let rows = cells.records.iter().flat_map(|record| timed(record).map(move |timed| (record, row(record, timed))));
    keyed_table("latency", LATENCY, rows)
}

/// An earlier variant of the same point that ran the very same kernels: the times of both differ by chance alone.
fn same_kernels<'a>(cells: &'a Cells, record: &CellResult) -> Option<&'a CellResult> {
    let kernels = |record: &CellResult| {
        let mut all = record.measured.as_ref()?.kernels.clone();
        all.sort_by(|a, b| (&a.kernel, a.tokens).cmp(&(&b.kernel, b.tokens)));
        (!all.is_empty()).then_some(all)
    };
    let own = kernels(record)?;
    let earlier = cells.records.iter().take_while(|other| other.id != record.id);
    earlier.filter(|other| other.cell.same_point(&record.cell)).find(|other| kernels(other).as_ref() == Some(&own))
}

/// What a reader should know of times: which differ by chance alone.
pub(super) fn finding(cells: &Cells) -> Option<String> {
    let timed: Vec<&CellResult> = cells.records.iter().filter(|record| timed(record).next().is_some()).collect();
    let same: Vec<String> = timed
        .iter()
        .filter_map(|record| Some(format!("{} and {}", same_kernels(cells, record)?.cell.setup(), record.cell.setup())))
        .collect();
    let first = same.first()?;
    let more = if same.len() > 1 { format!(" (and {} more pairs)", same.len() - 1) } else { String::new() };
    Some(format!(
        "{first}{more} ran the same kernels: their times differ by chance alone, see `same_kernels_as` in tables/latency.csv"
    ))
}

/// The dense model's times of the same work on the same machine.
fn dense_of<'a>(cells: &'a Cells, record: &CellResult, timed_here: &Timed<'_>) -> Option<Timed<'a>> {
    let alike = |a: &CellResult, b: &CellResult| {
        let machine = |result: &CellResult| {
            let of = |key: &str| result.timed_on.as_ref().and_then(|timed_on| timed_on.get(key).cloned());
            ["device", "threads", "kernels"].map(of)
        };
        let model = |cell: &Cell| (cell.model.clone(), cell.backend, cell.dtype);
        model(&a.cell) == model(&b.cell) && machine(a) == machine(b)
    };
    let dense = cells.records.iter().find(|other| other.cell.variant == Variant::Dense && alike(other, record))?;
    timed(dense).find(|timed| timed.same_work(timed_here))
}

/// A row of `latency_parts.csv`; times in seconds.
pub(super) struct PartsRow {
    name: &'static str,
    batch: u64,
    tokens: u64,
    whole: f64,
    linears: f64,
    attention: f64,
    other: f64,
}

/// The columns of `latency_parts`.
pub(super) const PARTS: &[Column<PartsRow>] = &[
    Column { name: "phase", help: "`prefill` or `decode`", get: |p| p.name.into() },
    Column { name: "batch", help: "sequences at a time", get: |p| p.batch.into() },
    Column { name: "tokens", help: "tokens of the prompt, or that were generated", get: |p| p.tokens.into() },
    Column {
        name: "whole_ms",
        help: "the time of all, in a run of its own that is timed part by part",
        get: |p| (p.whole * MILLI).into(),
    },
    Column { name: "linears_ms", help: "of matrix products", get: |p| (p.linears * MILLI).into() },
    Column { name: "attention_ms", help: "of attention", get: |p| (p.attention * MILLI).into() },
    Column { name: "other_ms", help: "of what is left", get: |p| (p.other * MILLI).into() },
];

fn parts(cells: &Cells) -> Table {
    let row = |timed: Timed<'_>| PartsRow {
        name: timed.name,
        batch: timed.batch as u64,
        tokens: timed.tokens as u64,
        whole: timed.phase.parts.whole_seconds,
        linears: timed.phase.parts.linears_seconds,
        attention: timed.phase.parts.attention_seconds,
        other: timed.phase.parts.other_seconds,
    };
    let rows = cells.records.iter().flat_map(|record| timed(record).map(move |timed| (record, row(timed))));
    keyed_table("latency_parts", PARTS, rows)
}

/// Tokens a second of every setup: bars, or lines over the sparsity where there are too many.
pub(super) fn figure(records: &[&CellResult]) -> Option<Figure> {
    let records: Vec<&CellResult> = records.iter().copied().filter(|r| timed(r).next().is_some()).collect();
    let work: Vec<Timed<'_>> = records.first().map(|record| timed(record).collect()).unwrap_or_default();
    let panel = |name: &str, title: &str| {
        let work: Vec<&Timed<'_>> = work.iter().filter(|timed| timed.name == name).collect();
        let axis = Axis { from_zero: true, ..Axis::linear(title) };
        (records.len() <= MOST_BARS).then(|| bars(&records, &work, axis.clone())).or_else(|| {
            let first = work.first()?;
            // Lines have room for one workload; the panel says which where there are more.
            let label = if work.len() > 1 { format!("{title}, {}", first.label()) } else { title.into() };
            let axis = Axis { label, ..axis };
            speed_panel(&records, axis, &|record| speed(record, first))
        })
    };
    let panels = [panel("decode", "Decode (tokens/s)"), panel("prefill", "Prefill (tokens/s)")];
    let panels: Vec<Panel> = panels.into_iter().flatten().collect();
    let bars = panels.iter().any(|panel| matches!(panel.marks, Marks::Bars { .. }));
    let says = bars.then(|| "Bars: the median sample; whiskers: the middle half of all samples".to_owned());
    let notes = says.into_iter().collect();
    (!work.is_empty() && !panels.is_empty()).then(|| Figure { columns: 1, notes, ..Figure::new(panels, PAGE, 510) })
}

/// One bar a setup for each batch size and prompt length.
fn bars(records: &[&CellResult], work: &[&Timed<'_>], axis: Axis) -> Panel {
    let several = work.len() > 1;
    let category = |(label, record): (String, &&CellResult)| Category {
        style: (!several).then(|| variant_style(record.cell.variant)),
        ..Category::from(label)
    };
    let series = work.iter().enumerate().map(|(index, work)| BarSeries {
        name: work.label(),
        style: index + 1,
        values: records.iter().map(|record| mark(record, work)).collect(),
    });
    let categories = labels(records).into_iter().zip(records).map(category).collect();
    let marks = Marks::Bars { categories, series: series.collect() };
    Panel { legend: several, ..Panel::new(Axis::linear(""), axis, marks) }
}

/// The speed of the median sample, with those of the middle half of all samples on each side.
fn mark(record: &CellResult, work: &Timed<'_>) -> Mark {
    let Some(timed) = timed(record).find(|timed| timed.same_work(work)) else { return Mark::MISSING };
    let speed = |seconds: f64| timed.tokens_per_sample as f64 / seconds;
    match timed.phase.middle_half() {
        Some((fast, slow)) => Mark::with_bounds(timed.tokens_per_second(), speed(slow), speed(fast)),
        None => timed.tokens_per_second().into(),
    }
}

fn speed(record: &CellResult, work: &Timed<'_>) -> Option<f64> {
    timed(record).find(|timed| timed.same_work(work)).map(|timed| timed.tokens_per_second())
}
