//! The plots: which figures an experiment's cells give.
//!
//! Every model and backend has its own figures; their names carry it where there are several.

use super::rows::{GroupSum, by_seed, group_sums, sparsity};
use super::series_names::Names;
use crate::config::experiment::{MetricColumn, Variant};
use crate::config::format::style;
use crate::plan::{Cell, PrunePoint};
use crate::record::{CellResult, Measured, sha256};
use crate::report::figure::{Axis, BarSeries, Category, Figure, Format, Marks, Panel, Value};
use crate::report::stats::{mean, sd};
use std::collections::HashMap;

/// The most bars of a panel that stay legible.
pub(super) const MOST_BARS: usize = 16;
/// The most bars of a panel that stay legible in a third of a page.
const FEW_BARS: usize = 8;
/// A page's width in logical pixels, 180 mm.
pub(super) const PAGE: u32 = 680;

/// What becomes of a figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Made {
    /// It is drawn.
    Figure(Figure),
    /// It would show one and the same number everywhere: this is said in its place.
    Undrawn(String),
    /// There is nothing to show.
    Nothing,
}

impl From<Option<Figure>> for Made {
    fn from(figure: Option<Figure>) -> Self {
        figure.map_or(Self::Nothing, Self::Figure)
    }
}

/// The finished cells, by model, backend and dtype.
pub(super) fn runs(records: &[CellResult]) -> Vec<Vec<&CellResult>> {
    let same = |a: &Cell, b: &Cell| (&a.model, a.backend, a.dtype) == (&b.model, b.backend, b.dtype);
    let mut runs: Vec<Vec<&CellResult>> = Vec::new();
    for record in records.iter().filter(|record| record.measured.is_some()) {
        match runs.iter_mut().find(|run| same(&run[0].cell, &record.cell)) {
            Some(run) => run.push(record),
            None => runs.push(vec![record]),
        }
    }
    runs
}

/// What the files of each run are called: model, backend and dtype in letters that every file system takes. Where two
/// would be called the same, a digest of each model tells them apart; other names stay as they are.
pub(super) fn file_names(cells: &[&Cell]) -> Vec<String> {
    /// Some file systems take hardly more between a figure's name and its extension.
    const MOST: usize = 120;
    let plain = |cell: &&Cell| -> String {
        let text = format!("{}-{}-{}", cell.model, cell.backend, cell.dtype.name());
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
    };
    let names: Vec<String> = cells.iter().map(plain).collect();
    let mut met: HashMap<String, usize> = HashMap::new();
    for name in &names {
        // Not every file system tells capital letters from others.
        *met.entry(name.to_ascii_lowercase()).or_default() += 1;
    }
    let name = |(name, cell): (&String, &&Cell)| {
        if name.len() <= MOST && met[&name.to_ascii_lowercase()] == 1 {
            return name.clone();
        }
        let (start, digest) = (&name[..name.len().min(MOST)], sha256(cell.model.as_bytes()));
        format!("{start}-{}", &digest[..8])
    };
    names.iter().zip(cells).map(name).collect()
}

