//! Statistics of analyses over references and seeds, and what tells sources apart.
//!
//! ```text
//!   rows of a table ──> unit = seed and reference: one value, the mean of its rows
//!     units of a source           ──> mean, sd, interval, cv       analysis_summary
//!     units of two sources, paired ──> difference with interval    analysis_differences
//!   clustering ──> clustering_summary, and analysis_report: stability over units, verdict against the null
//! ```

use super::tables::{KEY, key_values, names};
use crate::analysis::Repeats;
use crate::record::{AnalysisResult, Entry, Key, Named, Row};
use crate::report::table::{Table, Value};
use std::collections::BTreeMap;

/// A figure of a table, and the column that says what it is by chance.
struct Figure {
    table: &'static str,
    /// The columns that tell its rows apart, beside the key and the reference.
    settings: &'static [&'static str],
    value: &'static str,
    chance: Option<&'static str>,
}

const fn figure(
    table: &'static str,
    settings: &'static [&'static str],
    value: &'static str,
    chance: Option<&'static str>,
) -> Figure {
    Figure { table, settings, value, chance }
}

const CLUSTERS: &[&str] = &["k", "algorithm", "input"];
const BLOCKS: &[&str] = &["order", "block"];
const GROUPS: &[&str] = &["mode", "grouping", "group_size"];

/// The figures that statistics are made of.
const FIGURES: &[Figure] = &[
    figure("structure", &[], "sparsity", None),
    figure("structure", &[], "row_density_sd", None),
    figure("structure", &[], "col_density_sd", None),
    figure("structure", &[], "dead_rows", None),
    figure("structure", &[], "dead_cols", None),
    figure("nm_conformance", &["n", "m"], "conforming_fraction", None),
    figure("mask_similarity_summary", &["source_b", "metric"], "mean", Some("chance")),
    figure("gradient_summary", &["candidates", "metric"], "hamming_mean", None),
    figure("neighbours", &["metric"], "hamming", Some("expected")),
    figure("neighbours", &["metric"], "kappa", None),
    figure("clustering", CLUSTERS, "within", Some("expected_within")),
    figure("clustering", CLUSTERS, "between", Some("expected_between")),
    figure("clustering", CLUSTERS, "separation", Some("null_mean")),
    figure("clustering", CLUSTERS, "z", None),
    figure("clustering", CLUSTERS, "silhouette", None),
    figure("clustering", CLUSTERS, "n_singletons", None),
    figure("clustering", CLUSTERS, "legacy_ratio", None),
    figure("block_coherence_summary", BLOCKS, "coherence_mean", Some("null_mean")),
    figure("block_coherence_summary", BLOCKS, "lift", None),
    figure("block_coherence_summary", BLOCKS, "skippable_fraction", Some("null_skippable_fraction")),
    figure("group_summary", GROUPS, "mean_distance", Some("random_mean_distance")),
    figure("group_summary", GROUPS, "zero_fraction", Some("null_zero_fraction")),
    figure("group_summary", GROUPS, "zero_lift", None),
    figure("hierarchy", &["linkage", "n_clusters"], "separation", None),
    figure("activation_sparsity", &["target", "batch"], "achieved_mean", None),
    figure("activation_sparsity", &["target", "batch"], "rel_output_error", None),
    figure("activation_sparsity", &["target", "batch"], "batch_union_kept", None),
    figure("activation_behaviour", &["target"], "top1_agreement", None),
    figure("activation_behaviour", &["target"], "perplexity", Some("perplexity_base")),
    figure("activation_behaviour", &["target"], "kl", None),
];

/// The columns of `analysis_summary` after the key.
const SUMMARY: &[Named] = &[
    ("settings", "what tells the rows of a key apart, such as `k=8`"),
    ("metric", "table and column that are repeated"),
    ("seeds", "different seeds"),
    ("references", "different reference features"),
    ("n", "repeats: a seed and a reference each"),
    ("n_undefined", "repeats without a value, which the others leave out"),
    ("mean", "over repeats"),
    ("sd", "standard deviation over repeats, over n - 1"),
    ("ci_lo", "lower end of the 95 % interval of the mean (Student's t)"),
    ("ci_hi", "upper end"),
    ("cv", "sd / mean"),
    ("chance", "mean of the values by chance, where there are any"),
];

/// The columns of `analysis_differences` after the key.
const DIFFERENCES: &[Named] = &[
    ("source_b", "the other source"),
    ("settings", "what tells the rows of a key apart"),
    ("metric", "table and column that are compared"),
    ("n", "pairs of repeats with the same seed and reference"),
    ("n_undefined", "pairs without a value"),
    ("mean_a", "mean of the first source"),
    ("mean_b", "mean of the other"),
    ("difference", "mean of source_b - source over pairs"),
    ("sd", "standard deviation of the differences"),
    ("ci_lo", "lower end of the 95 % interval of the difference"),
    ("ci_hi", "upper end"),
    ("verdict", "`differ` where the interval leaves 0 out"),
];

