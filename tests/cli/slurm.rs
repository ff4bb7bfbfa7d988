//! The script that `slurm` prints, run by a shell with programs in Slurm's place that note what they are asked.

use crate::support::{Lab, Outcome, THREE_CELLS, program};
use std::process::Command;

/// Stand-ins for Slurm's programs: each notes its arguments.
fn cluster(lab: &Lab) {
    lab.write("bin/sbatch", "#!/bin/sh\necho \"sbatch $*\" >>asked\nwc -l <asked | tr -d ' \\n'\necho ';here'\n");
    lab.write("bin/scontrol", "#!/bin/sh\necho \"scontrol $*\" >>asked\n");
    lab.write("bin/squeue", "#!/bin/sh\necho \"squeue $*\" >>asked\ncat end 2>/dev/null\n");
    for name in ["sbatch", "scontrol", "squeue"] {
        let mode = Command::new("chmod").arg("+x").arg(lab.path(format!("bin/{name}"))).status();
        assert!(mode.unwrap().success());
    }
}

fn asked(lab: &Lab) -> String {
    std::fs::read_to_string(lab.path("asked")).unwrap_or_default()
}

/// Runs the script, as Slurm does where there are variables of a task.
fn script(lab: &Lab, variables: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new("sh");
    command.arg("job.sh");
    lab.settle(&mut command);
    let path = format!("{}:{}", lab.path("bin").display(), std::env::var("PATH").unwrap());
    for name in ["SLURM_ARRAY_TASK_ID", "SLURM_JOB_END_TIME", "SLURM_RESTART_COUNT", "SLURM_CPUS_PER_TASK"] {
        command.env_remove(name);
    }
    command.env("PATH", path).env("SLURM_JOB_ID", "9").env("SLURM_ARRAY_JOB_ID", "7");
    command.envs(variables.iter().copied());
    lab.outcome(command.output().unwrap())
}

fn task(number: &'static str) -> (&'static str, &'static str) {
    ("SLURM_ARRAY_TASK_ID", number)
}

const FAR: (&str, &str) = ("SLURM_JOB_END_TIME", "4000000000");
const OVER: (&str, &str) = ("SLURM_JOB_END_TIME", "1000000000");

/// A folder with an experiment of five cells in three points, and its script in this many tasks.
fn with_script(tasks: &str) -> Lab {
    let lab = Lab::tiny(&THREE_CELLS.replace("0.5\n", "[0.25, 0.5]\n"));
    cluster(&lab);
    let printed = lab.run(["slurm", "e.toml", "--tasks", tasks, "--", "--time=2:00:00", "-p", "gpu", "--comment=it's"]);
    printed.exits(2).says(&["can't stand in a `#SBATCH` line"]);
    let printed = lab.run(["slurm", "e.toml", "--tasks", tasks, "--", "--time=2:00:00", "-p", "gpu", "--comment=a b"]);
    printed.exits(0).says(&["sparsify-exp fetch"]).prints(&[
        &format!("#SBATCH --array=1-{tasks}\n"),
        "#SBATCH --open-mode=append\n",
        "#SBATCH --requeue\n",
        "#SBATCH --time=2:00:00\n#SBATCH -p gpu\n#SBATCH --comment='a b'\n",
        program(),
        "--offline",
    ]);
    lab.write("job.sh", &printed.stdout);
    lab
}

#[test]
fn what_is_set_is_fetched_and_run() {
    let lab = Lab::tiny(THREE_CELLS);
    for (set, word) in [("data.context=8", "data.context=8"), ("title=\"a b\"", "'title=\"a b\"'")] {
        lab.run(["slurm", "e.toml", "--tasks", "2", "-s", set])
            .exits(0)
            .prints(&[&format!("sparsify-exp fetch e.toml -s {word} "), &format!("--set {word}")]);
    }
}

