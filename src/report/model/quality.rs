//! Numbers against sparsity, one line a method: quality, size and speed; quality at the patterns.

use super::plots::{MOST_BARS, PAGE, across, over_seeds, variant_style};
use super::rows::by_seed;
use super::series_names::{Names, Seeds, Target, points, target_labels, targets};
use crate::config::experiment::{MetricColumn, Variant};
use crate::plan::PrunePoint;
use crate::record::CellResult;
use crate::report::figure::{
    Axis, BarSeries, Category, Figure, Format, Marks, Panel, PointSeries, Rule, RuleAxis, Scale, Trace, Value,
};

/// Numbers this many times apart are legible on a logarithmic axis only.
const FAR_APART: f64 = 3.0;

/// Points of one name over all sparsities.
struct Line<'a> {
    name: String,
    style: usize,
    points: Vec<(f64, Vec<&'a CellResult>)>,
}

impl Line<'_> {
    /// Means over seeds, with a band of one standard deviation.
    fn series(&self, number: &dyn Fn(&CellResult) -> Option<f64>) -> PointSeries {
        let points = self.points.iter().map(|(sparsity, cells)| (*sparsity, over_seeds(cells, number))).collect();
        PointSeries { name: self.name.clone(), style: self.style, trace: Trace::Marked, points }
    }
}

/// The unstructured points as lines, in the order of the plan.
fn method_lines<'a>(points: &[Seeds<'a>], names: &Names) -> Vec<Line<'a>> {
    let free = points.iter().filter_map(|point| Some((point, point.target.free()?)));
    lines(free.map(|(point, at)| (point.name.clone(), names.style(&point.name), at, point.cells.clone())))
}