/// The columns of `clustering_summary` after the key.
const CLUSTERING: &[Named] = &[
    ("k", "clusters asked for"),
    ("n_references", "reference features"),
    ("n_undefined", "references without a separation"),
    ("separation_mean", "mean separation"),
    ("separation_sd", "its standard deviation"),
    ("separation_ci_lo", "lower end of its 95 % interval"),
    ("separation_ci_hi", "upper end"),
    ("z_mean", "mean of z"),
    ("cv", "standard deviation of the separation over its mean"),
    ("legacy_ratio_mean", "mean of the original program's separation"),
];

/// The columns of `analysis_report` after the key.
const REPORT: &[Named] = &[
    ("k", "clusters asked for"),
    ("n", "seeds and references"),
    ("within_mean", "mean distance within clusters"),
    ("between_mean", "mean distance between clusters"),
    ("separation_mean", "mean separation"),
    ("separation_sd", "its standard deviation"),
    ("separation_cv", "that over the mean"),
    ("stability", "`stable` below a `separation_cv` of 0.3, `moderate` below 0.5, else `unstable`"),
    ("null_mean", "mean separation by chance"),
    ("z_mean", "mean of z"),
    ("above_null_fraction", "share of repeats with z above 3"),
    ("verdict", "`more than chance` where `z_mean` is above 3, `less than chance` below -3"),
    ("singletons_mean", "mean number of clusters of one feature"),
    ("largest_fraction_mean", "mean share of features in the largest cluster"),
    ("legacy_ratio_mean", "mean of the original program's separation"),
    ("dead_rows", "mean number of positions that no feature keeps"),
];

/// The columns of `matrices` after the key.
const MATRICES: &[Named] = &[
    ("path", "a file, or a model's source"),
    ("sha256", "of the file, or of the model's files"),
    ("out_features", "rows"),
    ("in_features", "columns"),
    ("dtype", "type of the stored numbers"),
    ("mask_source", "what says which weights are kept: `explicit` masks, or `nonzero` weights"),
    ("nnz", "positions kept"),
    ("sparsity", "1 - nnz over all positions"),
    ("dead_rows", "rows that keep nothing"),
    ("dead_cols", "columns that keep nothing"),
];

/// The tables of statistics and their columns after the key.
pub(super) const TABLES: &[(&str, &[Named])] = &[
    ("clustering_summary", CLUSTERING),
    ("analysis_summary", SUMMARY),
    ("analysis_differences", DIFFERENCES),
    ("analysis_report", REPORT),
    ("matrices", MATRICES),
];

/// The key columns without the seed, which statistics are over.
fn front() -> impl Iterator<Item = &'static str> {
    names(&KEY).filter(|column| *column != "seed")
}

fn front_values(key: &Key) -> Vec<Value> {
    let at = names(&KEY).position(|column| column == "seed");
    key_values(key).into_iter().enumerate().filter(|(index, _)| Some(*index) != at).map(|(_, value)| value).collect()
}

/// What is repeated: a seed and a reference.
type Unit = (Option<u64>, Option<u64>);

/// The values of a figure for one source, one for every unit.
struct Series {
    key: Key,
    settings: String,
    /// In the order of units: the figure, and what it is by chance.
    units: BTreeMap<Unit, (f64, f64)>,
}

impl Series {
    /// What a series of another source must share to be compared with this one.
    fn place(&self) -> impl PartialEq + use<> {
        let Key { analysis, model, layer, role, .. } = self.key.clone();
        let module = self.key.module.clone();
        let module = if role.is_some() { String::new() } else { module };
        (analysis, model, layer, role, module, self.settings.clone())
    }

    fn values(&self) -> Vec<f64> {
        self.units.values().map(|(value, _)| *value).collect()
    }
}

fn shown(entry: &Entry) -> String {
    match entry {
        Entry::Missing => String::new(),
        Entry::Flag(flag) => flag.to_string(),
        Entry::Int(number) => number.to_string(),
        Entry::Float(number) => number.to_string(),
        Entry::Text(text) => text.clone(),
    }
}

fn settings_of(row: &Row<'_>, columns: &[&str]) -> String {
    let named = columns.iter().map(|column| (column, shown(row.get(column)))).filter(|(_, value)| !value.is_empty());
    named.map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join(" ")
}

