//! The validated experiment: what the file says after defaults, overrides and checks.
//!
//! ```text
//! Experiment ─┬─ axes of every cell: seeds × models × backends
//!             ├─ prune: Vec<PruneBlock>   each block = methods × patterns × (scopes × sparsities) − skip
//!             ├─ variants, metrics        what is run and measured at each point
//!             ├─ kernels: Vec<KernelBlock>  bare kernels, timed without a model
//!             ├─ analyses: Vec<AnalysisBlock>  what is asked of masks and activations
//!             ├─ latency                  what is timed, if anything is
//!             ├─ tasks                    what is asked, if anything is
//!             ├─ expects: Vec<Expect>     numbers that must come out
//!             ├─ queries: Vec<Query>      what the report asks its tables
//!             └─ pivots: Vec<PivotSpec>   tables for a paper, made of them
//! ```
//!
//! Everything here is plain data. Turning it into cells is the plan's work; nothing here reads a
//! file, knows a device or a tensor.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::column::{Column, Value, key_column};
pub use crate::config::analysis::AnalysisBlock;
pub use crate::config::format::Format;
use crate::config::format::Takes;
pub use crate::config::joining::{Drawing, Joining};
pub use crate::config::kernel::{KernelBlock, KernelFormat};
pub use crate::config::metric::{Metric, MetricColumn, Reads};
pub use crate::config::pivot::{Best, PivotSpec};
pub use crate::config::plots::PlotWidth;
pub use crate::config::query::{Picture, Query, QueryPlot};
pub use crate::config::source::{ModelSource, TextSource};
pub use crate::config::tasks::{TaskBos, TaskMetric, TaskName, TaskSettings};
pub use crate::dtype::Dtype;
pub use crate::prune::{
    Budget, Method, MethodSettings, NmPattern, Owl, PatternError, Propagate, Scope, Setting, SettingValue,
};

pub use crate::config::workers::Workers;
use crate::diagnostic::Diagnostics;
use crate::keyword::{UnknownKeyword, keywords};

/// One experiment file, checked and with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Name of the results folder, `results/NAME/`: at most 128 of the letters a to z and A to Z, digits, `.`, `_` and `-`.
    pub name: String,
    /// A line for humans, shown in tables and plots.
    pub title: Option<String>,
    /// The experiment file.
    pub path: PathBuf,
    /// Where the file comes from, and what was laid over it.
    pub origin: Origin,
    /// The text that gives this experiment without a command line: the file's, byte for byte, or one written anew where
    /// overrides have changed it.
    pub text: String,
    /// Axis: the seeds of everything random.
    pub seeds: Vec<u64>,
    /// Axis: the models; none where only kernels are timed.
    pub models: Vec<ModelSource>,
    /// Number format of the weights; `None` leaves it to the backend's default.
    pub dtype: Option<Dtype>,
    /// Axis: where models and kernels run.
    pub backends: Vec<BackendChoice>,
    /// Which GPU, counted from 0.
    pub device_index: usize,
    /// How many processes measure at once.
    pub workers: Workers,
    /// CPU threads, of all processes together; 0 means all.
    pub threads: usize,
    /// The texts that behaviour is measured on.
    pub data: Data,
    /// What is pruned and how; the blocks add up.
    pub prune: Vec<PruneBlock>,
    /// Which bare kernels are timed; the blocks add up.
    pub kernels: Vec<KernelBlock>,
    /// What is asked of masks and activations.
    pub analyses: Vec<AnalysisBlock>,
    /// The forms that every model is run in.
    pub variants: Vec<Variant>,
    /// The groups of numbers that are measured.
    pub metrics: Vec<Metric>,
    /// What is timed where `metrics` has `latency`.
    pub latency: LatencySettings,
    /// What is asked where `metrics` has `tasks`.
    pub tasks: TaskSettings,
    /// Numbers that the run must reproduce.
    pub expects: Vec<Expect>,
    /// How wide figures are.
    pub plot_width: PlotWidth,
    /// Questions to the tables, asked when the report is made.
    pub queries: Vec<Query>,
    /// Tables for a paper, made when the report is.
    pub pivots: Vec<PivotSpec>,
    /// What looked wrong in the file without being an error.
    pub warnings: Diagnostics,
}

/// Where an experiment file comes from: it may be the copy that a results folder keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file that somebody wrote; paths in it are seen from its folder.
    pub file: PathBuf,
    /// The overrides that were laid over it, in order.
    pub set: Vec<String>,
}

