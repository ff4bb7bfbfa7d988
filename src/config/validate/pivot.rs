//! The rules of `[[table]]` blocks.

use super::query::TABLES;
use super::{Validator, value, values};
use crate::column::key_column;
use crate::config::axis::{At, Axis};
use crate::config::experiment::{Metric, MetricColumn, Query};
use crate::config::pivot::{CALIBRATION_KEY, MODEL_KEY, PivotSpec, RawPivot, Scalar, Wanted};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::keyword::backticked;
use std::collections::BTreeMap;

/// The most `[[table]]` blocks.
const MAX_PIVOTS: usize = 1000;
/// The most digits behind a point: a float has hardly more.
const MAX_DIGITS: usize = 12;
/// The tidy table of a pivot that names none.
const SUMMARY: &str = "summary";

/// What a pivot may refer to.
pub(super) struct Known<'a> {
    /// What is measured.
    pub metrics: &'a [Metric],
    /// Whose results are tables.
    pub queries: &'a [Query],
}

impl Validator<'_> {
    /// The blocks that are right. Their names are names of files, as those of the queries in `ids` are.
    pub(super) fn pivots(
        &mut self,
        raw: Vec<At<RawPivot>>,
        known: &Known<'_>,
        ids: &mut Vec<(String, Span)>,
    ) -> Vec<PivotSpec> {
        if !self.few_enough("table", "blocks", MAX_PIVOTS, &raw) {
            return Vec::new();
        }
        let pivot = |(index, block)| self.pivot(index, block, known, ids);
        raw.into_iter().enumerate().filter_map(pivot).collect()
    }

    fn pivot(
        &mut self,
        index: usize,
        block: At<RawPivot>,
        known: &Known<'_>,
        ids: &mut Vec<(String, Span)>,
    ) -> Option<PivotSpec> {
        let At { value: raw, span: header } = block;
        let mut missing = |key: &str, given: bool, help: &str| {
            if !given {
                let exact = format!("table.{index}.{key}");
                self.missing(&format!("table.{key}"), &exact, Some(header.clone()), help);
            }
        };
        missing("id", raw.id.is_some(), "write `id = \"NAME\"`: the table goes to `tables/NAME.tex`");
        missing("rows", raw.rows.is_some(), "name what heads the rows, for example `rows = [\"method\"]`");
        missing("value", raw.value.is_some(), "name the column that is shown, for example `value = \"perplexity\"`");
        if let Some(id) = &raw.id {
            self.file_id("table", id, ids);
        }
        if let Some(digits) = raw.digits.as_ref().filter(|at| at.value > MAX_DIGITS) {
            let expected = format!("expected an integer from 0 to {MAX_DIGITS}");
            self.report(Diagnostic::error("`table.digits` is out of range").at(digits.span.clone(), expected));
        }
        let from = self.pivot_source(raw.from.as_ref(), known.queries);
        let names = |axis: Option<Axis<String>>| axis.map_or_else(Vec::new, |axis| axis.values);
        let (rows, columns) = (names(raw.rows), names(raw.columns));
        self.headed_once(&rows, &columns);
        let conditions = value(raw.r#where).unwrap_or_default();
        if from == SUMMARY {
            let conditions = conditions.iter().filter_map(|(key, axis)| Some((key, &axis.values.first()?.span)));
            let keys = rows.iter().chain(&columns).map(|at| (&at.value, &at.span));
            keys.chain(conditions).for_each(|(key, span)| self.key_of_models(key, span));
            raw.value.iter().for_each(|value| self.shown_column(value, known.metrics));
        }
        Some(PivotSpec {
            id: value(raw.id)?,
            rows: values(rows),
            columns: values(columns),
            value: value(raw.value)?,
            from,
            best: value(raw.best),
            digits: value(raw.digits),
            r#where: wanted(conditions),
        })
    }

    /// The tidy table, if there can be one of this name.
    fn pivot_source(&mut self, from: Option<&At<String>>, queries: &[Query]) -> String {
        let Some(At { value: name, span }) = from else { return SUMMARY.into() };
        let tables = || TABLES.iter().copied().chain(queries.iter().map(|query| query.id.as_str()));
        if !tables().any(|table| table == name) {
            let meant = nearest(name, tables());
            let diagnostic = Diagnostic::error(format!("unknown table `{}` of `table.from`", name.escape_debug()))
                .at(span.clone(), "expected a table of the report, or the `id` of a `[[query]]`")
                .maybe_help(meant.map(|meant| format!("did you mean `{meant}`?")))
                .help("`docs/columns.md` has the tables and their columns");
            self.report(diagnostic);
        }
        name.clone()
    }

    /// A column heads rows or columns, once.
    fn headed_once(&mut self, rows: &[At<String>], columns: &[At<String>]) {
        let all: Vec<&At<String>> = rows.iter().chain(columns).collect();
        for (index, at) in all.iter().enumerate() {
            let same = |earlier: &&&At<String>| key_column(&earlier.value) == key_column(&at.value);
            if let Some(first) = all[..index].iter().find(same) {
                self.report(
                    Diagnostic::error(format!("`{}` heads a table twice", at.value))
                        .at(at.span.clone(), "given again here")
                        .context(first.span.clone(), "first given here"),
                );
            }
        }
    }

    /// A column that tells model cells apart.
    fn key_of_models(&mut self, name: &str, span: &Span) {
        if MODEL_KEY.contains(&key_column(name)) || CALIBRATION_KEY.contains(&name) {
            return;
        }
        let metric = name.parse::<MetricColumn>().is_ok();
        let meant = nearest(name, MODEL_KEY).filter(|_| !metric);
        self.report(
            Diagnostic::error(format!("`summary` has no key column `{}`", name.escape_debug()))
                .at(span.clone(), format!("expected one of {}", backticked(&MODEL_KEY)))
                .maybe_help(meant.map(|meant| format!("did you mean `{meant}`?")))
                .maybe_help(metric.then(|| format!("`{name}` is measured: write `value = \"{name}\"`"))),
        );
    }

    /// A column of the summary that something measures.
    fn shown_column(&mut self, at: &At<String>, metrics: &[Metric]) {
        let Ok(column) = at.value.parse::<MetricColumn>() else {
            let names: Vec<&str> = MetricColumn::ALL.iter().map(|column| column.name).collect();
            let meant = nearest(&at.value, names.iter().copied());
            return self.report(
                Diagnostic::error(format!("`summary` has no column of numbers `{}`", at.value.escape_debug()))
                    .at(at.span.clone(), format!("expected one of {}", backticked(&names)))
                    .maybe_help(meant.map(|meant| format!("did you mean `{meant}`?"))),
            );
        };
        let Some(needed) = column.metric() else { return };
        // The structure is measured anyway.
        if needed == Metric::Structure || metrics.contains(&needed) || self.was_removed("measure.metrics") {
            return;
        }
        let all: Vec<String> = metrics.iter().chain([&needed]).map(|metric| format!("\"{metric}\"")).collect();
        self.report(
            Diagnostic::error(format!("`table.value` `{column}` is not measured"))
                .at(at.span.clone(), format!("needs the metric `{needed}`"))
                .help(format!("write `metrics = [{}]` under `[measure]`", all.join(", "))),
        );
    }
}

/// The conditions, in the order of their columns.
fn wanted(conditions: BTreeMap<String, Axis<Scalar>>) -> Vec<Wanted> {
    conditions.into_iter().map(|(column, axis)| Wanted { column, values: values(axis.values) }).collect()
}
