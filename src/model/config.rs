//! `config.json` → [`Architecture`]: what the configurations of all families share.

use super::architecture::Architecture;
use super::error::ConfigError;
use super::families::FAMILIES;
use super::fields::Fields;
use serde_json::Value;

/// The network that a `config.json` describes.
///
/// # Errors
/// When the architecture is unknown, or a key is missing or unusable.
pub fn architecture(config: &Value) -> Result<Architecture, ConfigError> {
    let named = config.get("model_type").filter(|value| !value.is_null());
    let named = named.ok_or_else(|| ConfigError::Missing { key: "model_type".into() })?;
    let unknown = || ConfigError::UnknownFamily {
        model_type: named.as_str().unwrap_or(&named.to_string()).into(),
        known: known_families(),
    };
    let family = FAMILIES.iter().find(|family| named == family.model_type).ok_or_else(unknown)?;
    let fields = Fields::new(config, family.keys);
    let mut architecture = (family.build)(&fields)?;
    let attention = architecture.attention;
    if attention.head_dim == 0 || !attention.heads.is_multiple_of(attention.kv_heads) {
        return Err(fields.unusable("num_key_value_heads", &format!("a divisor of {} heads", attention.heads)));
    }
    // One token predicts nothing: there would be results without a number in them.
    if architecture.max_positions < 2 {
        let key = if family.model_type == "gpt2" { "n_positions" } else { "max_position_embeddings" };
        return Err(fields.unusable(key, "2 or more"));
    }
    let windows: Vec<Option<usize>> = architecture.blocks.iter().map(|block| block.window).collect();
    fields.check_layer_types(&windows, architecture.max_positions)?;
    architecture.assumed = fields.assumed();
    Ok(architecture)
}

