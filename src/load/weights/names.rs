//! What training wraps around the names of tensors, and how it comes off.
//!
//! ```text
//!   _orig_mod.        torch.compile, of the model or of a module inside
//!   module.           DataParallel, DistributedDataParallel
//!   base_model.model. PEFT, once an adapter is merged or gone
//!   model.            a training script's own module around the language model
//! ```
//!
//! Knows names only. A name in front comes off where all tensors have it.

/// Segments that stand anywhere in a name and mean nothing.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];

/// What stands in front of every name.
const PREFIXES: [&str; 3] = ["module.", "base_model.model.", "model."];

/// What a language model's names begin with once nothing is around it; so `model.` is a part of `model.layers`, but
/// not of `model.model.layers`.
const BEGINNINGS: [&str; 5] = ["model.", "transformer.", "gpt_neox.", "lm_head.", "embed_out."];

/// Parts of names that only adapters have; such tensors change others when the model runs.
const ADAPTERS: [&str; 9] = [
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "modules_to_save",
    "original_module",
    "base_layer",
    "ia3_l",
];

/// Whether a tensor is an adapter's.
pub(super) fn is_adapter(name: &str) -> bool {
    name.split('.').any(|part| ADAPTERS.contains(&part))
}

/// The names without what is around them, in the same order.
pub(super) fn plain<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = names.map(without_wrappers).collect();
    while let Some(prefix) = PREFIXES.into_iter().find(|prefix| surrounds(prefix, &names)) {
        names.iter_mut().for_each(|name| drop(name.drain(..prefix.len())));
    }
    names
}

fn without_wrappers(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    loop {
        // At the beginning of a part of the name only.
        if let Some(behind) = WRAPPERS.iter().find_map(|wrapper| rest.strip_prefix(wrapper)) {
            rest = behind;
            continue;
        }
        match rest.find('.') {
            Some(dot) => {
                plain.push_str(&rest[..=dot]);
                rest = &rest[dot + 1..];
            }
            None => {
                plain.push_str(rest);
                return plain;
            }
        }
    }
}

fn surrounds(prefix: &str, names: &[String]) -> bool {
    let mut inner = names.iter().map(|name| name.strip_prefix(prefix));
    let begins = |inner: Option<&str>| inner.is_some_and(|name| BEGINNINGS.iter().any(|begin| name.starts_with(begin)));
    !names.is_empty()
        && inner.clone().all(|name| name.is_some_and(|name| !name.is_empty()))
        && (prefix != "model." || inner.any(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_prefixes_come_off() {
        let names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"];
        for prefix in [
            "",
            "_orig_mod.",
            "module.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "base_model.model.",
            "model.",
            "_fsdp_wrapped_module.",
        ] {
            let wrapped: Vec<String> = names.iter().map(|name| format!("{prefix}{name}")).collect();
            assert_eq!(plain(wrapped.iter().map(String::as_str)), names, "{prefix}");
        }
        let inside = ["model.layers.0._orig_mod.mlp._checkpoint_wrapped_module.up_proj.weight"];
        assert_eq!(plain(inside.into_iter()), ["model.layers.0.mlp.up_proj.weight"]);
    }

    #[test]
    fn other_names_stay() {
        for names in [
            // A base model's own, without its head.
            &["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"][..],
            &["model.decoder.embed_tokens.weight", "model.decoder.layers.0.fc1.weight"],
            // Not in front of all.
            &["module.model.norm.weight", "lm_head.weight"],
            &["my_orig_mod.weight", "a.weight_orig"],
            &[],
        ] {
            assert_eq!(plain(names.iter().copied()), names);
        }
    }

    #[test]
    fn adapters_are_known_by_a_part_of_the_name() {
        for name in ["model.q_proj.lora_A.weight", "base_model.model.v.lora_B.default.weight", "q.base_layer.weight"] {
            assert!(is_adapter(name), "{name}");
        }
        assert!(!is_adapter("model.explora_A.weight") && !is_adapter("model.layers.0.q_proj.weight"));
    }
}
