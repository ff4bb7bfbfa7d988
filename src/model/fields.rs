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

    /// A number above 0.
    pub fn positive(&self, key: &str) -> Result<f64, ConfigError> {
        match self.number(key)? {
            number if number > 0.0 => Ok(number),
            _ => Err(self.unusable(key, "a positive number")),
        }
    }

    /// A whole number that may be 0.
    pub fn count(&self, key: &str) -> Result<usize, ConfigError> {
        match self.get(key) {
            Some(value) if value.as_u64() == Some(0) => Ok(0),
            _ => self.size(key),
        }
    }

    /// A size that a configuration need not have.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.get(key).map(|value| self.checked_size(key, value)).transpose()
    }

    /// A size whose `null` says something else than nothing: that there is none.
    pub fn size_or_null(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        if self.is_null(key) { Ok(None) } else { self.size(key).map(Some) }
    }

    /// A bound of numbers, if there is one; `null` says that there is none.
    pub fn cap(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let known = self.keys.iter().any(|known| known.name == key);
        if self.is_null(key) || (!known && self.get(key).is_none()) {
            return Ok(None);
        }
        match (self.get(key).map(Value::as_f64), known) {
            (Some(number), _) => match number.filter(|number| *number > 0.0 && number.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(self.unusable(key, "a positive number, or null for none")),
            },
            (None, _) => self.positive(key).map(Some),
        }
    }

    /// A list with 0 or 1 for each layer, if there is one.
    pub fn bits(&self, key: &str, layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let bit = |value: &Value| match (value.as_u64(), value.as_bool()) {
            (Some(0), _) | (_, Some(false)) => Some(false),
            (Some(1), _) | (_, Some(true)) => Some(true),
            _ => None,
        };
        let list = value.as_array().filter(|list| list.len() == layers);
        let bits = list.and_then(|list| list.iter().map(bit).collect::<Option<Vec<bool>>>());
        bits.map(Some).ok_or_else(|| self.unusable(key, &format!("0 or 1 for each of the {layers} layers")))
    }

    /// A list of whole numbers; none where it is left out.
    pub fn numbers(&self, key: &str) -> Result<Vec<usize>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
        let numbers = value.as_array().and_then(|list| list.iter().map(number).collect::<Option<Vec<usize>>>());
        numbers.ok_or_else(|| self.unusable(key, "a list of whole numbers"))
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

    /// Features of a head: `head_dim`, or what the family has without it: the width over the heads for most.
    pub fn head_dim(&self, hidden: usize, heads: usize) -> Result<usize, ConfigError> {
        let own = self.keys.iter().any(|known| known.name == "head_dim");
        match self.get("head_dim") {
            Some(value) => self.checked_size("head_dim", value),
            None if own => self.size("head_dim"),
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

    /// Which layers have a window, where `layer_types` says so.
    ///
    /// # Errors
    /// When it does not have a kind for each layer, or one that is not known.
    pub fn sliding_layers(&self, layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
        let Some(types) = self.get("layer_types") else { return Ok(None) };
        let kind = |name: &Value| match name.as_str() {
            Some("full_attention") => Some(false),
            Some("sliding_attention") => Some(true),
            _ => None,
        };
        let kinds = types.as_array().filter(|types| types.len() == layers);
        let kinds = kinds.and_then(|types| types.iter().map(kind).collect::<Option<Vec<bool>>>());
        let expected = format!("`full_attention` or `sliding_attention` for each of the {layers} layers");
        kinds.map(Some).ok_or_else(|| self.unusable("layer_types", &expected))
    }

    /// Checks `layer_types` against what each layer does: it sees all of so many positions, or a window of them.
    pub fn check_layer_types(&self, windows: &[Option<usize>], positions: usize) -> Result<(), ConfigError> {
        let Some(sliding) = self.sliding_layers(windows.len())? else { return Ok(()) };
        let fits = |(&slides, &window): (&bool, &Option<usize>)| match (slides, window) {
            (true, window) => window.is_some(),
            // A window as long as all positions hides nothing.
            (false, window) => window.is_none_or(|window| window >= positions),
        };
        if sliding.iter().zip(windows).all(fits) {
            return Ok(());
        }
        let name = |window: &Option<usize>| if window.is_some() { "sliding_attention" } else { "full_attention" };
        let expected: Vec<&str> = windows.iter().map(name).collect();
        let layers = windows.len();
        Err(match expected.iter().all(|name| *name == expected[0]) {
            true => self.unusable("layer_types", &format!("`{}` for each of the {layers} layers", expected[0])),
            false => self.unusable("layer_types", &format!("{expected:?}")),
        })
    }
}

fn missing(key: &str) -> ConfigError {
    ConfigError::Missing { key: key.into() }
}
