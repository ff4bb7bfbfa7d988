//! Clusters: how far apart they are beside what chance gives, how large, and where their features lie.

use super::{CHANCE, Family, Line, Means, PAGE, distinct, height, place};
use crate::record::Key;
use crate::report::figure::{Axis, Figure, Format, HeatMap, Marks, Panel, PointSeries, Rule, RuleAxis, Trace, Value};
use std::collections::BTreeMap;

/// The most panels, and the most points of an embedding.
const MOST_PANELS: usize = 8;
const MOST_POINTS: usize = 1500;
/// How far apart the numbers of clusters stand beside a source's name.
const APART: f64 = 0.18;

/// Every figure of a clustering.
pub(super) fn all(family: &Family<'_>) -> Vec<(String, Figure)> {
    let lines: Vec<Line<'_>> = family.rows("clustering").collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let figures = [
        ("separation", separation(family, &lines)),
        ("separation-heatmap", heatmap(family, &lines)),
        ("within-between", within_between(family, &lines)),
        ("sizes", sizes(family)),
        ("tsne", embedding(family, &lines)),
    ];
    figures.into_iter().filter_map(|(name, figure)| Some((name.to_owned(), figure?))).collect()
}

/// Numbers of clusters, from few to many.
fn numbers_of_clusters(lines: &[Line<'_>]) -> Vec<u64> {
    let mut ks = distinct(lines.iter().filter_map(|line| line.count("k")));
    ks.sort_unstable();
    ks.truncate(5);
    ks
}

fn parts(lines: &[Line<'_>]) -> Vec<String> {
    let mut parts = distinct(lines.iter().map(Line::part));
    parts.truncate(MOST_PANELS);
    parts
}

/// Separation of every source beside its null model, a panel a role, a marker a number of clusters.
fn separation(family: &Family<'_>, lines: &[Line<'_>]) -> Option<Figure> {
    let (ks, sources) = (numbers_of_clusters(lines), family.shown());
    let means =
        |column: &str| {
            Means::of(lines.iter().filter_map(|line| {
                Some(((line.part(), line.key.source.clone(), line.count("k")?), line.number(column)))
            }))
        };
    let (separations, nulls, spreads) = (means("separation"), means("null_mean"), means("null_sd"));
    let panel = |part: &String| {
        let key = |source: &String, k: u64| (part.clone(), source.clone(), k);
        let at = |source: usize, k: usize| source as f64 + (k as f64 - (ks.len() as f64 - 1.0) / 2.0) * APART;
        let places = || {
            sources
                .iter()
                .enumerate()
                .flat_map(|(s, source)| ks.iter().enumerate().map(move |(i, k)| (s, source, i, *k)))
        };
        // A box for each null: two points with the same bounds, and nothing behind them.
        let chance = places().flat_map(|(s, source, i, k)| {
            let null = nulls.mean(&key(source, k)).zip(spreads.mean(&key(source, k)));
            let value =
                null.map_or(Value::MISSING, |(mean, sd)| Value::with_bounds(mean, mean - 2.0 * sd, mean + 2.0 * sd));
            let x = at(s, i);
            [(x - APART / 2.2, value), (x + APART / 2.2, value), (x, Value::MISSING)]
        });
        let mut series = vec![PointSeries {
            name: "by chance, ± 2 sd".into(),
            style: CHANCE,
            trace: Trace::Line,
            points: chance.collect(),
        }];
        for (i, k) in ks.iter().enumerate() {
            let points = sources.iter().enumerate().map(|(s, source)| (at(s, i), separations.value(&key(source, *k))));
            let name = format!("{k} clusters");
            series.push(PointSeries { name, style: i + 1, trace: Trace::Scatter, points: points.collect() });
        }
        let x = Axis::named("", sources.to_vec());
        let marks = Marks::Points(series);
        Panel {
            title: part.clone(),
            legend: true,
            ..Panel::new(x, Axis::linear("Separation (between / within)"), marks)
        }
    };
    let panels: Vec<Panel> = parts(lines).iter().map(panel).filter(has_values).collect();
    let columns = panels.len().min(2);
    let tall = height(panels.len(), columns, 225) + 30;
    (!panels.is_empty()).then(|| Figure { columns, ..Figure::new(panels, PAGE, tall) })
}

fn has_values(panel: &Panel) -> bool {
    let Marks::Points(series) = &panel.marks else { return true };
    series.iter().any(|s| s.style != CHANCE && s.points.iter().any(|(_, value)| value.finite().is_some()))
}

/// Separation, sources × roles, what chance gives in brackets; a panel a number of clusters, one scale for all.
fn heatmap(family: &Family<'_>, lines: &[Line<'_>]) -> Option<Figure> {
    let (parts, ks) = (parts(lines), numbers_of_clusters(lines));
    let means =
        |column: &str| {
            Means::of(lines.iter().filter_map(|line| {
                Some(((line.count("k")?, line.key.source.clone(), line.part()), line.number(column)))
            }))
        };
    let (separations, nulls) = (means("separation"), means("null_mean"));
    let table = |means: &Means<(u64, String, String)>, k: u64| -> Vec<Vec<Option<f64>>> {
        let row = |source: &String| parts.iter().map(|part| means.mean(&(k, source.clone(), part.clone()))).collect();
        family.shown().iter().map(row).collect()
    };
    let all = || ks.iter().flat_map(|k| table(&separations, *k)).flatten().flatten();
    let (low, high) = all().fold((f64::INFINITY, 1.0f64), |(low, high), v| (low.min(v), high.max(v)));
    if !low.is_finite() {
        return None;
    }
    let range = Some((low.min(1.0), high.max(low.min(1.0) + 0.1)));
    let panel = |k: &u64| {
        let format = Format::Fixed(2);
        let scale = Axis { range, format, ..Axis::linear("separation (by chance)") };
        let (values, chance) = (table(&separations, *k), table(&nulls, *k));
        let chance = if chance.iter().flatten().all(Option::is_none) { Vec::new() } else { chance };
        let map = HeatMap { columns: parts.clone(), rows: family.shown().to_vec(), values, chance, scale };
        let title = format!("{k} clusters");
        Panel { title, legend: true, ..Panel::new(Axis::linear(""), Axis::linear(""), Marks::Heat(map)) }
    };
    let panels: Vec<Panel> = ks.iter().map(panel).collect();
    let columns = if parts.len() > 4 || panels.len() == 1 { 1 } else { 2 };
    let each = 60 + 27 * family.shown().len() as u32;
    let tall = height(panels.len(), columns, each) + 30;
    Some(Figure { columns, ..Figure::new(panels, PAGE, tall) })
}

