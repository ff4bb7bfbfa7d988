//! The figures of analyses.
//!
//! ```text
//!   results ──by analysis and model──> Family ──> pictures.rs    spy, gradient
//!                                            ├──> clusters.rs    separation, within and between, sizes, embedding
//!                                            ├──> similarity.rs  methods × roles, each beside its chance
//!                                            ├──> distances.rs   distributions of distances
//!                                            ├──> blocks.rs      coherence by order
//!                                            ├──> groups.rs      ranked groups
//!                                            └──> activation.rs  what thresholds do
//! ```
//! Owns which figures there are and what sources look like: the same colour in all of them. Every number comes from
//! a row that a table has too. What would be by chance is grey.

mod activation;
mod blocks;
mod clusters;
mod distances;
mod groups;
mod pictures;
mod similarity;

use crate::record::{AnalysisResult, Key, Row, sha256};
use crate::report::figure::{Figure, Value};
use crate::report::stats::{mean, sd};
use std::collections::BTreeMap;

/// A page's width in logical pixels, 180 mm.
const PAGE: u32 = 680;
/// The style of what chance gives.
const CHANCE: usize = 0;
/// The most sources of a panel that stay legible.
const MOST_SOURCES: usize = 12;

/// Every figure, with its file name.
pub(super) fn plots(results: &[AnalysisResult], title: Option<&str>) -> Vec<(String, Figure)> {
    let families = Family::all(results);
    let several = families.iter().any(|family| family.model != families[0].model);
    let mut figures = Vec::new();
    for family in &families {
        let made = [
            pictures::all(family),
            clusters::all(family),
            similarity::all(family),
            distances::all(family),
            blocks::all(family),
            groups::all(family),
            activation::all(family),
        ];
        for (name, mut figure) in made.into_iter().flatten() {
            let model = family.model.clone().into_iter();
            let parts =
                title.map(str::to_owned).into_iter().chain([format!("analysis {}", family.analysis)]).chain(model);
            figure.description = parts.collect::<Vec<_>>().join(": ");
            let model = family.model.as_deref().filter(|_| several).map(slug);
            let parts = [Some(slug(family.analysis)), Some(name), model];
            figures.push((parts.into_iter().flatten().collect::<Vec<_>>().join("-"), figure));
        }
    }
    figures
}

/// A name in letters that every file system takes; a digest tells those apart that lost something.
fn slug(name: &str) -> String {
    const MOST: usize = 48;
    let plain: String = name
        .chars()
        .take(MOST)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' })
        .collect();
    if plain == name.replace([':', '/'], "-") { plain } else { format!("{plain}-{}", &sha256(name.as_bytes())[..8]) }
}

/// The cells of one analysis of one model: places, and seeds of draws.
struct Family<'a> {
    analysis: &'a str,
    model: Option<String>,
    results: Vec<&'a AnalysisResult>,
    /// The names of sources, in order of first appearance.
    sources: Vec<String>,
}

impl<'a> Family<'a> {
    /// In order of first appearance. Cells without numbers show nothing.
    fn all(results: &'a [AnalysisResult]) -> Vec<Self> {
        let mut families: Vec<Family<'a>> = Vec::new();
        for result in results.iter().filter(|result| result.numbers.is_some()) {
            let (analysis, model) = (result.cell.analysis.as_str(), &result.cell.model);
            let same = |family: &&mut Family<'a>| family.analysis == analysis && family.model == *model;
            match families.iter_mut().find(same) {
                Some(family) => family.results.push(result),
                None => {
                    families.push(Family { analysis, model: model.clone(), results: vec![result], sources: Vec::new() })
                }
            }
        }
        for family in &mut families {
            for source in family.results.iter().flat_map(|result| &result.cell.sources) {
                if !family.sources.contains(&source.name) {
                    family.sources.push(source.name.clone());
                }
            }
        }
        families
    }

    /// The rows of a table, cell by cell.
    fn rows(&self, table: &'a str) -> impl Iterator<Item = Line<'a>> + '_ {
        self.results.iter().flat_map(move |result| result.rows(table)).map(|row| Line { key: row.key(), row })
    }

    /// The colour of a source in every figure.
    fn style(&self, source: &str) -> usize {
        self.sources.iter().position(|name| name == source).unwrap_or(0) + 1
    }

    /// The sources that a panel has room for.
    fn shown(&self) -> &[String] {
        &self.sources[..self.sources.len().min(MOST_SOURCES)]
    }
}

/// A row with its key.
struct Line<'a> {
    key: Key,
    row: Row<'a>,
}

impl Line<'_> {
    fn number(&self, column: &str) -> Option<f64> {
        self.row.number(column)
    }

    /// A whole number that names something, such as a number of clusters.
    fn count(&self, column: &str) -> Option<u64> {
        self.row.number(column).map(|number| number as u64)
    }

    fn part(&self) -> String {
        part(&self.key)
    }
}

/// What a matrix is called across layers: its role, or its module's last part.
fn part(key: &Key) -> String {
    match key.role {
        Some(role) => role.name().to_owned(),
        None => key.module.rsplit('.').next().unwrap_or_default().to_owned(),
    }
}

/// `layer 0, q`
fn place(key: &Key) -> String {
    match key.layer {
        Some(layer) => format!("layer {layer}, {}", part(key)),
        None => part(key),
    }
}

/// Different values in order of first appearance.
fn distinct<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

/// Numbers by what they are of.
struct Means<K>(BTreeMap<K, Vec<f64>>);

impl<K: Ord> Means<K> {
    fn of(numbers: impl IntoIterator<Item = (K, Option<f64>)>) -> Self {
        let mut all: BTreeMap<K, Vec<f64>> = BTreeMap::new();
        for (key, number) in numbers {
            if let Some(number) = number.filter(|number| number.is_finite()) {
                all.entry(key).or_default().push(number);
            }
        }
        Self(all)
    }

    fn mean(&self, key: &K) -> Option<f64> {
        self.0.get(key).and_then(|numbers| mean(numbers))
    }

    /// The mean, with a standard deviation on each side.
    fn value(&self, key: &K) -> Value {
        let Some(numbers) = self.0.get(key) else { return Value::MISSING };
        match (mean(numbers), sd(numbers)) {
            (Some(mean), Some(sd)) => Value::with_bounds(mean, mean - sd, mean + sd),
            (mean, _) => mean.into(),
        }
    }
}

/// The height of a figure of so many panels in rows of `columns`.
fn height(panels: usize, columns: usize, each: u32) -> u32 {
    // A panel is 100 pixels high at least, and nobody prints a hundred rows.
    panels.div_ceil(columns.max(1)).min(100) as u32 * each
}

#[cfg(test)]
mod tests;
