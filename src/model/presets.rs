//! The published shapes that `synthetic:NAME` stands for, as the configurations on their model pages.

use serde_json::{Value, json};

/// The configuration of a published model, for every name of [`crate::config::source::SYNTHETIC_MODELS`].
pub fn published(name: &str) -> Option<Value> {
    Some(match name {
        "opt-125m" => opt(768, 12, 12),
        "opt-350m" => {
            let mut config = opt(1024, 24, 16);
            config["word_embed_proj_dim"] = json!(512);
            config["do_layer_norm_before"] = json!(false);
            config
        }
        "opt-1.3b" => opt(2048, 24, 32),
        "pythia-160m" => pythia(768, 12, 12, 50304),
        "pythia-410m" => pythia(1024, 24, 16, 50304),
        "pythia-1.4b" => pythia(2048, 24, 16, 50304),
        "llama-2-7b" => llama("llama", [4096, 11008, 32, 32, 32, 32000, 4096], 10_000.0, false),
        "smollm2-135m" => llama("llama", [576, 1536, 30, 9, 3, 49152, 8192], 100_000.0, true),
        "qwen2.5-0.5b" => llama("qwen2", [896, 4864, 24, 14, 2, 151_936, 32768], 1_000_000.0, true),
        "mistral-7b" => {
            let mut config = llama("mistral", [4096, 14336, 32, 32, 8, 32000, 32768], 10_000.0, false);
            config["sliding_window"] = json!(4096);
            config
        }
        "llama-3.2-1b" => with(
            llama("llama", [2048, 8192, 16, 32, 8, 128_256, 131_072], 500_000.0, true),
            json!({"torch_dtype": "bfloat16", "head_dim": 64, "rope_scaling": llama3(32.0)}),
        ),
        "llama-3.1-8b" => with(
            llama("llama", [4096, 14336, 32, 32, 8, 128_256, 131_072], 500_000.0, false),
            json!({"torch_dtype": "bfloat16", "rope_scaling": llama3(8.0)}),
        ),
        "qwen3-0.6b" => with(
            llama("qwen3", [1024, 3072, 28, 16, 8, 151_936, 40_960], 1_000_000.0, true),
            json!({"torch_dtype": "bfloat16", "head_dim": 128, "rms_norm_eps": 1e-6}),
        ),
        "qwen3-8b" => with(
            llama("qwen3", [4096, 12288, 36, 32, 8, 151_936, 40_960], 1_000_000.0, false),
            json!({"torch_dtype": "bfloat16", "head_dim": 128, "rms_norm_eps": 1e-6}),
        ),
        "gemma-2-2b" => with(
            llama("gemma2", [2304, 9216, 26, 8, 4, 256_000, 8192], 10_000.0, true),
            json!({
                "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096, "rms_norm_eps": 1e-6,
                "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
                "hidden_activation": "gelu_pytorch_tanh",
            }),
        ),
        "phi-3-mini" => with(
            llama("phi3", [3072, 8192, 32, 32, 32, 32064, 4096], 10_000.0, false),
            json!({
                "torch_dtype": "bfloat16", "sliding_window": 2047, "original_max_position_embeddings": 4096,
            }),
        ),
        "olmo-2-1b" => with(
            llama("olmo2", [2048, 8192, 16, 16, 16, 100_352, 4096], 500_000.0, false),
            json!({"rms_norm_eps": 1e-6}),
        ),
        "olmoe-1b-7b" => with(
            llama("olmoe", [2048, 1024, 16, 16, 16, 50304, 4096], 10_000.0, false),
            json!({
                "torch_dtype": "bfloat16", "num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": false,
            }),
        ),
        "gpt2" => json!({
            "model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
            "vocab_size": 50257, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
        }),
        _ => return None,
    })
}

/// A configuration with more keys, or others.
fn with(mut config: Value, more: Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

/// Llama 3.1's stretched contexts.
fn llama3(factor: f64) -> Value {
    json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    })
}

fn opt(hidden: usize, layers: usize, heads: usize) -> Value {
    json!({
        "model_type": "opt", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "ffn_dim": 4 * hidden, "max_position_embeddings": 2048, "vocab_size": 50272,
        "word_embed_proj_dim": hidden, "activation_function": "relu", "do_layer_norm_before": true,
    })
}

fn pythia(hidden: usize, layers: usize, heads: usize, vocabulary: usize) -> Value {
    json!({
        "model_type": "gpt_neox", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 4 * hidden, "max_position_embeddings": 2048, "vocab_size": vocabulary,
        "hidden_act": "gelu", "rotary_pct": 0.25, "rotary_emb_base": 10000, "layer_norm_eps": 1e-5,
        "use_parallel_residual": true, "tie_word_embeddings": false,
    })
}

/// `sizes`: hidden, feed-forward, layers, heads, key-value heads, vocabulary, positions.
fn llama(model_type: &str, sizes: [usize; 7], theta: f64, tied: bool) -> Value {
    let [hidden, ffn, layers, heads, kv_heads, vocabulary, positions] = sizes;
    json!({
        "model_type": model_type, "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary,
        "max_position_embeddings": positions, "rope_theta": theta, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "tie_word_embeddings": tied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::SYNTHETIC_MODELS;

    #[test]
    fn every_name_of_the_file_format_has_a_shape() {
        assert!(SYNTHETIC_MODELS.iter().all(|name| published(name).is_some()));
        assert_eq!(published("opt-126m"), None);
    }

    /// As the configurations of the models' pages say.
    #[test]
    fn shapes_have_the_bits_of_their_files() {
        let bits = |name| published(name).unwrap()["torch_dtype"].as_str().map(str::to_owned);
        for name in ["llama-3.2-1b", "llama-3.1-8b", "qwen3-0.6b", "qwen3-8b", "phi-3-mini", "olmoe-1b-7b"] {
            assert_eq!(bits(name).as_deref(), Some("bfloat16"), "{name}");
        }
        for name in ["gemma-2-2b", "olmo-2-1b", "opt-125m"] {
            assert_eq!(bits(name), None, "{name}");
        }
    }
}
