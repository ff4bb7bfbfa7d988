//! Everything that can be typed.

use super::until::Until;
use crate::plan::{Only, Partition, Rerun, SelectError};
use crate::record::Program;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Declarative, fast and reproducible experiments on sparse language models.
#[derive(Debug, Parser)]
#[command(name = "sparsify-exp", version = version(), max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// `0.1.0 (1a2b3c4), features: x86-v4`
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let program = Program::current();
        let features = if program.features.is_empty() { "none".into() } else { program.features.join(", ") };
        format!("{program}, features: {features}")
    });
    &VERSION
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run an experiment: measure every cell that is not measured yet, then make tables and plots.
    Run(RunArgs),
    /// Show what `run` would do and why; measures nothing.
    Plan(PlanArgs),
    /// Parse and validate experiment files; needs no model and no network.
    Check(CheckArgs),
    /// Show how far results folders are, also while others work on them.
    Status(StatusArgs),
    /// Download all that an experiment needs, for machines without network.
    Fetch(FetchArgs),
    /// Print a script that runs an experiment as an array job of Slurm, and then reports.
    Slurm(SlurmArgs),
    /// Make the tables and plots of results folders again, from the cells alone.
    Report(ReportArgs),
    /// Put the same cells of two results folders, or two setups of one, side by side.
    Compare(CompareArgs),
    /// Run a results folder again from its manifest, and say of every number whether it came out the same.
    Verify(VerifyArgs),
    /// Take cells that another version of the program measured as current, with a record of who, when and why.
    Accept(AcceptArgs),
    /// Prune one point of an experiment and write it as a Hugging Face checkpoint.
    Export(ExportArgs),
    /// List what an experiment file can name.
    List {
        /// What to list.
        what: What,
    },
    /// Print the JSON schema of the experiment file or of a file of the results, or the page of all keys.
    Schema {
        /// Of which file.
        #[arg(default_value = "experiment")]
        name: SchemaName,
    },
    /// Print versions, devices and cache paths.
    Info,
    /// Measure for the process that has started this one.
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Print a script that makes a shell complete what is typed.
    Completions {
        /// For which shell.
        shell: Shell,
    },
}

/// Arguments of `run`.
#[derive(Debug, ClapArgs)]
pub struct RunArgs {
    /// The experiment and which of its cells.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Stop at the first failed cell.
    #[arg(long, help_heading = "Runner options")]
    pub fail_fast: bool,
    /// Begin no cell after this time: seconds since 1970, or `2026-01-31T12:00:00Z`. If cells are left, the exit code is 130.
    #[arg(long, value_name = "TIME", help_heading = "Runner options")]
    pub until: Option<Until>,
    /// Measure cells that may take more memory than there is; without this, the run stops before it begins.
    #[arg(long, help_heading = "Runner options")]
    pub ignore_memory: bool,
    /// Look where the time of one generated token goes, step by step: `profile` among the tables and plots.
    #[arg(long, help_heading = "Runner options")]
    pub profile: bool,
    /// How results go to stdout.
    #[arg(long, value_enum, default_value_t, help_heading = "Output options")]
    pub output_format: OutputFormat,
    /// Print errors and failed cells alone: no progress, no tables; with `--output-format json` events as ever.
    #[arg(short, long, help_heading = "Output options")]
    pub quiet: bool,
}

/// Arguments of `fetch`.
#[derive(Debug, ClapArgs)]
pub struct FetchArgs {
    /// The experiment file.
    pub file: PathBuf,
    /// Set a key of the file, for example `-s model.source=\"hf:ORG/NAME\"`; may be repeated.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How the list of files goes to stdout.
    #[arg(long, value_enum, default_value_t, help_heading = "Output options")]
    pub output_format: OutputFormat,
}

/// Arguments of `slurm`.
#[derive(Debug, ClapArgs)]
pub struct SlurmArgs {
    /// The experiment file.
    pub file: PathBuf,
    /// Set a key of the file, for example `-s prune.sparsity=[0.5,0.6]`; may be repeated.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Only the cells with these values, for example `--only 'method=magnitude, sparsity>=0.5'`; if repeated, the cells of any of them.
    #[arg(long, value_name = "EXPR", value_parser = condition, help_heading = "Selection options")]
    pub only: Vec<String>,
    /// Into how many tasks the prune points and kernel matrices are divided.
    #[arg(long, value_name = "N", default_value = "4", help_heading = "Selection options")]
    pub tasks: NonZeroU32,
    /// The folder that holds a folder for each experiment.
    #[arg(long, value_name = "DIR", default_value = "results", help_heading = "Output options")]
    pub results: PathBuf,
    /// Options of `sbatch`, for example `-- --time=2:00:00 --gres=gpu:1`.
    #[arg(last = true, value_name = "SLURM OPTIONS")]
    pub options: Vec<String>,
}

