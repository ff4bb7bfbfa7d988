//! Why a `config.json` describes no model that this program runs.

use serde_json::Value;
use thiserror::Error;

/// Why a configuration describes no network that can be run.
#[derive(Debug, Error, PartialEq)]
pub enum ConfigError {
    /// `model_type` is none that this program knows.
    #[error("unknown architecture `{model_type}`")]
    UnknownFamily {
        /// What the file says.
        model_type: String,
        /// What it could say, in words.
        known: String,
    },
    /// A key is missing.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// A key's value can't be used.
    #[error("`{key}` is {value}, expected {expected}")]
    Unusable {
        /// The key.
        key: String,
        /// What the file says.
        value: String,
        /// What would do.
        expected: String,
    },
    /// Two keys say different things of one matter.
    #[error("`{key}` is {value}, but {other}")]
    Contradiction {
        /// The key.
        key: String,
        /// What the file says.
        value: String,
        /// What the other key is, in words.
        other: String,
    },
}

impl ConfigError {
    pub(super) fn contradiction(key: &str, value: &Value, other: String) -> Self {
        Self::Contradiction { key: key.into(), value: value.to_string(), other }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownFamily { known, .. } => Some(format!("known architectures: {known}")),
            Self::Contradiction { .. } => Some(
                "readers of the checkpoint would follow one or the other: keep the one that it was trained with".into(),
            ),
            Self::Missing { .. } | Self::Unusable { .. } => {
                Some("compare the checkpoint's config.json with the one on its model page".into())
            }
        }
    }
}
