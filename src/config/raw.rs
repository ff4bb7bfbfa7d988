//! The experiment file as written: flat structs, one field per key, everything optional.
//!
//! The doc comments of the fields are the descriptions of the JSON schema; the schema in turn is
//! what keys and types are checked against ([`grammar`](super::grammar)). Meaning, defaults and rules
//! between keys belong to [`validate`](super::validate).
//!
//! No `flatten`, `untagged` or tagged enums: they lose the position of a mistake.

mod analysis;

pub use analysis::{RawAnalysis, RawAnalysisSource, RawThresholds};

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::arena::{ArenaLayout, Extent};
use crate::config::axis::{At, Axis};
use crate::config::experiment::{
    BackendChoice, BosAt, Budget, Conditions, Drawing, Dtype, KernelFormat, Method, Metric, MetricColumn, Propagate,
    Scope, Setting, SettingValue, Variant,
};
use crate::config::kernel::MatrixShape;
use crate::config::pivot::RawPivot;
use crate::config::plots::RawPlots;
use crate::config::query::RawQuery;
use crate::config::tasks::{RawTasks, TaskMetric};
use crate::config::workers::Workers;

/// An experiment on sparse language models. An array where a single value is expected is an axis;
/// a block is the product of its axes; the experiment is the union of its blocks.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "sparsify-exp experiment", extend("anyOf" = [{ "required": ["model"] }, { "required": ["kernel"] }, { "required": ["analysis"] }]))]
pub struct RawExperiment {
    /// Name of the results folder, `results/NAME/`: at most 128 of the letters a to z and A to Z, digits, `.`, `_` and `-`. Required.
    #[schemars(required, extend("pattern" = "^[A-Za-z0-9._-]+$", "examples" = ["s1"]))]
    pub name: Option<At<String>>,
    /// A file beside this one, from which all is taken that this one does not say itself, `name` and `title` left out. Sections
    /// are merged key by key; values, arrays and the blocks of a kind are one file's, whole. `check --resolved` shows what comes from where.
    #[schemars(extend("examples" = ["base.toml"]))]
    pub extends: Option<At<String>>,
    /// A line for people; the description inside every SVG begins with it.
    pub title: Option<At<String>>,
    /// Axis: the seeds of everything random. A cell that depends on no seed is measured once. Default: 0.
    #[schemars(extend("default" = 0, "examples" = [[0, 1, 2]]))]
    pub seed: Option<Axis<u64>>,
    /// The model. Required, unless only kernels are timed, or only folders are analysed.
    pub model: Option<At<RawModel>>,
    /// Where it runs.
    pub device: Option<At<RawDevice>>,
    /// The texts that behaviour is measured on.
    pub data: Option<At<RawData>>,
    /// What is pruned and how. Every block is the product of its axes; the blocks add up.
    pub prune: Option<Vec<At<RawPrune>>>,
    /// Which bare kernels are timed, without a model. Every block is the product of its axes; the
    /// blocks add up.
    pub kernel: Option<Vec<At<RawKernel>>>,
    /// What is asked of masks and activations. Every block is one analysis of all of its sources, layers and roles.
    pub analysis: Option<Vec<At<RawAnalysis>>>,
    /// In which forms the model is run.
    pub execute: Option<At<RawExecute>>,
    /// What is measured.
    pub measure: Option<At<RawMeasure>>,
    /// What the metric `tasks` measures.
    pub tasks: Option<At<RawTasks>>,
    /// Published or earlier numbers that the run must reproduce.
    pub expect: Option<Vec<At<RawExpect>>>,
    /// How figures are drawn.
    pub plots: Option<At<RawPlots>>,
    /// Questions to the tables of the results folder. They are asked after the run, and decide nothing that is measured.
    pub query: Option<Vec<At<RawQuery>>>,
    /// Tables for a paper: pivots of the tidy tables. They are made after the run, and decide nothing that is measured.
    pub table: Option<Vec<At<RawPivot>>>,
}

