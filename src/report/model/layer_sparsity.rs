//! Where the zeros are: sparsity by block, and by block and matrix.
//!
//! Owns what a module's name says of its place in the network, and which points have room in a figure.

use super::plots::{Made, PAGE, across, over_seeds};
use super::rows::sparsity;
use super::series_names::{Names, Seeds, Target, points, spread_out, target_labels, targets};
use crate::record::CellResult;
use crate::report::figure::{Axis, Figure, Format, HeatMap, Marks, Panel, PointSeries, Trace, Value};
use std::collections::BTreeSet;

/// The most panels that stay legible.
const MOST_LINES: usize = 4;
const MOST_MAPS: usize = 6;
/// Sparsities of matrices closer than this are one.
const UNIFORM: f64 = 0.01;
/// A vertical axis shows at least this much, so that rounding looks like rounding.
const LEAST_SPAN: f64 = 0.1;
/// Heat maps of more blocks are as wide as a page.
const WIDE: usize = 16;
/// Networks of more blocks are in no figure: none has that many, and the numbers in a name may be anything.
const MOST_BLOCKS: usize = 1000;
/// The most logical pixels that maps below each other take.
const MOST_HEIGHT: u32 = 2200;

/// One linear of a block.
struct Matrix<'a> {
    block: usize,
    /// Its name within the block, `self_attn.q_proj`.
    kind: &'a str,
    nonzero: u64,
    total: u64,
}

/// The linears within blocks.
fn matrices(record: &CellResult) -> impl Iterator<Item = Matrix<'_>> {
    let layers = record.measured.iter().flat_map(|measured| &measured.structure.layers);
    let linears = layers.filter(|layer| matches!(&*layer.group, "attention_linear" | "mlp_linear"));
    linears.filter_map(|layer| {
        let (block, kind) = place(&layer.module_name)?;
        Some(Matrix { block, kind, nonzero: layer.nonzero, total: layer.total })
    })
}

/// The block of a module and its name there: `model.layers.3.mlp.up_proj` is 3, `mlp.up_proj`.
fn place(name: &str) -> Option<(usize, &str)> {
    let mut rest = name;
    while let Some((part, behind)) = rest.split_once('.') {
        if let Ok(block) = part.parse() {
            return Some((block, behind));
        }
        rest = behind;
    }
    None
}

