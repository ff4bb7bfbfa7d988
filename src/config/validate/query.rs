//! The rules of `[[query]]` blocks.

use super::{Validator, value, values};
use crate::config::axis::At;
use crate::config::query::{Picture, Query, QueryPlot, RawQuery};
use crate::diagnostic::{Diagnostic, Span};

/// The most `[[query]]` blocks, each of which starts a process.
const MAX_QUERIES: usize = 1000;
/// The most letters of an `id`, which names files.
const MAX_ID: usize = 64;
/// Tables that reports have. The names that are missing here are refused when the report is made.
pub(super) const TABLES: &[&str] = &[
    "summary",
    "timings",
    "spread",
    "layers",
    "groups",
    "execution",
    "latency",
    "latency_parts",
    "expectations",
    "comparisons",
    "tasks",
    "task_pairs",
    "kernels",
    "break_even",
    "structure",
    "density_profile",
    "nm_conformance",
    "features",
    "mask_similarity",
    "mask_similarity_summary",
    "spy",
    "gradient",
    "gradient_summary",
    "neighbours",
    "distance_histogram",
    "clusters",
    "clustering",
    "cluster_pairs",
    "block_coherence",
    "block_coherence_summary",
    "group_members",
    "group_summary",
    "distance_cdf",
    "hierarchy",
    "activation_sparsity",
    "activation_behaviour",
    "matrices",
    "clustering_summary",
    "analysis_summary",
    "analysis_differences",
    "analysis_report",
    "analysis_groups",
    "queries",
];
/// Seconds until a query is given up.
const TIMEOUT: u32 = 60;

impl Validator<'_> {
    /// The blocks that are right.
    pub(super) fn queries(&mut self, raw: Vec<At<RawQuery>>, ids: &mut Vec<(String, Span)>) -> Vec<Query> {
        if !self.few_enough("query", "blocks", MAX_QUERIES, &raw) {
            return Vec::new();
        }
        let query = |(index, block)| self.query(index, block, ids);
        raw.into_iter().enumerate().filter_map(query).collect()
    }

    fn query(&mut self, index: usize, block: At<RawQuery>, ids: &mut Vec<(String, Span)>) -> Option<Query> {
        let At { value: raw, span: header } = block;
        let mut missing = |key: &str, given: bool, help: &str| {
            if !given {
                let exact = format!("query.{index}.{key}");
                self.missing(&format!("query.{key}"), &exact, Some(header.clone()), help);
            }
        };
        missing("id", raw.id.is_some(), "write `id = \"NAME\"`: the result goes to `tables/NAME.csv`");
        missing("sql", raw.sql.is_some(), "write for example `sql = \"SELECT * FROM summary\"`");
        if let Some(sql) = raw.sql.as_ref().filter(|sql| sql.value.trim().is_empty()) {
            let diagnostic = Diagnostic::error("`query.sql` is empty").at(sql.span.clone(), "expected a `SELECT`");
            self.report(diagnostic);
        }
        if let Some(id) = &raw.id {
            self.file_id("query", id, ids);
        }
        let (id, sql, timeout) = (value(raw.id.clone()), value(raw.sql.clone()), value(raw.timeout.clone()));
        let picture = self.picture(raw);
        Some(Query { id: id?, sql: sql?, picture, timeout: timeout.unwrap_or(TIMEOUT) })
    }

    /// A name of files that no earlier query or table has. Not every file system tells capital letters from others.
    pub(super) fn file_id(&mut self, kind: &str, id: &At<String>, ids: &mut Vec<(String, Span)>) {
        let At { value: name, span } = id;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > MAX_ID || !name.chars().all(allowed) {
            let expected = format!("expected at most {MAX_ID} of the letters a to z and A to Z, digits, `_` and `-`");
            let title = format!("`{kind}.id` can't name a table: `{}`", name.escape_debug());
            return self.report(Diagnostic::error(title).at(span.clone(), expected));
        }
        let lower = name.to_ascii_lowercase();
        if TABLES.contains(&&*lower) {
            let title = format!("`{kind}.id` is the name of a table of every report: `{name}`");
            return self.report(Diagnostic::error(title).at(span.clone(), "expected another name"));
        }
        match ids.iter().find(|(earlier, _)| *earlier == lower) {
            Some((_, first)) => self.report(
                Diagnostic::error(format!("two results have the `id` `{name}`"))
                    .at(span.clone(), "given again here")
                    .context(first.clone(), "first given here")
                    .help("every `[[query]]` and `[[table]]` needs an `id` of its own; capital letters make no difference"),
            ),
            None => ids.push((lower, span.clone())),
        }
    }

    /// What is drawn. Says which keys have no effect.
    fn picture(&mut self, raw: RawQuery) -> Option<Picture> {
        let RawQuery { plot, x, y, series, .. } = raw;
        let spans = [
            ("x", x.as_ref().map(|at| at.span.clone())),
            ("y", y.as_ref().map(|at| at.span.clone())),
            ("series", series.as_ref().and_then(|names| Some(names.first()?.span.clone()))),
        ];
        let given = spans.into_iter().filter_map(|(key, span)| Some((key, span?)));
        let unused: Vec<_> = match plot.as_ref().map(|at| at.value) {
            None => given.collect(),
            Some(QueryPlot::Histogram) => given.filter(|(key, _)| *key == "y").collect(),
            Some(QueryPlot::Bar | QueryPlot::Line) => Vec::new(),
        };
        for (key, span) in unused {
            let (what, help) = match &plot {
                None => ("without `plot`", "add for example `plot = \"bar\"`"),
                Some(_) => {
                    ("for `histogram`, which counts the values of `x`", "name the column that is counted in `x`")
                }
            };
            let title = format!("`query.{key}` has no effect {what}");
            self.report(Diagnostic::warning(title).at(span, "not used").help(help));
        }
        let series = series.map(|names| values(self.unique("query.series", names)));
        Some(Picture { plot: value(plot)?, x: value(x), y: value(y), series })
    }
}