/// Arguments of `worker`.
#[derive(Debug, ClapArgs)]
pub struct WorkerArgs {
    /// The experiment file.
    pub file: PathBuf,
    /// What is set over the file's keys.
    #[arg(short = 's', long = "set")]
    pub set: Vec<String>,
    /// The experiment's results folder.
    #[arg(long)]
    pub folder: PathBuf,
    /// Stop at the first failed cell.
    #[arg(long)]
    pub fail_fast: bool,
    /// Begin no cell after this time.
    #[arg(long)]
    pub until: Option<Until>,
    /// Which of the workers this is.
    #[arg(long)]
    pub number: usize,
    /// How many there are.
    #[arg(long)]
    pub of: usize,
    /// Its GPU.
    #[arg(long)]
    pub gpu: Option<usize>,
    /// Its CPU threads.
    #[arg(long)]
    pub threads: usize,
    /// The CPU threads of all workers.
    #[arg(long)]
    pub all_threads: usize,
}

/// Arguments of `plan`.
#[derive(Debug, ClapArgs)]
pub struct PlanArgs {
    /// The experiment and which of its cells.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// How the plan goes to stdout.
    #[arg(long, value_enum, default_value_t, help_heading = "Output options")]
    pub output_format: OutputFormat,
}

/// An experiment and which of its cells.
#[derive(Debug, ClapArgs)]
pub struct SelectionArgs {
    /// The experiment file.
    pub file: PathBuf,
    /// Set a key of the file, for example `-s prune.sparsity=[0.5,0.6]`; may be repeated.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Only the cells with these values, for example `--only 'method=magnitude, sparsity>=0.5'`; if repeated, the cells of any of them.
    #[arg(long, value_name = "EXPR", help_heading = "Selection options")]
    pub only: Vec<Only>,
    /// Only part M of N of the prune points and kernel matrices, so that N processes share an experiment.
    #[arg(long, value_name = "slice:M/N", help_heading = "Selection options")]
    pub partition: Option<Partition>,
    /// Which finished cells to measure again.
    #[arg(long, value_enum, default_value_t, help_heading = "Selection options")]
    pub rerun: Rerun,
    /// Measure at most N cells.
    #[arg(long, value_name = "N", help_heading = "Selection options")]
    pub limit: Option<usize>,
    /// Use only the hub's local cache, not the network; the same as `HF_HUB_OFFLINE=1`.
    #[arg(long, help_heading = "Runner options")]
    pub offline: bool,
    /// The folder that holds a folder for each experiment: `results`, unless the file is the one that such a folder keeps.
    #[arg(long, value_name = "DIR", help_heading = "Output options")]
    pub results: Option<PathBuf>,
}

/// Arguments of `check`.
#[derive(Debug, ClapArgs)]
pub struct CheckArgs {
    /// Experiment files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Set a key of every file, for example `-s prune.sparsity=0.5`; may be repeated.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the files to stdout as they are after `extends`, ranges and defaults, each line with where it comes from.
    #[arg(long)]
    pub resolved: bool,
}

/// Arguments of `status`.
#[derive(Debug, ClapArgs)]
pub struct StatusArgs {
    /// Folders of experiments, `results/NAME`.
    #[arg(required = true)]
    pub folders: Vec<PathBuf>,
    /// How it goes to stdout.
    #[arg(long, value_enum, default_value_t, help_heading = "Output options")]
    pub output_format: OutputFormat,
}

/// Arguments of `report`.
#[derive(Debug, ClapArgs)]
pub struct ReportArgs {
    /// Folders of experiments, `results/NAME`.
    #[arg(required = true)]
    pub folders: Vec<PathBuf>,
    /// Write all tables into one DuckDB file too, `tables.duckdb`; needs the program `duckdb`.
    #[arg(long, help_heading = "Output options")]
    pub duckdb: bool,
}

/// Arguments of `compare`.
#[derive(Debug, ClapArgs)]
pub struct CompareArgs {
    /// The folder of an experiment, `results/NAME`.
    pub folder: PathBuf,
    /// Another folder; or two conditions like those of `--only`, which say what to compare within the folder, for example
    /// 'method=wanda' 'method=magnitude'.
    #[arg(required = true, num_args = 1..=2, value_name = "FOLDER | EXPR EXPR")]
    pub with: Vec<String>,
    /// Only the cells with these values, for example `--only 'variant=masked'`; if repeated, the cells of any of them.
    #[arg(long, value_name = "EXPR", help_heading = "Selection options")]
    pub only: Vec<Only>,
    /// Write the comparison into a file as well: .csv with every digit, .md or .tex.
    #[arg(long, value_name = "FILE", help_heading = "Output options")]
    pub output: Option<PathBuf>,
    /// How the comparison goes to stdout.
    #[arg(long, value_enum, default_value_t, help_heading = "Output options")]
    pub output_format: OutputFormat,
}