/// The `[model]` section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawModel {
    /// Axis: where the model comes from: `builtin:NAME`, `hf:ORG/NAME` (`hf:ORG/NAME@REVISION`),
    /// `path:DIR` (relative to the experiment file) or `synthetic:NAME`. Required.
    #[schemars(required, extend("examples" = ["builtin:tiny-opt", "hf:facebook/opt-125m", "path:../checkpoint", "synthetic:opt-125m"]))]
    pub source: Option<Axis<String>>,
    /// The number format. Default: `f32` on the CPU, which widens what a checkpoint has, and the
    /// checkpoint's own on CUDA.
    pub dtype: Option<At<Dtype>>,
}

/// The `[device]` section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawDevice {
    /// Axis: where models and kernels run. Default: `auto`.
    #[schemars(extend("default" = "auto"))]
    pub backend: Option<Axis<BackendChoice>>,
    /// Which GPU, counted from 0. Default: 0.
    #[schemars(extend("default" = 0))]
    pub index: Option<At<usize>>,
    /// How many processes measure at once: one on each GPU from `index` upwards; on the CPU they share the threads.
    /// `all` takes all GPUs from `index` on, or a process for each processor. Cells and their names are the same for
    /// any number. Cells that are timed wait until all others are done, and then run one at a time. Default: 1.
    #[schemars(extend("default" = 1))]
    pub workers: Option<At<Workers>>,
    /// CPU threads, of all processes together; 0 means all. Default: 0.
    #[schemars(extend("default" = 0))]
    pub threads: Option<At<usize>>,
}

/// The `[data]` section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawData {
    /// The texts of the comparison with the dense model: `builtin:NAME` or `file:PATH` (UTF-8, relative
    /// to the experiment file), one on each line; or a dataset of the hub, `hf:ORG/NAME/CONFIG/SPLIT`.
    /// Default: `builtin:sample-texts`.
    #[schemars(extend("default" = "builtin:sample-texts"))]
    pub agreement: Option<At<String>>,
    /// The text that perplexity is measured on: `builtin:NAME`, `file:PATH` (UTF-8, relative to the
    /// experiment file) or `hf:ORG/NAME/CONFIG/SPLIT`, whose documents are joined to one text. Default:
    /// `builtin:heldout`.
    #[schemars(extend("default" = "builtin:heldout", "examples" = ["hf:Salesforce/wikitext/wikitext-2-raw-v1/test"]))]
    pub perplexity: Option<At<String>>,
    /// Tokens per window. Default: the model's own maximum, at most 2048.
    #[schemars(extend("minimum" = 2, "examples" = [512]))]
    pub context: Option<At<usize>>,
    /// How many windows perplexity is measured on; 0 means all. Default: 0.
    #[schemars(extend("default" = 0))]
    pub perplexity_windows: Option<At<usize>>,
    /// Tokens from the start of a window to the start of the next. If it is less than `context`, windows
    /// overlap, and each scores only the tokens that no earlier window has. Default: windows do not overlap.
    #[schemars(extend("minimum" = 1, "examples" = [512]))]
    pub perplexity_stride: Option<At<usize>>,
    /// Where the model's special tokens (BOS) stand: at the very `start` of the text only, or in front
    /// of all `windows`. Default: `start`.
    #[schemars(extend("default" = "start"))]
    pub perplexity_bos: Option<At<BosAt>>,
    /// What stands between the documents of a dataset of the hub. Default: as the published loaders have
    /// it: a space for C4, PTB and the training text of WikiText, else an empty line, `"\n\n"`.
    #[schemars(extend("examples" = ["\n\n", " "]))]
    pub perplexity_join: Option<At<String>>,
    /// How many documents of a dataset of the hub are read, from the first on; 0 means all. Default: 0;
    /// for the validation split of C4, 1100, as the published loaders have it.
    #[schemars(extend("examples" = [1100]))]
    pub perplexity_documents: Option<At<usize>>,
    /// How windows are taken from the documents of a dataset of the hub: `in_order` cuts the joined documents, `gptq`
    /// draws documents and cuts a window out of each, 256 unless `perplexity_windows` says otherwise, as GPTQ's code
    /// does with the validation split of C4. Default: `in_order`.
    #[schemars(extend("default" = "in_order"))]
    pub perplexity_drawing: Option<At<Drawing>>,
    /// Axis: the text that calibrated methods see while they prune: `builtin:NAME`, `file:PATH` (UTF-8,
    /// relative to the experiment file) or `hf:ORG/NAME/CONFIG/SPLIT`. Read only if such a method is
    /// used. Default: `builtin:calibration`.
    #[schemars(extend("default" = "builtin:calibration", "examples" = ["hf:allenai/c4/en/train"]))]
    pub calibration: Option<Axis<String>>,
    /// Axis: how many windows of the calibration text the seed draws at random. Default: 128.
    #[schemars(extend("default" = 128, "examples" = [16, [16, 128]]))]
    pub calibration_samples: Option<Axis<NonZeroUsize>>,
    /// Axis: tokens of a calibration window. Default: `context`.
    #[schemars(extend("examples" = [256]))]
    pub calibration_length: Option<Axis<NonZeroUsize>>,
    /// What stands between the documents of a dataset of the hub where none of them is longer than a
    /// window, so that they are one text. Default: as for `perplexity_join`.
    #[schemars(extend("examples" = [" "]))]
    pub calibration_join: Option<At<String>>,
    /// How many documents of a dataset of the hub are drawn from, from the first on; 0 means all.
    /// Default: as for `perplexity_documents`.
    #[schemars(extend("examples" = [10000]))]
    pub calibration_documents: Option<At<usize>>,
    /// Whether the model's special tokens (BOS) stand in front of every calibration window, and count for
    /// its length. Default: `false`, as windows that are cut out of a text at random have it.
    #[schemars(extend("default" = false))]
    pub calibration_bos: Option<At<bool>>,
}