/// Size, relative compute and agreement of every setup, as the notebooks plot them; means over seeds.
pub(super) fn setups(records: &[&CellResult]) -> Option<Figure> {
    let setups = by_seed(records.iter().copied());
    if !(2..=MOST_BARS).contains(&setups.len()) {
        return None;
    }
    let labels = labels(&setups.iter().map(|cells| cells[0]).collect::<Vec<_>>());
    let categories = labels.into_iter().zip(&setups);
    let categories: Vec<Category> = categories
        .map(|(label, cells)| Category { style: Some(variant_style(cells[0].cell.variant)), ..Category::from(label) })
        .collect();
    let panel = |column: MetricColumn, axis: Axis| {
        let value = |cells: &Vec<&CellResult>| over_seeds(cells, &|record| record.column(column).number());
        let values: Vec<Value> = setups.iter().map(value).collect();
        let measured = values.iter().any(|value| value.finite().is_some());
        let series = vec![BarSeries { name: axis.label.clone(), style: 1, values }];
        let marks = Marks::Bars { categories: categories.clone(), series };
        measured.then(|| Panel { legend: false, ..Panel::new(Axis::linear(""), axis, marks) })
    };
    let from_zero = |label: &str| Axis { from_zero: true, ..Axis::linear(label) };
    let panels: Vec<Panel> = [
        panel(MetricColumn::SizeMb, from_zero("Stored size (MiB)")),
        panel(MetricColumn::ComputeRatio, from_zero("Relative compute (nnz / dense)")),
        panel(MetricColumn::Top1Match, from_zero("Top-1 agreement")),
        panel(MetricColumn::Perplexity, Axis::log10("Perplexity")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let columns = across(panels.len(), setups.len() <= FEW_BARS);
    let rows = panels.len().div_ceil(columns) as u32;
    Some(Figure { columns, ..Figure::new(panels, PAGE, 250 * rows) })
}

/// Panels in a row: two, or all three of three where they are slim.
pub(super) fn across(panels: usize, slim: bool) -> usize {
    if panels == 3 && slim { 3 } else { panels.clamp(1, 2) }
}

/// The mean of a number over seeds, with one standard deviation on each side.
pub(super) fn over_seeds(cells: &[&CellResult], number: &dyn Fn(&CellResult) -> Option<f64>) -> Value {
    let values: Vec<f64> = cells.iter().filter_map(|record| number(record)).collect();
    match (mean(&values), sd(&values)) {
        (Some(mean), Some(sd)) => Value::with_bounds(mean, mean - sd, mean + sd),
        (mean, _) => Value::from(mean),
    }
}

/// The setup of a cell as readers see it, an N:M pattern in words.
fn caption(cell: &Cell) -> String {
    let pattern = cell.prune.as_ref().map(|point| point.pattern).filter(|pattern| pattern.sparsity().is_some());
    let Some(pattern) = pattern else { return cell.setup() };
    cell.setup().replace(&pattern.to_string(), &format!(" {}", pattern.in_words()))
}

/// The setups, each with what tells it apart from others of the same label.
pub(super) fn labels(records: &[&CellResult]) -> Vec<String> {
    let label = |record: &&CellResult| {
        let setup = record.cell.setup();
        let caption = caption(&record.cell);
        let namesakes: Vec<&Cell> =
            records.iter().map(|other| &other.cell).filter(|cell| cell.setup() == setup).collect();
        let Some(point) = record.cell.prune.as_ref().filter(|_| namesakes.len() > 1) else { return caption };
        let names = Names::among(namesakes.iter().copied());
        let same_name = |cell: &&&Cell| {
            let same = |other: &PrunePoint| names.of(other) == names.of(point) && other.sparsity == point.sparsity;
            cell.prune.as_ref().is_some_and(same)
        };
        let alike = namesakes.iter().filter(same_name).count();
        let one_name = namesakes.iter().filter_map(|cell| cell.prune.as_ref()).all(|p| names.of(p) == names.of(point));
        let name = (!one_name).then(|| names.parts(point).join(" "));
        let seed = record.cell.seed.filter(|_| alike > 1).map(|seed| format!("seed {seed}"));
        let differ = namesakes.iter().any(|cell| cell.prune.as_ref().is_some_and(|p| p.sparsity != point.sparsity));
        let sparsity = differ.then(|| format!("({})", point.sparsity));
        [Some(caption), sparsity, name, seed].into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    records.iter().map(label).collect()
}

/// The style of a variant in every figure.
pub(super) fn variant_style(variant: Variant) -> usize {
    match variant {
        Variant::Dense => style::DENSE,
        Variant::Masked => style::MASKED,
        Variant::Sparse(format) => format.row().style,
        Variant::Auto => style::AUTO,
    }
}

/// Sparsity, parameter share and operations of every group and setup, as notebook 2 plots them; means over seeds.
pub(super) fn groups(records: &[&CellResult]) -> Option<Figure> {
    const MOST_SETUPS: usize = 7;
    let setups = by_seed(records.iter().copied());
    if setups.is_empty() || setups.len() > MOST_SETUPS {
        return None;
    }
    let labels = labels(&setups.iter().map(|cells| cells[0]).collect::<Vec<_>>());
    let first = setups[0][0].measured.as_ref()?;
    let names: Vec<&str> = group_sums(first).into_keys().collect();
    let repeated: Vec<&str> = names.iter().copied().filter(|name| is_repeated(first, name)).collect();
    // What is stored once is counted once; it is multiplied as often as it is used.
    let panel = |axis: Axis, stored: bool, value: &dyn Fn(&Measured, GroupSum) -> f64| {
        let of = |cells: &Vec<&CellResult>, name: &str| {
            over_seeds(cells, &|record| {
                let measured = record.measured.as_ref()?;
                Some(value(measured, group_sums(measured).get(name).copied().unwrap_or_default()))
            })
        };
        let series = setups.iter().zip(&labels).enumerate().map(|(style, (cells, label))| BarSeries {
            name: label.clone(),
            style,
            values: names.iter().map(|name| of(cells, name)).collect(),
        });
        let category = |name: &&str| Category { repeated: stored && repeated.contains(name), ..Category::from(*name) };
        let categories = names.iter().map(category).collect();
        let marks = Marks::Bars { categories, series: series.collect() };
        Panel { legend: true, ..Panel::new(Axis::linear(""), axis, marks) }
    };
    let from_zero = |label: &str| Axis { from_zero: true, ..Axis::linear(label) };
    let percent = |label: &str| Axis { format: Format::Percent(0), ..from_zero(label) };
    let panels = vec![
        panel(percent("Sparsity"), false, &|_, sum| sparsity(sum.nonzero, sum.total)),
        panel(percent("Share of parameters"), true, &|measured, sum| {
            sum.total as f64 / measured.structure.total as f64
        }),
        panel(from_zero("MFLOP per token"), false, &|_, sum| sum.flops_per_token as f64 / 1e6),
        panel(from_zero("Stored size (MiB)"), true, &|_, sum| sum.bytes as f64 / f64::from(1 << 20)),
    ];
    let says = (!repeated.is_empty()).then(|| {
        let names = repeated.join(", ");
        format!("Hatched: {names} has the same weights as the embedding; they are stored, and counted in a total, once")
    });
    Some(Figure { columns: 1, notes: says.into_iter().collect(), ..Figure::new(panels, PAGE, 860) })
}

/// Whether another group has all weights of this one: those of a tied head are the embedding's.
fn is_repeated(measured: &Measured, group: &str) -> bool {
    let mut layers = measured.structure.layers.iter().filter(|layer| *layer.group == *group).peekable();
    layers.peek().is_some() && layers.all(|layer| layer.tied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Method, NmPattern};
    use crate::report::model::tests::{cell, record};

    #[test]
    fn names_that_meet_get_a_digest_and_others_stay() {
        let names = |models: &[&str]| {
            let cells: Vec<Cell> =
                models.iter().map(|model| cell(model, Method::Magnitude, 0.0, Variant::Dense, None)).collect();
            file_names(&cells.iter().collect::<Vec<_>>())
        };
        assert_eq!(names(&["hf:a/b", "path:c"]), ["hf-a-b-flex-f32", "path-c-flex-f32"]);
        for pair in [["path:llama_7b", "path:llama-7b"], ["path:модель", "path:другая"], ["path:A", "path:a"]]
        {
            let with_third = names(&[pair[0], "path:third", pair[1]]);
            assert_eq!(with_third[1], "path-third-flex-f32");
            assert!(!with_third[0].eq_ignore_ascii_case(&with_third[2]), "{with_third:?}");
            assert!(with_third.iter().all(|name| name.is_ascii()), "{with_third:?}");
            // A name does not depend on which others are there, so that a file keeps its name.
            assert_eq!(names(&pair), [with_third[0].clone(), with_third[2].clone()]);
        }
        let long = "x".repeat(300);
        assert!(names(&[&long, "y"])[0].len() < 140);
    }

    #[test]
    fn labels_say_what_tells_cells_apart() {
        let masked = |sparsity| cell("m", Method::Magnitude, sparsity, Variant::Masked, None);
        let mut two_four = masked(0.5);
        two_four.prune.as_mut().unwrap().pattern = NmPattern::NofM { n: 2, m: 4 };
        let records = [masked(0.3333), masked(0.33333), masked(0.5), two_four].map(|cell| record(cell, 1.0, &[]));
        let labels = labels(&records.iter().collect::<Vec<_>>());
        assert_eq!(labels, ["Masked33.3 (0.3333)", "Masked33.3 (0.33333)", "Masked50", "Masked 2 of 4 kept"]);
    }
}
