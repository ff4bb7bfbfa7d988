//! `[[table]]` blocks: tables for a paper, pivots of the tidy tables.
//!
//! Owns the keys as written and what becomes of them. A pivot is a matter of the report: it decides no cell and no name
//! of one. Knows the names of columns and no table.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::column::Value;
use crate::config::axis::{At, Axis};
use crate::keyword::{UnknownKeyword, keywords};

/// What tells model cells apart, as `summary` and the other tables of model cells begin; a test of the report holds it
/// to what they have.
pub const MODEL_KEY: [&str; 10] =
    ["setup", "model", "method", "scope", "pattern", "sparsity_target", "seed", "variant", "backend", "dtype"];

/// The columns after the metrics where calibration is an axis: they tell cells apart, too.
pub const CALIBRATION_KEY: [&str; 3] = ["calibration", "calibration_samples", "calibration_length"];

keywords! {
    /// Which of the values that compete is best.
    Best "best" {
        Min "min" "the smallest value is best",
        Max "max" "the largest value is best",
    }
}

/// A `[[table]]` block: a table for a paper, made of a tidy table of the report: a row and a column for each value of
/// some of its columns, with mean and standard deviation over seeds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPivot {
    /// Name of the table: `tables/ID.tex`, `tables/ID.md` and `tables/ID.csv`. At most 64 of the letters a to z and A to Z,
    /// digits, `_` and `-`. Required.
    #[schemars(required, extend("pattern" = "^[A-Za-z0-9_-]+$", "examples" = ["main"]))]
    pub id: Option<At<String>>,
    /// The columns of the tidy table whose values head the rows: one, or several from the outermost to the innermost.
    /// `sparsity_target` is the pattern where it is `N:M`. Required.
    #[schemars(required, extend("examples" = [["method"]]))]
    pub rows: Option<Axis<String>>,
    /// The columns of the tidy table whose values head the columns, likewise. Default: none, for a single column.
    #[schemars(extend("examples" = [["model", "sparsity_target"]]))]
    pub columns: Option<Axis<String>>,
    /// The column of numbers that is shown. Required.
    #[schemars(required, extend("examples" = ["perplexity"]))]
    pub value: Option<At<String>>,
    /// The tidy table that it is made of: one of the report's, or the `id` of a `[[query]]`. Default: `summary`.
    #[schemars(extend("default" = "summary", "examples" = ["groups"]))]
    pub from: Option<At<String>>,
    /// Which value is best: it is set in bold, and the second one is underlined. Methods compete at the same model and
    /// sparsity; the dense model does not. Default: nothing is marked.
    pub best: Option<At<Best>>,
    /// Digits behind the point, at most 12. Default: as many as the numbers need.
    #[schemars(extend("minimum" = 0, "maximum" = 12, "examples" = [2]))]
    pub digits: Option<At<usize>>,
    /// The rows of the tidy table that it is about, by the values of columns: one each, or several. The dense model is
    /// kept, whatever is said of methods and sparsities. Default: all.
    #[schemars(extend("examples" = [{ "variant": "masked", "sparsity": [0.5, 0.7] }]))]
    pub r#where: Option<At<BTreeMap<String, Axis<Scalar>>>>,
}

/// A pivot, checked, as the plan keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PivotSpec {
    /// Its name.
    pub id: String,
    /// Columns whose values head the rows, at least one.
    pub rows: Vec<String>,
    /// Columns whose values head the columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// The column of numbers.
    pub value: String,
    /// The tidy table.
    pub from: String,
    /// Which value is best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
    /// Digits behind the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digits: Option<usize>,
    /// Which rows it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub r#where: Vec<Wanted>,
}

/// A column, and the values that a row may have there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The column.
    pub column: String,
    /// The values.
    pub values: Vec<Scalar>,
}

/// A value of a condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A number.
    Number(f64),
    /// Words.
    Text(String),
}

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "type": "string" }, { "type": "number" }] })
    }
}

impl From<&Scalar> for Value {
    fn from(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::Number(number) => (*number).into(),
            Scalar::Text(text) => text.as_str().into(),
        }
    }
}
