//! Prune points as readers tell them apart: what a method's line is called, how it looks, and which points are
//! of one target.
//!
//! Owns names and styles, so that a method is called the same and looks the same in every figure and table of a
//! run. Knows no numbers and draws nothing.

use super::rows::by_seed;
use crate::config::experiment::{Method, NmPattern, Variant, percent};
use crate::plan::{Cell, PrunePoint};
use crate::record::CellResult;
use serde_json::{Map, Value};

/// The colours of the methods in their order: those that are easiest to tell apart come first.
const COLORS: [usize; 7] = [1, 2, 3, 5, 4, 6, 7];
/// The palette's colours: styles this far apart differ in marker, dash and hatch alone.
const PALETTE: usize = 8;
/// Names of one method are this far apart: its second one takes a marker and a dash that its neighbours lack.
const NEXT_NAME: usize = 3 * PALETTE;

/// Names and styles of prune points.
///
/// A name is the method and whatever else tells its points of one pattern apart: `magnitude, layer` where other
/// points of magnitude compete globally, else `magnitude`.
pub(super) struct Names {
    /// Method, pattern and the keys in which their points differ.
    differing: Vec<(Method, NmPattern, Vec<String>)>,
    /// Every name, in order of appearance, with its method.
    names: Vec<(Method, String)>,
}

impl Names {
    /// The names of the points of some cells.
    pub fn among<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Self {
        let points: Vec<&PrunePoint> = cells.into_iter().filter_map(|cell| cell.prune.as_ref()).collect();
        let mut names = Self { differing: Vec::new(), names: Vec::new() };
        for point in &points {
            let alike = |p: &PrunePoint| (p.method, p.pattern) == (point.method, point.pattern);
            if names.differing.iter().all(|(method, pattern, _)| (*method, *pattern) != (point.method, point.pattern)) {
                let alike: Vec<&PrunePoint> = points.iter().copied().filter(|p| alike(p)).collect();
                names.differing.push((point.method, point.pattern, differing_keys(&alike)));
            }
        }
        for point in points {
            let name = names.of(point);
            if !names.names.iter().any(|(_, known)| *known == name) {
                names.names.push((point.method, name));
            }
        }
        names
    }

    /// The name of a point.
    pub fn of(&self, point: &PrunePoint) -> String {
        self.parts(point).join(", ")
    }

    /// The name of a point, in parts: first the method.
    pub fn parts(&self, point: &PrunePoint) -> Vec<String> {
        let of = |entry: &&(Method, NmPattern, Vec<String>)| (entry.0, entry.1) == (point.method, point.pattern);
        let keys = self.differing.iter().find(of).map(|(_, _, keys)| keys.as_slice()).unwrap_or_default();
        let values = keys_of(point);
        let parts = keys.iter().filter_map(|key| Some(words(key, values.get(key)?)));
        [point.method.name().to_owned()].into_iter().chain(parts).collect()
    }

    /// The style of a name: the method's colour, and a marker of its own.
    pub fn style(&self, name: &str) -> usize {
        let known = self.names.iter().find(|(_, known)| known == name);
        let Some((method, _)) = known else { return 0 };
        let namesakes = self.names.iter().filter(|(of, _)| of == method);
        let place = namesakes.map(|(_, name)| name).position(|known| known == name).unwrap_or(0);
        color(*method) + NEXT_NAME * place
    }

    /// Styles whose colours no name has, first those of lowest number; all colours once these are used up.
    pub fn free_styles(&self) -> impl Iterator<Item = usize> + '_ {
        let used: Vec<usize> = self.names.iter().map(|(method, _)| color(*method)).collect();
        let free = (1..PALETTE).filter(move |color| !used.contains(color));
        // Markers that no name has come next.
        free.chain((1..PALETTE).map(move |color| color + PALETTE + NEXT_NAME * self.names.len()))
    }
}

fn color(method: Method) -> usize {
    let place = Method::ALL.iter().position(|word| word.value == method).unwrap_or(0);
    COLORS[place % COLORS.len()]
}

/// The fields of a point as its file has them, also those that are added to it later; what lies within a field is
/// called `field.inner`.
fn keys_of(point: &PrunePoint) -> Map<String, Value> {
    let Ok(Value::Object(fields)) = serde_json::to_value(point) else { return Map::new() };
    let mut keys = Map::new();
    for (key, value) in fields {
        match value {
            Value::Object(inner) => {
                keys.insert(key.clone(), Value::Bool(true));
                keys.extend(inner.into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)));
            }
            Value::Null => {}
            value => drop(keys.insert(key, value)),
        }
    }
    keys
}

