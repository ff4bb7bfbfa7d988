//! The tables of kernel cells: `kernels` and `break_even`.

use crate::config::experiment::KernelFormat;
use crate::config::format::style;
use crate::plan::KernelCell;
use crate::record::{KernelResult, Timed};
use crate::report::table::{Table, Value};

const KERNELS: [&str; 20] = [
    "cell",
    "format",
    "backend",
    "dtype",
    "out_features",
    "in_features",
    "tokens",
    "sparsity_target",
    "sparsity",
    "repeats",
    "median_us",
    "p95_us",
    "min_us",
    "bytes",
    "gflops",
    "gbps",
    "roofline_fraction",
    "speedup_vs_dense",
    "max_rel_err",
    "kernel",
];
const BREAK_EVEN: [&str; 8] =
    ["format", "backend", "dtype", "out_features", "in_features", "tokens", "break_even_sparsity", "note"];

/// Every table, where there are kernel cells.
pub(super) fn all(records: &[KernelResult]) -> Vec<Table> {
    if records.is_empty() { Vec::new() } else { vec![kernels(records), break_even(records)] }
}

/// What a person wants to see first.
pub(super) fn terminal(records: &[KernelResult]) -> Option<Table> {
    let hidden = ["cell", "sparsity", "repeats", "p95_us", "min_us", "bytes"];
    let mut table = kernels(records);
    let kept: Vec<usize> = (0..table.columns.len()).filter(|&c| !hidden.contains(&table.columns[c].as_str())).collect();
    table.rows = table.rows.iter().map(|row| kept.iter().map(|&c| row[c].clone()).collect()).collect();
    table.columns = kept.iter().map(|&c| table.columns[c].clone()).collect();
    (!records.is_empty()).then(|| table.without_constant_columns(&["format", "kernel"]))
}

fn count(number: usize) -> Value {
    Value::Int(number as u64)
}

fn kernels(records: &[KernelResult]) -> Table {
    let mut table = Table::new("kernels", KERNELS);
    for record in records {
        let cell = &record.kernel;
        let timed = record.timed();
        let number = |value: fn(&Timed<'_>) -> f64| Value::from(timed.as_ref().map(value));
        table.rows.push(vec![
            record.id.as_str().into(),
            cell.label().into(),
            cell.backend.name().into(),
            cell.dtype.name().into(),
            count(cell.shape[0]),
            count(cell.shape[1]),
            count(cell.tokens),
            cell.sparsity.into(),
            number(|timed| timed.sparsity()),
            count(cell.repeats),
            number(|timed| timed.median() * 1e6),
            number(|timed| timed.p95() * 1e6),
            number(|timed| timed.min() * 1e6),
            timed.map(|timed| timed.bytes()).into(),
            number(|timed| timed.gflops()),
            number(|timed| timed.gbps()),
            number(|timed| timed.roofline_fraction()),
            timed.and_then(|timed| timed.speedup()).into(),
            number(|timed| timed.measured.max_rel_err),
            timed.map(|timed| timed.measured.kernel.as_str()).into(),
        ]);
    }
    table
}

fn break_even(records: &[KernelResult]) -> Table {
    let mut table = Table::new("break_even", BREAK_EVEN);
    for curve in curves(records) {
        let cell = curve.cell;
        let (sparsity, note) = match BreakEven::of(&curve.points) {
            BreakEven::Never => (None, Some("slower at the largest sparsity measured")),
            BreakEven::Below(sparsity) => (Some(sparsity), Some("not slower from the smallest sparsity measured on")),
            BreakEven::At(sparsity) => (Some(sparsity), None),
        };
        table.rows.push(vec![
            cell.label().into(),
            cell.backend.name().into(),
            cell.dtype.name().into(),
            count(cell.shape[0]),
            count(cell.shape[1]),
            count(cell.tokens),
            sparsity.into(),
            note.into(),
        ]);
    }
    table
}

/// The speed-up of a format over the sparsity.
pub(super) struct Curve<'a> {
    /// Any of its cells.
    pub cell: &'a KernelCell,
    /// Target sparsity and mean speed-up over seeds, ascending; at least one.
    pub points: Vec<(f64, f64)>,
}

/// The curve of every backend, dtype, shape, number of tokens and format, in order of first appearance.
pub(super) fn curves(records: &[KernelResult]) -> Vec<Curve<'_>> {
    let same = |a: &KernelCell, b: &KernelCell| {
        let weight = |cell: &KernelCell| cell.given.weight.clone();
        (a.backend, a.dtype, a.shape, a.tokens) == (b.backend, b.dtype, b.shape, b.tokens)
            && (a.label(), weight(a)) == (b.label(), weight(b))
    };
    let mut groups: Vec<(&KernelCell, Vec<(f64, f64)>)> = Vec::new();
    for timed in records.iter().filter_map(KernelResult::timed) {
        let (Some(sparsity), Some(speedup)) = (timed.cell.sparsity, timed.speedup()) else { continue };
        match groups.iter_mut().find(|(cell, _)| same(cell, timed.cell)) {
            Some((_, points)) => points.push((sparsity, speedup)),
            None => groups.push((timed.cell, vec![(sparsity, speedup)])),
        }
    }
    let curve = |(cell, mut points): (_, Vec<(f64, f64)>)| {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mean = |seeds: &[(f64, f64)]| {
            (seeds[0].0, seeds.iter().map(|(_, speedup)| speedup).sum::<f64>() / seeds.len() as f64)
        };
        Curve { cell, points: points.chunk_by(|a, b| a.0 == b.0).map(mean).collect() }
    };
    groups.into_iter().map(curve).collect()
}

/// From which sparsity on a format is not slower than dense.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum BreakEven {
    /// It is slower at the largest sparsity.
    Never,
    /// It is not slower at any, this being the smallest.
    Below(f64),
    /// Between two of them, by linear interpolation of the speed-up.
    At(f64),
}

impl BreakEven {
    /// Of points in ascending order: where the speed-up crosses 1 for the last time.
    pub fn of(points: &[(f64, f64)]) -> Self {
        let slower = points.iter().rposition(|(_, speedup)| *speedup < 1.0);
        match (slower, points) {
            (None, [(first, _), ..]) => Self::Below(*first),
            (Some(last), _) if last + 1 < points.len() => {
                let ((s0, f0), (s1, f1)) = (points[last], points[last + 1]);
                Self::At(s0 + (1.0 - f0) / (f1 - f0) * (s1 - s0))
            }
            (None, []) | (Some(_), _) => Self::Never,
        }
    }
}

/// The fixed style of a format in every figure.
pub(super) fn kernel_style(format: KernelFormat) -> usize {
    match format {
        KernelFormat::Dense => style::DENSE,
        KernelFormat::Sparse(format) => format.row().style,
        KernelFormat::Auto => style::AUTO,
        KernelFormat::Threshold => style::THRESHOLD,
        KernelFormat::Source => style::SOURCE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn break_even_is_the_last_crossing() {
        let of = |speedups: &[f64]| {
            let points: Vec<_> = speedups.iter().enumerate().map(|(i, s)| ((i + 1) as f64 / 8.0, *s)).collect();
            BreakEven::of(&points)
        };
        assert_eq!(of(&[0.5, 1.5]), BreakEven::At(0.1875));
        assert_eq!(of(&[1.5, 0.5, 0.75, 1.0]), BreakEven::At(0.5));
        assert_eq!(of(&[1.0, 2.0]), BreakEven::Below(0.125));
        assert_eq!(of(&[2.0, 0.5]), BreakEven::Never);
        assert_eq!(of(&[]), BreakEven::Never);
    }
}
