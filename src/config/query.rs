//! `[[query]]` blocks: SQL over the tables of the results folder.
//!
//! Owns the keys as written and what becomes of them. A query is a matter of the report: it decides no cell and no
//! name of one. Knows no database.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::axis::At;
use crate::keyword::{UnknownKeyword, keywords};

keywords! {
    /// What is drawn of a query's result.
    QueryPlot "plot" {
        Bar "bar" "a bar for each row",
        Line "line" "a point for each row, joined by lines",
        Histogram "histogram" "how many rows have which values",
    }
}

/// A `[[query]]` block: SQL over the tables of the results folder, by the program `duckdb`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawQuery {
    /// Name of the result: `tables/ID.csv`, and `plots/ID.svg` if it is drawn. At most 64 of the letters a to z and A to
    /// Z, digits, `_` and `-`. Required.
    #[schemars(required, extend("pattern" = "^[A-Za-z0-9_-]+$", "examples" = ["relevance"]))]
    pub id: Option<At<String>>,
    /// One `SELECT` in DuckDB's SQL. It sees the tables of this folder by their names in `tables/`, and no files. Rows
    /// without an `ORDER BY` are sorted by all columns, from left to right. Required.
    #[schemars(required, extend("examples" = ["SELECT method, avg(sparsity) AS sparsity FROM summary GROUP BY ALL"]))]
    pub sql: Option<At<String>>,
    /// What is drawn of the result. Default: nothing.
    pub plot: Option<At<QueryPlot>>,
    /// For `plot`: the column along the horizontal axis; of a `histogram` the one whose values are counted. Default:
    /// the first column; of a `line` the first column of numbers, of a `histogram` the last.
    #[schemars(extend("examples" = ["sparsity_target"]))]
    pub x: Option<At<String>>,
    /// For `bar` and `line`: the column of heights. Default: the last column of numbers.
    #[schemars(extend("examples" = ["perplexity"]))]
    pub y: Option<At<String>>,
    /// For `plot`: the columns whose values name a series, each in a colour of its own; `[]` for one series. Default:
    /// every other column of words.
    #[schemars(extend("examples" = [["method"]]))]
    pub series: Option<Vec<At<String>>>,
    /// Seconds after which a query that does not end is given up. Default: 60.
    #[schemars(extend("minimum" = 1, "default" = 60))]
    pub timeout: Option<At<u32>>,
}

/// A query, checked, as the plan keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The name of its result.
    pub id: String,
    /// One `SELECT`.
    pub sql: String,
    /// What is drawn of the result, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<Picture>,
    /// Seconds after which it is given up.
    pub timeout: u32,
}

/// What is drawn of a query's result. Columns that are not given are chosen by their types.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// The kind of picture.
    pub plot: QueryPlot,
    /// The column along the horizontal axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// The column of heights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// The columns whose words name a series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Vec<String>>,
}