/// Distances within clusters against those between, a panel a number of clusters. Below the line clusters are apart.
fn within_between(family: &Family<'_>, lines: &[Line<'_>]) -> Option<Figure> {
    let parts = parts(lines);
    let means =
        |column: &str| {
            Means::of(lines.iter().filter_map(|line| {
                Some(((line.count("k")?, line.key.source.clone(), line.part()), line.number(column)))
            }))
        };
    let (within, between) = (means("within"), means("between"));
    let panel = |k: &u64| {
        let mut series: Vec<PointSeries> = Vec::new();
        for source in family.shown() {
            let point = |part: &String| {
                let key = (*k, source.clone(), part.clone());
                Some((between.mean(&key)?, within.mean(&key)?.into()))
            };
            let points = parts.iter().filter_map(point).collect();
            series.push(PointSeries {
                name: source.clone(),
                style: family.style(source),
                trace: Trace::Scatter,
                points,
            });
        }
        let all = || series.iter().flat_map(|s| &s.points).flat_map(|(x, value)| [Some(*x), value.finite()]).flatten();
        let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let margin = ((high - low) * 0.06).max(0.005);
        let range = (low - margin, high + margin);
        let diagonal = vec![(range.0, range.0.into()), (range.1, range.1.into())];
        let line = PointSeries { name: "no clusters".into(), style: CHANCE, trace: Trace::Line, points: diagonal };
        let any = low <= high;
        series.insert(0, line);
        let axis = |label: &str| Axis { range: Some(range), ..Axis::linear(label) };
        let (x, y) = (axis("Distance between clusters"), axis("Distance within"));
        let panel = Panel { title: format!("{k} clusters"), legend: true, ..Panel::new(x, y, Marks::Points(series)) };
        any.then_some(panel)
    };
    let panels: Vec<Panel> = numbers_of_clusters(lines).iter().filter_map(panel).collect();
    let columns = panels.len().min(3);
    let tall = height(panels.len(), columns, if columns == 3 { 245 } else { 310 }) + 40;
    (!panels.is_empty()).then(|| Figure { columns, ..Figure::new(panels, PAGE, tall) })
}