impl Origin {
    /// Of a file that is no copy.
    pub fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), set: Vec::new() }
    }
}

/// The `[data]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// The texts of the comparison with the dense model.
    pub agreement: TextSource,
    /// The text that perplexity is measured on.
    pub perplexity: TextSource,
    /// Tokens per window, at least 2; `None` means the model's own maximum.
    pub context: Option<usize>,
    /// How many windows perplexity is measured on; 0 means all.
    pub perplexity_windows: usize,
    /// Tokens of the text from the start of a window to that of the next, at least 1; `None` means that windows
    /// do not overlap.
    pub perplexity_stride: Option<usize>,
    /// Where the model's special tokens stand.
    pub perplexity_bos: BosAt,
    /// What stands between the documents of a dataset, and how many of its first ones there are.
    pub perplexity_joining: Joining,
    /// How windows are taken from the documents; of a dataset unless in order, and then without stride or front.
    pub perplexity_drawing: Drawing,
    /// Axes: what calibrated methods see, the product of texts, samples and lengths; one at least.
    pub calibrations: Vec<Calibration>,
    /// Whether the model's special tokens stand in front of every calibration window.
    pub calibration_bos: bool,
}

/// What calibrated methods see.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The text.
    pub text: TextSource,
    /// How many windows of it are drawn, from 1 to [`Data::MAX_SAMPLES`].
    pub samples: usize,
    /// Tokens of such a window, at least 1; `None` means as many as `context`.
    pub length: Option<usize>,
    /// What stands between the documents of a dataset where they are one text, and how many of its first ones are
    /// drawn from.
    pub joining: Joining,
}

impl Calibration {
    /// What tells it from others of its experiment.
    pub fn choice(&self) -> CalibrationChoice {
        CalibrationChoice { text: self.text.to_string(), samples: self.samples, length: self.length }
    }
}

/// One of several calibrations, by what the file says of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationChoice {
    /// The text, as the file spells it.
    pub text: String,
    /// Windows that are drawn.
    pub samples: usize,
    /// Tokens of a window; none where they are as many as `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
}

impl fmt::Display for CalibrationChoice {
    /// `builtin:calibration, 16 × 256`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.text, self.samples)?;
        self.length.map_or(Ok(()), |length| write!(f, " × {length}"))
    }
}

impl Data {
    /// The calibrations as points name them: none where there is one, so that it needs no name.
    pub fn choices(&self) -> Vec<Option<CalibrationChoice>> {
        match &self.calibrations[..] {
            [_] => vec![None],
            several => several.iter().map(|calibration| Some(calibration.choice())).collect(),
        }
    }

    /// The most calibration windows: 500 times what the field uses.
    pub const MAX_SAMPLES: usize = 65_536;
}

/// What `latency` times: prompts, and the tokens generated after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencySettings {
    /// Runs before those that count.
    pub warmup: usize,
    /// Runs that count, at least 1.
    pub repeats: usize,
    /// Axis: sequences at a time, each from 1 to [`LatencySettings::MAX_BATCH`].
    pub batch: Vec<usize>,
    /// Axis: tokens of the prompt, each at least 1.
    pub prompt: Vec<usize>,
    /// Tokens generated after the prompt, at least 1.
    pub generate: usize,
}

impl LatencySettings {
    /// The most sequences at a time: more than any machine has memory for.
    pub const MAX_BATCH: usize = 65_536;
}

/// One `[[prune]]` block: the product of its axes, without the points that `skip` leaves out.
#[derive(Clone, Debug, PartialEq)]
pub struct PruneBlock {
    /// Axis: how weights are chosen.
    pub methods: Vec<Method>,
    /// Axis: what competes with what; empty for each method's default. An `N:M` pattern ignores it; see
    /// [`PruneBlock::scopes_for`].
    pub scopes: Vec<Scope>,
    /// Axis: which positions may be kept together.
    pub patterns: Vec<NmPattern>,
    /// Axis: the share of weights that goes, in `[0, 1)`. Empty when every pattern is `N:M`
    /// and none was given; see [`PruneBlock::sparsities_for`].
    pub sparsities: Vec<f64>,
    /// Globs of module names that stay dense.
    pub exclude: Vec<String>,
    /// Points of the product to leave out.
    pub skip: Vec<Conditions>,
    /// Settings of single methods, as given.
    pub settings: MethodSettings,
    /// How the sparsity is spread over blocks of the model; `None` gives every block the same. Only calibrated
    /// methods use it, and of their points those without an `N:M` pattern.
    pub owl: Option<Owl>,
    /// What calibrated methods look at.
    pub propagate: Propagate,
    /// What points of `given` are compared with, if not with their own checkpoint.
    pub reference: Option<ModelSource>,
}

