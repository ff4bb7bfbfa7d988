//! Coherence of blocks: how often a row is zero in a whole block, by the order of features, beside what chance gives.

use super::{CHANCE, Family, Line, Means, PAGE, distinct, height};
use crate::report::figure::{Axis, Figure, Format, Marks, Panel, PointSeries, Trace, Value};

/// The most blocks.
const MOST_PANELS: usize = 6;

/// One figure: a panel for each size of blocks, a name for each order, a marker for each source.
pub(super) fn all(family: &Family<'_>) -> Vec<(String, Figure)> {
    let lines: Vec<Line<'_>> = family.rows("block_coherence_summary").collect();
    let order = |line: &Line<'_>| line.row.text("order").unwrap_or("").to_owned();
    let means = |column: &str| {
        Means::of(lines.iter().filter_map(|line| {
            Some(((line.count("block")?, order(line), line.key.source.clone()), line.number(column)))
        }))
    };
    let (found, chance) = (means("coherence_mean"), means("null_mean"));
    let orders = distinct(lines.iter().map(order));
    let mut blocks = distinct(lines.iter().filter_map(|line| line.count("block")));
    blocks.sort_unstable();
    blocks.truncate(MOST_PANELS);
    let sources = family.shown();
    let apart = 0.7 / sources.len().max(1) as f64;
    let panel = |block: &u64| {
        let at =
            |order: usize, source: usize| order as f64 + (source as f64 - (sources.len() as f64 - 1.0) / 2.0) * apart;
        let key = |order: &String, source: &String| (*block, order.clone(), source.clone());
        let mut marks = Vec::new();
        for (o, order) in orders.iter().enumerate() {
            for (s, source) in sources.iter().enumerate() {
                let value = chance.mean(&key(order, source)).into();
                let x = at(o, s);
                marks.extend([(x - apart * 0.45, value), (x + apart * 0.45, value), (x, Value::MISSING)]);
            }
        }
        let mut series =
            vec![PointSeries { name: "by chance".into(), style: CHANCE, trace: Trace::Line, points: marks }];
        for (s, source) in sources.iter().enumerate() {
            let points = orders.iter().enumerate().map(|(o, order)| (at(o, s), found.mean(&key(order, source)).into()));
            let trace = Trace::Scatter;
            series.push(PointSeries {
                name: source.clone(),
                style: family.style(source),
                trace,
                points: points.collect(),
            });
        }
        let y = Axis { format: Format::Percent(0), from_zero: true, ..Axis::linear("Rows that are zero in a block") };
        let x = Axis::named("", orders.clone());
        Panel { title: format!("blocks of {block}"), legend: true, ..Panel::new(x, y, Marks::Points(series)) }
    };
    let panels: Vec<Panel> = blocks.iter().map(panel).collect();
    let columns = panels.len().min(if orders.len() > 3 { 2 } else { 3 });
    let tall = height(panels.len(), columns, 260) + 40;
    match panels.is_empty() {
        true => Vec::new(),
        false => vec![("coherence".into(), Figure { columns, ..Figure::new(panels, PAGE, tall) })],
    }
}
