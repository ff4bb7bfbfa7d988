//! What a person wants to see first of model cells: small pivots in place of long tables.
//!
//! Owns which numbers are shown, and what heads them: methods down, sparsities across, so that a column is a comparison.
//! Quality stands once for all variants of a point, which share it; tasks, sizes and times stand for each variant.
//! Tasks stand side by side, as papers have them.

use super::Cells;
use super::rows::finished;
use crate::config::experiment::{Best, MetricColumn, PivotSpec, TaskMetric, Variant};
use crate::config::pivot::{Scalar, Wanted};
use crate::config::tasks::{MEAN, MMLU, OF_MMLU, SETS};
use crate::plan::Cell;
use crate::record::CellResult;
use crate::report::pivot::{Pivot, PivotError, PointNames, pivot};
use crate::report::table::{Table, Value};

/// More sparsities than this stand one below the other.
const MOST_ACROSS: usize = 8;

/// What shares of right items are called.
const ACCURACY: &str = "accuracy";

/// Of more tasks than this only the means are shown.
const MOST_TASKS: usize = 8;

/// What is shown of quality, where it was measured, and which of it is best.
const QUALITY: [(MetricColumn, Best); 3] = [
    (MetricColumn::Perplexity, Best::Min),
    (MetricColumn::BitsPerByte, Best::Min),
    (MetricColumn::Top1Match, Best::Max),
];

/// The pivots as text, in the order of what they are about.
pub(super) fn shown(cells: &Cells, tables: &[Table], names: &PointNames) -> Vec<String> {
    if finished(cells).next().is_none() {
        return Vec::new();
    }
    let measured = |column: MetricColumn| cells.records.iter().any(|record| record.column(column).number().is_some());
    let quality = QUALITY.iter().filter(|(column, _)| measured(*column));
    let mut specs: Vec<PivotSpec> =
        quality.map(|(column, best)| spec(cells, "summary", column.name(), Some(*best), &["method"], &[])).collect();
    if specs.is_empty() {
        specs.push(spec(cells, "summary", "sparsity", None, &["method"], &[]));
        if measured(MetricColumn::LinearSparsity) {
            specs.push(spec(cells, "summary", "linear_sparsity", None, &["method"], &[]));
        }
    }
    let masked_is_dense = masked_is_dense(cells);
    specs.push(PivotSpec {
        r#where: if masked_is_dense { but_masked(cells) } else { Vec::new() },
        ..spec(cells, "summary", "size_mb", None, &["method", "variant"], &[])
    });
    if tables.iter().any(|table| table.name == "latency") {
        let work = ["phase", "batch", "tokens"];
        let works: Vec<&str> =
            work.iter().copied().filter(|name| *name == "phase" || varies(tables, "latency", name)).collect();
        specs.push(spec(cells, "latency", "median_ms", None, &["method", "variant"], &works));
        specs.push(spec(cells, "latency", "speedup_vs_dense", None, &["method", "variant"], &works));
    }
    let qualities = specs.iter().filter(|spec| spec.best.is_some()).count();
    let of_tasks = tasks(cells, tables, names).map(|made| match made {
        Ok(pivot) => pivot.terminal(),
        Err(_) => too_large(ACCURACY, "tasks"),
    });
    let tables: Vec<&Table> = tables.iter().collect();
    let text = |spec: &PivotSpec| match pivot(spec, &tables, names) {
        Ok(pivot) if spec.value == "size_mb" && masked_is_dense => pivot.terminal() + "masked takes what dense takes\n",
        Ok(pivot) => pivot.terminal(),
        // Cells that no key tells apart, or too many of them.
        Err(_) => too_large(&spec.value, &spec.from),
    };
    let mut shown: Vec<String> = specs.iter().map(text).collect();
    shown.splice(qualities..qualities, of_tasks);
    shown
}

fn too_large(value: &str, from: &str) -> String {
    format!("{value}: more than a small table can show, see tables/{from}.csv\n")
}

