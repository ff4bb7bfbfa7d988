//! The rules of `[tasks]`.

use super::{Validator, value};
use crate::config::axis::At;
use crate::config::experiment::Metric;
use crate::config::tasks::{MMLU, RawTasks, SETS, TaskName, TaskSettings};
use crate::diagnostic::Diagnostic;

impl Validator<'_> {
    /// What the metric `tasks` measures; without it, nothing.
    pub(super) fn tasks(&mut self, raw: Option<At<RawTasks>>, metrics: &[Metric]) -> TaskSettings {
        let measured = metrics.contains(&Metric::Tasks);
        let Some(At { value: raw, span }) = raw else {
            if measured {
                let help = "write `names = \"wanda7\"`, or names of tasks, under `[tasks]`";
                self.missing("tasks.names", "tasks.names", None, help);
            }
            return TaskSettings::default();
        };
        if !measured && !self.was_removed("measure.metrics") {
            self.report(
                Diagnostic::warning("`[tasks]` has no effect without the metric `tasks`")
                    .at(span.clone(), "not measured")
                    .help("add `tasks` to `measure.metrics`"),
            );
        }
        if raw.names.is_none() {
            let help = "write `names = \"wanda7\"`, or names of tasks";
            self.missing("tasks.names", "tasks.names", Some(span), help);
        }
        let given = raw.names.map_or_else(Vec::new, |axis| self.unique("tasks.names", axis.values));
        let whole_mmlu = |at: &At<String>| {
            let in_set = SETS.iter().any(|(set, _, tasks)| *set == at.value && tasks.contains(&MMLU));
            at.value == MMLU || in_set
        };
        let whole_mmlu = given.iter().any(whole_mmlu);
        let mut names: Vec<TaskName> = Vec::new();
        for at in given {
            let tasks = self.task_names(&at);
            if let Some(shots) = raw.shots.as_ref().filter(|shots| shots.value > 0) {
                self.task_shots(&tasks, &at, shots);
            }
            names.extend(tasks.into_iter().filter(|task| !names.contains(task)).collect::<Vec<_>>());
        }
        TaskSettings {
            names,
            whole_mmlu,
            shots: value(raw.shots),
            limit: value(raw.limit).unwrap_or(0),
            path: value(raw.path).map(|path| self.folder.join(path)),
            bos: value(raw.bos).unwrap_or_default(),
        }
    }

    /// The tasks of a name; none of an unknown one, which is reported.
    fn task_names(&mut self, at: &At<String>) -> Vec<TaskName> {
        let tasks = TaskName::of(&at.value);
        if tasks.is_none() {
            let meant = TaskName::nearest(&at.value).map(|name| format!("did you mean `{name}`?"));
            self.report(
                Diagnostic::error(format!("unknown task `{}`, in `tasks.names`", at.value.escape_debug()))
                    .at(at.span.clone(), "expected a task, `mmlu`, `mmlu_SUBJECT`, `wanda7` or `slim6`")
                    .maybe_help(meant),
            );
        }
        tasks.unwrap_or_default()
    }

    /// Examples must be the same for everyone.
    fn task_shots(&mut self, tasks: &[TaskName], name: &At<String>, shots: &At<usize>) {
        let Some(task) = tasks.iter().find(|task| !task.has_examples()) else { return };
        self.report(
            Diagnostic::error(format!("`tasks.shots` {} is not available for `{task}`", shots.value))
                .at(shots.span.clone(), "only `mmlu` and `gsm8k` have examples in a settled order")
                .context(name.span.clone(), "without examples")
                .help("leave `shots` out, or put tasks with and without examples into files of their own"),
        );
    }
}
