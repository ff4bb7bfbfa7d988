//! Checkpoints as people have them: spelled in other ways, wrapped, pruned, quantised, incomplete, or none at all.
//!
//! Every perplexity is what transformers 5.24 (PyTorch 2, float32) gives of the same files, on [`text`] in windows of
//! 32 tokens: exp of the mean over the windows' 31 predicted tokens each.

use crate::support::{Lab, Model, Outcome};
use serde_json::{Value, json};

const INPUT: i32 = 3;

/// The dense model's perplexity, and one of it masked.
const EXPERIMENT: &str = r#"name = "e"
[model]
source = "path:model"
[data]
agreement = "file:texts.txt"
perplexity = "file:text.txt"
context = 32
[measure]
metrics = ["structure", "perplexity"]
[execute]
variants = ["dense"]
"#;

fn text() -> String {
    let line = |i: usize| {
        format!(
            "Line {i}: the quick brown fox number {} jumps over {} lazy dogs, isn't that odd? It's {i}.{} per cent.\n",
            i * 37,
            i % 7,
            i * 3
        )
    };
    (0..60).map(line).collect()
}

fn lab() -> Lab {
    let lab = Lab::with(EXPERIMENT);
    lab.write("text.txt", text());
    lab.write("texts.txt", "the quick brown fox\nit's a lazy dog, isn't it?\n");
    lab
}

/// A golden model, changed.
fn changed(name: &str, change: impl FnOnce(&mut Model)) -> (Lab, Outcome) {
    let mut model = Model::golden(name);
    change(&mut model);
    let lab = lab();
    model.save(&lab.path("model"));
    let outcome = lab.run(["run", "e.toml"]);
    (lab, outcome)
}

/// A golden model with other keys in its configuration; `null` takes one out.
fn configured(name: &str, keys: Value) -> (Lab, Outcome) {
    changed(name, |model| configure(model, keys))
}

fn configure(model: &mut Model, keys: Value) {
    let config = model.config.as_object_mut().unwrap();
    for (key, value) in keys.as_object().unwrap() {
        match value {
            Value::Null => drop(config.remove(key)),
            value => drop(config.insert(key.clone(), value.clone())),
        }
    }
}

/// Requires the reference's perplexity.
#[track_caller]
fn gives((lab, outcome): &(Lab, Outcome), expected: f64, what: &str) {
    assert_eq!(outcome.code, Some(0), "{what}:\n{}", outcome.stderr);
    let row = lab.table("results/e/tables/summary.csv").remove(0);
    let found: f64 = row["perplexity"].parse().unwrap();
    assert!((found - expected).abs() < 2e-5 * expected, "{what}: {found}, the reference {expected}");
}

/// Requires an error about the input with these parts.
#[track_caller]
fn refused(outcome: &Outcome, said: &[&str]) {
    outcome.exits(INPUT).prints_nothing().says(&[&["error: "][..], said].concat());
    assert!(outcome.stderr.contains("hint: "), "{}", outcome.stderr);
}

const LLAMA: f64 = 634.574_562_386_277_4;
const NEOX: f64 = 542.326_853_790_252;
const OPT: f64 = 600.801_406_430_329_2;

mod configurations {
    use super::*;

    #[test]
    fn keys_that_are_left_out() {
        let old = json!({"architectures": ["LLaMAForCausalLM"], "max_position_embeddings": null, "head_dim": null,
            "max_sequence_length": 2048, "rope_parameters": null, "attention_bias": null, "mlp_bias": null});
        for (name, keys, expected) in [
            ("tiny-llama", old, LLAMA),
            ("tiny-llama", json!({"hidden_act": null, "rms_norm_eps": null}), LLAMA),
            ("tiny-gptneox", json!({"hidden_act": null, "max_position_embeddings": null}), NEOX),
            ("tiny-opt", json!({"activation_function": null, "word_embed_proj_dim": null}), OPT),
        ] {
            gives(&configured(name, keys.clone()), expected, &keys.to_string());
        }
        let (_, outcome) = configured("tiny-opt", json!({"max_position_embeddings": null}));
        refused(&outcome, &["embed_positions.weight` is [130, 64], expected [2050, 64]", "taken as 2048"]);
        assert!(!outcome.stderr.contains("the files have"), "{}", outcome.stderr);
    }

    #[test]
    fn nonlinearities() {
        for (name, key, function, expected) in [
            ("tiny-gptneox", "hidden_act", "quick_gelu", 542.680_280_855_486_4),
            ("tiny-opt", "activation_function", "quick_gelu", 589.669_596_359_253_2),
            ("tiny-opt", "activation_function", "gelu_python", 589.402_424_961_688),
            ("tiny-opt", "activation_function", "gelu_accurate", 589.393_891_278_825_4),
        ] {
            gives(&configured(name, json!({key: function})), expected, function);
        }
    }