/// The keys in which points of one method and pattern differ, beside the sparsity. What lies within a field counts
/// only among the points that have the field.
fn differing_keys(points: &[&PrunePoint]) -> Vec<String> {
    let fields: Vec<Map<String, Value>> = points.iter().map(|point| keys_of(point)).collect();
    let mut keys: Vec<&String> = Vec::new();
    for key in fields.iter().flat_map(|map| map.keys()) {
        if key != "sparsity" && !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.retain(|key| {
        let mut values = fields.iter().map(|map| map.get(*key)).filter(|v| v.is_some() || !key.contains('.'));
        let first = values.next();
        values.any(|value| Some(value) != first)
    });
    keys.into_iter().cloned().collect()
}

/// A field in words: `layer`, `damping 0.1`, `owl`, `m 5`.
fn words(key: &str, value: &Value) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    match value {
        // Words that say by themselves what they are about.
        Value::String(word) if name == "scope" => word.clone(),
        Value::Bool(true) if name == "budget" => "owl".into(),
        Value::Bool(true) => name.into(),
        Value::Array(items) if items.is_empty() => format!("{name} nothing"),
        Value::Array(items) => format!("{name} {}", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        value => format!("{name} {}", plain(value)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Display leaves out a trailing `.0`.
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        value => value.to_string(),
    }
}

/// What a point aims at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Target {
    pub pattern: NmPattern,
    /// None where the method takes none.
    pub sparsity: Option<f64>,
}

impl Target {
    pub fn of(point: &PrunePoint) -> Self {
        Self { pattern: point.pattern, sparsity: point.target() }
    }

    /// `50 %`, `2 of 4 kept`, `as given`
    pub fn label(&self) -> String {
        match (self.pattern, self.sparsity) {
            (NmPattern::NofM { .. }, _) => self.pattern.in_words(),
            (NmPattern::Unstructured, Some(sparsity)) => format!("{} %", percent(sparsity)),
            (NmPattern::Unstructured, None) => "as given".into(),
        }
    }

    /// The sparsity of a point that is free to have any.
    pub fn free(&self) -> Option<f64> {
        self.sparsity.filter(|_| self.pattern == NmPattern::Unstructured)
    }
}

/// The labels of some targets: with every digit where two of them would be called the same.
pub(super) fn target_labels(targets: &[Target]) -> Vec<String> {
    let labels: Vec<String> = targets.iter().map(Target::label).collect();
    let label = |(target, label): (&Target, &String)| match target.free() {
        Some(sparsity) if targets.iter().zip(&labels).any(|(other, l)| l == label && other != target) => {
            format!("{label} ({sparsity})")
        }
        Some(_) | None => label.clone(),
    };
    targets.iter().zip(&labels).map(label).collect()
}

/// A prune point with its finished cells, one a seed.
pub(super) struct Seeds<'a> {
    pub name: String,
    pub target: Target,
    pub cells: Vec<&'a CellResult>,
}

/// The prune points of one model on one backend, in the order of the plan, each in one variant: masked and sparse
/// execution of a point predict the same.
pub(super) fn points<'a>(records: &[&'a CellResult], names: &Names) -> Vec<Seeds<'a>> {
    let pruned = || records.iter().filter(|record| record.cell.prune.is_some());
    let variant: Option<Variant> = pruned().map(|record| record.cell.variant).min();
    let cells = pruned().copied().filter(|record| Some(record.cell.variant) == variant);
    let of = |cells: Vec<&'a CellResult>| {
        let point = cells[0].cell.prune.as_ref()?;
        Some(Seeds { name: names.of(point), target: Target::of(point), cells })
    };
    by_seed(cells).into_iter().filter_map(of).collect()
}