/// Features of each cluster, the largest first: means over references, seeds and places.
fn sizes(family: &Family<'_>) -> Option<Figure> {
    // Of every clustering, the features of every cluster.
    type Clustering = (u64, String, usize);
    let mut counted: BTreeMap<Clustering, BTreeMap<(Option<u64>, u64), u64>> = BTreeMap::new();
    for (cell, result) in family.results.iter().enumerate() {
        for row in result.rows("clusters") {
            let count = |column: &str| row.number(column).map(|number| number as u64);
            let (Some(k), Some(cluster)) = (count("k"), count("cluster")) else { continue };
            let clusters = counted.entry((k, row.key().source, cell)).or_default();
            *clusters.entry((count("reference"), cluster)).or_default() += 1;
        }
    }
    let mut ranked: Vec<((u64, String, usize), Option<f64>)> = Vec::new();
    for ((k, source, _), clusters) in &counted {
        let mut of: BTreeMap<Option<u64>, Vec<u64>> = BTreeMap::new();
        for ((reference, _), size) in clusters {
            of.entry(*reference).or_default().push(*size);
        }
        for sizes in of.values_mut() {
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            // A cluster that has lost all features has none.
            let size = |rank: usize| sizes.get(rank).copied().unwrap_or(0) as f64;
            ranked.extend((0..*k as usize).map(|rank| ((*k, source.clone(), rank), Some(size(rank)))));
        }
    }
    let mut ks = distinct(counted.keys().map(|(k, ..)| *k));
    ks.sort_unstable();
    let means = Means::of(ranked);
    let panel = |k: &u64| {
        let series = family.shown().iter().map(|source| {
            let point = |rank: usize| Some(((rank + 1) as f64, means.mean(&(*k, source.clone(), rank))?.into()));
            let points = (0..*k as usize).filter_map(point).collect();
            let trace = if *k > 40 { Trace::Line } else { Trace::Marked };
            PointSeries { name: source.clone(), style: family.style(source), trace, points }
        });
        let series: Vec<PointSeries> = series.filter(|s| !s.points.is_empty()).collect();
        let ticks = if *k <= 10 { (1..=*k).map(|rank| rank as f64).collect() } else { Vec::new() };
        let x = Axis { range: Some((0.5, *k as f64 + 0.5)), ticks, ..Axis::linear("Cluster, by size") };
        let single = Rule { axis: RuleAxis::Y, at: 1.0, label: "one feature".into() };
        let marks = Marks::Points(series);
        Panel {
            title: format!("{k} clusters"),
            legend: true,
            rules: vec![single],
            ..Panel::new(x, Axis::log10("Features"), marks)
        }
    };
    let panels: Vec<Panel> = ks.iter().take(4).map(panel).collect();
    let columns = panels.len().min(2);
    let tall = height(panels.len(), columns, 230) + 40;
    (!panels.is_empty()).then(|| Figure { columns, ..Figure::new(panels, PAGE, tall) })
}