    #[test]
    fn rotary_settings() {
        let llama3 =
            |high: f64| json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": high});
        let mut short = llama3(1.0);
        short["original_max_position_embeddings"] = json!(32);
        let default = json!({"rope_type": "default", "rope_theta": 10000.0});
        for (keys, expected) in [
            (
                json!({"rope_scaling": {"rope_type": "linear", "factor": 4}, "rope_parameters": default}),
                628.054_902_789_650_2,
            ),
            (
                json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": null}),
                628.755_053_325_091_1,
            ),
            (
                json!({"rope_scaling": llama3(4.0), "rope_theta": 500000.0, "rope_parameters": null}),
                634.628_763_539_119_5,
            ),
            (json!({"rope_scaling": short, "rope_theta": 500000.0, "rope_parameters": null}), 623.848_547_899_312_7),
            (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_parameters": null}), LLAMA),
        ] {
            gives(&configured("tiny-llama", keys.clone()), expected, &keys.to_string());
        }
        let half = json!({"rotary_pct": null,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.5}});
        gives(&configured("tiny-gptneox", half), 540.626_546_394_937_6, "half rotated");
    }

    #[test]
    fn sizes_beyond_belief() {
        for (name, key, value) in [
            ("tiny-llama", "num_hidden_layers", 1_000_000_000u64),
            ("tiny-llama", "vocab_size", 1 << 31),
            ("tiny-opt", "ffn_dim", 1 << 40),
        ] {
            let (_, outcome) = configured(name, json!({key: value}));
            refused(&outcome, &["config.json`: ", &format!("`{key}` is {value}, expected at most")]);
        }
        // Within the limits, but not what the files have.
        let (_, outcome) = configured("tiny-llama", json!({"num_hidden_layers": 10_000}));
        refused(&outcome, &["do not fit", "`model.layers.2.self_attn.q_proj.weight` is missing", "more"]);
    }

    #[test]
    fn what_can_not_be_honoured() {
        for (name, keys, said) in [
            ("tiny-llama", json!({"max_position_embeddings": 1}), "`max_position_embeddings` is 1, expected 2 or more"),
            ("tiny-llama", json!({"rope_scaling": []}), "`rope_scaling` is []"),
            ("tiny-llama", json!({"rope_scaling": {"rope_type": 5, "factor": 4.0}}), "`rope_scaling.rope_type` is 5"),
            ("tiny-llama", json!({"rope_scaling": {"type": "linear", "factor": -4.0}}), "`rope_scaling.factor` is -4"),
            ("tiny-llama", json!({"rope_scaling": {"type": "ntk", "factor": 4.0}}), "\"ntk\""),
            ("tiny-llama", json!({"layer_types": ["sliding_attention", "full_attention"]}), "`layer_types` is"),
            (
                "tiny-gptneox",
                json!({"rope_parameters": null, "rotary_pct": 0.2}),
                "an even number of rotated features, not 3 of",
            ),
        ] {
            refused(&configured(name, keys).1, &["model/config.json`: ", said]);
        }
    }
}

mod tensors {
    use super::*;

    const EMBEDDING: &str = "model.decoder.embed_tokens.weight";

    /// Rows in reverse order.
    fn upside_down(mut tensor: (Vec<usize>, Vec<f32>)) -> (Vec<usize>, Vec<f32>) {
        let rows: Vec<&[f32]> = tensor.1.chunks(tensor.0[1]).rev().collect();
        tensor.1 = rows.concat();
        tensor
    }

    #[test]
    fn a_head_of_the_file_counts_where_the_configuration_ties_it() {
        let llama = configured("tiny-llama", json!({"tie_word_embeddings": true}));
        gives(&llama, LLAMA, "tied, another head");
        llama.1.says(&["warning: `lm_head.weight` of `path:model` differs from `model.embed_tokens.weight`"]);
        let opt = changed("tiny-opt", |model| {
            let head = upside_down(model.tensors[EMBEDDING].clone());
            model.tensors.insert("lm_head.weight".into(), head);
        });
        gives(&opt, 571.300_559_579_766_4, "tied, the table upside down as head");
        opt.1.says(&["warning: `lm_head.weight`"]);
        let equal = changed("tiny-opt", |model| {
            let head = model.tensors[EMBEDDING].clone();
            model.tensors.insert("lm_head.weight".into(), head);
        });
        gives(&equal, OPT, "tied, an equal head");
        assert!(!equal.1.stderr.contains("warning"), "{}", equal.1.stderr);
    }