/// What share of items is right, a column a task, where there are tasks.
pub(super) fn tasks(cells: &Cells, tables: &[Table], names: &PointNames) -> Option<Result<Pivot, PivotError>> {
    let table = tables.iter().find(|table| table.name == "tasks")?;
    let column = |name: &str| table.columns.iter().position(|column| column == name);
    let (task, metric) = (column("task")?, column("metric")?);
    let shares = [TaskMetric::Acc, TaskMetric::StrictMatch].map(TaskMetric::name);
    // A condition on what is nowhere is an error.
    let (mut metrics, mut found) = (Vec::new(), Vec::new());
    for row in table.rows.iter().filter(|row| shares.contains(&row[metric].to_string().as_str())) {
        for (all, name) in [(&mut metrics, row[metric].to_string()), (&mut found, row[task].to_string())] {
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    let wanted = |column: &str, values: Vec<String>| Wanted {
        column: column.to_owned(),
        values: values.into_iter().map(Scalar::Text).collect(),
    };
    let targets: &[&str] = if targets(cells) > 1 { &["sparsity_target"] } else { &[] };
    let rows = [&runs(cells), targets, &["method", "variant"]].concat();
    let spec = PivotSpec {
        id: "tasks".into(),
        rows: rows.into_iter().map(str::to_owned).collect(),
        columns: vec!["task".into()],
        value: "value".into(),
        from: "tasks".into(),
        best: Some(Best::Max),
        digits: None,
        r#where: vec![wanted("metric", metrics), wanted("task", standing(found))],
    };
    Some(pivot(&spec, &[table], names).map(|made| Pivot { value: ACCURACY.into(), ..made }))
}

/// The names that are shown of those in `tasks.csv`: no subject beside MMLU's mean, of many tasks only means, and no mean
/// that a set has already.
fn standing(mut names: Vec<String>) -> Vec<String> {
    let is_mmlu = |name: &String| name == MMLU || name.starts_with("mmlu (");
    let set = |name: &String| SETS.iter().find(|(set, ..)| set == name).map(|(.., tasks)| tasks.len());
    if names.iter().any(is_mmlu) {
        names.retain(|name| !name.starts_with(OF_MMLU));
    }
    let tasks = names.iter().filter(|name| set(name).is_none() && *name != MEAN).count();
    if names.iter().any(|name| set(name) == Some(tasks)) {
        names.retain(|name| name != MEAN);
    }
    if tasks > MOST_TASKS {
        names.retain(|name| set(name).is_some() || name == MEAN || is_mmlu(name));
    }
    names
}

/// A pivot of a number: with whatever else tells the cells apart as outer rows.
fn spec(cells: &Cells, from: &str, value: &str, best: Option<Best>, inner: &[&str], outer: &[&str]) -> PivotSpec {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (across, down) = if targets(cells) > MOST_ACROSS {
        (inner, &["sparsity_target"][..])
    } else {
        (&["sparsity_target"][..], inner)
    };
    let rows = owned(&[&runs(cells), outer, down].concat());
    let (id, columns) = (String::new(), owned(across));
    PivotSpec { id, rows, columns, value: value.into(), from: from.into(), best, digits: None, r#where: Vec::new() }
}

/// What tells runs of models apart.
fn runs(cells: &Cells) -> Vec<&'static str> {
    let different = |name: &&str| {
        let column = Cell::KEY.iter().find(|column| column.name == *name);
        let Some(column) = column else { return false };
        let mut values = cells.records.iter().map(|record| (column.get)(&record.cell));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    ["model", "backend", "dtype"].into_iter().filter(different).collect()
}

/// Whether all masked cells take as much as the dense one, and others are there: then their rows say nothing.
fn masked_is_dense(cells: &Cells) -> bool {
    let sizes = |variant: Variant| {
        let of = cells.records.iter().filter(move |record| record.cell.variant == variant);
        of.filter_map(|record| Some((record, record.column(MetricColumn::SizeMb).number()?)))
    };
    let same = |(masked, size): (&CellResult, f64)| {
        let is_its = |dense: &Cell| {
            (&dense.model, dense.backend, dense.dtype) == (&masked.cell.model, masked.cell.backend, masked.cell.dtype)
        };
        sizes(Variant::Dense).any(|(dense, of_dense)| is_its(&dense.cell) && of_dense == size)
    };
    let others = cells.records.iter().any(|r| r.cell.prune.is_some() && r.cell.variant != Variant::Masked);
    others && sizes(Variant::Masked).next().is_some() && sizes(Variant::Masked).all(same)
}

/// All variants that there are but masked.
fn but_masked(cells: &Cells) -> Vec<Wanted> {
    let mut values: Vec<Scalar> = Vec::new();
    for record in cells.records.iter().filter(|record| record.cell.variant != Variant::Masked) {
        let name = Scalar::Text(record.cell.variant.name().to_owned());
        if !values.contains(&name) {
            values.push(name);
        }
    }
    vec![Wanted { column: "variant".into(), values }]
}

/// How many sparsities and patterns there are.
fn targets(cells: &Cells) -> usize {
    let mut all: Vec<(String, Option<f64>)> = Vec::new();
    for point in cells.records.iter().filter_map(|record| record.cell.prune.as_ref()) {
        let target = (point.pattern.to_string(), point.target());
        if !all.contains(&target) {
            all.push(target);
        }
    }
    all.len()
}

/// Whether a column of a table has different values.
fn varies(tables: &[Table], table: &str, column: &str) -> bool {
    let Some(table) = tables.iter().find(|known| known.name == table) else { return false };
    let Some(at) = table.columns.iter().position(|name| name == column) else { return false };
    // The phases have tokens of their own.
    let phase = table.columns.iter().position(|name| name == "phase");
    let mut seen: Vec<(&Value, Option<&Value>)> = Vec::new();
    for row in &table.rows {
        let entry = (&row[at], phase.map(|phase| &row[phase]));
        if seen.iter().any(|(value, of)| *of == entry.1 && *value != entry.0) {
            return true;
        }
        if !seen.contains(&entry) {
            seen.push(entry);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_tasks_only_means_are_shown() {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
        let shown = |text: &str| standing(names(text)).join(" ");
        assert_eq!(shown("boolq"), "boolq");
        assert_eq!(shown("boolq piqa mean"), "boolq piqa mean");
        assert_eq!(shown("mmlu_virology mmlu_anatomy piqa mmlu mean"), "piqa mmlu mean");
        let seven = "boolq rte hellaswag winogrande arc_easy arc_challenge openbookqa";
        assert_eq!(shown(&format!("{seven} wanda7 mean")), format!("{seven} wanda7"));
        assert_eq!(shown(&format!("{seven} piqa lambada_openai mmlu wanda7 mean")), "mmlu wanda7 mean");
    }
}