/// Arguments of `verify`.
#[derive(Debug, ClapArgs)]
pub struct VerifyArgs {
    /// The folder of an experiment, `results/NAME`.
    pub folder: PathBuf,
    /// Set a key of the experiment, for example `-s model.source=path:DIR` where a model lies elsewhere by now; may be repeated.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Run only N cells again, which are drawn.
    #[arg(long, value_name = "N", help_heading = "Selection options", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Option<u64>,
    /// Begin no further cell after M minutes; cells are drawn.
    #[arg(long, value_name = "M", help_heading = "Selection options", value_parser = minutes)]
    pub minutes: Option<f64>,
    /// What decides which cells are drawn; without it nobody can know beforehand, and the record says it afterwards.
    #[arg(long, value_name = "N", help_heading = "Selection options")]
    pub seed: Option<u64>,
    /// Use only the hub's local cache, not the network; the same as `HF_HUB_OFFLINE=1`.
    #[arg(long, help_heading = "Runner options")]
    pub offline: bool,
    /// How the verdicts go to stdout.
    #[arg(long, value_enum, default_value_t, help_heading = "Output options")]
    pub output_format: OutputFormat,
}

/// Minutes: a number above 0 that a clock can count to.
fn minutes(text: &str) -> Result<f64, String> {
    let most = 60.0 * 24.0 * 366.0;
    let number = text.parse::<f64>().ok().filter(|minutes| *minutes > 0.0 && *minutes <= most);
    number.ok_or_else(|| format!("expected minutes, a number above 0 and at most {most}"))
}

/// Arguments of `accept`.
#[derive(Debug, ClapArgs)]
pub struct AcceptArgs {
    /// The folder of an experiment, `results/NAME`.
    pub folder: PathBuf,
    /// Why they are current, for example 'only messages have changed since'.
    #[arg(long, value_name = "TEXT")]
    pub why: String,
    /// Who says so; the user's name by default.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Only the cells with these values, for example `--only 'method=magnitude'`; if repeated, the cells of any of them.
    #[arg(long, value_name = "EXPR", help_heading = "Selection options")]
    pub only: Vec<Only>,
}

/// Arguments of `export`.
#[derive(Debug, ClapArgs)]
pub struct ExportArgs {
    /// The experiment file.
    pub file: PathBuf,
    /// Set a key of the file, for example `-s prune.sparsity=0.5`; may be repeated.
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The point to export, for example `--only 'method=magnitude, sparsity=0.5'`; needed if the file has several.
    #[arg(long, value_name = "EXPR", help_heading = "Selection options")]
    pub only: Vec<Only>,
    /// The folder to write the checkpoint to.
    #[arg(long, value_name = "DIR", help_heading = "Output options")]
    pub to: PathBuf,
    /// How pruned weights are written.
    #[arg(long, value_enum, default_value_t, help_heading = "Output options")]
    pub format: WeightsForm,
    /// Replace an earlier export; a folder with anything else in it is left as it is.
    #[arg(long, help_heading = "Output options")]
    pub overwrite: bool,
    /// Use only the hub's local cache, not the network; the same as `HF_HUB_OFFLINE=1`.
    #[arg(long, help_heading = "Runner options")]
    pub offline: bool,
}

/// How pruned weights are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WeightsForm {
    /// With zeros in place: a checkpoint that every program reads.
    #[default]
    Dense,
    /// Without zeros, in a smaller file that only this program reads, as `path:DIR`.
    Sparse,
}

/// What `list` lists.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum What {
    /// Pruning methods.
    Methods,
    /// Models inside the program, shapes, architectures and sources.
    Models,
    /// Groups of numbers that can be measured.
    Metrics,
    /// Forms that a model is executed in.
    Variants,
    /// Backends, and whether they can be used here.
    Backends,
    /// Zero-shot tasks, and sets of them.
    Tasks,
}

/// The files that have a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaName {
    /// An experiment file.
    Experiment,
    /// An experiment file too, but as a page for people: `docs/configuration.md`.
    Configuration,
    /// What the columns of tables say, as a page for people: `docs/columns.md`.
    Columns,
    /// `cells/ID.json`
    Cell,
    /// `manifest.json`
    Manifest,
    /// A line of `run --output-format json`.
    Events,
}

/// How data goes to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Tables.
    #[default]
    Human,
    /// One JSON object on each line.
    Json,
}

/// A condition as it is written, if it is one.
fn condition(text: &str) -> Result<String, SelectError> {
    text.parse::<Only>().map(|_| text.to_owned())
}