    #[test]
    fn exports_keep_a_head_of_their_own() {
        let lab = lab();
        lab.write(
            "e.toml",
            format!("{EXPERIMENT}[[prune]]\nmethod = \"magnitude\"\nsparsity = 0.5\n")
                .replace("[\"dense\"]", "[\"masked\"]"),
        );
        let mut model = Model::golden("tiny-llama");
        model.config["tie_word_embeddings"] = true.into();
        model.save(&lab.path("model"));
        lab.run(["export", "e.toml", "--to", "out"]).exits(0);
        let bytes = std::fs::read(lab.path("out/model.safetensors")).unwrap();
        assert!(safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("lm_head.weight").is_ok());
    }

    #[test]
    fn a_tied_pair_under_the_name_of_the_head() {
        let opt = changed("tiny-opt", |model| {
            let table = model.tensors.remove(EMBEDDING).unwrap();
            model.tensors.insert("lm_head.weight".into(), table);
        });
        gives(&opt, OPT, "opt");
        let llama = changed("tiny-llama", |model| {
            model.config["tie_word_embeddings"] = true.into();
            model.tensors.remove("model.embed_tokens.weight");
        });
        gives(&llama, 634.903_233_408_599_5, "llama");
    }

    #[test]
    fn names_with_something_around_them() {
        for prefix in ["_orig_mod.", "module.", "module._orig_mod.", "base_model.model.", "model."] {
            let llama = changed("tiny-llama", |model| {
                let tensors = std::mem::take(&mut model.tensors);
                model.tensors = tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
            });
            gives(&llama, LLAMA, prefix);
        }
        let opt = changed("tiny-opt", |model| {
            let tensors = std::mem::take(&mut model.tensors);
            let renamed = |name: String| format!("module.{}", name.replace(".layers.0.", ".layers.0._orig_mod."));
            model.tensors = tensors.into_iter().map(|(name, tensor)| (renamed(name), tensor)).collect();
        });
        gives(&opt, OPT, "compiled layer by layer");
    }

    #[test]
    fn adapters_in_the_file() {
        for name in ["lora_A.weight", "lora_B.default.weight"] {
            let (_, outcome) = changed("tiny-llama", |model| {
                let tensors = std::mem::take(&mut model.tensors);
                let prefixed = tensors.into_iter().map(|(name, tensor)| (format!("base_model.model.{name}"), tensor));
                model.tensors = prefixed.collect();
                let name = format!("base_model.model.model.layers.0.self_attn.q_proj.{name}");
                model.tensors.insert(name, (vec![1], vec![0.0]));
            });
            refused(&outcome, &["has tensors of an adapter", name, "hint: merge the adapter"]);
        }
    }

    /// `torch.nn.utils.prune` keeps the weights before and a mask.
    #[test]
    fn masks_of_pytorch() {
        let mask = |model: &mut Model, wanted: &dyn Fn(&str) -> bool, kept: &dyn Fn(usize) -> bool| {
            let names: Vec<String> = model.tensors.keys().filter(|name| wanted(name)).cloned().collect();
            for name in names {
                let (shape, numbers) = model.tensors.remove(&name).unwrap();
                let mask = (0..numbers.len()).map(|i| f32::from(u8::from(kept(i)))).collect();
                model.tensors.insert(format!("{name}_mask"), (shape.clone(), mask));
                model.tensors.insert(format!("{name}_orig"), (shape, numbers));
            }
        };
        let llama = changed("tiny-llama", |model| {
            mask(model, &|name| name.ends_with("_proj.weight"), &|i| !i.is_multiple_of(3))
        });
        gives(&llama, 591.064_692_155_553_3, "every third weight of projections gone");
        let opt = changed("tiny-opt", |model| mask(model, &|name| name.contains(".fc1."), &|i| i.is_multiple_of(2)));
        gives(&opt, 596.777_996_791_179_6, "every second weight and bias of fc1 gone");
    }

    #[test]
    fn a_classifier_is_told_from_a_language_model() {
        for (name, head) in [("tiny-llama", "lm_head.weight"), ("tiny-gptneox", "embed_out.weight")] {
            let (_, outcome) = changed(name, |model| {
                let (_, numbers) = model.tensors.remove(head).unwrap();
                model.tensors.insert("score.weight".into(), (vec![2, 64], numbers[..128].to_vec()));
            });
            refused(&outcome, &[&format!("`{head}` is missing"), "the files have", "`score.weight`"]);
        }
    }
}

mod folders {
    use super::*;

