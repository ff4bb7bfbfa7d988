//! Typed reading of a `config.json`, with the family's defaults for what it leaves out.
//!
//! `null` counts as left out. Knows keys and their types; what they mean for a network is for the families.

use super::architecture::Activation;
use super::defaults::{Absent, Key, LIMITS};
use super::error::ConfigError;
use serde_json::Value;
use std::cell::RefCell;

/// A configuration and the keys of its family.
pub(super) struct Fields<'a> {
    json: &'a Value,
    keys: &'static [Key],
    assumed: RefCell<Vec<String>>,
}

impl<'a> Fields<'a> {
    /// A configuration of the family that has these keys.
    pub fn new(json: &'a Value, keys: &'static [Key]) -> Self {
        Self { json, keys, assumed: RefCell::default() }
    }

    /// The sizes that the configuration leaves out, with what was taken for them.
    pub fn assumed(self) -> Vec<String> {
        self.assumed.into_inner()
    }

    /// A key's value; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key is there and is `null`.
    pub fn is_null(&self, key: &str) -> bool {
        self.json.get(key).is_some_and(Value::is_null)
    }

    /// A positive whole number within the limit of its key.
    pub fn size(&self, key: &str) -> Result<usize, ConfigError> {
        let (key, value) = self.find(key)?;
        if let Some(value) = value {
            return self.checked_size(key, value);
        }
        let size = match self.absent(key) {
            Some(Absent::Size(size)) => size,
            Some(Absent::As(other)) => return self.size(other),
            Some(Absent::FourTimes(other)) => return Ok(4 * self.size(other)?),
            Some(Absent::Number(_) | Absent::Flag(_) | Absent::Text(_)) | None => return Err(missing(key)),
        };
        let said = format!("`{key}` (taken as {size})");
        let mut assumed = self.assumed.borrow_mut();
        if !assumed.contains(&said) {
            assumed.push(said);
        }
        Ok(size)
    }

    fn checked_size(&self, key: &str, value: &Value) -> Result<usize, ConfigError> {
        let most = LIMITS.iter().find(|(name, _)| *name == key).map_or(usize::MAX, |(_, most)| *most);
        match value.as_u64().map(usize::try_from) {
            Some(Ok(size)) if (1..=most).contains(&size) => Ok(size),
            Some(Ok(0)) | None => Err(self.unusable(key, "a positive whole number")),
            Some(_) => Err(self.unusable(key, &format!("at most {most}"))),
        }
    }

    /// A number of at least 0.
    pub fn number(&self, key: &str) -> Result<f64, ConfigError> {
        let (key, value) = self.find(key)?;
        match (value, self.absent(key)) {
            (Some(value), _) => {
                let number = value.as_f64().filter(|number| number.is_finite() && *number >= 0.0);
                number.ok_or_else(|| self.unusable(key, "a number that is not negative"))
            }
            (None, Some(Absent::Number(number))) => Ok(number),
            (None, _) => Err(missing(key)),
        }
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        let (key, value) = self.find(key)?;
        match (value, self.absent(key)) {
            (Some(value), _) => value.as_bool().ok_or_else(|| self.unusable(key, "`true` or `false`")),
            (None, Some(Absent::Flag(flag))) => Ok(flag),
            (None, _) => Err(missing(key)),
        }
    }

    /// A string.
    fn text(&self, key: &str) -> Result<&'a str, ConfigError> {
        let (key, value) = self.find(key)?;
        match (value, self.absent(key)) {
            (Some(value), _) => value.as_str().ok_or_else(|| self.unusable(key, "a string")),
            (None, Some(Absent::Text(text))) => Ok(text),
            (None, _) => Err(missing(key)),
        }
    }

    /// The key's name in the file and its value, under whichever of its names it has.
    ///
    /// # Errors
    /// When its names say different things.
    fn find<'k>(&self, key: &'k str) -> Result<(&'k str, Option<&'a Value>), ConfigError> {
        let other = self.keys.iter().find(|known| known.name == key).and_then(|known| known.other);
        let (first, second) = (self.get(key), other.and_then(|other| self.get(other)));
        match (first, second, other) {
            (Some(first), Some(second), Some(other)) if first != second => {
                Err(ConfigError::contradiction(key, first, format!("`{other}` is {second}")))
            }
            (None, Some(second), Some(other)) => Ok((other, Some(second))),
            _ => Ok((key, first)),
        }
    }

    fn absent(&self, key: &str) -> Option<Absent> {
        let known = self.keys.iter().find(|known| known.name == key)?;
        Some(known.null.filter(|_| self.is_null(key)).unwrap_or(known.absent))
    }

    /// The error that a key's value can't be used.
    pub fn unusable(&self, key: &str, expected: &str) -> ConfigError {
        let value = self.json.get(key).map_or("absent".into(), Value::to_string);
        ConfigError::Unusable { key: key.into(), value, expected: expected.into() }
    }

    /// The nonlinearity named at `key`.
    pub fn activation(&self, key: &str) -> Result<Activation, ConfigError> {
        match self.text(key)? {
            "relu" => Ok(Activation::Relu),
            "gelu" | "gelu_python" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => {
                Ok(Activation::GeluTanh)
            }
            "quick_gelu" => Ok(Activation::QuickGelu),
            "silu" | "swish" => Ok(Activation::Silu),
            _ => Err(self.unusable(key, "one of relu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, silu")),
        }
    }

    /// Features of a head: `head_dim`, or the width over the heads.
    pub fn head_dim(&self, hidden: usize, heads: usize) -> Result<usize, ConfigError> {
        match self.get("head_dim") {
            Some(value) => self.checked_size("head_dim", value),
            None => self.even_share(hidden, heads),
        }
    }

    /// Features of a head of a family that always shares the width among the heads.
    pub fn even_share(&self, hidden: usize, heads: usize) -> Result<usize, ConfigError> {
        if !hidden.is_multiple_of(heads) {
            let key = if self.get("n_embd").is_some() { "n_embd" } else { "hidden_size" };
            return Err(self.unusable(key, &format!("a multiple of {heads} heads")));
        }
        let share = hidden / heads;
        match self.get("head_dim") {
            Some(value) if value.as_u64() != Some(share as u64) => {
                Err(self.unusable("head_dim", &format!("{share}, the width over the heads")))
            }
            _ => Ok(share),
        }
    }

    /// Checks `layer_types` against what the network does: every block sees all positions, or `window` of them.
    pub fn check_layer_types(&self, layers: usize, window: Option<usize>, positions: usize) -> Result<(), ConfigError> {
        let Some(types) = self.get("layer_types") else { return Ok(()) };
        let fits = |name: &Value| match name.as_str() {
            Some("full_attention") => window.is_none_or(|window| window >= positions),
            Some("sliding_attention") => window.is_some(),
            _ => false,
        };
        let expected = if window.is_some() { "sliding_attention" } else { "full_attention" };
        match types.as_array() {
            Some(types) if types.len() == layers && types.iter().all(fits) => Ok(()),
            _ => Err(self.unusable("layer_types", &format!("`{expected}` for each of the {layers} layers"))),
        }
    }
}

fn missing(key: &str) -> ConfigError {
    ConfigError::Missing { key: key.into() }
}
