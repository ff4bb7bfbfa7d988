//! `slurm`: an array-job script that runs a plan in parts and then reports.
//!
//! ```text
//!   sh FILE.sh ──> sbatch: tasks 1 to N ──> run --partition slice:TASK/N --until ...   requeued while cells are left
//!                  sbatch: task 0, once these have ended ──> report
//! ```
//! All of it is one file that a reader can follow and change. The tasks share the results folder without a lock.

use super::args::SlurmArgs;
use super::output::Printer;
use super::run::read_experiment;
use crate::config::Experiment;
use crate::error::{CliError, exit};
use crate::input;
use crate::load::hub::HubSettings;
use crate::record::{experiment_folder, sha256};
use crate::shell::{self, word};
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub(super) fn slurm(args: &SlurmArgs) -> Result<u8, CliError> {
    let experiment = read_experiment(&args.file, &args.set)?;
    let options = options(&args.options)?;
    let here = |error| CliError { code: exit::UNEXPECTED, message: format!("{error}"), hint: None };
    let program = std::env::current_exe().map_err(here)?;
    let folder = std::env::current_dir().map_err(here)?;
    let cache = HubSettings::from_env(true).ok().map(|settings| settings.cache);
    let script = Script { args, experiment: &experiment, options, program, folder, cache };
    Printer::data(&script.text()?);
    Printer::note(&script.advice());
    Ok(exit::OK)
}

/// Slurm's options, one a line: an option that is followed by a value has it beside it.
fn options(given: &[String]) -> Result<Vec<String>, CliError> {
    const OURS: [&str; 5] = ["--array", "-a", "--wrap", "--parsable", "--dependency"];
    let mut lines: Vec<String> = Vec::new();
    for text in given {
        let name = text.split('=').next().unwrap_or_default();
        if OURS.contains(&name) {
            return Err(CliError::usage(
                format!("`{name}` is the script's own option"),
                Some("`--tasks N` says how many tasks there are; change what else you need in the script".into()),
            ));
        }
        let text = sbatch_word(text)?;
        match lines.last_mut() {
            _ if text.starts_with('-') => lines.push(text),
            Some(line) if !line.contains([' ', '=']) => *line = format!("{line} {text}"),
            Some(_) | None => {
                let hint = "after `--` come options of `sbatch`, such as `--time=2:00:00`";
                return Err(CliError::usage(format!("`{text}` is no option of Slurm"), Some(hint.into())));
            }
        }
    }
    Ok(lines)
}

/// A word as a `#SBATCH` line has it.
fn sbatch_word(text: &str) -> Result<String, CliError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/@%+[]*~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    if text.contains(['\n', '\r', '\'', '\0']) {
        let message = format!("`{}` can't stand in a `#SBATCH` line", text.escape_debug());
        return Err(CliError::usage(message, Some("put the option into the script by hand".into())));
    }
    Ok(match text.split_once('=') {
        Some((name, value)) if name.starts_with("--") => format!("{name}='{value}'"),
        Some(_) | None => format!("'{text}'"),
    })
}

struct Script<'a> {
    args: &'a SlurmArgs,
    experiment: &'a Experiment,
    /// Of Slurm.
    options: Vec<String>,
    program: PathBuf,
    /// Where it was made: paths are relative to it.
    folder: PathBuf,
    /// The hub's.
    cache: Option<PathBuf>,
}