    /// The tiny checkpoint with files added and taken away.
    fn with(added: &[(&str, &[u8])], gone: &[&str]) -> Outcome {
        let lab = lab();
        Model::tiny().save(&lab.path("model"));
        gone.iter().for_each(|name| std::fs::remove_file(lab.path("model").join(name)).unwrap());
        added.iter().for_each(|(name, bytes)| lab.write(&format!("model/{name}"), bytes));
        lab.run(["run", "e.toml"])
    }

    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";

    #[test]
    fn pointers_of_git_lfs() {
        for name in ["config.json", "model.safetensors"] {
            refused(&with(&[(name, POINTER)], &[]), &[name, "is a Git LFS pointer", "hint: run `git lfs pull`"]);
        }
        let outcome = with(&[("model.safetensors.index.json", POINTER)], &["model.safetensors"]);
        refused(&outcome, &["index.json", "is a Git LFS pointer", "hint: run `git lfs pull`"]);
    }

    #[test]
    fn adapters() {
        let config: (&str, &[u8]) = ("adapter_config.json", br#"{"peft_type": "LORA"}"#);
        for gone in [&["config.json", "model.safetensors"][..], &["model.safetensors"], &[]] {
            refused(&with(&[config], gone), &["`path:model` is an adapter", "hint: merge the adapter into its base"]);
        }
        let outcome = with(&[("adapter_model.safetensors", b"")], &["model.safetensors"]);
        refused(&outcome, &["`path:model` is an adapter"]);
    }

    #[test]
    fn gguf() {
        let file: (&str, &[u8]) = ("tiny.Q4_K_M.gguf", b"GGUF\x03\0\0\0");
        for gone in [&["config.json", "tokenizer.json", "model.safetensors"][..], &["model.safetensors"]] {
            refused(&with(&[file], gone), &["in the GGUF file `tiny.Q4_K_M.gguf`", "hint: take the checkpoint that"]);
        }
        let lab = lab();
        lab.write("model", b"GGUF");
        refused(&lab.run(["run", "e.toml"]), &["`model` is a file, and `path:` names a folder"]);
        lab.write("x.gguf", b"GGUF");
        let outcome = lab.run(["run", "e.toml", "-s", "model.source=\"path:x.gguf\""]);
        refused(&outcome, &["in the GGUF file `x.gguf`"]);
    }

    #[test]
    fn weights_that_are_not_there() {
        let outcome = with(&[], &["model.safetensors"]);
        refused(&outcome, &["`path:model` has no weights: looked for model.safetensors", "hint: put the weights into"]);
        assert!(!outcome.stderr.contains("save it again"), "{}", outcome.stderr);
        for name in ["tf_model.h5", "consolidated.00.pth"] {
            refused(&with(&[(name, b"x")], &["model.safetensors"]), &[&format!("has its weights in `{name}`")]);
        }
    }

    /// What a broken download leaves in the hub's cache is no sign of a model without weights.
    #[test]
    fn weights_that_were_never_downloaded() {
        let cached = |files: &[(&str, &[u8])]| {
            let lab = lab();
            let root = "hub/hub/models--org--tiny";
            let commit = "0123456789abcdef0123456789abcdef01234567";
            lab.write(&format!("{root}/refs/main"), commit);
            files.iter().for_each(|(name, bytes)| lab.write(&format!("{root}/snapshots/{commit}/{name}"), bytes));
            lab.run(["run", "e.toml", "-s", "model.source=\"hf:org/tiny\""])
        };
        let model = Model::tiny();
        let (config, tokenizer) = (model.config.to_string(), model.tokenizer.to_string());
        let config: (&str, &[u8]) = ("config.json", config.as_bytes());
        let tokenizer: (&str, &[u8]) = ("tokenizer.json", tokenizer.as_bytes());
        for (files, absent) in [
            (&[config, tokenizer][..], "model.safetensors"),
            (&[config], "tokenizer.json"),
            (&[tokenizer], "config.json"),
        ] {
            let outcome = cached(files);
            refused(&outcome, &[&format!("`{absent}` of model `org/tiny` is not in the cache"), "without `--offline`"]);
            assert!(!outcome.stderr.contains("save it again"), "{}", outcome.stderr);
        }
        let adapter: (&str, &[u8]) = ("adapter_config.json", b"{}");
        refused(&cached(&[adapter]), &["`hf:org/tiny` is an adapter"]);
    }

    #[test]
    fn a_pickle_under_another_name() {
        for bytes in [&b"PK\x03\x04\x14\0\0\0\0\0"[..], b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20"] {
            let outcome = with(&[("model.safetensors", bytes)], &[]);
            refused(&outcome, &["is a PyTorch checkpoint under the name of a safetensors file", "pytorch_model.bin"]);
        }
    }

    /// A device or a pipe would be read for ever.
    #[cfg(unix)]
    #[test]
    fn devices_and_pipes() {
        for name in ["config.json", "model.safetensors"] {
            let lab = lab();
            Model::tiny().save(&lab.path("model"));
            let path = lab.path("model").join(name);
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            refused(&lab.run(["run", "e.toml"]), &[name, "not a regular file"]);
            std::fs::remove_file(&path).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            refused(&lab.run(["run", "e.toml"]), &[name, "not a regular file"]);
        }
    }

    #[test]
    fn quantised_weights() {
        for (settings, said) in [
            (json!({"quant_method": "gptq", "bits": 4}), "(gptq)"),
            (
                json!({"quant_method": "compressed-tensors", "format": "float-quantized"}),
                "(compressed-tensors, float-quantized)",
            ),
            (json!({"quant_method": "fbgemm_fp8"}), "(fbgemm_fp8)"),
            (json!({"load_in_8bit": true}), "(bitsandbytes)"),
        ] {
            let (_, outcome) = changed("tiny-opt", |model| model.config["quantization_config"] = settings);
            refused(&outcome, &["the weights of `path:model` are quantised or compressed", said, "dequantise first"]);
            assert!(!outcome.stderr.contains("float32 and save"), "{}", outcome.stderr);
        }
        // Old checkpoints say nothing in their configuration.
        for (suffix, method) in [("qweight", "GPTQ or AWQ"), ("weight_packed", "compressed-tensors")] {
            let (_, outcome) = changed("tiny-opt", |model| {
                let block = "model.decoder.layers.0.fc1";
                let tensor = model.tensors.remove(&format!("{block}.weight")).unwrap();
                model.tensors.insert(format!("{block}.{suffix}"), tensor);
            });
            refused(&outcome, &[method, &format!("fc1.{suffix}"), "dequantise first"]);
        }
    }

    #[test]
    fn two_shards_with_one_tensor() {
        for (shard, keeps) in [("1.safetensors", true), ("2.safetensors", false)] {
            let lab = lab();
            let (mut first, mut second) = (Model::golden("tiny-llama"), Model::golden("tiny-llama"));
            let twice = "model.embed_tokens.weight";
            first.tensors.retain(|name, _| name.starts_with("model."));
            second.tensors.retain(|name, _| !name.starts_with("model.") || name == twice);
            // The copy in the second shard has no word right.
            second.tensors.get_mut(twice).unwrap().1.reverse();
            let mut map = serde_json::Map::new();
            first.tensors.keys().for_each(|name| drop(map.insert(name.clone(), "1.safetensors".into())));
            second.tensors.keys().for_each(|name| drop(map.insert(name.clone(), "2.safetensors".into())));
            map.insert(twice.into(), shard.into());
            first.save(&lab.path("model"));
            std::fs::remove_file(lab.path("model/model.safetensors")).unwrap();
            lab.write("model/1.safetensors", first.safetensors());
            lab.write("model/2.safetensors", second.safetensors());
            lab.write("model/model.safetensors.index.json", json!({"weight_map": map}).to_string());
            let outcome = lab.run(["run", "e.toml"]);
            outcome.exits(0);
            let row = lab.table("results/e/tables/summary.csv").remove(0);
            let found: f64 = row["perplexity"].parse().unwrap();
            assert_eq!((found - LLAMA).abs() < 2e-5 * LLAMA, keeps, "{shard}: {found}");
        }
    }
}

mod memory {
    use super::*;

    /// Keys and values of so many sequences that no machine has memory for them; random weights, never drawn.
    const EXPERIMENT: &str = r#"name = "e"
[model]
source = "synthetic:MODEL"
[measure]
metrics = ["latency"]
batch = [20000]
prompt = [2000]
generate = 16
[execute]
variants = ["dense"]
"#;

    #[test]
    fn a_run_that_needs_too_much_stops() {
        for model in ["llama-2-7b", "mistral-7b"] {
            let lab = Lab::with(&EXPERIMENT.replace("MODEL", model));
            let said = format!("`synthetic:{model} Dense flex f32` may take");
            let outcome = lab.run(["run", "e.toml"]);
            refused(&outcome, &[&said, "GiB of memory, and this machine has", "hint: ", "--ignore-memory"]);
            assert!(!lab.path("results").exists());
            lab.run(["plan", "e.toml"]).exits(0).says(&["warning: ", &said, "`run` stops unless"]);
        }
    }
}
