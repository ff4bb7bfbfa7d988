//! Similarity of masks: pairs of sources × roles, each number above what chance gives.

use super::{Family, Line, Means, PAGE, distinct, height};
use crate::report::figure::{Axis, Figure, Format, HeatMap, Marks, Panel};

/// The most pairs of a panel.
const MOST_PAIRS: usize = 24;

/// One figure: a panel for each figure of similarity.
pub(super) fn all(family: &Family<'_>) -> Vec<(String, Figure)> {
    let lines: Vec<Line<'_>> = family.rows("mask_similarity_summary").collect();
    let pair = |line: &Line<'_>| format!("{} – {}", line.key.source, line.row.text("source_b").unwrap_or("?"));
    let metric = |line: &Line<'_>| line.row.text("metric").unwrap_or("").to_owned();
    let means = |column: &str| {
        Means::of(lines.iter().map(|line| ((metric(line), pair(line), line.part()), line.number(column))))
    };
    let (similar, chance) = (means("mean"), means("chance"));
    let mut pairs = distinct(lines.iter().map(pair));
    let parts = distinct(lines.iter().map(Line::part));
    pairs.truncate(MOST_PAIRS);
    let panel = |metric: &String| {
        let table = |means: &Means<(String, String, String)>| -> Vec<Vec<Option<f64>>> {
            let row = |pair: &String| {
                parts.iter().map(|part| means.mean(&(metric.clone(), pair.clone(), part.clone()))).collect()
            };
            pairs.iter().map(row).collect()
        };
        let (values, chance) = (table(&similar), table(&chance));
        let any = |table: &Vec<Vec<Option<f64>>>| table.iter().flatten().any(Option::is_some);
        let chance = if any(&chance) { chance } else { Vec::new() };
        let label = if chance.is_empty() { metric.clone() } else { format!("{metric} (by chance)") };
        // A cosine or a kappa may be below 0.
        let lowest = values.iter().flatten().flatten().copied().fold(0.0, f64::min);
        let scale = Axis { range: Some((lowest, 1.0)), format: Format::Fixed(2), ..Axis::linear(label) };
        let shown = any(&values);
        let map = HeatMap { columns: parts.clone(), rows: pairs.clone(), values, chance, scale };
        let panel = Panel {
            title: metric.clone(),
            legend: true,
            ..Panel::new(Axis::linear(""), Axis::linear(""), Marks::Heat(map))
        };
        shown.then_some(panel)
    };
    let panels: Vec<Panel> = distinct(lines.iter().map(metric)).iter().filter_map(panel).collect();
    let columns = if parts.len() > 4 { 1 } else { panels.len().min(2) };
    let each = 75 + 27 * pairs.len() as u32;
    let tall = height(panels.len(), columns, each);
    match panels.is_empty() {
        true => Vec::new(),
        false => vec![("heatmap".into(), Figure { columns, ..Figure::new(panels, PAGE, tall) })],
    }
}