/// The embedding of the features of the place that is farthest from chance, a panel a source, a colour a cluster.
fn embedding(family: &Family<'_>, lines: &[Line<'_>]) -> Option<Figure> {
    let embedded: Vec<Line<'_>> = family.rows("clusters").filter(|line| line.number("tsne_x").is_some()).collect();
    let here = |line: &Line<'_>| place(&line.key);
    let places = distinct(embedded.iter().map(here));
    // Over all references and seeds: a single one may be far from chance by chance.
    let z = Means::of(lines.iter().filter(|line| places.contains(&here(line))).filter_map(|line| {
        Some(((here(line), line.count("k")?, line.key.source.clone()), line.number("z").or(line.number("separation"))))
    }));
    let far = |key: &&(String, u64, String)| z.mean(key).unwrap_or(f64::NEG_INFINITY);
    let farthest = z.0.keys().max_by(|a, b| far(a).total_cmp(&far(b))).map(|(place, k, _)| (place.clone(), *k));
    let (chosen, k) = farthest.or_else(|| {
        let first = embedded.first()?;
        Some((here(first), first.count("k")?))
    })?;
    let mut panels = Vec::new();
    for source in family.shown().iter().take(9) {
        let mine = |line: &&Line<'_>| here(line) == chosen && line.key.source == *source && line.count("k") == Some(k);
        let mut seeds: Vec<(Option<u64>, Option<u64>)> = Vec::new();
        let mut clusters: BTreeMap<u64, Vec<(f64, Value)>> = BTreeMap::new();
        for line in embedded.iter().filter(mine) {
            // The first reference of the first seed stands for all.
            let of = (line.key.seed, line.count("reference"));
            if seeds.is_empty() {
                seeds.push(of);
            }
            let at = line.number("tsne_x").zip(line.number("tsne_y"));
            if let (true, Some((x, y)), Some(cluster)) = (seeds[0] == of, at, line.count("cluster")) {
                clusters.entry(cluster).or_default().push((x, y.into()));
            }
        }
        let stride = clusters.values().map(Vec::len).sum::<usize>().div_ceil(MOST_POINTS).max(1);
        let series = clusters.into_iter().map(|(cluster, points)| PointSeries {
            name: format!("cluster {cluster}"),
            style: cluster as usize + 1,
            trace: Trace::Dots,
            points: points.into_iter().step_by(stride).collect(),
        });
        let series: Vec<PointSeries> = series.collect();
        if !series.is_empty() {
            let marks = Marks::Points(series);
            // Of sixteen clusters and more, the legend would be larger than the picture.
            panels.push(Panel {
                title: title(source, lines, &chosen, k),
                legend: k <= 8,
                ..Panel::new(Axis::bare(""), Axis::bare(""), marks)
            });
        }
    }
    let columns = panels.len().min(3);
    let tall = height(panels.len(), columns, if columns == 3 { 225 } else { 300 }) + 55;
    let title = format!("{chosen}: {k} clusters, t-SNE of the features");
    (!panels.is_empty()).then(|| Figure { title, columns, ..Figure::new(panels, PAGE, tall) })
}

/// A source with how far its clusters are apart.
fn title(source: &str, lines: &[Line<'_>], chosen: &str, k: u64) -> String {
    let of = |key: &Key| key.source == source && place(key) == chosen;
    let mine = || lines.iter().filter(|line| of(&line.key) && line.count("k") == Some(k));
    let mean = |column: &str| Means::of(mine().map(|line| ((), line.number(column)))).mean(&());
    match (mean("separation"), mean("z")) {
        (Some(separation), Some(z)) => format!("{source}: {separation:.2}, z = {z:.1}"),
        (Some(separation), None) => format!("{source}: {separation:.2}"),
        _ => source.to_owned(),
    }
}