/// A `[[prune]]` block.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPrune {
    /// Axis: how the weights that go are chosen. Required.
    #[schemars(required, extend("examples" = [["magnitude", "random"]]))]
    pub method: Option<Axis<Method>>,
    /// Axis: the share of weights that goes, at least 0 and below 1. Required, unless an `N:M`
    /// pattern fixes it or the method is `given`.
    #[schemars(extend("examples" = [0.5, [0.3, 0.5, 0.7]]))]
    pub sparsity: Option<Axis<f64>>,
    /// Axis: the group of weights within which the smallest scores go. Default: `global` for `magnitude` and
    /// `random`, which allow all; `row` for `wanda`, which allows no other; `layer` for `ria`, which
    /// allows `row` too, and for `sparsegpt` and `admm`, which allow no other. An `N:M` pattern has
    /// no scope.
    pub scope: Option<Axis<Scope>>,
    /// Axis: `unstructured`, or `N:M`: N of every M consecutive weights along the input dimension
    /// are kept, which fixes the sparsity by itself. Default: `unstructured`.
    #[schemars(extend("default" = "unstructured", "examples" = ["2:4", "4:8"]))]
    pub pattern: Option<Axis<String>>,
    /// Globs of module names that stay dense; `*` matches dots too. A head that shares the embedding's
    /// weights is never pruned. Default: `["lm_head"]`.
    #[schemars(extend("default" = ["lm_head"]))]
    pub exclude: Option<Vec<At<String>>>,
    /// Points of the product to leave out. A point is left out if it has all values of an entry.
    #[schemars(extend("examples" = [[{ "method": "random", "sparsity": 0.7 }]]))]
    pub skip: Option<Vec<At<RawSkip>>>,
    /// For calibrated methods: how the sparsity is spread over the blocks of the model. Default:
    /// `uniform`, the only one for an `N:M` pattern.
    #[schemars(extend("default" = "uniform"))]
    pub budget: Option<At<Budget>>,
    /// For `budget = "owl"`: a score is an outlier when it is larger than its block's mean by this factor.
    /// Default: 5.
    #[schemars(extend("default" = 5.0))]
    pub owl_m: Option<At<f64>>,
    /// For `budget = "owl"`: half the largest difference between the sparsities of two blocks.
    /// Default: 0.08.
    #[schemars(extend("default" = 0.08))]
    pub owl_lambda: Option<At<f64>>,
    /// For calibrated methods: whether a block sees what the pruned blocks before it give, as in the
    /// methods' papers, or what the dense model gives, so that one pass serves every method, sparsity
    /// and pattern. Default: `pruned`.
    #[schemars(extend("default" = "pruned"))]
    pub propagate: Option<At<Propagate>>,
    /// For `given`: the model that agreement and compute ratio are against, in place of the checkpoint itself, whose weights
    /// are pruned already: `hf:ORG/NAME`, `path:DIR` or another model source. It must see the texts as the same tokens.
    #[schemars(extend("examples" = ["hf:facebook/opt-125m"]))]
    pub reference: Option<At<String>>,
    /// The keys that methods declare, each with its value. They are taken out of the table before it is read.
    #[serde(skip)]
    #[schemars(skip)]
    pub settings: Vec<(&'static Setting, At<SettingValue>)>,
}