/// The targets of some points: first the sparsities in their order, then the patterns in the plan's.
pub(super) fn targets(points: &[Seeds<'_>]) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for point in points {
        if !targets.contains(&point.target) {
            targets.push(point.target);
        }
    }
    // Stable: patterns stay in the plan's order.
    targets.sort_by(|a, b| match (a.free(), b.free()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    targets
}

/// At most this many of some things, the first and the last among them, evenly apart.
pub(super) fn spread_out<T>(things: Vec<T>, most: usize) -> Vec<T> {
    let count = things.len();
    if count <= most {
        return things;
    }
    let places: Vec<usize> = (0..most).map(|i| (i * (count - 1) + (most - 1) / 2) / (most - 1).max(1)).collect();
    things.into_iter().enumerate().filter(|(index, _)| places.contains(index)).map(|(_, thing)| thing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{Owl, Scope};
    use crate::report::model::tests::cell;

    fn point(method: Method, scope: Option<Scope>, pattern: NmPattern, sparsity: f64) -> Cell {
        let mut cell = cell("builtin:tiny-opt", method, sparsity, Variant::Masked, None);
        let point = cell.prune.as_mut().unwrap();
        (point.scope, point.pattern) = (scope, pattern);
        cell
    }

    #[test]
    fn a_name_says_what_tells_points_apart() {
        let (free, two_four) = (NmPattern::Unstructured, NmPattern::NofM { n: 2, m: 4 });
        let cells = [
            point(Method::Magnitude, Some(Scope::Global), free, 0.3),
            point(Method::Magnitude, Some(Scope::Layer), free, 0.5),
            point(Method::Magnitude, None, two_four, 0.5),
            point(Method::Random, Some(Scope::Layer), free, 0.5),
        ];
        let names = Names::among(&cells);
        let all: Vec<String> = cells.iter().map(|cell| names.of(cell.prune.as_ref().unwrap())).collect();
        assert_eq!(all, ["magnitude, global", "magnitude, layer", "magnitude", "random"]);
        let styles: Vec<usize> = all.iter().map(|name| names.style(name)).collect();
        assert_eq!(styles, [1, 25, 49, 2], "a method has one colour");
        assert!(names.free_styles().take(5).all(|style| ![1, 2].contains(&(style % PALETTE))));
        let all: Vec<usize> = names.free_styles().collect();
        assert!(all.iter().enumerate().all(|(i, style)| !all[..i].contains(style) && !styles.contains(style)));
    }

    #[test]
    fn fields_in_words() {
        let words = |key: &str, value| words(key, &value);
        assert_eq!(words("scope", serde_json::json!("row")), "row");
        assert_eq!(words("damping", serde_json::json!(0.1)), "damping 0.1");
        assert_eq!(words("budget.m", serde_json::json!(5.0)), "m 5");
        assert_eq!(words("exclude", serde_json::json!(["a", "b"])), "exclude a b");
        assert_eq!(words("exclude", serde_json::json!([])), "exclude nothing");
    }

    #[test]
    fn budgets_are_told_apart_by_what_differs() {
        let point = |budget| PrunePoint {
            budget,
            ..PrunePoint::new(Method::Wanda, Some(Scope::Row), NmPattern::Unstructured, 0.7, Vec::new())
        };
        let names = |points: &[PrunePoint]| {
            let cells: Vec<Cell> = points
                .iter()
                .map(|p| Cell { prune: Some(p.clone()), ..cell("m", Method::Wanda, 0.7, Variant::Masked, Some(0)) })
                .collect();
            let names = Names::among(&cells);
            points.iter().map(|point| names.of(point)).collect::<Vec<_>>()
        };
        let owl = |m, lambda| Some(Owl { m, lambda });
        assert_eq!(names(&[point(None), point(owl(5.0, 0.08))]), ["wanda", "wanda, owl"]);
        assert_eq!(
            names(&[point(None), point(owl(5.0, 0.08)), point(owl(7.0, 0.08))]),
            ["wanda", "wanda, owl, m 5", "wanda, owl, m 7"]
        );
    }

    #[test]
    fn what_is_spread_out_keeps_its_ends() {
        assert_eq!(spread_out(vec![1, 2, 3], 4), [1, 2, 3]);
        assert_eq!(spread_out((0..9).collect(), 4), [0, 3, 5, 8]);
        assert_eq!(spread_out((0..100).collect::<Vec<i32>>(), 5).len(), 5);
        assert_eq!(spread_out(vec![1, 2], 1), [1]);
    }

    #[test]
    fn targets_are_in_order() {
        let of = |pattern, sparsity: f64| {
            let target = Target { pattern, sparsity: (sparsity > 0.0).then_some(sparsity) };
            Seeds { name: String::new(), target, cells: vec![] }
        };
        let (free, two_four, four_eight) =
            (NmPattern::Unstructured, NmPattern::NofM { n: 2, m: 4 }, NmPattern::NofM { n: 4, m: 8 });
        let points =
            [of(free, 0.0), of(four_eight, 0.5), of(free, 0.7), of(two_four, 0.5), of(free, 0.3), of(free, 0.7)];
        let labels: Vec<String> = targets(&points).iter().map(Target::label).collect();
        assert_eq!(labels, ["30 %", "70 %", "as given", "4 of 8 kept", "2 of 4 kept"]);
        let close = [of(free, 0.3333), of(free, 0.33333), of(free, 0.999999), of(two_four, 0.5)];
        let labels = target_labels(&targets(&close));
        assert_eq!(labels, ["33.3 % (0.3333)", "33.3 % (0.33333)", "99.9999 %", "2 of 4 kept"]);
        let twice = [0.5, 0.5].map(|sparsity| Target { pattern: free, sparsity: Some(sparsity) });
        assert_eq!(target_labels(&twice), ["50 %"; 2], "one target, of two points");
    }
}
