//! The rules of `[[expect]]` blocks.

use super::count::MAX_EXPECTATIONS;
use super::{Validator, value};
use crate::config::axis::At;
use crate::config::experiment::{BackendChoice, Conditions, Expect, Metric, MetricColumn};
use crate::config::raw::{RawExpect, RawWhere};
use crate::diagnostic::Diagnostic;

impl Validator<'_> {
    /// The blocks that are right.
    pub(super) fn expects(&mut self, raw: Vec<At<RawExpect>>, metrics: &[Metric]) -> Vec<Expect> {
        if !self.few_enough("expect", "blocks", MAX_EXPECTATIONS, &raw) {
            return Vec::new();
        }
        let expect = |(index, block)| self.expect(index, block, metrics);
        raw.into_iter().enumerate().filter_map(expect).collect()
    }

    fn expect(&mut self, index: usize, block: At<RawExpect>, metrics: &[Metric]) -> Option<Expect> {
        let At { value: raw, span: header } = block;
        let mut missing = |key: &str, given: bool, help: &str| {
            if !given {
                let exact = format!("expect.{index}.{key}");
                self.missing(&format!("expect.{key}"), &exact, Some(header.clone()), help);
            }
        };
        missing("metric", raw.metric.is_some(), "name a column of `summary.csv`");
        missing("value", raw.value.is_some(), "write the number that must come out");
        missing("tolerance", raw.tolerance.is_some(), "write the largest accepted difference");
        let r#where = self.expect_where(value(raw.r#where).unwrap_or_default());
        let metric = raw.metric.as_ref().and_then(|metric| self.expect_metric(metric, metrics));
        if let Some(tolerance) = raw.tolerance.as_ref().filter(|at| at.value < 0.0) {
            self.report(
                Diagnostic::error("`expect.tolerance` is out of range")
                    .at(tolerance.span.clone(), "expected a difference of at least 0"),
            );
        }
        Some(Expect {
            r#where,
            metric: metric?,
            value: value(raw.value)?,
            tolerance: value(raw.tolerance)?,
            source: value(raw.source),
        })
    }

    /// What is expected must be measured.
    fn expect_metric(&mut self, at: &At<String>, metrics: &[Metric]) -> Option<MetricColumn> {
        let column: MetricColumn = at.value.parse().ok()?;
        let needed = column.metric()?;
        if metrics.contains(&needed) || self.was_removed("measure.metrics") {
            return Some(column);
        }
        let all: Vec<String> = metrics.iter().chain([&needed]).map(|metric| format!("\"{metric}\"")).collect();
        self.report(
            Diagnostic::error(format!("`expect.metric` `{column}` is not measured"))
                .at(at.span.clone(), format!("needs the metric `{needed}`"))
                .help(format!("write `metrics = [{}]` under `[measure]`", all.join(", "))),
        );
        None
    }

    fn expect_where(&mut self, mut raw: RawWhere) -> Conditions {
        raw.sparsity = raw.sparsity.filter(|at| self.sparsity("expect.where.sparsity", at).is_some());
        raw.pattern = raw.pattern.filter(|at| self.pattern("expect.where.pattern", at).is_some());
        if let Some(at) = raw.backend.as_ref().filter(|at| at.value == BackendChoice::Auto) {
            self.report(
                Diagnostic::error("`expect.where.backend` can't be `auto`")
                    .at(at.span.clone(), "expected the backend that runs the cell")
                    .help("leave `backend` out, or write `cuda`, `ndarray` or `flex`"),
            );
        }
        raw.given()
    }
}
