//! `config.json` → [`Architecture`]: the registry of families and what they share.

use super::architecture::{Activation, Architecture, RopeScaling};
use super::{gpt_neox, gpt2, llama, opt};
use serde_json::Value;
use thiserror::Error;

/// A family of networks, by `model_type`.
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// Models of that family.
    pub help: &'static str,
    build: fn(&Fields<'_>) -> Result<Architecture, ConfigError>,
}

/// Every family that can be loaded.
pub const FAMILIES: &[Family] = &[
    Family { model_type: "gpt2", help: "GPT-2, DistilGPT-2", build: gpt2::build },
    Family { model_type: "gpt_neox", help: "Pythia, GPT-NeoX", build: gpt_neox::build },
    Family { model_type: "llama", help: "Llama, SmolLM2, TinyLlama", build: llama::llama },
    Family { model_type: "mistral", help: "Mistral", build: llama::mistral },
    Family { model_type: "opt", help: "OPT", build: opt::build },
    Family { model_type: "qwen2", help: "Qwen2, Qwen2.5", build: llama::qwen2 },
];

/// Why a configuration describes no network that can be run.
#[derive(Debug, Error, PartialEq)]
pub enum ConfigError {
    /// `model_type` is none of [`FAMILIES`].
    #[error("unknown architecture `{model_type}`")]
    UnknownFamily {
        /// What the file says.
        model_type: String,
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
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownFamily { .. } => {
                let known: Vec<String> = FAMILIES.iter().map(|f| format!("`{}` ({})", f.model_type, f.help)).collect();
                Some(format!("known architectures: {}", known.join(", ")))
            }
            _ => Some("compare the checkpoint's config.json with the one on its model page".into()),
        }
    }
}

/// The network that a `config.json` describes.
///
/// # Errors
/// When the architecture is unknown, or a key is missing or unusable.
pub fn architecture(config: &Value) -> Result<Architecture, ConfigError> {
    let fields = Fields { json: config };
    let model_type = fields.text("model_type")?;
    let family = FAMILIES.iter().find(|f| f.model_type == model_type);
    let family = family.ok_or_else(|| ConfigError::UnknownFamily { model_type: model_type.into() })?;
    let architecture = (family.build)(&fields)?;
    let attention = architecture.attention;
    if attention.head_dim == 0 || !attention.heads.is_multiple_of(attention.kv_heads) {
        return Err(fields.unusable("num_key_value_heads", &format!("a divisor of {} heads", attention.heads)));
    }
    Ok(architecture)
}

/// Typed reading of a configuration.
pub(super) struct Fields<'a> {
    json: &'a Value,
}

impl<'a> Fields<'a> {
    /// A key's value; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// A positive whole number.
    pub fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.size_or(key, None)
    }

    /// A positive whole number with a default.
    pub fn size_or(&self, key: &str, default: Option<usize>) -> Result<usize, ConfigError> {
        match self.get(key) {
            None => default.ok_or_else(|| ConfigError::Missing { key: key.into() }),
            // A lying configuration must not make us reserve more memory than any machine has.
            Some(value) => match value.as_u64() {
                Some(size) if (1..1 << 32).contains(&size) => Ok(size as usize),
                _ => Err(self.unusable(key, "a positive whole number")),
            },
        }
    }

    /// A number with a default.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.unusable(key, "a number")),
        }
    }

    /// A truth value with a default.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.unusable(key, "`true` or `false`")),
        }
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<&'a str, ConfigError> {
        let value = self.get(key).ok_or_else(|| ConfigError::Missing { key: key.into() })?;
        value.as_str().ok_or_else(|| self.unusable(key, "a string"))
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
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "silu" | "swish" => Ok(Activation::Silu),
            _ => Err(self.unusable(key, "one of relu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, silu")),
        }
    }

    /// Features of a head: `head_dim`, or the width over the heads.
    pub fn head_dim(&self, hidden: usize, heads: usize) -> Result<usize, ConfigError> {
        if self.get("head_dim").is_some() {
            return self.size("head_dim");
        }
        if !hidden.is_multiple_of(heads) {
            return Err(self.unusable("hidden_size", &format!("a multiple of {heads} heads")));
        }
        Ok(hidden / heads)
    }

    /// A number of the rotary settings: within `rope_parameters` (new) or under `old_key` beside it.
    pub fn rope_number(&self, new_key: &str, old_key: &str, default: f64) -> Result<f64, ConfigError> {
        match self.get("rope_parameters").and_then(|p| p.get(new_key)) {
            Some(value) => value.as_f64().ok_or_else(|| self.unusable("rope_parameters", "numbers")),
            None => self.number_or(old_key, default),
        }
    }

    /// The stretching rule of `rope_scaling` or `rope_parameters`.
    pub fn rope_scaling(&self) -> Result<RopeScaling, ConfigError> {
        let key = if self.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
        let Some(rope) = self.get(key) else { return Ok(RopeScaling::None) };
        let number = |name: &str| {
            rope.get(name).and_then(Value::as_f64).ok_or_else(|| ConfigError::Missing { key: format!("{key}.{name}") })
        };
        let rule = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
        match rule.unwrap_or("default") {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear(number("factor")?)),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: number("original_max_position_embeddings")?,
            }),
            _ => Err(self.unusable(key, "the rule `default`, `linear` or `llama3`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_family_lists_the_known_ones() {
        let error = architecture(&json!({"model_type": "mamba"})).unwrap_err();
        assert_eq!(error.to_string(), "unknown architecture `mamba`");
        assert!(error.hint().unwrap().contains("`gpt_neox` (Pythia, GPT-NeoX)"));
    }

    #[test]
    fn lying_configurations_are_errors() {
        for (key, value) in
            [("hidden_size", json!(0)), ("hidden_size", json!(1e300)), ("num_attention_heads", json!("4"))]
        {
            let mut config = super::super::published("opt-125m").unwrap();
            config[key] = value;
            assert!(matches!(architecture(&config), Err(ConfigError::Unusable { .. })), "{key}");
        }
        let mut config = super::super::published("llama-2-7b").unwrap();
        config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0});
        assert!(architecture(&config).unwrap_err().to_string().contains("yarn"));
    }

    #[test]
    fn published_models_have_their_published_size() {
        for (name, parameters) in [
            ("opt-125m", 125_239_296),
            ("opt-350m", 331_196_416),
            ("opt-1.3b", 1_315_758_080),
            ("pythia-160m", 162_322_944),
            ("pythia-410m", 405_334_016),
            ("pythia-1.4b", 1_414_647_808),
            ("llama-2-7b", 6_738_415_616),
            ("smollm2-135m", 134_515_008),
            ("gpt2", 124_439_808),
            ("qwen2.5-0.5b", 494_032_768),
            ("mistral-7b", 7_241_732_096),
        ] {
            let architecture = architecture(&super::super::published(name).unwrap()).unwrap();
            assert_eq!(architecture.parameters(), parameters, "{name}");
        }
    }
}