impl PruneBlock {
    /// The sparsities that `pattern` runs at: its own one if it is `N:M`, else the block's axis.
    pub fn sparsities_for(&self, pattern: NmPattern) -> Vec<f64> {
        match pattern.sparsity() {
            Some(sparsity) => vec![sparsity],
            None => self.sparsities.clone(),
        }
    }

    /// The scopes that a method and `pattern` run with: none for `N:M`, where weights compete only within
    /// their group of M, else the block's axis or the method's default.
    pub fn scopes_for(&self, method: Method, pattern: NmPattern) -> Vec<Option<Scope>> {
        match pattern {
            NmPattern::NofM { .. } => vec![None],
            NmPattern::Unstructured if self.scopes.is_empty() => vec![method.scopes().first().copied()],
            NmPattern::Unstructured => self.scopes.iter().copied().map(Some).collect(),
        }
    }

    /// The whole product, without regard to `skip`, in the order of the axes.
    ///
    /// A method that takes no sparsity has one point, whose sparsity is 0.
    pub fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for &method in &self.methods {
            if !method.uses("sparsity") {
                points.push(Point { method, scope: None, pattern: NmPattern::Unstructured, sparsity: 0.0 });
                continue;
            }
            for &pattern in &self.patterns {
                for scope in self.scopes_for(method, pattern) {
                    let sparsities = self.sparsities_for(pattern);
                    let point = |sparsity| Point { method, scope, pattern, sparsity };
                    points.extend(sparsities.into_iter().map(point));
                }
            }
        }
        points
    }

    /// How many points the whole product has; none beyond what can be counted.
    pub fn size(&self) -> Option<u64> {
        self.sized().try_fold(0u64, |sum, (_, points)| sum.checked_add(points?))
    }

    /// How many points each method has, none beyond what can be counted, without making them.
    pub fn sized(&self) -> impl Iterator<Item = (Method, Option<u64>)> + '_ {
        let fixed = self.patterns.iter().filter(|pattern| pattern.sparsity().is_some()).count() as u64;
        let free = self.patterns.len() as u64 - fixed;
        self.methods.iter().map(move |&method| {
            if !method.uses("sparsity") {
                return (method, Some(1));
            }
            let scopes = self.scopes.len().max(1) as u64;
            let of_free = free.checked_mul(scopes).and_then(|count| count.checked_mul(self.sparsities.len() as u64));
            (method, of_free.and_then(|count| count.checked_add(fixed)))
        })
    }
}

/// A point of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// How weights are chosen.
    pub method: Method,
    /// What competes with what; none for `N:M`.
    pub scope: Option<Scope>,
    /// Which positions may be kept together.
    pub pattern: NmPattern,
    /// The share that goes.
    pub sparsity: f64,
}

impl Point {
    /// What `skip` can name.
    pub const KEY: &[Column<Self>] = &[
        Column { name: "method", help: "how weights are chosen", get: |point| point.method.into() },
        Column { name: "sparsity_target", help: "the share that goes", get: |point| point.sparsity.into() },
        Column { name: "scope", help: "what competes", get: |point| point.scope.into() },
        Column { name: "pattern", help: "which positions may stay", get: |point| point.pattern.to_string().into() },
    ];
}

/// Values of key columns, by the names that the file gives them: what has them all is meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions(pub Vec<(&'static str, Value)>);

impl Conditions {
    /// Whether a row of these columns has every value. No condition on a column that it lacks holds.
    pub fn hold<T>(&self, columns: &[Column<T>], row: &T) -> bool {
        self.0.iter().all(|(key, wanted)| {
            let column = columns.iter().find(|column| column.name == key_column(key));
            column.is_some_and(|column| (column.get)(row).same(wanted))
        })
    }
}

impl fmt::Display for Conditions {
    /// `method = wanda, sparsity = 0.5`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given: Vec<String> = self.0.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        f.write_str(&given.join(", "))
    }
}