/// Declares a table of key columns: a row that has every value given is meant.
macro_rules! conditions {
    ($(#[$doc:meta])* $name:ident { $($(#[$help:meta])* $key:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$help])* pub $key: Option<At<$type>>,)+
        }

        impl $name {
            /// The values given, by their keys.
            pub fn given(self) -> Conditions {
                let given = [$(self.$key.map(|at| (stringify!($key), at.value.into())),)+];
                Conditions(given.into_iter().flatten().collect())
            }
        }
    };
}

conditions! {
    /// An entry of `skip`.
    RawSkip {
        /// Only points of this method.
        method: Method,
        /// Only points of this sparsity.
        sparsity: f64,
        /// Only points of this scope.
        scope: Scope,
        /// Only points of this pattern.
        pattern: String,
    }
}

/// A `[[kernel]]` block.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawKernel {
    /// Axis: shapes of the weight, pairs `[out_features, in_features]`. Required, unless there is a `weight`.
    #[schemars(extend("examples" = [[4096, 4096], [[768, 768], [4096, 4096]]]))]
    pub shape: Option<Axis<MatrixShape>>,
    /// Axis: the share of weights that is zero, at least 0 and below 1; of `threshold` the share of
    /// the input that is left out. Required, unless only `dense` is timed, which does not depend on it.
    #[schemars(extend("examples" = [0.5, [0.3, 0.5, 0.7, 0.9]]))]
    pub sparsity: Option<Axis<f64>>,
    /// Axis: rows of the input. Required, unless there is an `input`.
    #[schemars(extend("examples" = [[1, 16, 256]]))]
    pub tokens: Option<Axis<NonZeroUsize>>,
    /// Axis: the form in which the weight is stored and multiplied. `dense` is always timed too, so that
    /// the others can be compared with it; `threshold` is for `cuda` and at most 4 tokens; `nm` is for `cuda`,
    /// 16-bit numbers and a sparsity of 0.5, which is drawn as two of every four weights. Required, unless there is a `source`.
    #[schemars(extend("examples" = [["dense", "csr"]]))]
    pub format: Option<Axis<KernelFormat>>,
    /// Axis: the number format of weight, input and output. Default: `f32`.
    #[schemars(extend("default" = "f32"))]
    pub dtype: Option<Axis<Dtype>>,
    /// Calls before the first one that is timed. Default: 10.
    #[schemars(extend("default" = 10))]
    pub warmup: Option<At<usize>>,
    /// Calls that are timed. Default: 100.
    #[schemars(extend("default" = 100, "minimum" = 1))]
    pub repeats: Option<At<usize>>,
    /// A CUDA C++ file with a kernel of your own, relative to the experiment file. It is compiled when the cell runs, its
    /// output is checked, and it is timed beside the others as the format `source`. For `cuda`.
    #[schemars(extend("examples" = ["mine.cu"]))]
    pub source: Option<At<String>>,
    /// The function of `source`, `extern "C"`. Required with `source`.
    #[schemars(extend("examples" = ["my_kernel"]))]
    pub entry: Option<At<String>>,
    /// The arrays in which the function gets the weight. Required with `source`.
    pub layout: Option<At<ArenaLayout>>,
    /// Blocks that are launched, in x, y and z: integers, or expressions of `rows`, `cols`, `tokens` and `nnz` with
    /// `+ - * /`, parentheses and `ceil_div(a, b)`. Required with `source`.
    #[schemars(extend("examples" = ["ceil_div(rows, 4)", ["rows", "tokens"]]))]
    pub grid: Option<Axis<Extent>>,
    /// Threads of a block, in x, y and z; as `grid`. Required with `source`.
    #[schemars(extend("examples" = [128, [32, 4]]))]
    pub block: Option<Axis<Extent>>,
    /// Bytes of dynamic shared memory of a block; as `grid`. Default: 0.
    #[schemars(extend("default" = 0, "examples" = ["2 * cols"]))]
    pub shared: Option<At<Extent>>,
    /// A file with the weight in place of random numbers: a matrix in a `.pt` or `.safetensors` file, relative to the
    /// experiment file. Its zeros are what sparse formats leave out; `shape` and `sparsity` are the file's.
    #[schemars(extend("examples" = ["q_proj.pt"]))]
    pub weight: Option<At<String>>,
    /// A file with the input in place of random numbers, likewise; `tokens` may then take the first rows of it, and are
    /// all where it is left out.
    #[schemars(extend("examples" = ["x.pt"]))]
    pub input: Option<At<String>>,
}