/// The series of a figure, in the order in which they appear.
fn series(results: &[AnalysisResult], figure: &Figure) -> Vec<Series> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    /// The numbers of each unit.
    type Units = BTreeMap<Unit, Vec<(f64, f64)>>;
    let mut all: Vec<(Key, String, Units)> = Vec::new();
    for result in results {
        for row in result.rows(figure.table) {
            let (key, settings) = (row.key(), settings_of(&row, figure.settings));
            let unit = (key.seed, row.number("reference").map(|reference| reference as u64));
            let name = format!("{:?} {settings}", Key { seed: None, ..key.clone() });
            let at = *places.entry(name).or_insert_with(|| {
                all.push((key, settings, BTreeMap::new()));
                all.len() - 1
            });
            let chance = figure.chance.and_then(|column| row.number(column)).unwrap_or(f64::NAN);
            let value = row.number(figure.value).unwrap_or(f64::NAN);
            all[at].2.entry(unit).or_default().push((value, chance));
        }
    }
    let mean =
        |rows: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| Repeats::of(&rows.iter().map(of).collect::<Vec<_>>()).mean;
    let finished = all.into_iter().map(|(key, settings, units)| {
        let unit = |(unit, rows): (Unit, Vec<(f64, f64)>)| (unit, (mean(&rows, |row| row.0), mean(&rows, |row| row.1)));
        Series { key, settings, units: units.into_iter().map(unit).collect() }
    });
    finished.collect()
}

fn count(number: usize) -> Value {
    Value::Int(number as u64)
}

/// Every table of statistics that has rows.
pub(super) fn all(results: &[AnalysisResult]) -> Vec<Table> {
    let tables =
        [clustering_summary(results), repeats(results), differences(results), comparative(results), matrices(results)];
    tables.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

fn repeats(results: &[AnalysisResult]) -> Table {
    let mut table = Table::new("analysis_summary", front().chain(names(SUMMARY)));
    for figure in FIGURES {
        for series in series(results, figure) {
            let found = Repeats::of(&series.values());
            let distinct = |of: fn(&Unit) -> Option<u64>| {
                let mut known: Vec<u64> = series.units.keys().filter_map(of).collect();
                known.sort_unstable();
                known.dedup();
                count(known.len())
            };
            let chance = Repeats::of(&series.units.values().map(|(_, chance)| *chance).collect::<Vec<_>>()).mean;
            let mut row = front_values(&series.key);
            row.extend([
                series.settings.as_str().into(),
                metric_of(figure).into(),
                distinct(|unit| unit.0),
                distinct(|unit| unit.1),
                count(found.n),
                count(found.n_undefined),
                found.mean.into(),
                found.sd.into(),
                found.ci_lo.into(),
                found.ci_hi.into(),
                found.cv.into(),
                chance.into(),
            ]);
            table.rows.push(row);
        }
    }
    table
}

/// `clustering.separation`; what is compared by `mask-similarity` has its name in the settings.
fn metric_of(figure: &Figure) -> String {
    format!("{}.{}", figure.table, figure.value)
}

/// The units of two series that belong together: the same seed and reference. What depends on no seed goes with every seed.
fn paired(a: &Series, b: &Series) -> (Vec<f64>, Vec<f64>) {
    let mut pairs = (Vec::new(), Vec::new());
    for ((seed, reference), (value, _)) in &a.units {
        for ((other_seed, other_reference), (other, _)) in &b.units {
            let same_seed = seed == other_seed || seed.is_none() || other_seed.is_none();
            if same_seed && reference == other_reference {
                pairs.0.push(*value);
                pairs.1.push(*other);
            }
        }
    }
    pairs
}

fn differences(results: &[AnalysisResult]) -> Table {
    let mut table = Table::new("analysis_differences", front().chain(names(DIFFERENCES)));
    // A similarity is of two sources already.
    for figure in FIGURES.iter().filter(|figure| figure.table != "mask_similarity_summary") {
        let all = series(results, figure);
        for (index, a) in all.iter().enumerate() {
            for b in all[index + 1..].iter().filter(|b| b.key.source != a.key.source && a.place() == b.place()) {
                let (x, y) = paired(a, b);
                if x.is_empty() {
                    continue;
                }
                let found = Repeats::paired(&x, &y);
                let verdict = if found.ci_lo > 0.0 || found.ci_hi < 0.0 {
                    "differ"
                } else if found.ci_lo.is_nan() {
                    "too few pairs"
                } else {
                    "no difference shown"
                };
                let mut row = front_values(&a.key);
                row.extend([
                    b.key.source.as_str().into(),
                    a.settings.as_str().into(),
                    metric_of(figure).into(),
                    count(found.n),
                    count(found.n_undefined),
                    Repeats::of(&x).mean.into(),
                    Repeats::of(&y).mean.into(),
                    found.mean.into(),
                    found.sd.into(),
                    found.ci_lo.into(),
                    found.ci_hi.into(),
                    verdict.into(),
                ]);
                table.rows.push(row);
            }
        }
    }
    table
}

/// The rows of clusterings by key and `k`; `merged` puts the seeds together.
fn clusterings<'a>(results: &'a [AnalysisResult], merged: bool) -> Vec<(Key, u64, Vec<Row<'a>>)> {
    let mut all: Vec<(Key, u64, Vec<Row<'a>>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for row in results.iter().flat_map(|result| result.rows("clustering")) {
        let mut key = row.key();
        if merged {
            key.seed = None;
        }
        let k = row.number("k").unwrap_or(0.0) as u64;
        let at = *places.entry(format!("{key:?} {k}")).or_insert_with(|| {
            all.push((key, k, Vec::new()));
            all.len() - 1
        });
        all[at].2.push(row);
    }
    all
}