/// Whether two sparsities written in a file mean the same: `N:M` gives `1 - N/M`, which need not
/// be the very float that a user types.
pub fn same_sparsity(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

/// A sparsity in percent, as labels have it: rounded to a tenth, without a trailing `.0`. What is neither 0 nor 1 is
/// never called 0 or 100: it gets as many digits as that takes.
pub fn percent(sparsity: f64) -> String {
    let percent = sparsity * 100.0;
    let rounded = |digits: usize| {
        let text = format!("{percent:.digits$}");
        let is_bound = |bound: f64| text.parse() == Ok(bound) && percent != bound;
        (!is_bound(0.0) && !is_bound(100.0)).then_some(text)
    };
    let text = (1..=17).find_map(rounded).unwrap_or_else(|| format!("{percent:e}"));
    match text.contains('.') && !text.contains('e') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A number that the run must reproduce.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// The cells that it is about.
    pub r#where: Conditions,
    /// What the number is.
    pub metric: Expected,
    /// The expected value, in the column's unit.
    pub value: f64,
    /// The largest accepted absolute difference.
    pub tolerance: f64,
    /// Where the number comes from.
    pub source: Option<String>,
}

/// Which number of a cell is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A column of `summary.csv`.
    Column(MetricColumn),
    /// A number of `tasks.csv`.
    Task {
        /// A task, or a mean of tasks.
        task: String,
        /// Which number of it.
        metric: TaskMetric,
    },
}

keywords! {
    /// Where a text's special tokens stand while perplexity is measured.
    BosAt "place" {
        Start "start" "at the very start of the text, and nowhere else",
        Windows "windows" "in front of every window",
    }
}

keywords! {
    /// Where the model runs.
    BackendChoice "backend" {
        Auto "auto" "cuda if a GPU answers, else flex",
        Cuda "cuda" "an NVIDIA GPU",
        NdArray "ndarray" "the CPU, through the ndarray crate",
        Flex "flex" "the CPU, through SIMD kernels",
    }
}

impl BackendChoice {
    /// Whether it has kernels for a format. What `auto` becomes is not known here, so it has all.
    pub const fn has(self, format: Format) -> bool {
        match self {
            Self::Auto => true,
            Self::NdArray | Self::Flex => format.row().cpu,
            Self::Cuda => format.row().cuda.is_some(),
        }
    }
}

/// Whether a format has kernels for a number format, on a backend that has both.
pub fn format_takes(format: Format, dtype: Dtype) -> bool {
    match format.row().takes {
        Takes::Any => true,
        Takes::TwoOfFour => dtype != Dtype::F32,
    }
}

keywords! {
    /// The form in which a model is stored and executed.
    Variant "variant" {
        Dense "dense" "the original weights on dense kernels; the reference of every comparison",
        Masked "masked" "pruned weights with zeros in place, on dense kernels",
        ..Sparse(Format),
        Auto "auto" "each pruned layer in whatever form is fastest here, dense where sparse would lose",
    }
}

impl Variant {
    /// Whether the variant has a meaning only for a pruned model.
    pub const fn needs_pruning(self) -> bool {
        match self {
            Self::Dense => false,
            Self::Masked | Self::Sparse(_) | Self::Auto => true,
        }
    }

    /// Whether a backend can run it. What `auto` becomes is not known here, so it can run all.
    pub const fn runs_on(self, backend: BackendChoice) -> bool {
        match self {
            Self::Dense | Self::Masked | Self::Auto => true,
            Self::Sparse(format) => backend.has(format),
        }
    }

    /// Whether it has kernels for a number format, on a backend that has both.
    pub fn takes(self, dtype: Dtype) -> bool {
        match self {
            Self::Dense | Self::Masked | Self::Auto => true,
            Self::Sparse(format) => format_takes(format, dtype),
        }
    }

    /// Whether it can store what a pattern keeps. Only a checkpoint knows what `given` keeps.
    pub fn holds(self, pattern: NmPattern) -> bool {
        match self {
            Self::Dense | Self::Masked | Self::Auto => true,
            Self::Sparse(format) => match format.row().takes {
                Takes::Any => true,
                Takes::TwoOfFour => pattern.most_of_four() <= 2,
            },
        }
    }

    /// The variants of a file that names none.
    pub const DEFAULT: [Self; 3] = [Self::Dense, Self::Masked, Self::Sparse(Format::Csr)];
}
