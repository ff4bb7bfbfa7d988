//! `[[kernel]]` blocks: which bare linears are timed, without a model.
//!
//! A block is the product of its axes, as a `[[prune]]` block is. Only `dense` does not depend on the
//! sparsity, so that it is one point of the axis; see [`KernelBlock`].

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::config::arena::KernelSource;
use crate::config::experiment::{BackendChoice, Dtype, format_takes};
use crate::config::format::{Format, Takes};
use crate::config::source::WrittenPath;
use crate::keyword::{UnknownKeyword, keywords};

keywords! {
    /// The form in which a weight is stored and multiplied.
    KernelFormat "format" {
        Dense "dense" "every weight, on dense kernels; what the others are compared with",
        ..Sparse(Format),
        Auto "auto" "whichever of them is fastest here",
        Threshold "threshold" "every weight, by columns; columns of small inputs are not read",
        Source "source" "the block's own CUDA kernel, see `source`",
    }
}

/// One `[[kernel]]` block.
///
/// The `dense` point of every shape, number of tokens and dtype belongs to a block that has any
/// sparse format, listed or not: speed-ups are over it.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelBlock {
    /// Axis: shapes of the weight; empty where the file with the weight says it.
    pub shapes: Vec<MatrixShape>,
    /// Axis: the share of weights that is zero, in `[0, 1)`; of `threshold` the share of the input that is
    /// left out. Empty where only `dense` is timed.
    pub sparsities: Vec<f64>,
    /// Axis: rows of the input; empty where the file with the input says it.
    pub tokens: Vec<usize>,
    /// Axis: how the weight is stored.
    pub formats: Vec<KernelFormat>,
    /// Axis: number formats of weight, input and output.
    pub dtypes: Vec<Dtype>,
    /// Calls before the first that counts.
    pub warmup: usize,
    /// Calls that are timed, at least 1.
    pub repeats: usize,
    /// The kernel of the format `source`.
    pub source: Option<KernelSource>,
    /// A file with the weight, in place of random numbers: its zeros are what is left out.
    pub weight: Option<WrittenPath>,
    /// A file with the input, in place of random numbers.
    pub input: Option<WrittenPath>,
}

impl KernelBlock {
    /// How many points its product has, without seeds and backends; none beyond what can be counted.
    pub fn size(&self) -> Option<u64> {
        let sparse = self.formats.iter().filter(|&&format| format != KernelFormat::Dense).count();
        // A weight of a file has one sparsity, its own.
        let own = usize::from(self.weight.is_some());
        let weights = (sparse as u64).checked_mul(self.sparsities.len().max(own) as u64)?.checked_add(1)?;
        let axes = [self.shapes.len().max(own), self.tokens.len().max(1), self.dtypes.len()];
        axes.into_iter().try_fold(weights, |product, axis| product.checked_mul(axis as u64))
    }
}

/// The shape of a weight, written as a pair: `[out_features, in_features]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct MatrixShape(pub [usize; 2]);

impl fmt::Display for MatrixShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [out, inp] = self.0;
        write!(f, "[{out}, {inp}]")
    }
}

impl JsonSchema for MatrixShape {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "MatrixShape".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "items": [
                { "title": "out_features", "type": "integer", "minimum": 1 },
                { "title": "in_features", "type": "integer", "minimum": 1 },
            ],
            "minItems": 2,
            "maxItems": 2,
        })
    }
}

/// The most tokens that `threshold` takes: of more, hardly a column is left out by all.
pub const THRESHOLD_TOKENS: usize = 4;

/// The formats that a backend's kernels take. What `auto` becomes is not known here, so it takes all.
pub fn kernel_formats(backend: BackendChoice) -> Vec<KernelFormat> {
    let has = |format: KernelFormat| match format {
        KernelFormat::Dense | KernelFormat::Auto => true,
        KernelFormat::Sparse(format) => backend.has(format),
        KernelFormat::Threshold | KernelFormat::Source => match backend {
            BackendChoice::NdArray | BackendChoice::Flex => false,
            BackendChoice::Auto | BackendChoice::Cuda => true,
        },
    };
    KernelFormat::ALL.iter().map(|word| word.value).filter(|&format| has(format)).collect()
}

/// Whether a format takes a dtype, on a backend that has both.
pub fn kernel_takes(format: KernelFormat, dtype: Dtype) -> bool {
    match format {
        KernelFormat::Dense | KernelFormat::Auto | KernelFormat::Threshold | KernelFormat::Source => true,
        KernelFormat::Sparse(format) => format_takes(format, dtype),
    }
}

/// The one sparsity of random weights that a format takes, where it takes one: two of every four are drawn for it.
pub fn only_sparsity(format: KernelFormat) -> Option<f64> {
    match format {
        KernelFormat::Dense | KernelFormat::Auto | KernelFormat::Threshold | KernelFormat::Source => None,
        KernelFormat::Sparse(format) => match format.row().takes {
            Takes::Any => None,
            Takes::TwoOfFour => Some(0.5),
        },
    }
}

/// The dtypes that a backend's kernels take. What `auto` becomes is not known here, so it takes all.
pub fn kernel_dtypes(backend: BackendChoice) -> &'static [Dtype] {
    match backend {
        BackendChoice::NdArray => &[Dtype::F32],
        BackendChoice::Flex => &[Dtype::F32, Dtype::Bf16],
        BackendChoice::Auto | BackendChoice::Cuda => &[Dtype::F32, Dtype::F16, Dtype::Bf16],
    }
}
