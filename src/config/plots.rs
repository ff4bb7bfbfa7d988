//! The `[plots]` section: how figures are drawn.
//!
//! Owns the keys as written. How a figure is drawn is a matter of the report: it decides no cell and no name of one.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::axis::At;
use crate::keyword::{UnknownKeyword, keywords};

keywords! {
    /// How wide figures are.
    PlotWidth "width" {
        Page "page" "180 mm: a page, or a figure across both columns of one",
        Column "column" "90 mm: one column of a page of two; panels stand below each other",
    }
}

impl PlotWidth {
    /// Whether it is what a file without the key has.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// `keywords!` has no place for `#[default]`.
#[allow(clippy::derivable_impls)]
impl Default for PlotWidth {
    fn default() -> Self {
        Self::Page
    }
}

/// The `[plots]` section.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPlots {
    /// How wide figures are: a `page`, 180 mm, or a `column` of it, 90 mm. A figure that does not fit into a column stays as
    /// wide as a page, and a warning says so. Default: `page`.
    #[schemars(extend("default" = "page"))]
    pub width: Option<At<PlotWidth>>,
}
