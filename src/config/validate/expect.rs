//! The rules of `[[expect]]` blocks.

use super::count::MAX_EXPECTATIONS;
use super::{Validator, value};
use crate::config::axis::At;
use crate::config::experiment::{BackendChoice, Conditions, Expect, Expected, Metric, MetricColumn};
use crate::config::raw::{RawExpect, RawWhere};
use crate::config::tasks::{MEAN, TaskMetric, TaskName};
use crate::diagnostic::Diagnostic;
use crate::keyword::one_of;

impl Validator<'_> {
    /// The blocks that are right.
    pub(super) fn expects(&mut self, raw: Vec<At<RawExpect>>, metrics: &[Metric], tasks: &[TaskName]) -> Vec<Expect> {
        if !self.few_enough("expect", "blocks", MAX_EXPECTATIONS, &raw) {
            return Vec::new();
        }
        let expect = |(index, block)| self.expect(index, block, metrics, tasks);
        raw.into_iter().enumerate().filter_map(expect).collect()
    }

    fn expect(&mut self, index: usize, block: At<RawExpect>, metrics: &[Metric], tasks: &[TaskName]) -> Option<Expect> {
        let At { value: raw, span: header } = block;
        let mut missing = |key: &str, given: bool, help: &str| {
            if !given {
                let exact = format!("expect.{index}.{key}");
                self.missing(&format!("expect.{key}"), &exact, Some(header.clone()), help);
            }
        };
        missing("metric", raw.metric.is_some(), "name a column of `summary.csv`, or with `task` a metric of it");
        missing("value", raw.value.is_some(), "write the number that must come out");
        missing("tolerance", raw.tolerance.is_some(), "write the largest accepted difference");
        let r#where = self.expect_where(value(raw.r#where).unwrap_or_default());
        let metric = match (&raw.metric, &raw.task) {
            (Some(metric), Some(task)) => self.expect_of_task(metric, task, tasks),
            (Some(metric), None) => self.expect_metric(metric, metrics).map(Expected::Column),
            (None, _) => None,
        };
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
        let Ok(column) = at.value.parse::<MetricColumn>() else {
            // What is neither was reported where the file was read.
            if at.value.parse::<TaskMetric>().is_ok() {
                self.report(
                    Diagnostic::error(format!("`expect.metric` `{}` is a number of a task", at.value))
                        .at(at.span.clone(), "of which task?")
                        .help("add `task = \"boolq\"`, say"),
                );
            }
            return None;
        };
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

    /// So must a task.
    fn expect_of_task(&mut self, at: &At<String>, task: &At<String>, tasks: &[TaskName]) -> Option<Expected> {
        let Ok(metric) = at.value.parse::<TaskMetric>() else {
            if at.value.parse::<MetricColumn>().is_ok() {
                let names: Vec<&str> = TaskMetric::ALL.iter().map(|metric| metric.name).collect();
                self.report(
                    Diagnostic::error(format!("`expect.metric` `{}` is no number of a task", at.value))
                        .at(at.span.clone(), one_of(&names))
                        .context(task.span.clone(), "of a task"),
                );
            }
            return None;
        };
        let of_all = |all: Vec<TaskName>| all.iter().all(|task| tasks.contains(task));
        let measured = if task.value == MEAN { tasks.len() > 1 } else { TaskName::of(&task.value).is_some_and(of_all) };
        let given: Vec<&str> = TaskName::metrics_of(&task.value).iter().map(|metric| metric.name()).collect();
        if measured && !given.contains(&metric.name()) {
            self.report(
                Diagnostic::error(format!("`{}` has no `{metric}`", task.value))
                    .at(at.span.clone(), one_of(&given))
                    .context(task.span.clone(), "of this"),
            );
            return None;
        }
        if measured || self.was_removed("tasks.names") {
            return Some(Expected::Task { task: task.value.clone(), metric });
        }
        let help = match TaskName::of(&task.value) {
            Some(_) => format!("write `{}` into `tasks.names`, too", task.value),
            None => TaskName::nearest(&task.value)
                .map_or_else(|| "`list tasks` names them".to_owned(), |name| format!("did you mean `{name}`?")),
        };
        self.report(
            Diagnostic::error(format!("`expect.task` `{}` is not measured", task.value.escape_debug()))
                .at(task.span.clone(), "expected a task of `tasks.names`, a set whose tasks are all there, or `mean`")
                .help(help),
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