/// Share of zeros of the matrices that are wanted.
fn share(record: &CellResult, wanted: impl Fn(&Matrix<'_>) -> bool) -> Option<f64> {
    let wanted = matrices(record).filter(|matrix| wanted(matrix));
    let (nonzero, total) =
        wanted.fold((0u64, 0u64), |sum, m| (sum.0.saturating_add(m.nonzero), sum.1.saturating_add(m.total)));
    (total > 0).then(|| sparsity(nonzero, total))
}

/// The numbers of the blocks that there are, in order; none where there are more than a figure has room for. A number
/// says nothing of how many there are: it stands in a name, which may be anybody's.
fn blocks_of(points: &[Seeds<'_>]) -> Vec<usize> {
    let blocks = points.iter().take(1).flat_map(|point| matrices(point.cells[0]));
    let blocks: BTreeSet<usize> = blocks.map(|matrix| matrix.block).collect();
    if blocks.len() > MOST_BLOCKS { Vec::new() } else { blocks.into_iter().collect() }
}

/// Sparsity of every block, a panel a target, a line a method. What is the same in every block is said and not drawn:
/// methods that are flat at every target, and targets at which all methods are.
pub(super) fn layers(records: &[&CellResult], names: &Names) -> Made {
    let points = points(records, names);
    let blocks = blocks_of(&points);
    if blocks.len() < 2 {
        return Made::Nothing;
    }
    let targets = targets(&points);
    let titled = targets.iter().zip(target_labels(&targets));
    let mut panels: Vec<Panel> =
        titled.map(|(target, title)| Panel { title, ..lines(&points, target, &blocks, names) }).collect();
    let even: Vec<String> = panels.iter().filter(|panel| has_equal_blocks(panel)).map(|p| p.title.clone()).collect();
    panels.retain(|panel| !has_equal_blocks(panel));
    if panels.is_empty() {
        return Made::Undrawn("at every target, all blocks have the same share of zeros".into());
    }
    let mut notes = Vec::new();
    if !even.is_empty() {
        notes.push(format!("The same in every block, and not drawn: {}", even.join("; ")));
    }
    let flat = flat_lines(&panels);
    if !flat.is_empty() {
        notes.push(format!("The same in every block: {}", flat.join("; ")));
    }
    for panel in &mut panels {
        if let Marks::Points(series) = &mut panel.marks {
            series.retain(|line| !flat.contains(&line.name));
        }
        panel.y.range = Some(room(lines_of(panel).iter().flat_map(|s| &s.points).flat_map(|(_, value)| ends(value))));
    }
    let panels = spread_out(panels, MOST_LINES);
    let columns = across(panels.len(), true);
    let rows = panels.len().div_ceil(columns) as u32;
    let width = if columns > 1 { PAGE } else { PAGE * 7 / 10 };
    Made::Figure(Figure { columns, notes, ..Figure::new(panels, width, 230 * rows + 40) })
}

fn lines_of(panel: &Panel) -> &[PointSeries] {
    match &panel.marks {
        Marks::Points(series) => series,
        Marks::Bars { .. } | Marks::Heat(_) | Marks::Raster(_) => &[],
    }
}

fn is_flat(line: &PointSeries) -> bool {
    is_uniform(line.points.iter().filter_map(|(_, value)| value.finite()))
}

/// The methods whose lines are flat in every panel.
fn flat_lines(panels: &[Panel]) -> Vec<String> {
    let mut flat: Vec<String> = Vec::new();
    for line in panels.iter().flat_map(lines_of) {
        let everywhere = || panels.iter().flat_map(lines_of).filter(|l| l.name == line.name).all(is_flat);
        if !flat.contains(&line.name) && everywhere() {
            flat.push(line.name.clone());
        }
    }
    flat
}

fn lines(points: &[Seeds<'_>], target: &Target, blocks: &[usize], names: &Names) -> Panel {
    let series = points.iter().filter(|point| point.target == *target).map(|point| {
        let value = |block| over_seeds(&point.cells, &|record| share(record, |matrix| matrix.block == block));
        PointSeries {
            name: point.name.clone(),
            style: names.style(&point.name),
            trace: if blocks.len() <= 3 * WIDE { Trace::Marked } else { Trace::Line },
            points: blocks.iter().map(|&block| (block as f64, value(block))).collect(),
        }
    });
    let series: Vec<PointSeries> = series.collect();
    let values = series.iter().flat_map(|s| &s.points).flat_map(|(_, value)| ends(value));
    let y = Axis { format: Format::Percent(0), range: Some(room(values)), ..Axis::linear("Sparsity") };
    let x = Axis { ticks: block_ticks(blocks), ..Axis::linear("Block") };
    Panel { legend: true, ..Panel::new(x, y, Marks::Points(series)) }
}

/// Whether every line of a panel is flat.
fn has_equal_blocks(panel: &Panel) -> bool {
    lines_of(panel).iter().all(is_flat)
}

/// Whether some shares are one.
fn is_uniform(shares: impl Iterator<Item = f64>) -> bool {
    let (low, high) = shares.fold((1.0, 0.0), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
    high - low < UNIFORM
}

/// A value and its bounds.
fn ends(value: &Value) -> impl Iterator<Item = f64> + use<> {
    let (low, high) = value.finite_bounds().unzip();
    [value.finite(), low, high].into_iter().flatten()
}

/// A range of shares around some, with a margin.
fn room(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((1.0, 0.0), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let span = (high - low).max(LEAST_SPAN);
    let (center, half) = ((low + high) / 2.0, span * 0.55);
    ((center - half).max(-0.02), (center + half).min(1.02))
}

/// Every block, or every second, fifth, ..., of many.
fn block_ticks(blocks: &[usize]) -> Vec<f64> {
    const MOST: usize = 12;
    let stride = [1, 2, 5, 10, 20, 50].into_iter().find(|stride| blocks.len().div_ceil(*stride) <= MOST).unwrap_or(100);
    blocks.iter().step_by(stride).map(|&block| block as f64).collect()
}

/// Sparsity of every matrix of every block, a panel a point. Points whose matrices are all alike are said and not drawn.
pub(super) fn heatmap(records: &[&CellResult], names: &Names) -> Made {
    let points = points(records, names);
    let blocks = blocks_of(&points);
    if blocks.is_empty() {
        return Made::Nothing;
    }
    let labels = target_labels(&points.iter().map(|point| point.target).collect::<Vec<_>>());
    let maps =
        points.iter().zip(labels).map(|(point, label)| (format!("{}, {label}", point.name), rows(point, &blocks)));
    let mut maps: Vec<(String, Rows)> = maps.collect();
    // One that has no room is not filled in, and says nothing of how alike its matrices are.
    maps.retain(|(_, rows)| !rows.values.is_empty());
    if maps.is_empty() {
        return Made::Nothing;
    }
    let even: Vec<String> = maps.iter().filter(|(_, rows)| rows.is_uniform()).map(|(title, _)| title.clone()).collect();
    maps.retain(|(_, rows)| !rows.is_uniform());
    if maps.is_empty() {
        return Made::Undrawn("of every point, all matrices have the same share of zeros".into());
    }
    let kinds = maps.iter().map(|(_, rows)| rows.kinds.len()).max().unwrap_or(0);
    let Some(height) = u32::try_from(kinds).ok().and_then(|kinds| kinds.checked_mul(17)?.checked_add(68)) else {
        return Made::Nothing;
    };
    let most = if blocks.len() > WIDE { 1 } else { 2 };
    let maps = spread_out(maps, MOST_MAPS.min((MOST_HEIGHT / height) as usize * most));
    if maps.is_empty() {
        return Made::Nothing;
    }
    // One range for all, so that a colour means the same in every panel.
    let range = colour_range(maps.iter().flat_map(|(_, rows)| rows.numbers()));
    let panel = |(title, rows): (String, Rows)| {
        let scale = Axis { format: Format::Percent(0), range: Some(range), ..Axis::linear("Sparsity") };
        let columns = blocks.iter().map(ToString::to_string).collect();
        let map = HeatMap { columns, rows: rows.kinds, values: rows.values, chance: Vec::new(), scale };
        Panel { title, legend: true, ..Panel::new(Axis::linear("Block"), Axis::linear(""), Marks::Heat(map)) }
    };
    let panels: Vec<Panel> = maps.into_iter().map(panel).collect();
    let columns = if most == 1 { 1 } else { across(panels.len(), blocks.len() <= WIDE / 2) };
    let figure_rows = panels.len().div_ceil(columns) as u32;
    let width = if panels.len() > 1 || most == 1 { PAGE } else { PAGE * 7 / 10 };
    let notes: Vec<String> = (!even.is_empty()).then(|| same_everywhere(&even)).into_iter().collect();
    let tall = height * figure_rows + 24 + if notes.is_empty() { 0 } else { 20 };
    Made::Figure(Figure { columns, notes, ..Figure::new(panels, width, tall) })
}

/// What is said in the place of maps of one colour.
fn same_everywhere(points: &[String]) -> String {
    const MOST: usize = 6;
    let named = points[..points.len().min(MOST)].join("; ");
    let more = if points.len() > MOST { format!("; and {} more", points.len() - MOST) } else { String::new() };
    format!("The same in every matrix, and not drawn: {named}{more}")
}

/// Shares of zeros, a row a kind of matrix, a column a block.
struct Rows {
    kinds: Vec<String>,
    values: Vec<Vec<Option<f64>>>,
}

impl Rows {
    fn numbers(&self) -> impl Iterator<Item = f64> + '_ {
        self.values.iter().flatten().flatten().copied()
    }

    fn is_uniform(&self) -> bool {
        is_uniform(self.numbers())
    }
}

fn rows(point: &Seeds<'_>, blocks: &[usize]) -> Rows {
    let mut kinds: Vec<&str> = Vec::new();
    let mut seen = BTreeSet::new();
    for matrix in matrices(point.cells[0]) {
        if seen.insert(matrix.kind) {
            kinds.push(matrix.kind);
        }
    }
    // A map that has no room is not filled in.
    if kinds.len() > MOST_HEIGHT as usize {
        return Rows { kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(), values: Vec::new() };
    }
    let value = |kind: &str, block| {
        over_seeds(&point.cells, &|record| share(record, |m| (m.block, m.kind) == (block, kind))).finite()
    };
    let values = kinds.iter().map(|kind| blocks.iter().map(|&block| value(kind, block)).collect()).collect();
    Rows { kinds: short(&kinds), values }
}

/// The last parts of names, where these tell them apart.
fn short(names: &[&str]) -> Vec<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let short: Vec<String> = names.iter().map(|name| last(name)).collect();
    let unique = short.iter().enumerate().all(|(index, name)| !short[..index].contains(name));
    if unique { short } else { names.iter().map(|name| (*name).to_owned()).collect() }
}

/// The range of some shares in whole steps of 5 %, at least four of them.
fn colour_range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    const STEPS: f64 = 20.0;
    let (low, high) = values.fold((1.0, 0.0), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    // Rounding beforehand keeps 0.30000000000000004 at 30 %.
    let steps = |v: f64| (v * STEPS * 1e6).round() / 1e6;
    let (mut low, mut high) = (steps(low).floor(), steps(high).ceil());
    while high - low < 4.0 {
        if low > 0.0 {
            low -= 1.0;
        }
        if high < STEPS && high - low < 4.0 {
            high += 1.0;
        }
    }
    (low / STEPS, high / STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Method, Variant};
    use crate::report::model::tests::{cell, record};

    #[test]
    fn a_name_tells_the_place() {
        assert_eq!(place("model.decoder.layers.0.self_attn.k_proj"), Some((0, "self_attn.k_proj")));
        assert_eq!(place("gpt_neox.layers.12.mlp.dense_h_to_4h"), Some((12, "mlp.dense_h_to_4h")));
        assert_eq!(place("transformer.h.3.attn.c_proj"), Some((3, "attn.c_proj")));
        assert_eq!(place("lm_head"), None);
        assert_eq!(short(&["self_attn.q_proj", "mlp.up_proj"]), ["q_proj", "up_proj"]);
        assert_eq!(short(&["attn.c_proj", "mlp.c_proj"]), ["attn.c_proj", "mlp.c_proj"]);
    }

    #[test]
    fn ranges_and_ticks() {
        assert_eq!(colour_range([0.3, 0.1 + 0.2].into_iter()), (0.2, 0.4));
        assert_eq!(colour_range([0.0, 0.02].into_iter()), (0.0, 0.2));
        assert_eq!(colour_range([1.0].into_iter()), (0.8, 1.0));
        assert_eq!(colour_range([0.42, 0.77].into_iter()), (0.4, 0.8));
        assert_eq!(colour_range(std::iter::empty()), (0.0, 1.0));
        let ticks = |blocks: std::ops::Range<usize>| block_ticks(&blocks.collect::<Vec<_>>());
        assert_eq!(ticks(0..6), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(0..30), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]);
    }

    /// Two blocks of two linears, whose kept weights of 100 are given.
    fn point(method: Method, seed: Option<u64>, kept: [u64; 4]) -> CellResult {
        let names = ["layers.0.fc1", "layers.0.fc2", "layers.1.fc1", "layers.1.fc2"];
        let linears: Vec<(&str, u64)> = names.into_iter().zip(kept).collect();
        record(cell("m", method, 0.5, Variant::Masked, seed), 1.0, &linears)
    }

    #[test]
    fn blocks_and_matrices_have_their_shares_of_zeros() {
        let records = [
            point(Method::Magnitude, None, [40, 60, 20, 80]),
            point(Method::Random, Some(0), [49, 50, 50, 50]),
            point(Method::Random, Some(1), [51, 50, 50, 50]),
        ];
        let records: Vec<&CellResult> = records.iter().collect();
        let names = Names::among(records.iter().map(|record| &record.cell));
        let Made::Undrawn(why) = layers(&records, &names) else { panic!("all blocks are half zeros") };
        assert!(why.contains("all blocks have the same share"), "{why}");
        let Made::Figure(figure) = heatmap(&records, &names) else { panic!("no map") };
        assert_eq!(figure.notes, ["The same in every matrix, and not drawn: random, 50 %"]);
        let [Panel { title, marks: Marks::Heat(map), .. }] = &figure.panels[..] else { panic!("one map") };
        assert_eq!(title, "magnitude, 50 %", "random is even");
        assert_eq!(map.rows, ["fc1", "fc2"]);
        let close = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-12;
        assert!(close(map.values[0][0], 0.6) && close(map.values[0][1], 0.8) && close(map.values[1][1], 0.2));
        assert_eq!(map.scale.range, Some((0.2, 0.8)));
        let uneven = cell("m", Method::Magnitude, 0.7, Variant::Masked, None);
        let uneven = record(uneven, 1.0, &[("layers.0.fc1", 20), ("layers.1.fc1", 40)]);
        let Made::Figure(figure) = layers(&[records[0], &uneven], &names) else { panic!("no lines") };
        assert_eq!(figure.panels.iter().map(|p| p.title.as_str()).collect::<Vec<_>>(), ["70 %"], "50 % is even");
        assert_eq!(figure.notes, ["The same in every block, and not drawn: 50 %"]);
        assert!(matches!(heatmap(&records[1..], &names), Made::Undrawn(_)), "a map of one colour says nothing");
    }

    #[test]
    fn a_method_that_is_flat_everywhere_is_said() {
        let records = [
            point(Method::Magnitude, None, [60, 60, 20, 20]),
            point(Method::Random, Some(0), [49, 50, 50, 50]),
            point(Method::Random, Some(1), [50, 50, 50, 50]),
        ];
        let names = Names::among(records.iter().map(|record| &record.cell));
        let both: Vec<&CellResult> = records.iter().collect();
        let Made::Figure(figure) = layers(&both, &names) else { panic!("no lines") };
        let drawn: Vec<&str> = lines_of(&figure.panels[0]).iter().map(|line| line.name.as_str()).collect();
        assert_eq!((drawn, figure.notes), (vec!["magnitude"], vec!["The same in every block: random".to_owned()]));
        let Marks::Points(series) = &figure.panels[0].marks else { panic!("no lines") };
        assert_eq!(series[0].points.iter().map(|(_, v)| v.y.unwrap()).collect::<Vec<_>>(), [0.4, 0.8]);
        let uneven =
            [point(Method::Random, Some(0), [90, 90, 10, 10]), point(Method::Random, Some(1), [80, 80, 10, 10])];
        let with_uneven: Vec<&CellResult> = records[..1].iter().chain(&uneven).collect();
        let Made::Figure(figure) = layers(&with_uneven, &names) else { panic!("no lines") };
        let lines = lines_of(&figure.panels[0]);
        assert!(figure.notes.is_empty() && lines.len() == 2 && lines[1].points[0].1.bounds.is_some());
    }

    #[test]
    fn numbers_of_blocks_size_nothing() {
        let figures = |names: &[String]| {
            let kept = |at: usize| 40 + 20 * (at as u64 % 2);
            let linears: Vec<(&str, u64)> =
                names.iter().enumerate().map(|(at, name)| (name.as_str(), kept(at))).collect();
            let record = record(cell("m", Method::Magnitude, 0.5, Variant::Masked, None), 1.0, &linears);
            let names = Names::among([&record.cell]);
            (layers(&[&record], &names), heatmap(&[&record], &names))
        };
        for huge in [4_000_000_000, usize::MAX] {
            let (lines, map) = figures(&["layers.3.fc1".into(), format!("layers.{huge}.fc1")]);
            let (Made::Figure(lines), Made::Figure(map)) = (lines, map) else { panic!("not drawn") };
            let Marks::Points(series) = &lines.panels[0].marks else { panic!("no lines") };
            assert_eq!(series[0].points.iter().map(|(x, _)| *x).collect::<Vec<_>>(), [3.0, huge as f64]);
            let Marks::Heat(map) = &map.panels[0].marks else { panic!("no map") };
            assert_eq!(map.columns, ["3".to_owned(), huge.to_string()]);
        }
        // More blocks or kinds of matrices than there is room for are in no figure.
        let many: Vec<String> = (0..1001).map(|block| format!("layers.{block}.fc1")).collect();
        assert_eq!(figures(&many), (Made::Nothing, Made::Nothing));
        let kinds: Vec<String> = (0..3000).map(|kind| format!("layers.0.fc{kind}")).collect();
        assert_eq!(figures(&kinds), (Made::Nothing, Made::Nothing));
    }
}