/// The `[execute]` section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawExecute {
    /// The forms in which a model is stored and executed. Default: `dense`, `masked` and `csr`, or `dense` alone where
    /// nothing is pruned.
    #[schemars(extend("default" = ["dense", "masked", "csr"]))]
    pub variants: Option<Axis<Variant>>,
    /// Runs before the first one that `latency` times. Default: 3.
    #[schemars(extend("default" = 3))]
    pub warmup: Option<At<usize>>,
    /// Runs that `latency` times. Default: 20.
    #[schemars(extend("minimum" = 1, "default" = 20))]
    pub repeats: Option<At<usize>>,
}

/// The `[measure]` section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawMeasure {
    /// The groups of numbers that are measured. Default: `["structure", "agreement"]`.
    #[schemars(extend("default" = ["structure", "agreement"]))]
    pub metrics: Option<Axis<Metric>>,
    /// Axis: sequences at a time, for `latency`. Default: 1.
    #[schemars(extend("default" = 1, "examples" = [[1, 8]]))]
    pub batch: Option<Axis<usize>>,
    /// Axis: tokens of the prompt, for `latency`. Default: 128.
    #[schemars(extend("default" = 128, "examples" = [[128, 512]]))]
    pub prompt: Option<Axis<usize>>,
    /// Tokens generated after the prompt, one at a time with a KV cache, for `latency`. Default: 32.
    #[schemars(extend("minimum" = 1, "default" = 32))]
    pub generate: Option<At<usize>>,
}

/// An `[[expect]]` block.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawExpect {
    /// The cells that it is about, by their key columns. Default: every cell.
    #[schemars(extend("examples" = [{ "method": "magnitude", "sparsity": 0.5, "variant": "masked" }]))]
    pub r#where: Option<At<RawWhere>>,
    /// A metric column of `summary.csv`; with `task`, one of the task's metrics. Required.
    #[schemars(required, schema_with = "expected_metric")]
    pub metric: Option<At<String>>,
    /// A task of `tasks.csv`, or a mean of tasks there, if that is what the number is of; shares are at most 1.
    #[schemars(extend("examples" = ["boolq", "wanda7"]))]
    pub task: Option<At<String>>,
    /// The expected value, in the column's unit. Required.
    #[schemars(required)]
    pub value: Option<At<f64>>,
    /// The largest accepted absolute difference. Required.
    #[schemars(required)]
    pub tolerance: Option<At<f64>>,
    /// Where the number comes from.
    pub source: Option<At<String>>,
}

conditions! {
    /// The cells of an `[[expect]]`.
    RawWhere {
        /// The model source, as written under `[model]`.
        model: String,
        /// The pruning method.
        method: Method,
        /// The scope.
        scope: Scope,
        /// The sparsity pattern.
        pattern: String,
        /// The target sparsity.
        sparsity: f64,
        /// The seed.
        seed: u64,
        /// The executed form.
        variant: Variant,
        /// The backend that ran it, not `auto`.
        backend: BackendChoice,
        /// The number format.
        dtype: Dtype,
    }
}

fn expected_metric(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let measured = MetricColumn::ALL.iter().filter(|column| column.value.metric().is_some());
    let mut names: Vec<&str> = measured.map(|column| column.name).collect();
    for of_task in TaskMetric::ALL.iter().map(|metric| metric.name) {
        if !names.contains(&of_task) {
            names.push(of_task);
        }
    }
    schemars::json_schema!({ "type": "string", "enum": names })
}
