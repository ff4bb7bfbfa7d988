//! The plots of kernel cells: speed-up over sparsity, and the roofline.

use super::tables::{BreakEven, Curve, curves, kernel_style};
use crate::config::experiment::KernelFormat;
use crate::config::format::style;
use crate::plan::KernelCell;
use crate::record::{KernelResult, Timed};
use crate::report::figure::{Axis, Figure, Format, Marks, Panel, PointSeries, Rule, RuleAxis, Trace, Value};

/// A page's width in logical pixels, 180 mm.
const PAGE: u32 = 680;
/// Every figure with its file name.
pub(super) fn all(records: &[KernelResult], title: Option<&str>) -> Vec<(String, Figure)> {
    let mut figures = speedups(records);
    figures.extend(rooflines(records));
    for (name, figure) in &mut figures {
        figure.description = title.into_iter().chain([name.as_str()]).collect::<Vec<_>>().join(": ");
    }
    figures
}

/// A figure a backend, dtype and shape, a panel a number of tokens, a line a format.
fn speedups(records: &[KernelResult]) -> Vec<(String, Figure)> {
    let mut shapes: Vec<(String, Vec<Curve<'_>>)> = Vec::new();
    for curve in curves(records) {
        let KernelCell { backend, dtype, shape: [out, inp], .. } = curve.cell;
        let name = format!("speedup-{backend}-{dtype}-{out}x{inp}");
        match shapes.iter_mut().find(|(of, _)| *of == name) {
            Some((_, curves)) => curves.push(curve),
            None => shapes.push((name, vec![curve])),
        }
    }
    shapes.into_iter().map(|(name, curves)| (name, speedup(&curves))).collect()
}

fn speedup(curves: &[Curve<'_>]) -> Figure {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    // The same axes in every panel, and dense always inside.
    let x = range(points().map(|(sparsity, _)| *sparsity));
    let (low, high) = range(points().map(|(_, speedup)| *speedup).chain([1.0]));
    let margin = (high / low).powf(0.08).max(1.1);
    let y = (low / margin, high * margin);
    let mut tokens: Vec<usize> = curves.iter().map(|curve| curve.cell.tokens).collect();
    tokens.sort_unstable();
    tokens.dedup();
    let of_tokens = |&tokens: &usize| {
        let curves = curves.iter().filter(|curve| curve.cell.tokens == tokens);
        panel(tokens, &curves.collect::<Vec<_>>(), (x.0 < x.1).then_some(x), y)
    };
    let panels: Vec<Panel> = tokens.iter().map(of_tokens).collect();
    let columns = if panels.len() > 4 { 3 } else { panels.len().min(2) };
    let rows = panels.len().div_ceil(columns) as u32;
    // The last part is for the legend.
    Figure { columns, ..Figure::new(panels, if columns == 1 { PAGE / 2 } else { PAGE }, 240 * rows + 20) }
}

fn panel(tokens: usize, curves: &[&Curve<'_>], x: Option<(f64, f64)>, y: (f64, f64)) -> Panel {
    let series = curves.iter().enumerate().map(|(at, curve)| PointSeries {
        name: curve.cell.label().into(),
        style: kernel_style(curve.cell.format) + own_before(curves, at),
        trace: Trace::Marked,
        points: curve.points.iter().map(|(sparsity, speedup)| (*sparsity, Value::from(*speedup))).collect(),
    });
    let crossing = |curve: &&Curve<'_>| match BreakEven::of(&curve.points) {
        BreakEven::At(at) => {
            Some(Rule { axis: RuleAxis::X, at, label: format!("{} {:.0} %", curve.cell.label(), at * 100.0) })
        }
        BreakEven::Never | BreakEven::Below(_) => None,
    };
    let dense = Rule { axis: RuleAxis::Y, at: 1.0, label: "dense".into() };
    let x = Axis { format: Format::Percent(0), range: x.map(padded), ..Axis::linear("Sparsity") };
    let y = Axis { range: Some(y), ..Axis::log10("Speed-up over dense") };
    let title = format!("{tokens} token{}", if tokens == 1 { "" } else { "s" });
    let rules = curves.iter().filter_map(crossing).chain([dense]).collect();
    Panel { title, rules, legend: true, ..Panel::new(x, y, Marks::Points(series.collect())) }
}

/// How many kernels of users come before one, so that each looks different.
fn own_before(curves: &[&Curve<'_>], at: usize) -> usize {
    let own = |curve: &&Curve<'_>| curve.cell.format == KernelFormat::Source;
    if own(&curves[at]) { curves[..at].iter().filter(|curve| own(curve)).count() } else { 0 }
}

/// The range with room for the markers at its ends.
fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let margin = 0.05 * (high - low);
    (low - margin, high + margin)
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// A figure a backend and dtype: operations a second over operations a byte, below the measured roof.
fn rooflines(records: &[KernelResult]) -> Vec<(String, Figure)> {
    let mut devices: Vec<(String, Vec<Timed<'_>>)> = Vec::new();
    for timed in records.iter().filter_map(KernelResult::timed) {
        let name = format!("roofline-{}-{}", timed.cell.backend, timed.cell.dtype);
        match devices.iter_mut().find(|(of, _)| *of == name) {
            Some((_, cells)) => cells.push(timed),
            None => devices.push((name, vec![timed])),
        }
    }
    devices.into_iter().map(|(name, cells)| (name, roofline(&cells))).collect()
}

fn intensity(timed: &Timed<'_>) -> f64 {
    timed.flops() / timed.bytes() as f64
}

fn roofline(cells: &[Timed<'_>]) -> Figure {
    let mut series = vec![roof(cells)];
    for format in KernelFormat::ALL {
        let of_format = cells.iter().filter(|timed| timed.cell.format == format.value);
        // Users' kernels have a name each.
        let mut labels: Vec<&str> = of_format.clone().map(|timed| timed.cell.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        for (at, label) in labels.into_iter().enumerate() {
            let of_label = of_format.clone().filter(|timed| timed.cell.label() == label);
            let points = of_label.map(|timed| (intensity(timed), Value::from(timed.gflops()))).collect();
            let (name, style) = (label.into(), kernel_style(format.value) + at);
            series.push(PointSeries { name, style, trace: Trace::Scatter, points });
        }
    }
    let (x, y) = (Axis::log10("Operations per byte moved"), Axis::log10("GFLOP/s"));
    let panel = Panel { legend: true, ..Panel::new(x, y, Marks::Points(series)) };
    Figure::new(vec![panel], PAGE / 2 + 120, 340)
}

/// What memory and arithmetic allow, from the best peaks that were measured.
fn roof(cells: &[Timed<'_>]) -> PointSeries {
    let best = |peak: fn(&Timed<'_>) -> f64| cells.iter().map(peak).fold(0.0, f64::max);
    let bytes_per_s = best(|timed| timed.measured.peak_bytes_per_s);
    let flops_per_s = best(|timed| timed.measured.peak_flops_per_s);
    let ridge = flops_per_s / bytes_per_s;
    let (low, high) = range(cells.iter().map(intensity));
    // At least up to the ridge, so that both parts of the roof are seen.
    let ends = [low, ridge, high.max(2.0 * ridge)];
    let mut points: Vec<f64> = ends.into_iter().filter(|x| x.is_finite() && *x > 0.0).collect();
    points.sort_by(f64::total_cmp);
    let height = |x: f64| (bytes_per_s * x).min(flops_per_s) / 1e9;
    let points = points.into_iter().map(|x| (x, Value::from(height(x)))).collect();
    PointSeries { name: "measured roof".into(), style: style::ROOF, trace: Trace::Line, points }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::Dtype;
    use crate::plan::Backend;
    use crate::record::KernelMeasured;

    #[test]
    fn the_roof_bends_where_memory_and_arithmetic_meet() {
        let cell = KernelCell {
            backend: Backend::Flex,
            dtype: Dtype::F32,
            shape: [100, 100],
            tokens: 1,
            format: KernelFormat::Dense,
            sparsity: None,
            seed: 0,
            warmup: 0,
            repeats: 1,
            given: Default::default(),
        };
        let measured = KernelMeasured {
            seconds: vec![1e-6],
            back_to_back: None,
            copies: 1,
            nonzero: 10_000,
            weight_bytes: 40_000,
            read_bytes: None,
            threshold: None,
            max_rel_err: 0.0,
            kernel: "dense-burn".into(),
            choice: None,
            dense_seconds: Some(1e-6),
            peak_bytes_per_s: 10e9,
            peak_flops_per_s: 100e9,
        };
        let timed = Timed { cell: &cell, measured: &measured };
        let points = roof(&[timed]).points;
        assert_eq!(points.iter().map(|(x, _)| *x).skip(1).collect::<Vec<_>>(), [10.0, 20.0]);
        let heights: Vec<f64> = points.iter().filter_map(|(_, y)| y.finite()).collect();
        assert!((heights[0] - 10.0 * intensity(&timed)).abs() < 1e-9);
        assert_eq!(heights[1..], [100.0, 100.0]);
    }
}