fn over(rows: &[Row<'_>], column: &str) -> Repeats {
    Repeats::of(&rows.iter().map(|row| row.number(column).unwrap_or(f64::NAN)).collect::<Vec<_>>())
}

fn clustering_summary(results: &[AnalysisResult]) -> Table {
    let mut table = Table::new("clustering_summary", names(KEY.iter().chain(CLUSTERING)));
    for (key, k, rows) in clusterings(results, false) {
        let separation = over(&rows, "separation");
        let mut row = key_values(&key);
        row.extend([
            Value::Int(k),
            count(separation.n),
            count(separation.n_undefined),
            separation.mean.into(),
            separation.sd.into(),
            separation.ci_lo.into(),
            separation.ci_hi.into(),
            over(&rows, "z").mean.into(),
            separation.cv.into(),
            over(&rows, "legacy_ratio").mean.into(),
        ]);
        table.rows.push(row);
    }
    table
}

/// The original's comparative report, with the null model in place of its thresholds.
fn comparative(results: &[AnalysisResult]) -> Table {
    let mut table = Table::new("analysis_report", front().chain(names(REPORT)));
    for (key, k, rows) in clusterings(results, true) {
        let (separation, z) = (over(&rows, "separation"), over(&rows, "z"));
        let stability = match separation.cv {
            cv if cv.is_nan() => None,
            cv if cv < 0.3 => Some("stable"),
            cv if cv < 0.5 => Some("moderate"),
            _ => Some("unstable"),
        };
        let defined: Vec<f64> = rows.iter().filter_map(|row| row.number("z")).collect();
        let above = defined.iter().filter(|z| **z > 3.0).count() as f64 / defined.len() as f64;
        let verdict = match z.mean {
            z if z.is_nan() => None,
            z if z > 3.0 => Some("more than chance"),
            z if z < -3.0 => Some("less than chance"),
            _ => Some("as by chance"),
        };
        let mut row = front_values(&key);
        row.extend([
            Value::Int(k),
            count(separation.n),
            over(&rows, "within").mean.into(),
            over(&rows, "between").mean.into(),
            separation.mean.into(),
            separation.sd.into(),
            separation.cv.into(),
            stability.into(),
            over(&rows, "null_mean").mean.into(),
            z.mean.into(),
            above.into(),
            verdict.into(),
            over(&rows, "n_singletons").mean.into(),
            over(&rows, "largest_fraction").mean.into(),
            over(&rows, "legacy_ratio").mean.into(),
            over(&rows, "dead_rows").mean.into(),
        ]);
        table.rows.push(row);
    }
    table
}

/// What was looked at: every matrix of every source once, with the first analysis that did.
fn matrices(results: &[AnalysisResult]) -> Table {
    let mut table = Table::new("matrices", names(KEY.iter().chain(MATRICES)));
    let mut seen = std::collections::HashSet::new();
    for result in results {
        let Some(numbers) = &result.numbers else { continue };
        for (source, matrix) in numbers.matrices.iter().enumerate().take(result.cell.sources.len()) {
            // A matrix depends on the seed of its pruning, not on that of draws.
            let own = result.cell.sources[source].seed;
            let key = Key { seed: own, ..result.key(source) };
            let place = (key.source.clone(), key.model.clone(), own, key.layer, key.role, key.module.clone());
            if !seen.insert(place) {
                continue;
            }
            let total = (matrix.out_features * matrix.in_features) as f64;
            let mut row = key_values(&key);
            row.extend([
                matrix.path.as_str().into(),
                matrix.sha256.as_str().into(),
                count(matrix.out_features),
                count(matrix.in_features),
                matrix.dtype.as_str().into(),
                matrix.mask_source.as_str().into(),
                Value::Int(matrix.nnz),
                (1.0 - matrix.nnz as f64 / total).into(),
                count(matrix.dead_rows),
                count(matrix.dead_cols),
            ]);
            table.rows.push(row);
        }
    }
    table
}
