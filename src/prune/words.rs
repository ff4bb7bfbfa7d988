//! The words of pruning: within what weights compete, which may stay together, how sparsity is spread.

use crate::keyword::{UnknownKeyword, keywords, serde_as_text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

keywords! {
    /// What a weight competes with for being kept.
    Scope "scope" {
        Global "global" "the smallest scores of the whole model go; layers get different sparsities",
        Layer "layer" "the smallest scores of each linear layer go; every layer gets the same sparsity",
        Row "row" "the smallest scores of each output row go; every row gets the same sparsity",
    }
}

/// Which positions of a row may be kept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NmPattern {
    /// Any.
    Unstructured,
    /// `n` of every `m` consecutive weights along the input dimension are kept.
    NofM {
        /// Weights kept in a group.
        n: u32,
        /// Size of a group.
        m: u32,
    },
}

impl NmPattern {
    /// The largest `M` of an `N:M` pattern: one group fits a 64-bit mask.
    pub const MAX_M: u32 = 64;

    /// The pattern in words, since papers write both the weights that stay and those that go first: `2 of 4 kept`.
    pub fn in_words(self) -> String {
        match self {
            Self::Unstructured => "unstructured".into(),
            Self::NofM { n, m } => format!("{n} of {m} kept"),
        }
    }

    /// The share of weights that goes, where the pattern fixes it.
    pub fn sparsity(self) -> Option<f64> {
        match self {
            Self::Unstructured => None,
            Self::NofM { n, m } => Some(f64::from(m - n) / f64::from(m)),
        }
    }

    /// The most weights that it keeps of four neighbours of a row, the first of them in a column that four divides.
    pub fn most_of_four(self) -> u32 {
        match self {
            Self::Unstructured => 4,
            // Groups of M and of four meet in the same way again after M groups of four.
            Self::NofM { n, m } => {
                let of_group =
                    |four: u32, group: u32| (4 * four..4 * four + 4).filter(|col| col / m == group).count() as u32;
                let of_four =
                    |four: u32| (4 * four / m..=(4 * four + 3) / m).map(|group| of_group(four, group).min(n)).sum();
                (0..m).map(of_four).max().unwrap_or(0)
            }
        }
    }
}

impl fmt::Display for NmPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unstructured => f.pad("unstructured"),
            Self::NofM { n, m } => f.pad(&format!("{n}:{m}")),
        }
    }
}

impl FromStr for NmPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "unstructured" {
            return Ok(Self::Unstructured);
        }
        let unknown = || PatternError::Unknown(text.to_owned());
        let (n, m) = text.split_once(':').ok_or_else(unknown)?;
        let number = |digits: &str| -> Result<u32, PatternError> {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.parse().ok().filter(|_| plain);
            number.ok_or_else(unknown)
        };
        let (n, m) = (number(n)?, number(m)?);
        if 1 <= n && n < m && m <= Self::MAX_M {
            Ok(Self::NofM { n, m })
        } else {
            Err(PatternError::OutOfRange { n, m })
        }
    }
}

serde_as_text!(NmPattern);

/// A text that is no sparsity pattern.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// Neither `unstructured` nor `N:M`.
    #[error("unknown pattern `{0}`")]
    Unknown(String),
    /// `N:M`, but not with `1 <= N < M <= 64`.
    #[error("pattern `{n}:{m}` is out of range, expected 1 <= N < M <= {max}", max = NmPattern::MAX_M)]
    OutOfRange {
        /// Weights kept in a group.
        n: u32,
        /// Size of a group.
        m: u32,
    },
}

keywords! {
    /// How the sparsity is spread over the blocks of the model.
    Budget "budget" {
        Uniform "uniform" "every block gets the same sparsity",
        Owl "owl" "blocks with more outliers among their scores get less of it, the mean over blocks is kept",
    }
}

keywords! {
    /// Which inputs of a block calibration looks at.
    Propagate "propagate" {
        Pruned "pruned" "what the pruned blocks before it give, as the methods' papers do",
        Dense "dense" "what the dense model gives; one pass serves every method, sparsity and pattern",
    }
}

/// The parameters of `budget = "owl"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Owl {
    /// A score is an outlier when it is larger than the block's mean by this factor.
    pub m: f64,
    /// Half the largest difference between the sparsities of two blocks.
    pub lambda: f64,
}

impl Default for Owl {
    fn default() -> Self {
        Self { m: 5.0, lambda: 0.08 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_four_is_what_a_row_shows() {
        assert_eq!(NmPattern::Unstructured.most_of_four(), 4);
        for m in 2..=16 {
            for n in 1..m {
                // Every group keeps its first or its last N: whatever of four can be kept is kept by one of them, or by
                // a mixture, whose groups meet in the middle of four.
                let kept = |col: u32, last: bool| if last { col % m >= m - n } else { col % m < n };
                let of = |four: u32, split: u32| {
                    (4 * four..4 * four + 4).filter(|&col| kept(col, col / m < split)).count() as u32
                };
                let most = (0..m).flat_map(|four| (0..=4 * m).map(move |split| (four, split)));
                let most = most.map(|(four, split)| of(four, split)).max().unwrap();
                let said = NmPattern::NofM { n, m }.most_of_four();
                assert!(said >= most, "{n}:{m}");
                // A group that lies within four can keep any, so that the mixture reaches what is said.
                assert!(said == most || m < 4, "{n}:{m}: {said}, {most}");
            }
        }
        let of = |n, m| NmPattern::NofM { n, m }.most_of_four();
        assert_eq!(
            [of(2, 4), of(1, 4), of(4, 8), of(2, 8), of(1, 2), of(1, 3), of(2, 3), of(3, 4)],
            [2, 1, 4, 2, 2, 2, 4, 3]
        );
    }
}
