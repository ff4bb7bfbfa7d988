//! What users give a kernel cell in place of our kernels and random numbers.

use crate::config::arena::{ArenaLaunch, ArenaLayout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A file, by its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GivenFile {
    /// As the experiment file spells it.
    pub file: String,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// A matrix of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenMatrix {
    /// The file.
    pub file: GivenFile,
    /// `[rows, columns]`
    pub shape: [usize; 2],
    /// Numbers that are not zero.
    pub nonzero: u64,
}

/// The files of a `[[kernel]]` block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockFiles {
    /// Of the block's own kernel.
    pub source: Option<GivenFile>,
    /// The weight.
    pub weight: Option<GivenMatrix>,
    /// The input.
    pub input: Option<GivenMatrix>,
}

/// A user's kernel as it is launched for a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnKernel {
    /// Its source.
    pub source: GivenFile,
    /// The function.
    pub entry: String,
    /// The arrays in which it gets the weight.
    pub layout: ArenaLayout,
    /// Blocks, in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, in x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

impl OwnKernel {
    /// How it is launched.
    pub fn launch(&self) -> ArenaLaunch {
        ArenaLaunch { grid: self.grid, block: self.block, shared: self.shared }
    }
}

/// What a cell has of its user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The kernel, of the format `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<OwnKernel>,
    /// The weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<GivenFile>,
    /// The input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<GivenFile>,
}

impl Given {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What of it decides a result: contents, not names.
    pub fn canonical(&self) -> Value {
        let Self { kernel, weight, input } = self;
        let sha256 = |file: &Option<GivenFile>| file.as_ref().map(|file| file.sha256.clone());
        let kernel = kernel.as_ref().map(|OwnKernel { source, entry, layout, grid, block, shared }| {
            json!({
                "source": source.sha256,
                "entry": entry,
                "layout": layout.name(),
                "grid": grid,
                "block": block,
                "shared": shared,
            })
        });
        json!({ "kernel": kernel, "weight": sha256(weight), "input": sha256(input) })
    }
}