impl Script<'_> {
    fn text(&self) -> Result<String, CliError> {
        let Self { args, experiment, .. } = self;
        let (name, tasks) = (&experiment.name, args.tasks);
        let file = path(&args.file)?;
        let mut text = format!(
            "#!/bin/sh\n# The experiment `{name}` as an array job of Slurm in {tasks} tasks that share its results folder.\n#\n\
             #   {} fetch {}    downloads what the nodes need; run it first, where there is network\n\
             #   sh THIS-FILE    submits the tasks, and the report that follows them\n#\n",
            word("sparsify-exp"),
            shell::experiment(&args.file, &args.set),
        );
        for line in self.sbatch()? {
            let _ = writeln!(text, "#SBATCH {line}");
        }
        let _ = write!(
            text,
            "\nprogram={}\nexperiment={}\nresults={}\ntasks={tasks}\n",
            word(path(&self.program)?),
            word(file),
            word(path(&experiment_folder(&args.results, name))?),
        );
        if let Some(cache) = &self.cache {
            let _ = writeln!(text, "export HF_HUB_CACHE={}", word(path(cache)?));
        }
        text.push_str(SUBMIT);
        let unreadable = |source| crate::config::ConfigError::Read { path: args.file.clone(), source };
        let bytes = input::read(&args.file, input::SMALL).map_err(unreadable)?;
        text.push_str(&FROZEN.replace("DIGEST", &sha256(&bytes)));
        text.push_str(DEADLINE);
        text.push_str(&RUN.replace("MORE", &self.more()?));
        text.push_str(REQUEUE);
        Ok(text)
    }

    fn sbatch(&self) -> Result<Vec<String>, CliError> {
        let mut lines = vec![
            format!("--job-name={}", self.experiment.name),
            format!("--array=1-{}", self.args.tasks),
            sbatch_word(&format!("--chdir={}", path(&self.folder)?))?,
            "--output=slurm-%x-%A_%a.out".to_owned(),
            "--open-mode=append".to_owned(),
            "--requeue".to_owned(),
        ];
        lines.extend(self.options.iter().cloned());
        Ok(lines)
    }

    /// What the user gave of the options of `run`.
    fn more(&self) -> Result<String, CliError> {
        let mut more = String::new();
        let results = path(&self.args.results)?;
        let given = [("--results", results)].into_iter();
        let given = given.chain(self.args.set.iter().map(|set| ("--set", set.as_str())));
        for (name, value) in given.chain(self.args.only.iter().map(|only| ("--only", only.as_str()))) {
            let _ = write!(more, " \\\n    {name} {}", word(value));
        }
        Ok(more)
    }

    fn advice(&self) -> String {
        "write it to a file and submit that with `sh`; models and texts of the hub are fetched before, with \
         `sparsify-exp fetch`"
            .to_owned()
    }
}

fn path(path: &Path) -> Result<&str, CliError> {
    let unusable = || CliError::usage(format!("`{}` can't stand in a script", path.display()), None);
    path.to_str().filter(|text| !text.contains(['\n', '\r'])).ok_or_else(unusable)
}

const SUBMIT: &str = r#"
# On the login node: the tasks, and after them, however they end, task 0: the report.
if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    array=$(sbatch --parsable "$0") || exit
    array=${array%%;*}
    report=$(sbatch --parsable --array=0 --dependency="afterany:$array" "$0") || exit
    echo "tasks: job $array, report: job ${report%%;*}"
    exit
fi
if [ "$SLURM_ARRAY_TASK_ID" -eq 0 ]; then
    exec "$program" report "$results"
fi
"#;

const FROZEN: &str = r#"
# The plan is that of the file as it was: tasks of different plans would leave cells out.
digest=$(sha256sum <"$experiment") || exit 3
if [ "${digest%% *}" != DIGEST ]; then
    echo "$experiment has changed since this script was made: make it anew" >&2
    exit 2
fi
"#;

const DEADLINE: &str = r#"
# No cell begins in the last tenth of the job's time: what is begun has to end before it is over. Signals that tell of
# the end differ between versions of Slurm, and so does who says when it is.
end=${SLURM_JOB_END_TIME:-}
if [ -z "$end" ]; then
    end=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e 2>/dev/null | head -n 1)
    case $end in
        [0-9]*) end=$(date --date="$end" +%s) ;;
        *) end= ;;
    esac
fi
now=$(date +%s)
until=
if [ -n "$end" ]; then
    until=--until=$((end - (end - now) / 10))
fi
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export RAYON_NUM_THREADS="$SLURM_CPUS_PER_TASK"
fi
"#;

const RUN: &str = r#"
"$program" run "$experiment" --partition "slice:$SLURM_ARRAY_TASK_ID/$tasks" --offline $untilMORE
code=$?
"#;

const REQUEUE: &str = r#"
case $code in
    # The time is over, or the process was killed, for lack of memory say. What is finished is kept, the rest comes next.
    130 | 137)
        if [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
            echo "task $SLURM_ARRAY_TASK_ID has cells left: requeued"
            scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
        fi ;;
    # There are fewer prune points than tasks.
    4) code=0 ;;
esac
exit "$code"
"#;
