//! The tables of kernel cells: `kernels` and `break_even`.

use crate::column::Column;
use crate::config::experiment::KernelFormat;
use crate::config::format::style;
use crate::plan::KernelCell;
use crate::record::{KernelResult, Timed};
use crate::report::columns::Columns;
use crate::report::stats::median_bounds;
use crate::report::table::{Table, Value};

const BREAK_EVEN: [&str; 10] = [
    "format",
    "backend",
    "dtype",
    "out_features",
    "in_features",
    "tokens",
    "break_even_sparsity",
    "note",
    "break_even_low",
    "break_even_high",
];

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
    Column {
        name: "median_low_us",
        help: "lower end of the median's interval at 90 %, from the repeats",
        get: |record| bounds(record).map(|(low, _)| low * 1e6).into(),
    },
    Column {
        name: "median_high_us",
        help: "upper end of that interval",
        get: |record| bounds(record).map(|(_, high)| high * 1e6).into(),
    },
];

/// The interval of a kernel's median, in seconds.
fn bounds(record: &KernelResult) -> Option<(f64, f64)> {
    median_bounds(&record.measured.as_ref()?.seconds)
}

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
    /// No more digits than there is to know.
    fn rounded(sparsity: f64) -> f64 {
        (sparsity * 1e4).round() / 1e4
    }
    let mut table = Table::new("break_even", BREAK_EVEN);
    for curve in curves(records) {
        let cell = curve.cell;
        let (sparsity, note) = match BreakEven::of(&curve.points) {
            BreakEven::Never => (None, Some("slower at the largest sparsity measured")),
            BreakEven::Below(sparsity) => (Some(sparsity), Some("not slower from the smallest sparsity measured on")),
            BreakEven::At(sparsity) => (Some(sparsity), None),
        };
        let ends = curve.bounds.map(|[slow, fast]| [fast, slow].map(|points| BreakEven::of(&points).sparsity()));
        let [low, high] = ends.unwrap_or_default();
        table.rows.push(vec![
            cell.label().into(),
            cell.backend.name().into(),
            cell.dtype.name().into(),
            cell.shape[0].into(),
            cell.shape[1].into(),
            cell.tokens.into(),
            sparsity.map(rounded).into(),
            note.into(),
            low.map(rounded).into(),
            high.map(rounded).into(),
        ]);
    }
    table
}

/// Break-even for a person: where it lies, and from where to where the repeats allow it to.
pub(super) fn terminal_break_even(records: &[KernelResult]) -> Option<Table> {
    let table = break_even(records);
    let column = |name: &str| table.columns.iter().position(|column| column == name);
    let (at, low, high) = (column("break_even_sparsity")?, column("break_even_low")?, column("break_even_high")?);
    let note = column("note")?;
    let mut shown = Table::new("break_even", table.columns[..at].iter().cloned().chain(["break-even".to_owned()]));
    for row in &table.rows {
        let percent = |value: &Value| value.number().map(|share| format!("{:.1} %", share * 100.0));
        let words = match (percent(&row[at]), percent(&row[low]), percent(&row[high])) {
            (Some(at), Some(low), Some(high)) => format!("{at} ({low} to {high})"),
            (Some(at), Some(low), None) => format!("{at} (from {low} on, or nowhere)"),
            (Some(at), None, _) => at,
            (None, Some(low), _) => format!("nowhere measured, or from {low} on"),
            (None, None, _) => "nowhere measured".into(),
        };
        let words =
            if row[at].number().is_some() && row[note] != Value::Missing { format!("below {words}") } else { words };
        shown.rows.push(row[..at].iter().cloned().chain([words.into()]).collect());
    }
    (!shown.rows.is_empty()).then(|| shown.without_constant_columns(&["format", "break-even"]))
}

/// The speed-up of a format over the sparsity.
pub(super) struct Curve<'a> {
    /// Any of its cells.
    pub cell: &'a KernelCell,
    /// Target sparsity and mean speed-up over seeds, ascending; at least one.
    pub points: Vec<(f64, f64)>,
    /// The least and the largest speed-ups that the repeats allow, likewise, where there are repeats enough.
    bounds: Option<[Vec<(f64, f64)>; 2]>,
}

/// The curve of every backend, dtype, shape, number of tokens and format, in order of first appearance.
pub(super) fn curves(records: &[KernelResult]) -> Vec<Curve<'_>> {
    let same = |a: &KernelCell, b: &KernelCell| {
        let weight = |cell: &KernelCell| cell.given.weight.clone();
        (a.backend, a.dtype, a.shape, a.tokens) == (b.backend, b.dtype, b.shape, b.tokens)
            && (a.label(), weight(a)) == (b.label(), weight(b))
    };
    let mut groups: Vec<(&KernelCell, Vec<Speedup>)> = Vec::new();
    for timed in records.iter().filter_map(KernelResult::timed) {
        let (Some(sparsity), Some(middle)) = (timed.cell.sparsity, timed.speedup()) else { continue };
        let speedup = Speedup { sparsity, middle, ends: ends(records, timed) };
        match groups.iter_mut().find(|(cell, _)| same(cell, timed.cell)) {
            Some((_, points)) => points.push(speedup),
            None => groups.push((timed.cell, vec![speedup])),
        }
    }
    let curve = |(cell, mut points): (_, Vec<Speedup>)| {
        points.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity));
        let mean = |of: &dyn Fn(&Speedup) -> f64| -> Vec<(f64, f64)> {
            let mean = |seeds: &[Speedup]| (seeds[0].sparsity, seeds.iter().map(of).sum::<f64>() / seeds.len() as f64);
            points.chunk_by(|a, b| a.sparsity == b.sparsity).map(mean).collect()
        };
        let end = |of: fn((f64, f64)) -> f64| mean(&|point| point.ends.map_or(f64::NAN, of));
        let bounds = points.iter().all(|point| point.ends.is_some());
        let bounds = bounds.then(|| [end(|(least, _)| least), end(|(_, most)| most)]);
        Curve { cell, points: mean(&|point| point.middle), bounds }
    };
    groups.into_iter().map(curve).collect()
}

/// The speed-up at a sparsity, and what the repeats allow it to be.
struct Speedup {
    sparsity: f64,
    middle: f64,
    ends: Option<(f64, f64)>,
}

/// The least and the largest speed-up that the intervals of both medians allow; dense is timed beside it, by itself.
fn ends(records: &[KernelResult], timed: Timed<'_>) -> Option<(f64, f64)> {
    let own = median_bounds(&timed.measured.seconds)?;
    let alike = |cell: &KernelCell| {
        let of = |cell: &KernelCell| (cell.backend, cell.dtype, cell.shape, cell.tokens, cell.seed);
        cell.format == KernelFormat::Dense && of(cell) == of(timed.cell) && cell.given.weight == timed.cell.given.weight
    };
    let dense = records.iter().filter_map(KernelResult::timed).find(|dense| alike(dense.cell))?;
    let dense = median_bounds(&dense.measured.seconds)?;
    Some((dense.0 / own.1, dense.1 / own.0))
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
    /// Where it is, if anywhere.
    fn sparsity(self) -> Option<f64> {
        match self {
            Self::Never => None,
            Self::Below(sparsity) | Self::At(sparsity) => Some(sparsity),
        }
    }

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