fn lines<'a>(points: impl Iterator<Item = (String, usize, f64, Vec<&'a CellResult>)>) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for (name, style, sparsity, cells) in points {
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push((sparsity, cells)),
            None => lines.push(Line { name, style, points: vec![(sparsity, cells)] }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

/// The unstructured cells, one line a variant: size and speed depend on how the kept weights are stored, hardly on
/// which they are. The first method has the word; where it was not run at a sparsity, the next one has.
fn variant_lines<'a>(
    records: &[&'a CellResult],
    name: impl Fn(Variant) -> String,
    mut style: impl FnMut(Variant) -> usize,
) -> Vec<Line<'a>> {
    let points = by_seed(records.iter().copied());
    let point =
        |cells: &[&'a CellResult]| cells[0].cell.prune.as_ref().filter(|point| Target::of(point).free().is_some());
    let Some(first) = points.iter().find_map(|cells| point(cells)) else { return Vec::new() };
    let is_first = |point: &PrunePoint| (point.method, point.scope) == (first.method, first.scope);
    let mut found: Vec<(Variant, f64, Vec<&'a CellResult>)> = Vec::new();
    for wanted in [true, false] {
        for cells in &points {
            let Some(point) = point(cells).filter(|point| is_first(point) == wanted) else { continue };
            let (variant, sparsity) = (cells[0].cell.variant, point.sparsity);
            if found.iter().all(|(of, at, _)| (*of, *at) != (variant, sparsity)) {
                found.push((variant, sparsity, cells.clone()));
            }
        }
    }
    let mut styles: Vec<(Variant, usize)> = Vec::new();
    lines(found.into_iter().map(|(variant, sparsity, cells)| {
        let known = styles.iter().find(|(of, _)| *of == variant).map(|(_, style)| *style);
        let style = known.unwrap_or_else(|| {
            let new = style(variant);
            styles.push((variant, new));
            new
        });
        (name(variant), style, sparsity, cells)
    }))
}

/// A panel of lines over the sparsity, the dense model dashed; none where nothing is measured.
fn panel(
    lines: &[Line<'_>],
    y: Axis,
    records: &[&CellResult],
    number: &dyn Fn(&CellResult) -> Option<f64>,
) -> Option<Panel> {
    let series: Vec<PointSeries> = lines.iter().map(|line| line.series(number)).collect();
    let measured = series.iter().flat_map(|s| &s.points).any(|(_, value)| value.finite().is_some());
    let x = Axis { format: Format::Percent(0), ..Axis::linear("Target sparsity") };
    let panel = Panel { legend: true, rules: dense(records, number), ..Panel::new(x, y, Marks::Points(series)) };
    measured.then_some(panel)
}

/// The dense model as a dashed line.
fn dense(records: &[&CellResult], number: &dyn Fn(&CellResult) -> Option<f64>) -> Vec<Rule> {
    let dense = records.iter().find(|record| record.cell.variant == Variant::Dense);
    let at = dense.and_then(|record| number(record));
    at.map(|at| Rule { axis: RuleAxis::Y, at, label: "dense".into() }).into_iter().collect()
}

/// Perplexity and agreement against sparsity, one line a method, the dense model dashed.
pub(super) fn sweep(records: &[&CellResult], names: &Names) -> Option<Figure> {
    let points = points(records, names);
    let behaviour = method_lines(&points, names);
    if targets(&points).iter().filter(|target| target.free().is_some()).count() < 2 {
        return None;
    }
    let mut free = names.free_styles();
    let storage = variant_lines(records, |variant| format!("stored {}", variant.name()), |_| free.next().unwrap_or(0));
    let column = |lines: &[Line<'_>], column: MetricColumn, y| {
        panel(lines, y, records, &|record: &CellResult| record.column(column).number())
    };
    let size = Axis { from_zero: true, ..Axis::linear("Stored size (MiB)") };
    let panels: Vec<Panel> = [
        column(&behaviour, MetricColumn::Perplexity, Axis::log10("Perplexity")),
        column(
            &behaviour,
            MetricColumn::Top1Match,
            Axis { range: Some((0.0, 1.0)), ..Axis::linear("Top-1 agreement") },
        ),
        column(&behaviour, MetricColumn::KlNats, Axis { from_zero: true, ..Axis::linear("KL from dense (nats)") }),
        column(&storage, MetricColumn::SizeMb, size).map(without_dense_lines),
    ]
    .into_iter()
    .flatten()
    .collect();
    let columns = across(panels.len(), true);
    let rows = panels.len().div_ceil(columns) as u32;
    (!panels.is_empty()).then(|| Figure { columns, ..Figure::new(panels, PAGE, 290 * rows) })
}

/// Leaves out lines that lie on the dense model's, and names them beside it: masked weights take as much room.
fn without_dense_lines(mut panel: Panel) -> Panel {
    let (Some(rule), Marks::Points(series)) = (panel.rules.first_mut(), &mut panel.marks) else { return panel };
    let on_it = |line: &PointSeries| {
        let mut values = line.points.iter().filter_map(|(_, value)| value.finite());
        values.all(|value| (value - rule.at).abs() <= 1e-9 * rule.at.abs())
    };
    let (same, others): (Vec<PointSeries>, Vec<PointSeries>) = series.drain(..).partition(on_it);
    if others.is_empty() {
        // A panel of a rule alone has no data.
        *series = same;
        return panel;
    }
    for line in same {
        rule.label.push_str(&format!(", {}", line.name.trim_start_matches("stored ")));
    }
    *series = others;
    panel
}

/// Perplexity alone: against sparsity, one line a method; and at the patterns, and at a sparsity that stands
/// alone, one bar a method.
pub(super) fn perplexity(records: &[&CellResult], names: &Names) -> Option<Figure> {
    let of = |record: &CellResult| record.column(MetricColumn::Perplexity).number();
    let mut points = points(records, names);
    points.retain(|point| over_seeds(&point.cells, &of).finite().is_some());
    let all = || points.iter().filter_map(|point| over_seeds(&point.cells, &of).finite());
    let values = all().chain(dense(records, &of).into_iter().map(|rule| rule.at));
    let y = Axis { scale: scale(values), ..Axis::linear("Perplexity") };
    let (mut swept, mut single): (Vec<Target>, Vec<Target>) =
        targets(&points).into_iter().partition(|target| target.free().is_some());
    if swept.len() == 1 {
        single.splice(0..0, swept.drain(..));
    }
    let lines = (!swept.is_empty()).then(|| panel(&method_lines(&points, names), y.clone(), records, &of)).flatten();
    let named = lines.iter().flat_map(Panel::series_names).map(ToOwned::to_owned).collect::<Vec<String>>();
    let bars = bars(&points, &single, names, &of).map(|marks| {
        let patterns = single.iter().all(|target| target.free().is_none());
        let x = Axis::linear(if patterns { "Pattern" } else { "Sparsity or pattern" });
        let panel = Panel { rules: dense(records, &of), ..Panel::new(x, y, marks) };
        // The lines' legend has the colours already.
        let legend = panel.series_names().iter().any(|name| !named.iter().any(|known| known == name));
        Panel { legend, ..panel }
    });
    let panels: Vec<Panel> = lines.into_iter().chain(bars).collect();
    // One bar alone shows nothing that the table does not.
    let shown = panels.len() > 1 || !swept.is_empty() || points.len() > 1;
    let width = if panels.len() > 1 { PAGE } else { PAGE * 7 / 10 };
    (shown && !panels.is_empty()).then(|| Figure::new(panels, width, 320))
}

/// Logarithmic where numbers are far apart.
fn scale(values: impl Iterator<Item = f64>) -> Scale {
    let (low, high) = values.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
    if low > 0.0 && high > FAR_APART * low { Scale::Log10 } else { Scale::Linear }
}

/// One group of bars a target, one bar a name.
fn bars(
    points: &[Seeds<'_>],
    targets: &[Target],
    names: &Names,
    of: &dyn Fn(&CellResult) -> Option<f64>,
) -> Option<Marks> {
    let here: Vec<&Seeds<'_>> = points.iter().filter(|point| targets.contains(&point.target)).collect();
    let mut series: Vec<BarSeries> = Vec::new();
    for point in &here {
        if series.iter().all(|s| s.name != point.name) {
            let value = |target: &Target| {
                let point = here.iter().find(|p| p.name == point.name && p.target == *target);
                point.map_or(Value::MISSING, |point| over_seeds(&point.cells, of))
            };
            let (name, style) = (point.name.clone(), names.style(&point.name));
            series.push(BarSeries { name, style, values: targets.iter().map(value).collect() });
        }
    }
    let categories = target_labels(targets).into_iter().map(Category::from).collect();
    let legible = !series.is_empty() && series.len() * targets.len() <= 2 * MOST_BARS;
    legible.then_some(Marks::Bars { categories, series })
}

/// How fast every variant is over the sparsity, the dense model dashed: of the first method.
pub(super) fn speed_panel(
    records: &[&CellResult],
    y: Axis,
    speed: &dyn Fn(&CellResult) -> Option<f64>,
) -> Option<Panel> {
    let lines = variant_lines(records, |variant| variant.name().into(), variant_style);
    panel(&lines, y, records, speed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Method, NmPattern};
    use crate::report::model::tests::{cell, record};

    #[test]
    fn numbers_far_apart_are_on_a_logarithmic_axis() {
        assert_eq!(scale([20.0, 50.0].into_iter()), Scale::Linear);
        assert_eq!(scale([20.0, 70.0].into_iter()), Scale::Log10);
        assert_eq!(scale([0.0, 70.0].into_iter()), Scale::Linear);
        assert_eq!(scale([].into_iter()), Scale::Linear);
    }

    fn records() -> Vec<CellResult> {
        let two_four = |method, seed| {
            let mut cell = cell("m", method, 0.5, Variant::Masked, seed);
            let point = cell.prune.as_mut().unwrap();
            (point.pattern, point.scope) = (NmPattern::NofM { n: 2, m: 4 }, None);
            cell
        };
        let free = |method, sparsity, seed| cell("m", method, sparsity, Variant::Masked, seed);
        vec![
            record(cell("m", Method::Magnitude, 0.0, Variant::Dense, None), 20.0, &[]),
            record(free(Method::Magnitude, 0.5, None), 100.0, &[]),
            record(free(Method::Magnitude, 0.3, None), 50.0, &[]),
            record(free(Method::Random, 0.3, Some(0)), 70.0, &[]),
            record(free(Method::Random, 0.3, Some(1)), 90.0, &[]),
            record(two_four(Method::Magnitude, None), 200.0, &[]),
            record(two_four(Method::Random, Some(0)), 300.0, &[]),
        ]
    }

    #[test]
    fn perplexity_has_a_line_a_method_and_a_bar_a_pattern() {
        let records = records();
        let records: Vec<&CellResult> = records.iter().collect();
        let names = Names::among(records.iter().map(|record| &record.cell));
        let figure = perplexity(&records, &names).unwrap();
        let [lines, bars] = &figure.panels[..] else { panic!("{} panels", figure.panels.len()) };
        assert_eq!((lines.y.scale, bars.y.scale), (Scale::Log10, Scale::Log10));
        assert_eq!((lines.rules[0].at, bars.rules[0].at), (20.0, 20.0));
        let Marks::Points(series) = &lines.marks else { panic!("no lines") };
        assert_eq!(series[0].points, [(0.3, Value::from(50.0)), (0.5, Value::from(100.0))]);
        let sd = 200f64.sqrt();
        assert_eq!(series[1].points, [(0.3, Value::with_bounds(80.0, 80.0 - sd, 80.0 + sd))]);
        let Marks::Bars { categories, series: heights } = &bars.marks else { panic!("no bars") };
        assert_eq!(categories.iter().map(|c| c.label.as_str()).collect::<Vec<_>>(), ["2 of 4 kept"]);
        let heights: Vec<_> = heights.iter().map(|s| (s.name.as_str(), s.style, s.values[0].y)).collect();
        assert_eq!(heights, [("magnitude", series[0].style, Some(200.0)), ("random", series[1].style, Some(300.0))]);
    }

    #[test]
    fn a_sparsity_that_stands_alone_is_a_bar() {
        let records = records();
        let records: Vec<&CellResult> =
            records.iter().filter(|r| r.cell.prune.as_ref().is_none_or(|p| p.sparsity != 0.3)).collect();
        let names = Names::among(records.iter().map(|record| &record.cell));
        let figure = perplexity(&records, &names).unwrap();
        let [Panel { marks: Marks::Bars { categories, series }, .. }] = &figure.panels[..] else { panic!("no bars") };
        assert_eq!(categories.iter().map(|c| c.label.as_str()).collect::<Vec<_>>(), ["50 %", "2 of 4 kept"]);
        assert_eq!(series[1].values, [Value::MISSING, Value::from(300.0)]);
        assert!(sweep(&records, &names).is_none());
    }
}