fn known_families() -> String {
    let known = FAMILIES.iter().map(|family| format!("`{}` ({})", family.model_type, family.help));
    known.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::architecture::Activation;
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_family_lists_the_known_ones() {
        let error = architecture(&json!({"model_type": "mamba"})).unwrap_err();
        assert_eq!(error.to_string(), "unknown architecture `mamba`");
        assert!(error.hint().unwrap().contains("`gpt_neox` (Pythia, GPT-NeoX)"));
    }

    /// The message about a published configuration with other keys.
    fn refused(name: &str, keys: Value) -> String {
        let mut config = super::super::published(name).unwrap();
        keys.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        let error = architecture(&config).expect_err(&keys.to_string());
        assert!(error.hint().is_some());
        error.to_string()
    }

    #[test]
    fn lying_configurations_are_errors() {
        for (key, value) in [
            ("hidden_size", json!(0)),
            ("hidden_size", json!(1e300)),
            ("hidden_size", json!(64.0)),
            ("num_attention_heads", json!("4")),
            ("head_dim", json!(77)),
            ("layer_norm_elementwise_affine", json!(1)),
        ] {
            let said = refused("opt-125m", json!({key: value}));
            assert!(said.starts_with(&format!("`{key}` is {value}, expected")), "{said}");
        }
        for keys in [json!({"rms_norm_eps": -1e-5}), json!({"rms_norm_eps": "1e-06"}), json!({"rope_theta": 0})] {
            refused("llama-2-7b", keys);
        }
    }

    #[test]
    fn sizes_have_limits() {
        for (name, key, value, most) in [
            ("llama-2-7b", "num_hidden_layers", 10_000_000u64, 10_000),
            ("llama-2-7b", "num_hidden_layers", 10_001, 10_000),
            ("gpt2", "n_layer", 1 << 40, 10_000),
            ("gpt2", "n_embd", 1 << 21, 1 << 20),
            ("mistral-7b", "vocab_size", 1 << 30, 1 << 24),
            ("opt-125m", "ffn_dim", u64::MAX, 1 << 22),
            ("qwen2.5-0.5b", "head_dim", 1 << 15, 1 << 14),
            ("pythia-160m", "num_attention_heads", 1 << 20, 1 << 14),
        ] {
            let said = refused(name, json!({key: value}));
            assert_eq!(said, format!("`{key}` is {value}, expected at most {most}"));
        }
    }

    #[test]
    fn one_position_is_too_few() {
        for (name, key) in [("llama-2-7b", "max_position_embeddings"), ("gpt2", "n_positions")] {
            assert_eq!(refused(name, json!({key: 1})), format!("`{key}` is 1, expected 2 or more"));
        }
    }

    #[test]
    fn two_names_of_one_key_agree() {
        let mut config = json!({"model_type": "gpt2", "num_hidden_layers": 2, "num_attention_heads": 4, "n_embd": 16});
        let network = architecture(&config).unwrap();
        assert_eq!((network.blocks.len(), network.attention.heads, network.vocabulary), (2, 4, 50_257));
        assert!(network.assumed.iter().any(|said| said == "`vocab_size` (taken as 50257)"), "{:?}", network.assumed);
        config["hidden_size"] = json!(32);
        let said = architecture(&config).unwrap_err().to_string();
        assert_eq!(said, "`n_embd` is 16, but `hidden_size` is 32");
    }

    /// What `transformers` 5.24 says of every family's configuration that says nothing: hidden, layers, heads,
    /// key-value heads, vocabulary, positions, window; printed from its classes (`LlamaConfig()` and so on).
    #[test]
    fn what_is_left_out_is_as_the_library_has_it() {
        for (family, expected, activation, tied) in [
            ("gpt2", [768, 12, 12, 12, 50_257, 1024, 0], Activation::GeluTanh, true),
            ("gpt_neox", [6144, 44, 64, 64, 50_432, 2048, 0], Activation::Gelu, false),
            ("llama", [4096, 32, 32, 32, 32_000, 2048, 0], Activation::Silu, false),
            ("mistral", [4096, 32, 32, 8, 32_000, 131_072, 4096], Activation::Silu, false),
            ("opt", [768, 12, 12, 12, 50_272, 2048, 0], Activation::Relu, true),
            ("qwen2", [4096, 32, 32, 32, 151_936, 32_768, 0], Activation::Silu, false),
        ] {
            let network = architecture(&json!({"model_type": family, "hidden_act": null})).unwrap();
            let attention = network.attention;
            let found = [
                network.modules[network.blocks[0].output].shape[0],
                network.blocks.len(),
                attention.heads,
                attention.kv_heads,
                network.vocabulary,
                network.max_positions,
                network.blocks[0].window.unwrap_or(0),
            ];
            assert_eq!((found, network.activation), (expected, activation), "{family}");
            assert_eq!(network.modules[network.head].tied_to.is_some(), tied, "{family}");
        }
    }

    #[test]
    fn null_is_not_always_what_nothing_is() {
        let with = |family: &str, key: &str| architecture(&json!({"model_type": family, key: null})).unwrap();
        assert_eq!(with("mistral", "sliding_window").blocks[0].window, None);
        assert_eq!(with("mistral", "num_key_value_heads").attention.kv_heads, 32);
        let few = architecture(&json!({"model_type": "qwen2", "num_key_value_heads": null, "num_attention_heads": 8}));
        assert_eq!(few.unwrap().attention.kv_heads, 8);
    }

    #[test]
    fn kinds_of_layers_are_what_the_network_does() {
        let layers = |name: &str, kinds: Value, more: Value| {
            let mut config = super::super::published(name).unwrap();
            (config["num_hidden_layers"], config["layer_types"]) = (json!(2), kinds);
            more.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
            architecture(&config).map(|_| ()).map_err(|error| error.to_string())
        };
        let (full, sliding) = ("full_attention", "sliding_attention");
        let none = json!({});
        assert_eq!(layers("mistral-7b", json!([sliding, sliding]), none.clone()), Ok(()));
        assert_eq!(layers("mistral-7b", json!([full, full]), json!({"sliding_window": null})), Ok(()));
        // A window as long as all positions hides nothing.
        assert_eq!(layers("mistral-7b", json!([full, sliding]), json!({"sliding_window": 32768})), Ok(()));
        assert_eq!(layers("qwen2.5-0.5b", json!([full, full]), none.clone()), Ok(()));
        for (name, kinds) in [
            ("mistral-7b", json!([full, sliding])),
            ("qwen2.5-0.5b", json!([full, sliding])),
            ("qwen2.5-0.5b", json!([full])),
            ("llama-2-7b", json!([sliding, sliding])),
            ("llama-2-7b", json!("full_attention")),
        ] {
            let said = layers(name, kinds.clone(), none.clone()).unwrap_err();
            assert!(said.starts_with(&format!("`layer_types` is {kinds}, expected")), "{said}");
        }
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
            ("llama-3.2-1b", 1_235_814_400),
            ("llama-3.1-8b", 8_030_261_248),
            ("qwen3-0.6b", 596_049_920),
            ("qwen3-8b", 8_190_735_360),
            ("gemma-2-2b", 2_614_341_888),
            ("phi-3-mini", 3_821_079_552),
            ("olmo-2-1b", 1_484_916_736),
            ("olmoe-1b-7b", 6_919_161_856),
        ] {
            let architecture = architecture(&super::super::published(name).unwrap()).unwrap();
            assert_eq!(architecture.parameters(), parameters, "{name}");
        }
    }
}