#[test]
#[cfg(unix)]
fn tasks_measure_all_cells_and_the_report_follows_them() {
    for tasks in ["2", "3"] {
        let lab = with_script(tasks);
        script(&lab, &[]).exits(0).prints(&["tasks: job 1, report: job 2"]);
        assert_eq!(
            asked(&lab),
            "sbatch --parsable job.sh\nsbatch --parsable --array=0 --dependency=afterany:1 job.sh\n"
        );
        script(&lab, &[task("1"), FAR]).exits(0);
        let first = lab.cells().len();
        assert!(first > 0 && first < 5, "{first} cells");
        script(&lab, &[task("2"), FAR, ("SLURM_CPUS_PER_TASK", "2")]).exits(0);
        script(&lab, &[task("3"), FAR]);
        assert_eq!(lab.cells().len(), 5);
        script(&lab, &[task("0"), FAR]).exits(0).prints(&["top1_match", "25 %", "50 %"]);
        assert!(!asked(&lab).contains("requeue"));
    }
}

#[test]
#[cfg(unix)]
fn a_task_whose_time_is_over_is_requeued_but_not_for_ever() {
    let lab = with_script("2");
    let late = script(&lab, &[task("1"), OVER]);
    late.exits(130).says(&["the time is over"]).prints(&["task 1 has cells left: requeued"]);
    assert!(asked(&lab).ends_with("scontrol requeue 7_1\n"), "{}", asked(&lab));
    script(&lab, &[task("2"), OVER, ("SLURM_RESTART_COUNT", "20")]).exits(130);
    assert!(asked(&lab).ends_with("scontrol requeue 7_1\n"), "{}", asked(&lab));
    assert!(lab.cells().is_empty());
    // Slurm before 22.05 has no variable for it.
    lab.write("end", "2001-09-09T01:46:40\n");
    script(&lab, &[task("2")]).exits(130);
    assert!(asked(&lab).contains("squeue --noheader --jobs=9 --format=%e\nscontrol requeue 7_2\n"), "{}", asked(&lab));
    // Where nobody says when, there is no end.
    lab.write("end", "NONE\n");
    script(&lab, &[task("2")]).exits(0);
    assert!(!lab.cells().is_empty());
}

#[test]
#[cfg(unix)]
fn tasks_beyond_the_points_have_nothing_to_do_and_another_plan_is_refused() {
    let lab = with_script("9");
    script(&lab, &[task("9"), FAR]).exits(0);
    assert!(lab.cells().is_empty());
    lab.write("e.toml", THREE_CELLS);
    script(&lab, &[task("1"), FAR]).exits(2).says(&["e.toml has changed since this script was made"]);
    assert!(lab.cells().is_empty());
}

#[test]
#[cfg(unix)]
fn what_is_given_comes_through_the_shell_as_it_was() {
    let lab = Lab::tiny(THREE_CELLS);
    cluster(&lab);
    let results = "of $(me) and 'you'";
    let printed = lab.run([
        "slurm",
        "e.toml",
        "--tasks",
        "1",
        "-s",
        "title=\"a 'b' `c` $d\"",
        "--only",
        "variant!=csr",
        "--results",
        results,
    ]);
    lab.write("job.sh", &printed.exits(0).stdout);
    script(&lab, &[task("1"), FAR]).exits(0);
    assert_eq!(lab.files(&format!("{results}/e/cells")).len(), 2);
    assert!(lab.read(format!("{results}/e/plan.json")).contains("a 'b' `c` $d"));
    script(&lab, &[task("0"), FAR]).exits(0).prints(&["top1_match", "50 %"]);
}

#[test]
fn options_that_the_script_sets_itself_are_refused() {
    let lab = Lab::with(THREE_CELLS);
    for (option, said) in [
        (&["--array=1-3"][..], "`--array` is the script's own option"),
        (&["-a", "1"], "`-a` is the script's own option"),
        (&["gpu"], "`gpu` is no option of Slurm"),
        (&["--time=1", "2"], "`2` is no option of Slurm"),
        (&["--comment=a\nb"], "can't stand in a `#SBATCH` line"),
    ] {
        lab.run(["slurm", "e.toml", "--"].into_iter().chain(option.iter().copied()))
            .exits(2)
            .says(&[said])
            .prints_nothing();
    }
    lab.run(["slurm", "e.toml", "--tasks", "0"]).exits(2);
    lab.run(["slurm", "e.toml", "--only", "speed=1"]).exits(2).says(&["unknown column `speed`"]);
}
