//! Checkpoints whose weights are quantised or compressed: which method made them.
//!
//! Their tensors are scaled integers, small floats or parts of matrices. Read as if they were weights they would give
//! wrong numbers, so they are refused, and the message names the method. Knows configurations and names of tensors.

use serde_json::Value;

/// Keys of `config.json` that describe a quantisation.
const KEYS: [&str; 2] = ["quantization_config", "compression_config"];

/// Endings of names of tensors that only quantised or compressed checkpoints have, and whose they are.
const ENDINGS: [(&str, &str); 14] = [
    (".qweight", "GPTQ or AWQ"),
    (".qzeros", "GPTQ or AWQ"),
    (".SCB", "bitsandbytes"),
    (".absmax", "bitsandbytes"),
    (".quant_map", "bitsandbytes"),
    (".weight_packed", "compressed-tensors"),
    (".weight.compressed", "compressed-tensors"),
    (".weight.bitmask", "compressed-tensors"),
    (".weight_scale_inv", "FP8"),
    (".weight_scale", "FP8 or compressed-tensors"),
    (".input_scale", "FP8 or compressed-tensors"),
    ("_blocks", "MXFP4"),
    ("._data", "torchao or quanto"),
    (".codebooks", "AQLM"),
];

/// The method that a configuration names; none where the weights are whole.
pub(super) fn by_config(config: &Value) -> Option<String> {
    let given = |key: &&str| {
        config.get(*key).filter(|value| !value.is_null() && value.as_object().is_none_or(|o| !o.is_empty()))
    };
    let settings = KEYS.iter().find_map(given)?;
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
    let sparsity = settings.get("sparsity_config");
    let sparse = sparsity.and_then(|sparsity| text(sparsity, "format"));
    let method = match text(settings, "quant_method") {
        Some(method) => method,
        None if settings.get("load_in_4bit").or(settings.get("load_in_8bit")).is_some() => "bitsandbytes".into(),
        None if sparsity.is_some() || settings.get("config_groups").is_some() => "compressed-tensors".into(),
        None => "an unnamed method".into(),
    };
    let grouped =
        settings.get("config_groups").is_some_and(|g| !g.is_null() && g.as_object().is_none_or(|g| !g.is_empty()));
    let dense = |format: &Option<String>| format.as_deref().is_none_or(|format| format == "dense");
    let format = text(settings, "format");
    // A pruned model that compressed-tensors saved uncompressed: its weights are whole.
    if method == "compressed-tensors" && !grouped && dense(&format) && dense(&sparse) && sparsity.is_some() {
        return None;
    }
    let format = sparse.filter(|format| format != "dense").or(format).map(|format| format!(", {format}"));
    Some(format!("{method}{}", format.unwrap_or_default()))
}

/// The method that tensors tell of, with one of them.
pub(super) fn by_tensors<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<(&'static str, &'a str)> {
    names.find_map(|name| {
        let (_, method) = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending))?;
        Some((*method, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn methods_have_their_names() {
        for (settings, expected) in [
            (json!({"quant_method": "gptq", "bits": 4}), "gptq"),
            (json!({"quant_method": "awq"}), "awq"),
            (json!({"quant_method": "fp8", "weight_block_size": [128, 128]}), "fp8"),
            (json!({"quant_method": "bitsandbytes", "load_in_4bit": true}), "bitsandbytes"),
            (json!({"load_in_8bit": true}), "bitsandbytes"),
            (
                json!({"quant_method": "compressed-tensors", "format": "float-quantized"}),
                "compressed-tensors, float-quantized",
            ),
            (
                json!({"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-24-bitmask"}}),
                "compressed-tensors, sparse-24-bitmask",
            ),
            (
                json!({"config_groups": {"group_0": {"weights": {"num_bits": 8}}}, "sparsity_config": {"format": "dense"}}),
                "compressed-tensors",
            ),
            (json!({"quant_method": "fbgemm_fp8"}), "fbgemm_fp8"),
            (json!(8), "an unnamed method"),
        ] {
            let config = json!({"quantization_config": settings});
            assert_eq!(by_config(&config).as_deref(), Some(expected), "{config}");
        }
    }

    #[test]
    fn whole_weights_are_not_quantised() {
        let pruned = json!({"quant_method": "compressed-tensors", "format": "dense", "config_groups": {},
            "sparsity_config": {"format": "dense", "sparsity_structure": "2:4"}});
        for config in [
            json!({}),
            json!({"quantization_config": null}),
            json!({"quantization_config": {}}),
            json!({"quantization_config": pruned}),
            json!({"compression_config": {"sparsity_config": {"format": "dense"}}}),
        ] {
            assert_eq!(by_config(&config), None, "{config}");
        }
    }

    #[test]
    fn tensors_tell() {
        let names = ["model.norm.weight", "model.layers.0.mlp.up_proj.qweight"];
        assert_eq!(by_tensors(names.into_iter()), Some(("GPTQ or AWQ", names[1])));
        assert_eq!(by_tensors(["a.weight", "a.weight_scale"].into_iter()).unwrap().0, "FP8 or compressed-tensors");
        assert_eq!(by_tensors(["a.weight", "a.bias", "a.masked_bias"].into_iter()), None);
    }
}
