//! The tables of kernel cells: `kernels` and `break_even`.

use crate::column::Column;
use crate::config::experiment::KernelFormat;
use crate::config::format::style;
use crate::plan::KernelCell;
use crate::record::{KernelResult, Timed};
use crate::report::columns::Columns;
use crate::report::table::{Table, Value};

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

/// What the columns of the tables say.
pub(super) fn columns() -> Vec<Columns> {
    vec![Columns::of("The key of kernel cells", KernelCell::KEY), Columns::of("`kernels`", KERNELS)]
}

/// What a kernel cell gave, where it ran.
fn of<T: Into<Value>>(record: &KernelResult, get: impl Fn(Timed<'_>) -> T) -> Value {
    record.timed().map(get).into()
}

/// The columns after the key.
const KERNELS: &[Column<KernelResult>] = &[
    Column { name: "sparsity", help: "share of zeros of the weight", get: |record| of(record, |t| t.sparsity()) },
    Column { name: "repeats", help: "calls that were timed", get: |record| record.kernel.repeats.into() },
    Column {
        name: "median_us",
        help: "median time of a call, in microseconds",
        get: |record| of(record, |t| t.median() * 1e6),
    },
    Column { name: "p95_us", help: "95th percentile of the times", get: |record| of(record, |t| t.p95() * 1e6) },
    Column { name: "min_us", help: "shortest time", get: |record| of(record, |t| t.min() * 1e6) },
    Column { name: "bytes", help: "bytes of the stored weight", get: |record| of(record, |t| t.bytes()) },
    Column { name: "gflops", help: "useful operations a second, in 10^9", get: |record| of(record, |t| t.gflops()) },
    Column { name: "gbps", help: "bytes moved a second, in 10^9", get: |record| of(record, |t| t.gbps()) },
    Column {
        name: "roofline_fraction",
        help: "the time that bandwidth and arithmetic of the device allow at best, over the median",
        get: |record| of(record, |t| t.roofline_fraction()),
    },
    Column {
        name: "speedup_vs_dense",
        help: "the dense kernel's median over this one",
        get: |record| of(record, |t| t.speedup()),
    },
    Column {
        name: "max_rel_err",
        help: "largest error against float64, relative",
        get: |record| of(record, |t| t.measured.max_rel_err),
    },
    Column { name: "kernel", help: "the code path that ran", get: |record| of(record, |t| t.measured.kernel.clone()) },
];

fn kernels(records: &[KernelResult]) -> Table {
    // The seed is left out: it says only which random weight was timed.
    let key: Vec<&Column<KernelCell>> = KernelCell::KEY.iter().filter(|column| column.name != "seed").collect();
    let names = key.iter().map(|column| column.name).chain(KERNELS.iter().map(|column| column.name));
    let mut table = Table::new("kernels", ["cell"].into_iter().chain(names));
    for record in records {
        let mut entries = vec![Value::from(record.id.as_str())];
        entries.extend(key.iter().map(|column| (column.get)(&record.kernel)));
        entries.extend(KERNELS.iter().map(|column| (column.get)(record)));
        table.rows.push(entries);
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
            cell.shape[0].into(),
            cell.shape[1].into(),
            cell.tokens.into(),
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
