//! A CUDA kernel of the user's in a `[[kernel]]` block: where it is, which arrays it takes, and how it is launched.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use thiserror::Error;

use crate::config::expression::{Expression, SizeError, Sizes};
use crate::config::source::WrittenPath;
use crate::keyword::{UnknownKeyword, keywords};

keywords! {
    /// The arrays in which a user's kernel gets the weight.
    ArenaLayout "layout" {
        Dense "dense" "`weight[rows * cols]`, zeros in place",
        Csr "csr" "`values[nnz]`, `columns[nnz]` of 32 bits, `row_ptr[rows + 1]` of 32 bits",
        Csr16 "csr16" "as `csr`, columns of 16 bits; at most 65536 columns",
        Bitmap "bitmap" "`masks[rows * ceil_div(cols, 32)]` of 32 bits, `values[nnz]`, `row_ptr[rows + 1]` of 32 bits",
    }
}

/// A user's kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelSource {
    /// The file.
    pub path: WrittenPath,
    /// The function, `extern "C"`.
    pub entry: String,
    /// What it gets the weight in.
    pub layout: ArenaLayout,
    /// Blocks, in x, y and z.
    pub grid: [Expression; 3],
    /// Threads of a block, in x, y and z.
    pub block: [Expression; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared: Expression,
}

/// A size as a file writes it: a number, or an expression as a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A number.
    Number(u64),
    /// An expression, not read yet.
    Text(String),
}

impl<'de> Deserialize<'de> for Extent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ExtentVisitor)
    }
}

struct ExtentVisitor;

impl Visitor<'_> for ExtentVisitor {
    type Value = Extent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer that is not negative, or an expression")
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Extent, E> {
        let number = u64::try_from(value);
        number.map(Extent::Number).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Extent, E> {
        Ok(Extent::Number(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Extent, E> {
        Ok(Extent::Text(value.to_owned()))
    }
}

impl JsonSchema for Extent {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Extent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string" }] })
    }
}

/// What a launch of a user's kernel is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaLaunch {
    /// Blocks, in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, in x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

/// Why a kernel can't be launched for a shape.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LaunchProblem {
    /// A size has no value.
    #[error("`kernel.{key}` `{written}` has no value: {error}")]
    NoValue {
        /// `grid`, say.
        key: &'static str,
        /// The expression.
        written: String,
        /// Why.
        error: SizeError,
    },
    /// A size is beyond what CUDA launches.
    #[error("`kernel.{key}` `{written}` is {value}, expected {least} to {most}")]
    Range {
        /// `grid`, say.
        key: &'static str,
        /// The expression.
        written: String,
        /// Its value.
        value: u64,
        /// The least that is allowed.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A block has too many threads.
    #[error("`kernel.block` has {0} threads, expected at most {MOST_THREADS}")]
    Threads(u64),
    /// A layout can't count this many columns.
    #[error("`kernel.layout` `csr16` takes at most 65536 columns, not {0}")]
    Columns(u64),
}

impl LaunchProblem {
    /// The key that it is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::NoValue { key, .. } | Self::Range { key, .. } => key,
            Self::Threads(_) => "block",
            Self::Columns(_) => "layout",
        }
    }
}

/// Threads of a block.
const MOST_THREADS: u64 = 1024;
const MOST_BLOCKS: [u64; 3] = [i32::MAX as u64, 65535, 65535];
const MOST_BLOCK: [u64; 3] = [1024, 1024, 64];
/// More than any GPU has; what the device has is known where it runs.
const MOST_SHARED: u64 = 1 << 20;

impl KernelSource {
    /// The launch for a shape.
    ///
    /// # Errors
    /// Where there is none.
    pub fn launch(&self, sizes: Sizes) -> Result<ArenaLaunch, LaunchProblem> {
        if self.layout == ArenaLayout::Csr16 && sizes.cols > 1 << 16 {
            return Err(LaunchProblem::Columns(sizes.cols));
        }
        let one = |key, of: &Expression, least, most| {
            let written = || of.written().to_owned();
            let value = of.value(sizes).map_err(|error| LaunchProblem::NoValue { key, written: written(), error })?;
            let fits = u32::try_from(value).ok().filter(|_| (least..=most).contains(&value));
            fits.ok_or_else(|| LaunchProblem::Range { key, written: written(), value, least, most })
        };
        let three = |key, of: &[Expression; 3], most: [u64; 3]| {
            Ok([one(key, &of[0], 1, most[0])?, one(key, &of[1], 1, most[1])?, one(key, &of[2], 1, most[2])?])
        };
        let grid = three("grid", &self.grid, MOST_BLOCKS)?;
        let block = three("block", &self.block, MOST_BLOCK)?;
        let threads = block.iter().map(|&side| u64::from(side)).product();
        if threads > MOST_THREADS {
            return Err(LaunchProblem::Threads(threads));
        }
        Ok(ArenaLaunch { grid, block, shared: one("shared", &self.shared, 0, MOST_SHARED)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(grid: &str, block: &str, layout: ArenaLayout) -> KernelSource {
        let three = |text: &str| {
            let mut parts = text.split(';').map(|part| Expression::parse(part).unwrap());
            std::array::from_fn(|_| parts.next().unwrap_or(Expression::number(1)))
        };
        let (path, entry) = (WrittenPath::new("a.cu"), "a".into());
        let shared = Expression::parse("2 * cols").unwrap();
        KernelSource { path, entry, layout, grid: three(grid), block: three(block), shared }
    }

    #[test]
    fn a_launch_follows_the_shape() {
        let sizes = Sizes { rows: 70, cols: 40, tokens: 5, nnz: 100 };
        let launch = source("ceil_div(rows, 4); tokens", "32; 4", ArenaLayout::Csr).launch(sizes);
        assert_eq!(launch, Ok(ArenaLaunch { grid: [18, 5, 1], block: [32, 4, 1], shared: 80 }));
        let problem = |grid, block, layout, sizes| source(grid, block, layout).launch(sizes).unwrap_err();
        let csr = ArenaLayout::Csr;
        assert_eq!(problem("rows", "32; 33", csr, sizes), LaunchProblem::Threads(1056));
        assert_eq!(
            problem("rows / 71", "32", csr, sizes).to_string(),
            "`kernel.grid` `rows / 71` is 0, expected 1 to 2147483647"
        );
        assert_eq!(problem("1; 65536", "32", csr, sizes).key(), "grid");
        assert!(problem("tokens - rows", "32", csr, sizes).to_string().contains("no value: it is negative"));
        assert_eq!(problem("1", "2000", csr, sizes).key(), "block");
        let wide = Sizes { cols: 65537, ..sizes };
        assert_eq!(problem("1", "1", ArenaLayout::Csr16, wide), LaunchProblem::Columns(65537));
        assert!(source("1", "1", csr).launch(wide).is_ok());
    }
}
